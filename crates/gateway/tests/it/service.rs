//! Agents that are servers: attached, over HTTP, and as a Chat Completions server.

use std::sync::{Arc, Mutex};

use api::fleet::{Fleet, Runtime, ServiceProtocol};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use contract::keeper::InstanceKind;
use contract::shim::ToShim;
use futures_util::{SinkExt as _, StreamExt as _};
use hub::task::SubmitTask;
use hub::view::TaskView;
use serde_json::{Value, json};
use testkit::{Provider, Reply};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::home::{Home, WAIT, agent, fleet};

fn service(protocol: ServiceProtocol) -> Fleet {
    let mut fleet = fleet();
    agent(&mut fleet).runtime = Runtime::Service {
        command: vec!["true".into()],
        protocol,
        port: None,
    };
    fleet
}

async fn submit(home: &Home, input: &str) -> String {
    let submit = SubmitTask {
        agent: "helper".into(),
        input: json!(input),
        author: "test".into(),
        ..Default::default()
    };
    home.hub.task_submit(submit).await.unwrap().id
}

async fn finished(home: &Home, task: &str) -> TaskView {
    home.hub.task_wait(task, WAIT).await.unwrap()
}

/// The token of the service's first process.
async fn service_token(home: &mut Home) -> String {
    let message = home
        .shim
        .until(|message| matches!(message, ToShim::ServiceTokens { .. }))
        .await;
    let ToShim::ServiceTokens { tokens, .. } = message else {
        unreachable!("until looked for it")
    };
    tokens[0].token.clone()
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn attach(home: &Home, token: &str) -> Socket {
    let mut request = format!("ws://{}/attach", home.address)
        .into_client_request()
        .unwrap();
    request
        .headers_mut()
        .insert("authorization", format!("Bearer {token}").parse().unwrap());
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
    say(
        &mut socket,
        json!({"type": "hello", "versions": {"oldest": 1, "newest": 1}}),
    )
    .await;
    assert_eq!(hear(&mut socket).await["type"], "hello");
    socket
}

async fn say(socket: &mut Socket, message: Value) {
    socket
        .send(Message::Text(message.to_string().into()))
        .await
        .unwrap();
}

async fn hear(socket: &mut Socket) -> Value {
    loop {
        let message = tokio::time::timeout(WAIT, socket.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        if let Message::Text(text) = message {
            return serde_json::from_str(&text).unwrap();
        }
    }
}

#[tokio::test]
async fn an_attached_service_is_given_tasks_and_answers_them() {
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start_as(
        state.path(),
        &service(ServiceProtocol::Attach),
        InstanceKind::Service,
        None,
    )
    .await;
    let token = service_token(&mut home).await;
    let mut socket = attach(&home, &token).await;
    say(&mut socket, json!({"type": "ping"})).await;
    assert_eq!(hear(&mut socket).await["type"], "pong");
    let first = submit(&home, "one").await;
    let given = hear(&mut socket).await;
    assert_eq!(
        (&given["type"], &given["task"], &given["input"]),
        (&json!("task"), &json!(first), &json!("one"))
    );
    say(
        &mut socket,
        json!({"type": "chunk", "task": first, "text": "wo"}),
    )
    .await;
    say(&mut socket, json!({"type": "later", "task": first})).await;
    say(
        &mut socket,
        json!({"type": "done", "task": first, "output": {"a": 1}}),
    )
    .await;
    assert_eq!(finished(&home, &first).await.output, json!({"a": 1}));
    let second = submit(&home, "two").await;
    assert_eq!(hear(&mut socket).await["task"], json!(second));
    say(
        &mut socket,
        json!({"type": "fail", "task": second, "message": "not today"}),
    )
    .await;
    let view = finished(&home, &second).await;
    assert_eq!(
        (
            view.state.as_str(),
            view.error.unwrap().message.contains("not today")
        ),
        ("failed", true)
    );
    let third = submit(&home, "three").await;
    assert_eq!(hear(&mut socket).await["task"], json!(third));
    home.hub.task_cancel(&third, "owner").await.unwrap();
    assert_eq!(
        hear(&mut socket).await,
        json!({"type": "cancel", "task": third})
    );
    home.end().await;
}

#[tokio::test]
async fn a_service_that_goes_away_and_comes_back_is_given_its_task_again() {
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start_as(
        state.path(),
        &service(ServiceProtocol::Attach),
        InstanceKind::Service,
        None,
    )
    .await;
    let token = service_token(&mut home).await;
    let mut socket = attach(&home, &token).await;
    let task = submit(&home, "one").await;
    assert_eq!(hear(&mut socket).await["attempt"], 1);
    drop(socket);
    let mut socket = attach(&home, &token).await;
    let given = hear(&mut socket).await;
    assert_eq!(
        (&given["task"], &given["attempt"]),
        (&json!(task), &json!(2))
    );
    say(
        &mut socket,
        json!({"type": "done", "task": task, "output": "at last"}),
    )
    .await;
    assert_eq!(finished(&home, &task).await.output, json!("at last"));
    home.end().await;
}

type Seen = Arc<Mutex<Vec<(Value, Option<String>)>>>;

async fn http_service(seen: Seen) -> u16 {
    let answer = |State(seen): State<Seen>, headers: HeaderMap, body: String| async move {
        let body: Value = serde_json::from_str(&body).unwrap();
        let token = headers
            .get("mainstay-token")
            .map(|token| token.to_str().unwrap().to_owned());
        let count = {
            let mut seen = seen.lock().unwrap();
            seen.push((body.clone(), token));
            seen.len()
        };
        match body["input"].as_str().unwrap_or_default() {
            "refuse" => (StatusCode::UNPROCESSABLE_ENTITY, "no such order".to_owned()),
            "stumble" if count == 1 => (StatusCode::INTERNAL_SERVER_ERROR, String::new()),
            input => (StatusCode::OK, format!("done: {input}")),
        }
    };
    let app = Router::new().route("/", post(answer)).with_state(seen);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, app).await });
    port
}

