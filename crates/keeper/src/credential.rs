//! Credentials that a fleet names: what is not there is told, and a file that only root may read is
//! read for the hub.
//!
//! The envelope: only files that the manifests given to `up` name are read so. What came through
//! the hub (`mainstay apply`) can't make the keeper read a file for it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use api::Fleet;
use api::fleet::{Credential, SecretRef, ToolKind};

use crate::state::read_file;

/// Larger is no secret; the hub's own bound.
const MAX_BYTES: u64 = 64 * 1024;
/// The hub's store of secrets; the hub owns it and may put anything there.
const MAX_SECRETS_BYTES: u64 = 64 * 1024 * 1024;

/// Each credential with whose it is: `Provider/name` or `ToolRegistry/name`.
fn all(fleet: &Fleet) -> Vec<(String, &Credential)> {
    let providers = fleet.providers.values().filter_map(|provider| {
        let credential = provider.credential.as_ref()?;
        Some((format!("Provider/{}", provider.name), credential))
    });
    let tools = fleet.tools.values().filter_map(|tool| match &tool.kind {
        ToolKind::McpHttp { credential, .. } | ToolKind::Http { credential, .. } => {
            let credential = credential.as_ref()?;
            Some((format!("ToolRegistry/{}", tool.registry), credential))
        }
        ToolKind::McpStdio { .. } | ToolKind::Agent { .. } => None,
    });
    providers.chain(tools).collect()
}

/// What isn't there, in sentences that say what to do. `environment` is the hub's.
pub(crate) fn missing(
    fleet: &Fleet,
    environment: &[(String, String)],
    secrets: &Path,
) -> BTreeSet<String> {
    let stored: BTreeMap<String, String> = read_file(secrets, MAX_SECRETS_BYTES)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default();
    let unset = |secret: &SecretRef| {
        let name = format!("{}/{}", secret.name, secret.key);
        (!stored.contains_key(&name))
            .then(|| format!("secret {name} is not set: pipe it to `mainstay secret set {name}`"))
    };
    let credentials = all(fleet).into_iter().filter_map(|(owner, credential)| {
        let reason = match credential {
            Credential::SecretRef(secret) => unset(secret)?,
            Credential::Env { name } => unset_variable(name, environment)?,
            Credential::File { path } => unreadable(path)?,
        };
        Some(format!("{owner}: {reason}"))
    });
    let variables = fleet.agents.values().flat_map(|agent| {
        agent.secret_env.iter().filter_map(move |(name, secret)| {
            let reason = unset(secret)?;
            Some(format!(
                "Agent/{}: {name} is left out: {reason}",
                agent.name
            ))
        })
    });
    credentials.chain(variables).collect()
}

fn unset_variable(name: &str, environment: &[(String, String)]) -> Option<String> {
    let set = environment
        .iter()
        .any(|(other, value)| other == name && !value.trim().is_empty());
    (!set).then(|| {
        format!("environment variable {name} is not set: set it and start `mainstay up` again")
    })
}

fn unreadable(path: &str) -> Option<String> {
    let error = read(Path::new(path)).err()?;
    Some(format!(
        "credential file {path} can't be read ({error}): put the secret there, `up` looks again"
    ))
}

/// A credential file's content.
pub(crate) fn read(path: &Path) -> std::io::Result<String> {
    let bytes = read_file(path, MAX_BYTES)?;
    String::from_utf8(bytes).map_err(|_| std::io::Error::other("it is not text"))
}

/// The credential files of these owners.
pub(crate) fn files<'a>(
    fleet: &'a Fleet,
    owners: &'a BTreeSet<String>,
) -> impl Iterator<Item = &'a str> {
    all(fleet)
        .into_iter()
        .filter(|(owner, _)| owners.contains(owner))
        .filter_map(|(_, credential)| match credential {
            Credential::File { path } => Some(path.as_str()),
            Credential::SecretRef(_) | Credential::Env { .. } => None,
        })
}
