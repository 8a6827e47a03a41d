//! Answers that no provider gave, and the marks that answers leave.

use llm::{
    AnswerHead, Dialect, Mark, Relay, RelayOptions, StopReason, TextStream, ToolCall, Usage,
    render_text_answer, request_marks, scripted_answer,
};
use serde_json::json;

use crate::fixtures::request;

const USAGE: Usage = Usage {
    input_tokens: 9,
    output_tokens: 4,
    cache_read_tokens: 3,
    cache_write_tokens: 1,
    reasoning_tokens: 0,
    estimated: false,
};

fn head() -> AnswerHead {
    AnswerHead {
        id: "1".to_owned(),
        model: "script".to_owned(),
        created_unix_s: 1,
        include_usage: true,
    }
}

fn read(dialect: Dialect, streamed: bool, bytes: &[u8]) -> llm::Outcome {
    let mut relay = Relay::new(
        dialect,
        dialect,
        streamed,
        &request(dialect, streamed),
        "m",
        RelayOptions::at(1),
    );
    relay.push(bytes).unwrap();
    relay.finish().unwrap();
    relay.outcome()
}

#[test]
fn a_text_answer_reads_back_in_every_dialect() {
    for dialect in Dialect::ALL {
        for streamed in [true, false] {
            let bytes = render_text_answer(dialect, &head(), "one two  three", USAGE, streamed);
            let outcome = read(dialect, streamed, &bytes);
            assert_eq!(
                (outcome.text.as_str(), outcome.usage),
                ("one two  three", USAGE),
                "{dialect} {streamed}"
            );
            assert_eq!(outcome.stop, Some(StopReason::EndTurn));
            assert_eq!(outcome.model, "script");
        }
    }
}

#[test]
fn a_text_stream_is_complete_only_with_its_end() {
    for dialect in Dialect::ALL {
        let (mut stream, mut bytes) = TextStream::start(dialect, &head());
        bytes.extend(stream.delta("Hello "));
        bytes.extend(stream.delta("there"));
        let mut relay = Relay::new(
            dialect,
            dialect,
            true,
            &request(dialect, true),
            "m",
            RelayOptions::at(1),
        );
        relay.push(&bytes).unwrap();
        assert!(relay.finish().is_err(), "{dialect}");
        bytes.extend(stream.end(StopReason::MaxTokens, USAGE));
        let outcome = read(dialect, true, &bytes);
        assert_eq!(
            (outcome.text.as_str(), outcome.stop),
            ("Hello there", Some(StopReason::MaxTokens)),
            "{dialect}"
        );
    }
}

#[test]
fn a_script_speaks_in_words_and_is_held_like_a_provider() {
    let call = |id: &str| ToolCall {
        id: id.to_owned(),
        name: "f".to_owned(),
        arguments: "{\"x\":1}".to_owned(),
    };
    for dialect in Dialect::ALL {
        let pieces = scripted_answer(
            dialect,
            true,
            &head(),
            "Let me look",
            &[call("a"), call("b")],
            USAGE,
        );
        let words: Vec<_> = pieces
            .iter()
            .filter_map(|piece| piece.text_delta.clone())
            .collect();
        assert_eq!(words, ["Let ", "me ", "look"], "{dialect}");
        let first = pieces.iter().position(|piece| piece.hold).unwrap();
        assert!(pieces[first..].iter().all(|piece| piece.hold));
        let free: Vec<u8> = pieces[..first]
            .iter()
            .flat_map(|piece| piece.bytes.clone())
            .collect();
        assert!(
            !String::from_utf8(free).unwrap().contains("x\\\""),
            "{dialect}: arguments left early"
        );
        let bytes: Vec<u8> = pieces.into_iter().flat_map(|piece| piece.bytes).collect();
        let outcome = read(dialect, true, &bytes);
        assert_eq!(outcome.tool_calls, [call("a"), call("b")]);
        assert_eq!(outcome.stop, Some(StopReason::ToolUse));

        let body = scripted_answer(dialect, false, &head(), "", &[call("a")], USAGE);
        assert!(body.len() == 1 && body[0].hold);
        let outcome = read(dialect, false, &body[0].bytes);
        assert_eq!(
            (outcome.tool_calls, outcome.text.as_str()),
            (vec![call("a")], ""),
            "{dialect}"
        );
    }
}

