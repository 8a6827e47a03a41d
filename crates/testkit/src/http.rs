//! A small blocking HTTP/1.1 client: a request, its status, headers and body. Enough for the API
//! of a server on loopback or in a cluster, and independent of every HTTP library that Mainstay uses.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

/// What a server is reached by.
#[derive(Clone, Debug)]
pub struct Endpoint {
    address: SocketAddr,
    /// What `Host` says.
    host: String,
    tls: Option<Arc<Tls>>,
}

#[derive(Debug)]
struct Tls {
    name: ServerName<'static>,
    configuration: Arc<ClientConfig>,
}

impl Endpoint {
    /// A port of loopback, without TLS.
    #[must_use]
    pub fn loopback(port: u16) -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            host: format!("127.0.0.1:{port}"),
            tls: None,
        }
    }

    /// A server whose certificate has that name and comes from this authority alone.
    #[must_use]
    pub fn over_tls(address: SocketAddr, name: &str, authority_pem: &str) -> Self {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(authority_pem.as_bytes()).unwrap();
        roots.add(authority).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let configuration = versions
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            address,
            host: format!("{name}:{}", address.port()),
            tls: Some(Arc::new(Tls {
                name: ServerName::try_from(name.to_owned()).unwrap(),
                configuration: Arc::new(configuration),
            })),
        }
    }

    /// The same server by another of its addresses.
    #[must_use]
    pub fn elsewhere(mut self, address: IpAddr) -> Self {
        self.address.set_ip(address);
        self
    }
}

/// A connection, with or without TLS.
pub trait Wire: Read + Write + Send {}

impl<T: Read + Write + Send> Wire for T {}

/// What is read of a connection.
pub type Reader = BufReader<Box<dyn Wire>>;

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON; null if it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    to: Endpoint,
    head: String,
    body: Vec<u8>,
    timeout: Duration,
}

impl Request {
    /// A request to a loopback port, closed after its answer.
    #[must_use]
    pub fn new(method: &str, port: u16, path: &str) -> Self {
        Self::to(Endpoint::loopback(port), method, path)
    }

    /// A request to any server, closed after its answer.
    #[must_use]
    pub fn to(to: Endpoint, method: &str, path: &str) -> Self {
        let head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
        Self {
            to,
            head,
            body: Vec::new(),
            timeout: Duration::from_secs(30),
        }
    }

    /// One more header; a `host` replaces the usual one.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.head.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    /// A JSON body.
    #[must_use]
    pub fn json(mut self, body: &Value) -> Self {
        self.body = body.to_string().into_bytes();
        self.header("content-type", "application/json")
    }

    /// A body of bytes.
    #[must_use]
    pub fn body(mut self, body: Vec<u8>) -> Self {
        self.body = body;
        self
    }

    /// How long to wait for each piece of the answer.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sends and reads to the end.
    pub fn send(self) -> std::io::Result<Answer> {
        let mut reader = self.open()?;
        let (status, headers) = read_head(&mut reader)?;
        let body = read_body(&mut reader, &headers)?;
        Ok(Answer {
            status,
            headers,
            body,
        })
    }

    /// Sends and reads the head only; the rest is read line by line, chunk sizes included.
    pub fn stream(self) -> std::io::Result<(u16, Reader)> {
        let mut reader = self.open()?;
        let (status, _) = read_head(&mut reader)?;
        Ok((status, reader))
    }

    fn open(self) -> std::io::Result<Reader> {
        let stream = TcpStream::connect_timeout(&self.to.address, self.timeout)?;
        stream.set_read_timeout(Some(self.timeout))?;
        stream.set_write_timeout(Some(self.timeout))?;
        let mut stream: Box<dyn Wire> = match &self.to.tls {
            None => Box::new(stream),
            Some(tls) => {
                let configuration = Arc::clone(&tls.configuration);
                let connection = ClientConnection::new(configuration, tls.name.clone());
                let connection = connection.map_err(std::io::Error::other)?;
                Box::new(StreamOwned::new(connection, stream))
            }
        };
        let mut head = self.head;
        if !head.to_lowercase().contains("\r\nhost:") {
            head.push_str(&format!("host: {}\r\n", self.to.host));
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", self.body.len()));
        stream.write_all(head.as_bytes())?;
        stream.write_all(&self.body)?;
        Ok(BufReader::new(stream))
    }
}

type Headers = Vec<(String, String)>;

fn read_head(reader: &mut Reader) -> std::io::Result<(u16, Headers)> {
    let status = line(reader)?;
    let code = status.split(' ').nth(1).and_then(|code| code.parse().ok());
    let code = code.ok_or_else(|| invalid("no status line"))?;
    let mut headers = Vec::new();
    loop {
        let text = line(reader)?;
        let Some((name, value)) = text.split_once(':') else {
            return Ok((code, headers));
        };
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
}

fn read_body(reader: &mut Reader, headers: &Headers) -> std::io::Result<Vec<u8>> {
    let header = |name: &str| headers.iter().find(|(known, _)| known == name);
    if header("transfer-encoding").is_some() {
        return read_chunks(reader);
    }
    let mut body = Vec::new();
    match header("content-length").and_then(|(_, text)| text.parse().ok()) {
        Some(length) => {
            body.resize(length, 0);
            reader.read_exact(&mut body)?;
        }
        None => {
            reader.read_to_end(&mut body)?;
        }
    }
    Ok(body)
}

fn read_chunks(reader: &mut Reader) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let size = line(reader)?;
        let size = usize::from_str_radix(size.trim(), 16).map_err(|_| invalid("no chunk size"))?;
        if size == 0 {
            return Ok(body);
        }
        let start = body.len();
        body.resize(start + size, 0);
        reader.read_exact(&mut body[start..])?;
        line(reader)?;
    }
}

fn line(reader: &mut Reader) -> std::io::Result<String> {
    let mut text = String::new();
    if reader.read_line(&mut text)? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(text.trim_end().to_owned())
}

fn invalid(what: &'static str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, what)
}
