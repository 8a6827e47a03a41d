// A few lines of MCP over streamable HTTP: what an ordinary program without an MCP package writes.

let id = 0;

async function post(message) {
  const response = await fetch(process.env.MAINSTAY_MCP_URL, {
    method: "POST",
    headers: {
      authorization: `Bearer ${process.env.MAINSTAY_TOKEN}`,
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
      ...post.session,
    },
    body: JSON.stringify(message),
  });
  const session = response.headers.get("mcp-session-id");
  if (session) post.session = { "mcp-session-id": session };
  if (!response.ok) throw new Error(`MCP: ${response.status} ${await response.text()}`);
  if (response.status === 202) return null;
  const text = await response.text();
  if (!response.headers.get("content-type").startsWith("text/event-stream")) return JSON.parse(text);
  const messages = text
    .split("\n")
    .filter((line) => line.startsWith("data:"))
    .map((line) => JSON.parse(line.slice(5)));
  return messages.find((found) => found.id === message.id);
}

async function request(method, params) {
  const answer = await post({ jsonrpc: "2.0", id: ++id, method, params });
  if (answer.error) throw new Error(`MCP: ${answer.error.message}`);
  return answer.result;
}

export async function connect() {
  const hello = await request("initialize", {
    protocolVersion: "2025-06-18",
    capabilities: {},
    clientInfo: { name: "test", version: "1" },
  });
  post.session = { ...post.session, "mcp-protocol-version": hello.protocolVersion };
  await post({ jsonrpc: "2.0", method: "notifications/initialized" });
  const { tools } = await request("tools/list", {});
  const call = async (name, args) => {
    const result = await request("tools/call", { name, arguments: args });
    return result.content.map((block) => block.text).join("");
  };
  return { tools, call };
}

export async function task() {
  let text = "";
  for await (const chunk of process.stdin) text += chunk;
  return JSON.parse(text);
}
