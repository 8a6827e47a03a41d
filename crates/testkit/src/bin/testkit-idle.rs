//! The smallest service: listens where it is told to, which is its sign of readiness, and waits.

use std::net::TcpListener;

fn main() {
    let port = std::env::var("PORT")
        .ok()
        .and_then(|port| port.parse::<u16>().ok());
    let _listening = port.map(|port| TcpListener::bind(("127.0.0.1", port)));
    loop {
        std::thread::park();
    }
}
