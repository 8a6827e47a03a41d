//! JSON-RPC 2.0 messages: read from untrusted bytes, written for either side.
//!
//! Batches left the protocol in 2025-06-18; they are refused by name. Ids are kept as they came.

use serde_json::{Map, Value, json};

/// JSON-RPC's own code: the bytes are not JSON.
pub const PARSE_ERROR: i64 = -32700;
/// JSON-RPC's own code: the JSON is no message.
pub const INVALID_REQUEST: i64 = -32600;
/// JSON-RPC's own code: nobody answers to this method.
pub const METHOD_NOT_FOUND: i64 = -32601;
/// JSON-RPC's own code: the parameters are wrong.
pub const INVALID_PARAMS: i64 = -32602;
/// JSON-RPC's own code: our fault.
pub const INTERNAL_ERROR: i64 = -32603;
/// MCP's code for a protocol version that isn't spoken (2026-07-28).
pub const UNSUPPORTED_VERSION: i64 = -32022;

/// One message, from either side.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    Request {
        id: Value,
        method: String,
        params: Map<String, Value>,
    },
    Notification {
        method: String,
    },
    Response {
        id: Value,
        outcome: Result<Value, RpcError>,
    },
}

/// An error that a peer answered with.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message} (code {code})")]
pub struct RpcError {
    pub code: i64,
    pub message: String,
}

/// The bytes are no message; what to answer with.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct NoMessage {
    pub code: i64,
    pub message: &'static str,
    pub id: Value,
}

/// Reads one message.
pub fn read(bytes: &[u8]) -> Result<Message, NoMessage> {
    let fault = |code, message, id| NoMessage { code, message, id };
    let value: Value = serde_json::from_slice(bytes)
        .map_err(|_| fault(PARSE_ERROR, "the body is not JSON", Value::Null))?;
    let Value::Object(mut fields) = value else {
        let message = if value.is_array() {
            "batches are not part of this protocol version: send one message at a time"
        } else {
            "a message is a JSON object"
        };
        return Err(fault(INVALID_REQUEST, message, Value::Null));
    };
    let id = fields.remove("id");
    let method = fields.remove("method");
    match (method, id) {
        (Some(Value::String(method)), id) => request(method, id, fields.remove("params")),
        (None, Some(id)) if is_id(&id) => response(id, &mut fields),
        (_, id) => Err(fault(
            INVALID_REQUEST,
            "the message is neither a request nor a response",
            id.unwrap_or_default(),
        )),
    }
}

fn request(method: String, id: Option<Value>, params: Option<Value>) -> Result<Message, NoMessage> {
    match id {
        None => Ok(Message::Notification { method }),
        Some(id) if is_id(&id) => match params.unwrap_or_else(|| json!({})) {
            Value::Object(params) => Ok(Message::Request { id, method, params }),
            _ => Err(NoMessage {
                code: INVALID_PARAMS,
                message: "params must be an object",
                id,
            }),
        },
        Some(_) => Err(NoMessage {
            code: INVALID_REQUEST,
            message: "an id is a string or a number",
            id: Value::Null,
        }),
    }
}

fn response(id: Value, fields: &mut Map<String, Value>) -> Result<Message, NoMessage> {
    if let Some(error) = fields.remove("error") {
        let code = error.get("code").and_then(Value::as_i64);
        let message = error.get("message").and_then(Value::as_str);
        let error = RpcError {
            code: code.unwrap_or(INTERNAL_ERROR),
            message: bounded(message.unwrap_or("the server gave no message"), 2048),
        };
        return Ok(Message::Response {
            id,
            outcome: Err(error),
        });
    }
    match fields.remove("result") {
        Some(result) => Ok(Message::Response {
            id,
            outcome: Ok(result),
        }),
        None => Err(NoMessage {
            code: INVALID_REQUEST,
            message: "a response has a result or an error",
            id,
        }),
    }
}

fn is_id(value: &Value) -> bool {
    value.is_string() || value.is_number()
}

/// The beginning of a text, cut at a character.
#[must_use]
pub fn bounded(text: &str, bytes: usize) -> String {
    text[..text.floor_char_boundary(bytes)].to_owned()
}

/// A request to a peer.
#[must_use]
pub fn write_request(id: u64, method: &str, params: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

/// A notification to a peer.
#[must_use]
pub fn write_notification(method: &str, params: &Value) -> Value {
    json!({"jsonrpc": "2.0", "method": method, "params": params})
}

/// A result for a peer's request.
#[must_use]
pub fn write_result(id: &Value, result: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "result": result})
}

/// An error for a peer's request.
#[must_use]
pub fn write_error(id: &Value, code: i64, message: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_kind_of_message_is_told_apart() {
        let kind = |text: &str| match read(text.as_bytes()) {
            Ok(Message::Request { method, .. }) => format!("request {method}"),
            Ok(Message::Notification { method }) => format!("notification {method}"),
            Ok(Message::Response { outcome, .. }) => format!("response {}", outcome.is_ok()),
            Err(fault) => format!("{}", fault.code),
        };
        assert_eq!(
            kind(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#),
            "request ping"
        );
        assert_eq!(
            kind(r#"{"method":"notifications/initialized"}"#),
            "notification notifications/initialized"
        );
        assert_eq!(kind(r#"{"id":"a","result":{}}"#), "response true");
        assert_eq!(
            kind(r#"{"id":"a","error":{"code":-1,"message":"no"}}"#),
            "response false"
        );
        assert_eq!(kind("[]"), "-32600");
        assert_eq!(kind("{"), "-32700");
        assert_eq!(kind(r#"{"id":1,"method":"x","params":[1]}"#), "-32602");
        assert_eq!(kind(r#"{"id":null,"method":"x"}"#), "-32600");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
        }

        #[test]
        fn a_bounded_text_is_a_prefix(text in ".{0,40}", bytes in 0_usize..50) {
            let cut = bounded(&text, bytes);
            prop_assert!(text.starts_with(&cut) && cut.len() <= bytes);
        }
    }
}
