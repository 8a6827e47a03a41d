//! Requests: what each dialect says, what is refused, and what arrives at a provider of another dialect.

use llm::{Dialect, canonical, forward, parse, render_request};
use serde_json::{Value, json};

/// The same conversation in each dialect: system, picture, two parallel calls and their results, sampling, format.
fn conversation(dialect: Dialect) -> Value {
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    match dialect {
        Dialect::OpenAiChat => json!({
            "model": "asked", "stream": true, "temperature": 0.5, "top_p": 0.9, "max_completion_tokens": 77,
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [
                    {"type": "text", "text": "Look:"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}},
                    {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
                ]},
                {"role": "assistant", "content": "Asking.", "tool_calls": [
                    {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Rome\"}"}},
                    {"id": "call_2", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Oslo\"}"}},
                ]},
                {"role": "tool", "tool_call_id": "call_1", "content": "sun"},
                {"role": "tool", "tool_call_id": "call_2", "content": "snow"},
                {"role": "user", "content": "Sum up."},
            ],
            "tools": [{"type": "function", "function": {"name": "weather", "description": "Weather.", "parameters": schema, "strict": true}}],
            "tool_choice": "required", "parallel_tool_calls": false, "reasoning_effort": "low",
            "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": true}},
        }),
        Dialect::OpenAiResponses => json!({
            "model": "asked", "stream": true, "temperature": 0.5, "top_p": 0.9, "max_output_tokens": 77,
            "instructions": "Be brief.",
            "input": [
                {"role": "user", "content": [
                    {"type": "input_text", "text": "Look:"},
                    {"type": "input_image", "image_url": "data:image/png;base64,iVBO", "detail": "auto"},
                    {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "auto"},
                ]},
                {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed",
                 "content": [{"type": "output_text", "text": "Asking.", "annotations": []}]},
                {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{\"city\":\"Rome\"}"},
                {"type": "function_call", "call_id": "call_2", "name": "weather", "arguments": "{\"city\":\"Oslo\"}"},
                {"type": "function_call_output", "call_id": "call_1", "output": "sun"},
                {"type": "function_call_output", "call_id": "call_2", "output": "snow"},
                {"role": "user", "content": "Sum up."},
            ],
            "tools": [{"type": "function", "name": "weather", "description": "Weather.", "parameters": schema, "strict": true}],
            "tool_choice": "required", "parallel_tool_calls": false, "reasoning": {"effort": "low", "summary": "auto"},
            "text": {"format": {"type": "json_schema", "name": "answer", "schema": schema, "strict": true}},
            "include": ["reasoning.encrypted_content"], "store": false, "truncation": "disabled",
        }),
        Dialect::Anthropic => json!({
            "model": "asked", "stream": true, "temperature": 0.5, "top_p": 0.9, "max_tokens": 77,
            "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
            "messages": [
                {"role": "user", "content": [
                    {"type": "text", "text": "Look:"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}},
                    {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
                ]},
                {"role": "assistant", "content": [
                    {"type": "text", "text": "Asking."},
                    {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Rome"}},
                    {"type": "tool_use", "id": "call_2", "name": "weather", "input": {"city": "Oslo"}},
                ]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "call_1", "content": "sun"},
                    {"type": "tool_result", "tool_use_id": "call_2", "content": [{"type": "text", "text": "snow"}]},
                    {"type": "text", "text": "Sum up."},
                ]},
            ],
            "tools": [{"name": "weather", "description": "Weather.", "input_schema": schema, "strict": true}],
            "tool_choice": {"type": "any", "disable_parallel_tool_use": true},
            "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": schema}},
            "metadata": {"user_id": "u"},
        }),
    }
}

#[test]
fn the_same_conversation_reads_the_same_in_every_dialect() {
    let chat = parse(Dialect::OpenAiChat, &conversation(Dialect::OpenAiChat)).unwrap();
    for dialect in Dialect::ALL {
        let mut request = parse(dialect, &conversation(dialect)).unwrap();
        assert_eq!(request.native_only, [], "{dialect}");
        request.dialect = chat.dialect;
        request.estimated_input_tokens = chat.estimated_input_tokens;
        if dialect == Dialect::Anthropic {
            request.format = chat.format.clone();
        }
        assert_eq!(request, chat, "{dialect}");
    }
}

