//! The kubelet's questions: is the relay alive, and may the pod get work. HTTP/1.1, one answer each.
//!
//! Anybody who reaches the pod may ask; the answer tells nothing but why the pod isn't ready.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::Relay;

const QUESTIONS: usize = 16;
const QUESTION_BYTES: usize = 4096;
const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

pub(crate) async fn serve(relay: Arc<Relay>, listener: TcpListener) {
    let slots = Arc::new(Semaphore::new(QUESTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        let Ok((socket, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let relay = Arc::clone(&relay);
        tokio::spawn(async move {
            let _slot = slot;
            let _gone = tokio::time::timeout(QUESTION_TIMEOUT, answer(&relay, socket)).await;
        });
    }
}

async fn answer(relay: &Relay, mut socket: TcpStream) -> io::Result<()> {
    let mut question = Vec::with_capacity(512);
    while !question.windows(4).any(|end| end == b"\r\n\r\n") {
        if question.len() >= QUESTION_BYTES || socket.read_buf(&mut question).await? == 0 {
            return Ok(());
        }
    }
    let (status, body) = match path(&question) {
        Some("/livez") => ("200 OK", "alive\n".to_owned()),
        Some("/readyz") => readiness(relay),
        _ => ("404 Not Found", "ask for /livez or /readyz\n".to_owned()),
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await?;
    socket.write_all(body.as_bytes()).await?;
    socket.shutdown().await
}

fn path(question: &[u8]) -> Option<&str> {
    let line = question.split(|byte| *byte == b'\r').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let path = target.split('?').next()?;
    (method == "GET").then_some(path)
}

fn readiness(relay: &Relay) -> (&'static str, String) {
    let draining = relay.offered.borrow().draining;
    match relay.standing.unready(draining, Instant::now()) {
        None => ("200 OK", "ready\n".to_owned()),
        Some(reason) => ("503 Service Unavailable", format!("not ready: {reason}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_get_has_a_path() {
        assert_eq!(
            path(b"GET /readyz?verbose HTTP/1.1\r\nHost: a\r\n\r\n"),
            Some("/readyz")
        );
        assert_eq!(path(b"POST /readyz HTTP/1.1\r\n\r\n"), None);
        assert_eq!(path(b"\xff\xfe\r\n\r\n"), None);
        assert_eq!(path(b"GET\r\n\r\n"), None);
    }
}
