//! Model calls: every dialect over every provider, replay, and who may call at all.

use std::time::Duration;

use api::fleet::ProviderKind;
use serde_json::{Value, json};
use testkit::{Provider, Reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::home::{Home, add_provider, agent, fleet, until, with_openai};

fn chat(text: &str, stream: bool) -> Value {
    json!({"model": "gpt", "stream": stream, "messages": [{"role": "user", "content": text}]})
}

fn bodies(stream: bool) -> [(&'static str, Value); 3] {
    [
        ("/v1/chat/completions", chat("hi", stream)),
        (
            "/v1/responses",
            json!({"model": "gpt", "stream": stream, "input": [{"role": "user", "content": "hi"}]}),
        ),
        (
            "/v1/messages",
            json!({"model": "gpt", "stream": stream, "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}),
        ),
    ]
}

#[tokio::test]
async fn every_dialect_is_served_by_every_provider_streamed_and_not() {
    let provider = Provider::start(|_| Reply::text("hello there"));
    let kinds = [
        (ProviderKind::Openai, provider.openai_url()),
        (ProviderKind::Anthropic, provider.anthropic_url()),
    ];
    for (kind, url) in kinds {
        let state = tempfile::tempdir().unwrap();
        let mut fleet = fleet();
        add_provider(&mut fleet, "p", kind, &url);
        let mut home = Home::start(state.path(), &fleet).await;
        let (task, attempts) = home.work("x").await;
        let token = &attempts[0].token;
        for stream in [false, true] {
            for (path, body) in bodies(stream) {
                let response = home.post(token, path, &body).await;
                assert_eq!(response.status(), 200, "{kind:?} {path} {stream}");
                let kind_of = response.headers()["content-type"]
                    .to_str()
                    .unwrap()
                    .to_owned();
                assert_eq!(kind_of == "text/event-stream", stream, "{path}: {kind_of}");
                assert!(!response.headers().contains_key("mainstay-replayed"));
                let text = response.text().await.unwrap();
                assert!(text.contains("hello"), "{kind:?} {path}: {text}");
            }
        }
        let view = home.done(&task, 1).await;
        assert_eq!((view.steps, view.usage.input_tokens), (6, 600));
        // 600 tokens read at 1 dollar and 60 written at 10, per million.
        assert_eq!(view.cost.usd, Some(0.0012));
        home.end().await;
    }
    assert_eq!(provider.calls().len(), 12);
}

#[tokio::test]
async fn the_next_attempt_gets_the_recorded_bytes_and_no_call_is_repeated() {
    let provider = Provider::start(|_| Reply::text("hello there"));
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &with_openai(&provider.openai_url())).await;
    let (task, attempts) = home.work("x").await;
    let mut first = Vec::new();
    for (path, body) in bodies(true) {
        let response = home.post(&attempts[0].token, path, &body).await;
        first.push(response.text().await.unwrap());
    }
    home.killed(&task, 1).await;
    for ((path, body), before) in bodies(true).into_iter().zip(first) {
        let response = home.post(&attempts[1].token, path, &body).await;
        assert_eq!(response.headers()["mainstay-replayed"], "true");
        assert_eq!(response.text().await.unwrap(), before);
    }
    assert_eq!(provider.calls().len(), 3);
    let fenced = home
        .post(
            &attempts[0].token,
            "/v1/chat/completions",
            &chat("late", false),
        )
        .await;
    assert_eq!(fenced.status(), 409);
    assert_eq!(fenced.headers()["x-should-retry"], "false");
    let view = home.done(&task, 2).await;
    assert_eq!((view.steps, view.replayed, view.repeated), (3, 3, 0));
    home.end().await;
}

#[tokio::test]
async fn a_call_goes_on_when_its_agent_dies_and_the_next_attempt_joins_it() {
    let provider = Provider::start(|_| Reply::text("late").after(Duration::from_millis(300)));
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &with_openai(&provider.openai_url())).await;
    let (task, attempts) = home.work("x").await;
    let request = home
        .request(&attempts[0].token, "/v1/chat/completions")
        .body(chat("hi", false).to_string());
    let dying = tokio::spawn(request.send());
    until("the provider is asked", async || {
        provider.calls().len() == 1
    })
    .await;
    dying.abort();
    home.killed(&task, 1).await;
    let response = home
        .post(
            &attempts[1].token,
            "/v1/chat/completions",
            &chat("hi", false),
        )
        .await;
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer["choices"][0]["message"]["content"], "late");
    assert_eq!(provider.calls().len(), 1);
    let view = home.done(&task, 2).await;
    assert_eq!((view.steps, view.repeated), (1, 0));
    home.end().await;
}

#[tokio::test]
async fn a_prompt_with_the_time_in_it_is_matched_and_another_prompt_is_not() {
    let provider = Provider::start(|_| Reply::text("ok"));
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &with_openai(&provider.openai_url())).await;
    let (task, attempts) = home.work("x").await;
    let now = |offset_s: i64| {
        let unix = std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .unwrap()
            .as_secs()
            .cast_signed()
            + offset_s;
        format!("The time is {unix}. Go.")
    };
    home.post(
        &attempts[0].token,
        "/v1/chat/completions",
        &chat(&now(0), false),
    )
    .await;
    home.killed(&task, 1).await;
    let response = home
        .post(
            &attempts[1].token,
            "/v1/chat/completions",
            &chat(&now(1), false),
        )
        .await;
    assert_eq!(response.headers()["mainstay-replayed"], "true");
    let response = home
        .post(
            &attempts[1].token,
            "/v1/chat/completions",
            &chat("Stop.", false),
        )
        .await;
    assert!(!response.headers().contains_key("mainstay-replayed"));
    assert_eq!(provider.calls().len(), 2);
    home.end().await;
}

