"""Writes the time into its system prompt, as many agents do, and asks six times."""

import json
import sys
from datetime import datetime

from openai import OpenAI

task = json.load(sys.stdin)
openai = OpenAI()
messages = [
    {"role": "system", "content": f"You are helpful. It is {datetime.now().isoformat(sep=' ', timespec='seconds')}."},
    {"role": "user", "content": task["input"]},
]
for _ in range(6):
    answer = openai.chat.completions.create(model="fake-1", messages=messages).choices[0].message.content
    messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": "go on"}]
print(answer, end="")
