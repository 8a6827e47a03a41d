//! One object of a manifest: what it says, and where each of its fields was written.

use super::{DEFAULT_NAMESPACE, Kind, Metadata};
use crate::agent::AgentSpec;
use crate::check::Places;
use crate::file::{File, Mark};
use crate::problem::Problem;
use crate::prompt_pack::PromptPackSpec;
use crate::provider::ProviderSpec;
use crate::tool_registry::ToolRegistrySpec;
use crate::workspace::WorkspaceSpec;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;

/// An object that is right in itself.
#[derive(Debug, Clone)]
pub struct Object {
    /// Where the object begins.
    pub place: Place,
    pub metadata: Metadata,
    pub spec: Spec,
    pub(crate) file: Arc<File>,
    pub(crate) places: Arc<Places>,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    pub path: String,
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
}

/// What an object says, by kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Spec {
    Provider(ProviderSpec),
    PromptPack(PromptPackSpec),
    ToolRegistry(ToolRegistrySpec),
    Agent(Box<AgentSpec>),
    Workspace(WorkspaceSpec),
}

impl Object {
    pub fn kind(&self) -> Kind {
        match self.spec {
            Spec::Provider(_) => Kind::Provider,
            Spec::PromptPack(_) => Kind::PromptPack,
            Spec::ToolRegistry(_) => Kind::ToolRegistry,
            Spec::Agent(_) => Kind::Agent,
            Spec::Workspace(_) => Kind::Workspace,
        }
    }

    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    /// The workspace it belongs to; a Workspace belongs to the one it names.
    pub fn workspace(&self) -> &str {
        match self.spec {
            Spec::Workspace(_) => &self.metadata.name,
            _ => self
                .metadata
                .namespace
                .as_deref()
                .unwrap_or(DEFAULT_NAMESPACE),
        }
    }

    /// As a manifest, with the defaults filled in.
    pub fn to_json(&self) -> Value {
        let spec = match &self.spec {
            Spec::Provider(spec) => serde_json::to_value(spec),
            Spec::PromptPack(spec) => serde_json::to_value(spec),
            Spec::ToolRegistry(spec) => serde_json::to_value(spec),
            Spec::Agent(spec) => serde_json::to_value(spec),
            Spec::Workspace(spec) => serde_json::to_value(spec),
        };
        json!({
            "apiVersion": crate::API_VERSION,
            "kind": self.kind().name(),
            "metadata": self.metadata,
            "spec": spec.expect("a spec has only string keys and finite numbers"),
        })
    }

    /// As a manifest, with only what was written: what was left out is nobody's who applies it.
    pub fn as_written(&self) -> Value {
        let mut object = self.to_json();
        self.prune(&mut object, "");
        object["apiVersion"] = crate::API_VERSION.into();
        object["kind"] = self.kind().name().into();
        object
    }

    fn prune(&self, value: &mut Value, at: &str) {
        let below = |name: &str| match at {
            "" => name.to_owned(),
            at => format!("{at}.{name}"),
        };
        match value {
            // What is the user's own form has no places in it.
            Value::Object(fields) if !fields.keys().any(|name| self.wrote(&below(name))) => {}
            Value::Object(fields) => fields.retain(|name, field| {
                let at = below(name);
                let is_written = self.wrote(&at);
                if is_written {
                    self.prune(field, &at);
                }
                is_written
            }),
            Value::Array(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.prune(item, &format!("{at}[{index}]"));
                }
            }
            _ => {}
        }
    }

    /// A problem with one of its fields, at the field or at the nearest thing around it that was written.
    pub fn problem(&self, field: &str, message: impl Into<String>) -> Problem {
        self.file.problem(self.mark(field), message)
    }

    /// Whether a field was written, and not filled in.
    pub fn wrote(&self, field: &str) -> bool {
        self.places.get(field).is_some()
    }

    /// `path:line:column` of a field.
    pub(crate) fn place_of(&self, field: &str) -> String {
        self.file.place(self.mark(field))
    }

    fn mark(&self, field: &str) -> Mark {
        let mut path = field;
        loop {
            if let Some(mark) = self.places.get(path) {
                return *mark;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => {
                    return Mark {
                        line: self.place.line,
                        column: self.place.column,
                        length: usize::MAX,
                    };
                }
            }
        }
    }
}
