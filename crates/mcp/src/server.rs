//! A server's side without HTTP: what a client asks, and the shapes of the answers.
//!
//! Tools are the only feature that is offered. A result is written for the revision that the
//! request was made in: the stateless one wants `resultType` and how long a list stays fresh.

use serde_json::{Map, Value, json};

use crate::message::{self, INVALID_PARAMS, METHOD_NOT_FOUND, Message, UNSUPPORTED_VERSION};
use crate::tool::Tool;
use crate::version::{self, SERVER_INFO_META, SPOKEN, STATELESS, VERSION_META};

/// What a client asks.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    Initialize {
        id: Value,
        version: &'static str,
    },
    Discover {
        id: Value,
    },
    Ping {
        id: Value,
        stateless: bool,
    },
    ListTools {
        id: Value,
        stateless: bool,
    },
    CallTool {
        id: Value,
        stateless: bool,
        name: String,
        arguments: Value,
    },
    /// A notification, or a response to something that was never asked: nothing to answer.
    Nothing,
    /// Already answered: the message that says what is wrong with the request.
    Refused(Value),
}

/// Reads a client's message. `header` is the `MCP-Protocol-Version` header.
#[must_use]
pub fn read(bytes: &[u8], header: Option<&str>) -> Asked {
    match message::read(bytes) {
        Err(fault) => Asked::Refused(message::write_error(&fault.id, fault.code, fault.message)),
        Ok(Message::Notification { .. } | Message::Response { .. }) => Asked::Nothing,
        Ok(Message::Request { id, method, params }) => match stateless(&params, header) {
            Ok(stateless) => dispatch(id, &method, params, stateless),
            Err(version) => Asked::Refused(unsupported(&id, &version)),
        },
    }
}

/// Does the request speak the stateless revision? `Err` names a version that isn't spoken.
fn stateless(params: &Map<String, Value>, header: Option<&str>) -> Result<bool, String> {
    let named = params
        .get("_meta")
        .and_then(|meta| meta.get(VERSION_META))
        .and_then(Value::as_str);
    match named.or(header) {
        // Without a header the specification assumes 2025-03-26.
        None => Ok(false),
        Some(version) if SPOKEN.contains(&version) => Ok(version == STATELESS),
        Some(version) => Err(message::bounded(version, 64)),
    }
}

fn unsupported(id: &Value, version: &str) -> Value {
    json!({
        "jsonrpc": "2.0",
        "id": id,
        "error": {
            "code": UNSUPPORTED_VERSION,
            "message": "Unsupported protocol version",
            "data": {"supported": SPOKEN, "requested": version},
        },
    })
}

fn dispatch(id: Value, method: &str, mut params: Map<String, Value>, stateless: bool) -> Asked {
    match method {
        "initialize" => {
            let asked = params.get("protocolVersion").and_then(Value::as_str);
            Asked::Initialize {
                id,
                version: version::negotiate(asked.unwrap_or_default()),
            }
        }
        "server/discover" => Asked::Discover { id },
        "ping" => Asked::Ping { id, stateless },
        "tools/list" => Asked::ListTools { id, stateless },
        "tools/call" => match params.remove("name") {
            Some(Value::String(name)) => {
                let arguments = params.remove("arguments").filter(|value| !value.is_null());
                Asked::CallTool {
                    id,
                    stateless,
                    name,
                    arguments: arguments.unwrap_or_else(|| json!({})),
                }
            }
            _ => Asked::Refused(message::write_error(
                &id,
                INVALID_PARAMS,
                "name must be a tool's name",
            )),
        },
        other => {
            let text = format!(
                "{} is not offered: this server has tools only",
                message::bounded(other, 64)
            );
            Asked::Refused(message::write_error(&id, METHOD_NOT_FOUND, &text))
        }
    }
}

/// Who answers.
#[derive(Clone, Copy, Debug)]
pub struct ServerInfo {
    pub name: &'static str,
    pub version: &'static str,
}