#[test]
fn a_conversation_survives_the_way_to_any_provider() {
    for agent in Dialect::ALL {
        let request = parse(agent, &conversation(agent)).unwrap();
        for provider in Dialect::ALL {
            let rendered = render_request(&request, provider, "served").unwrap();
            assert_eq!(rendered["model"], "served");
            let mut back = parse(provider, &rendered).unwrap();
            assert_eq!(back.native_only, [], "{agent} to {provider}");
            assert!(back.estimated_input_tokens > 1600, "the picture counts");
            back.dialect = agent;
            back.model = request.model.clone();
            back.include_usage = request.include_usage;
            back.estimated_input_tokens = request.estimated_input_tokens;
            if agent == Dialect::Anthropic || provider == Dialect::Anthropic {
                back.format = request.format.clone();
            }
            assert_eq!(back, request, "{agent} to {provider}: {rendered}");
        }
    }
}

#[test]
fn an_anthropic_provider_gets_its_own_rules_met() {
    let request = parse(Dialect::OpenAiChat, &conversation(Dialect::OpenAiChat)).unwrap();
    let body = render_request(&request, Dialect::Anthropic, "claude-sonnet-5").unwrap();
    assert_eq!(body["max_tokens"], 77);
    assert_eq!(body["system"], "Be brief.");
    let roles: Vec<_> = body["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| &message["role"])
        .collect();
    assert_eq!(
        roles,
        ["user", "assistant", "user"],
        "results of parallel calls stand in one message"
    );
    assert_eq!(body["messages"][2]["content"][1]["tool_use_id"], "call_2");
    assert_eq!(
        body["tool_choice"],
        json!({"type": "any", "disable_parallel_tool_use": true})
    );
    assert_eq!(body["output_config"]["effort"], "low");

    let bare = parse(
        Dialect::OpenAiChat,
        &json!({"messages": [{"role": "user", "content": "x"}]}),
    )
    .unwrap();
    for (model, expect) in [
        ("claude-sonnet-5", 16_384),
        ("claude-3-5-haiku", 8192),
        ("who-knows", 8192),
    ] {
        assert_eq!(
            render_request(&bare, Dialect::Anthropic, model).unwrap()["max_tokens"],
            expect,
            "{model}"
        );
    }
}

#[test]
fn what_frameworks_send_by_default_is_no_obstacle() {
    // The Agents SDK, for any model whose name begins with gpt-5.
    let body = json!({
        "model": "gpt-5.1", "include": [], "input": [{"role": "user", "content": "hi"}], "instructions": "be",
        "reasoning": {"effort": "none"}, "text": {"verbosity": "low"}, "tools": [],
    });
    let request = parse(Dialect::OpenAiResponses, &body).unwrap();
    let to = |model: &str| render_request(&request, Dialect::Anthropic, model).unwrap();
    assert_eq!(
        to("claude-sonnet-5")["thinking"],
        json!({"type": "disabled"})
    );
    assert_eq!(
        to("claude-opus-5-5").get("thinking"),
        None,
        "it always thinks"
    );
    assert_eq!(to("claude-sonnet-5").get("output_config"), None);

    // LangChain's Anthropic client asks for its own model's longest output.
    let body = json!({"model": "c", "max_tokens": 128_000, "messages": [{"role": "user", "content": "hi"}]});
    let request = parse(Dialect::Anthropic, &body).unwrap();
    for (model, expect) in [
        ("gpt-4o", 16_384),
        ("gpt-5.1", 128_000),
        ("who-knows", 128_000),
    ] {
        let chat = render_request(&request, Dialect::OpenAiChat, model).unwrap();
        assert_eq!(chat["max_completion_tokens"], expect, "{model}");
        let responses = render_request(&request, Dialect::OpenAiResponses, model).unwrap();
        assert_eq!(responses["max_output_tokens"], expect, "{model}");
    }
}

#[test]
fn blank_text_is_no_obstacle() {
    let call = json!({"id": "a", "type": "function", "function": {"name": "f", "arguments": ""}});
    let body = json!({"messages": [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": ""},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": " \n"},
    ]});
    let request = parse(Dialect::OpenAiChat, &body).unwrap();
    let anthropic = render_request(&request, Dialect::Anthropic, "m").unwrap();
    let expect = json!([
        {"role": "user", "content": [{"type": "text", "text": "x"}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": []}]},
    ]);
    assert_eq!(anthropic["messages"], expect);
    let chat = render_request(&request, Dialect::OpenAiChat, "m").unwrap();
    assert_eq!(chat["messages"][1]["content"], Value::Null);
    assert_eq!(chat["messages"][3]["content"], "");
}

#[test]
fn pictures_in_tool_results_follow_the_results() {
    let image = json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}});
    let body = json!({"model": "m", "max_tokens": 5, "messages": [
        {"role": "assistant", "content": [
            {"type": "tool_use", "id": "a", "name": "shot", "input": {}},
            {"type": "tool_use", "id": "b", "name": "shot", "input": {}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "a", "content": [image]},
            {"type": "tool_result", "tool_use_id": "b", "is_error": true, "content": "no screen"},
        ]},
    ]});
    let request = parse(Dialect::Anthropic, &body).unwrap();
    let chat = render_request(&request, Dialect::OpenAiChat, "m").unwrap();
    let messages = chat["messages"].as_array().unwrap();
    let roles: Vec<_> = messages
        .iter()
        .map(|message| message["role"].as_str().unwrap())
        .collect();
    assert_eq!(roles, ["assistant", "tool", "tool", "user"]);
    assert_eq!(
        messages[3]["content"][1]["image_url"]["url"],
        "data:image/png;base64,iVBO"
    );
    assert!(messages[2]["content"].as_str().unwrap().contains("failed"));
    let responses = render_request(&request, Dialect::OpenAiResponses, "m").unwrap();
    assert_eq!(responses["input"][2]["output"][0]["type"], "input_image");
}

