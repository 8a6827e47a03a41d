//! What the hub and a long-running agent say to each other over the WebSocket at `/attach`.
//!
//! A service of protocol `attach` dials in with its token, says hello, and is then given tasks.
//! Every message is one JSON object in one text frame, told apart by `type`. Unknown fields and
//! unknown types are ignored, so that either side may be newer. `docs/reference/contract.md` is
//! this file for agents' authors: change both.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Versions;

/// From the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum FromAgent {
    /// The first message.
    Hello { versions: Versions },
    /// Text of a task's answer, as it comes. Optional.
    Chunk { task: String, text: String },
    /// A task's answer: a string is text, anything else JSON. It ends the task.
    Done { task: String, output: Value },
    /// The task can't be done, by the agent's own judgement. It fails for good.
    Fail { task: String, message: String },
    /// Asks for a `pong`, where WebSocket's own pings are out of reach.
    Ping,
    /// Of a newer version.
    #[serde(other)]
    Unknown,
}

/// To the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum ToAgent {
    /// The answer to `hello`; the newest version that both speak counts.
    Hello { versions: Versions },
    /// A task to do: the object that an `exec` agent finds on standard input.
    Task {
        #[serde(flatten)]
        body: Map<String, Value>,
    },
    /// The task is canceled, parked or somebody else's now: stop. An answer would be ignored.
    Cancel { task: String },
    /// The answer to `ping`.
    Pong,
    /// Why the hub closes the connection.
    Error { message: String },
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn messages_are_told_apart_by_type_and_unknown_ones_are_known_as_such() {
        let read = |value: Value| serde_json::from_value::<FromAgent>(value).unwrap();
        assert_eq!(
            read(json!({"type": "done", "task": "t", "output": {"a": 1}, "later": true})),
            FromAgent::Done {
                task: "t".into(),
                output: json!({"a": 1})
            }
        );
        assert_eq!(
            read(json!({"type": "progress", "percent": 3})),
            FromAgent::Unknown
        );
        let task = ToAgent::Task {
            body: json!({"task": "t", "input": "x"})
                .as_object()
                .unwrap()
                .clone(),
        };
        assert_eq!(
            serde_json::to_value(task).unwrap(),
            json!({"type": "task", "task": "t", "input": "x"})
        );
    }
}
