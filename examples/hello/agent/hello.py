"""A process per task, without any package: the task comes on standard input, the answer goes to standard output."""
import json
import os
import sys
import urllib.request

task = json.load(sys.stdin)
print("working on", task["task"], "attempt", task["attempt"], file=sys.stderr)  # shows in `mainstay logs hello`

request = urllib.request.Request(
    os.environ["OPENAI_BASE_URL"] + "/chat/completions",
    data=json.dumps({
        "model": "script/demo",
        "messages": [
            {"role": "assistant" if turn["role"] == "agent" else "user", "content": turn["content"]}
            for turn in task["history"]
        ] + [{"role": "user", "content": task["input"]}],
    }).encode(),
    headers={"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"], "Content-Type": "application/json"},
)
with urllib.request.urlopen(request) as response:
    answer = json.load(response)
print(answer["choices"][0]["message"]["content"])
