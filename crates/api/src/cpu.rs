//! Amounts of CPU as written in a manifest, in Kubernetes' notation: `500m`, `"0.5"`, `2`.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::borrow::Cow;
use std::fmt;

/// Thousandths of a CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cpu {
    pub millis: u64,
}

const MOST_CPUS: u64 = 1_000_000;

impl Cpu {
    /// Reads thousandths (`500m`) or CPUs with at most three decimals (`0.5`).
    pub fn parse(text: &str) -> Option<Self> {
        let digits = |text: &str| {
            !text.is_empty() && text.len() <= 10 && text.bytes().all(|b| b.is_ascii_digit())
        };
        let millis = if let Some(millis) = text.strip_suffix('m') {
            digits(millis)
                .then(|| millis.parse::<u64>().ok())
                .flatten()?
        } else {
            let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
            if !digits(whole) || !digits(fraction) || fraction.len() > 3 {
                return None;
            }
            let thousandths: u64 = format!("{fraction:0<3}").parse().ok()?;
            whole.parse::<u64>().ok()? * 1000 + thousandths
        };
        (millis <= MOST_CPUS * 1000).then_some(Self { millis })
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.millis.is_multiple_of(1000) {
            write!(f, "{}", self.millis / 1000)
        } else {
            write!(f, "{}m", self.millis)
        }
    }
}

impl Serialize for Cpu {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u64),
    Text(String),
}

impl<'de> Deserialize<'de> for Cpu {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match Written::deserialize(deserializer)? {
            Written::Number(cpus) => cpus.to_string(),
            Written::Text(text) => text,
        };
        Self::parse(&text).ok_or_else(|| D::Error::custom("not an amount of CPU such as 500m or 2"))
    }
}

impl JsonSchema for Cpu {
    fn schema_name() -> Cow<'static, str> {
        "Cpu".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "format": "mainstay-cpu",
            "pattern": r"^[0-9]+(m|\.[0-9]{1,3})?$",
            "minimum": 0,
            "examples": ["500m", "2"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Cpu;

    fn check(text: &str, expect: Option<(u64, &str)>) {
        let parsed = Cpu::parse(text).map(|cpu| (cpu.millis, cpu.to_string()));
        let expect = expect.map(|(millis, shown)| (millis, shown.to_owned()));
        assert_eq!(parsed, expect, "{text}");
    }

    #[test]
    fn an_amount_of_cpu_is_cpus_or_thousandths() {
        check("2", Some((2000, "2")));
        check("500m", Some((500, "500m")));
        check("1000m", Some((1000, "1")));
        check("0.5", Some((500, "500m")));
        check("1.25", Some((1250, "1250m")));
    }

    #[test]
    fn what_is_no_amount_of_cpu_is_none() {
        for text in [
            "",
            "m",
            "-1",
            "1.",
            ".5",
            "0.0001",
            "1k",
            "1 ",
            "99999999999",
            "5000000",
        ] {
            check(text, None);
        }
    }
}
