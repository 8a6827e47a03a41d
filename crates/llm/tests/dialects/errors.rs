//! What goes wrong at a provider, and how it is told.

use std::time::Duration;

use llm::{Dialect, ErrorKind, Relay, RelayOptions, UpstreamError, parse_error, render_error};
use serde_json::json;

use crate::fixtures::request;

fn outcome_of(provider: Dialect, streamed: bool, sent: &str) -> UpstreamError {
    let agent = Dialect::OpenAiChat;
    let mut relay = Relay::new(
        agent,
        provider,
        streamed,
        &request(agent, streamed),
        "m",
        RelayOptions::at(1),
    );
    let result = relay.push(sent.as_bytes()).and_then(|_| relay.finish());
    result.expect_err(sent)
}

#[test]
fn an_error_inside_an_answer_is_reported() {
    let cases = [
        (
            Dialect::OpenAiChat,
            true,
            r#"data: {"error":{"message":"boom","type":"server_error","code":null}}"#,
            ErrorKind::Server,
        ),
        (
            Dialect::OpenAiChat,
            true,
            r#"data: {"error":{"message":"slow","code":429}}"#,
            ErrorKind::RateLimited,
        ),
        (
            Dialect::OpenAiChat,
            true,
            r#"data: {"error":"boom"}"#,
            ErrorKind::Server,
        ),
        (
            Dialect::OpenAiChat,
            false,
            r#"{"error":{"message":"x","code":"context_length_exceeded"}}"#,
            ErrorKind::ContextLength,
        ),
        (
            Dialect::Anthropic,
            true,
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}",
            ErrorKind::Overloaded,
        ),
        (
            Dialect::Anthropic,
            false,
            r#"{"type":"error","error":{"type":"api_error","message":"x"}}"#,
            ErrorKind::Server,
        ),
        (
            Dialect::OpenAiResponses,
            true,
            "event: error\ndata: {\"type\":\"error\",\"code\":\"rate_limit_exceeded\",\"message\":\"x\",\"sequence_number\":1}",
            ErrorKind::RateLimited,
        ),
        (
            Dialect::OpenAiResponses,
            true,
            r#"data: {"type":"response.failed","response":{"status":"failed","error":{"code":"server_error","message":"x"}}}"#,
            ErrorKind::Server,
        ),
        (
            Dialect::OpenAiResponses,
            false,
            r#"{"object":"response","status":"failed","output":[],"error":{"code":"invalid_prompt","message":"x"}}"#,
            ErrorKind::BadRequest,
        ),
    ];
    for (provider, streamed, sent, kind) in cases {
        let sent = format!("{sent}\n\n");
        match outcome_of(provider, streamed, &sent) {
            UpstreamError::Reported(error) => {
                assert_eq!(error.kind, kind, "{sent}");
                // The status is the one that the kind would have come with.
                let alike = parse_error(provider, error.status, b"", None);
                assert!(
                    alike.kind == kind || kind == ErrorKind::ContextLength,
                    "{sent}: {}",
                    error.status
                );
            }
            other => panic!("{sent}: {other:?}"),
        }
    }
}

#[test]
fn a_page_or_garbage_is_unreadable() {
    for provider in Dialect::ALL {
        for streamed in [true, false] {
            for sent in [
                "<!doctype html><html>",
                "{\"ok\": tr",
                "{}",
                "[]",
                "\u{0}\u{1}",
            ] {
                let error = outcome_of(provider, streamed, sent);
                let unreadable = matches!(error, UpstreamError::Unreadable(_));
                // A stream of bytes that say nothing has simply not ended.
                assert!(
                    unreadable || streamed && error == UpstreamError::Incomplete,
                    "{provider} {sent}: {error:?}"
                );
            }
        }
        let error = outcome_of(provider, true, "data: {not json}\n\n");
        assert!(
            matches!(error, UpstreamError::Unreadable(_)),
            "{provider}: {error:?}"
        );
    }
}

