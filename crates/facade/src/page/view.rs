//! The hub's views as the page words them: short times, costs, durations, excerpts.

use hub::view::{CostView, StepView, TaskView};
use serde_json::Value;

/// Characters of input and output that a list shows.
const EXCERPT_CHARS: usize = 90;
/// Characters of input and output on a task's own page; the API has the rest.
const WHOLE_CHARS: usize = 20_000;

/// A task in the list.
pub(super) struct TaskRow {
    pub(super) id: String,
    pub(super) agent: String,
    pub(super) state: String,
    pub(super) reason: String,
    pub(super) input: String,
    pub(super) attempts: u32,
    pub(super) steps: u32,
    pub(super) replayed: u32,
    pub(super) tokens: String,
    pub(super) cost: String,
    pub(super) updated: String,
}

impl From<TaskView> for TaskRow {
    fn from(task: TaskView) -> Self {
        Self {
            input: excerpt(&words(&task.input), EXCERPT_CHARS),
            tokens: tokens(&task),
            cost: cost(task.cost),
            updated: clock(&task.updated),
            reason: task.reason.unwrap_or_default(),
            id: task.id,
            agent: task.agent,
            state: task.state,
            attempts: task.attempts,
            steps: task.steps,
            replayed: task.replayed,
        }
    }
}

/// A task on its own page.
pub(super) struct TaskDetail {
    pub(super) row: TaskRow,
    pub(super) session: String,
    pub(super) input: String,
    pub(super) output: String,
    pub(super) error: Option<(String, String)>,
    pub(super) created: String,
    pub(super) updated: String,
    pub(super) repeated: u32,
    pub(super) diverged_at: Option<u32>,
    pub(super) asked_step: Option<u32>,
    pub(super) parent: Option<String>,
    pub(super) generation: Option<u64>,
}

impl From<TaskView> for TaskDetail {
    fn from(task: TaskView) -> Self {
        Self {
            session: task.session.clone(),
            input: excerpt(&words(&task.input), WHOLE_CHARS),
            output: excerpt(&words(&task.output), WHOLE_CHARS),
            error: task.error.clone().map(|error| (error.code, error.message)),
            created: clock(&task.created),
            updated: clock(&task.updated),
            repeated: task.repeated,
            diverged_at: task.diverged_at,
            asked_step: task.asked_step,
            parent: task.parent.clone(),
            generation: task.generation,
            row: task.into(),
        }
    }
}

/// A step of a task.
pub(super) struct StepRow {
    pub(super) n: u32,
    pub(super) kind: &'static str,
    pub(super) name: String,
    pub(super) model: String,
    pub(super) state: &'static str,
    pub(super) attempt: u32,
    pub(super) replayed: bool,
    pub(super) repeated: u32,
    pub(super) tokens: String,
    pub(super) cost: String,
    pub(super) took: String,
}

impl From<StepView> for StepRow {
    fn from(step: StepView) -> Self {
        let is_model = step.kind == "model";
        let counted = format!("{} → {}", step.usage.input_tokens, step.usage.output_tokens);
        Self {
            tokens: if is_model {
                estimated(counted, step.usage.estimated)
            } else {
                String::new()
            },
            cost: if is_model {
                cost(step.cost)
            } else {
                String::new()
            },
            took: step
                .ended
                .as_deref()
                .map_or_else(|| "…".to_owned(), |ended| took(&step.started, ended)),
            model: step.model.unwrap_or_default(),
            n: step.n,
            kind: step.kind,
            name: step.name,
            state: step.state,
            attempt: step.attempt,
            replayed: step.replayed,
            repeated: step.repeated,
        }
    }
}

/// A value as one part of an address.
pub(super) fn encoded(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

fn tokens(task: &TaskView) -> String {
    estimated(
        format!("{} → {}", task.usage.input_tokens, task.usage.output_tokens),
        task.usage.estimated,
    )
}

fn estimated(tokens: String, is_estimated: bool) -> String {
    if is_estimated {
        format!("≈ {tokens}")
    } else {
        tokens
    }
}

/// Dollars with as many digits as say something; `unknown` where a price is.
fn cost(cost: CostView) -> String {
    let Some(usd) = cost.usd else {
        return "unknown".to_owned();
    };
    if usd == 0.0 || usd >= 1.0 {
        return format!("${usd:.2}");
    }
    let digits = format!("{usd:.6}");
    format!("${}", digits.trim_end_matches('0'))
}

/// Text as it is, parts by their text, other JSON written out.
fn words(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(parts) if parts.iter().any(|part| part["text"].is_string()) => parts
            .iter()
            .map(|part| part["text"].as_str().unwrap_or("[not text]"))
            .collect::<Vec<_>>()
            .join("\n"),
        other => other.to_string(),
    }
}

fn excerpt(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// `2026-01-02 03:04:05` of an RFC 3339 time.
fn clock(time: &str) -> String {
    time.get(..19)
        .map_or_else(|| time.to_owned(), |seconds| seconds.replace('T', " "))
}

fn took(started: &str, ended: &str) -> String {
    let at = |time: &str| {
        time.parse::<jiff::Timestamp>()
            .map(jiff::Timestamp::as_millisecond)
    };
    match (at(started), at(ended)) {
        (Ok(from), Ok(to)) if to - from < 1000 => format!("{} ms", (to - from).max(0)),
        (Ok(from), Ok(to)) => format!("{}.{} s", (to - from) / 1000, (to - from) % 1000 / 100),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn costs_are_short_exact_and_never_zero_when_unknown() {
        for (usd, text) in [
            (None, "unknown"),
            (Some(0.0), "$0.00"),
            (Some(0.0042), "$0.0042"),
            (Some(0.1), "$0.1"),
            (Some(12.345), "$12.35"),
        ] {
            assert_eq!(cost(CostView { usd }), text);
        }
    }

    #[test]
    fn durations_are_milliseconds_then_seconds() {
        assert_eq!(
            took("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.042Z"),
            "42 ms"
        );
        assert_eq!(
            took("2026-01-02T03:04:05Z", "2026-01-02T03:04:17.25Z"),
            "12.2 s"
        );
        assert_eq!(took("2026-01-02T03:04:05Z", "2026-01-02T03:04:04Z"), "0 ms");
    }

    #[test]
    fn no_value_leaves_its_part_of_an_address() {
        assert_eq!(encoded("0197-a_b"), "0197-a_b");
        assert_eq!(encoded("../x?y#z\"ä"), "..%2Fx%3Fy%23z%22%C3%A4");
    }

    #[test]
    fn excerpts_end_between_characters() {
        assert_eq!(excerpt("äöü", 2), "äö…");
        assert_eq!(excerpt("äö", 2), "äö");
    }

    #[test]
    fn input_reads_as_text_whatever_it_is() {
        assert_eq!(words(&json!("x")), "x");
        assert_eq!(
            words(&json!([{"text": "a"}, {"raw": "AAAA"}])),
            "a\n[not text]"
        );
        assert_eq!(words(&json!({"a": 1})), "{\"a\":1}");
        assert_eq!(words(&Value::Null), "");
    }
}
