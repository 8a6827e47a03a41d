//! The hub's door for pods, played by a test: TLS on loopback, frames first, then bytes.
//!
//! It welcomes nobody by itself: what a hub answers, and when it breaks, is what tests are about.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use contract::Versions;
use contract::frame::{Decoder, encode};
use contract::pod::{FromPod, Purpose, SERVER_NAME, ToPod};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde::Serialize;
use serde::de::DeserializeOwned;

const SOON: Duration = Duration::from_secs(20);

pub struct PodDoor {
    listener: Option<TcpListener>,
    pub address: SocketAddr,
    config: Arc<ServerConfig>,
    /// What pods are to trust, in PEM.
    pub certificate: String,
    waiting: Vec<Caller>,
}

/// A connection from a pod, past its hello.
pub struct Caller {
    pub hello: FromPod,
    tls: StreamOwned<ServerConnection, TcpStream>,
    decoder: Decoder,
    /// Bytes that came with the last frame.
    rest: Vec<u8>,
}

impl PodDoor {
    #[must_use]
    pub fn open() -> Self {
        let made = rcgen::generate_simple_self_signed([SERVER_NAME.to_owned()]).unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self {
            address: listener.local_addr().unwrap(),
            listener: Some(listener),
            config: Arc::new(config),
            certificate: made.cert.pem(),
            waiting: Vec::new(),
        }
    }

    /// The hub is gone: connections are refused, and those that were not taken yet break.
    pub fn close(&mut self) {
        self.listener = None;
        self.waiting.clear();
    }

    /// It is back at the same address.
    pub fn open_again(&mut self) {
        let listener = TcpListener::bind(self.address).unwrap();
        listener.set_nonblocking(true).unwrap();
        self.listener = Some(listener);
    }

    /// The next connection of this purpose; others wait for who asks for them.
    pub fn next(&mut self, purpose: Purpose) -> Caller {
        let found = self.next_within(purpose, SOON);
        found.unwrap_or_else(|| panic!("waited in vain for a connection: {purpose:?}"))
    }

    /// The same with a bound; `None` if none came.
    pub fn next_within(&mut self, purpose: Purpose, bound: Duration) -> Option<Caller> {
        let deadline = Instant::now() + bound;
        loop {
            let mut waiting = self.waiting.iter();
            if let Some(found) = waiting.position(|caller| caller.hello.purpose == purpose) {
                return Some(self.waiting.remove(found));
            }
            match self.listener.as_ref().unwrap().accept() {
                Ok((socket, _)) => self.waiting.extend(self.greet(socket).ok()),
                Err(_) if Instant::now() >= deadline => return None,
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    fn greet(&self, socket: TcpStream) -> io::Result<Caller> {
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(SOON))?;
        socket.set_nodelay(true)?;
        let connection = ServerConnection::new(Arc::clone(&self.config));
        let mut tls = StreamOwned::new(connection.map_err(io::Error::other)?, socket);
        let mut decoder = Decoder::default();
        let hello = hear(&mut tls, &mut decoder)?;
        Ok(Caller {
            hello,
            tls,
            rest: decoder.into_rest(),
            decoder: Decoder::default(),
        })
    }
}

impl Caller {
    pub fn welcome(&mut self) {
        self.send(&ToPod::Welcome {
            versions: Versions::OURS,
        });
    }

    /// One frame, of the door's or, later, of the shim's.
    pub fn send<T: Serialize>(&mut self, message: &T) {
        self.write(&encode(message).unwrap());
    }

    pub fn hear<T: DeserializeOwned>(&mut self) -> T {
        self.try_hear().unwrap()
    }

    /// The same from a pod that may break.
    pub fn try_hear<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        self.decoder.push(&std::mem::take(&mut self.rest));
        hear(&mut self.tls, &mut self.decoder)
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.tls.write_all(bytes).unwrap();
        self.tls.flush().unwrap();
    }

    /// So many bytes from the pod.
    pub fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.rest);
        let mut buffer = [0; 1024];
        while bytes.len() < count {
            let read = self.tls.read(&mut buffer).unwrap();
            assert!(read > 0, "it ended after {bytes:?}");
            bytes.extend_from_slice(&buffer[..read]);
        }
        self.rest = bytes.split_off(count);
        bytes
    }

    /// Everything until the end; an error if it broke instead.
    pub fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = std::mem::take(&mut self.rest);
        self.tls.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Says that nothing more comes; the pod may still speak. A caller that is dropped breaks.
    pub fn finish(&mut self) {
        self.tls.conn.send_close_notify();
        self.tls.flush().unwrap();
    }
}

fn hear<T: DeserializeOwned>(
    tls: &mut StreamOwned<ServerConnection, TcpStream>,
    decoder: &mut Decoder,
) -> io::Result<T> {
    let mut buffer = [0; 4096];
    loop {
        if let Some(message) = decoder.next().map_err(io::Error::other)? {
            return Ok(message);
        }
        match tls.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => decoder.push(&buffer[..count]),
        }
    }
}
