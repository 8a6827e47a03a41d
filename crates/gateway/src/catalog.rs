//! What an agent may ask about models without calling one: its list, and how long a request is.
//! Neither leaves the hub, so neither is a step.

use std::sync::Arc;

use api::fleet::ModelRef;
use hub::{Code, HubError, Refusal};
use llm::Dialect;
use serde_json::{Value, json};

use crate::Gateway;
use crate::door::Door;
use crate::reply::{self, Reply};

/// `GET /v1/models`: the agent's list, in the shape of whoever asks.
pub async fn list(gateway: &Arc<Gateway>, door: &Door) -> Result<Reply, Refusal> {
    let caller = door.identify(gateway).await?;
    let anthropic = is_anthropic(door);
    let data: Vec<Value> = caller
        .agent
        .models
        .iter()
        .map(|model| entry(model, anthropic))
        .collect();
    let list = if anthropic {
        json!({
            "data": data,
            "has_more": false,
            "first_id": data.first().map(|model| &model["id"]),
            "last_id": data.last().map(|model| &model["id"]),
        })
    } else {
        json!({"object": "list", "data": data})
    };
    Ok(reply::json(200, &list))
}

/// `GET /v1/models/{id}`.
pub async fn one(gateway: &Arc<Gateway>, door: &Door, id: &str) -> Result<Reply, Refusal> {
    let caller = door.identify(gateway).await?;
    let found = caller
        .agent
        .models
        .iter()
        .find(|model| model.to_string() == id || model.model == id);
    let model = found.ok_or_else(|| {
        let id = mcp::message::bounded(id, 128);
        HubError::new(
            Code::NotFound,
            format!("agent {} has no model {id}", caller.agent.name),
        )
    })?;
    Ok(reply::json(200, &entry(model, is_anthropic(door))))
}

fn is_anthropic(door: &Door) -> bool {
    door.header("anthropic-version").is_some()
}

fn entry(model: &ModelRef, anthropic: bool) -> Value {
    let id = model.to_string();
    if anthropic {
        return json!({"type": "model", "id": id, "display_name": model.model, "created_at": "1970-01-01T00:00:00Z"});
    }
    json!({"id": id, "object": "model", "created": 0, "owned_by": model.provider})
}

/// `POST /v1/messages/count_tokens`: an estimate. The provider's own count would be a call that
/// leaves without a record.
pub async fn count_tokens(
    gateway: &Arc<Gateway>,
    door: &Door,
    body: &Value,
) -> Result<Reply, Refusal> {
    door.identify(gateway).await?;
    let request = llm::parse(Dialect::Anthropic, body)
        .map_err(|refusal| HubError::new(Code::Invalid, refusal.to_string()))?;
    Ok(reply::json(
        200,
        &json!({"input_tokens": llm::estimate_input_tokens(&request)}),
    ))
}
