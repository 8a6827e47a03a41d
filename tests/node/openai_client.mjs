// A client on the openai package for Node that talks to a fleet as if it were OpenAI.

import OpenAI from "openai";

const openai = new OpenAI();
const model = process.env.AGENT;
const got = {};
const chat = (content) => ({ model, messages: [{ role: "user", content }] });

const whole = await openai.chat.completions.create(chat("chat"));
got.chat = whole.choices[0].message.content;

const stream = openai.chat.completions.stream(chat("chat-stream"));
got.chatStream = await stream.finalContent();

const response = await openai.responses.create({ model, input: "responses" });
got.responses = response.output_text;

process.stdout.write(JSON.stringify(got));
