//! What `mainstay run` says of a task that nobody has begun: who should, and why it can't.
//!
//! A service that never becomes ready would else keep a person waiting without a word. Every look is
//! two small requests; a line is written only where it says something new.

use std::time::Duration;

use serde_json::Value;

use crate::client::Client;
use crate::output::{cell, printable};
use crate::task::{self, items};

/// Long enough for what starts as it should.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Tells on standard error. Never returns: the wait decides when it is over.
pub(super) async fn tell(client: &Client, id: &str, agent: &str) {
    let mut told = String::new();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(line) = look(client, id, agent).await else {
            continue;
        };
        if line != told {
            eprintln!("{line}");
            told = line;
        }
    }
}

/// `None` for a task that somebody works on, and while the hub is away.
async fn look(client: &Client, id: &str, agent: &str) -> Option<String> {
    let task = client.get(&task::path(id, "")).await.ok()?;
    if cell(&task, "state") != "submitted" {
        return None;
    }
    // The hub knows it where another task, a person's stop or a provider is in the way.
    if let Some(why) = task.pointer("/error/message").and_then(Value::as_str) {
        return Some(printable(&format!("waits: {why}")));
    }
    let list = client.get("/api/v1/instances").await.ok()?;
    let instances: Vec<&Value> = items(&list)
        .filter(|instance| cell(instance, "agent") == agent)
        .collect();
    Some(line(agent, &instances))
}

fn line(agent: &str, instances: &[&Value]) -> String {
    let state = |instance: &&Value| {
        let (name, state) = (cell(instance, "name"), cell(instance, "state"));
        let restarts = instance.get("restarts").and_then(Value::as_u64);
        let mut text = format!("{name} is {state}");
        if let Some(restarts @ 1..) = restarts.filter(|_| state == "starting") {
            text.push_str(&format!(" (ended {restarts} times)"));
        }
        let error = instance.get("lastError").and_then(Value::as_str);
        if let Some(error) = error.filter(|_| state == "starting") {
            text.push_str(&format!(": {}", error.replace('\n', " / ")));
        }
        text
    };
    if instances.is_empty() {
        return format!("waits: {agent} has no instance; mainstay get agent {agent}");
    }
    let states: Vec<String> = instances.iter().map(state).collect();
    printable(&format!("waits: {}", states.join("; ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_says_who_is_waited_for_and_why() {
        let busy = json!({"name": "a-0", "state": "working", "restarts": 1, "lastError": "old"});
        let broken = json!({"name": "a-1", "state": "starting", "restarts": 2, "lastError": "no\nport\u{1b}"});
        assert_eq!(
            line("a", &[&busy, &broken]),
            "waits: a-0 is working; a-1 is starting (ended 2 times): no / port·"
        );
        assert!(line("a", &[]).contains("no instance"));
    }
}
