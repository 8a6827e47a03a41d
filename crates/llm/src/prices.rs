//! Prices and windows of well-known models, standard tier, as of [`PRICES_AS_OF`]: the providers' list prices as
//! LiteLLM 1.109 collects them, spot-checked against published copies of the providers' price pages.
//! A manifest overrides every entry, and a model that isn't here has no price: unknown, never zero.
//! To add or change a model: edit the table, move the date, and say in the commit where the figures come from.

use crate::usage::{LongPrice, Price};

/// The day on which the table was last compared with its sources.
pub const PRICES_AS_OF: &str = "2026-11-24";

/// What is known about a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ModelFacts {
    pub price: Price,
    /// The window: input and output together.
    pub context_tokens: u64,
    pub max_output_tokens: u64,
}

/// Price and window of a model at a provider of type `openai` or `anthropic`. A dated or `-latest` id finds its
/// undated entry; any other suffix is another model.
///
/// The type says which wire format is spoken, not who serves: the caller should look up only what is asked at the
/// maker's own address, or accept that the maker's list price is shown.
pub fn lookup(provider_type: &str, model: &str) -> Option<ModelFacts> {
    let rows = match provider_type {
        "openai" => OPENAI,
        "anthropic" => ANTHROPIC,
        _ => return None,
    };
    let find = |name: &str| rows.iter().find(|row| row.0 == name);
    let row = find(model).or_else(|| find(undated(model)?))?;
    Some(facts(row))
}

/// A limit on output, no higher than what the model can write: frameworks ask for their own model's maximum, which
/// another provider would refuse.
pub(crate) fn within_output(provider_type: &str, model: &str, asked: Option<u64>) -> Option<u64> {
    let longest = lookup(provider_type, model).map_or(u64::MAX, |facts| facts.max_output_tokens);
    asked.map(|asked| asked.min(longest))
}

/// The id without `-20250929`, `-2025-08-07` or `-latest`.
fn undated(model: &str) -> Option<&str> {
    if let Some(name) = model.strip_suffix("-latest") {
        return Some(name);
    }
    let is_date = |text: &str, pattern: &str| {
        text.len() == pattern.len()
            && text
                .bytes()
                .zip(pattern.bytes())
                .all(|(byte, want)| match want {
                    b'0' => byte.is_ascii_digit(),
                    want => byte == want,
                })
    };
    for pattern in ["-00000000", "-0000-00-00"] {
        let at = model.len().checked_sub(pattern.len())?;
        if let (Some(name), Some(date)) = (model.get(..at), model.get(at..))
            && is_date(date, pattern)
        {
            return Some(name);
        }
    }
    None
}

/// (model, input, output, cache read, cache write, window, longest output, long)
type Row = (
    &'static str,
    f64,
    f64,
    Option<f64>,
    Option<f64>,
    u64,
    u64,
    Long,
);

/// How calls with a long input are priced.
#[derive(Clone, Copy)]
enum Long {
    Same,
    /// OpenAI since GPT-5.4: input and cache twice, output one and a half times, above 272,000 tokens.
    OpenAi,
    /// Haiku 5.5: five times everything, above 100,000 tokens.
    FiveTimes,
}

fn facts(row: &Row) -> ModelFacts {
    let (_, input, output, cache_read, cache_write, context_tokens, max_output_tokens, long) = *row;
    let times = |above_input_tokens: u64, read_factor: f64, write_factor: f64| LongPrice {
        above_input_tokens,
        input: input * read_factor,
        output: output * write_factor,
        cache_read: cache_read.unwrap_or(input) * read_factor,
        cache_write: cache_write.map(|price| price * read_factor),
    };
    let long = match long {
        Long::Same => None,
        Long::OpenAi => Some(times(272_000, 2.0, 1.5)),
        Long::FiveTimes => Some(times(100_000, 5.0, 5.0)),
    };
    ModelFacts {
        price: Price {
            input,
            output,
            cache_read,
            cache_write,
            long,
        },
        context_tokens,
        max_output_tokens,
    }
}

