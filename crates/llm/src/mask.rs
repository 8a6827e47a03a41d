//! Hiding the present in a request, so that an agent that writes the time into its prompt can still be matched.
//! Only the system prompt and the first user message are touched, only values that lie in the given window, and never
//! one that the task itself was given. What is hidden becomes one placeholder, so two masked requests compare equal.

use serde_json::Value;

use crate::dialect::Dialect;
use crate::fields::text;

mod calendar;
mod cursor;
mod expression;

use cursor::Cursor;
use expression::{Expression, Span};

const TIME_PLACEHOLDER: &str = "\u{27e8}time\u{27e9}";
const UUID_PLACEHOLDER: &str = "\u{27e8}uuid\u{27e9}";

/// Which values count as "now": Unix milliseconds, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeWindow {
    pub from_unix_ms: i64,
    pub to_unix_ms: i64,
}

impl TimeWindow {
    fn holds(self, span: Span) -> bool {
        match span {
            Span::Instant { start_ms, end_ms } => {
                start_ms <= self.to_unix_ms && end_ms > self.from_unix_ms
            }
            Span::TimeOfDay { start_ms, end_ms } => self.holds_time_of_day(start_ms, end_ms),
        }
    }

    /// Whether some day in the window has that time in it.
    fn holds_time_of_day(self, start_ms: i64, end_ms: i64) -> bool {
        let (from, to) = (self.from_unix_ms, self.to_unix_ms);
        if to < from {
            return false;
        }
        if to.saturating_sub(from) >= calendar::DAY_MS {
            return true;
        }
        let first_day = from.div_euclid(calendar::DAY_MS);
        (first_day..=to.div_euclid(calendar::DAY_MS)).any(|day| {
            let midnight = day.saturating_mul(calendar::DAY_MS);
            self.holds(Span::Instant {
                start_ms: midnight + start_ms,
                end_ms: midnight + end_ms,
            })
        })
    }
}

/// Masks dates and times of `window` in a canonical body (see [`crate::canonical`]); times without a zone are UTC.
/// A value for which `keep` is true stays: it occurs in what the task was given. With `uuids`, UUIDs are masked too.
pub fn mask_times(
    canonical: &Value,
    dialect: Dialect,
    window: TimeWindow,
    keep: &dyn Fn(&str) -> bool,
    uuids: bool,
) -> Value {
    let mut masked = canonical.clone();
    let mask = Mask {
        window,
        keep,
        uuids,
    };
    for name in ["system", "instructions"] {
        if let Some(system) = masked.get_mut(name) {
            mask.content(system);
        }
    }
    match masked.get_mut(dialect.messages_field()) {
        Some(Value::Array(messages)) => mask.messages(messages),
        Some(input @ Value::String(_)) => mask.content(input),
        _ => {}
    }
    masked
}

struct Mask<'a> {
    window: TimeWindow,
    keep: &'a dyn Fn(&str) -> bool,
    uuids: bool,
}

impl Mask<'_> {
    fn messages(&self, messages: &mut [Value]) {
        let mut user_seen = false;
        for message in messages {
            let masked = match text(message, "role") {
                "system" | "developer" => true,
                "user" => !std::mem::replace(&mut user_seen, true),
                _ => false,
            };
            if let (true, Some(content)) = (masked, message.get_mut("content")) {
                self.content(content);
            }
        }
    }

    /// A string, or the text of each part; what tools returned is no prompt.
    fn content(&self, content: &mut Value) {
        match content {
            Value::String(text) => {
                if let Some(masked) = self.text(text) {
                    *text = masked;
                }
            }
            Value::Array(parts) => {
                for part in parts {
                    if let Some(text) = part.get_mut("text") {
                        self.content(text);
                    }
                }
            }
            _ => {}
        }
    }

    /// The text with its values masked, if there are any.
    fn text(&self, text: &str) -> Option<String> {
        let mut masked = String::new();
        let mut copied = 0;
        let mut at = 0;
        while at < text.len() {
            let Some(found) = Cursor::at_word(text, at).and_then(|cursor| self.find(cursor)) else {
                at += text[at..].chars().next().map_or(1, char::len_utf8);
                continue;
            };
            if let Some(placeholder) = self.placeholder(text, at, &found) {
                masked.push_str(&text[copied..at]);
                masked.push_str(placeholder);
                copied = found.end;
            }
            // A value that stays is passed over whole: its parts are not values of their own.
            at = found.end;
        }
        (copied > 0).then(|| masked + &text[copied..])
    }

    fn find(&self, cursor: Cursor) -> Option<Found> {
        if let (true, Some(end)) = (self.uuids, cursor.uuid()) {
            return Some(Found {
                end,
                core_start: cursor.at,
                span: None,
            });
        }
        let Expression {
            end,
            core_start,
            span,
        } = expression::read(cursor)?;
        Some(Found {
            end,
            core_start,
            span: Some(span),
        })
    }

    fn placeholder(&self, text: &str, start: usize, found: &Found) -> Option<&'static str> {
        if (self.keep)(&text[start..found.end]) || (self.keep)(&text[found.core_start..found.end]) {
            return None;
        }
        match found.span {
            None => Some(UUID_PLACEHOLDER),
            Some(span) => self.window.holds(span).then_some(TIME_PLACEHOLDER),
        }
    }
}

