//! What is wrong with a manifest, and where: data first, one rendering for people.
//!
//! Text of the user's goes through `quoted` or `excerpt`, so that a file can't drive the terminal.

use serde::{Deserialize, Serialize};
use std::fmt;

/// One thing that is wrong, with its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    pub path: String,
    /// From 1; 0 where a whole file is meant.
    pub line: usize,
    /// In characters, from 1; 0 where a whole file is meant.
    pub column: usize,
    /// The line with a caret below, rendered; empty where a whole file is meant.
    pub excerpt: String,
    /// A sentence without a full stop.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        write!(f, ": {}", self.message)?;
        if !self.excerpt.is_empty() {
            write!(f, "\n{}", self.excerpt)?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

/// All that is wrong with a set, by file and line. Never empty when it is an error.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

/// A name of the user's, in backticks, safe to print: control characters escaped, cut at 80 characters.
pub(crate) fn quoted(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(80)
        .map(|c| if c.is_control() { '\u{b7}' } else { c })
        .collect();
    if text.chars().nth(80).is_some() {
        shown.push('\u{2026}');
    }
    format!("`{shown}`")
}
