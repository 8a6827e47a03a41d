//! Agents' code that a command line sends.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use contract::artifact::Writer;

use crate::fixture::Served;

fn packed(text: &str) -> (Vec<u8>, String) {
    let mut archive = Vec::new();
    let mut writer = Writer::new(&mut archive).unwrap();
    let (path, length) = (std::path::Path::new("agent.py"), text.len() as u64);
    writer.file(path, false, length, text.as_bytes()).unwrap();
    let name = writer.finish().unwrap();
    (archive, name)
}

/// The status of one request at the TCP door. Of a body that lacks a byte no more comes.
fn call(served: &Served, token: &str, request: &str, (announced, body): (usize, &[u8])) -> u16 {
    let mut stream = TcpStream::connect(("127.0.0.1", served.port)).unwrap();
    let head = format!(
        "{request} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nauthorization: Bearer {token}\r\ncontent-length: {announced}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    if announced == body.len() + 1 {
        stream.shutdown(std::net::Shutdown::Write).unwrap();
    }
    let mut answer = Vec::new();
    let _reset = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    answer
        .get(9..12)
        .map_or(0, |status| status.parse().unwrap())
}

fn kept(served: &Served) -> Vec<String> {
    let entries = std::fs::read_dir(served.state().join("artifacts")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

#[test]
fn a_source_is_kept_by_its_hash_for_the_owner_alone() {
    let served = Served::start();
    let (archive, name) = packed(&"a".repeat(3_000_000));
    let path = format!("/control/sources/{name}");
    let (put, get) = (format!("PUT {path}"), format!("GET {path}"));
    let whole = (archive.len(), &archive[..]);
    assert_eq!(call(&served, "another", &put, whole), 401);
    assert_eq!(call(&served, &served.token, &get, (0, b"")), 404);
    assert_eq!(call(&served, &served.token, &put, whole), 204);
    assert_eq!(call(&served, &served.token, &put, whole), 204);
    assert_eq!(call(&served, &served.token, &get, (0, b"")), 204);
    assert_eq!(kept(&served), [name]);
}

#[test]
fn what_is_not_whole_or_another_is_not_kept() {
    let served = Served::start();
    let (archive, name) = packed("a");
    let (other, _) = packed("b");
    let put = format!("PUT /control/sources/{name}");
    let another = call(&served, &served.token, &put, (other.len(), &other));
    assert_eq!(another, 400);
    let cut = (archive.len(), &archive[..archive.len() - 1]);
    let answer = call(&served, &served.token, &put, cut);
    assert!(answer == 0 || answer == 400, "{answer}");
    let large = call(&served, &served.token, &put, (usize::MAX / 2, b""));
    assert!(large == 0 || large == 413, "{large}");
    let elsewhere = "PUT /control/sources/..%2Flog.db";
    let refused = call(&served, &served.token, elsewhere, (archive.len(), &archive));
    assert_eq!(refused, 400);
    testkit::until("nothing is kept", crate::fixture::SOON, || {
        kept(&served).is_empty().then_some(())
    });
}