struct Found {
    end: usize,
    /// Where the value begins without a weekday before it.
    core_start: usize,
    /// `None` for a UUID.
    span: Option<Span>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Tuesday 2026-11-24T06:28:45.123Z, a minute either side.
    const NOW_MS: i64 = 1_795_501_725_123;
    const WINDOW: TimeWindow = TimeWindow {
        from_unix_ms: NOW_MS - 60_000,
        to_unix_ms: NOW_MS + 60_000,
    };

    fn masked(input: &str, kept: &[&str], uuids: bool) -> String {
        let keep = |value: &str| kept.contains(&value);
        let body = json!({"messages": [{"role": "user", "content": input}]});
        let masked = mask_times(&body, Dialect::OpenAiChat, WINDOW, &keep, uuids);
        let text = masked["messages"][0]["content"].as_str().unwrap();
        text.replace(TIME_PLACEHOLDER, "<T>")
            .replace(UUID_PLACEHOLDER, "<U>")
    }

    fn check(input: &str, expect: &str) {
        assert_eq!(masked(input, &[], false), expect, "{input}");
    }

    #[test]
    fn every_way_to_write_the_present_is_masked() {
        for now in [
            "2026-11-24T06:28:45Z",
            "2026-11-24T06:28:45.123456Z",
            "2026-11-24T06:28:45.123456789+00:00",
            "2026-11-24T07:28:45+01:00",
            "2026-11-24T01:28:45-0500",
            "2026-11-24T06:28:45",
            "2026-11-24t06:28",
            "20261124T062845Z",
            "2026-11-24 06:28:45.123",
            "2026-11-24 06:28:45,123",
            "2026-11-24 06:28:45 UTC",
            "2026-11-24 06:28",
            "2026-11-24 6:28 AM",
            "2026-11-24",
            "2026/11/24",
            "2026/11/24 06:28:45",
            "24.11.2026",
            "11/24/2026",
            "24/11/2026",
            "11/24/26",
            "11/24/2026, 6:28:45 AM",
            "1795501725",
            "1795501725.1234567",
            "1795501725123",
            "1795501725123456",
            "Tue, 24 Nov 2026 06:28:45 +0000",
            "Tue, 24 Nov 2026 06:28:45 GMT",
            "24 Nov 2026 06:28:45 GMT",
            "Tue Nov 24 06:28:45 2026",
            "Tue Nov 24 06:28:45 UTC 2026",
            "November 24, 2026",
            "Nov 24, 2026",
            "nov 24 2026",
            "November 24th, 2026",
            "November 24, 2026 at 06:28",
            "November 24, 2026, 06:28 AM",
            "24 November 2026",
            "24th of November 2026",
            "Tuesday, November 24, 2026",
            "Tuesday 24 November 2026",
            "Tuesday, 2026-11-24",
            "Tuesday, 2026-11-24 06:28",
            "06:28",
            "06:28:45",
            "6:28 AM",
            "06:28:45.123 UTC",
        ] {
            check(&format!("It is {now}."), "It is <T>.");
            check(&format!("[{now}] go"), "[<T>] go");
            check(now, "<T>");
        }
    }

    #[test]
    fn what_javascript_prints_is_masked_but_for_its_zone() {
        check(
            "Tue Nov 24 2026 06:28:45 GMT+0000 (Coordinated Universal Time)",
            "<T>+0000 (Coordinated Universal Time)",
        );
    }