#[tokio::test]
async fn equal_calls_in_parallel_are_as_many_steps() {
    let provider = Provider::start(|_| Reply::text("ok").after(Duration::from_millis(100)));
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &with_openai(&provider.openai_url())).await;
    let (task, attempts) = home.work("x").await;
    let body = chat("same", false);
    let call = || home.post(&attempts[0].token, "/v1/chat/completions", &body);
    let (one, two, three) = tokio::join!(call(), call(), call());
    for response in [one, two, three] {
        assert_eq!(response.status(), 200);
        response.bytes().await.unwrap();
    }
    assert_eq!(provider.calls().len(), 3);
    assert_eq!(home.done(&task, 1).await.steps, 3);
    home.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn equal_calls_that_overlap_with_the_end_of_others_are_steps_of_their_own() {
    const ROUNDS: usize = 60;
    const AT_ONCE: usize = 10;
    let provider = Provider::start(|_| Reply::text("ok"));
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &with_openai(&provider.openai_url())).await;
    let (task, attempts) = home.work("x").await;
    let body = chat("same", false);
    for _ in 0..ROUNDS {
        let calls = (0..AT_ONCE).map(|_| async {
            let sent = home.post(&attempts[0].token, "/v1/chat/completions", &body);
            assert!(sent.await.bytes().await.is_ok());
        });
        futures_util::future::join_all(calls).await;
    }
    assert_eq!(provider.calls().len(), ROUNDS * AT_ONCE);
    assert_eq!(home.done(&task, 1).await.steps as usize, ROUNDS * AT_ONCE);
    home.end().await;
}

#[tokio::test]
async fn who_may_not_call_is_told_in_the_dialect_it_speaks() {
    let provider = Provider::start(|_| Reply::text("ok"));
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &with_openai(&provider.openai_url())).await;
    let (_, attempts) = home.work("x").await;
    let refused = home
        .post("wrong", "/v1/chat/completions", &chat("hi", false))
        .await;
    assert_eq!(refused.status(), 401);
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["error"]["code"], "unauthorized");
    let refused = home
        .post("wrong", "/v1/messages", &bodies(false)[2].1)
        .await;
    let body: Value = refused.json().await.unwrap();
    assert_eq!(
        (&body["type"], &body["error"]["type"]),
        (&json!("error"), &json!("authentication_error"))
    );
    // The key where Anthropic's SDK puts it, and a base URL with one version too many.
    let request = home
        .http
        .post(format!("http://{}/v1/v1/messages", home.address));
    let request = request
        .header("x-api-key", &attempts[0].token)
        .body(bodies(false)[2].1.to_string());
    assert_eq!(request.send().await.unwrap().status(), 200);
    let nowhere = home.post(&attempts[0].token, "/v1/files", &json!({})).await;
    assert_eq!(nowhere.status(), 404);
    assert!(
        nowhere
            .text()
            .await
            .unwrap()
            .contains("/v1/chat/completions")
    );
    home.end().await;
}

