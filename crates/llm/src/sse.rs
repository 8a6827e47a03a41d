//! Server-sent events, incrementally and over any split of the bytes, with every event's own bytes kept so that a
//! pass-through can hand them on unchanged. Lines and events are bounded; nothing is interpreted.

use crate::error::UpstreamError;

/// The largest event that is accepted: a whole answer may come in one.
pub(crate) const EVENT_LIMIT_BYTES: usize = 32 * 1024 * 1024;

/// Said of HTML. An address that isn't the interface's own is the commonest reason.
pub(crate) const PAGE: &str = "a page (HTML) came; look at baseUrl";

/// One event, or a stretch of comments and blank lines without data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SseEvent {
    pub name: Option<String>,
    /// `None` for a stretch without a data line.
    pub data: Option<String>,
    /// The bytes as they came, with the blank line that ends them.
    pub raw: Vec<u8>,
}

/// Cuts bytes into events.
#[derive(Debug, Clone, Default)]
pub(crate) struct SseDecoder {
    /// Bytes that aren't handed on yet, from the start of the event at work.
    raw: Vec<u8>,
    /// Where the event at work begins in `raw`: bytes before it are dropped once for each push, not for each event.
    event_start: usize,
    /// Where the first line that isn't complete begins in `raw`.
    line_start: usize,
    /// How far `raw` was searched for a line's end.
    scanned: usize,
    name: Option<String>,
    data: Option<String>,
    seen_first: bool,
}

impl SseDecoder {
    /// Takes more bytes and returns the events that they complete.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Vec<SseEvent>, UpstreamError> {
        self.raw.extend_from_slice(bytes);
        self.check_first()?;
        let mut events = Vec::new();
        while let Some((end, next)) = self.line_end() {
            events.extend(self.line(end, next)?);
        }
        self.raw.drain(..self.event_start);
        self.line_start -= self.event_start;
        self.scanned -= self.event_start;
        self.event_start = 0;
        if self.raw.len() > EVENT_LIMIT_BYTES {
            return Err(UpstreamError::TooLarge {
                limit_bytes: EVENT_LIMIT_BYTES,
            });
        }
        Ok(events)
    }

    /// The stream is over: what is left counts as an event, its missing line ends added. A cut event has no valid
    /// payload, so its reader tells it from a whole one.
    pub(crate) fn finish(&mut self) -> Result<Option<SseEvent>, UpstreamError> {
        if self.raw.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        let mut events = self.push(b"\n\n")?;
        Ok(if events.is_empty() {
            None
        } else {
            Some(events.remove(0))
        })
    }

    /// A page or a bare JSON document is no event stream; saying so early beats "ended before it was complete".
    fn check_first(&mut self) -> Result<(), UpstreamError> {
        if self.seen_first {
            return Ok(());
        }
        let body = self.raw.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.raw);
        match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
            None => Ok(()),
            Some(b'<') => Err(UpstreamError::Unreadable(PAGE.to_owned())),
            Some(b'{' | b'[') => Err(UpstreamError::Unreadable(
                "a JSON document came where an event stream was asked for".to_owned(),
            )),
            Some(_) => {
                self.seen_first = true;
                Ok(())
            }
        }
    }

    /// The end of the next complete line and the start of the one after. A lone CR at the end of what is there waits:
    /// an LF may follow it.
    fn line_end(&mut self) -> Option<(usize, usize)> {
        let found = self.raw[self.scanned..]
            .iter()
            .position(|byte| matches!(byte, b'\n' | b'\r'));
        let Some(end) = found.map(|offset| offset + self.scanned) else {
            self.scanned = self.raw.len();
            return None;
        };
        self.scanned = end;
        match (self.raw[end], self.raw.get(end + 1)) {
            (b'\r', None) => None,
            (b'\r', Some(b'\n')) => Some((end, end + 2)),
            _ => Some((end, end + 1)),
        }
    }

    fn line(&mut self, end: usize, next: usize) -> Result<Option<SseEvent>, UpstreamError> {
        let line = std::str::from_utf8(&self.raw[self.line_start..end])
            .map_err(|_| UpstreamError::Unreadable("the event stream is not UTF-8".to_owned()))?;
        if line.is_empty() {
            return Ok(Some(self.take(next)));
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.name = Some(value.to_owned()),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            // Comments, ids, retry times and fields that nobody defined.
            _ => {}
        }
        self.line_start = next;
        self.scanned = next;
        Ok(None)
    }

    fn take(&mut self, next: usize) -> SseEvent {
        let raw = self.raw[self.event_start..next].to_vec();
        self.event_start = next;
        self.line_start = next;
        self.scanned = next;
        SseEvent {
            name: self.name.take(),
            data: self.data.take(),
            raw,
        }
    }
}

/// Writes one event.
pub(crate) fn write(out: &mut Vec<u8>, name: Option<&str>, data: &str) {
    if let Some(name) = name {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.push(b'\n');
    }
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(data.as_bytes());
    out.extend_from_slice(b"\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(events: &[SseEvent]) -> Vec<&str> {
        events
            .iter()
            .filter_map(|event| event.data.as_deref())
            .collect()
    }

    #[test]
    fn any_line_end_and_any_split_give_the_same_events() {
        for line_end in ["\n", "\r\n", "\r"] {
            let stream = "event: a\ndata: one\n\n: ping\n\ndata: two\ndata:three\n\n"
                .replace('\n', line_end);
            for split in 0..stream.len() {
                let mut decoder = SseDecoder::default();
                let mut events = decoder.push(&stream.as_bytes()[..split]).unwrap();
                events.extend(decoder.push(&stream.as_bytes()[split..]).unwrap());
                events.extend(decoder.finish().unwrap());
                assert_eq!(
                    data(&events),
                    ["one", "two\nthree"],
                    "{line_end:?} at {split}"
                );
                assert_eq!(events[0].name.as_deref(), Some("a"));
            }
        }
    }

    #[test]
    fn raw_bytes_add_up_to_the_stream() {
        let stream = b"\n\n: hello\n\nid: 7\nretry: 10\ndata: x\n\n";
        let mut decoder = SseDecoder::default();
        let events = decoder.push(stream).unwrap();
        let raw: Vec<u8> = events.iter().flat_map(|event| event.raw.clone()).collect();
        assert_eq!(raw, stream);
    }

    #[test]
    fn many_small_events_in_one_push_take_no_longer_than_one_by_one() {
        let stream = b"data: x\n\n".repeat(200_000);
        // Quadratic work would be 200,000 times half of 1.8 MB.
        let events = SseDecoder::default().push(&stream).unwrap();
        assert_eq!(events.len(), 200_000);
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut decoder = SseDecoder::default();
        let mebibyte = vec![b'a'; 1 << 20];
        let refused = (0..40).find_map(|_| decoder.push(&mebibyte).err());
        assert_eq!(
            refused,
            Some(UpstreamError::TooLarge {
                limit_bytes: EVENT_LIMIT_BYTES
            })
        );
    }

    #[test]
    fn a_page_is_not_a_stream() {
        for page in ["<html>", "\n {\"error\": 1}", "[1]"] {
            let refused = SseDecoder::default().push(page.as_bytes());
            assert!(
                matches!(refused, Err(UpstreamError::Unreadable(_))),
                "{page}"
            );
        }
    }
}
