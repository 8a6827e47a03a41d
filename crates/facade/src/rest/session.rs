//! Sessions over HTTP: conversations by name, and their way from one home to another.
//!
//! An import takes memory for the whole file, so one is taken at a time; who comes meanwhile waits
//! before his body is read.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json};
use http::header::CONTENT_TYPE;
use hub::Hub;
use hub::session::file::MAX_FILE_BYTES;
use hub::view::{ImportView, Page, SessionView};
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::{Answer, CURSOR, LIMIT, Method, Operation, read, schema};
use crate::auth::Author;
use crate::decode::{self, PathOf, QueryOf, page_limit};
use crate::problem::Problem;

static IMPORTS: Semaphore = Semaphore::const_new(1);

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
        Operation {
            method: Method::Post,
            errors: &[404, 409, 413, 503],
            ..read(
                "/api/v1/sessions/{id}/export",
                "session_export",
                "A session as a file. Its open tasks are parked here and go on where it is imported.",
                Answer::One("SessionFile"),
                || post(export),
            )
        },
        Operation {
            method: Method::Post,
            body: Some("SessionFile"),
            errors: &[400, 408, 409, 413, 503, 507],
            ..read(
                "/api/v1/sessions",
                "session_import",
                "Take a session from a file. Its open tasks wait for a retry.",
                Answer::One("ImportedSession"),
                || post(import),
            )
        },
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

async fn export(
    State(hub): State<Hub>,
    PathOf(id): PathOf<String>,
    Extension(author): Extension<Author>,
) -> Result<Response, Problem> {
    let file = hub.session_export(&id, &author.0).await?;
    let media_type = [(CONTENT_TYPE, schema::media_type("SessionFile"))];
    Ok((media_type, Body::from(file)).into_response())
}

async fn import(
    State(hub): State<Hub>,
    Extension(author): Extension<Author>,
    request: Request,
) -> Result<Json<ImportView>, Problem> {
    // It is never closed.
    let _one = IMPORTS.acquire().await;
    let (parts, body) = request.into_parts();
    let file = decode::read(&parts.headers, body, MAX_FILE_BYTES).await?;
    Ok(Json(hub.session_import(file, &author.0).await?))
}