#[test]
fn statuses_and_bodies_are_classified() {
    let openai = |kind: &str, code: &str| {
        json!({"error": {"message": "m", "type": kind, "code": code}}).to_string()
    };
    let anthropic = |kind: &str, message: &str| {
        json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "r"})
            .to_string()
    };
    let cases = [
        (
            Dialect::OpenAiChat,
            401,
            openai("invalid_request_error", "invalid_api_key"),
            ErrorKind::Auth,
        ),
        (
            Dialect::OpenAiChat,
            429,
            openai("requests", "rate_limit_exceeded"),
            ErrorKind::RateLimited,
        ),
        (
            Dialect::OpenAiChat,
            429,
            openai("insufficient_quota", "insufficient_quota"),
            ErrorKind::Quota,
        ),
        (
            Dialect::OpenAiChat,
            400,
            openai("invalid_request_error", "context_length_exceeded"),
            ErrorKind::ContextLength,
        ),
        (
            Dialect::OpenAiChat,
            404,
            openai("invalid_request_error", "model_not_found"),
            ErrorKind::NotFound,
        ),
        (
            Dialect::OpenAiChat,
            400,
            openai("invalid_request_error", "x"),
            ErrorKind::BadRequest,
        ),
        (
            Dialect::OpenAiChat,
            500,
            openai("server_error", "x"),
            ErrorKind::Server,
        ),
        (
            Dialect::OpenAiChat,
            503,
            openai("server_error", "x"),
            ErrorKind::Overloaded,
        ),
        (
            Dialect::OpenAiChat,
            422,
            r#"{"detail": "no"}"#.to_owned(),
            ErrorKind::BadRequest,
        ),
        (
            Dialect::OpenAiChat,
            502,
            "<html>Bad gateway</html>".to_owned(),
            ErrorKind::Server,
        ),
        (Dialect::OpenAiChat, 500, String::new(), ErrorKind::Server),
        (
            Dialect::Anthropic,
            529,
            anthropic("overloaded_error", "Overloaded"),
            ErrorKind::Overloaded,
        ),
        (
            Dialect::Anthropic,
            429,
            anthropic("rate_limit_error", "x"),
            ErrorKind::RateLimited,
        ),
        (
            Dialect::Anthropic,
            403,
            anthropic("permission_error", "x"),
            ErrorKind::Auth,
        ),
        (
            Dialect::Anthropic,
            402,
            anthropic("billing_error", "x"),
            ErrorKind::Quota,
        ),
        (
            Dialect::Anthropic,
            413,
            anthropic("request_too_large", "x"),
            ErrorKind::TooLarge,
        ),
        (
            Dialect::Anthropic,
            504,
            anthropic("timeout_error", "x"),
            ErrorKind::Timeout,
        ),
        (
            Dialect::Anthropic,
            400,
            anthropic(
                "invalid_request_error",
                "prompt is too long: 200001 tokens > 200000 maximum",
            ),
            ErrorKind::ContextLength,
        ),
    ];
    for (provider, status, body, kind) in cases {
        let error = parse_error(provider, status, body.as_bytes(), Some("1.5"));
        assert_eq!(
            (error.kind, error.status),
            (kind, status),
            "{provider} {status} {body}"
        );
        assert_eq!(error.retry_after, Some(Duration::from_millis(1500)));
    }
    for (header, expect) in [
        (None, None),
        (Some("Wed, 21 Oct"), None),
        (Some("-1"), None),
        (Some(" 3 "), Some(3)),
    ] {
        let error = parse_error(Dialect::Anthropic, 429, b"", header);
        assert_eq!(
            error.retry_after,
            expect.map(Duration::from_secs),
            "{header:?}"
        );
    }
}

#[test]
fn a_providers_words_are_bounded_and_show_no_key() {
    let message = format!(
        "Incorrect API key provided: \"sk-proj-abcdef\".\nSee\u{7} {}",
        "x ".repeat(10_000)
    );
    let body = json!({"error": {"message": message}}).to_string();
    let error = parse_error(Dialect::OpenAiChat, 401, body.as_bytes(), None);
    assert!(
        error.message.len() <= 2048 && !error.message.contains("abcdef"),
        "{}",
        error.message
    );
    assert!(
        error
            .message
            .starts_with("Incorrect API key provided: [key] See"),
        "{}",
        error.message
    );
    assert!(!error.message.chars().any(char::is_control));
}

#[test]
fn errors_have_the_dialects_own_shape() {
    let chat = render_error(Dialect::OpenAiChat, 429, "budget_exceeded", "no more");
    let expect = json!({"message": "no more", "type": "rate_limit_error", "param": null, "code": "budget_exceeded"});
    assert_eq!(chat, json!({"error": expect}));
    assert_eq!(
        render_error(Dialect::OpenAiResponses, 429, "budget_exceeded", "no more"),
        chat
    );
    let anthropic = render_error(Dialect::Anthropic, 404, "model_not_found", "gone");
    assert_eq!(anthropic["type"], "error");
    assert_eq!(anthropic["error"]["type"], "not_found_error");
    assert_eq!(anthropic["error"]["message"], "gone");
    // Read back, an error is what it was.
    for (status, kind) in [
        (401, ErrorKind::Auth),
        (404, ErrorKind::NotFound),
        (429, ErrorKind::RateLimited),
        (500, ErrorKind::Server),
    ] {
        for dialect in Dialect::ALL {
            let body = render_error(dialect, status, "x", "m").to_string();
            assert_eq!(
                parse_error(dialect, status, body.as_bytes(), None).kind,
                kind,
                "{dialect} {status}"
            );
        }
    }
    let refusal = llm::Refusal::new("tools[0].type", "is hosted");
    let body = llm::render_refusal(Dialect::OpenAiResponses, "unsupported", &refusal);
    assert_eq!(body["error"]["param"], "tools[0].type");
    assert_eq!(body["error"]["message"], "tools[0].type: is hosted");
}
