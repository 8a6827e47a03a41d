"""An ordinary program on the openai package. It knows nothing of Mainstay but where its task comes from."""
import json
import sys

from openai import OpenAI

task = json.load(sys.stdin)
client = OpenAI()  # OPENAI_BASE_URL and OPENAI_API_KEY are set for it

notes = []
for question in ("What is known?", "What is disputed?", "What follows?"):
    # Kill this process at any point: the next one gets the finished answers from the journal.
    answer = client.chat.completions.create(
        model="gpt-5.1-mini",
        messages=[{"role": "user", "content": f"{task['input']}\n\n{question} One paragraph."}],
    )
    notes.append(answer.choices[0].message.content)

print("\n\n".join(notes))
