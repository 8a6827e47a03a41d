//! A stdio MCP server's lines to and from one Unix socket, the hub's.
//!
//! Whole lines only, both ways: a hub that dies in the middle of a line must not leave the server
//! with half of one. Lines that no hub has read yet wait for the next hub; a server that floods
//! is stopped by its own full pipe. A reply that is longer than a line may be costs the call it
//! answers, not the server. When the server dies the connection is closed.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use super::Shim;
use crate::reactor::Reactor;

/// Replies kept for a hub that isn't there or doesn't read.
const KEPT_BYTES: usize = 8 * 1024 * 1024;
/// A longer line of the hub ends its connection; a longer one of the server is left out.
const LINE_BYTES: usize = 32 * 1024 * 1024;
/// A line of the server that is longer than this has no end: the server is ended.
const ENDLESS_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// How much of a reply's beginning is searched for the id it answers.
const ID_WITHIN_BYTES: usize = 256;
/// What waits for the server's standard input before reading from the hub pauses.
const INPUT_BYTES: usize = 1024 * 1024;

#[derive(Debug, Default)]
pub(super) struct Bridge {
    socket: Option<OwnedFd>,
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    /// From the hub: a line that isn't whole yet.
    input_part: Vec<u8>,
    /// Whole lines for the server, and how much of the first is written.
    input: VecDeque<Vec<u8>>,
    input_written: usize,
    input_bytes: usize,
    /// From the server: a line that isn't whole yet.
    reply_part: Vec<u8>,
    /// The line under way is too long: its beginning is in `reply_part`, so much was left out.
    left_out_bytes: Option<u64>,
    /// Whole lines for the hub, and how much of the first is written.
    replies: VecDeque<Vec<u8>>,
    reply_written: usize,
    /// Lines that went into the socket but perhaps not out of it.
    unread: VecDeque<Vec<u8>>,
    kept_bytes: usize,
}

/// A peer that broke the rules of lines.
#[derive(Debug, PartialEq, Eq)]
struct LineTooLong;

impl Bridge {
    /// Pipes for a new server: its standard input and output.
    pub(super) fn pipes(&mut self) -> io::Result<(OwnedFd, OwnedFd)> {
        let flags = rustix::pipe::PipeFlags::CLOEXEC;
        let (stdin_reader, stdin_writer) = rustix::pipe::pipe_with(flags)?;
        let (stdout_reader, stdout_writer) = rustix::pipe::pipe_with(flags)?;
        rustix::io::ioctl_fionbio(&stdin_writer, true)?;
        rustix::io::ioctl_fionbio(&stdout_reader, true)?;
        (self.stdin, self.stdout) = (Some(stdin_writer), Some(stdout_reader));
        Ok((stdin_reader, stdout_writer))
    }

    pub(super) fn server_started(&self, reactor: &Reactor) -> io::Result<()> {
        if let (Some(stdin), Some(stdout)) = (&self.stdin, &self.stdout) {
            reactor.add(stdin)?;
            reactor.set(stdin, false, false)?;
            reactor.add(stdout)?;
        }
        Ok(())
    }

    /// Forgets the server and all lines: another server knows nothing of them.
    pub(super) fn server_ended(&mut self) {
        *self = Self {
            socket: self.socket.take(),
            ..Self::default()
        };
    }

    pub(super) fn owns(&self, fd: RawFd) -> bool {
        [&self.socket, &self.stdin, &self.stdout]
            .into_iter()
            .flatten()
            .any(|own| own.as_raw_fd() == fd)
    }

    /// A hub went: what it may not have read is first for the next one.
    fn disconnect(&mut self) {
        self.socket = None;
        self.input_part.clear();
        self.reply_written = 0;
        while let Some(line) = self.unread.pop_back() {
            self.replies.push_front(line);
        }
    }

    fn take_input(&mut self, bytes: &[u8]) -> Result<(), LineTooLong> {
        let lines = split_lines(&mut self.input_part, bytes)?;
        for line in lines {
            self.input_bytes += line.len();
            self.input.push_back(line);
        }
        Ok(())
    }

