//! Each SDK as an agent that nobody harms: it completes, and every call is made and counted once.

use std::time::Duration;

use crate::agents::{self, Sdk, Speaks};
use crate::world::{TURNS, World};

fn completes(agent: &Sdk, provided: Speaks) {
    let Some(world) = World::over(agent, provided, 1) else {
        return;
    };
    let task = world.submit(1).remove(0);
    let ends = ["completed", "failed", "input-required", "canceled"];
    let bound = Duration::from_secs(180);
    let _ = world.up.wait_state(&task.id, &ends, bound);
    let shown = world.assert_completed(&task);
    assert_eq!(shown["attempts"], 1, "{shown}");
    assert_eq!(shown["replayed"], 0, "{shown}");
    assert_eq!(shown["repeated"], 0, "{shown}");
    assert_eq!(shown["divergedAt"], serde_json::Value::Null, "{shown}");
    let calls = u64::from(TURNS);
    assert_eq!(shown["usage"]["inputTokens"], 100 * calls, "{shown}");
    assert_eq!(shown["usage"]["outputTokens"], 10 * calls, "{shown}");
    assert_eq!(shown["usage"]["estimated"], false, "{shown}");
    world.assert_effects_once(&task);
    assert_eq!(world.model_calls(&task), vec![1; TURNS as usize]);
    let keys: Vec<_> = world
        .provider
        .calls()
        .into_iter()
        .map(|call| call.credential)
        .collect();
    let own = Some("sk-testkit".to_owned());
    assert!(
        keys.iter().all(|key| *key == own),
        "the hub's key is sent, never the agent's token"
    );
}

#[test]
fn openai_chat_in_python_completes() {
    completes(&agents::CHAT, Speaks::OpenAi);
}

#[test]
fn openai_chat_streamed_in_python_completes() {
    completes(&agents::CHAT_STREAM, Speaks::OpenAi);
}

#[test]
fn openai_responses_in_python_completes() {
    completes(&agents::RESPONSES, Speaks::OpenAi);
}

#[test]
fn openai_responses_streamed_in_python_completes() {
    completes(&agents::RESPONSES_STREAM, Speaks::OpenAi);
}

#[test]
fn anthropic_messages_in_python_completes() {
    completes(&agents::MESSAGES, Speaks::Anthropic);
}

#[test]
fn anthropic_messages_streamed_in_python_completes() {
    completes(&agents::MESSAGES_STREAM, Speaks::Anthropic);
}

#[test]
fn openai_chat_over_an_anthropic_provider_completes() {
    completes(&agents::CHAT_STREAM, Speaks::Anthropic);
}

#[test]
fn openai_responses_over_an_anthropic_provider_completes() {
    completes(&agents::RESPONSES_STREAM, Speaks::Anthropic);
}

#[test]
fn anthropic_messages_over_an_openai_provider_completes() {
    completes(&agents::MESSAGES_STREAM, Speaks::OpenAi);
}

#[test]
fn langgraph_completes() {
    completes(&agents::LANGGRAPH, Speaks::OpenAi);
}

#[test]
fn the_openai_agents_sdk_completes() {
    completes(&agents::AGENTS_SDK, Speaks::OpenAi);
}

#[test]
fn openai_chat_in_node_completes() {
    completes(&agents::NODE_CHAT, Speaks::OpenAi);
}

#[test]
fn anthropic_messages_in_node_completes() {
    completes(&agents::NODE_MESSAGES, Speaks::Anthropic);
}
