//! Tokens and money, as counted by providers or estimated by us.

use serde::{Deserialize, Serialize};

/// Token counts of one call or the sum over a task. `input_tokens` includes cached ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cache_read_tokens: u64,
    pub cache_write_tokens: u64,
    /// At least one call came without counts and was estimated.
    pub estimated: bool,
}

impl Usage {
    /// Adds another call's counts.
    pub fn add(&mut self, other: &Self) {
        self.input_tokens = self.input_tokens.saturating_add(other.input_tokens);
        self.output_tokens = self.output_tokens.saturating_add(other.output_tokens);
        self.cache_read_tokens = self
            .cache_read_tokens
            .saturating_add(other.cache_read_tokens);
        self.cache_write_tokens = self
            .cache_write_tokens
            .saturating_add(other.cache_write_tokens);
        self.estimated |= other.estimated;
    }

    /// Input and output together: what a token budget counts.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }
}

/// Money in millionths of a US dollar: integers, so that sums are exact and replays equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cost {
    pub micro_usd: u64,
    /// A call's price was not known: the sum is a lower bound and shows as unknown.
    pub unknown: bool,
}

impl Cost {
    /// From dollars; `None` is an unknown price.
    #[must_use]
    pub fn from_usd(usd: Option<f64>) -> Self {
        match usd {
            Some(usd) if usd.is_finite() && usd >= 0.0 => Self {
                // Half a millionth rounds up; f64 is exact far beyond any task's cost.
                #[allow(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "bounded above by the min"
                )]
                micro_usd: (usd * 1e6).round().min(1e18) as u64,
                unknown: false,
            },
            _ => Self {
                micro_usd: 0,
                unknown: true,
            },
        }
    }

    /// Adds another call's cost.
    pub fn add(&mut self, other: &Self) {
        self.micro_usd = self.micro_usd.saturating_add(other.micro_usd);
        self.unknown |= other.unknown;
    }

    /// Dollars, `None` when a part of it is unknown.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "below 2^53 for any real sum")]
    pub fn usd(&self) -> Option<f64> {
        (!self.unknown).then_some(self.micro_usd as f64 / 1e6)
    }
}
