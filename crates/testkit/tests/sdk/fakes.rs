//! The agents against the fakes alone, without Mainstay: what fails here is no fault of Mainstay's.

use std::process::Command;
use std::time::Duration;

use serde_json::json;
use testkit::provider::loop_of;
use testkit::{McpServer, Provider, cli};

use crate::agents::{self, Sdk};

fn run_alone(agent: &Sdk) {
    let Some(command) = agent.command() else {
        return;
    };
    let provider = Provider::start(loop_of(5, "record"));
    let tools = McpServer::start();
    let folder = tempfile::tempdir().unwrap();
    if let Some((name, text)) = agent.source() {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let mut process = Command::new(&command[0]);
    process.args(&command[1..]).current_dir(folder.path());
    process
        .env("OPENAI_BASE_URL", provider.openai_url())
        .env("OPENAI_API_KEY", "key")
        .env("OPENAI_AGENTS_DISABLE_TRACING", "1")
        .env("ANTHROPIC_BASE_URL", provider.anthropic_url())
        .env("ANTHROPIC_API_KEY", "key")
        .env("MAINSTAY_TOKEN", "key")
        .env("MAINSTAY_MCP_URL", tools.url())
        .env("STREAM", if agent.stream { "1" } else { "0" });
    let input = json!({"input": "alone"}).to_string();
    let output = cli::finish(process, &input, Duration::from_secs(180));
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (0, "done: alone"),
        "{output:?}"
    );
    let turns: Vec<_> = provider.counts().into_iter().collect();
    let expected: Vec<_> = (0..5).map(|turn| (("alone".to_owned(), turn), 1)).collect();
    assert_eq!(turns, expected);
    assert_eq!(tools.calls().len(), 4);
    let streamed = provider
        .calls()
        .iter()
        .all(|call| call.stream == agent.stream);
    assert!(streamed, "{} streams: {}", agent.name, agent.stream);
}

#[test]
fn python_agents_run_against_the_fakes_alone() {
    let all = [
        agents::CHAT,
        agents::CHAT_STREAM,
        agents::RESPONSES,
        agents::RESPONSES_STREAM,
        agents::MESSAGES,
        agents::MESSAGES_STREAM,
        agents::LANGGRAPH,
        agents::AGENTS_SDK,
    ];
    all.iter().for_each(run_alone);
}

#[test]
fn node_agents_run_against_the_fakes_alone() {
    [agents::NODE_CHAT, agents::NODE_MESSAGES]
        .iter()
        .for_each(run_alone);
}
