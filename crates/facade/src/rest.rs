//! The HTTP API below `/api/v1`, as one list of operations.
//!
//! Router and OpenAPI document are both made from [`operations`], so a route can't be served and
//! not described. Each noun's file holds its handlers and its part of the list.

mod agent;
mod log;
mod openapi;
mod schema;
mod session;
mod task;

use axum::Router;
use axum::routing::MethodRouter;

use crate::door::Door;

/// One route with one method.
pub(crate) struct Operation {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    /// Noun first: `task_submit`.
    pub(crate) id: &'static str,
    pub(crate) summary: &'static str,
    /// Query and header parameters; those of the path are read from it.
    pub(crate) parameters: &'static [Parameter],
    /// Schema of the body.
    pub(crate) body: Option<&'static str>,
    pub(crate) answer: Answer,
    /// Codes of errors besides a missing token.
    pub(crate) errors: &'static [u16],
    pub(crate) handler: fn() -> MethodRouter<Door>,
}

/// The methods in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Post,
}

/// A parameter of query or header.
pub(crate) struct Parameter {
    pub(crate) place: Place,
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
    pub(crate) integer: bool,
}

/// Where a parameter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Query,
    Header,
}

/// What a success looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// 200 with this schema.
    One(&'static str),
    /// 201 with this schema and a `Location`.
    Created(&'static str),
    /// 200 with `items` of this schema and `next`.
    List(&'static str),
    /// An event stream whose data have this schema.
    Events(&'static str),
    /// 200 with any JSON object.
    Object,
}

const fn query(name: &'static str, text: &'static str) -> Parameter {
    Parameter {
        place: Place::Query,
        name,
        text,
        integer: false,
    }
}

const fn number(name: &'static str, text: &'static str) -> Parameter {
    Parameter {
        place: Place::Query,
        name,
        text,
        integer: true,
    }
}

const fn header(name: &'static str, text: &'static str) -> Parameter {
    Parameter {
        place: Place::Header,
        name,
        text,
        integer: false,
    }
}

const CURSOR: Parameter = query("cursor", "`next` of the page before.");
const LIMIT: Parameter = number("limit", "Items on a page, 1 to 200; 50 unless told.");
const LAST_EVENT: Parameter = header(
    "Last-Event-ID",
    "The last id that was seen: the stream goes on after it.",
);

/// All of them.
pub(crate) fn operations() -> Vec<Operation> {
    let mut all = vec![openapi::operation()];
    all.extend(task::operations());
    all.extend(session::operations());
    all.extend(agent::operations());
    all.extend(log::operations());
    all
}

pub(crate) fn router() -> Router<Door> {
    operations()
        .into_iter()
        .fold(Router::new(), |router, operation| {
            router.route(operation.path, (operation.handler)())
        })
}

/// A read of one thing.
const fn read(
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    answer: Answer,
    handler: fn() -> MethodRouter<Door>,
) -> Operation {
    Operation {
        method: Method::Get,
        path,
        id,
        summary,
        parameters: &[],
        body: None,
        answer,
        errors: &[404],
        handler,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Every route that clients were promised, typed again.
    const PROMISED: [(Method, &str); 19] = [
        (Method::Get, "/api/v1/openapi.json"),
        (Method::Post, "/api/v1/agents/{agent}/tasks"),
        (Method::Get, "/api/v1/tasks/{id}"),
        (Method::Get, "/api/v1/tasks"),
        (Method::Post, "/api/v1/tasks/{id}/cancel"),
        (Method::Post, "/api/v1/tasks/{id}/retry"),
        (Method::Post, "/api/v1/tasks/{id}/resume"),
        (Method::Get, "/api/v1/tasks/{id}/events"),
        (Method::Get, "/api/v1/events"),
        (Method::Get, "/api/v1/tasks/{id}/steps"),
        (Method::Get, "/api/v1/sessions"),
        (Method::Get, "/api/v1/sessions/{id}"),
        (Method::Post, "/api/v1/sessions"),
        (Method::Post, "/api/v1/sessions/{id}/export"),
        (Method::Get, "/api/v1/agents"),
        (Method::Get, "/api/v1/agents/{name}"),
        (Method::Get, "/api/v1/instances"),
        (Method::Get, "/api/v1/log/head"),
        (Method::Get, "/api/v1/log/entries"),
    ];

    #[test]
    fn the_operations_are_those_that_users_were_promised() {
        let served: BTreeSet<_> = operations()
            .iter()
            .map(|operation| (operation.method == Method::Get, operation.path))
            .collect();
        assert_eq!(
            served,
            PROMISED
                .iter()
                .map(|(method, path)| (*method == Method::Get, *path))
                .collect()
        );
    }

    #[test]
    fn the_router_takes_every_operation() {
        // Panics inside axum when two routes collide.
        let _ = router();
    }

    #[test]
    fn an_operation_is_served_by_its_own_method() {
        for operation in operations() {
            let debug = format!("{:?}", (operation.handler)());
            let (served, other) = match operation.method {
                Method::Get => ("get: BoxedHandler", "post: BoxedHandler"),
                Method::Post => ("post: BoxedHandler", "get: BoxedHandler"),
            };
            assert!(
                debug.contains(served) && !debug.contains(other),
                "{}: {debug}",
                operation.id
            );
        }
    }
}
