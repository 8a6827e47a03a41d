//! Answers on their way: content, splits, truncation and what is held.

use llm::{Dialect, Outcome, Piece, Relay, RelayOptions, UpstreamError};
use serde_json::{Value, json};

use crate::fixtures::{Case, body, check_outcome, proof, request, stream};

fn relay(agent: Dialect, provider: Dialect, streamed: bool) -> Relay {
    Relay::new(
        agent,
        provider,
        streamed,
        &request(agent, streamed),
        "asked-for",
        RelayOptions::at(1_700_000_000),
    )
}

fn run(mut relay: Relay, parts: &[&[u8]]) -> Result<(Vec<Piece>, Outcome), UpstreamError> {
    let mut pieces = Vec::new();
    for part in parts {
        pieces.extend(relay.push(part)?);
    }
    pieces.extend(relay.finish()?);
    Ok((pieces, relay.outcome()))
}

fn bytes(pieces: &[Piece]) -> Vec<u8> {
    pieces
        .iter()
        .flat_map(|piece| piece.bytes.clone())
        .collect()
}

/// Everything that a provider sends in a case, streamed or not.
fn upstream(provider: Dialect, case: Case, streamed: bool) -> Vec<u8> {
    if streamed {
        stream(provider, case).concat().into_bytes()
    } else {
        body(provider, case).to_string().into_bytes()
    }
}

fn everything() -> impl Iterator<Item = (Dialect, Dialect, Case, bool)> {
    let cases = Case::ALL
        .into_iter()
        .flat_map(|case| [(case, true), (case, false)]);
    cases.flat_map(|(case, streamed)| {
        let pairs = Dialect::ALL
            .into_iter()
            .flat_map(|agent| Dialect::ALL.map(|provider| (agent, provider)));
        pairs.map(move |(agent, provider)| (agent, provider, case, streamed))
    })
}

#[test]
fn every_agent_gets_every_providers_answer() {
    for (agent, provider, case, streamed) in everything() {
        let context = format!("{agent} over {provider}, {case:?}, streamed {streamed}");
        let sent = upstream(provider, case, streamed);
        let (pieces, outcome) = run(relay(agent, provider, streamed), &[&sent]).expect(&context);
        check_outcome(case, &outcome, &context);
        let told: String = pieces
            .iter()
            .filter_map(|piece| piece.text_delta.clone())
            .collect();
        assert_eq!(told, case.text(), "{context}");

        // What the agent got reads the same as what the provider sent.
        let got = bytes(&pieces);
        let again = run(relay(agent, agent, streamed), &[&got]);
        let (_, mut again) = again.unwrap_or_else(|error| {
            panic!("{context}: {error}\n{}", String::from_utf8_lossy(&got))
        });
        again.usage.estimated |= case == Case::NoUsage;
        again.usage.input_tokens = outcome.usage.input_tokens;
        check_outcome(case, &again, &context);
        if agent == provider {
            assert_eq!(got, sent, "{context}: bytes must pass unchanged");
        }
    }
}

#[test]
fn any_split_of_a_stream_gives_the_same_bytes() {
    for (agent, provider, case, streamed) in everything() {
        if !streamed || !matches!(case, Case::Tools | Case::Reasoning) {
            continue;
        }
        let sent = upstream(provider, case, true);
        let (whole, outcome) = run(relay(agent, provider, true), &[&sent]).unwrap();
        let mut before = relay(agent, provider, true);
        let mut pieces = Vec::new();
        for at in 0..sent.len() {
            if at % 5 == 0 || agent == provider {
                let rest = run(before.clone(), &[&sent[at..]]).unwrap();
                assert!(
                    whole.ends_with(&rest.0) && whole.len() == pieces.len() + rest.0.len(),
                    "{agent} over {provider} split at {at}"
                );
                assert_eq!(rest.1, outcome);
            }
            pieces.extend(before.push(&sent[at..=at]).unwrap());
        }
        pieces.extend(before.finish().unwrap());
        assert_eq!(pieces, whole, "{agent} over {provider} byte by byte");
    }
}

