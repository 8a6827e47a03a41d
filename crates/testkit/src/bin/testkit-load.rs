//! An agent that does nothing but make model calls, and says how long they took.
//!
//! Its input is `{"calls", "clients", "bytes", "direct", "token"}`: that many Chat Completions in
//! all, over that many connections at once, each with a user message of that many bytes; `direct`
//! is the port of the provider or of another gateway, to measure the same there, `token` what that
//! one asks for. It keeps connections open, as SDKs do.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde_json::{Value, json};

fn main() {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .expect("standard input is the task");
    let task: Value = serde_json::from_str(&text).expect("the task is JSON");
    let input = task["input"].as_str().unwrap_or("{}");
    let plan: Value = serde_json::from_str(input).expect("the input is a plan");
    let token = std::env::var("MAINSTAY_TOKEN").unwrap_or_default();
    let base = std::env::var("OPENAI_BASE_URL").unwrap_or_default();
    let port = base
        .rsplit(':')
        .next()
        .and_then(|rest| rest.split('/').next());
    let gateway: u16 = port.and_then(|port| port.parse().ok()).unwrap_or(0);
    let direct = plan["direct"]
        .as_u64()
        .and_then(|port| u16::try_from(port).ok());
    let run = Run {
        port: direct.unwrap_or(gateway),
        token: plan["token"].as_str().map_or(token, str::to_owned),
        calls: plan["calls"].as_u64().unwrap_or(1),
        bytes: usize::try_from(plan["bytes"].as_u64().unwrap_or(16)).unwrap_or(16),
        name: plan["name"].as_str().unwrap_or("load").to_owned(),
        next: AtomicU64::new(0),
    };
    let clients = plan["clients"].as_u64().unwrap_or(1);
    let started = Instant::now();
    let mut micros = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients).map(|_| scope.spawn(|| run.client())).collect();
        let all = threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap_or_default());
        all.collect::<Vec<u64>>()
    });
    let seconds = started.elapsed().as_secs_f64();
    micros.sort_unstable();
    let at = |share: usize| {
        micros.get((micros.len() * share / 1000).min(micros.len().saturating_sub(1)))
    };
    println!(
        "{}",
        json!({"calls": micros.len(), "seconds": seconds, "p50": at(500), "p90": at(900), "p99": at(990)})
    );
}

struct Run {
    port: u16,
    token: String,
    calls: u64,
    bytes: usize,
    name: String,
    next: AtomicU64,
}

impl Run {
    /// Takes the next call until none is left; returns each one's microseconds.
    fn client(&self) -> Vec<u64> {
        let mut micros = Vec::new();
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the server listens");
        stream.set_nodelay(true).expect("a TCP socket");
        let mut reader = BufReader::new(stream);
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.calls {
                return micros;
            }
            let request = self.request(number);
            let started = Instant::now();
            reader
                .get_mut()
                .write_all(&request)
                .expect("the server reads");
            let status = answer(&mut reader);
            micros.push(u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX));
            assert_eq!(status, 200, "call {number}");
        }
    }

    fn request(&self, number: u64) -> Vec<u8> {
        let mut content = format!("{} {number} ", self.name);
        while content.len() < self.bytes {
            content.push('x');
        }
        let messages = json!([{"role": "user", "content": content}]);
        let body = json!({"model": "fake-1", "messages": messages}).to_string();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            self.port,
            self.token,
            body.len()
        );
        [head.as_bytes(), body.as_bytes()].concat()
    }
}

/// Reads one answer to its end; returns its status.
fn answer(reader: &mut BufReader<TcpStream>) -> u16 {
    let mut status = 0;
    let mut length = None;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("the server answers");
        let line = line.trim_end().to_lowercase();
        if line.is_empty() {
            break;
        }
        if status == 0 {
            status = line
                .split(' ')
                .nth(1)
                .and_then(|code| code.parse().ok())
                .unwrap_or(1);
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse::<usize>().ok();
        }
    }
    match length {
        Some(length) => {
            let mut body = vec![0; length];
            reader.read_exact(&mut body).expect("the body is whole");
        }
        None => chunks(reader),
    }
    status
}

fn chunks(reader: &mut BufReader<TcpStream>) {
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a chunk's size");
        let size = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
        let mut chunk = vec![0; size + 2];
        reader.read_exact(&mut chunk).expect("a chunk");
        if size == 0 {
            return;
        }
    }
}
