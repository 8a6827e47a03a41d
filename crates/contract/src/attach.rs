//! What the hub and a long-running agent say to each other over the WebSocket at `/attach`.
//!
//! A service of protocol `attach` dials in with its token, says hello, and is then given tasks.
//! Every message is one JSON object in one text frame, told apart by `type`. Unknown fields and
//! unknown types are ignored, so that either side may be newer. `docs/reference/contract.md` is
//! made from this file and `attach.md`, by `cargo xtask docs`: the comments on messages and fields
//! are for agents' authors.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Versions;

/// The largest message either side takes.
pub const MAX_MESSAGE_BYTES: usize = 32 * 1024 * 1024;
/// What an agent has for its first message.
pub const HELLO: Duration = Duration::from_secs(10);
/// Between the hub's WebSocket pings.
pub const PING: Duration = Duration::from_secs(20);
/// A connection that says nothing for so long is closed.
pub const SILENCE: Duration = Duration::from_secs(60);

/// From the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum FromAgent {
    /// The first message
    Hello {
        /// the oldest and the newest you know
        versions: Versions,
    },
    /// Text of the answer as it comes, for whoever watches. Optional; the whole answer comes with
    /// `done`
    Chunk { task: String, text: String },
    /// The answer. It ends the task
    Done {
        task: String,
        /// a string is text, anything else JSON
        output: Value,
    },
    /// The task can't be done, by the agent's own judgement. It fails for good
    Fail { task: String, message: String },
    /// Asks for a `pong`; WebSocket's own pings do as well
    Ping,
    /// Of a newer version.
    #[serde(other)]
    #[cfg_attr(feature = "schema", schemars(skip))]
    Unknown,
}

/// To the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum ToAgent {
    /// The answer to your `hello`; the newest version that both speak counts
    Hello {
        /// the oldest and the newest the hub knows
        versions: Versions,
    },
    /// A task to do. Beside `type` it is the object that an `exec` agent finds on standard input:
    /// `task`, `session`, `agent`, `attempt`, `input`, `history`, `token`. With `concurrency` above
    /// 1, calls made for this task must carry `token` (header `Mainstay-Token`)
    Task {
        #[serde(flatten)]
        body: Map<String, Value>,
    },
    /// Stop working on it: it was canceled, parked, or given to another attempt. What you still send
    /// for it is ignored
    Cancel { task: String },
    /// The answer to `ping`
    Pong,
    /// Why the hub closes the connection
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
