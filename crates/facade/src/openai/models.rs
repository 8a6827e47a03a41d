//! Models: the fleet's agents.

use axum::Json;
use axum::extract::State;
use hub::Hub;
use serde_json::{Value, json};

use super::ApiError;
use crate::decode::PathOf;

pub(super) async fn list(State(hub): State<Hub>) -> Result<Json<Value>, ApiError> {
    let agents = hub.agent_list().await?;
    let models: Vec<_> = agents
        .items
        .iter()
        .map(|agent| model(&agent.name))
        .collect();
    Ok(Json(json!({"object": "list", "data": models})))
}

pub(super) async fn show(
    State(hub): State<Hub>,
    PathOf(name): PathOf<String>,
) -> Result<Json<Value>, ApiError> {
    let agent = hub
        .agent_get(&name)
        .await
        .map_err(|e| ApiError::about_model(e, &name))?;
    Ok(Json(model(&agent.name)))
}

fn model(agent: &str) -> Value {
    // Agents have no birthday; clients only sort by it.
    json!({"id": agent, "object": "model", "created": 0, "owned_by": "mainstay"})
}