#[test]
fn what_lives_or_runs_at_the_provider_is_refused_by_name() {
    let with = |dialect: Dialect, field: &str, value: Value| {
        let mut body = json!({"model": "m", "max_tokens": 5, "messages": [], "input": []});
        body[field] = value;
        parse(dialect, &body)
    };
    let tool = |kind: &str| json!([{"type": "function", "name": "f", "function": {"name": "f"}}, {"type": kind}]);
    for dialect in Dialect::ALL {
        for (field, value) in [
            ("background", json!(true)),
            ("previous_response_id", json!("resp_1")),
            ("conversation", json!("conv_1")),
        ] {
            assert_eq!(
                with(dialect, field, value).unwrap_err().field,
                field,
                "{dialect}"
            );
        }
        for (field, value) in [
            ("background", json!(false)),
            ("previous_response_id", Value::Null),
            ("store", json!(true)),
        ] {
            assert!(with(dialect, field, value).is_ok(), "{dialect} {field}");
        }
    }
    let hosted = [
        (Dialect::OpenAiChat, vec!["web_search", "mcp"]),
        (
            Dialect::OpenAiResponses,
            vec![
                "web_search",
                "web_search_preview",
                "file_search",
                "code_interpreter",
                "computer_use_preview",
                "mcp",
                "image_generation",
                "tool_search",
                "shell",
                "programmatic_tool_calling",
                "of-next-year",
            ],
        ),
    ];
    for (dialect, kinds) in hosted {
        for kind in kinds {
            assert_eq!(
                with(dialect, "tools", tool(kind)).unwrap_err().field,
                "tools[1].type",
                "{dialect} {kind}"
            );
        }
    }
    for kind in [
        "web_search_20250305",
        "web_fetch_20250910",
        "code_execution_20250825",
        "tool_search_tool_bm25_20251119",
        "mcp_toolset",
    ] {
        let refused = with(
            Dialect::Anthropic,
            "tools",
            json!([{"type": kind, "name": "x"}]),
        );
        assert_eq!(refused.unwrap_err().field, "tools[0].type", "{kind}");
    }
    let nested = json!([{"type": "namespace", "name": "n", "tools": [{"type": "mcp"}]}]);
    assert_eq!(
        with(Dialect::OpenAiResponses, "tools", nested)
            .unwrap_err()
            .field,
        "tools[0].tools[0].type"
    );
    assert!(with(Dialect::OpenAiChat, "web_search_options", json!({})).is_err());
    assert!(
        with(
            Dialect::Anthropic,
            "mcp_servers",
            json!([{"url": "https://x"}])
        )
        .is_err()
    );
    assert!(with(Dialect::Anthropic, "mcp_servers", json!([])).is_ok());
    assert!(with(Dialect::OpenAiResponses, "prompt", json!({"id": "p"})).is_err());
    let reference = json!([{"type": "item_reference", "id": "msg_1"}]);
    assert_eq!(
        with(Dialect::OpenAiResponses, "input", reference)
            .unwrap_err()
            .field,
        "input[0].type"
    );
    // Tools that the agent itself runs are its own affair.
    let own = json!([{"type": "bash_20250124", "name": "bash"}, {"type": "custom", "name": "x", "input_schema": {}}]);
    assert!(with(Dialect::Anthropic, "tools", own).is_ok());
    let own = json!([{"type": "custom", "name": "x"}, {"type": "local_shell"}, {"type": "shell", "environment": {"type": "local"}}]);
    assert!(with(Dialect::OpenAiResponses, "tools", own).is_ok());
}

