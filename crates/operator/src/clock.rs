//! The wall clock, for the times that objects carry. Waiting is measured by tokio's.

use k8s_openapi::jiff::Timestamp;

#[allow(
    clippy::disallowed_methods,
    reason = "this is the crate's clock: conditions and leases are dated by the wall's time"
)]
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}

/// As Kubernetes writes a time: whole seconds.
pub(crate) fn now_text() -> String {
    now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
