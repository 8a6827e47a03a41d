//! A manifest's text with its lines, and marks in it: where a problem is, and the excerpt that shows it.
//!
//! Excerpts are bounded and free of control characters, whatever the file holds.

use crate::problem::{Problem, printable};

/// A text and where its lines begin.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) path: String,
    text: String,
    /// Byte offsets.
    line_starts: Vec<usize>,
}

/// A stretch of one line, counted in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// From 1.
    pub(crate) line: usize,
    /// From 1.
    pub(crate) column: usize,
    /// `usize::MAX` means to the end of the line.
    pub(crate) length: usize,
}

const WIDEST_EXCERPT: usize = 120;

impl File {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let bytes = text.as_bytes();
        let mut line_starts = vec![0];
        for (index, byte) in bytes.iter().enumerate() {
            // A lone carriage return ends a line in YAML, too.
            if *byte == b'\n' || (*byte == b'\r' && bytes.get(index + 1) != Some(&b'\n')) {
                line_starts.push(index + 1);
            }
        }
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            line_starts,
        }
    }

    pub(crate) fn problem(&self, mark: Mark, message: impl Into<String>) -> Problem {
        Problem {
            path: self.path.clone(),
            line: mark.line,
            column: mark.column,
            excerpt: self.excerpt(mark),
            // A message may hold a key of the user's.
            message: message.into().chars().map(printable).collect(),
            hint: None,
        }
    }

    /// `path:line:column`, to point at from elsewhere.
    pub(crate) fn place(&self, mark: Mark) -> String {
        format!("{}:{}:{}", self.path, mark.line, mark.column)
    }

    fn line(&self, number: usize) -> &str {
        let Some(start) = number
            .checked_sub(1)
            .and_then(|index| self.line_starts.get(index))
        else {
            return "";
        };
        let end = self
            .line_starts
            .get(number)
            .copied()
            .unwrap_or(self.text.len());
        self.text[*start..end].trim_end_matches(['\n', '\r'])
    }

    fn excerpt(&self, mark: Mark) -> String {
        let column = mark.column.saturating_sub(1);
        let line = self.line(mark.line);
        let fits = line.chars().nth(WIDEST_EXCERPT).is_none();
        let first = if fits {
            0
        } else {
            column.saturating_sub(WIDEST_EXCERPT / 2)
        };
        let window: Vec<char> = line.chars().skip(first).take(WIDEST_EXCERPT + 1).collect();
        let end = content_end(&window[..window.len().min(WIDEST_EXCERPT)]);
        let before = column - first;
        let carets = mark.length.min(end.saturating_sub(before)).max(1);

        let mut shown = String::new();
        shown.push_str(if first > 0 { "…" } else { "" });
        shown.extend(window.iter().take(WIDEST_EXCERPT).map(|c| printable(*c)));
        shown.push_str(if window.len() > WIDEST_EXCERPT {
            "…"
        } else {
            ""
        });

        let number = mark.line.to_string();
        let gutter = " ".repeat(number.len());
        let indent = " ".repeat(before + usize::from(first > 0));
        format!(
            "  {number} | {shown}\n  {gutter} | {indent}{}",
            "^".repeat(carets)
        )
    }
}

/// Where the line's content ends: before a comment and before white space.
fn content_end(line: &[char]) -> usize {
    let comment = line
        .windows(2)
        .position(|pair| pair[0] == ' ' && pair[1] == '#')
        .unwrap_or(line.len());
    line[..comment]
        .iter()
        .rposition(|c| !c.is_whitespace())
        .map_or(0, |last| last + 1)
}

#[cfg(test)]
mod tests {
    use super::{File, Mark};

    fn check(text: &str, (line, column, length): (usize, usize, usize), expect: &str) {
        assert_eq!(
            File::new("f", text).excerpt(Mark {
                line,
                column,
                length
            }),
            expect
        );
    }

    #[test]
    fn an_excerpt_shows_the_line_and_a_caret() {
        check(
            "a: b\r\nüc: d # e\n",
            (2, 5, usize::MAX),
            "  2 | üc: d # e\n    |     ^",
        );
        check("a: b", (1, 1, 1), "  1 | a: b\n    | ^");
        check("a\rb", (2, 1, 9), "  2 | b\n    | ^");
    }

    #[test]
    fn an_excerpt_outside_the_text_is_an_empty_line() {
        check("a: b", (7, 3, 2), "  7 | \n    |   ^");
        check("", (0, 0, 0), "  0 | \n    | ^");
    }

    #[test]
    fn an_excerpt_is_bounded_and_without_control_characters() {
        let text = format!("{}\u{1b}[31m\u{202e}{}", "x".repeat(500), "y".repeat(500));
        let excerpt = File::new("f", &text).excerpt(Mark {
            line: 1,
            column: 501,
            length: usize::MAX,
        });
        assert!(excerpt.chars().count() < 260, "{excerpt}");
        assert!(!excerpt.contains(['\u{1b}', '\u{202e}']), "{excerpt}");
    }
}
