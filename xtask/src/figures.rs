//! docs/benchmarks.md: each section lies between two marks and is replaced by the newest result of
//! that name. What was not measured this time stays as it was, with its own date.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Puts every `NAME.md` of the folder into the section of that name.
pub fn publish(results: &Path) -> Result<()> {
    let path = crate::run::root().join("docs/benchmarks.md");
    let mut page = fs::read_to_string(&path).context("docs/benchmarks.md is missing")?;
    let mut names: Vec<_> = fs::read_dir(results)?.collect::<Result<Vec<_>, _>>()?;
    names.sort_by_key(fs::DirEntry::file_name);
    for entry in names {
        let file = entry.path();
        if file.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        let body = fs::read_to_string(&file)?;
        page = replace(&page, &name, body.trim());
        eprintln!("figures: {name}");
    }
    fs::write(&path, page)?;
    eprintln!("figures: wrote {}", path.display());
    Ok(())
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
    }
}
