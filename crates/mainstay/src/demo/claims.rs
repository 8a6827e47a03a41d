//! What the demo claims, each with the figures it was computed from.
//!
//! Figures come from the API, the file that the tool wrote, and the log; a claim whose figures say
//! otherwise is shown as untrue.

use std::path::Path;

use serde_json::Value;

use super::fleet::Fleet;
use crate::client::Client;
use crate::exit::Failure;
use crate::log::newest_entries;
use crate::output::{cell, is_coloured, write_out};

/// More than the demo's log can hold.
const ENTRIES: u32 = 2000;

pub(super) struct Claims {
    pub(super) task_id: String,
    shown: Vec<(bool, String)>,
}

impl Claims {
    /// Everything that can be said while the hub runs.
    pub(super) async fn gather(
        client: &Client,
        task: &Value,
        steps: &[Value],
        fleet: &Fleet,
    ) -> Result<Self, Failure> {
        let id = cell(task, "id");
        let entries = newest_entries(client, ENTRIES).await?;
        let mut claims = Self {
            task_id: id.clone(),
            shown: Vec::new(),
        };
        claims.went_on(task);
        claims.paid_once(task, steps, &entries);
        claims.happened_once(steps, fleet);
        Ok(claims)
    }

    fn claim(&mut self, is_true: bool, text: String) {
        self.shown.push((is_true, text));
    }

    /// The task survived, and the new process was served from the journal.
    fn went_on(&mut self, task: &Value) {
        let (attempts, all, replayed) = (
            count(task, "attempts"),
            count(task, "steps"),
            count(task, "replayed"),
        );
        let is_true = cell(task, "state") == "completed" && attempts == 2 && replayed > 0;
        self.claim(
            is_true,
            format!(
                "The task is {} in attempt {attempts}: of its {all} steps {replayed} came from the record, not from a new call",
                cell(task, "state")
            ),
        );
    }

    /// Each call of the task left once: the log has an intent before every call.
    fn paid_once(&mut self, task: &Value, steps: &[Value], entries: &[Value]) {
        let of_task = |kind: &str| {
            entries
                .iter()
                .filter(|entry| {
                    cell(entry, "subject") == self.task_id && cell(entry, "kind") == kind
                })
                .count()
        };
        let (sent, repeated) = (of_task("step.intended"), of_task("step.repeated"));
        let models = steps
            .iter()
            .filter(|step| cell(step, "kind") == "model")
            .count();
        let replayed_models = steps
            .iter()
            .filter(|step| {
                cell(step, "kind") == "model" && step.get("replayed") == Some(&Value::Bool(true))
            })
            .count();
        let is_true = sent == steps.len() && repeated == 0 && count(task, "repeated") == 0;
        self.claim(
            is_true,
            format!(
                "Nothing was paid twice: {models} model calls and {} tool calls were sent, {} of them a second time",
                steps.len() - models,
                repeated as u64 + count(task, "repeated"),
            ),
        );
        let reused = steps
            .iter()
            .filter(|step| step.get("replayed") == Some(&Value::Bool(true)))
            .count();
        self.claim(
            reused > 0 && reused as u64 == count(task, "replayed"),
            format!("Started again from nothing it would have made {reused} calls anew, {replayed_models} of them to the model"),
        );
    }

    /// The opaque tool left one mark in the world.
    fn happened_once(&mut self, steps: &[Value], fleet: &Fleet) {
        let calls = steps
            .iter()
            .filter(|step| cell(step, "name").ends_with("save_report"))
            .count();
        let path = fleet.reports();
        let lines = std::fs::read_to_string(&path).map_or(0, |text| text.lines().count());
        self.claim(
            calls == 1 && lines == 1,
            format!(
                "The report was saved once: {lines} line in {}",
                path.display()
            ),
        );
    }

    /// The record, read from the state after everything has ended.
    pub(super) fn log(&mut self, state: &Path) {
        let mut text = "The record of it is consistent".to_owned();
        let mut is_true = true;
        for (name, dir) in [
            ("default", state.join("workspaces/default")),
            ("system", state.join("system")),
        ] {
            match store::verify(&dir, &store::VerifyOptions::default()) {
                Ok(report) => text.push_str(&format!(
                    "; {name}: {} entries, {} signed heads",
                    report.size, report.heads
                )),
                Err(error) => {
                    is_true = false;
                    text.push_str(&format!("; {name}: {error}"));
                }
            }
        }
        self.claim(is_true, text);
    }

    /// Prints them; false if one is not true.
    pub(super) fn show(&self) -> Result<bool, Failure> {
        write_out(
            b"\n4. What can be said about it, checked against the API, the file and the log:\n",
        )?;
        for (is_true, text) in &self.shown {
            let mark = match (is_true, is_coloured()) {
                (true, true) => "\u{1b}[32myes\u{1b}[0m",
                (true, false) => "yes",
                (false, true) => "\u{1b}[31mNO\u{1b}[0m ",
                (false, false) => "NO ",
            };
            write_out(format!("   {mark}  {text}\n").as_bytes())?;
        }
        Ok(self.shown.iter().all(|(is_true, _)| *is_true))
    }
}

fn count(value: &Value, field: &str) -> u64 {
    value.get(field).and_then(Value::as_u64).unwrap_or(0)
}
