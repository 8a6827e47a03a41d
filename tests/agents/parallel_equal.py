"""Asks the same thing eight times at once, then once more with all the answers."""

import asyncio
import json
import sys

from openai import AsyncOpenAI


async def main():
    task = json.load(sys.stdin)
    openai = AsyncOpenAI()

    async def ask(content):
        messages = [{"role": "user", "content": content}]
        answer = await openai.chat.completions.create(model="fake-1", messages=messages)
        return answer.choices[0].message.content

    answers = await asyncio.gather(*(ask(f"{task['input']} draft") for _ in range(8)))
    print(await ask(f"{task['input']} choose: {sorted(answers)}"), end="")


asyncio.run(main())