#[test]
fn a_body_that_is_no_request_is_refused() {
    for (dialect, body, field) in [
        (Dialect::OpenAiChat, json!([]), "body"),
        (Dialect::OpenAiChat, json!({"model": "m"}), "messages"),
        (Dialect::Anthropic, json!({"messages": "x"}), "messages"),
        (Dialect::OpenAiResponses, json!({"input": 3}), "input"),
    ] {
        assert_eq!(parse(dialect, &body).unwrap_err().field, field);
    }
}

#[test]
fn what_can_not_be_carried_is_named() {
    let chat = |field: &str, value: Value| {
        let mut body = json!({"messages": [{"role": "user", "content": "x"}]});
        body[field] = value;
        (Dialect::OpenAiChat, body)
    };
    let responses = |field: &str, value: Value| {
        let mut body = json!({"input": "x"});
        body[field] = value;
        (Dialect::OpenAiResponses, body)
    };
    let anthropic = |field: &str, value: Value| {
        let mut body = json!({"max_tokens": 5, "messages": [{"role": "user", "content": "x"}]});
        body[field] = value;
        (Dialect::Anthropic, body)
    };
    let audio = json!([{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]);
    let call = json!([{"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "[1]"}}]}]);
    let pdf_url = json!([{"role": "user", "content": [{"type": "document", "source": {"type": "url", "url": "https://x/a.pdf"}}]}]);
    let cases = [
        (chat("n", json!(2)), Dialect::Anthropic, "n"),
        (chat("seed", json!(1)), Dialect::Anthropic, "seed"),
        (
            chat("temperature", json!(1.5)),
            Dialect::Anthropic,
            "temperature",
        ),
        (
            chat("logprobs", json!(true)),
            Dialect::Anthropic,
            "logprobs",
        ),
        (
            chat("presence_penalty", json!(0.5)),
            Dialect::Anthropic,
            "presence_penalty",
        ),
        (
            chat("response_format", json!({"type": "json_object"})),
            Dialect::Anthropic,
            "response_format",
        ),
        (
            chat("of_next_year", json!(1)),
            Dialect::Anthropic,
            "of_next_year",
        ),
        (
            chat("messages", audio),
            Dialect::Anthropic,
            "messages[0].content[0]",
        ),
        (chat("messages", call), Dialect::Anthropic, "arguments"),
        (chat("messages", json!([])), Dialect::Anthropic, "messages"),
        (
            chat("temperature", json!("hot")),
            Dialect::Anthropic,
            "temperature",
        ),
        (
            chat(
                "tools",
                json!([{"type": "custom", "custom": {"name": "x"}}]),
            ),
            Dialect::Anthropic,
            "tools[0].type",
        ),
        (chat("stop", json!(["x"])), Dialect::OpenAiResponses, "stop"),
        (
            responses("truncation", json!("auto")),
            Dialect::OpenAiChat,
            "truncation",
        ),
        (
            responses("include", json!(["message.output_text.logprobs"])),
            Dialect::OpenAiChat,
            "include",
        ),
        (
            responses("max_tool_calls", json!(1)),
            Dialect::Anthropic,
            "max_tool_calls",
        ),
        (
            responses("tool_choice", json!({"type": "allowed_tools"})),
            Dialect::OpenAiChat,
            "tool_choice",
        ),
        (anthropic("top_k", json!(5)), Dialect::OpenAiChat, "top_k"),
        (
            anthropic("tools", json!([{"type": "bash_20250124", "name": "bash"}])),
            Dialect::OpenAiChat,
            "tools[0].type",
        ),
        (
            anthropic("messages", pdf_url),
            Dialect::OpenAiChat,
            "messages",
        ),
    ];
    for ((agent, body), provider, field) in cases {
        let request = parse(agent, &body).unwrap_or_else(|refusal| panic!("{body}: {refusal}"));
        let refused = render_request(&request, provider, "m");
        assert_eq!(refused.unwrap_err().field, field, "{body} to {provider}");
    }
}

#[test]
fn what_asks_for_nothing_is_no_obstacle() {
    let body = json!({
        "messages": [{"role": "user", "content": "x"}], "n": 1, "logprobs": false, "top_logprobs": 0, "logit_bias": {},
        "presence_penalty": 0, "frequency_penalty": 0, "service_tier": "auto", "stream_options": null, "tools": null,
        "store": true, "metadata": {"a": "b"}, "user": "u", "prompt_cache_key": "k", "modalities": ["text"],
        "temperature": null, "stop": null, "response_format": {"type": "text"},
    });
    let request = parse(Dialect::OpenAiChat, &body).unwrap();
    for provider in Dialect::ALL {
        render_request(&request, provider, "m").unwrap();
    }
    let rendered = render_request(&request, Dialect::Anthropic, "who-knows").unwrap();
    let expect = json!({"model": "who-knows", "max_tokens": 8192, "messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]});
    assert_eq!(rendered, expect);
}

#[test]
fn foreign_reasoning_is_left_out_and_ones_own_sent_back() {
    let body = json!({"max_tokens": 9, "messages": [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "signed", "signature": "Eq"},
            {"type": "thinking", "thinking": "open", "signature": ""},
            {"type": "text", "text": "y"},
        ]},
        {"role": "user", "content": "z"},
    ]});
    let request = parse(Dialect::Anthropic, &body).unwrap();
    let chat = render_request(&request, Dialect::OpenAiChat, "m").unwrap();
    assert_eq!(
        chat["messages"][1],
        json!({"role": "assistant", "content": "y", "reasoning_content": "open"})
    );
    let anthropic = render_request(&request, Dialect::Anthropic, "m").unwrap();
    let content = &anthropic["messages"][1]["content"];
    assert_eq!(
        content[0],
        json!({"type": "thinking", "thinking": "signed", "signature": "Eq"})
    );
    assert_eq!(content[1]["type"], "text");
}

#[test]
fn forwarding_changes_the_model_and_asks_for_usage() {
    let body = json!({"messages": [], "x": {"y": [1]}, "model": "a", "stream": true, "stream_options": {"z": 1}});
    let chat = forward(Dialect::OpenAiChat, &body, "b");
    let expect = json!({"messages": [], "x": {"y": [1]}, "model": "b", "stream": true, "stream_options": {"z": 1, "include_usage": true}});
    assert_eq!(chat.to_string(), expect.to_string());
    assert_eq!(forward(Dialect::Anthropic, &body, "a"), body);
    let null = json!({"stream": true, "stream_options": null});
    assert_eq!(
        forward(Dialect::OpenAiChat, &null, "b")["stream_options"],
        json!({"include_usage": true})
    );
    assert_eq!(
        forward(Dialect::OpenAiChat, &json!({}), "b"),
        json!({"model": "b"})
    );
    // Neither changes what a match is decided on, but for the model.
    assert_eq!(
        canonical(
            Dialect::OpenAiChat,
            &forward(Dialect::OpenAiChat, &body, "a")
        ),
        canonical(Dialect::OpenAiChat, &body)
    );
}
