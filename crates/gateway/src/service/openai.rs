//! A service of protocol `openai`: a streamed Chat Completion whose model is the agent's name. The
//! session's earlier turns are its messages; the text is passed on as it comes.

use hub::service::ServiceCall;
use llm::{Dialect, Relay, RelayOptions, UpstreamError};
use serde_json::{Value, json};

use super::{Ended, http};
use crate::clock;

pub(super) async fn deliver(client: &reqwest::Client, call: &ServiceCall) -> Ended {
    let Some(address) = call.address else {
        return Ended::Lost("the service has no address".into());
    };
    let body = request(&call.body);
    let Ok(request) = llm::parse(Dialect::OpenAiChat, &body) else {
        return Ended::Failed("the task's input can't be said as a chat message".into());
    };
    let sent = client
        .post(format!("http://{address}/v1/chat/completions"))
        .header("content-type", "application/json")
        .header("mainstay-token", call.token.as_ref())
        .body(body.to_string())
        .send()
        .await;
    let response = match sent {
        Ok(response) => response,
        Err(error) => return Ended::Lost(http::lost(&error)),
    };
    let status = response.status();
    if !status.is_success() {
        return match http::read(response).await {
            Ok(body) => http::refused(status, &body),
            Err(why) => Ended::Lost(why),
        };
    }
    relay(response, &request, call).await
}

async fn relay(
    mut response: reqwest::Response,
    request: &llm::Request,
    call: &ServiceCall,
) -> Ended {
    // A server may answer in one piece although a stream was asked for.
    let streamed = !http::is_json(&response);
    let options = RelayOptions::at(clock::unix_s());
    let mut relay = Relay::new(
        Dialect::OpenAiChat,
        Dialect::OpenAiChat,
        streamed,
        request,
        "",
        options,
    );
    loop {
        let pieces = match response.chunk().await {
            Ok(Some(chunk)) => relay.push(&chunk),
            Ok(None) => break,
            Err(error) => return Ended::Lost(http::lost(&error)),
        };
        match pieces {
            Ok(pieces) => say(call, &pieces),
            Err(error) => return Ended::Lost(no_completion(&error)),
        }
    }
    match relay.finish() {
        Ok(pieces) => say(call, &pieces),
        Err(error) => return Ended::Lost(no_completion(&error)),
    }
    Ended::Done {
        content_type: "text/plain",
        output: relay.outcome().text.into_bytes(),
    }
}

/// `llm` speaks of providers; here the other side is the agent.
fn no_completion(error: &UpstreamError) -> String {
    let why = match error {
        UpstreamError::Unreadable(why) => why.replace("; look at baseUrl", ""),
        UpstreamError::Incomplete => "it ended before its [DONE]".to_owned(),
        UpstreamError::TooLarge { limit_bytes } => format!("it is larger than {limit_bytes} bytes"),
        UpstreamError::Reported(error) => format!("it reports: {}", error.message),
    };
    format!("the service's answer is no chat completion: {why}")
}

fn say(call: &ServiceCall, pieces: &[llm::Piece]) {
    for text in pieces
        .iter()
        .filter_map(|piece| piece.text_delta.as_deref())
    {
        call.attempt.chunk(text);
    }
}

/// The task as a chat request.
fn request(task: &Value) -> Value {
    let history = task.get("history").and_then(Value::as_array);
    let mut messages: Vec<Value> = history.into_iter().flatten().map(message).collect();
    messages
        .push(json!({"role": "user", "content": text(task.get("input").unwrap_or(&Value::Null))}));
    json!({"model": task.get("agent"), "stream": true, "messages": messages})
}

fn message(turn: &Value) -> Value {
    let role = if turn.get("role").and_then(Value::as_str) == Some("agent") {
        "assistant"
    } else {
        "user"
    };
    json!({"role": role, "content": text(turn.get("content").unwrap_or(&Value::Null))})
}

/// A text, or the texts of A2A parts, or JSON as it is.
fn text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts = parts
                .iter()
                .map(|part| match part.get("text").and_then(Value::as_str) {
                    Some(text) => text.to_owned(),
                    None => part.to_string(),
                });
            texts.collect::<Vec<_>>().join("\n")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_never_called_a_provider() {
        let errors = [
            UpstreamError::Unreadable("a page (HTML) came; look at baseUrl".into()),
            UpstreamError::Incomplete,
            UpstreamError::TooLarge { limit_bytes: 9 },
        ];
        for error in errors {
            let told = no_completion(&error);
            assert!(
                !told.contains("provider") && !told.contains("baseUrl"),
                "{told}"
            );
        }
    }

    #[test]
    fn a_sessions_turns_become_messages() {
        let task = json!({
            "agent": "helper", "input": [{"text": "and"}, {"text": "now?"}],
            "history": [{"role": "user", "content": "hi"}, {"role": "agent", "content": "hello"}],
        });
        let request = request(&task);
        assert_eq!(request["model"], "helper");
        assert_eq!(
            request["messages"],
            json!([
                {"role": "user", "content": "hi"},
                {"role": "assistant", "content": "hello"},
                {"role": "user", "content": "and\nnow?"},
            ])
        );
    }
}
