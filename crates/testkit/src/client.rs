//! A client of one hub's API, wherever that hub runs: requests with a token, tasks, steps.
//!
//! What can fail while a hub is killed is asked again or says that there was no answer; everything
//! else fails the test.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::http::{Endpoint, Request};
use crate::until;

/// How long a task may take to be accepted, over a hub's death and the next one's start.
const ACCEPTED: Duration = Duration::from_secs(60);

/// Somebody with a token.
#[derive(Clone, Debug)]
pub struct Client {
    pub endpoint: Endpoint,
    pub token: String,
}

impl Client {
    /// A request with the token.
    #[must_use]
    pub fn request(&self, method: &str, path: &str) -> Request {
        let bearer = format!("Bearer {}", self.token);
        Request::to(self.endpoint.clone(), method, path).header("authorization", &bearer)
    }

    /// A GET of the API; fails the test unless it is a 200.
    #[must_use]
    pub fn get(&self, path: &str) -> Value {
        let answer = self.request("GET", path).send().unwrap();
        assert_eq!(answer.status, 200, "GET {path}: {}", answer.text());
        answer.json()
    }

    /// The same, or nothing while no hub answers.
    #[must_use]
    pub fn try_get(&self, path: &str) -> Option<Value> {
        let request = self.request("GET", path).timeout(Duration::from_secs(5));
        let answer = request.send().ok()?;
        (answer.status == 200).then(|| answer.json())
    }

    /// Submits a task, again and again with the same key until a hub takes it; returns its id.
    #[must_use]
    pub fn submit(&self, agent: &str, input: &str, key: &str) -> String {
        let path = format!("/api/v1/agents/{agent}/tasks");
        until("the task to be accepted", ACCEPTED, || {
            let request = self.request("POST", &path).header("idempotency-key", key);
            let request = request.timeout(Duration::from_secs(10));
            let answer = request.json(&json!({"input": input})).send().ok()?;
            if matches!(answer.status, 502..=504) {
                return None;
            }
            let is_made = matches!(answer.status, 200 | 201);
            assert!(is_made, "submit: {} {}", answer.status, answer.text());
            answer.json()["id"].as_str().map(str::to_owned)
        })
    }

    /// The task now, or nothing while no hub answers.
    #[must_use]
    pub fn task(&self, id: &str) -> Option<Value> {
        self.try_get(&format!("/api/v1/tasks/{id}"))
    }

    /// Its steps now, in order.
    #[must_use]
    pub fn steps(&self, id: &str) -> Vec<Value> {
        let answer = self.try_get(&format!("/api/v1/tasks/{id}/steps"));
        let items = answer.and_then(|answer| answer["items"].as_array().cloned());
        items.unwrap_or_default()
    }

    /// Waits until the task is in one of these states; says what it is instead after `bound`.
    pub fn reached(&self, id: &str, states: &[&str], bound: Duration) -> Result<Value, String> {
        let deadline = Instant::now() + bound;
        loop {
            let task = self.task(id);
            let state = task.as_ref().and_then(|task| task["state"].as_str());
            if state.is_some_and(|state| states.contains(&state)) {
                return Ok(task.unwrap_or_default());
            }
            if Instant::now() >= deadline {
                return Err(format!(
                    "waited {bound:?} in vain for task {id} to be {states:?}: {task:?}"
                ));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
