// An ordinary agent on the anthropic package for Node: Messages, streamed, tools over MCP.

import Anthropic from "@anthropic-ai/sdk";
import { connect, task } from "./mcp.mjs";

const anthropic = new Anthropic();
const { input } = await task();
const mcp = await connect();
const tools = mcp.tools.map((tool) => ({
  name: tool.name,
  description: tool.description,
  input_schema: tool.inputSchema,
}));
const messages = [{ role: "user", content: input }];
for (;;) {
  const stream = anthropic.messages.stream({ model: "fake-1", max_tokens: 1024, messages, tools });
  const message = await stream.finalMessage();
  messages.push({ role: "assistant", content: message.content });
  if (message.stop_reason !== "tool_use") {
    process.stdout.write(message.content.map((block) => block.text ?? "").join(""));
    break;
  }
  const results = [];
  for (const block of message.content) {
    if (block.type !== "tool_use") continue;
    const content = await mcp.call(block.name, block.input);
    results.push({ type: "tool_result", tool_use_id: block.id, content });
  }
  messages.push({ role: "user", content: results });
}
