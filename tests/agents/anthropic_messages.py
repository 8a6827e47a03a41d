"""An ordinary agent on the anthropic package: Messages in a loop, tools over MCP."""

import asyncio
import json
import os
import sys

import httpx2
from anthropic import AsyncAnthropic
from mcp import Client
from mcp.client.streamable_http import streamable_http_client


async def ask(anthropic, messages, tools):
    arguments = {"model": "fake-1", "max_tokens": 1024, "messages": messages, "tools": tools}
    if os.environ.get("STREAM") != "1":
        return await anthropic.messages.create(**arguments)
    async with anthropic.messages.stream(**arguments) as stream:
        return await stream.get_final_message()


async def main():
    task = json.load(sys.stdin)
    token = os.environ["MAINSTAY_TOKEN"]
    anthropic = AsyncAnthropic()
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=60) as http:
        async with Client(streamable_http_client(os.environ["MAINSTAY_MCP_URL"], http_client=http)) as mcp:
            listed = await mcp.list_tools()
            tools = [
                {"name": t.name, "description": t.description, "input_schema": t.input_schema}
                for t in listed.tools
            ]
            messages = [{"role": "user", "content": task["input"]}]
            while True:
                message = await ask(anthropic, messages, tools)
                content = [block.model_dump(exclude_none=True) for block in message.content]
                messages.append({"role": "assistant", "content": content})
                if message.stop_reason != "tool_use":
                    print("".join(block.text for block in message.content if block.type == "text"), end="")
                    return
                results = []
                for block in message.content:
                    if block.type == "tool_use":
                        result = await mcp.call_tool(block.name, block.input)
                        text = "".join(part.text for part in result.content)
                        results.append({"type": "tool_result", "tool_use_id": block.id, "content": text})
                messages.append({"role": "user", "content": results})


asyncio.run(main())
