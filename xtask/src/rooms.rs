//! The arrows between rooms and the bans, as data, checked against what cargo resolved.
//!
//! A room may see the rooms its arrows lead to, and what those see. Some sights are barred even
//! so (`BARRED`), some crates must not be linked even through others (`UNLINKED`), and some must
//! not be in the tree at all (`BANNED`). Dependencies of tests are free.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};

use crate::metadata::{self, Metadata};

/// Arrows: a room and the rooms it may name in its Cargo.toml.
const ARROWS: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("mainstay-core", &["api"]),
    ("ledger", &["api"]),
    ("llm", &[]),
    ("contract", &[]),
    ("mcp", &[]),
    ("sandbox", &[]),
    ("store", &["mainstay-core", "ledger"]),
    ("keeper", &["mainstay-core", "contract", "sandbox"]),
    ("hub", &["store", "mainstay-core", "contract", "llm"]),
    ("gateway", &["hub", "mcp", "llm"]),
    ("facade", &["hub", "mcp"]),
    ("runtime", &["contract", "llm"]),
    ("relay", &["contract"]),
    ("custom-resource", &["api"]),
    ("cluster", &["hub", "custom-resource"]),
    ("operator", &["api", "contract", "custom-resource"]),
    (
        "mainstay",
        &[
            "keeper", "hub", "gateway", "facade", "runtime", "relay", "cluster", "operator",
        ],
    ),
    ("testkit", &["api", "contract"]),
    ("xtask", &[]),
];

/// Sights barred although arrows would allow them: the doors see the hub, not its log.
const BARRED: &[(&str, &str, &str)] = &[
    (
        "gateway",
        "store",
        "the gateway asks the hub, never the log",
    ),
    (
        "gateway",
        "ledger",
        "the gateway asks the hub, never the log",
    ),
    ("gateway", "facade", "the two doors never see each other"),
    ("facade", "store", "the facade asks the hub, never the log"),
    ("facade", "ledger", "the facade asks the hub, never the log"),
    ("facade", "gateway", "the two doors never see each other"),
];

/// Crates that a room must not link, not even through others.
const UNLINKED: &[(&str, &[&str], &str)] = &[
    ("api", IO, "types and validation do no I/O"),
    ("mainstay-core", IO, "decisions do no I/O and see no clock"),
    ("ledger", IO, "the tree and its proofs do no I/O"),
    ("llm", IO, "dialects do no I/O"),
    ("contract", IO, "the codec does no I/O"),
    (
        "keeper",
        &[
            "tokio",
            "rusqlite",
            "libsqlite3-sys",
            "rustls",
            "aws-lc-rs",
            "hyper",
            "reqwest",
            "axum",
        ],
        "the keeper has no network, no TLS and no database, and forks: it stays single-threaded",
    ),
];

const IO: &[&str] = &[
    "tokio", "mio", "socket2", "hyper", "reqwest", "axum", "rusqlite", "rustix", "tempfile",
];

/// Crates that must not be in the tree, tests and build scripts included.
const BANNED: &[&str] = &["ring", "openssl", "openssl-sys", "native-tls", "async-std"];

/// Checks everything and reports all that is wrong.
pub fn check() -> Result<()> {
    let metadata = metadata::load()?;
    let built = metadata::built(None)?;
    let mut wrong = arrows(&metadata);
    wrong.extend(unlinked(&metadata));
    wrong.extend(banned(&built));
    if wrong.is_empty() {
        eprintln!(
            "rooms: {} rooms, {} packages built, every arrow holds",
            ARROWS.len(),
            built.len()
        );
        return Ok(());
    }
    for line in &wrong {
        eprintln!("rooms: {line}");
    }
    bail!(
        "{} arrows or bans are broken (xtask/src/rooms.rs)",
        wrong.len()
    )
}

