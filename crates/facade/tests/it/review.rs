//! Callers whom somebody outside vouches for: each does what he may, and no longer than he may.

use std::io::BufRead as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use facade::{Access, Options, Refused, Review};
use serde_json::json;
use testkit::http::Request;

use crate::fixture::{SOON, Served};

/// The reader may read until it is taken from him, the runner may run as well; nobody asks about
/// tokens of ours.
fn served() -> (Served, Arc<AtomicBool>) {
    let taken = Arc::new(AtomicBool::new(false));
    let own = Arc::clone(&taken);
    let review = Review::new(move |bearer, access| {
        assert!(!bearer.starts_with("mst_") && !bearer.starts_with("msa_"));
        let is_taken = own.load(Ordering::Relaxed);
        let answer = match (bearer, access) {
            ("reader", Access::Read) if !is_taken => Ok("user:reader".into()),
            ("runner", Access::Read | Access::Run) if !is_taken => Ok("user:runner".into()),
            ("reader" | "runner", _) => Err(Refused::NotAllowed(format!("{bearer} may not"))),
            ("away", _) => Err(Refused::Unanswered("nobody answers".to_owned())),
            _ => Err(Refused::Unknown("who is that".to_owned())),
        };
        Box::pin(async move { answer })
    });
    let options = Options {
        review: Some(review),
        ..Options::default()
    };
    (Served::start_with(options), taken)
}

fn asked(served: &Served, bearer: &str, method: &str, path: &str) -> Request {
    let request = served.anonymous(method, path);
    request.header("authorization", &format!("Bearer {bearer}"))
}

#[test]
fn each_caller_does_what_he_may_and_stands_in_the_log() {
    let (served, _) = served();
    let status = |bearer: &str, method: &str, path: &str| {
        let request = asked(&served, bearer, method, path).json(&json!({"input": "hi"}));
        let answer = request.send().unwrap();
        (answer.status, answer.text())
    };
    for path in [
        "/api/v1/tasks",
        "/metrics",
        "/v1/models",
        "/",
        "/control/objects/agent",
    ] {
        assert_eq!(status("reader", "GET", path).0, 200, "{path}");
    }
    let run = "/api/v1/agents/echo/tasks";
    for (method, path) in [
        ("POST", run),
        ("POST", "/api/v1/tasks/x/cancel"),
        ("POST", "/api/v1/sessions/x/export"),
        ("POST", "/control/stop"),
        ("POST", "/control/apply"),
        ("GET", "/control/token"),
        ("GET", "/control/secrets"),
        ("POST", "/v1/chat/completions"),
    ] {
        let (code, said) = status("reader", method, path);
        assert_eq!(code, 403, "{path}");
        assert!(said.contains("reader may not"), "{said}");
    }
    let (code, said) = status("runner", "POST", run);
    assert_eq!(code, 201, "{said}");
    let log = served.get("/api/v1/log/entries?limit=200").text();
    assert!(log.contains("user:runner"), "{log}");
    assert_eq!(status("away", "GET", "/api/v1/tasks").0, 503);
    let (code, said) = status("stranger", "GET", "/api/v1/tasks");
    assert!(code == 401 && said.contains("who is that"), "{said}");
    // A wrong one of ours is asked of nobody.
    assert_eq!(status("mst_wrong", "GET", "/api/v1/tasks").0, 401);
    assert_eq!(status("msa_wrong", "GET", "/api/v1/tasks").0, 401);
    assert_eq!(status(&served.token, "GET", "/control/token").0, 200);
}

#[test]
fn an_open_stream_is_broken_off_when_its_right_is_taken() {
    let (served, taken) = served();
    let events = asked(&served, "reader", "GET", "/api/v1/events").timeout(SOON);
    let (status, mut reader) = events.stream().unwrap();
    assert_eq!(status, 200);
    taken.store(true, Ordering::Relaxed);
    let begun = Instant::now();
    let mut last = String::new();
    loop {
        let mut line = String::new();
        match reader.read_line(&mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) => last = line,
        }
    }
    assert_ne!(last.trim(), "0", "it was ended as if it were whole");
    assert!(begun.elapsed() < Duration::from_secs(12));
}
