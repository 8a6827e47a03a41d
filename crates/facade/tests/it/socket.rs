//! The WebSocket.

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::fixture::Served;

type Socket = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

async fn connect(served: &Served, path: &str) -> Socket {
    let separator = if path.contains('?') { '&' } else { '?' };
    let url = format!(
        "ws://127.0.0.1:{}{path}{separator}token={}",
        served.port, served.token
    );
    connect_async(url).await.unwrap().0
}

async fn say(socket: &mut Socket, text: &str) {
    socket
        .send(Message::text(
            json!({"type": "message", "text": text}).to_string(),
        ))
        .await
        .unwrap();
}

/// The next frame of the protocol, pings aside.
async fn frame(socket: &mut Socket) -> Value {
    loop {
        if let Message::Text(text) = socket.next().await.unwrap().unwrap() {
            return serde_json::from_str(&text).unwrap();
        }
    }
}

/// Frames up to and with the first of the type.
async fn until(socket: &mut Socket, kind: &str) -> Vec<Value> {
    let mut frames = Vec::new();
    loop {
        frames.push(frame(socket).await);
        if frames.last().unwrap()["type"] == kind {
            return frames;
        }
    }
}

#[test]
fn several_messages_are_tasks_of_one_session() {
    let served = Served::start();
    served.block_on(async {
        let mut socket = connect(&served, "/ws/talker?session=s-1").await;
        say(&mut socket, "say one two").await;
        let frames = until(&mut socket, "done").await;
        let kinds: Vec<_> = frames
            .iter()
            .map(|frame| frame["type"].as_str().unwrap())
            .collect();
        assert_eq!(kinds, ["message", "chunk", "chunk", "done"]);
        assert!(frames.iter().all(|frame| frame["id"].is_string()));
        assert_eq!(frames[3]["task"]["output"], "one two");
        say(&mut socket, "history").await;
        let answer = until(&mut socket, "done").await.pop().unwrap();
        assert_eq!(answer["task"]["session"], "s-1");
        assert!(
            answer["task"]["output"]
                .as_str()
                .unwrap()
                .contains("one two")
        );
    });
}

#[test]
fn a_reconnect_goes_on_after_the_last_frame() {
    let served = Served::start();
    served.block_on(async {
        let mut socket = connect(&served, "/ws/talker?session=s-1").await;
        say(&mut socket, "say one").await;
        until(&mut socket, "done").await;
        say(&mut socket, "say one two").await;
        let frames = until(&mut socket, "done").await;
        drop(socket);
        let last = frames[1]["id"].as_str().unwrap();
        let mut again = connect(&served, &format!("/ws/talker?session=s-1&last={last}")).await;
        assert_eq!(until(&mut again, "done").await, frames[2..]);
        say(&mut again, "say three").await;
        assert_eq!(
            until(&mut again, "done").await.pop().unwrap()["task"]["output"],
            "three"
        );
    });
}