#[test]
fn a_stream_that_ends_early_is_always_an_error() {
    for (agent, provider, case, streamed) in everything() {
        if !streamed {
            continue;
        }
        let sent = upstream(provider, case, true);
        let payload = sent.trim_ascii_end().len();
        let mut before = relay(agent, provider, true);
        for cut in 0..sent.len() {
            let ended = before.clone().finish();
            let prefix = String::from_utf8_lossy(&sent[..cut]);
            let has_stopped =
                provider == Dialect::OpenAiChat && prefix.contains("\"finish_reason\":\"");
            if cut < payload
                && has_stopped
                && let Ok(pieces) = &ended
            {
                // Only the marker is missing, which some servers never send.
                assert!(
                    pieces.iter().all(|piece| piece.hold),
                    "what ends an answer is held"
                );
            } else if cut < payload {
                let context = format!("{agent} over {provider} {case:?} cut at {cut}");
                assert_eq!(ended.err(), Some(UpstreamError::Incomplete), "{context}");
                assert_eq!(before.outcome().stop, None, "{context}");
            } else {
                assert!(ended.is_ok(), "only line ends are missing");
            }
            before.push(&sent[cut..=cut]).unwrap();
        }
    }
}

#[test]
fn a_body_that_is_cut_is_always_an_error() {
    for (agent, provider, case, streamed) in everything() {
        if streamed {
            continue;
        }
        let sent = upstream(provider, case, false);
        for cut in 0..sent.len() {
            let result = run(relay(agent, provider, false), &[&sent[..cut]]);
            assert!(
                matches!(result, Err(UpstreamError::Unreadable(_))),
                "{provider} cut at {cut}"
            );
        }
    }
}

