//! The page: one read-only, server-rendered look at fleet, tasks, steps, cost and log.
//!
//! It needs nothing but itself: no build step, no foreign asset, and a policy that lets only its
//! own style and script run. Whatever agents and clients supplied is escaped by the templates,
//! which are HTML templates throughout; nothing is ever marked safe.

mod view;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use hub::task::TaskFilter;
use hub::view::{AgentView, HeadView, InstanceView};
use hub::{Hub, HubError};

use crate::decode::{PathOf, QueryOf};
use crate::door::Door;
use crate::problem::Problem;
use view::{StepRow, TaskDetail, TaskRow};

/// Tasks on the first page.
const TASKS: usize = 50;

pub(crate) fn router() -> Router<Door> {
    Router::new()
        .route("/", get(fleet))
        .route("/tasks/{id}", get(task))
}

#[derive(Template)]
#[template(path = "fleet.html")]
struct FleetPage {
    nonce: String,
    agents: Vec<AgentView>,
    instances: Vec<InstanceView>,
    tasks: Vec<TaskRow>,
    next: Option<String>,
    head: HeadView,
}

#[derive(Template)]
#[template(path = "task.html")]
struct TaskPage {
    nonce: String,
    task: TaskDetail,
    steps: Vec<StepRow>,
}

#[derive(Template)]
#[template(path = "message.html")]
struct MessagePage {
    nonce: String,
    title: &'static str,
    text: String,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct FleetQuery {
    cursor: Option<String>,
}

async fn fleet(State(hub): State<Hub>, QueryOf(query): QueryOf<FleetQuery>) -> Response {
    page(StatusCode::OK, fleet_page(&hub, query.cursor).await)
}

async fn fleet_page(hub: &Hub, cursor: Option<String>) -> Result<FleetPage, HubError> {
    let tasks = hub
        .task_list(TaskFilter {
            cursor,
            limit: TASKS,
            ..TaskFilter::default()
        })
        .await?;
    Ok(FleetPage {
        nonce: nonce(),
        agents: hub.agent_list().await?.items,
        instances: hub.instance_list().await?.items,
        tasks: tasks.items.into_iter().map(TaskRow::from).collect(),
        next: tasks.next,
        head: hub.log_head().await?,
    })
}

async fn task(State(hub): State<Hub>, PathOf(id): PathOf<String>) -> Response {
    page(StatusCode::OK, task_page(&hub, &id).await)
}

async fn task_page(hub: &Hub, id: &str) -> Result<TaskPage, HubError> {
    let task = hub.task_get(id).await?;
    let steps = hub.task_steps(id).await?.items;
    Ok(TaskPage {
        nonce: nonce(),
        task: task.into(),
        steps: steps.into_iter().map(StepRow::from).collect(),
    })
}

/// What a browser without cookie or link gets.
pub(crate) fn locked() -> Response {
    let text = "Open the link that “mainstay up” prints, or add ?token= with what “mainstay token” prints.".to_owned();
    let mut response = html(
        StatusCode::UNAUTHORIZED,
        &MessagePage {
            nonce: nonce(),
            title: "This page needs your token",
            text,
        },
    );
    response.headers_mut().insert(
        "www-authenticate",
        HeaderValue::from_static("Bearer realm=\"mainstay\""),
    );
    response
}

fn page(status: StatusCode, made: Result<impl Page, HubError>) -> Response {
    match made {
        Ok(page) => html(status, &page),
        Err(error) => {
            let problem = Problem::from(error);
            html(
                problem.status,
                &MessagePage {
                    nonce: nonce(),
                    title: problem.title,
                    text: problem.detail,
                },
            )
        }
    }
}

/// A template with the nonce that its style and script carry.
trait Page: Template {
    fn nonce(&self) -> &str;
}

impl Page for FleetPage {
    fn nonce(&self) -> &str {
        &self.nonce
    }
}

impl Page for TaskPage {
    fn nonce(&self) -> &str {
        &self.nonce
    }
}

impl Page for MessagePage {
    fn nonce(&self) -> &str {
        &self.nonce
    }
}

fn html(status: StatusCode, page: &impl Page) -> Response {
    let Ok(text) = page.render() else {
        return HubErrorPage.into_response();
    };
    let nonce = page.nonce();
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let fixed = [
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("cross-origin-opener-policy", "same-origin"),
    ];
    (
        status,
        [
            (CONTENT_TYPE, "text/html; charset=utf-8"),
            (CACHE_CONTROL, "no-store"),
        ],
        fixed,
        [("content-security-policy", policy)],
        text,
    )
        .into_response()
}

/// A template that can't be rendered is a defect of ours.
struct HubErrorPage;

impl IntoResponse for HubErrorPage {
    fn into_response(self) -> Response {
        Problem::from(HubError::new(
            hub::Code::Internal,
            "the page can't be rendered",
        ))
        .into_response()
    }
}

/// 128 fresh bits.
fn nonce() -> String {
    let mut bytes = [0; 16];
    // Without randomness no script runs, which is the safe side: the page stays readable.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    hex::encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::tests::task as sample;
    use hub::view::{CostView, StepView, TaskView, UsageView};
    use serde_json::json;

    const HOSTILE: &str = "<script>alert(1)</script>\"'&";

    fn step(n: u32, replayed: bool) -> StepView {
        StepView {
            n,
            id: format!("step-{n}"),
            kind: "model",
            name: HOSTILE.into(),
            state: "finished",
            attempt: 2,
            replayed,
            repeated: 0,
            model: Some("script/demo".into()),
            usage: UsageView::default(),
            cost: CostView { usd: None },
            started: "2026-01-02T03:04:05Z".into(),
            ended: Some("2026-01-02T03:04:06.5Z".into()),
        }
    }

    fn agent() -> AgentView {
        AgentView {
            name: "helper".into(),
            runtime: "exec",
            state: "ready",
            models: vec!["script/demo".into()],
            scripted: true,
            tools: vec![HOSTILE.into()],
            replicas: 2,
            ready: 1,
            queued: 3,
            working: 1,
            generation: Some(4),
            exposed_secrets: vec!["telegram/token".into()],
        }
    }

    fn fleet_of(tasks: Vec<TaskView>) -> FleetPage {
        let instance = InstanceView {
            name: "helper-0".into(),
            agent: "helper".into(),
            pid: Some(42),
            state: "ready",
            isolation: "partial: landlock".into(),
            restarts: 7,
            last_error: None,
            task: None,
            gateway_port: 4000,
            shim_pid: 41,
        };
        let head = HeadView {
            origin: "mainstay/default".into(),
            size: 99,
            root: "abc=".into(),
            text: String::new(),
            key: "mainstay+1+x".into(),
        };
        FleetPage {
            nonce: "n".into(),
            agents: vec![agent()],
            instances: vec![instance],
            tasks: tasks.into_iter().map(TaskRow::from).collect(),
            next: None,
            head,
        }
    }

    #[test]
    fn nothing_an_agent_or_client_says_becomes_markup() {
        let hostile = TaskView {
            agent: HOSTILE.into(),
            output: json!(HOSTILE),
            input: json!(HOSTILE),
            reason: Some(HOSTILE.into()),
            ..sample()
        };
        let page = TaskPage {
            nonce: "n".into(),
            task: hostile.clone().into(),
            steps: vec![StepRow::from(step(1, false))],
        };
        for text in [
            page.render().unwrap(),
            fleet_of(vec![hostile]).render().unwrap(),
        ] {
            assert!(!text.contains("<script>alert"), "{text}");
            assert!(text.contains("&#60;script&#62;"));
        }
    }

    #[test]
    fn replayed_steps_are_marked_and_unknown_cost_is_never_zero() {
        let page = TaskPage {
            nonce: "n".into(),
            task: TaskView {
                cost: CostView { usd: None },
                ..sample()
            }
            .into(),
            steps: vec![StepRow::from(step(1, true)), StepRow::from(step(2, false))],
        };
        let text = page.render().unwrap();
        assert_eq!(text.matches("class=\"tag replayed\"").count(), 1);
        assert!(text.contains("unknown") && !text.contains("$0"));
    }

    #[test]
    fn scripts_secrets_isolation_and_the_head_are_shown() {
        let text = fleet_of(vec![sample()]).render().unwrap();
        for shown in [
            "scripted",
            "telegram/token",
            "partial: landlock",
            "99",
            "abc=",
            "$0.004",
            "mainstay/default",
        ] {
            assert!(text.contains(shown), "{shown}");
        }
    }

    #[test]
    fn only_our_own_style_and_script_may_run() {
        let response = html(StatusCode::OK, &fleet_of(vec![]));
        let policy = response.headers()["content-security-policy"]
            .to_str()
            .unwrap();
        assert!(
            policy.starts_with("default-src 'none'")
                && policy.contains("'nonce-n'")
                && !policy.contains("unsafe"),
            "{policy}"
        );
        let text = fleet_of(vec![]).render().unwrap();
        assert_eq!(
            text.matches("<script").count(),
            text.matches("<script nonce=\"n\"").count()
        );
        assert_eq!(
            text.matches("<style").count(),
            text.matches("<style nonce=\"n\"").count()
        );
        assert!(
            !text.contains(" style=") && !text.contains("http://") && !text.contains("https://")
        );
        assert_ne!(nonce(), nonce());
    }

    #[test]
    fn without_a_token_the_page_says_where_to_get_one() {
        let response = locked();
        assert_eq!(response.status(), 401);
    }

    /// `FACADE_PAGES=dir cargo test -p facade pages_for_the_eye` writes pages to look at.
    #[test]
    fn pages_for_the_eye() {
        let states = [
            "completed",
            "working",
            "input-required",
            "failed",
            "submitted",
            "canceled",
        ];
        let tasks = states
            .iter()
            .map(|state| TaskView {
                state: (*state).into(),
                attempts: 2,
                replayed: 7,
                ..sample()
            })
            .collect();
        let steps = (1..=9)
            .map(|n| {
                StepRow::from(StepView {
                    name: "desk__search".into(),
                    kind: if n % 2 == 0 { "tool" } else { "model" },
                    ..step(n, n < 5)
                })
            })
            .collect();
        let pages = [
            fleet_of(tasks).render().unwrap(),
            TaskPage {
                nonce: "n".into(),
                task: sample().into(),
                steps,
            }
            .render()
            .unwrap(),
            MessagePage {
                nonce: "n".into(),
                title: "not found",
                text: "no such task".into(),
            }
            .render()
            .unwrap(),
        ];
        for (name, page) in ["fleet", "task", "message"].iter().zip(&pages) {
            assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>"));
            if let Ok(directory) = std::env::var("FACADE_PAGES") {
                std::fs::write(format!("{directory}/{name}.html"), page).unwrap();
            }
        }
    }
}
