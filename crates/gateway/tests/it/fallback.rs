//! Providers that fail: retried, replaced, and never once a byte has reached the agent.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use api::fleet::{Credential, Fleet, ProviderKind};
use serde_json::{Value, json};
use testkit::provider::Kind;
use testkit::{Provider, Reply};

use crate::home::{Home, WAIT, add_provider, agent, fleet, model, until, with_openai};

fn chat(stream: bool) -> Value {
    json!({"model": "gpt", "stream": stream, "messages": [{"role": "user", "content": "hi"}]})
}

/// With a pause before each event, so that what is sent before the break is on its way.
fn paced(kind: Kind) -> Reply {
    Reply::from(kind).paced(Duration::from_millis(20))
}

/// `first` falls back on `second`.
fn two(first: &Provider, second: &Provider) -> Fleet {
    let mut fleet = fleet();
    add_provider(
        &mut fleet,
        "first",
        ProviderKind::Openai,
        &first.openai_url(),
    );
    add_provider(
        &mut fleet,
        "second",
        ProviderKind::Anthropic,
        &second.anthropic_url(),
    );
    agent(&mut fleet).models.truncate(1);
    fleet.providers.get_mut("first").unwrap().fallback = vec![model("second")];
    fleet
}

#[tokio::test]
async fn another_model_stands_in_for_one_that_fails() {
    let kinds = [
        (Kind::Error(500), false, 3),
        (Kind::Error(429), true, 3),
        (Kind::Error(401), false, 1),
        (Kind::Stall, true, 1),
        (Kind::EndEarly("cut off".into(), 0), true, 1),
        (Kind::EndEarly("cut off".into(), 1), true, 1),
        (Kind::BreakOff("cut off".into(), 1), true, 1),
    ];
    let html = Kind::Raw {
        status: 200,
        content_type: "text/html".into(),
        body: "<html>".into(),
    };
    for (kind, stream, asked) in kinds.into_iter().chain([(html, false, 1)]) {
        let name = format!("{kind:?}");
        let first = Provider::start(move |_| paced(kind.clone()));
        let second = Provider::start(|_| Reply::text("from the second"));
        let state = tempfile::tempdir().unwrap();
        let mut fleet = two(&first, &second);
        fleet.providers.get_mut("first").unwrap().limits.timeout_ms = 1000;
        let mut home = Home::start(state.path(), &fleet).await;
        let (task, attempts) = home.work("x").await;
        let response = home
            .post(&attempts[0].token, "/v1/chat/completions", &chat(stream))
            .await;
        assert_eq!(response.status(), 200, "{name}");
        let text = response.text().await.unwrap();
        assert!(text.contains("second"), "{name}: {text}");
        assert_eq!(
            (first.calls().len(), second.calls().len()),
            (asked, 1),
            "{name}"
        );
        let steps = home.hub.task_steps(&task).await.unwrap();
        assert_eq!(
            steps.items[0].model.as_deref(),
            Some("second/fake-1"),
            "{name}"
        );
        home.end().await;
    }
}

#[tokio::test]
async fn nobody_stands_in_once_a_byte_has_left_and_the_stream_is_reset() {
    let first = Provider::start(|_| paced(Kind::BreakOff("one two three four".into(), 4)));
    let second = Provider::start(|_| Reply::text("never"));
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &two(&first, &second)).await;
    let (task, attempts) = home.work("x").await;
    let mut response = home
        .post(&attempts[0].token, "/v1/chat/completions", &chat(true))
        .await;
    assert_eq!(response.status(), 200);
    let ended = loop {
        match response.chunk().await {
            Ok(Some(_)) => {}
            ended => break ended,
        }
    };
    assert!(
        ended.is_err(),
        "a stream that broke off must not end cleanly"
    );
    assert_eq!(second.calls().len(), 0);
    // Asked again, the same step is tried again.
    first.set_script(|_| Reply::text("whole"));
    let response = home
        .post(&attempts[0].token, "/v1/chat/completions", &chat(true))
        .await;
    assert!(response.text().await.unwrap().contains("whole"));
    assert_eq!(home.done(&task, 1).await.steps, 1);
    home.end().await;
}

#[tokio::test]
async fn a_model_call_is_retried_until_it_succeeds() {
    let asked = AtomicU32::new(0);
    let provider = Provider::start(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::error(503),
        1 => Reply::html(200),
        _ => Reply::text("at last"),
    });
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &with_openai(&provider.openai_url())).await;
    let (task, attempts) = home.work("x").await;
    let response = home
        .post(&attempts[0].token, "/v1/chat/completions", &chat(false))
        .await;
    assert!(response.text().await.unwrap().contains("at last"));
    assert_eq!(provider.calls().len(), 3);
    let view = home.done(&task, 1).await;
    assert_eq!((view.steps, view.repeated), (1, 0));
    home.end().await;
}

