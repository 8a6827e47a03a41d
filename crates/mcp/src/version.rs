//! Protocol versions: which are spoken, and what sets the stateless one apart.
//!
//! Up to 2025-11-25 a connection opens with `initialize`. From 2026-07-28 on there is no
//! handshake: every request names its version in `_meta`, and `server/discover` tells what a
//! server can do.

/// The stateless revision.
pub const STATELESS: &str = "2026-07-28";

/// The newest revision that opens with `initialize`.
pub const NEWEST_WITH_HANDSHAKE: &str = "2025-11-25";

/// All that are spoken, newest first.
pub const SPOKEN: [&str; 4] = [STATELESS, NEWEST_WITH_HANDSHAKE, "2025-06-18", "2025-03-26"];

/// Where a request of the stateless revision names its version.
pub const VERSION_META: &str = "io.modelcontextprotocol/protocolVersion";
/// Where it names itself.
pub const CLIENT_INFO_META: &str = "io.modelcontextprotocol/clientInfo";
/// Where it says what it can do.
pub const CLIENT_CAPABILITIES_META: &str = "io.modelcontextprotocol/clientCapabilities";
/// Where a server names itself in the stateless revision.
pub const SERVER_INFO_META: &str = "io.modelcontextprotocol/serverInfo";

/// The version to answer `initialize` with: the one asked for if it is spoken, else our newest.
#[must_use]
pub fn negotiate(asked: &str) -> &'static str {
    SPOKEN
        .into_iter()
        .find(|version| *version == asked && *version != STATELESS)
        .unwrap_or(NEWEST_WITH_HANDSHAKE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_nobody_speaks_is_answered_with_the_newest_that_has_a_handshake() {
        assert_eq!(negotiate("2025-06-18"), "2025-06-18");
        assert_eq!(negotiate("2199-01-01"), NEWEST_WITH_HANDSHAKE);
        // Asked for in a handshake that it doesn't have.
        assert_eq!(negotiate(STATELESS), NEWEST_WITH_HANDSHAKE);
    }
}
