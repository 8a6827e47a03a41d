//! Durations as written in a manifest: `30s`, `10m`, `1h30m`, `30d`.
//!
//! A bare number is refused: nobody can tell its unit.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::borrow::Cow;
use std::fmt;

/// A span of time of at most a hundred years, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration {
    pub ms: u64,
}

const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];
const LONGEST_MS: u64 = 100 * 366 * 86_400_000;

impl Duration {
    pub const fn from_seconds(seconds: u64) -> Self {
        Self { ms: seconds * 1000 }
    }

    /// Reads one or more number-unit pairs; each unit at most once, the larger first.
    pub fn parse(text: &str) -> Option<Self> {
        let mut rest = text;
        let mut total: u64 = 0;
        let mut units = UNITS.iter();
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit())?;
            let number: u64 = rest[..digits].parse().ok()?;
            rest = &rest[digits..];
            let unit_end = rest
                .find(|c: char| c.is_ascii_digit())
                .unwrap_or(rest.len());
            let (unit, after) = rest.split_at(unit_end);
            let (_, unit_ms) = units.by_ref().find(|(name, _)| *name == unit)?;
            total = total.checked_add(number.checked_mul(*unit_ms)?)?;
            rest = after;
        }
        (!text.is_empty() && total <= LONGEST_MS).then_some(Self { ms: total })
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.ms;
        if rest == 0 {
            return f.write_str("0s");
        }
        for (name, unit_ms) in UNITS {
            if rest >= unit_ms {
                write!(f, "{}{name}", rest / unit_ms)?;
                rest %= unit_ms;
            }
        }
        Ok(())
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| D::Error::custom("not a duration such as 30s, 10m or 1h30m"))
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "mainstay-duration",
            "pattern": r"^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$",
            "examples": ["30s", "10m", "1h30m"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Duration;

    fn check(text: &str, expect: Option<(u64, &str)>) {
        let parsed = Duration::parse(text).map(|duration| (duration.ms, duration.to_string()));
        assert_eq!(
            parsed,
            expect.map(|(ms, shown)| (ms, shown.to_owned())),
            "{text}"
        );
    }

    #[test]
    fn a_duration_is_numbers_with_units_from_large_to_small() {
        check("30s", Some((30_000, "30s")));
        check("1h30m", Some((5_400_000, "1h30m")));
        check("90m", Some((5_400_000, "1h30m")));
        check("500ms", Some((500, "500ms")));
        check("1m1ms", Some((60_001, "1m1ms")));
        check("30d", Some((2_592_000_000, "30d")));
        check("0s", Some((0, "0s")));
    }

    #[test]
    fn what_is_no_duration_is_none() {
        for text in [
            "",
            "30",
            "s",
            "30 s",
            "-1s",
            "1.5h",
            "1m1h",
            "1s1s",
            "1w",
            "1\u{e9}",
            "99999999999999999999s",
        ] {
            check(text, None);
        }
        check("36601d", None);
    }
}
