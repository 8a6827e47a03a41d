//! A small blocking HTTP/1.1 client: a request, its status, headers and body. Enough for the API
//! of a server on loopback, and independent of every HTTP library that Mainstay uses.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

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

/// A request to a loopback port.
#[derive(Clone, Debug)]
pub struct Request {
    port: u16,
    head: String,
    body: Vec<u8>,
    timeout: Duration,
}

impl Request {
    /// A request with `Host: 127.0.0.1:PORT`, closed after its answer.
    #[must_use]
    pub fn new(method: &str, port: u16, path: &str) -> Self {
        let head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
        Self {
            port,
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
    pub fn stream(self) -> std::io::Result<(u16, BufReader<TcpStream>)> {
        let mut reader = self.open()?;
        let (status, _) = read_head(&mut reader)?;
        Ok((status, reader))
    }

    fn open(self) -> std::io::Result<BufReader<TcpStream>> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let mut stream = TcpStream::connect_timeout(&address, self.timeout)?;
        stream.set_read_timeout(Some(self.timeout))?;
        stream.set_write_timeout(Some(self.timeout))?;
        let mut head = self.head;
        if !head.to_lowercase().contains("\r\nhost:") {
            head.push_str(&format!("host: 127.0.0.1:{}\r\n", self.port));
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", self.body.len()));
        stream.write_all(head.as_bytes())?;
        stream.write_all(&self.body)?;
        Ok(BufReader::new(stream))
    }
}

type Headers = Vec<(String, String)>;

fn read_head(reader: &mut BufReader<TcpStream>) -> std::io::Result<(u16, Headers)> {
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

fn read_body(reader: &mut BufReader<TcpStream>, headers: &Headers) -> std::io::Result<Vec<u8>> {
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

fn read_chunks(reader: &mut BufReader<TcpStream>) -> std::io::Result<Vec<u8>> {
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

fn line(reader: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let mut text = String::new();
    if reader.read_line(&mut text)? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(text.trim_end().to_owned())
}

fn invalid(what: &'static str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, what)
}
