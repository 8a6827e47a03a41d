"""A client on the openai package that talks to a fleet as if it were OpenAI. Prints what it got."""

import json
import os

from openai import NotFoundError, OpenAI

openai = OpenAI()
agent = os.environ["AGENT"]
got = {"models": [model.id for model in openai.models.list()]}

messages = [{"role": "user", "content": "chat"}]
whole = openai.chat.completions.create(model=agent, messages=messages)
got["chat"] = whole.choices[0].message.content
got["chatFinish"] = whole.choices[0].finish_reason
got["chatTokens"] = whole.usage.prompt_tokens

messages = [{"role": "user", "content": "chat-stream"}]
stream = openai.chat.completions.create(model=agent, messages=messages, stream=True)
got["chatStream"] = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)

got["responses"] = openai.responses.create(model=agent, input="responses").output_text

with openai.responses.stream(model=agent, input="responses-stream") as stream:
    deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
    got["responsesStream"] = "".join(deltas)
    got["responsesStreamFinal"] = stream.get_final_response().output_text

try:
    openai.chat.completions.create(model="nobody", messages=messages)
    got["unknown"] = "answered"
except NotFoundError as error:
    got["unknown"] = error.status_code

print(json.dumps(got))
