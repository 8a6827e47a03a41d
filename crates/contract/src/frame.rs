//! The codec: length-prefixed JSON frames out of and into plain byte buffers.

use serde::{Serialize, de::DeserializeOwned};

/// The largest frame either side accepts. An agent's answer is capped below this.
pub const MAX_FRAME_BYTES: usize = 48 * 1024 * 1024;

/// Why bytes are not a frame of ours.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("frame of {len} bytes is larger than {MAX_FRAME_BYTES}")]
    TooLarge { len: usize },
    #[error("frame is not the expected message")]
    Decode(#[source] serde_json::Error),
    #[error("message cannot be encoded")]
    Encode(#[source] serde_json::Error),
}

/// Encodes one message with its length in front.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message).map_err(FrameError::Encode)?;
    let len = bytes.len() - 4;
    if len > MAX_FRAME_BYTES {
        return Err(FrameError::TooLarge { len });
    }
    let prefix = u32::try_from(len).map_err(|_| FrameError::TooLarge { len })?;
    bytes[..4].copy_from_slice(&prefix.to_be_bytes());
    Ok(bytes)
}

/// Collects bytes as they arrive and yields whole messages.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
}

impl Decoder {
    /// Adds bytes read from the peer.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 && self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, `None` if more bytes are needed.
    #[allow(
        clippy::should_implement_trait,
        reason = "fallible and generic: no iterator"
    )]
    pub fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let Some(body) = self.next_body()? else {
            return Ok(None);
        };
        serde_json::from_slice(body)
            .map(Some)
            .map_err(FrameError::Decode)
    }

    /// The bytes after the last message, for a connection that goes on without frames.
    #[must_use]
    pub fn into_rest(mut self) -> Vec<u8> {
        self.buffer.drain(..self.start);
        self.buffer
    }

    fn next_body(&mut self) -> Result<Option<&[u8]>, FrameError> {
        let available = &self.buffer[self.start..];
        let Some(prefix) = available.first_chunk::<4>() else {
            return Ok(None);
        };
        let len = u32::from_be_bytes(*prefix) as usize;
        if len > MAX_FRAME_BYTES {
            return Err(FrameError::TooLarge { len });
        }
        if available.len() < 4 + len {
            if self.start > 64 * 1024 {
                self.buffer.drain(..self.start);
                self.start = 0;
            }
            return Ok(None);
        }
        let from = self.start + 4;
        self.start = from + len;
        Ok(Some(&self.buffer[from..from + len]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_split() {
        let mut bytes = encode(&"first").unwrap();
        bytes.extend(encode(&"second").unwrap());
        for cut in 0..bytes.len() {
            let mut decoder = Decoder::default();
            let mut seen: Vec<String> = Vec::new();
            for part in [&bytes[..cut], &bytes[cut..]] {
                decoder.push(part);
                while let Some(message) = decoder.next().unwrap() {
                    seen.push(message);
                }
            }
            assert_eq!(seen, ["first", "second"], "cut at {cut}");
        }
    }

    #[test]
    fn what_follows_the_last_message_is_handed_on() {
        let mut decoder = Decoder::default();
        let mut bytes = encode(&"hello").unwrap();
        bytes.extend(b"raw line\n");
        decoder.push(&bytes);
        assert_eq!(decoder.next::<String>().unwrap().unwrap(), "hello");
        assert_eq!(decoder.into_rest(), b"raw line\n");
    }

    #[test]
    fn an_oversize_length_is_refused_before_it_is_buffered() {
        let mut decoder = Decoder::default();
        decoder.push(&u32::MAX.to_be_bytes());
        assert!(matches!(
            decoder.next::<String>(),
            Err(FrameError::TooLarge { .. })
        ));
    }
}
