//! What `cargo metadata` says about the workspace, as far as the chores ask.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde::Deserialize;

/// The platform everything is resolved for.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";

#[derive(Deserialize)]
pub struct Metadata {
    pub packages: Vec<Package>,
    pub workspace_members: Vec<String>,
    pub resolve: Resolve,
    pub target_directory: String,
}

#[derive(Deserialize)]
pub struct Package {
    pub id: String,
    pub name: String,
    pub version: String,
    pub license: Option<String>,
    pub source: Option<String>,
}

#[derive(Deserialize)]
pub struct Resolve {
    pub nodes: Vec<Node>,
}

#[derive(Deserialize)]
pub struct Node {
    pub id: String,
    pub deps: Vec<Dependency>,
}

#[derive(Deserialize)]
pub struct Dependency {
    pub pkg: String,
    pub dep_kinds: Vec<DependencyKind>,
}

#[derive(Deserialize)]
pub struct DependencyKind {
    pub kind: Option<String>,
}

/// Asks cargo, for Linux and with the committed lock file.
pub fn load() -> Result<Metadata> {
    let text = crate::run::read(crate::run::cargo().args([
        "metadata",
        "--format-version=1",
        "--locked",
        "--filter-platform",
        TARGET,
    ]))?;
    serde_json::from_str(&text).context("cargo metadata answered something else")
}

impl Metadata {
    /// A package of the workspace, by its name.
    pub fn member(&self, name: &str) -> Result<&Package> {
        let (id, _) = self
            .members()
            .into_iter()
            .find(|(_, member)| *member == name)
            .with_context(|| format!("no package {name}"))?;
        self.package(id).with_context(|| format!("no package {id}"))
    }

    /// The package of that id.
    pub fn package(&self, id: &str) -> Option<&Package> {
        self.packages.iter().find(|package| package.id == id)
    }

    /// Names of the workspace's own packages, by id.
    pub fn members(&self) -> BTreeMap<&str, &str> {
        let members: BTreeSet<&str> = self.workspace_members.iter().map(String::as_str).collect();
        let own = self
            .packages
            .iter()
            .filter(|p| members.contains(p.id.as_str()));
        own.map(|package| (package.id.as_str(), package.name.as_str()))
            .collect()
    }

    /// What a package links: its normal dependencies, without those of tests and build scripts.
    pub fn normal(&self, id: &str) -> Vec<&str> {
        let node = self.resolve.nodes.iter().find(|node| node.id == id);
        let dependencies = node.map_or(&[][..], |node| &node.deps);
        let normal = dependencies
            .iter()
            .filter(|dependency| dependency.dep_kinds.iter().any(|kind| kind.kind.is_none()));
        normal.map(|dependency| dependency.pkg.as_str()).collect()
    }

    /// Everything a package links, with what that links in turn.
    pub fn linked<'a>(&'a self, id: &'a str) -> BTreeSet<&'a str> {
        let mut seen = BTreeSet::new();
        let mut open = vec![id];
        while let Some(next) = open.pop() {
            for dependency in self.normal(next) {
                if seen.insert(dependency) {
                    open.push(dependency);
                }
            }
        }
        seen
    }
}

/// Names and versions of everything that is really built: of the workspace with its tests, or of
/// what one package links. `cargo metadata` names optional crates that no feature enables too.
pub fn built(package: Option<&str>) -> Result<BTreeSet<(String, String)>> {
    let mut tree = crate::run::cargo();
    tree.args(["tree", "--locked", "--target", TARGET]);
    tree.args(["--prefix=none", "--no-dedupe", "--format={p}"]);
    match package {
        Some(name) => tree.args(["--edges=normal", "--package", name]),
        None => tree.args(["--edges=normal,build,dev", "--workspace"]),
    };
    Ok(parse_tree(&crate::run::read(&mut tree)?))
}

/// Lines such as `serde v1.0.0` or `api v0.1.0 (/path)`.
fn parse_tree(text: &str) -> BTreeSet<(String, String)> {
    let lines = text.lines().filter_map(|line| {
        let (name, rest) = line.split_once(" v")?;
        let version = rest.split_whitespace().next()?;
        Some((name.to_owned(), version.to_owned()))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_read_whatever_stands_behind_the_version() {
        let built = parse_tree("api v0.1.0 (/here)\nserde v1.0.2\nsyn v3.0.1 (proc-macro)\n\n");
        let names: Vec<_> = built
            .iter()
            .map(|(name, version)| format!("{name} {version}"))
            .collect();
        assert_eq!(names, ["api 0.1.0", "serde 1.0.2", "syn 3.0.1"]);
    }
}
