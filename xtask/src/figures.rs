//! docs/benchmarks.md: each section lies between two marks and is replaced by the newest result of
//! that name. What was not measured this time stays as it was, with its own date.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Puts every `NAME.md` of the folder into the section of that name.
pub fn publish(results: &Path) -> Result<()> {
    let mut names: Vec<_> = fs::read_dir(results)?.collect::<Result<Vec<_>, _>>()?;
    names.sort_by_key(fs::DirEntry::file_name);
    for entry in names {
        let file = entry.path();
        if file.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        publish_section(&name, &fs::read_to_string(&file)?)?;
    }
    Ok(())
}

/// Puts a body into the section of that name.
pub fn publish_section(name: &str, body: &str) -> Result<()> {
    let page = replace(&page()?, name, body.trim());
    fs::write(path(), page).context("failed to write docs/benchmarks.md")?;
    eprintln!("figures: wrote {name} into docs/benchmarks.md");
    Ok(())
}

/// The body of the section of that name.
pub fn section(name: &str) -> Result<Option<String>> {
    Ok(find(&page()?, name).map(str::to_owned))
}

fn path() -> PathBuf {
    crate::run::root().join("docs/benchmarks.md")
}

fn page() -> Result<String> {
    fs::read_to_string(path()).context("docs/benchmarks.md is missing")
}

fn find<'a>(page: &'a str, name: &str) -> Option<&'a str> {
    let (begin, end) = marks(name);
    let (_, rest) = page.split_once(&begin)?;
    let (body, _) = rest.split_once(&end)?;
    Some(body.trim())
}

fn marks(name: &str) -> (String, String) {
    (
        format!("<!-- begin {name} -->"),
        format!("<!-- end {name} -->"),
    )
}

/// The page with that section's body replaced, or appended when it has no such section.
fn replace(page: &str, name: &str, body: &str) -> String {
    let (begin, end) = marks(name);
    let section = format!("{begin}\n{body}\n{end}");
    let old = page.find(&begin).zip(page.find(&end));
    match old {
        Some((from, to)) if from < to => {
            format!("{}{section}{}", &page[..from], &page[to + end.len()..])
        }
        _ => format!("{}\n\n{section}\n", page.trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_replaced_where_it_stands_and_appended_where_it_is_not() {
        let page = replace("# Figures\n", "a", "one");
        assert_eq!(page, "# Figures\n\n<!-- begin a -->\none\n<!-- end a -->\n");
        let page = replace(&page, "b", "two");
        let page = replace(&page, "a", "three");
        assert!(page.contains("three") && page.contains("two") && !page.contains("one"));
        assert!(page.find("three") < page.find("two"));
        assert_eq!(find(&page, "b"), Some("two"));
        assert_eq!(find(&page, "c"), None);
    }
}
