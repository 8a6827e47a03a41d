//! Payloads are erased when they are older than the workspace keeps them, or when there are too
//! many; entries, and with them every proof, stay.
//!
//! Only payloads of tasks that have ended are erased. Erasing a task's key as well makes its
//! digests unlinkable, so a task goes as a whole.

use std::time::Duration;

use mainstay_core::task::Task;
use store::Erasure;

use crate::{Hub, HubError, projection};

/// How often the rules are looked at.
const PERIOD: Duration = Duration::from_secs(60);
/// Erasures in one commit, kept well below the store's limit.
const AT_ONCE: usize = 512;
/// Payloads looked at together.
const PAGE: usize = 1024;

impl Hub {
    /// Follows the rules until the hub stops.
    pub(crate) async fn keep_retention(self) {
        loop {
            tokio::select! {
                biased;
                () = self.stopping() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
            if let Err(error) = self.retain().await {
                tracing::warn!(%error, "retention could not be followed");
            }
        }
    }

    /// Erases what the rules say; a bounded part per call.
    pub(crate) async fn retain(&self) -> Result<(), HubError> {
        let rules = self.fleet().retention.clone();
        let now_ms = self.shared.ground.now_ms();
        let oldest_kept_ms = rules
            .payloads_seconds
            .map(|seconds| now_ms.saturating_sub_unsigned(seconds.saturating_mul(1000)));
        let found = self
            .read(move |reader| plan(reader, oldest_kept_ms, rules.max_bytes))
            .await?;
        if found.is_empty() {
            return Ok(());
        }
        tracing::info!(
            payloads = found.len(),
            "payloads are erased: the workspace's retention says so"
        );
        self.writer
            .run(move |tx| {
                // Since they were found a person may have tried one of the tasks again.
                let ended = found.into_iter().filter(|(task, _)| !tx.is_open_task(task));
                let ended = ended.map(|(_, erasure)| erasure).collect();
                tx.erase(ended);
            })
            .await
    }
}

/// Payloads to erase with their tasks, oldest first.
fn plan(
    reader: &store::Reader,
    oldest_kept_ms: Option<i64>,
    max_bytes: Option<u64>,
) -> Result<Vec<(String, Erasure)>, store::StoreError> {
    let mut excess = match max_bytes {
        Some(max) => reader.payload_bytes()?.saturating_sub(max),
        None => 0,
    };
    let mut erasures = Vec::new();
    let mut from = 0;
    while oldest_kept_ms.is_some() || excess > 0 {
        let page = reader.payloads(from, PAGE)?;
        let Some(last) = page.last().map(|payload| payload.seq) else {
            break;
        };
        for payload in &page {
            let too_old = oldest_kept_ms.is_some_and(|oldest| payload.time_ms < oldest);
            if (!too_old && excess == 0) || erasures.len() >= AT_ONCE {
                return Ok(erasures);
            }
            if has_ended(reader, &payload.subject)? {
                excess = excess.saturating_sub(payload.bytes);
                let erasure = Erasure {
                    seq: payload.seq,
                    name: payload.name.clone(),
                };
                erasures.push((payload.subject.clone(), erasure));
            }
        }
        // An entry's payloads that the page cut off come with the next call.
        from = last + 1;
    }
    Ok(erasures)
}

fn has_ended(reader: &store::Reader, task: &str) -> Result<bool, store::StoreError> {
    let row = reader.task(task)?;
    Ok(row
        .and_then(|row| projection::decode::<Task>(&row.body))
        .is_some_and(|task| task.state.is_terminal()))
}
