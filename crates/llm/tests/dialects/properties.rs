//! Bytes and bodies that nobody meant to send: nothing panics, and splitting changes nothing.

use llm::{Dialect, Piece, Relay, RelayOptions, UpstreamError};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::fixtures::{Case, request, stream};

fn any_dialect() -> impl Strategy<Value = Dialect> {
    prop::sample::select(Dialect::ALL.to_vec())
}

/// JSON that uses the dialects' own words, so that it gets past the first check.
fn any_json() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "messages",
        "input",
        "role",
        "user",
        "assistant",
        "system",
        "tool",
        "content",
        "text",
        "type",
        "tool_use",
        "tool_result",
        "tool_calls",
        "function",
        "function_call",
        "function_call_output",
        "image_url",
        "image",
        "source",
        "base64",
        "thinking",
        "signature",
        "reasoning",
        "summary",
        "encrypted_content",
        "tools",
        "name",
        "arguments",
        "input_schema",
        "parameters",
        "tool_choice",
        "response_format",
        "json_schema",
        "schema",
        "output_config",
        "format",
        "n",
        "stop",
        "stream",
        "stream_options",
        "max_tokens",
        "delta",
        "choices",
        "index",
        "finish_reason",
        "message",
        "usage",
        "prompt_tokens",
        "input_tokens",
        "message_start",
        "content_block",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "text_delta",
        "input_json_delta",
        "error",
        "response",
        "item",
        "output_index",
        "response.created",
        "response.output_item.added",
        "response.output_item.done",
        "response.completed",
        "response.output_text.delta",
        "part",
        "output",
        "stop_reason",
        "reasoning_effort",
        "temperature",
        "data:image/png;base64,AA",
        "2026-11-24T06:28:45Z",
        "{\"a\":1}",
        "",
        "ü",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0_u64..4).prop_map(Value::from),
        word.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        let entries = prop::collection::vec((word.clone(), inner.clone()), 0..6);
        prop_oneof![
            prop::collection::vec(inner, 0..5).prop_map(Value::from),
            entries.prop_map(|entries| {
                let entries = entries
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value));
                Value::Object(entries.collect::<Map<_, _>>())
            }),
        ]
    })
}

fn run(
    agent: Dialect,
    provider: Dialect,
    streamed: bool,
    parts: &[&[u8]],
) -> Result<Vec<Piece>, UpstreamError> {
    let mut relay = Relay::new(
        agent,
        provider,
        streamed,
        &request(agent, streamed),
        "m",
        RelayOptions::at(1),
    );
    let mut pieces = Vec::new();
    for part in parts {
        pieces.extend(relay.push(part)?);
    }
    pieces.extend(relay.finish()?);
    relay.outcome();
    Ok(pieces)
}

proptest! {
    #[test]
    fn no_bytes_make_a_relay_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        agent in any_dialect(),
        provider in any_dialect(),
        streamed in any::<bool>(),
    ) {
        let _ = run(agent, provider, streamed, &[&bytes]);
        llm::parse_error(provider, 500, &bytes, None);
    }

    #[test]
    fn no_events_make_a_relay_panic(
        events in prop::collection::vec(any_json(), 0..8),
        agent in any_dialect(),
        provider in any_dialect(),
    ) {
        let sent: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
        let _ = run(agent, provider, true, &[sent.as_bytes()]);
        if let Some(event) = events.first() {
            let _ = run(agent, provider, false, &[event.to_string().as_bytes()]);
        }
    }

    #[test]
    fn a_damaged_stream_does_not_panic_and_splits_alike(
        agent in any_dialect(),
        provider in any_dialect(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut sent = stream(provider, Case::Tools).concat().into_bytes();
        let at = at.index(sent.len());
        sent[at] = byte;
        let cut = cut.index(sent.len());
        let whole = run(agent, provider, true, &[&sent]);
        let split = run(agent, provider, true, &[&sent[..cut], &sent[cut..]]);
        prop_assert_eq!(whole, split);
    }

    #[test]
    fn no_body_makes_a_request_panic(body in any_json(), messages in any_json(), dialect in any_dialect()) {
        let mut with_messages = body.clone();
        if let Some(fields) = with_messages.as_object_mut() {
            fields.insert("messages".to_owned(), json!([messages]));
            fields.insert("input".to_owned(), json!([messages]));
        }
        for body in [&body, &with_messages] {
            if let Ok(request) = llm::parse(dialect, body) {
                for provider in Dialect::ALL {
                    let _ = llm::render_request(&request, provider, "m");
                }
            }
            llm::forward(dialect, body, "m");
            llm::request_marks(dialect, body);
            let (envelope, messages) = llm::split(dialect, body);
            prop_assert_eq!(&llm::join(&envelope, messages), body);
            let canonical = llm::canonical(dialect, body);
            prop_assert_eq!(&llm::canonical(dialect, &canonical), &canonical);
            let window = llm::TimeWindow { from_unix_ms: 0, to_unix_ms: i64::MAX };
            llm::mask_times(&canonical, dialect, window, &|_| false, true);
        }
    }
}
