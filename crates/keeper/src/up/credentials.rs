//! Hands the hub the credential files that its own user may not read, and warns of what is missing.

use std::collections::BTreeSet;
use std::path::Path;

use contract::keeper::ToHub;

use super::{Keeper, say};
use crate::credential;
use crate::manifest;

impl Keeper {
    /// Says what the desired set names and isn't there; it runs all the same.
    pub(super) fn look_for_credentials(&mut self) {
        self.credential_files = self.own_credential_files();
        let Some(set) = &self.desired else { return };
        let workspace = self.state.root.join("workspaces").join(&self.workspace);
        let environment = &self.options.hub.environment;
        let missing = credential::missing(&set.fleet, environment, &workspace.join("secrets"));
        for sentence in missing {
            say(&format!("warning: {sentence}"));
        }
    }

    /// Where users are separate: sends the content of each file that the manifests given to `up`
    /// name as a credential.
    pub(super) fn hand_credentials(&mut self) {
        if !self.state.users.separate {
            return;
        }
        for path in self.credential_files.clone() {
            let handed = credential::read(Path::new(&path))
                .and_then(|text| sandbox::descriptors::sealed_memfd("credential", text.as_bytes()));
            match handed {
                Ok(memory) => self.hub.send(&ToHub::CredentialFile { path }, vec![memory]),
                Err(error) => tracing::debug!(path, %error, "credential file is not handed on"),
            }
        }
    }

    fn own_credential_files(&self) -> Vec<String> {
        let Some(set) = &self.desired else {
            return Vec::new();
        };
        let Ok(own) = manifest::collect(&self.options.manifests, &self.state.root) else {
            return Vec::new();
        };
        let Ok(objects) = api::parse(&own) else {
            return Vec::new();
        };
        let owners: BTreeSet<String> = objects
            .iter()
            .map(|object| format!("{}/{}", object.kind().name(), object.name()))
            .collect();
        let files = credential::files(&set.fleet, &owners);
        files.map(str::to_owned).collect()
    }
}