    #[test]
    fn other_values_stay() {
        for other in [
            "2026-11-25",
            "2025-11-24T06:28:45Z",
            "2026-11-24T06:20:45Z",
            "2026-11-24T06:28:45+01:00",
            "2026-13-24",
            "2026-11-31",
            "2026-11-24x",
            "v2026-11-24",
            "12026-11-24",
            "2026-11-245",
            "1764000000",
            "17955017251",
            "179550172512",
            "x1795501725",
            "1795501725x",
            "3.1795501725",
            "Nov 25, 2026",
            "November 2026",
            "Tuesday",
            "24 apples",
            "07:28",
            "06:61",
            "25:00",
            "16:9",
            "6:28 PM",
            "02:30:06:28",
            "Tue Nov 24 09:28:45 2026",
            "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b",
            "",
            "ü 2026–11–24 ✓",
        ] {
            check(other, other);
        }
    }

    #[test]
    fn what_the_task_was_given_stays() {
        let kept = ["2026-11-24", "24 November 2026"];
        assert_eq!(
            masked("due 2026-11-24, now 2026-11-24 06:28", &kept, false),
            "due 2026-11-24, now <T>"
        );
        assert_eq!(
            masked("on Tuesday, 24 November 2026", &kept, false),
            "on Tuesday, 24 November 2026"
        );
    }

    #[test]
    fn uuids_are_masked_where_asked_for() {
        let input =
            "id=0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b, 0190A1B2-C3D4-7E5F-8A9B-0C1D2E3F4A5B-1";
        assert_eq!(
            masked(input, &[], true),
            "id=<U>, 0190A1B2-C3D4-7E5F-8A9B-0C1D2E3F4A5B-1"
        );
        let given = ["0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"];
        assert_eq!(masked(input, &given, true), input);
    }

    #[test]
    fn a_time_of_day_counts_over_midnight() {
        let midnight = 1_795_564_800_000;
        let window = TimeWindow {
            from_unix_ms: midnight - 60_000,
            to_unix_ms: midnight + 60_000,
        };
        let body = json!({"system": "23:59:30 00:00:30 12:00"});
        let masked = mask_times(&body, Dialect::Anthropic, window, &|_| false, false);
        assert_eq!(
            masked["system"],
            json!(format!("{TIME_PLACEHOLDER} {TIME_PLACEHOLDER} 12:00"))
        );
    }

    #[test]
    fn only_the_prompt_is_touched() {
        let now = "2026-11-24T06:28:45Z";
        let cases = [
            (
                Dialect::OpenAiChat,
                json!({"messages": [
                    {"role": "system", "content": now},
                    {"role": "developer", "content": [{"type": "text", "text": now}]},
                    {"role": "user", "content": [{"type": "text", "text": now}]},
                    {"role": "assistant", "content": now},
                    {"role": "tool", "tool_call_id": now, "content": now},
                    {"role": "user", "content": now},
                ], "user": now}),
                json!({"messages": [
                    {"role": "system", "content": "<T>"},
                    {"role": "developer", "content": [{"type": "text", "text": "<T>"}]},
                    {"role": "user", "content": [{"type": "text", "text": "<T>"}]},
                    {"role": "assistant", "content": now},
                    {"role": "tool", "tool_call_id": now, "content": now},
                    {"role": "user", "content": now},
                ], "user": now}),
            ),
            (
                Dialect::OpenAiResponses,
                json!({"instructions": now, "input": now}),
                json!({"instructions": "<T>", "input": "<T>"}),
            ),
            (
                Dialect::OpenAiResponses,
                json!({"input": [{"role": "user", "content": now}, {"role": "user", "content": now}]}),
                json!({"input": [{"role": "user", "content": "<T>"}, {"role": "user", "content": now}]}),
            ),
            (
                Dialect::Anthropic,
                json!({"system": [{"type": "text", "text": now}], "messages": [{"role": "user", "content": [
                    {"type": "tool_result", "content": now}, {"type": "text", "text": now}
                ]}]}),
                json!({"system": [{"type": "text", "text": "<T>"}], "messages": [{"role": "user", "content": [
                    {"type": "tool_result", "content": now}, {"type": "text", "text": "<T>"}
                ]}]}),
            ),
        ];
        for (dialect, body, expect) in cases {
            let masked = mask_times(&body, dialect, WINDOW, &|_| false, false);
            assert_eq!(
                masked.to_string().replace(TIME_PLACEHOLDER, "<T>"),
                expect.to_string()
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn masking_twice_masks_no_more(text in "[ -~ü]{0,40}|[0-9:T Nov,./+-]{0,40}") {
            check(&masked(&text, &[], true), &masked(&text, &[], true));
        }
    }
}
