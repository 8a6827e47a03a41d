//! The agents' edge, both directions: the one door that an agent has (models, tools, steps), and
//! the calls to agents that are servers.
//!
//! Start at [`pipeline`], which every call passes; "a model call is retried" is `model/retry.rs`,
//! "another model stands in" `model/failover.rs`, "a tool call of unknown outcome"
//! `tools/perform.rs`. What is matched, journaled and budgeted is the hub's; what is said in which
//! dialect is `llm`'s. Nothing here keeps state that a restart would miss.

mod call;
mod catalog;
mod clock;
mod door;
mod fence;
mod key_check;
mod mcp_endpoint;
mod model;
mod outgoing;
mod pipeline;
mod reply;
mod room;
mod route;
pub mod script;
mod server;
mod service;
mod step_url;
mod tools;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use hub::Hub;

use fence::Fence;
pub use key_check::{KeyCheck, KeyVerdict};
use model::upstream::{Secret, Upstreams};
use outgoing::Outgoing;
pub use outgoing::Reach;
use service::attach::Attached;
pub use tools::{McpServers, check_expression, check_schema};

/// The gateway can't be started.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    #[error("failed to set up the client for providers and tools")]
    Client(#[source] reqwest::Error),
}

/// What all calls share.
pub(crate) struct Gateway {
    pub(crate) hub: Hub,
    pub(crate) upstreams: Upstreams,
    pub(crate) tools_http: Outgoing,
    pub(crate) mcp_servers: McpServers,
    pub(crate) attached: Attached,
    pub(crate) fence: Fence,
}

/// Serves the agents of this hub until it stops. Returns once nothing new is accepted; calls in
/// flight are the hub's to drain.
pub async fn serve(hub: Hub, reach: Reach) -> Result<(), GatewayError> {
    let gateway = Arc::new(Gateway::new(hub, reach)?);
    tokio::join!(server::run(gateway.clone()), service::run(gateway));
    Ok(())
}

impl Gateway {
    fn new(hub: Hub, reach: Reach) -> Result<Self, GatewayError> {
        let secret = secret_of(&hub);
        let models = Outgoing::new(reach, |client| {
            client.pool_idle_timeout(Duration::from_secs(20))
        });
        // A connection that the other side is just closing can't be told from one that took the
        // request: tools get a new one each time, so that "it never left" can be known.
        let tools = Outgoing::new(reach, |client| client.pool_max_idle_per_host(0))
            .map_err(GatewayError::Client)?;
        Ok(Self {
            hub,
            upstreams: Upstreams::new(models.map_err(GatewayError::Client)?, secret),
            mcp_servers: McpServers::new(tools.clone()),
            tools_http: tools,
            attached: Attached::default(),
            fence: Fence::default(),
        })
    }
}

/// How a credential is read, now.
fn secret_of(hub: &Hub) -> Secret {
    let hub = hub.clone();
    Arc::new(move |credential| hub.secret(credential).map_err(|error| error.to_string()))
}
