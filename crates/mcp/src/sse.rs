//! The `data` of server-sent events, out of bytes split anywhere. Bounded by its caller, which
//! counts the bytes of the whole answer.

/// Collects bytes and yields each event's data.
#[derive(Debug, Default)]
pub(crate) struct Events {
    line: Vec<u8>,
    data: Vec<u8>,
    after_cr: bool,
}

impl Events {
    /// Adds bytes; returns the data of the events that they complete.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut complete = Vec::new();
        for &byte in bytes {
            let after_cr = std::mem::take(&mut self.after_cr);
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => {
                    self.after_cr = byte == b'\r';
                    complete.extend(self.end_line());
                }
                _ => self.line.push(byte),
            }
        }
        complete
    }

    fn end_line(&mut self) -> Option<Vec<u8>> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            let data = std::mem::take(&mut self.data);
            return (!data.is_empty()).then_some(data);
        }
        if let Some(rest) = line.strip_prefix(b"data:") {
            if !self.data.is_empty() {
                self.data.push(b'\n');
            }
            self.data
                .extend_from_slice(rest.strip_prefix(b" ").unwrap_or(rest));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_split_and_line_end_gives_the_same_data() {
        for end in ["\n", "\r\n", "\r"] {
            let text = ": hello\nevent: message\ndata: {\"a\":\ndata: 1}\n\nid: 4\n\ndata:two\n\n"
                .replace('\n', end);
            for cut in 0..=text.len() {
                let mut events = Events::default();
                let mut seen = events.push(&text.as_bytes()[..cut]);
                seen.extend(events.push(&text.as_bytes()[cut..]));
                assert_eq!(
                    seen,
                    [b"{\"a\":\n1}".to_vec(), b"two".to_vec()],
                    "cut at {cut}"
                );
            }
        }
    }
}
