//! Agents and their instances over HTTP.

use axum::Json;
use axum::extract::State;
use axum::routing::get;
use hub::Hub;
use hub::view::{AgentView, InstanceView, Page};

use super::{Answer, Operation, read};
use crate::decode::PathOf;
use crate::problem::Problem;

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation {
            errors: &[],
            ..read(
                "/api/v1/agents",
                "agent_list",
                "The fleet's agents.",
                Answer::List("Agent"),
                || get(list),
            )
        },
        read(
            "/api/v1/agents/{name}",
            "agent_get",
            "An agent and how it stands.",
            Answer::One("Agent"),
            || get(show),
        ),
        Operation {
            errors: &[],
            ..read(
                "/api/v1/instances",
                "instance_list",
                "Running copies of agents and tool servers.",
                Answer::List("Instance"),
                || get(instances),
            )
        },
    ]
}

async fn list(State(hub): State<Hub>) -> Result<Json<Page<AgentView>>, Problem> {
    Ok(Json(hub.agent_list().await?))
}

async fn show(
    State(hub): State<Hub>,
    PathOf(name): PathOf<String>,
) -> Result<Json<AgentView>, Problem> {
    Ok(Json(hub.agent_get(&name).await?))
}

async fn instances(State(hub): State<Hub>) -> Result<Json<Page<InstanceView>>, Problem> {
    Ok(Json(hub.instance_list().await?))
}