#[test]
fn nothing_that_an_agent_could_act_on_leaves_early() {
    for (agent, provider, case, streamed) in everything() {
        let context = format!("{agent} over {provider}, {case:?}, streamed {streamed}");
        let sent = upstream(provider, case, streamed);
        let (pieces, _) = run(relay(agent, provider, streamed), &[&sent]).unwrap();
        let first = pieces.iter().position(|piece| piece.hold).expect(&context);
        assert!(
            pieces[first..].iter().all(|piece| piece.hold),
            "{context}: once held, always held"
        );
        let free = String::from_utf8(bytes(&pieces[..first])).unwrap();
        if !streamed {
            assert!(free.is_empty() && pieces.len() == 1, "{context}");
            continue;
        }
        for terminal in [
            "\"finish_reason\":\"",
            "[DONE]",
            "message_delta",
            "message_stop",
            "response.completed",
            "response.incomplete",
            "function_call_arguments.done",
        ] {
            assert!(!free.contains(terminal), "{context}: {terminal} left early");
        }
        // Text isn't kept back: all of it left before.
        let free_text: String = pieces[..first]
            .iter()
            .filter_map(|piece| piece.text_delta.clone())
            .collect();
        assert_eq!(free_text, case.text(), "{context}");
        // The first call's arguments aren't complete in what left.
        if case == Case::Tools {
            assert!(
                !free.contains(r#"\" \"}"#) && !free.contains(r#"\\\" \"}"#),
                "{context}: {free}"
            );
            assert!(
                free.contains("weather"),
                "{context}: the call's name may leave"
            );
        }
    }
}

#[test]
fn the_usage_chunk_is_hidden_from_a_chat_agent_that_did_not_ask() {
    let asks_not = json!({"model": "m", "messages": [], "stream": true});
    let request = llm::parse(Dialect::OpenAiChat, &asks_not).unwrap();
    for provider in Dialect::ALL {
        let sent = upstream(provider, Case::Text, true);
        let relay = Relay::new(
            Dialect::OpenAiChat,
            provider,
            true,
            &request,
            "m",
            RelayOptions::at(1),
        );
        let (pieces, outcome) = run(relay, &[&sent]).unwrap();
        let got = String::from_utf8(bytes(&pieces)).unwrap();
        assert!(!got.contains("prompt_tokens"), "{provider}: {got}");
        assert!(got.ends_with("data: [DONE]\n\n"));
        assert_eq!(
            outcome.usage,
            Case::Text.usage(),
            "{provider}: counted all the same"
        );
    }
}

#[test]
fn reasoning_comes_back_to_its_provider_intact() {
    for (agent, provider, _, streamed) in
        everything().filter(|(_, _, case, _)| *case == Case::Reasoning)
    {
        if agent == Dialect::OpenAiChat && provider == Dialect::OpenAiResponses {
            // Chat has no place for an OpenAI item; leaving it out is legal there.
            continue;
        }
        let context = format!("{agent} over {provider}, streamed {streamed}");
        let sent = upstream(provider, Case::Reasoning, streamed);
        let (pieces, _) = run(relay(agent, provider, streamed), &[&sent]).unwrap();
        let turn = as_next_request(agent, &bytes(&pieces), streamed);
        let request = llm::parse(agent, &turn).unwrap();
        let reasoning = request.turns.iter().find_map(|turn| match turn {
            llm::Turn::Assistant(parts) => parts.iter().find_map(|part| match part {
                llm::AssistantPart::Reasoning(reasoning) => Some(reasoning.clone()),
                _ => None,
            }),
            _ => None,
        });
        let reasoning = reasoning.unwrap_or_else(|| panic!("{context}: no reasoning in {turn}"));
        assert_eq!(reasoning.text, crate::fixtures::THOUGHT, "{context}");
        assert_eq!(reasoning.proof, proof(provider), "{context}");
    }
}

/// The request in which a client sends an answer back, as the official packages build it from what they received.
fn as_next_request(agent: Dialect, got: &[u8], streamed: bool) -> Value {
    if !streamed {
        let body: Value = serde_json::from_slice(got).unwrap();
        return match agent {
            Dialect::OpenAiChat => json!({"messages": [body["choices"][0]["message"]]}),
            Dialect::OpenAiResponses => json!({"input": body["output"]}),
            Dialect::Anthropic => {
                json!({"messages": [{"role": "assistant", "content": body["content"]}]})
            }
        };
    }
    let text = std::str::from_utf8(got).unwrap();
    let data = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter(|data| *data != "[DONE]");
    let events: Vec<Value> = data
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    match agent {
        Dialect::OpenAiChat => {
            let mut message = json!({"role": "assistant", "content": "", "reasoning_content": ""});
            for event in &events {
                let delta = &event["choices"][0]["delta"];
                for name in ["content", "reasoning_content"] {
                    if let Some(more) = delta[name].as_str() {
                        message[name] = json!(message[name].as_str().unwrap().to_owned() + more);
                    }
                }
                if delta["thinking_blocks"].is_array() {
                    message["thinking_blocks"] = delta["thinking_blocks"].clone();
                }
            }
            json!({"messages": [message]})
        }
        Dialect::OpenAiResponses => json!({"input": events.last().unwrap()["response"]["output"]}),
        Dialect::Anthropic => {
            let mut content: Vec<Value> = Vec::new();
            for event in &events {
                let at = usize::try_from(event["index"].as_u64().unwrap_or_default()).unwrap();
                match event["type"].as_str().unwrap() {
                    "content_block_start" => content.push(event["content_block"].clone()),
                    "content_block_delta" => {
                        for name in ["text", "thinking", "signature"] {
                            if let Some(more) = event["delta"][name].as_str() {
                                content[at][name] =
                                    json!(content[at][name].as_str().unwrap().to_owned() + more);
                            }
                        }
                    }
                    _ => {}
                }
            }
            json!({"messages": [{"role": "assistant", "content": content}]})
        }
    }
}

#[test]
fn redacted_thinking_passes_through_every_dialect() {
    let body = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
        "content": [{"type": "redacted_thinking", "data": "EmwK"}, {"type": "text", "text": "x"}],
        "usage": {"input_tokens": 1, "output_tokens": 1},
    });
    let sse: String = [
        json!({"type": "message_start", "message": {"id": "msg_1", "model": "m"}}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "redacted_thinking", "data": "EmwK"}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}}),
        json!({"type": "message_stop"}),
    ]
    .map(|event| format!("data: {event}\n\n"))
    .concat();
    for agent in Dialect::ALL {
        for (sent, streamed) in [(body.to_string(), false), (sse.clone(), true)] {
            let (pieces, _) = run(
                relay(agent, Dialect::Anthropic, streamed),
                &[sent.as_bytes()],
            )
            .unwrap();
            let next = as_next_request(agent, &bytes(&pieces), streamed);
            let request = llm::parse(agent, &next).unwrap();
            let back = llm::render_request(&request, Dialect::Anthropic, "m");
            let expect = json!({"type": "redacted_thinking", "data": "EmwK"});
            assert_eq!(
                back.unwrap()["messages"][0]["content"][0],
                expect,
                "{agent}"
            );
        }
    }
}

