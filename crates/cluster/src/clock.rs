//! The wall clock, for what others sign with dates. Waiting is measured by tokio's.

/// Seconds since 1970.
#[allow(
    clippy::disallowed_methods,
    reason = "this is the crate's clock: tokens end by the wall's time"
)]
pub(crate) fn now_seconds() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
