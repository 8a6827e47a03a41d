"""Keeps its conversation in a file on its volume and goes on from there after a restart."""

import json
import os
import sys
from pathlib import Path

from openai import OpenAI

task = json.load(sys.stdin)
openai = OpenAI()
kept = Path(os.environ["MAINSTAY_VOLUME"], f"{task['task']}.json")
messages = json.loads(kept.read_text()) if kept.exists() else [{"role": "user", "content": task["input"]}]
while True:
    turns = sum(message["role"] == "assistant" for message in messages)
    if turns == 6:
        break
    answer = openai.chat.completions.create(model="fake-1", messages=messages).choices[0].message.content
    messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": "go on"}]
    beside = kept.with_suffix(".new")
    beside.write_text(json.dumps(messages))
    beside.rename(kept)
print(messages[-2]["content"], end="")