#[test]
fn what_is_not_a_message_is_an_error_frame_and_the_socket_lives_on() {
    let served = Served::start();
    served.block_on(async {
        let mut socket = connect(&served, "/ws/echo").await;
        for bad in [
            Message::text("hello"),
            Message::text(r#"{"type": "message", "text": "x", "to": "y"}"#),
            Message::binary(vec![1]),
        ] {
            socket.send(bad).await.unwrap();
            let error = frame(&mut socket).await;
            assert_eq!(
                (
                    error["type"].as_str(),
                    error["code"].as_str(),
                    error["id"].is_string()
                ),
                (Some("error"), Some("invalid"), true)
            );
        }
        say(&mut socket, "hello").await;
        assert_eq!(
            until(&mut socket, "done").await.pop().unwrap()["task"]["output"],
            "hello"
        );
        say(&mut socket, "fail").await;
        let error = until(&mut socket, "error").await.pop().unwrap();
        assert!(
            error["message"].as_str().unwrap().contains("no way"),
            "{error}"
        );
    });
}

#[test]
fn an_oversize_message_ends_the_connection_only_and_says_why() {
    let served = Served::start();
    served.block_on(async {
        let mut socket = connect(&served, "/ws/echo").await;
        let _ = socket
            .send(Message::text("x".repeat(8 * 1024 * 1024)))
            .await;
        let why = loop {
            match socket.next().await {
                Some(Ok(Message::Close(Some(why)))) => break why,
                Some(Ok(_)) => {}
                end => panic!("no reason came: {end:?}"),
            }
        };
        assert_eq!(why.code, CloseCode::Size);
        assert!(why.reason.contains("1 MiB"), "{}", why.reason);
        let mut socket = connect(&served, "/ws/echo").await;
        say(&mut socket, "hello").await;
        until(&mut socket, "done").await;
    });
}

async fn refusal(served: &Served, path: &str, header: Option<(&'static str, &str)>) -> u16 {
    let mut request = format!("ws://127.0.0.1:{}{path}", served.port)
        .into_client_request()
        .unwrap();
    if let Some((name, value)) = header {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    match connect_async(request).await {
        Err(Error::Http(response)) => response.status().as_u16(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_may_not_connect_is_told_before_the_upgrade() {
    let served = Served::start();
    let token = served.token.clone();
    served.block_on(async {
        assert_eq!(refusal(&served, "/ws/echo", None).await, 401);
        assert_eq!(refusal(&served, "/ws/echo?token=wrong", None).await, 401);
        assert_eq!(
            refusal(&served, &format!("/ws/nobody?token={token}"), None).await,
            404
        );
        assert_eq!(
            refusal(&served, &format!("/ws/echo?token={token}&last=1-0"), None).await,
            400
        );
        assert_eq!(
            refusal(
                &served,
                &format!("/ws/echo?token={token}&session=a%20b"),
                None
            )
            .await,
            400
        );
        let evil = Some(("origin", "http://evil.example"));
        assert_eq!(
            refusal(&served, &format!("/ws/echo?token={token}"), evil).await,
            403
        );
    });
    assert_eq!(served.get("/ws/echo").status, 426);
}

#[test]
fn a_stopping_hub_says_so_and_the_client_may_come_back() {
    let mut served = Served::start();
    let mut socket = served.block_on(async {
        let mut socket = connect(&served, "/ws/echo?session=s-1").await;
        say(&mut socket, "hang").await;
        frame(&mut socket).await;
        socket
    });
    served.stop();
    let close = served.block_on(async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Close(frame))) => break frame,
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    });
    assert_eq!(close.unwrap().code, CloseCode::Restart);
}

#[test]
fn five_hundred_sockets_are_served_at_once() {
    let served = Served::start();
    served.block_on(async {
        let mut sockets = Vec::new();
        for _ in 0..500 {
            sockets.push(connect(&served, "/ws/echo").await);
        }
        for socket in sockets.iter_mut().rev().take(3) {
            say(socket, "hello").await;
            assert_eq!(
                until(socket, "done").await.pop().unwrap()["task"]["output"],
                "hello"
            );
        }
    });
}

#[test]
fn a_reconnect_in_the_second_of_two_messages_misses_nothing_of_it() {
    let served = Served::start();
    served.block_on(async {
        let mut socket = connect(&served, "/ws/talker?session=two").await;
        say(&mut socket, "say one").await;
        say(&mut socket, "say two three").await;
        let first = until(&mut socket, "done").await.pop().unwrap();
        let second = until(&mut socket, "done").await;
        // Gone right after the first answer: the second's frames may be older than its end.
        let last = first["id"].as_str().unwrap();
        let path = format!("/ws/talker?session=two&last={last}");
        let mut socket = connect(&served, &path).await;
        assert_eq!(until(&mut socket, "done").await, second);
        let last = second[1]["id"].as_str().unwrap();
        let path = format!("/ws/talker?session=two&last={last}");
        let mut socket = connect(&served, &path).await;
        assert_eq!(until(&mut socket, "done").await, second[2..]);
    });
}
