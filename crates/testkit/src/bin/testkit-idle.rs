//! The smallest service: says that it is ready, tells a measuring harness so, and waits for ever.
//!
//! The first argument, if there is one, is a Unix socket that gets this process's number. Every
//! supervisor in the comparison runs this same program.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

fn main() {
    // The ready descriptor, opened by its name: this program needs no unsafe code for it.
    let ready = std::env::var("MAINSTAY_READY_FD").ok();
    let ready = ready.and_then(|number| {
        File::options()
            .write(true)
            .open(format!("/proc/self/fd/{number}"))
            .ok()
    });
    if let Some(mut ready) = ready {
        let _ = ready.write_all(b"r");
    }
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
