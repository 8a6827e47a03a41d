//! Documents in, objects out: which documents are manifests, of which kind, and what each says.
//!
//! Looks at one document at a time; whether objects fit together is decided in `resolve`.

mod object;
mod read;

pub use object::{Object, Place, Spec};
pub(crate) use read::{Parsed, parse_all};

use crate::problem::Problems;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A file's text, YAML (of any number of documents) or JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// As shown in problems; relative paths in the manifest start at its directory.
    pub path: String,
    pub text: String,
    /// True if nobody named this file: it was met in a directory. Then documents that don't look like a manifest are
    /// passed over, because directories also hold transcripts, package files and the like.
    #[serde(default)]
    pub found: bool,
}

impl Document {
    /// A file that somebody named: everything in it must be a manifest.
    pub fn named(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            text: text.into(),
            found: false,
        }
    }

    /// A file that was met in a directory.
    pub fn found(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            text: text.into(),
            found: true,
        }
    }
}

/// The five kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    Provider,
    PromptPack,
    ToolRegistry,
    Agent,
    Workspace,
}

impl Kind {
    pub const ALL: [Kind; 5] = [
        Self::Provider,
        Self::PromptPack,
        Self::ToolRegistry,
        Self::Agent,
        Self::Workspace,
    ];

    /// As written in `kind`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Provider => "Provider",
            Self::PromptPack => "PromptPack",
            Self::ToolRegistry => "ToolRegistry",
            Self::Agent => "Agent",
            Self::Workspace => "Workspace",
        }
    }

    /// From what a person types: any case, singular or plural.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let singular = text.strip_suffix("ies").map(|stem| format!("{stem}y"));
        let singular = singular
            .as_deref()
            .or(text.strip_suffix('s'))
            .unwrap_or(&text);
        Self::ALL
            .into_iter()
            .find(|kind| kind.name().eq_ignore_ascii_case(singular))
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The workspace of objects that name none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// What every object has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// A DNS label, unique among the objects of its kind.
    #[schemars(extend("format" = "mainstay-name"))]
    pub name: String,
    /// The workspace; left out: default.
    #[schemars(extend("format" = "mainstay-name"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// For people, and to tell agents apart in lists.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// For tools that handle manifests.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The objects of these documents, each right in itself; or everything that is wrong with one of them.
pub fn parse(documents: &[Document]) -> Result<Vec<Object>, Problems> {
    let parsed = parse_all(documents);
    if parsed.problems.is_empty() {
        Ok(parsed.objects)
    } else {
        Err(Problems(parsed.problems))
    }
}
