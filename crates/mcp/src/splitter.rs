//! Bytes into lines, without ever holding more than one bounded line: what is longer is skipped,
//! and only its beginning kept, to tell which call it answers.

/// The longest line that is read: the largest result that a manifest may allow, escaped.
pub(crate) const MAX_LINE_BYTES: usize = 40 * 1024 * 1024;
/// How much of an oversize line is searched for the id it answers.
pub(crate) const ID_WITHIN_BYTES: usize = 256;

#[derive(Debug, PartialEq)]
pub(crate) enum Line {
    Whole(Vec<u8>),
    TooLong { start: Vec<u8> },
}

/// Cuts bytes into lines and skips what is too long.
#[derive(Default)]
pub(crate) struct Splitter {
    line: Vec<u8>,
    skipping: bool,
}

impl Splitter {
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut parts = bytes.split(|byte| *byte == b'\n').peekable();
        while let Some(part) = parts.next() {
            if !self.skipping {
                self.line.extend_from_slice(part);
                self.skip_if_too_long();
            }
            if parts.peek().is_some() {
                lines.extend(self.end());
            }
        }
        lines
    }

    fn skip_if_too_long(&mut self) {
        if self.line.len() > MAX_LINE_BYTES {
            self.line.truncate(ID_WITHIN_BYTES);
            self.line.shrink_to_fit();
            self.skipping = true;
        }
    }

    fn end(&mut self) -> Option<Line> {
        let line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.skipping) {
            return Some(Line::TooLong { start: line });
        }
        (!line.is_empty()).then_some(Line::Whole(line))
    }
}

/// The id in the beginning of a message that is too long to be read whole.
pub(crate) fn answered_id(start: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(start);
    let after = text
        .split_once("\"id\"")?
        .1
        .trim_start()
        .strip_prefix(':')?
        .trim_start();
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_that_is_too_long_is_skipped_and_named_by_its_id() {
        let mut splitter = Splitter::default();
        let mut lines = splitter.push(b"{\"jsonrpc\":\"2.0\",\"id\": 77,\"result\":\"");
        for _ in 0..=MAX_LINE_BYTES / (1 << 20) {
            lines.extend(splitter.push(&vec![b'x'; 1 << 20]));
        }
        assert!(
            splitter.line.len() <= ID_WITHIN_BYTES,
            "the rest is not kept"
        );
        lines.extend(splitter.push(b"\"}\n{\"next\":1}\n"));
        assert_eq!(lines.len(), 2);
        let Line::TooLong { start } = &lines[0] else {
            panic!("{lines:?}")
        };
        assert_eq!(answered_id(start), Some(77));
        assert_eq!(lines[1], Line::Whole(b"{\"next\":1}".to_vec()));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_lines(text in "[a\n]{0,40}", cut in 0_usize..40) {
            let cut = cut.min(text.len());
            let whole = Splitter::default().push(text.as_bytes());
            let mut splitter = Splitter::default();
            let mut parts = splitter.push(&text.as_bytes()[..cut]);
            parts.extend(splitter.push(&text.as_bytes()[cut..]));
            prop_assert_eq!(whole, parts);
        }

        #[test]
        fn no_bytes_make_the_search_for_an_id_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            answered_id(&bytes);
        }
    }
}