    fn take_reply(&mut self, bytes: &[u8]) -> Result<(), LineTooLong> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.take_piece(piece)?;
            if piece.ends_with(b"\n") {
                self.end_line();
            }
        }
        Ok(())
    }

    fn take_piece(&mut self, piece: &[u8]) -> Result<(), LineTooLong> {
        if let Some(left_out) = &mut self.left_out_bytes {
            *left_out += piece.len() as u64;
            return if *left_out > ENDLESS_BYTES {
                Err(LineTooLong)
            } else {
                Ok(())
            };
        }
        self.reply_part.extend_from_slice(piece);
        if self.reply_part.len() > LINE_BYTES {
            self.left_out_bytes = Some(self.reply_part.len() as u64);
            self.reply_part.truncate(ID_WITHIN_BYTES);
            self.reply_part.shrink_to_fit();
        }
        Ok(())
    }

    fn end_line(&mut self) {
        let mut line = std::mem::take(&mut self.reply_part);
        if self.left_out_bytes.take().is_some() {
            match too_long_reply(&line) {
                Some(said) => line = said,
                None => return,
            }
        }
        self.kept_bytes += line.len();
        self.replies.push_back(line);
    }

    fn reads_replies(&self) -> bool {
        self.kept_bytes < KEPT_BYTES
    }

    fn reads_input(&self) -> bool {
        self.input_bytes < INPUT_BYTES
    }

    fn read_socket(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        while let Some(socket) = self.socket.as_ref().filter(|_| self.reads_input()) {
            match rustix::io::read(socket, &mut buffer) {
                // A peer that leaves lines unread resets the connection: this one had read all.
                Ok(0) => {
                    self.forget_unread();
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(count) => self
                    .take_input(&buffer[..count])
                    .map_err(|LineTooLong| io::Error::other("line too long"))?,
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// False if the server has to be ended.
    fn read_server(&mut self) -> bool {
        let mut buffer = vec![0; 64 * 1024];
        while let Some(stdout) = self.stdout.as_ref().filter(|_| self.reads_replies()) {
            match rustix::io::read(stdout, &mut buffer) {
                Ok(count) if count > 0 => {
                    if self.take_reply(&buffer[..count]).is_err() {
                        return false;
                    }
                }
                // Closed by the server: its end tells the rest.
                Ok(_) => {
                    self.stdout = None;
                    return true;
                }
                Err(rustix::io::Errno::AGAIN) => return true,
                Err(_) => return true,
            }
        }
        true
    }

    fn write_server(&mut self) {
        while let (Some(stdin), Some(line)) = (&self.stdin, self.input.front()) {
            match rustix::io::write(stdin, &line[self.input_written..]) {
                Ok(count) => {
                    self.input_written += count;
                    if self.input_written == line.len() {
                        self.input_bytes -= line.len();
                        self.input_written = 0;
                        self.input.pop_front();
                    }
                }
                Err(rustix::io::Errno::AGAIN) => return,
                // The server closed its input; its end is reported by its exit.
                Err(_) => {
                    self.stdin = None;
                    return;
                }
            }
        }
    }

    fn write_socket(&mut self) -> io::Result<()> {
        while let (Some(socket), Some(line)) = (&self.socket, self.replies.front()) {
            match rustix::net::send(
                socket,
                &line[self.reply_written..],
                rustix::net::SendFlags::NOSIGNAL | rustix::net::SendFlags::DONTWAIT,
            ) {
                Ok(count) => self.reply_written += count,
                Err(rustix::io::Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            }
            if self.reply_written == line.len() {
                self.reply_written = 0;
                self.unread.extend(self.replies.pop_front());
            }
        }
        self.forget_read_lines();
        Ok(())
    }

    fn forget_unread(&mut self) {
        for line in self.unread.drain(..) {
            self.kept_bytes -= line.len();
        }
    }

    fn forget_read_lines(&mut self) {
        let all_read = self
            .socket
            .as_ref()
            .is_some_and(|socket| sandbox::descriptors::unread_by_peer(socket).ok() == Some(0));
        if all_read {
            self.forget_unread();
        }
        // A hub that reads nothing keeps at most so much; the socket's own buffer is far smaller.
        while self.kept_bytes > KEPT_BYTES {
            let Some(oldest) = self.unread.pop_front() else {
                break;
            };
            self.kept_bytes -= oldest.len();
        }
    }
}

/// Appends bytes to a line in the making and returns the lines that are whole now.
fn split_lines(part: &mut Vec<u8>, bytes: &[u8]) -> Result<Vec<Vec<u8>>, LineTooLong> {
    let mut lines = Vec::new();
    for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
        part.extend_from_slice(piece);
        if part.len() > LINE_BYTES {
            return Err(LineTooLong);
        }
        if piece.ends_with(b"\n") {
            lines.push(std::mem::take(part));
        }
    }
    Ok(lines)
}

/// What stands for a reply that is too long, if it answers a call.
fn too_long_reply(start: &[u8]) -> Option<Vec<u8>> {
    let text = String::from_utf8_lossy(start);
    let (_, after) = text.split_once("\"id\"")?;
    let after = after.trim_start().strip_prefix(':')?.trim_start();
    let id: String = after.chars().take_while(char::is_ascii_digit).collect();
    let message =
        format!("the result is longer than {LINE_BYTES} bytes and was left out; ask for less");
    (!id.is_empty()).then(|| {
        format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{{\"code\":-32000,\"message\":\"{message}\"}}}}\n")
            .into_bytes()
    })
}

impl Shim {
    /// One hub at a time: the newest wins.
    pub(super) fn connect_bridge(
        &mut self,
        socket: OwnedFd,
        received: Vec<u8>,
        unsent: Vec<u8>,
    ) -> io::Result<()> {
        self.drop_bridge();
        self.reactor.add(&socket)?;
        self.bridge.socket = Some(socket);
        if !unsent.is_empty() {
            // The rest of our hello goes before every line.
            self.bridge.kept_bytes += unsent.len();
            self.bridge.replies.push_front(unsent);
        }
        if self.bridge.take_input(&received).is_err() {
            self.drop_bridge();
        }
        self.pump_bridge()
    }

    fn drop_bridge(&mut self) {
        if let Some(socket) = &self.bridge.socket {
            self.reactor.remove(socket);
        }
        self.bridge.disconnect();
    }

    /// The server is gone: its last lines go out, then the hub's connection is closed.
    pub(super) fn end_bridge_session(&mut self) -> io::Result<()> {
        self.bridge.read_server();
        let _hub_gone = self.bridge.write_socket();
        for fd in [&self.bridge.stdin, &self.bridge.stdout]
            .into_iter()
            .flatten()
        {
            self.reactor.remove(fd.as_fd());
        }
        self.drop_bridge();
        self.bridge.server_ended();
        Ok(())
    }

    pub(super) fn serve_bridge(
        &mut self,
        fd: RawFd,
        readable: bool,
        _writable: bool,
    ) -> io::Result<()> {
        let is = |own: &Option<OwnedFd>| own.as_ref().is_some_and(|own| own.as_raw_fd() == fd);
        if readable && is(&self.bridge.socket) {
            if self.bridge.read_socket().is_err() {
                // Whole lines that came before the end still go to the server.
                self.drop_bridge();
            }
        } else if readable && is(&self.bridge.stdout) && !self.bridge.read_server() {
            tracing::warn!("the server wrote a line without end and is killed");
            if let Some(process) = self.service.process_mut() {
                process.kill();
            }
        } else if readable && is(&self.bridge.stdin) {
            // Only an error shows as readable on a pipe's writing end.
            self.reactor.remove(
                self.bridge
                    .stdin
                    .as_ref()
                    .map_or(self.signals.as_fd(), AsFd::as_fd),
            );
            self.bridge.stdin = None;
        }
        self.pump_bridge()
    }

    /// Moves what can be moved and watches for what is waited for.
    pub(super) fn pump_bridge(&mut self) -> io::Result<()> {
        if self.bridge.stdin.is_none() && self.bridge.socket.is_none() {
            return Ok(());
        }
        self.bridge.write_server();
        if self.bridge.write_socket().is_err() {
            // How it left tells what it had read.
            let _gone = self.bridge.read_socket();
            self.drop_bridge();
        }
        let bridge = &self.bridge;
        if let Some(socket) = &bridge.socket {
            let waits = !bridge.replies.is_empty();
            self.reactor.set(socket, bridge.reads_input(), waits)?;
        }
        // Descriptors of a server that isn't watched yet are unknown to the reactor: harmless.
        if let Some(stdin) = &bridge.stdin {
            let _unwatched = self.reactor.set(stdin, false, !bridge.input.is_empty());
        }
        if let Some(stdout) = &bridge.stdout {
            let _unwatched = self.reactor.set(stdout, bridge.reads_replies(), false);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lines_pass_and_half_a_line_of_a_dead_hub_is_dropped() {
        let mut bridge = Bridge::default();
        bridge.take_input(b"one\ntw").unwrap();
        bridge.disconnect();
        bridge.take_input(b"three\n").unwrap();
        assert_eq!(bridge.input, [b"one\n".to_vec(), b"three\n".to_vec()]);
    }

    #[test]
    fn lines_that_a_dead_hub_had_not_read_come_first_for_the_next() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut bridge = Bridge {
            socket: Some(ours.into()),
            ..Bridge::default()
        };
        bridge.take_reply(b"first\nsecond\n").unwrap();
        bridge.write_socket().unwrap();
        assert!(bridge.replies.is_empty());
        drop(theirs);
        bridge.disconnect();
        assert_eq!(bridge.replies, [b"first\n".to_vec(), b"second\n".to_vec()]);
    }

    #[test]
    fn a_reply_that_is_too_long_costs_its_call_and_fills_no_memory() {
        let mut bridge = Bridge::default();
        let chunk = vec![b'x'; 1024 * 1024];
        bridge
            .take_reply(b"{\"jsonrpc\":\"2.0\",\"id\": 77,\"result\":\"")
            .unwrap();
        for _ in 0..64 {
            bridge.take_reply(&chunk).unwrap();
        }
        assert!(bridge.reply_part.len() <= ID_WITHIN_BYTES);
        bridge.take_reply(b"\"}\n{\"next\":1}\n").unwrap();
        let said: Vec<_> = bridge
            .replies
            .iter()
            .map(|line| String::from_utf8_lossy(line))
            .collect();
        assert!(
            said[0].starts_with("{\"jsonrpc\":\"2.0\",\"id\":77,\"error\""),
            "{said:?}"
        );
        assert_eq!(said[1..], ["{\"next\":1}\n"]);
    }

    #[test]
    fn a_line_of_the_server_without_end_is_noticed() {
        let mut bridge = Bridge::default();
        bridge.take_reply(&vec![b'x'; LINE_BYTES + 1]).unwrap();
        bridge.left_out_bytes = Some(ENDLESS_BYTES - 1);
        bridge.take_reply(b"x").unwrap();
        assert_eq!(bridge.take_reply(b"x"), Err(LineTooLong));
    }
}
