//! Where the official SDKs are, as `cargo xtask test` installed them, and the agents that use them.

use std::path::{Path, PathBuf};

/// The repository's `tests` folder.
#[must_use]
pub fn tests_folder() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().and_then(Path::parent).unwrap().join("tests")
}

/// The virtual environment's Python, or nothing with a printed reason.
#[must_use]
pub fn python(test: &str) -> Option<PathBuf> {
    find("MAINSTAY_TEST_PYTHON", test)
}

/// The folder with `node_modules`, or nothing with a printed reason.
#[must_use]
pub fn node(test: &str) -> Option<PathBuf> {
    find("MAINSTAY_TEST_NODE", test)
}

fn find(variable: &str, test: &str) -> Option<PathBuf> {
    let found = std::env::var_os(variable).map(PathBuf::from);
    if found.is_none() {
        eprintln!("{test} is left out: {variable} is not set (cargo xtask test sets it)");
    }
    found
}

/// The source of one of the ordinary agents under `tests/agents`.
#[must_use]
pub fn agent_source(name: &str) -> String {
    let path = tests_folder().join("agents").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
