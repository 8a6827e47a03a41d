"""An ordinary LangGraph agent: a model node and a tool node in a cycle, tools over MCP."""

import asyncio
import json
import os
import sys

import httpx2
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph
from mcp import Client
from mcp.client.streamable_http import streamable_http_client


async def main():
    task = json.load(sys.stdin)
    token = os.environ["MAINSTAY_TOKEN"]
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=60) as http:
        async with Client(streamable_http_client(os.environ["MAINSTAY_MCP_URL"], http_client=http)) as mcp:
            listed = await mcp.list_tools()
            tools = [
                {
                    "type": "function",
                    "function": {"name": t.name, "description": t.description, "parameters": t.input_schema},
                }
                for t in listed.tools
            ]
            model = ChatOpenAI(model="fake-1").bind_tools(tools)

            async def think(state):
                return {"messages": [await model.ainvoke(state["messages"])]}

            async def act(state):
                answers = []
                for call in state["messages"][-1].tool_calls:
                    result = await mcp.call_tool(call["name"], call["args"])
                    text = "".join(block.text for block in result.content)
                    answers.append(ToolMessage(text, tool_call_id=call["id"]))
                return {"messages": answers}

            def route(state):
                return "act" if state["messages"][-1].tool_calls else END

            graph = StateGraph(MessagesState)
            graph.add_node("think", think)
            graph.add_node("act", act)
            graph.add_edge(START, "think")
            graph.add_conditional_edges("think", route, ["act", END])
            graph.add_edge("act", "think")
            state = {"messages": [HumanMessage(task["input"])]}
            end = await graph.compile().ainvoke(state, {"recursion_limit": 200})
            print(end["messages"][-1].content, end="")


asyncio.run(main())
