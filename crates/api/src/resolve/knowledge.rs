//! What resolving needs from rooms that see this one, as plain functions: prices, expressions, schemas, transcripts.
//!
//! The binary hands it to whoever resolves, so that a keeper, an operator and a hub's home link none of them, and a
//! manifest means the same to all three.

use super::{Facts, Home};
use crate::fleet::ModelFacts;
use serde_json::Value;
use std::path::Path;

/// The functions, by what `Facts` asks.
#[derive(Clone, Copy, Debug)]
pub struct Knowledge {
    pub model: fn(&str, &str) -> Option<ModelFacts>,
    pub check_expression: fn(&str) -> Result<(), String>,
    pub check_schema: fn(&Value) -> Result<(), String>,
    pub check_script: fn(&str) -> Result<(), String>,
}

impl Knowledge {
    /// No price, and whatever is asked about is taken as it is.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            model: |_, _| None,
            check_expression: |_| Ok(()),
            check_schema: |_| Ok(()),
            check_script: |_| Ok(()),
        }
    }

    /// For a fleet on this server, whose files `read` reads.
    pub fn on_server<'a>(&'a self, read: &'a dyn Fn(&Path) -> Result<String, String>) -> Facts<'a> {
        Facts {
            read,
            home: Home::Box,
            ..self.on_kubernetes()
        }
    }

    /// For a fleet in a cluster, where no file of a server is.
    pub fn on_kubernetes(&self) -> Facts<'_> {
        Facts {
            model: &self.model,
            read: &|_| Err("a file of a server is not in a cluster".to_owned()),
            check_expression: &self.check_expression,
            check_schema: &self.check_schema,
            check_script: &self.check_script,
            home: Home::Kubernetes,
        }
    }
}
