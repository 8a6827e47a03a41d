//! Measures crash → ready: a service is killed again and again under a real keeper and shim.
//!
//! `crash_ready SOCKET KILLS`: `SOCKET` is the shim's of a running service instance that writes to
//! its ready descriptor. Prints the times from the kill to the next ready byte, as the shim sees
//! them (`recoveryMs`) and as this program does, in milliseconds.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a few thousand times"
)]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use contract::Versions;
use contract::frame::{Decoder, encode};
use contract::shim::{Fact, FromShim, Role, ServiceToken, ToShim};

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(socket), Some(Ok(kills))) = (
        arguments.next(),
        arguments.next().map(|kills| kills.parse::<u32>()),
    ) else {
        eprintln!("usage: crash_ready SOCKET KILLS");
        std::process::exit(2);
    };
    let mut shim = Shim {
        stream: UnixStream::connect(socket)?,
        decoder: Decoder::default(),
    };
    shim.send(&ToShim::Hello {
        versions: Versions::OURS,
        role: Role::Hub,
    })?;
    let token = |incarnation| ServiceToken {
        incarnation,
        token: format!("token-{incarnation}"),
        env: Default::default(),
    };
    shim.send(&ToShim::ServiceTokens {
        generation: 1,
        tokens: (1..=kills + 2).map(token).collect(),
    })?;
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    let mut killed: Option<Instant> = None;
    let mut pid = 0;
    while outside.len() < kills as usize {
        let FromShim::Record { record, fact, .. } = shim.next()? else {
            continue;
        };
        shim.send(&ToShim::Acknowledge { record })?;
        match fact {
            Fact::ServiceStarted { pid: started, .. } => pid = started,
            Fact::ServiceReady { recovery_ms, .. } => {
                inside.extend(recovery_ms);
                outside.extend(killed.map(|killed| killed.elapsed().as_secs_f64() * 1000.0));
                // Let the machine come to rest, so that kills don't measure each other.
                std::thread::sleep(std::time::Duration::from_millis(10));
                if let Some(process) = sandbox::process::identity(pid) {
                    killed = Some(Instant::now());
                    sandbox::process::signal_identity(process, 9);
                }
            }
            _ => {}
        }
    }
    report("exit seen to ready byte seen, by the shim", &mut inside);
    report(
        "kill to ready told, by this program (with the fact's flush)",
        &mut outside,
    );
    Ok(())
}

struct Shim {
    stream: UnixStream,
    decoder: Decoder,
}

impl Shim {
    fn send(&mut self, message: &ToShim) -> std::io::Result<()> {
        let bytes = encode(message).map_err(std::io::Error::other)?;
        self.stream.write_all(&bytes)
    }

    fn next(&mut self) -> std::io::Result<FromShim> {
        loop {
            if let Some(message) = self.decoder.next().map_err(std::io::Error::other)? {
                return Ok(message);
            }
            let mut buffer = [0; 64 * 1024];
            let count = self.stream.read(&mut buffer)?;
            if count == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            self.decoder.push(&buffer[..count]);
        }
    }
}

fn report(what: &str, times: &mut [f64]) {
    times.sort_by(f64::total_cmp);
    let at = |share: f64| {
        times
            .get(((times.len() as f64 - 1.0) * share) as usize)
            .copied()
            .unwrap_or(f64::NAN)
    };
    println!(
        "{what}: n={} p50={:.3} p90={:.3} p99={:.3} max={:.3} ms",
        times.len(),
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    );
}