#[rustfmt::skip]
const OPENAI: &[Row] = &[
    ("gpt-6.1-sol", 2.0, 10.0, Some(0.1), Some(2.5), 1_050_000, 128_000, Long::OpenAi),
    ("gpt-6.1-terra", 1.0, 5.0, Some(0.05), Some(1.25), 1_050_000, 128_000, Long::OpenAi),
    ("gpt-6-astra", 10.0, 50.0, Some(1.0), Some(12.5), 1_050_000, 128_000, Long::OpenAi),
    ("gpt-6-sol", 2.0, 10.0, Some(0.2), Some(2.5), 1_050_000, 128_000, Long::OpenAi),
    ("gpt-6-luna", 0.1, 0.5, Some(0.01), Some(0.125), 1_050_000, 128_000, Long::OpenAi),
    ("gpt-5.6", 4.0, 20.0, Some(0.4), Some(5.0), 1_050_000, 128_000, Long::OpenAi),
    ("gpt-5.6-sol", 4.0, 20.0, Some(0.4), Some(5.0), 1_050_000, 128_000, Long::OpenAi),
    ("gpt-5.6-terra", 2.0, 12.0, Some(0.2), Some(2.5), 1_050_000, 128_000, Long::OpenAi),
    ("gpt-5.6-luna", 0.2, 1.2, Some(0.02), Some(0.25), 1_050_000, 128_000, Long::OpenAi),
    ("gpt-5.5", 5.0, 30.0, Some(0.5), None, 1_050_000, 128_000, Long::OpenAi),
    ("gpt-5.5-pro", 30.0, 180.0, None, None, 1_050_000, 128_000, Long::OpenAi),
    ("gpt-5.4", 2.5, 15.0, Some(0.25), None, 1_050_000, 128_000, Long::OpenAi),
    ("gpt-5.4-pro", 30.0, 180.0, None, None, 1_050_000, 128_000, Long::OpenAi),
    ("gpt-5.4-mini", 0.75, 4.5, Some(0.075), None, 400_000, 128_000, Long::Same),
    ("gpt-5.4-nano", 0.2, 1.25, Some(0.02), None, 400_000, 128_000, Long::Same),
    ("gpt-5.3-codex", 1.75, 14.0, Some(0.175), None, 400_000, 128_000, Long::Same),
    ("gpt-5.2", 1.75, 14.0, Some(0.175), None, 400_000, 128_000, Long::Same),
    ("gpt-5.2-codex", 1.75, 14.0, Some(0.175), None, 400_000, 128_000, Long::Same),
    ("gpt-5.2-pro", 21.0, 168.0, None, None, 400_000, 128_000, Long::Same),
    ("gpt-5.1", 1.25, 10.0, Some(0.125), None, 400_000, 128_000, Long::Same),
    ("gpt-5.1-codex", 1.25, 10.0, Some(0.125), None, 400_000, 128_000, Long::Same),
    ("gpt-5.1-codex-max", 1.25, 10.0, Some(0.125), None, 400_000, 128_000, Long::Same),
    ("gpt-5.1-codex-mini", 0.25, 2.0, Some(0.025), None, 400_000, 128_000, Long::Same),
    ("gpt-5", 1.25, 10.0, Some(0.125), None, 400_000, 128_000, Long::Same),
    ("gpt-5-codex", 1.25, 10.0, Some(0.125), None, 400_000, 128_000, Long::Same),
    ("gpt-5-mini", 0.25, 2.0, Some(0.025), None, 400_000, 128_000, Long::Same),
    ("gpt-5-nano", 0.05, 0.4, Some(0.005), None, 400_000, 128_000, Long::Same),
    ("gpt-5-pro", 15.0, 120.0, None, None, 400_000, 272_000, Long::Same),
    ("gpt-4.1", 2.0, 8.0, Some(0.5), None, 1_047_576, 32_768, Long::Same),
    ("gpt-4.1-mini", 0.4, 1.6, Some(0.1), None, 1_047_576, 32_768, Long::Same),
    ("gpt-4.1-nano", 0.1, 0.4, Some(0.025), None, 1_047_576, 32_768, Long::Same),
    ("gpt-4o", 2.5, 10.0, Some(1.25), None, 128_000, 16_384, Long::Same),
    ("gpt-4o-2024-05-13", 5.0, 15.0, None, None, 128_000, 4_096, Long::Same),
    ("gpt-4o-mini", 0.15, 0.6, Some(0.075), None, 128_000, 16_384, Long::Same),
    ("o4-mini", 1.1, 4.4, Some(0.275), None, 200_000, 100_000, Long::Same),
    ("o3", 2.0, 8.0, Some(0.5), None, 200_000, 100_000, Long::Same),
    ("o3-pro", 20.0, 80.0, None, None, 200_000, 100_000, Long::Same),
    ("o3-mini", 1.1, 4.4, Some(0.55), None, 200_000, 100_000, Long::Same),
    ("o1", 15.0, 60.0, Some(7.5), None, 200_000, 100_000, Long::Same),
    ("o1-pro", 150.0, 600.0, None, None, 200_000, 100_000, Long::Same),
    ("gpt-4-turbo", 10.0, 30.0, None, None, 128_000, 4_096, Long::Same),
    ("gpt-4", 30.0, 60.0, None, None, 8_192, 4_096, Long::Same),
    ("gpt-3.5-turbo", 0.5, 1.5, None, None, 16_385, 4_096, Long::Same),
];

