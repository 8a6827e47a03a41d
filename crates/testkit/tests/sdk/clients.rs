//! The official SDKs as clients: an agent looks like a model of OpenAI's, or is talked to over a
//! WebSocket. The agent is the built-in one, with a tool.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::provider::loop_of;
use testkit::{Fleet, McpServer, Provider, Up, cli, sdk};

struct World {
    up: Up,
    provider: Provider,
    tools: McpServer,
}

fn world() -> World {
    let provider = Provider::start(loop_of(3, "record"));
    let tools = McpServer::start();
    let fleet = Fleet::new().with(
        "fleet.yaml",
        &format!(
            r#"apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {{name: fake}}
spec: {{type: openai, baseUrl: "{}"}}
---
apiVersion: mainstay.dev/v1alpha1
kind: ToolRegistry
metadata: {{name: desk}}
spec: {{tools: [{{name: notes, mcp: {{url: "{}"}}}}]}}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {{name: helper}}
spec: {{models: [fake/fake-1], instructions: Use the tool., tools: [desk/notes]}}
"#,
            provider.openai_url(),
            tools.url()
        ),
    );
    World {
        up: Up::start(fleet),
        provider,
        tools,
    }
}

/// Runs a client program against the world and returns the JSON it printed.
fn client(world: &World, program: &Path, script: &Path) -> Value {
    let mut process = Command::new(program);
    let base = format!("http://127.0.0.1:{}", world.up.port());
    let socket = format!("ws://127.0.0.1:{}/ws/helper", world.up.port());
    process
        .arg(script)
        .env("OPENAI_BASE_URL", format!("{base}/v1"))
        .env("OPENAI_API_KEY", world.up.token())
        .env(
            "URL",
            format!("{socket}?session=web&token={}", world.up.token()),
        )
        .env("AGENT", "helper");
    let output = cli::finish(process, "", Duration::from_secs(90));
    assert_eq!(output.code, 0, "{output:?}\n{}", world.up.tail());
    output.json()
}

fn python(script: &str) -> Option<(World, Value)> {
    let python = sdk::python(script)?;
    let world = world();
    let script = sdk::tests_folder().join("clients").join(script);
    let got = client(&world, &python, &script);
    Some((world, got))
}

#[test]
fn the_openai_package_takes_an_agent_for_a_model() {
    let Some((world, got)) = python("openai_client.py") else {
        return;
    };
    let expected = json!({
        "models": ["helper"],
        "chat": "done: chat", "chatFinish": "stop", "chatTokens": 300,
        "chatStream": "done: chat-stream",
        "responses": "done: responses",
        "responsesStream": "done: responses-stream",
        "responsesStreamFinal": "done: responses-stream",
        "unknown": 404,
    });
    assert_eq!(got, expected);
    assert_eq!(world.provider.calls().len(), 4 * 3);
    assert_eq!(world.tools.calls().len(), 4 * 2);
}

#[test]
fn the_websockets_package_sees_the_tools_the_text_and_the_task() {
    let Some((world, got)) = python("websocket_client.py") else {
        return;
    };
    let frames = got.as_array().unwrap();
    let of = |kind: &'static str| frames.iter().filter(move |frame| frame["type"] == kind);
    assert_eq!(of("tool_call").count(), 2, "{got}");
    assert_eq!(of("tool_result").count(), 2, "{got}");
    let text: String = of("chunk")
        .filter_map(|frame| frame["text"].as_str())
        .collect();
    assert_eq!(text, "done: websocket", "{got}");
    let done = of("done").next().unwrap();
    let task = done["task"]["id"]
        .as_str()
        .or_else(|| done["task"].as_str());
    let shown = world.up.task(task.unwrap()).unwrap();
    assert_eq!(
        (&shown["state"], &shown["session"]),
        (&json!("completed"), &json!("web"))
    );
}

#[test]
fn the_openai_package_for_node_takes_an_agent_for_a_model() {
    let Some(node) = sdk::node("openai_client.mjs") else {
        return;
    };
    let world = world();
    let got = client(&world, Path::new("node"), &node.join("openai_client.mjs"));
    let expected = json!({
        "chat": "done: chat", "chatStream": "done: chat-stream", "responses": "done: responses",
    });
    assert_eq!(got, expected);
}
