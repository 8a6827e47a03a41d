//! Agents that are servers: the hub says which task goes to which instance, and this calls it.
//!
//! A call ends in one of three ways. An answer completes the task; the agent's own word that it
//! can't be done fails it; anything else (no connection, 5xx, a broken stream) ends the attempt,
//! not the task. When the hub takes the task back the call is closed.

pub mod attach;
mod http;
mod openai;

use std::sync::Arc;

use api::fleet::ServiceProtocol;
use hub::service::ServiceCall;

use crate::Gateway;

/// The largest answer of an agent.
const MAX_OUTPUT_BYTES: usize = 32 * 1024 * 1024;

/// How a call ended.
#[derive(Debug, PartialEq)]
enum Ended {
    Done {
        content_type: &'static str,
        output: Vec<u8>,
    },
    /// Final.
    Failed(String),
    /// The attempt only.
    Lost(String),
}

/// Takes the hub's calls until it stops.
pub async fn run(gateway: Arc<Gateway>) {
    let mut calls = gateway.hub.service_calls();
    loop {
        let call = tokio::select! {
            call = calls.recv() => call,
            () = gateway.hub.stopping() => None,
        };
        let Some(call) = call else { return };
        // Not drained: a hub that stops gives the task up, and its next attempt replays.
        tokio::spawn(deliver(gateway.clone(), call));
    }
}

async fn deliver(gateway: Arc<Gateway>, call: ServiceCall) {
    let ended = tokio::select! {
        ended = speak(&gateway, &call) => Some(ended),
        () = call.attempt.revoked() => None,
    };
    match ended {
        // Dropping the call closes its connection.
        None => tracing::debug!(
            task = call.attempt.task(),
            "a task was taken back from a service"
        ),
        Some(Ended::Done {
            content_type,
            output,
        }) => call.attempt.complete(content_type, output).await,
        Some(Ended::Failed(message)) => call.attempt.fail(message).await,
        Some(Ended::Lost(message)) => call.attempt.lost(message).await,
    }
}

async fn speak(gateway: &Gateway, call: &ServiceCall) -> Ended {
    match call.protocol {
        ServiceProtocol::Attach => attach::deliver(&gateway.attached, call).await,
        ServiceProtocol::Http => http::deliver(gateway.tools_http.to_service(), call).await,
        ServiceProtocol::Openai => openai::deliver(gateway.tools_http.to_service(), call).await,
    }
}
