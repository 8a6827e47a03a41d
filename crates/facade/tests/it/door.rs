//! The TCP door: token, Host, Origin, sizes, times, the page, and the end.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::json;

use crate::fixture::Served;

#[test]
fn only_health_is_open_and_it_says_nothing() {
    let served = Served::start();
    for path in ["/healthz", "/readyz"] {
        let answer = served.anonymous("GET", path).send().unwrap();
        assert_eq!((answer.status, answer.body.len()), (200, 0), "{path}");
    }
    for path in [
        "/metrics",
        "/api/v1/agents",
        "/api/v1/openapi.json",
        "/v1/models",
        "/ws/echo",
        "/",
        "/api/v1/events",
    ] {
        let answer = served.anonymous("GET", path).send().unwrap();
        assert_eq!(answer.status, 401, "{path}");
        assert!(
            answer.header("www-authenticate").is_some() || path.starts_with("/v1"),
            "{path}"
        );
        let wrong = served
            .anonymous("GET", path)
            .header("authorization", "Bearer wrong")
            .send()
            .unwrap();
        assert_eq!(wrong.status, 401, "{path}");
    }
}

#[test]
fn the_owner_may_run_the_fleet_from_elsewhere_and_nobody_else() {
    let served = Served::start();
    let agents = served.get("/control/objects/agent");
    assert_eq!(agents.status, 200);
    assert!(agents.text().contains("echo"), "{}", agents.text());
    for path in [
        "/control/objects/agent",
        "/control/secrets",
        "/control/token",
    ] {
        let nobody = served.anonymous("GET", path).send().unwrap();
        assert_eq!(nobody.status, 401, "{path}");
        let foreign = served
            .anonymous("GET", path)
            .header("authorization", &format!("Bearer {}", served.token))
            .header("origin", "http://evil.example")
            .send()
            .unwrap();
        assert_eq!(foreign.status, 403, "{path}");
    }
}

#[test]
fn a_token_in_the_query_opens_no_api() {
    let served = Served::start();
    let answer = served
        .anonymous("GET", &format!("/api/v1/agents?token={}", served.token))
        .send()
        .unwrap();
    assert_eq!(answer.status, 401);
}

#[test]
fn metrics_are_openmetrics_to_who_asks_for_it_and_prometheus_text_else() {
    let served = Served::start();
    served.run("echo", "hello");
    let plain = served.get("/metrics");
    assert!(
        plain
            .header("content-type")
            .unwrap()
            .starts_with("text/plain; version=0.0.4")
    );
    assert!(
        plain
            .text()
            .contains("# TYPE mainstay_tasks_total counter\n")
    );
    let answer = served
        .anonymous("GET", "/metrics")
        .header("authorization", &format!("Bearer {}", served.token))
        .header(
            "accept",
            "application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
        )
        .send()
        .unwrap();
    assert!(
        answer
            .header("content-type")
            .unwrap()
            .starts_with("application/openmetrics-text")
    );
    assert!(answer.text().contains("mainstay_tasks_total{") && answer.text().ends_with("# EOF\n"));
}

#[test]
fn a_monitors_token_opens_the_metrics_and_nothing_else() {
    let served = Served::start();
    // Of the fixture's state key.
    let token = "Bearer msm_R74epKRaThreHpN4tN8ROfM80Aci2pJRbDl54sgADhc";
    let status = |path: &str| {
        let asked = served.anonymous("GET", path).header("authorization", token);
        asked.send().unwrap().status
    };
    assert_eq!(status("/metrics"), 200);
    for path in [
        "/api/v1/agents",
        "/api/v1/tasks",
        "/v1/models",
        "/",
        "/ws/echo",
    ] {
        assert_eq!(status(path), 401, "{path}");
    }
}

#[test]
fn foreign_hosts_and_origins_are_refused_before_anything_else() {
    let served = Served::start();
    let host = |host: &str| {
        served
            .request("GET", "/api/v1/agents")
            .header("host", host)
            .send()
            .unwrap()
            .status
    };
    assert_eq!(
        (
            host("evil.example"),
            host("agents.example"),
            host("localhost")
        ),
        (421, 200, 200)
    );
    let origin = |origin: &str| {
        served
            .request("GET", "/api/v1/agents")
            .header("origin", origin)
            .send()
            .unwrap()
            .status
    };
    assert_eq!(
        (
            origin("http://evil.example"),
            origin(&format!("http://127.0.0.1:{}", served.port))
        ),
        (403, 200)
    );
    assert_eq!(
        served
            .anonymous("GET", "/healthz")
            .header("host", "evil.example")
            .send()
            .unwrap()
            .status,
        421
    );
}