#[tokio::test]
async fn an_http_service_answers_refuses_and_stumbles() {
    let expectations = [
        ("hello", "completed", 1),
        ("refuse", "failed", 1),
        ("stumble", "completed", 2),
    ];
    for (input, state_word, attempts) in expectations {
        let seen = Seen::default();
        let port = http_service(seen.clone()).await;
        let state = tempfile::tempdir().unwrap();
        let home = Home::start_as(
            state.path(),
            &service(ServiceProtocol::Http),
            InstanceKind::Service,
            Some(port),
        )
        .await;
        let task = submit(&home, input).await;
        let view = finished(&home, &task).await;
        assert_eq!(
            (view.state.as_str(), view.attempts),
            (state_word, attempts),
            "{input}"
        );
        let (body, token) = seen.lock().unwrap()[0].clone();
        assert_eq!(
            (&body["task"], &body["agent"]),
            (&json!(task), &json!("helper"))
        );
        assert_eq!(body["token"].as_str().map(str::to_owned), token);
        home.end().await;
    }
}

#[tokio::test]
async fn an_openai_service_is_asked_for_a_streamed_completion() {
    let provider = Provider::start(|_| Reply::text("hello from the service"));
    let port = url_port(&provider.openai_url());
    let state = tempfile::tempdir().unwrap();
    let home = Home::start_as(
        state.path(),
        &service(ServiceProtocol::Openai),
        InstanceKind::Service,
        Some(port),
    )
    .await;
    let task = submit(&home, "hi").await;
    assert_eq!(
        finished(&home, &task).await.output,
        json!("hello from the service")
    );
    let call = &provider.calls()[0];
    assert_eq!(
        (call.model.as_str(), call.stream, call.conversation.as_str()),
        ("helper", true, "hi")
    );
    home.end().await;
}

fn url_port(url: &str) -> u16 {
    url.split(':')
        .nth(2)
        .unwrap()
        .split('/')
        .next()
        .unwrap()
        .parse()
        .unwrap()
}