/// Cache writes are those of the five-minute cache.
#[rustfmt::skip]
const ANTHROPIC: &[Row] = &[
    ("claude-fable-5-1", 10.0, 50.0, Some(0.25), Some(12.5), 1_000_000, 128_000, Long::Same),
    ("claude-fable-5", 10.0, 50.0, Some(1.0), Some(12.5), 1_000_000, 128_000, Long::Same),
    ("claude-opus-5-5", 4.0, 20.0, Some(0.2), Some(5.0), 1_000_000, 128_000, Long::Same),
    ("claude-opus-5", 5.0, 25.0, Some(0.5), Some(6.25), 1_000_000, 128_000, Long::Same),
    ("claude-opus-4-8", 5.0, 25.0, Some(0.5), Some(6.25), 1_000_000, 128_000, Long::Same),
    ("claude-opus-4-7", 5.0, 25.0, Some(0.5), Some(6.25), 1_000_000, 128_000, Long::Same),
    ("claude-opus-4-6", 5.0, 25.0, Some(0.5), Some(6.25), 1_000_000, 128_000, Long::Same),
    ("claude-opus-4-5", 5.0, 25.0, Some(0.5), Some(6.25), 200_000, 64_000, Long::Same),
    ("claude-sonnet-5-5", 2.0, 10.0, Some(0.1), Some(2.5), 1_000_000, 128_000, Long::Same),
    ("claude-sonnet-5", 2.0, 10.0, Some(0.2), Some(2.5), 1_000_000, 128_000, Long::Same),
    ("claude-sonnet-4-6", 3.0, 15.0, Some(0.3), Some(3.75), 1_000_000, 128_000, Long::Same),
    ("claude-sonnet-4-5", 3.0, 15.0, Some(0.3), Some(3.75), 200_000, 64_000, Long::Same),
    ("claude-haiku-5-5", 0.1, 0.5, Some(0.01), Some(0.125), 1_000_000, 128_000, Long::FiveTimes),
    ("claude-haiku-4-5", 1.0, 5.0, Some(0.1), Some(1.25), 200_000, 64_000, Long::Same),
    ("claude-opus-4-1", 15.0, 75.0, Some(1.5), Some(18.75), 200_000, 32_000, Long::Same),
    ("claude-opus-4", 15.0, 75.0, Some(1.5), Some(18.75), 200_000, 32_000, Long::Same),
    ("claude-sonnet-4", 3.0, 15.0, Some(0.3), Some(3.75), 200_000, 64_000, Long::Same),
    ("claude-3-5-haiku", 0.8, 4.0, Some(0.08), Some(1.0), 200_000, 8192, Long::Same),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::Usage;

    #[test]
    fn dated_ids_find_their_model_and_other_suffixes_do_not() {
        let same = [
            ("openai", "gpt-5.1-2025-11-13", "gpt-5.1"),
            ("openai", "gpt-4o-2024-08-06", "gpt-4o"),
            (
                "anthropic",
                "claude-sonnet-4-5-20250929",
                "claude-sonnet-4-5",
            ),
            ("anthropic", "claude-3-5-haiku-latest", "claude-3-5-haiku"),
        ];
        for (provider, dated, plain) in same {
            assert!(lookup(provider, plain).is_some(), "{plain}");
            assert_eq!(lookup(provider, dated), lookup(provider, plain), "{dated}");
        }
        for (provider, unknown) in [
            ("openai", "gpt-4o-audio-preview"),
            ("openai", "gpt-5.1-2025-11-133"),
            ("openai", "claude-sonnet-5"),
            ("openai", ""),
            ("anthropic", "ü-20250929"),
            ("script", "gpt-5"),
        ] {
            assert_eq!(lookup(provider, unknown), None, "{unknown}");
        }
        assert_ne!(
            lookup("openai", "gpt-4o-2024-05-13"),
            lookup("openai", "gpt-4o")
        );
    }

    #[test]
    fn no_model_is_listed_twice_and_reads_cost_less_than_input() {
        for rows in [OPENAI, ANTHROPIC] {
            for (at, row) in rows.iter().enumerate() {
                assert!(
                    rows[at + 1..].iter().all(|other| other.0 != row.0),
                    "{}",
                    row.0
                );
                assert!(
                    row.3.is_none_or(|read| read < row.1) && row.1 < row.2,
                    "{}",
                    row.0
                );
                assert!(row.4.is_none_or(|write| write >= row.1), "{}", row.0);
                assert!(row.6 <= row.5, "{}", row.0);
            }
        }
    }

    #[test]
    fn a_long_call_is_priced_as_a_whole() {
        let price = lookup("openai", "gpt-5.4").unwrap().price;
        let call = |input_tokens| Usage {
            input_tokens,
            output_tokens: 1_000_000,
            ..Usage::default()
        };
        assert_eq!(price.cost_usd(call(272_000)), 0.68 + 15.0);
        assert_eq!(price.cost_usd(call(300_000)), 1.5 + 22.5);
    }
}
