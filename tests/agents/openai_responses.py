"""An ordinary agent on the openai package: the Responses API in a loop, tools over MCP."""

import asyncio
import json
import os
import sys

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from openai import AsyncOpenAI


async def ask(openai, items, tools):
    if os.environ.get("STREAM") != "1":
        return await openai.responses.create(model="fake-1", input=items, tools=tools)
    async with openai.responses.stream(model="fake-1", input=items, tools=tools) as stream:
        async for _ in stream:
            pass
        return await stream.get_final_response()


async def main():
    task = json.load(sys.stdin)
    token = os.environ["MAINSTAY_TOKEN"]
    openai = AsyncOpenAI()
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=60) as http:
        async with Client(streamable_http_client(os.environ["MAINSTAY_MCP_URL"], http_client=http)) as mcp:
            listed = await mcp.list_tools()
            tools = [
                {
                    "type": "function",
                    "name": t.name,
                    "description": t.description,
                    "parameters": t.input_schema,
                    "strict": False,
                }
                for t in listed.tools
            ]
            items = [{"role": "user", "content": task["input"]}]
            while True:
                response = await ask(openai, items, tools)
                calls = [item for item in response.output if item.type == "function_call"]
                if not calls:
                    print(response.output_text, end="")
                    return
                for call in calls:
                    items.append(
                        {
                            "type": "function_call",
                            "call_id": call.call_id,
                            "name": call.name,
                            "arguments": call.arguments,
                        }
                    )
                    result = await mcp.call_tool(call.name, json.loads(call.arguments))
                    text = "".join(block.text for block in result.content)
                    items.append({"type": "function_call_output", "call_id": call.call_id, "output": text})


asyncio.run(main())