#[test]
fn an_oversize_body_is_refused_and_a_long_head_too() {
    let served = Served::start();
    let mut stream = TcpStream::connect(("127.0.0.1", served.port)).unwrap();
    let head = format!(
        "POST /api/v1/agents/echo/tasks HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ncontent-length: 99999999\r\n\r\n",
        served.token
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    let long = "x".repeat(200_000);
    let answer = served
        .anonymous("GET", "/healthz")
        .header("x-long", &long)
        .send();
    assert!(answer.map_or(true, |answer| answer.status == 431));
}

#[test]
fn the_link_opens_the_page_and_the_page_alone() {
    let served = Served::start();
    let task = served.run("talker", "say <b>bold</b> words");
    let link = served
        .anonymous("GET", &format!("/?token={}", served.token))
        .send()
        .unwrap();
    assert_eq!((link.status, link.header("location")), (303, Some("/")));
    let cookie = link
        .header("set-cookie")
        .unwrap()
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    assert!(!cookie.contains(&served.token));
    let page = served
        .anonymous("GET", "/")
        .header("cookie", &cookie)
        .send()
        .unwrap();
    assert_eq!(page.status, 200);
    assert!(
        page.header("content-security-policy")
            .unwrap()
            .starts_with("default-src 'none'")
    );
    assert!(
        page.text().contains("talker")
            && !page.text().contains("<b>bold")
            && page.text().contains("&#60;b&#62;bold")
    );
    let path = format!("/tasks/{}", task["id"].as_str().unwrap());
    let page = served
        .anonymous("GET", &path)
        .header("cookie", &cookie)
        .send()
        .unwrap();
    assert!(
        page.status == 200 && page.text().contains("script/demo"),
        "{}",
        page.text()
    );
    assert_eq!(
        served
            .anonymous("GET", "/api/v1/agents")
            .header("cookie", &cookie)
            .send()
            .unwrap()
            .status,
        401
    );
    assert_eq!(
        served
            .anonymous("GET", "/?token=wrong")
            .send()
            .unwrap()
            .status,
        401
    );
    assert_eq!(
        served
            .request("GET", "/tasks/nothing")
            .send()
            .unwrap()
            .status,
        404
    );
}

#[test]
fn a_stopping_hub_ends_waits_and_streams_and_accepts_nothing() {
    let mut served = Served::start();
    let id = served
        .post("/api/v1/agents/echo/tasks", &json!({"input": "hang"}))
        .json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let waiting = served
        .request("POST", "/api/v1/agents/talker/tasks")
        .header("prefer", "wait=600")
        .json(&json!({"input": "hang"}));
    let waiter = std::thread::spawn(move || waiting.send());
    let (status, mut stream) = served
        .request("GET", &format!("/api/v1/tasks/{id}/events"))
        .stream()
        .unwrap();
    assert_eq!(status, 200);
    testkit::until("the second task is there", crate::fixture::SOON, || {
        (served.get("/api/v1/tasks?agent=talker").json()["items"]
            .as_array()
            .unwrap()
            .len()
            == 1)
            .then_some(())
    });
    served.stop();
    let waited = waiter.join().unwrap().unwrap();
    assert_eq!(
        (
            waited.status,
            waited.json()["state"].as_str() != Some("completed")
        ),
        (201, true)
    );
    let mut rest = String::new();
    let _ = stream.read_to_string(&mut rest);
    assert!(
        !rest.ends_with("0\r\n\r\n"),
        "a stream that is cut must not end cleanly: {rest:?}"
    );
    assert!(TcpStream::connect(("127.0.0.1", served.port)).is_err());
}

/// A client that trusts the certificate of this state and nothing else.
async fn over_tls(served: &Served, port: u16, request: String) -> String {
    use rustls::pki_types::pem::PemObject as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let path = served.state().join("system/tls/certificate.pem");
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(rustls::pki_types::CertificateDer::from_pem_file(path).unwrap())
        .unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let socket = tokio::net::TcpStream::connect(("127.0.0.1", port))
        .await
        .unwrap();
    let mut stream = connector
        .connect("localhost".try_into().unwrap(), socket)
        .await
        .unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

#[test]
fn off_loopback_there_is_tls_and_nothing_without_it() {
    let served = Served::start();
    let port = served.listen("0.0.0.0:0");
    let certificate = served.state().join("system/tls/certificate.pem");
    testkit::until("a certificate is made", crate::fixture::SOON, || {
        certificate.exists().then_some(())
    });
    let request = format!(
        "GET /?token={} HTTP/1.1\r\nhost: localhost:{port}\r\nconnection: close\r\n\r\n",
        served.token
    );
    let answer = served.block_on(over_tls(&served, port, request));
    assert!(
        answer.starts_with("HTTP/1.1 303") && answer.contains("; Secure"),
        "{answer}"
    );
    let mut plain = TcpStream::connect(("127.0.0.1", port)).unwrap();
    plain
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(
        !answer.starts_with(b"HTTP"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
}
