//! What only the command line needs, below `/control`: what changes the fleet or reads its secrets'
//! names. Its paths and bodies may change with any version.
//!
//! On the state's Unix socket everything is there without a token, because who calls is the
//! kernel's word: root and the hub's own user may, and no process that descends from an instance,
//! whatever its user: an agent that runs as the hub's user is still an agent. At the TCP door the
//! owner's token opens it, and whoever else may do what the route does (`access`).

mod source;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use contract::keeper::Document;
use http::StatusCode;
use hub::Hub;
use hub::view::{ApplyView, Page};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::auth::Author;
use crate::connection::Peer;
use crate::decode::{JsonBody, PathOf};
use crate::door::Door;
use crate::problem::Problem;

pub(crate) fn router() -> Router<Door> {
    Router::new()
        .route("/control/apply", post(apply))
        .route("/control/delete", post(delete))
        .route("/control/start", post(start))
        .route("/control/stop", post(stop))
        .route("/control/restart", post(restart))
        .route("/control/secrets", get(secrets))
        .route(
            "/control/secrets/{name}/{key}",
            put(set_secret).delete(remove_secret),
        )
        .route("/control/token", get(token))
        .route("/control/sources/{name}", get(source::has).put(source::put))
        .route("/control/objects/{kind}", get(objects))
        .route("/control/objects/{kind}/{name}", get(object))
}

/// Decides about a caller. `is_instance` tells whether a process descends from an instance.
pub(crate) fn peer(
    uid: u32,
    pid: Option<i32>,
    owner: u32,
    is_instance: impl Fn(i32) -> bool,
) -> Peer {
    if uid != 0 && uid != owner {
        return Peer::Refused("only root and the user that the hub runs as may use this socket");
    }
    match pid {
        // The kernel shows 0 for a process of a pid namespace that can't be seen from here.
        None | Some(..=0) => Peer::Refused("the calling process can't be identified"),
        Some(pid) if is_instance(pid) => {
            Peer::Refused("an agent may not use this socket: its door is its gateway")
        }
        Some(_) => Peer::Local { uid },
    }
}

/// The layer around the whole socket.
pub(crate) async fn admit(mut request: Request, next: Next) -> Response {
    let uid = match request.extensions().get::<Peer>() {
        Some(Peer::Local { uid }) => *uid,
        Some(Peer::Refused(why)) => return Problem::not_allowed(*why).into_response(),
        _ => return Problem::not_allowed("not a local connection").into_response(),
    };
    request
        .extensions_mut()
        .insert(Author(format!("cli:uid={uid}").into()));
    next.run(request).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Applying {
    documents: Vec<Document>,
    /// `diff`: say what would change.
    #[serde(default)]
    dry_run: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Deleting {
    objects: Vec<ObjectName>,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ObjectName {
    kind: String,
    name: String,
}

/// An agent or an instance.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Target {
    target: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretValue {
    value: String,
}

#[derive(Serialize)]
struct SecretName {
    name: String,
    key: String,
}

/// A list without further pages.
fn whole<T>(items: Vec<T>) -> Json<Page<T>> {
    Json(Page { items, next: None })
}

async fn apply(
    State(hub): State<Hub>,
    JsonBody(body): JsonBody<Applying>,
) -> Result<Json<ApplyView>, Problem> {
    Ok(Json(hub.apply(body.documents, body.dry_run).await?))
}

async fn delete(
    State(hub): State<Hub>,
    JsonBody(body): JsonBody<Deleting>,
) -> Result<Json<ApplyView>, Problem> {
    let objects = body
        .objects
        .into_iter()
        .map(|object| (object.kind, object.name))
        .collect();
    Ok(Json(hub.delete(objects, body.dry_run).await?))
}

async fn start(
    State(hub): State<Hub>,
    JsonBody(body): JsonBody<Target>,
) -> Result<StatusCode, Problem> {
    hub.agent_start(&body.target).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn stop(
    State(hub): State<Hub>,
    JsonBody(body): JsonBody<Target>,
) -> Result<StatusCode, Problem> {
    hub.agent_stop(&body.target).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn restart(
    State(hub): State<Hub>,
    JsonBody(body): JsonBody<Target>,
) -> Result<StatusCode, Problem> {
    hub.agent_restart(&body.target).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn secrets(State(hub): State<Hub>) -> Result<Json<Page<SecretName>>, Problem> {
    let names = hub.secret_list().await?;
    Ok(whole(
        names
            .into_iter()
            .map(|(name, key)| SecretName { name, key })
            .collect(),
    ))
}

async fn set_secret(
    State(hub): State<Hub>,
    PathOf((name, key)): PathOf<(String, String)>,
    JsonBody(body): JsonBody<SecretValue>,
) -> Result<StatusCode, Problem> {
    hub.secret_set(&name, &key, body.value).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove_secret(
    State(hub): State<Hub>,
    PathOf((name, key)): PathOf<(String, String)>,
) -> Result<StatusCode, Problem> {
    hub.secret_remove(&name, &key).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn token(State(hub): State<Hub>) -> Json<Value> {
    Json(json!({"token": hub.owner_token()}))
}

async fn objects(
    State(hub): State<Hub>,
    PathOf(kind): PathOf<String>,
) -> Result<Json<Page<Value>>, Problem> {
    Ok(whole(hub.object_list(&kind).await?))
}

async fn object(
    State(hub): State<Hub>,
    PathOf((kind, name)): PathOf<(String, String)>,
) -> Result<Json<Value>, Problem> {
    Ok(Json(hub.object_get(&kind, &name).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_refused(peer: &Peer) -> bool {
        matches!(peer, Peer::Refused(_))
    }

    #[test]
    fn root_and_the_owner_may_call() {
        assert!(matches!(
            peer(0, Some(10), 1000, |_| false),
            Peer::Local { uid: 0 }
        ));
        assert!(matches!(
            peer(1000, Some(10), 1000, |_| false),
            Peer::Local { uid: 1000 }
        ));
    }

    #[test]
    fn strangers_and_processes_nobody_can_see_are_refused() {
        assert!(is_refused(&peer(1001, Some(10), 1000, |_| false)));
        assert!(is_refused(&peer(1000, None, 1000, |_| false)));
        assert!(is_refused(&peer(0, Some(0), 1000, |_| false)));
    }

    #[test]
    fn what_descends_from_an_instance_is_refused_whatever_its_user() {
        assert!(is_refused(&peer(0, Some(10), 1000, |pid| pid == 10)));
        assert!(is_refused(&peer(1000, Some(10), 1000, |pid| pid == 10)));
    }

    #[test]
    fn routes_do_not_collide() {
        let _ = router();
    }
}