#[tokio::test]
async fn what_a_provider_refuses_passes_on_and_is_not_retried() {
    let provider = Provider::start(|_| Reply::error(400));
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &with_openai(&provider.openai_url())).await;
    let (_, attempts) = home.work("x").await;
    let body = json!({"max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]});
    let response = home.post(&attempts[0].token, "/v1/messages", &body).await;
    assert_eq!(response.status(), 400);
    let error: Value = response.json().await.unwrap();
    assert_eq!(error["error"]["type"], "invalid_request_error");
    assert_eq!(provider.calls().len(), 1);
    home.end().await;
}

#[tokio::test]
async fn when_a_provider_wants_to_be_left_alone_the_agent_is_told_for_how_long() {
    let state = tempfile::tempdir().unwrap();
    let mut fleet = fleet();
    add_provider(&mut fleet, "play", ProviderKind::Script, "");
    for (status, path) in [
        (429, "/v1/chat/completions"),
        (503, "/v1/responses"),
        (429, "/v1/messages"),
    ] {
        let rule = format!("rules: [{{answer: {{error: {{status: {status}, retryAfter: 75}}}}}}]");
        fleet.providers.get_mut("play").unwrap().script = Some(rule);
        let state = state.path().join(path.rsplit('/').next().unwrap());
        let mut home = Home::start(&state, &fleet).await;
        let (_, attempts) = home.work("x").await;
        let content = json!([{"role": "user", "content": "hi"}]);
        let field = if path.ends_with("responses") {
            "input"
        } else {
            "messages"
        };
        let body = json!({"model": "gpt", "max_tokens": 9, field: content});
        let response = home.post(&attempts[0].token, path, &body).await;
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(response.headers()["retry-after"], "75", "{path}");
        home.end().await;
    }
}

#[tokio::test]
async fn a_refused_credential_parks_the_task_and_is_shown_to_nobody() {
    let provider = Provider::start(|_| Reply::error(401));
    let state = tempfile::tempdir().unwrap();
    let key = state.path().join("key");
    std::fs::write(&key, "sk-very-secret\n").unwrap();
    let mut fleet = with_openai(&provider.openai_url());
    let credential = Credential::File {
        path: key.to_str().unwrap().into(),
    };
    fleet.providers.get_mut("openai").unwrap().credential = Some(credential);
    let mut home = Home::start(state.path(), &fleet).await;
    let (task, attempts) = home.work("x").await;
    let response = home
        .post(&attempts[0].token, "/v1/chat/completions", &chat(false))
        .await;
    assert_eq!(response.status(), 401);
    assert!(!response.text().await.unwrap().contains("sk-very"));
    assert_eq!(
        provider.calls()[0].credential.as_deref(),
        Some("sk-very-secret")
    );
    let view = home.hub.task_wait(&task, WAIT).await.unwrap();
    assert_eq!(view.state, "auth-required");
    let said = view.error.unwrap().message;
    for part in [
        "provider openai",
        key.to_str().unwrap(),
        "mainstay task retry",
    ] {
        assert!(said.contains(part), "{said}");
    }
    home.end().await;
}

#[tokio::test]
async fn a_missing_secret_is_asked_for_by_its_name() {
    let provider = Provider::start(|_| Reply::text("ok"));
    let state = tempfile::tempdir().unwrap();
    let mut fleet = with_openai(&provider.openai_url());
    fleet.providers.get_mut("openai").unwrap().credential =
        Some(Credential::SecretRef(api::fleet::SecretRef {
            name: "openai".into(),
            key: "apiKey".into(),
        }));
    let mut home = Home::start(state.path(), &fleet).await;
    let (task, attempts) = home.work("x").await;
    home.post(&attempts[0].token, "/v1/chat/completions", &chat(false))
        .await;
    let view = home.hub.task_wait(&task, WAIT).await.unwrap();
    let said = view.error.unwrap().message;
    let command = "`mainstay secret set openai/apiKey`, then `mainstay task retry`";
    assert!(said.contains(command), "{said}");
    assert_eq!(provider.calls().len(), 0);
    home.end().await;
}

#[tokio::test]
async fn limits_make_calls_wait_their_turn() {
    let provider = Provider::start(|_| Reply::text("ok").after(Duration::from_millis(150)));
    let state = tempfile::tempdir().unwrap();
    let mut fleet = with_openai(&provider.openai_url());
    let limits = &mut fleet.providers.get_mut("openai").unwrap().limits;
    (
        limits.concurrency,
        limits.requests_per_minute,
        limits.timeout_ms,
    ) = (1, Some(2), 1000);
    let mut home = Home::start(state.path(), &fleet).await;
    let (_, attempts) = home.work("x").await;
    let begun = tokio::time::Instant::now();
    let body = chat(false);
    let call = || home.post(&attempts[0].token, "/v1/chat/completions", &body);
    let (one, two) = tokio::join!(call(), call());
    assert_eq!((one.status().as_u16(), two.status().as_u16()), (200, 200));
    assert!(
        begun.elapsed() >= Duration::from_millis(300),
        "one after the other"
    );
    assert_eq!(call().await.status(), 429, "the minute is full");
    assert_eq!(provider.calls().len(), 2);
    home.end().await;
}

#[tokio::test]
async fn an_answer_is_read_to_its_end_although_nobody_reads_it() {
    let provider =
        Provider::start(|_| Reply::text("a b c d e f g h").paced(Duration::from_millis(20)));
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &with_openai(&provider.openai_url())).await;
    let (task, attempts) = home.work("x").await;
    let response = home
        .post(&attempts[0].token, "/v1/chat/completions", &chat(true))
        .await;
    drop(response);
    until("the step is finished", async || {
        let steps = home.hub.task_steps(&task).await.unwrap();
        steps.items.iter().any(|step| step.state == "finished")
    })
    .await;
    let response = home
        .post(&attempts[0].token, "/v1/chat/completions", &chat(true))
        .await;
    assert!(response.text().await.unwrap().contains("[DONE]"));
    assert_eq!(
        provider.calls().len(),
        1,
        "what was owed is answered from the record"
    );
    home.end().await;
}