#[test]
fn calls_that_interleave_or_share_a_number_stay_apart() {
    let chunk = |calls: Value, finish: Value| {
        let choices =
            json!([{"index": 0, "delta": {"tool_calls": calls}, "finish_reason": finish}]);
        format!(
            "data: {}\n\n",
            json!({"id": "c", "model": "m", "choices": choices})
        )
    };
    let start = |index: u64, id: &str, arguments: &str| json!({"index": index, "id": id, "type": "function", "function": {"name": "f", "arguments": arguments}});
    let more =
        |index: u64, arguments: &str| json!({"index": index, "function": {"arguments": arguments}});
    let interleaved = [
        chunk(
            json!([start(0, "a", ""), start(1, "b", "{\"x\"")]),
            Value::Null,
        ),
        chunk(json!([more(0, "{\"y\":"), more(1, ":1}")]), Value::Null),
        chunk(json!([more(0, "2}")]), json!("tool_calls")),
        "data: [DONE]\n\n".to_owned(),
    ];
    let same_number = [
        chunk(json!([start(0, "a", "{\"y\":2}")]), Value::Null),
        chunk(json!([start(0, "b", "{\"x\":1}")]), json!("stop")),
        "data: [DONE]\n\n".to_owned(),
    ];
    for sent in [interleaved.concat(), same_number.concat()] {
        for agent in Dialect::ALL {
            let (pieces, outcome) =
                run(relay(agent, Dialect::OpenAiChat, true), &[sent.as_bytes()]).unwrap();
            let calls: Vec<_> = outcome
                .tool_calls
                .iter()
                .map(|call| (call.id.as_str(), call.arguments.as_str()))
                .collect();
            assert_eq!(calls, [("a", "{\"y\":2}"), ("b", "{\"x\":1}")]);
            assert_eq!(
                outcome.stop,
                Some(llm::StopReason::ToolUse),
                "calls make it a turn of tools"
            );
            let (_, again) = run(relay(agent, agent, true), &[&bytes(&pieces)]).unwrap();
            assert_eq!(again.tool_calls, outcome.tool_calls, "{agent}");
        }
    }
}

#[test]
fn a_chat_stream_may_begin_without_choices_and_call_the_old_way() {
    let sent = [
        json!({"id": "", "model": "", "choices": [], "prompt_filter_results": []}),
        json!({"id": "c", "model": "model-1", "choices": [{"index": 0, "delta": {"reasoning": "r", "reasoning_content": "r"}}]}),
        json!({"id": "c", "model": "model-1", "choices": [{"index": 0, "delta": {"function_call": {"name": "f", "arguments": "{\"x\""}}}]}),
        json!({"id": "c", "model": "model-1", "choices": [{"index": 0, "delta": {"function_call": {"arguments": ":1}"}}}]}),
        json!({"id": "c", "model": "model-1", "choices": [{"index": 0, "delta": {}, "finish_reason": "function_call"}]}),
    ];
    let sent: String = sent
        .iter()
        .map(|chunk| format!("data: {chunk}\n\n"))
        .collect::<String>()
        + "data: [DONE]\n\n";
    let chat = Dialect::OpenAiChat;
    let (pieces, outcome) = run(relay(chat, chat, true), &[sent.as_bytes()]).unwrap();
    assert_eq!(
        (
            outcome.model.as_str(),
            outcome.tool_calls[0].arguments.as_str()
        ),
        ("model-1", "{\"x\":1}")
    );
    let held: Vec<bool> = pieces.iter().map(|piece| piece.hold).collect();
    assert_eq!(held, [false, false, false, true, true, true]);
}

