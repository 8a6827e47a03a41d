//! An agent's code on Kubernetes: which artifact its `spec.source` was sent as, and the images that
//! run it where the manifest names none.
//!
//! The annotation is the command line's, written as `sha256sum` would: `HASH  SOURCE`. It counts only
//! as long as `spec.source` says what was sent, so a manifest that is applied by another hand runs on
//! what was sent before, or says that it must be sent.

use std::collections::BTreeMap;

/// Which artifact an agent's source was sent as.
pub const SOURCE: &str = "mainstay.dev/source";

/// For a source whose command is Python's, and no image.
pub const PYTHON_IMAGE: &str = "python:3.12-slim";
/// For a source whose command is Node's, and no image.
pub const NODE_IMAGE: &str = "node:20-slim";

const HASH_DIGITS: usize = 64;
const BETWEEN: &str = "  ";

/// The annotation's value.
pub fn source_annotation(hash: &str, source: &str) -> String {
    format!("{hash}{BETWEEN}{source}")
}

/// The artifact that this source was sent as, by an object's annotations.
pub fn sent_source(annotations: &BTreeMap<String, String>, source: &str) -> Option<String> {
    let (hash, sent) = annotations.get(SOURCE)?.split_once(BETWEEN)?;
    let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let is_hash = hash.len() == HASH_DIGITS && hash.bytes().all(is_digit);
    (is_hash && sent == source).then(|| hash.to_owned())
}

/// The image in which a command runs if its manifest names none.
pub fn default_image(command: &[String]) -> Option<&'static str> {
    let program = command.first()?;
    let name = program.rsplit('/').next().unwrap_or(program);
    let is_versioned = |of: &str| {
        let version = name.strip_prefix(of)?;
        let mut version = version.bytes();
        version
            .all(|byte| byte.is_ascii_digit() || byte == b'.')
            .then_some(())
    };
    match name {
        "pip" | "pip3" => Some(PYTHON_IMAGE),
        "npm" | "npx" => Some(NODE_IMAGE),
        _ if is_versioned("python").is_some() => Some(PYTHON_IMAGE),
        _ if is_versioned("node").is_some() => Some(NODE_IMAGE),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_counts_for_the_source_that_it_was() {
        let hash = "0a".repeat(32);
        let of = |value: String| BTreeMap::from([(SOURCE.to_owned(), value)]);
        let sent = of(source_annotation(&hash, "./my  agent"));
        assert_eq!(sent_source(&sent, "./my  agent"), Some(hash.clone()));
        assert_eq!(sent_source(&sent, "./other"), None);
        assert_eq!(sent_source(&BTreeMap::new(), "./my  agent"), None);
        for wrong in [
            hash.clone(),
            source_annotation("../x", "a"),
            source_annotation(&hash.to_uppercase(), "a"),
            source_annotation(&hash[1..], "a"),
        ] {
            assert_eq!(sent_source(&of(wrong.clone()), "a"), None, "{wrong}");
        }
    }

    #[test]
    fn python_and_node_have_images() {
        let image = |program: &str| default_image(&[program.to_owned(), "x".to_owned()]);
        for program in ["python", "python3", "/usr/bin/python3.12", "pip"] {
            assert_eq!(image(program), Some(PYTHON_IMAGE), "{program}");
        }
        for program in ["node", "npx", "/usr/local/bin/node"] {
            assert_eq!(image(program), Some(NODE_IMAGE), "{program}");
        }
        for program in ["./server", "pythonic", "nodemon", ""] {
            assert_eq!(image(program), None, "{program}");
        }
        assert_eq!(default_image(&[]), None);
    }
}
