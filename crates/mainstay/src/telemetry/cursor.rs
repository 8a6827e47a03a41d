//! How far the log's spans were taken by the collector, so that the next hub sends the rest.
//!
//! A hint: losing it loses the spans of a hub's last seconds, and being behind sends some twice,
//! under the ids they had. It lies outside the log, which says nothing about who read it.

use std::path::PathBuf;

use hub::Hub;

/// A hub that finds more entries than this behind begins with the present.
const MOST_BEHIND: u64 = 2048;

#[derive(Debug)]
pub struct Cursor {
    path: PathBuf,
}

impl Cursor {
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The entry after which to follow the log; `None` is whatever comes from now on.
    pub async fn resume(&self, hub: &Hub) -> Option<u64> {
        let sent = self.read().await?;
        let has = async |seq| {
            let page = hub.log_entries(seq, 1).await;
            page.map(|page| !page.items.is_empty())
        };
        // A log that was restored may end before it.
        let known = has(sent).await.ok()?;
        let far = has(sent.saturating_add(MOST_BEHIND)).await.ok()?;
        (known && !far).then_some(sent)
    }

    async fn read(&self) -> Option<u64> {
        let text = tokio::fs::read_to_string(&self.path).await.ok()?;
        text.trim().parse().ok()
    }

    /// Everything up to this entry was taken.
    pub async fn write(&self, seq: u64) {
        let fresh = self.path.with_extension("new");
        let written = async {
            tokio::fs::write(&fresh, format!("{seq}\n")).await?;
            tokio::fs::rename(&fresh, &self.path).await
        };
        if let Err(error) = written.await {
            tracing::debug!(%error, path = %self.path.display(), "how far spans were sent is not kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_written_last_is_read_and_nonsense_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let cursor = Cursor::new(dir.path().join("traces.sent"));
        assert_eq!(cursor.read().await, None);
        cursor.write(7).await;
        cursor.write(12).await;
        assert_eq!(cursor.read().await, Some(12));
        std::fs::write(&cursor.path, "many").unwrap();
        assert_eq!(cursor.read().await, None);
        let lost = Cursor::new(dir.path().join("not/there"));
        lost.write(1).await;
        assert_eq!(lost.read().await, None);
    }
}