impl ServerInfo {
    fn json(self) -> Value {
        json!({"name": self.name, "version": self.version})
    }
}

/// Result of `initialize`.
#[must_use]
pub fn initialize_result(version: &str, info: ServerInfo) -> Value {
    json!({"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info.json()})
}

/// Result of `server/discover`.
#[must_use]
pub fn discover_result(info: ServerInfo) -> Value {
    json!({
        "resultType": "complete",
        "supportedVersions": SPOKEN,
        "capabilities": {"tools": {}},
        "ttlMs": 0,
        "cacheScope": "private",
        "_meta": {SERVER_INFO_META: info.json()},
    })
}

/// Result of `tools/list`: one page, in the order given.
#[must_use]
pub fn list_result(tools: &[Tool], stateless: bool) -> Value {
    let mut result = json!({"tools": tools});
    if stateless {
        result["ttlMs"] = json!(0);
        result["cacheScope"] = json!("private");
    }
    complete(result, stateless)
}

/// Writes a result for the revision that asked: the stateless one wants to be told that nothing follows.
#[must_use]
pub fn complete(mut result: Value, stateless: bool) -> Value {
    if stateless && let Some(fields) = result.as_object_mut() {
        fields
            .entry("resultType")
            .or_insert_with(|| json!("complete"));
    }
    result
}

/// A tool's result that is one text.
#[must_use]
pub fn text_result(text: &str, is_error: bool) -> Value {
    let mut result = json!({"content": [{"type": "text", "text": text}]});
    if is_error {
        result["isError"] = json!(true);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ask(value: &Value, header: Option<&str>) -> Asked {
        read(value.to_string().as_bytes(), header)
    }

    #[test]
    fn a_request_names_its_revision_in_its_metadata_or_header() {
        let list = json!({"id": 1, "method": "tools/list"});
        let stateless = |asked| {
            matches!(
                asked,
                Asked::ListTools {
                    stateless: true,
                    ..
                }
            )
        };
        assert!(!stateless(ask(&list, None)));
        assert!(!stateless(ask(&list, Some("2025-06-18"))));
        assert!(stateless(ask(&list, Some(STATELESS))));
        let with_meta = json!({"id": 1, "method": "tools/list", "params": {"_meta": {VERSION_META: STATELESS}}});
        assert!(stateless(ask(&with_meta, None)));
    }

    #[test]
    fn a_revision_that_nobody_speaks_is_refused_with_the_ones_that_are() {
        let Asked::Refused(error) = ask(&json!({"id": 1, "method": "ping"}), Some("1999-01-01"))
        else {
            panic!("not refused");
        };
        assert_eq!(error["error"]["code"], UNSUPPORTED_VERSION);
        assert_eq!(error["error"]["data"]["supported"][0], STATELESS);
    }

    #[test]
    fn a_call_without_arguments_has_an_empty_object() {
        let asked = ask(
            &json!({"id": 1, "method": "tools/call", "params": {"name": "t", "arguments": null}}),
            None,
        );
        assert_eq!(
            asked,
            Asked::CallTool {
                id: json!(1),
                stateless: false,
                name: "t".into(),
                arguments: json!({})
            }
        );
    }

    #[test]
    fn what_is_not_offered_is_said_so() {
        let Asked::Refused(error) = ask(&json!({"id": 9, "method": "resources/list"}), None) else {
            panic!("not refused");
        };
        assert_eq!(
            (&error["id"], &error["error"]["code"]),
            (&json!(9), &json!(METHOD_NOT_FOUND))
        );
    }

    proptest! {
        #[test]
        fn no_method_and_parameters_make_the_server_panic(method in ".{0,80}", text in ".{0,80}") {
            ask(&json!({"id": 1, "method": method, "params": {"name": text, "_meta": text}}), Some(&text));
        }
    }
}
