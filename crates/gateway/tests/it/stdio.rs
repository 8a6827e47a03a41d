//! A stdio MCP server behind its shim, which the test plays.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use api::fleet::{Effect, ToolKind};
use contract::Versions;
use contract::frame::{self, Decoder};
use contract::shim::{FromShim, Role, ToShim};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use crate::home::{Home, add_tool, fleet, until};

/// Accepts the hub's link and any number of bridges. The server dies in its first call of `die`.
fn shim(socket: &Path) -> Arc<AtomicU32> {
    let listener = UnixListener::bind(socket).unwrap();
    let bridges = Arc::new(AtomicU32::new(0));
    let counted = bridges.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, counted.clone()));
        }
    });
    bridges
}

async fn serve(mut stream: UnixStream, bridges: Arc<AtomicU32>) {
    let mut decoder = Decoder::default();
    let mut chunk = vec![0; 65536];
    let role = loop {
        let count = stream.read(&mut chunk).await.unwrap();
        decoder.push(&chunk[..count]);
        if let Some(ToShim::Hello { role, .. }) = decoder.next().unwrap() {
            break role;
        }
    };
    let hello = FromShim::Hello {
        versions: Versions::OURS,
        instance: "desk-files-0".into(),
        pid: 1,
        running: Vec::new(),
        service: None,
    };
    stream
        .write_all(&frame::encode(&hello).unwrap())
        .await
        .unwrap();
    if role != Role::Bridge {
        // The hub's own link says nothing more here.
        while stream.read(&mut chunk).await.is_ok_and(|count| count > 0) {}
        return;
    }
    let bridge = bridges.fetch_add(1, Ordering::SeqCst) + 1;
    let mut lines = decoder.into_rest();
    loop {
        while let Some(end) = lines.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = lines.drain(..=end).collect();
            let message: Value = serde_json::from_slice(&line).unwrap();
            match answer(&message, bridge) {
                Some(answer) => stream
                    .write_all(format!("{answer}\n").as_bytes())
                    .await
                    .unwrap(),
                None if message["params"]["name"] == "die" => return,
                None => {}
            }
        }
        match stream.read(&mut chunk).await {
            Ok(count) if count > 0 => lines.extend_from_slice(&chunk[..count]),
            _ => return,
        }
    }
}

fn answer(message: &Value, bridge: u32) -> Option<Value> {
    let result = match message["method"].as_str()? {
        "initialize" => json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}}),
        "tools/list" => json!({"tools": [{"name": "read"}, {"name": "die"}, {"name": "hidden"}]}),
        "tools/call" if message["params"]["name"] == "die" && bridge == 1 => return None,
        "tools/call" => json!({"content": [{"type": "text", "text": format!("bridge {bridge}")}]}),
        _ => return None,
    };
    Some(json!({"jsonrpc": "2.0", "id": message["id"], "result": result}))
}

#[tokio::test]
async fn a_stdio_server_that_dies_in_a_pure_call_is_asked_again_when_it_is_back() {
    let state = tempfile::tempdir().unwrap();
    let mut fleet = fleet();
    let kind = ToolKind::McpStdio {
        command: vec!["true".into()],
        env: Default::default(),
        image: None,
    };
    add_tool(&mut fleet, "files", "", kind, |tool| {
        tool.input_schema = None;
        tool.allow = Some(vec!["read".into(), "die".into()]);
        tool.effects = [("die".to_owned(), Effect::Pure)].into();
    });
    let mut home = Home::start(state.path(), &fleet).await;
    let socket = state.path().join("desk-files-0.sock");
    let bridges = shim(&socket);
    home.list_server(&socket).await;
    until("the server is listed", async || {
        home.hub.mcp_bridge("desk", "files").is_some()
    })
    .await;
    let (task, attempts) = home.work("x").await;
    let token = &attempts[0].token;
    let said = |answer: &Value| answer["result"]["content"][0]["text"].clone();
    assert_eq!(
        said(&home.call_tool(token, "read", json!({})).await),
        "bridge 1"
    );
    assert_eq!(
        said(&home.call_tool(token, "die", json!({})).await),
        "bridge 2"
    );
    assert_eq!(bridges.load(Ordering::SeqCst), 2);
    let hidden = home.call_tool(token, "hidden", json!({})).await;
    assert_eq!(
        hidden["error"]["code"], -32602,
        "not in the list of allowed tools"
    );
    let view = home.done(&task, 1).await;
    assert_eq!((view.steps, view.repeated), (2, 1));
    home.end().await;
}