#[test]
fn a_request_shows_which_answers_it_contains() {
    let call = |id: &str| Mark::ToolCallId(id.to_owned());
    let said = |text: &str| Mark::AssistantText(text.to_owned());
    let cases = [
        (
            Dialect::OpenAiChat,
            json!({"messages": [
                {"role": "user", "content": "not mine"},
                {"role": "assistant", "content": " said \n"},
                {"role": "assistant", "content": null, "tool_calls": [{"id": "a"}, {"id": "b"}]},
                {"role": "tool", "tool_call_id": "a", "content": "x"},
            ]}),
        ),
        (
            Dialect::OpenAiResponses,
            json!({"input": [
                {"role": "user", "content": "not mine"},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "said"}]},
                {"type": "function_call", "call_id": "a"},
                {"type": "custom_tool_call", "call_id": "b"},
                {"type": "function_call_output", "call_id": "a"},
            ]}),
        ),
        (
            Dialect::Anthropic,
            json!({"messages": [
                {"role": "user", "content": "not mine"},
                {"role": "assistant", "content": [{"type": "text", "text": "sa"}, {"type": "text", "text": "id"}]},
                {"role": "assistant", "content": [{"type": "tool_use", "id": "a"}, {"type": "tool_use", "id": "b"}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a"}]},
            ]}),
        ),
    ];
    for (dialect, body) in cases {
        assert_eq!(
            request_marks(dialect, &body),
            [said("said"), call("a"), call("b")],
            "{dialect}"
        );
    }
    assert_eq!(
        request_marks(Dialect::OpenAiResponses, &json!({"input": "text"})),
        []
    );
    assert_ne!(call("x").to_bytes(), said("x").to_bytes());
}

#[test]
fn an_answer_is_marked_by_its_calls_or_else_its_text() {
    for dialect in Dialect::ALL {
        let call = ToolCall {
            id: "a".to_owned(),
            name: "f".to_owned(),
            arguments: "{}".to_owned(),
        };
        let with_call = scripted_answer(dialect, false, &head(), "Look", &[call], USAGE);
        assert_eq!(
            read(dialect, false, &with_call[0].bytes).marks(),
            [Mark::ToolCallId("a".to_owned())]
        );
        let plain = scripted_answer(dialect, false, &head(), " Done. ", &[], USAGE);
        assert_eq!(
            read(dialect, false, &plain[0].bytes).marks(),
            [Mark::AssistantText("Done.".to_owned())]
        );
        let empty = scripted_answer(dialect, false, &head(), "", &[], USAGE);
        assert_eq!(read(dialect, false, &empty[0].bytes).marks(), []);
    }
}

#[test]
fn cost_follows_the_parts_of_the_usage() {
    let mut price = llm::Price {
        input: 10.0,
        output: 100.0,
        cache_read: Some(1.0),
        cache_write: None,
        long: None,
    };
    let usage = Usage {
        input_tokens: 1_000_000,
        output_tokens: 10_000,
        cache_read_tokens: 500_000,
        cache_write_tokens: 100_000,
        ..USAGE
    };
    assert_eq!(price.cost_usd(usage), 4.0 + 0.5 + 1.0 + 1.0);
    price.cache_read = None;
    price.cache_write = Some(12.5);
    assert_eq!(price.cost_usd(usage), 4.0 + 5.0 + 1.25 + 1.0);
    assert_eq!(
        llm::embeddings_usage(&json!({"usage": {"prompt_tokens": 8, "total_tokens": 8}}))
            .unwrap()
            .input_tokens,
        8
    );
    assert_eq!(llm::embeddings_usage(&json!({"data": []})), None);
}
