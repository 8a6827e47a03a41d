//! Where a task comes from, for whoever follows the log and meets it in the middle.
//!
//! Read from committed rows: the writer is asked for no more than to write those that lag.

use mainstay_core::task::TaskRecord;

use crate::{Hub, HubError, projection};

impl Hub {
    /// The task as far as it is committed, and the `traceparent` of its submission.
    pub async fn task_origin(
        &self,
        id: &str,
    ) -> Result<Option<(TaskRecord, Option<String>)>, HubError> {
        let id = id.to_owned();
        self.read(move |reader| {
            let Some((record, _)) = projection::load(reader, &id)? else {
                return Ok(None);
            };
            let submitted = reader.entries(record.task.input_seq, 1)?.into_iter().next();
            Ok(Some((
                record,
                submitted.and_then(|entry| entry.traceparent),
            )))
        })
        .await
    }
}
