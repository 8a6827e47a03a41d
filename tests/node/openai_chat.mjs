// An ordinary agent on the openai package for Node: Chat Completions, streamed, tools over MCP.

import OpenAI from "openai";
import { connect, task } from "./mcp.mjs";

const openai = new OpenAI();
const { input } = await task();
const mcp = await connect();
const tools = mcp.tools.map((tool) => ({
  type: "function",
  function: { name: tool.name, description: tool.description, parameters: tool.inputSchema },
}));
const messages = [{ role: "user", content: input }];
for (;;) {
  const stream = openai.chat.completions.stream({ model: "fake-1", messages, tools });
  const { message } = (await stream.finalChatCompletion()).choices[0];
  messages.push({ role: "assistant", content: message.content, tool_calls: message.tool_calls });
  if (!message.tool_calls?.length) {
    process.stdout.write(message.content);
    break;
  }
  for (const call of message.tool_calls) {
    const content = await mcp.call(call.function.name, JSON.parse(call.function.arguments));
    messages.push({ role: "tool", tool_call_id: call.id, content });
  }
}
