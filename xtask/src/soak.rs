//! The kill sweeps by the hundred, against the release build, with their result in the documents.
//!
//! Each sweep is run on its own and its row is written as soon as it has ended: a run that is
//! interrupted leaves what it has, and has said which sweep was at what.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::run::{cargo, run, target_dir};
use crate::test::Sdks;
use crate::{figures, sdk};

/// Tests of `testkit`'s `sdk`, without the `sweep_` that all of them begin with.
const SWEEPS: &[&str] = &[
    "agents_openai_chat_in_python",
    "agents_openai_chat_in_node",
    "agents_anthropic_messages_in_python",
    "agents_langgraph",
    "agents_openai_agents_sdk",
    "hub",
    "keeper_followed_by_a_new_up",
];

const HEAD: &str = "\
| sweep | killed | agent | tasks | kills | steps replayed | model calls made again | reported as `repeated` | questions answered | s |
|---|---|---|---|---|---|---|---|---|---|
";

/// Fewer prove less than what the documents hold.
const PUBLISHED_FROM: u32 = 100;

/// Runs the sweeps whose name contains `only` with that many tasks each.
pub fn soak(tasks: u32, only: Option<&str>) -> Result<()> {
    let wanted: Vec<&str> = SWEEPS
        .iter()
        .copied()
        .filter(|sweep| only.is_none_or(|only| sweep.contains(only)))
        .collect();
    if wanted.is_empty() {
        bail!("no sweep of that name; there are {}", SWEEPS.join(", "));
    }
    let installed = sdk::install(Sdks::Required)?;
    run(cargo().args(["build", "--release", "--locked", "--package", "mainstay"]))?;
    let target = target_dir()?;
    let mut table = if tasks < PUBLISHED_FROM {
        HEAD.to_owned()
    } else {
        figures::section("soak")?.unwrap_or_else(|| HEAD.to_owned())
    };
    let mut failed = Vec::new();
    for (number, sweep) in wanted.iter().enumerate() {
        eprintln!(
            "soak: {sweep}, {} of {}, {tasks} tasks",
            number + 1,
            wanted.len()
        );
        let mut tests = sweep_of(sweep, tasks);
        crate::test::environment(&mut tests, &installed)?;
        tests.env("MAINSTAY_BIN", target.join("release/mainstay"));
        let row = ended(&mut tests, &target.join("soak-row"));
        if row.is_none() {
            failed.push(*sweep);
        }
        let row = row.unwrap_or_else(|| format!("FAILED | | {tasks} | | | | | |"));
        table = with_row(&table, sweep, &row);
        if tasks >= PUBLISHED_FROM {
            figures::publish_section("soak", &table)?;
        }
    }
    print!("{table}");
    if !failed.is_empty() {
        bail!("{} failed; what they said is above", failed.join(", "));
    }
    Ok(())
}

fn sweep_of(sweep: &str, tasks: u32) -> Command {
    let mut tests = cargo();
    tests.args(["test", "--release", "--locked", "--package", "testkit"]);
    tests.args(["--test", "sdk", "--", "--nocapture", "--exact"]);
    tests.arg(format!("sweep::sweep_{sweep}"));
    tests.env("MAINSTAY_SWEEP_TASKS", tasks.to_string());
    tests
}

/// The row of a sweep that ended well. One that wrote none, because it was renamed, did not.
fn ended(tests: &mut Command, row: &Path) -> Option<String> {
    let _of_the_sweep_before = fs::remove_file(row);
    tests.env("MAINSTAY_SWEEP_ROW", row);
    if let Err(error) = run(tests) {
        eprintln!("soak: {error:#}");
        return None;
    }
    fs::read_to_string(row).ok()
}

/// The table with that sweep's row replaced, or added at its end.
fn with_row(table: &str, sweep: &str, row: &str) -> String {
    let begin = format!("| {sweep} |");
    let row = format!("{begin} {row} |");
    let mut lines: Vec<&str> = table.trim().lines().collect();
    match lines.iter_mut().find(|line| line.starts_with(&begin)) {
        Some(line) => *line = &row,
        None => lines.push(&row),
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_replaces_its_own_row_and_no_other() {
        let table = with_row(HEAD, "hub", "one");
        let table = with_row(&table, "agents", "two");
        let table = with_row(&table, "hub", "three");
        let rows: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(rows, ["| hub | three |", "| agents | two |"]);
    }

    #[test]
    fn a_sweep_without_a_row_has_not_ended_well() {
        let nowhere = std::env::temp_dir().join("mainstay-no-such-folder/row");
        assert_eq!(ended(&mut Command::new("true"), &nowhere), None);
    }
}
