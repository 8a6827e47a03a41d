//! The wall clock, read in one place.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the epoch.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "this is that one place")]
pub fn unix_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Seconds since the epoch, as answers carry them.
#[must_use]
pub fn unix_s() -> u64 {
    u64::try_from(unix_ms() / 1000).unwrap_or_default()
}