/// Every room a room may see: its arrows, followed to the end.
fn reachable(room: &str, arrows: &BTreeMap<&str, &[&'static str]>) -> BTreeSet<&'static str> {
    let mut seen = BTreeSet::new();
    let mut open: Vec<&'static str> = arrows.get(room).map_or(&[][..], |list| list).to_vec();
    while let Some(next) = open.pop() {
        if seen.insert(next) {
            open.extend(arrows.get(next).map_or(&[][..], |list| list));
        }
    }
    seen
}

fn arrows(metadata: &Metadata) -> Vec<String> {
    let members = metadata.members();
    let arrows: BTreeMap<&str, &[&'static str]> = ARROWS.iter().copied().collect();
    let mut wrong = Vec::new();
    for (id, room) in &members {
        if !arrows.contains_key(room) {
            wrong.push(format!("{room} has no arrows: name it in ARROWS"));
            continue;
        }
        let allowed = reachable(room, &arrows);
        for seen in metadata.normal(id).iter().filter_map(|id| members.get(id)) {
            if !allowed.contains(seen) {
                wrong.push(format!("{room} must not see {seen}: no arrow leads there"));
            }
            for (_, _, why) in BARRED.iter().filter(|(a, b, _)| a == room && b == seen) {
                wrong.push(format!("{room} must not see {seen}: {why}"));
            }
        }
    }
    wrong
}

fn unlinked(metadata: &Metadata) -> Vec<String> {
    let members = metadata.members();
    let mut wrong = Vec::new();
    for (id, room) in &members {
        for (_, crates, why) in UNLINKED.iter().filter(|(name, _, _)| name == room) {
            let linked = metadata.linked(id);
            let names = linked.iter().filter_map(|id| metadata.package(id));
            for name in names.map(|package| package.name.as_str()) {
                if crates.contains(&name) {
                    wrong.push(format!("{room} links {name}: {why}"));
                }
            }
        }
    }
    wrong
}

fn banned(built: &BTreeSet<(String, String)>) -> Vec<String> {
    let banned = built
        .iter()
        .filter(|(name, _)| BANNED.contains(&name.as_str()));
    banned
        .map(|(name, version)| format!("{name} {version} is banned"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(rooms: &[(&str, &[&str])]) -> Metadata {
        let names: BTreeSet<&str> = rooms
            .iter()
            .flat_map(|(room, seen)| std::iter::once(*room).chain(seen.iter().copied()))
            .collect();
        let packages: Vec<_> = names
            .iter()
            .map(|name| serde_json::json!({"id": name, "name": name, "version": "1.0.0"}))
            .collect();
        let nodes: Vec<_> = names
            .iter()
            .map(|name| {
                let seen = rooms.iter().find(|(room, _)| room == name);
                let deps: Vec<_> = seen
                    .map_or(&[][..], |(_, seen)| seen)
                    .iter()
                    .map(|id| serde_json::json!({"pkg": id, "dep_kinds": [{"kind": null}]}))
                    .collect();
                serde_json::json!({"id": name, "deps": deps})
            })
            .collect();
        let members: Vec<_> = rooms.iter().map(|(room, _)| *room).collect();
        serde_json::from_value(serde_json::json!({
            "packages": packages, "workspace_members": members,
            "resolve": {"nodes": nodes}, "target_directory": "/nowhere",
        }))
        .unwrap()
    }

    #[test]
    fn an_arrow_may_be_followed_to_its_end() {
        let tree = metadata(&[("hub", &["api"]), ("api", &[]), ("store", &[])]);
        assert_eq!(arrows(&tree), Vec::<String>::new());
    }

    #[test]
    fn a_room_without_an_arrow_is_not_seen() {
        let tree = metadata(&[("api", &["hub"]), ("hub", &[])]);
        assert_eq!(arrows(&tree).len(), 1);
    }

    #[test]
    fn a_door_that_sees_the_log_is_reported_although_the_hub_sees_it() {
        let tree = metadata(&[("gateway", &["store"]), ("store", &[])]);
        let wrong = arrows(&tree);
        assert!(wrong[0].contains("never the log"), "{wrong:?}");
    }

    #[test]
    fn a_keeper_that_links_tokio_through_another_crate_is_reported() {
        let tree = metadata(&[("keeper", &["harmless"]), ("harmless", &["tokio"])]);
        assert_eq!(unlinked(&tree).len(), 1);
    }

    #[test]
    fn a_banned_crate_is_reported_with_its_version() {
        let built = BTreeSet::from([("ring".to_owned(), "0.17.0".to_owned())]);
        assert_eq!(banned(&built), ["ring 0.17.0 is banned"]);
    }

    #[test]
    fn a_new_room_must_be_given_arrows() {
        let tree = metadata(&[("attic", &[])]);
        assert!(arrows(&tree)[0].contains("has no arrows"));
    }
}