/// For each provider a stream in which a call that has no JSON to be balanced ends, and text follows; and the event
/// with which the call is complete.
fn calls_without_json() -> Vec<(Dialect, Vec<Value>, usize)> {
    let chat =
        |delta: Value| json!({"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta}]});
    let block = |index: u64, block: Value| json!({"type": "content_block_start", "index": index, "content_block": block});
    let item = |kind: &str, item: Value| json!({"type": kind, "output_index": 0, "item": item});
    let custom =
        json!({"type": "custom_tool_call", "call_id": "a", "name": "f", "input": "free text"});
    let function = json!({"type": "function_call", "call_id": "a", "name": "f", "arguments": ""});
    vec![
        (
            Dialect::OpenAiChat,
            vec![
                chat(
                    json!({"tool_calls": [{"index": 0, "id": "a", "type": "custom", "custom": {"name": "f", "input": "free"}}]}),
                ),
                chat(
                    json!({"tool_calls": [{"index": 1, "id": "b", "function": {"name": "f", "arguments": ""}}]}),
                ),
            ],
            1,
        ),
        (
            Dialect::Anthropic,
            vec![
                json!({"type": "message_start", "message": {"id": "1", "model": "m"}}),
                block(
                    0,
                    json!({"type": "tool_use", "id": "a", "name": "f", "input": {}}),
                ),
                json!({"type": "content_block_stop", "index": 0}),
                block(1, json!({"type": "text", "text": ""})),
            ],
            2,
        ),
        (
            Dialect::OpenAiResponses,
            vec![
                item("response.output_item.added", function.clone()),
                item("response.output_item.done", function),
                json!({"type": "response.in_progress"}),
            ],
            1,
        ),
        (
            Dialect::OpenAiResponses,
            vec![
                item("response.output_item.added", custom.clone()),
                item("response.output_item.done", custom),
                json!({"type": "response.in_progress"}),
            ],
            1,
        ),
    ]
}

#[test]
fn a_call_without_arguments_is_held_from_its_end() {
    for (provider, events, complete) in calls_without_json() {
        let mut relay = relay(provider, provider, true);
        for (at, event) in events.iter().enumerate() {
            let pieces = relay.push(format!("data: {event}\n\n").as_bytes()).unwrap();
            assert_eq!(
                pieces[0].hold,
                at >= complete,
                "{provider} event {at}: {event}"
            );
        }
    }
}

#[test]
fn a_response_that_streams_only_its_end_is_read_from_there() {
    let response = body(Dialect::OpenAiResponses, Case::Tools);
    let sent = format!(
        "data: {}\n\n",
        json!({"type": "response.completed", "response": response})
    );
    let (_, outcome) = run(
        relay(Dialect::OpenAiChat, Dialect::OpenAiResponses, true),
        &[sent.as_bytes()],
    )
    .unwrap();
    assert_eq!(
        (outcome.text.as_str(), outcome.tool_calls),
        (Case::Tools.text(), Case::Tools.calls())
    );
}

#[test]
fn arguments_that_are_no_object_do_not_reach_an_anthropic_agent() {
    let call = json!({"index": 0, "id": "a", "function": {"name": "f", "arguments": "{\"x\":"}});
    let chunk = |finish: &str| {
        let choice = json!({"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": finish});
        format!(
            "data: {}\n\ndata: [DONE]\n\n",
            json!({"id": "c", "model": "m", "choices": [choice]})
        )
    };
    let broken = run(
        relay(Dialect::Anthropic, Dialect::OpenAiChat, true),
        &[chunk("tool_calls").as_bytes()],
    );
    assert!(
        matches!(broken, Err(UpstreamError::Unreadable(_))),
        "{broken:?}"
    );
    // Cut off by the token limit is another matter: the stop reason says so.
    let cut = run(
        relay(Dialect::Anthropic, Dialect::OpenAiChat, true),
        &[chunk("length").as_bytes()],
    );
    assert_eq!(cut.unwrap().1.stop, Some(llm::StopReason::MaxTokens));
}

#[test]
fn a_relay_that_failed_stays_failed() {
    let mut relay = relay(Dialect::OpenAiChat, Dialect::Anthropic, true);
    let failure = relay.push(b"<html>").unwrap_err();
    assert_eq!(relay.push(b"data: {}\n\n"), Err(failure.clone()));
    assert_eq!(relay.finish(), Err(failure));
    assert_eq!(relay.outcome().stop, None);
}

#[test]
fn an_answer_is_bounded() {
    let options = RelayOptions {
        created_unix_s: 1,
        limit_bytes: 1000,
    };
    for streamed in [true, false] {
        let request = request(Dialect::OpenAiChat, streamed);
        let mut relay = Relay::new(
            Dialect::OpenAiChat,
            Dialect::Anthropic,
            streamed,
            &request,
            "m",
            options,
        );
        let refused = (0..20).find_map(|_| {
            relay
                .push(b": keep alive, please, for ever\n\n........................")
                .err()
        });
        assert_eq!(refused, Some(UpstreamError::TooLarge { limit_bytes: 1000 }));
    }
}
