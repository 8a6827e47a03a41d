"""An ordinary agent on the openai package: Chat Completions in a loop, tools over MCP.

Nothing in it knows about crashes. STREAM=1 makes it stream.
"""

import asyncio
import json
import os
import sys

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from openai import AsyncOpenAI


async def ask(openai, messages, tools):
    if os.environ.get("STREAM") != "1":
        answer = await openai.chat.completions.create(model="fake-1", messages=messages, tools=tools)
        return answer.choices[0].message.model_dump(exclude_none=True)
    stream = await openai.chat.completions.create(
        model="fake-1", messages=messages, tools=tools, stream=True
    )
    content, calls = "", {}
    async for chunk in stream:
        if not chunk.choices:
            continue
        delta = chunk.choices[0].delta
        content += delta.content or ""
        for part in delta.tool_calls or []:
            call = calls.setdefault(part.index, {"id": "", "name": "", "arguments": ""})
            call["id"] += part.id or ""
            call["name"] += part.function.name or ""
            call["arguments"] += part.function.arguments or ""
    message = {"role": "assistant", "content": content}
    if calls:
        message["tool_calls"] = [
            {"id": c["id"], "type": "function", "function": {"name": c["name"], "arguments": c["arguments"]}}
            for _, c in sorted(calls.items())
        ]
    return message


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
                    "function": {"name": t.name, "description": t.description, "parameters": t.input_schema},
                }
                for t in listed.tools
            ]
            messages = [{"role": "user", "content": task["input"]}]
            while True:
                message = await ask(openai, messages, tools)
                messages.append(message)
                if not message.get("tool_calls"):
                    print(message["content"], end="")
                    return
                for call in message["tool_calls"]:
                    function = call["function"]
                    result = await mcp.call_tool(function["name"], json.loads(function["arguments"]))
                    text = "".join(block.text for block in result.content)
                    messages.append({"role": "tool", "tool_call_id": call["id"], "content": text})


asyncio.run(main())