#[tokio::test]
async fn what_would_live_elsewhere_or_is_no_request_is_refused_and_never_sent() {
    let provider = Provider::start(|_| Reply::text("ok"));
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &with_openai(&provider.openai_url())).await;
    let (_, attempts) = home.work("x").await;
    let token = &attempts[0].token;
    let refused = [
        (
            "/v1/responses",
            json!({"input": "x", "previous_response_id": "r"}).to_string(),
            400,
        ),
        (
            "/v1/responses",
            json!({"input": "x", "tools": [{"type": "web_search"}]}).to_string(),
            400,
        ),
        ("/v1/chat/completions", "{".to_owned(), 400),
        ("/v1/chat/completions", "[]".to_owned(), 400),
        ("/v1/chat/completions", "x".repeat(33 * 1024 * 1024), 413),
    ];
    let named = home
        .post(
            token,
            refused[0].0,
            &serde_json::from_str(&refused[0].1).unwrap(),
        )
        .await;
    let named: Value = named.json().await.unwrap();
    assert_eq!(named["error"]["param"], "previous_response_id");
    for (path, body, status) in refused {
        let start = body[..body.len().min(40)].to_owned();
        match home.request(token, path).body(body).send().await {
            Ok(response) => {
                assert_eq!(response.status(), status, "{path} {start}");
                assert_eq!(
                    response.headers()["x-should-retry"],
                    "false",
                    "{path} {start}"
                );
            }
            // The answer may be overtaken by the reset that stops a body nobody reads.
            Err(error) => assert_eq!(status, 413, "{error}"),
        }
    }
    assert_eq!(provider.calls().len(), 0);
    home.end().await;
}

#[tokio::test]
async fn models_are_listed_and_embeddings_pass_through() {
    let provider = Provider::start(|_| Reply::text("ok"));
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &with_openai(&provider.openai_url())).await;
    let (task, attempts) = home.work("x").await;
    let token = &attempts[0].token;
    let list: Value = home.get(token, "/v1/models").await.json().await.unwrap();
    assert_eq!(list["data"][0]["id"], "openai/fake-1");
    let one: Value = home
        .get(token, "/v1/models/openai/fake-1")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(one["owned_by"], "openai");
    let body = json!({"model": "text-embedding-3-small", "input": "hi"});
    let answer: Value = home
        .post(token, "/v1/embeddings", &body)
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(answer["data"][0]["embedding"][2], 1.0);
    // It named a model that it may not use.
    assert_eq!(provider.calls()[0].model, "fake-1");
    let counted: Value = home
        .post(
            token,
            "/v1/messages/count_tokens",
            &json!({"messages": [{"role": "user", "content": "hi"}]}),
        )
        .await
        .json()
        .await
        .unwrap();
    assert!(counted["input_tokens"].as_u64().unwrap() > 0);
    assert_eq!(home.done(&task, 1).await.steps, 1);
    home.end().await;
}

#[tokio::test]
async fn a_script_answers_from_its_transcript_and_says_so() {
    let state = tempfile::tempdir().unwrap();
    let mut fleet = fleet();
    add_provider(&mut fleet, "play", ProviderKind::Script, "");
    let transcript = r#"
rules:
  - when: {turn: 0}
    answer: {toolCalls: [{name: look, arguments: {at: "{{input}}"}}]}
  - when: {turn: 1}
    answer: {text: "It shows {{lastToolResult.free}} free.", paceMs: 1}
"#;
    fleet.providers.get_mut("play").unwrap().script = Some(transcript.into());
    let mut home = Home::start(state.path(), &fleet).await;
    let (_, attempts) = home.work("x").await;
    let token = &attempts[0].token;
    let answer: Value = home
        .post(token, "/v1/chat/completions", &chat("disk", false))
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(answer["model"], "script/fake-1");
    let call = &answer["choices"][0]["message"]["tool_calls"][0];
    assert_eq!(call["function"]["arguments"], r#"{"at":"disk"}"#);
    let mut next = chat("disk", true);
    let messages = next["messages"].as_array_mut().unwrap();
    messages.push(answer["choices"][0]["message"].clone());
    messages.push(json!({"role": "tool", "tool_call_id": call["id"], "content": "{\"free\": 42}"}));
    let text = home
        .post(token, "/v1/chat/completions", &next)
        .await
        .text()
        .await
        .unwrap();
    let said: String = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok())
        .filter_map(|event| {
            event["choices"][0]["delta"]["content"]
                .as_str()
                .map(str::to_owned)
        })
        .collect();
    assert_eq!(said, "It shows 42 free.");
    home.end().await;
}

#[tokio::test]
async fn a_budget_refuses_the_next_call_for_good() {
    let provider = Provider::start(|_| Reply::text("ok"));
    let state = tempfile::tempdir().unwrap();
    let mut fleet = with_openai(&provider.openai_url());
    agent(&mut fleet).budget.steps = Some(1);
    let mut home = Home::start(state.path(), &fleet).await;
    let (_, attempts) = home.work("x").await;
    let token = &attempts[0].token;
    assert_eq!(
        home.post(token, "/v1/chat/completions", &chat("a", false))
            .await
            .status(),
        200
    );
    let refused = home
        .post(token, "/v1/chat/completions", &chat("b", false))
        .await;
    assert_eq!(
        (
            refused.status().as_u16(),
            &refused.headers()["x-should-retry"]
        ),
        (429, &"false".parse().unwrap())
    );
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["error"]["code"], "budget");
    assert_eq!(provider.calls().len(), 1);
    home.end().await;
}

