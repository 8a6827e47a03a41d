//! Sessions over HTTP: conversations by name.

use axum::Json;
use axum::extract::State;
use axum::routing::get;
use hub::Hub;
use hub::view::{Page, SessionView};
use serde::Deserialize;

use super::{Answer, CURSOR, LIMIT, Operation, read};
use crate::decode::{PathOf, QueryOf, page_limit};
use crate::problem::Problem;

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation {
            parameters: &[CURSOR, LIMIT],
            errors: &[400],
            ..read(
                "/api/v1/sessions",
                "session_list",
                "Sessions, newest first, without their turns.",
                Answer::List("Session"),
                || get(list),
            )
        },
        read(
            "/api/v1/sessions/{id}",
            "session_get",
            "A session with its turns.",
            Answer::One("Session"),
            || get(show),
        ),
    ]
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    cursor: Option<String>,
    limit: Option<usize>,
}

async fn list(
    State(hub): State<Hub>,
    QueryOf(query): QueryOf<ListQuery>,
) -> Result<Json<Page<SessionView>>, Problem> {
    Ok(Json(
        hub.session_list(query.cursor, page_limit(query.limit)?)
            .await?,
    ))
}

async fn show(
    State(hub): State<Hub>,
    PathOf(id): PathOf<String>,
) -> Result<Json<SessionView>, Problem> {
    Ok(Json(hub.session_get(&id).await?))
}
