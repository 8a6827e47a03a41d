"""An ordinary agent on the OpenAI Agents SDK, which brings its own loop and its own MCP client."""

import asyncio
import json
import os
import sys

from agents import Agent, Runner
from agents.mcp import MCPServerStreamableHttp


async def main():
    task = json.load(sys.stdin)
    params = {
        "url": os.environ["MAINSTAY_MCP_URL"],
        "headers": {"Authorization": f"Bearer {os.environ['MAINSTAY_TOKEN']}"},
        "timeout": 60,
    }
    async with MCPServerStreamableHttp(
        params=params, cache_tools_list=True, client_session_timeout_seconds=60
    ) as tools:
        agent = Agent(name="worker", instructions="Use the tool.", model="fake-1", mcp_servers=[tools])
        result = await Runner.run(agent, task["input"], max_turns=100)
        print(result.final_output, end="")


asyncio.run(main())
