//! A section: lines that are printed and, for `cargo xtask bench`, written to a file.

use std::time::Duration;

/// The section being measured.
pub(crate) struct Report {
    name: &'static str,
    lines: Vec<String>,
}

impl Report {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            lines: Vec::new(),
        }
    }

    /// One more line of Markdown.
    pub(crate) fn line(&mut self, text: impl Into<String>) {
        let text = text.into();
        eprintln!("{text}");
        self.lines.push(text);
    }

    pub(crate) fn publish(self) {
        if let Some(folder) = std::env::var_os("MAINSTAY_RESULTS") {
            let path = std::path::Path::new(&folder).join(format!("{}.md", self.name));
            std::fs::write(path, self.lines.join("\n") + "\n").unwrap();
        }
    }
}

/// Sorted samples.
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    pub(crate) fn new(mut samples: Vec<Duration>) -> Self {
        samples.sort_unstable();
        Self(samples)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Milliseconds at a share of 1,000.
    pub(crate) fn ms(&self, per_mille: usize) -> f64 {
        let index = (self.0.len() * per_mille / 1000).min(self.0.len().saturating_sub(1));
        self.0
            .get(index)
            .map_or(f64::NAN, |sample| sample.as_secs_f64() * 1e3)
    }

    /// The largest.
    pub(crate) fn worst_ms(&self) -> f64 {
        self.ms(1000)
    }
}
