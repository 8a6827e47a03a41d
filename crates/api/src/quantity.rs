//! Sizes as written in a manifest, in Kubernetes' notation: `256Ki`, `5Gi`, `1.5M`, or a number of bytes.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::borrow::Cow;
use std::fmt;

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity {
    pub bytes: u64,
}

const SUFFIXES: [(&str, u64); 11] = [
    ("Pi", 1 << 50),
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("P", 1_000_000_000_000_000),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("k", 1_000),
    ("", 1),
];

impl Quantity {
    pub const fn from_bytes(bytes: u64) -> Self {
        Self { bytes }
    }

    /// Reads a decimal number with an optional suffix. A fraction of a byte is refused.
    pub fn parse(text: &str) -> Option<Self> {
        let (suffix, unit) = SUFFIXES.iter().find(|(suffix, _)| text.ends_with(suffix))?;
        let number = &text[..text.len() - suffix.len()];
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let all_digits = |part: &str| {
            !part.is_empty() && part.len() <= 18 && part.bytes().all(|b| b.is_ascii_digit())
        };
        if !all_digits(whole) || !all_digits(fraction) {
            return None;
        }
        let unit = u128::from(*unit);
        let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
        let parts = fraction.parse::<u128>().ok()? * unit;
        let bytes = whole.parse::<u128>().ok()?.checked_mul(unit)? + parts / scale;
        (parts % scale == 0 && bytes <= i64::MAX as u128).then_some(Self {
            bytes: u64::try_from(bytes).ok()?,
        })
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = SUFFIXES[..5]
            .iter()
            .find(|(_, unit)| self.bytes > 0 && self.bytes.is_multiple_of(*unit));
        match binary {
            Some((suffix, unit)) => write!(f, "{}{suffix}", self.bytes / unit),
            None => write!(f, "{}", self.bytes),
        }
    }
}

impl Serialize for Quantity {
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

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parsed = match Written::deserialize(deserializer)? {
            Written::Number(bytes) => Some(Self { bytes }),
            Written::Text(text) => Self::parse(&text),
        };
        parsed.ok_or_else(|| D::Error::custom("not a size such as 256Ki or 5Gi"))
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "format": "mainstay-quantity",
            "pattern": r"^[0-9]+(\.[0-9]+)?(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$",
            "minimum": 0,
            "examples": ["256Ki", "5Gi"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Quantity;

    fn check(text: &str, expect: Option<(u64, &str)>) {
        let parsed = Quantity::parse(text).map(|quantity| (quantity.bytes, quantity.to_string()));
        assert_eq!(
            parsed,
            expect.map(|(bytes, shown)| (bytes, shown.to_owned())),
            "{text}"
        );
    }

    #[test]
    fn a_size_is_a_number_with_a_unit_of_kubernetes() {
        check("256Ki", Some((262_144, "256Ki")));
        check("5Gi", Some((5_368_709_120, "5Gi")));
        check("1.5Gi", Some((1_610_612_736, "1536Mi")));
        check("1M", Some((1_000_000, "1000000")));
        check("2k", Some((2_000, "2000")));
        check("1024", Some((1_024, "1Ki")));
        check("0", Some((0, "0")));
    }

    #[test]
    fn what_is_no_size_is_none() {
        for text in [
            "",
            "Ki",
            "-1",
            "5GB",
            "1.Ki",
            ".5Gi",
            "0.1",
            "1e3",
            "9Ei",
            "99999Pi",
            "5 Gi",
            "9999999999999999999",
        ] {
            check(text, None);
        }
    }
}
