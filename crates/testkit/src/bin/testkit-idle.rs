//! The smallest service: listens where it is told to, tells a measuring harness so, and waits.
//!
//! The first argument, if there is one, is a Unix socket that gets this process's number. Every
//! supervisor in the comparison runs this same program.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::Path;

fn main() {
    // Listening is its sign of readiness: the ready descriptor's number can't be written to without
    // unsafe code, and other users may not open the pipe by its name.
    let port = std::env::var("PORT")
        .ok()
        .and_then(|port| port.parse::<u16>().ok());
    let _listening = port.map(|port| TcpListener::bind(("127.0.0.1", port)));
    let path = std::env::args_os().nth(1);
    let harness = path.and_then(|path| UnixStream::connect(Path::new(&path)).ok());
    if let Some(mut harness) = harness {
        let _ = harness.write_all(std::process::id().to_string().as_bytes());
        // Held open; the harness sees the death of this process as its end.
        let _ = harness.read(&mut [0]);
    }
    loop {
        std::thread::park();
    }
}