#[tokio::test]
async fn a_server_without_the_responses_api_serves_agents_that_speak_it() {
    let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let paths = asked.clone();
    let app = axum::Router::new().fallback(move |uri: axum::http::Uri| {
        let paths = paths.clone();
        async move {
            paths.lock().unwrap().push(uri.path().to_owned());
            if uri.path() != "/v1/chat/completions" {
                return (
                    axum::http::StatusCode::NOT_FOUND,
                    axum::Json(json!({"detail": "Not Found"})),
                );
            }
            let message = json!({"role": "assistant", "content": "plain"});
            let answer = json!({"id": "c", "object": "chat.completion", "created": 1, "model": "m",
                "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}});
            (axum::http::StatusCode::OK, axum::Json(answer))
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &with_openai(&url)).await;
    let (_, attempts) = home.work("x").await;
    for input in ["one", "two"] {
        let body = json!({"model": "m", "input": input});
        let answer: Value = home
            .post(&attempts[0].token, "/v1/responses", &body)
            .await
            .json()
            .await
            .unwrap();
        assert_eq!(
            answer["output"][0]["content"][0]["text"], "plain",
            "{answer}"
        );
    }
    let chat = "/v1/chat/completions";
    assert_eq!(
        *asked.lock().unwrap(),
        ["/v1/responses", chat, chat],
        "asked once whether it knows it"
    );
    home.end().await;
}

#[tokio::test]
async fn whenever_a_connection_is_cut_the_same_request_gets_the_one_answer() {
    let provider = Provider::start(|_| Reply::text("ok").after(Duration::from_millis(30)));
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &with_openai(&provider.openai_url())).await;
    let (task, attempts) = home.work("x").await;
    for n in 0..40 {
        let body = chat(&format!("question {n}"), n % 2 == 0);
        let request = home
            .request(&attempts[0].token, "/v1/chat/completions")
            .body(body.to_string());
        let cut = tokio::time::timeout(Duration::from_micros(250 * n), request.send()).await;
        drop(cut);
        // As the SDKs do it; without the count it may be one of two equal calls in parallel.
        let again = home
            .request(&attempts[0].token, "/v1/chat/completions")
            .header("x-stainless-retry-count", "1")
            .body(body.to_string());
        let response = again.send().await.unwrap();
        assert!(response.text().await.unwrap().contains("ok"), "{n}");
    }
    assert!(provider.counts_by_body().values().all(|count| *count == 1));
    let view = home.done(&task, 1).await;
    assert_eq!((view.steps, view.repeated), (40, 0));
    home.end().await;
}

#[tokio::test]
async fn a_newer_attempts_first_call_cuts_off_what_an_older_one_waits_for() {
    let provider = Provider::start(|_| Reply::text("late").after(Duration::from_millis(500)));
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &with_openai(&provider.openai_url())).await;
    let (_, attempts) = home.work("x").await;
    let waiting = home
        .request(&attempts[0].token, "/v1/chat/completions")
        .body(chat("hi", false).to_string());
    let waiting = tokio::spawn(waiting.send());
    until("the provider is asked", async || {
        provider.calls().len() == 1
    })
    .await;
    // The shim has started the second process; its facts are still on their way.
    let response = home
        .post(
            &attempts[1].token,
            "/v1/chat/completions",
            &chat("hi", false),
        )
        .await;
    assert_eq!(response.status(), 200);
    assert!(waiting.await.unwrap().is_err(), "its connection is closed");
    assert_eq!(provider.calls().len(), 1);
    home.end().await;
}

#[tokio::test]
async fn requests_that_are_never_whole_hold_no_more_than_their_instances_room() {
    let provider = Provider::start(|_| Reply::text("hello there"));
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &with_openai(&provider.openai_url())).await;
    let (_, attempts) = home.work("x").await;
    let token = &attempts[0].token;
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
         expect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        32 * 1024 * 1024
    );
    let mut half_sent = Vec::new();
    for _ in 0..2 {
        let mut stream = tokio::net::TcpStream::connect(home.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        // The gateway asks for the body once there is room for it.
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 100");
        half_sent.push(stream);
    }
    let small = chat("hi", false);
    let mut waiting = Box::pin(home.post(token, "/v1/chat/completions", &small));
    let early = tokio::time::timeout(Duration::from_millis(300), &mut waiting).await;
    assert!(early.is_err(), "{early:?}");
    half_sent.pop();
    assert_eq!(waiting.await.status(), 200);
    drop(half_sent);
    home.end().await;
}
