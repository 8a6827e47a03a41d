//! Tokens: what a call used, counted one way whatever the provider, and what it cost.
//! `input_tokens` is everything the model read (OpenTelemetry's sense); cache reads and writes are parts of it.
//! An unknown price is no price: nothing here turns it into zero.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Tokens of one call, or a sum of calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// All tokens read, cached ones included.
    pub input_tokens: u64,
    /// All tokens written, reasoning included.
    pub output_tokens: u64,
    pub cache_read_tokens: u64,
    pub cache_write_tokens: u64,
    /// The part of the output that was reasoning; 0 where the provider doesn't say.
    #[serde(default)]
    pub reasoning_tokens: u64,
    /// The provider didn't report: counted from the text.
    pub estimated: bool,
}

impl Usage {
    /// The sum; estimated if either is.
    pub fn plus(self, other: Usage) -> Usage {
        Usage {
            input_tokens: self.input_tokens.saturating_add(other.input_tokens),
            output_tokens: self.output_tokens.saturating_add(other.output_tokens),
            cache_read_tokens: self
                .cache_read_tokens
                .saturating_add(other.cache_read_tokens),
            cache_write_tokens: self
                .cache_write_tokens
                .saturating_add(other.cache_write_tokens),
            reasoning_tokens: self.reasoning_tokens.saturating_add(other.reasoning_tokens),
            estimated: self.estimated || other.estimated,
        }
    }

    pub fn total_tokens(self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }

    /// Input that was neither read from nor written to a cache.
    pub fn uncached_input_tokens(self) -> u64 {
        self.input_tokens
            .saturating_sub(self.cache_read_tokens)
            .saturating_sub(self.cache_write_tokens)
    }
}

/// US dollars per million tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Price {
    pub input: f64,
    pub output: f64,
    /// As `input` if absent.
    pub cache_read: Option<f64>,
    /// As `input` if absent.
    pub cache_write: Option<f64>,
    /// Another price for the whole call when it reads more than so many tokens.
    pub long: Option<LongPrice>,
}

/// The price of a call whose input is longer than `above_input_tokens`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LongPrice {
    pub above_input_tokens: u64,
    pub input: f64,
    pub output: f64,
    pub cache_read: f64,
    pub cache_write: Option<f64>,
}

impl Price {
    /// What a call cost, in US dollars. `usage` must be one call's: long calls are priced as a whole.
    pub fn cost_usd(&self, usage: Usage) -> f64 {
        let price = match self.long {
            Some(long) if usage.input_tokens > long.above_input_tokens => Price {
                input: long.input,
                output: long.output,
                cache_read: Some(long.cache_read),
                cache_write: long.cache_write,
                long: None,
            },
            _ => *self,
        };
        let tokens = [
            (usage.uncached_input_tokens(), price.input),
            (
                usage.cache_read_tokens,
                price.cache_read.unwrap_or(price.input),
            ),
            (
                usage.cache_write_tokens,
                price.cache_write.unwrap_or(price.input),
            ),
            (usage.output_tokens, price.output),
        ];
        let dollars = tokens
            .iter()
            .map(|(count, per_million)| *count as f64 * per_million);
        dollars.sum::<f64>() / 1e6
    }
}

/// Usage of an embeddings answer, if it says.
pub fn embeddings_usage(body: &Value) -> Option<Usage> {
    let input_tokens = body.get("usage")?.get("prompt_tokens")?.as_u64()?;
    Some(Usage {
        input_tokens,
        ..Usage::default()
    })
}
