//! Secrets: from the environment, from files, or from the owner-only store beside the log.
//!
//! The store is one file of sealed values, replaced as a whole. It also serves the command line on
//! a state that nobody runs. Values never reach a log, an error text or an agent.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use api::fleet::{Agent, Credential, SecretRef};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::home::SecretText;
use crate::keys::Keys;
use crate::shared::{Shared, read, write};
use crate::{Code, HubError};

/// Largest secret: a key, a token, a certificate.
pub const MAX_SECRET_BYTES: usize = 64 * 1024;

/// The store of one workspace.
#[derive(Clone, Debug)]
pub struct SecretStore {
    path: PathBuf,
    /// Credential files that the keeper read for us, by path.
    handed: Arc<RwLock<BTreeMap<String, SecretText>>>,
}

impl SecretStore {
    /// The store in a workspace's directory.
    #[must_use]
    pub fn new(workspace_dir: &Path) -> Self {
        Self {
            path: workspace_dir.join("secrets"),
            handed: Arc::default(),
        }
    }

    /// Keeps what the keeper read from a credential file.
    pub(crate) fn hand(&self, path: String, text: SecretText) {
        write(&self.handed).insert(path, text);
    }

    /// A credential file's text: handed by the keeper, or read here.
    fn file(&self, path: &str) -> std::io::Result<String> {
        match read(&self.handed).get(path) {
            Some(text) => Ok(text.0.clone()),
            None => std::fs::read_to_string(path),
        }
    }

    /// Reads one value.
    pub fn get(&self, keys: &Keys, secret: &SecretRef) -> Result<String, HubError> {
        let name = format!("{}/{}", secret.name, secret.key);
        let all = self.load()?;
        let sealed = all.get(&name).ok_or_else(|| {
            HubError::new(
                Code::NotFound,
                format!("secret {name} is not set: pipe it to `mainstay secret set {name}`"),
            )
        })?;
        let open = STANDARD
            .decode(sealed)
            .ok()
            .and_then(|sealed| keys.open(&name, &sealed));
        let value = open.ok_or_else(|| {
            HubError::new(
                Code::Internal,
                format!("secret {name} was sealed under another key: set it again"),
            )
        })?;
        String::from_utf8(value.to_vec())
            .map_err(|_| HubError::new(Code::Invalid, format!("secret {name} is not text")))
    }

    /// Writes one value.
    pub fn set(&self, keys: &Keys, name: &str, key: &str, value: &str) -> Result<(), HubError> {
        let valid = |part: &str| {
            !part.is_empty()
                && part.len() <= 128
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        if !valid(name) || !valid(key) {
            return Err(HubError::new(
                Code::Invalid,
                "a secret is named NAME/KEY, each of letters, digits, `.`, `_`, `-`",
            ));
        }
        if value.is_empty() || value.len() > MAX_SECRET_BYTES {
            return Err(HubError::new(
                Code::Invalid,
                format!("a secret has 1 to {MAX_SECRET_BYTES} bytes"),
            ));
        }
        let name = format!("{name}/{key}");
        let sealed = keys
            .seal(&name, value.as_bytes())
            .ok_or_else(|| HubError::new(Code::Internal, "the secret could not be sealed"))?;
        let mut all = self.load()?;
        all.insert(name, STANDARD.encode(sealed));
        self.save(&all)
    }

    /// Names and keys, sorted.
    pub fn list(&self) -> Result<Vec<(String, String)>, HubError> {
        let all = self.load()?;
        Ok(all
            .keys()
            .filter_map(|name| name.split_once('/'))
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .collect())
    }

    /// Removes one value.
    pub fn remove(&self, name: &str, key: &str) -> Result<(), HubError> {
        let mut all = self.load()?;
        let name = format!("{name}/{key}");
        if all.remove(&name).is_none() {
            return Err(HubError::new(
                Code::NotFound,
                format!("secret {name} is not set"),
            ));
        }
        self.save(&all)
    }

    fn load(&self) -> Result<BTreeMap<String, String>, HubError> {
        match std::fs::read(&self.path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|_| {
                HubError::new(
                    Code::Internal,
                    format!("{} is damaged", self.path.display()),
                )
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(error) => Err(self.failed("read", &error)),
        }
    }

    fn save(&self, all: &BTreeMap<String, String>) -> Result<(), HubError> {
        let temporary = self.path.with_extension("new");
        let write = || -> std::io::Result<()> {
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(&serde_json::to_vec(all)?)?;
            file.sync_all()?;
            std::fs::rename(&temporary, &self.path)?;
            std::fs::File::open(self.path.parent().unwrap_or(Path::new("/")))?.sync_all()
        };
        write().map_err(|error| self.failed("write", &error))
    }

    fn failed(&self, what: &str, error: &std::io::Error) -> HubError {
        HubError::new(
            Code::Internal,
            format!("failed to {what} {}: {error}", self.path.display()),
        )
    }
}

/// Reads a credential from where its manifest says.
pub fn credential(
    store: &SecretStore,
    keys: &Keys,
    credential: &Credential,
) -> Result<String, HubError> {
    match credential {
        // What made the Secret may have ended it with a newline; a header can't hold one.
        Credential::SecretRef(secret) => Ok(store.get(keys, secret)?.trim().to_owned()),
        Credential::Env { name } => std::env::var(name)
            .map(|value| value.trim().to_owned())
            .ok()
            .filter(|value| !value.is_empty())
            .ok_or_else(|| {
                HubError::new(
                    Code::NotFound,
                    format!(
                        "environment variable {name} is not set where `mainstay up` was started"
                    ),
                )
            }),
        Credential::File { path } => {
            let text = store.file(path).map_err(|error| {
                HubError::new(
                    Code::NotFound,
                    format!("credential file {path} can't be read: {error}"),
                )
            })?;
            if text.len() > MAX_SECRET_BYTES {
                return Err(HubError::new(
                    Code::Invalid,
                    format!("credential file {path} is larger than a secret may be"),
                ));
            }
            Ok(text.trim().to_owned())
        }
    }
}

/// Values of `secretEnv`. One that is missing is left out, so that the agent's own error names it.
pub(crate) fn environment(shared: &Shared, agent: &Agent) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    for (name, reference) in &agent.secret_env {
        match shared.secrets.get(&shared.keys, reference) {
            Ok(value) => {
                env.insert(name.clone(), value);
            }
            Err(error) => {
                tracing::warn!(agent = agent.name, variable = name, %error, "secretEnv is left out")
            }
        }
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_sent_without_the_newline_that_its_secret_ends_with() {
        let state = tempfile::tempdir().unwrap();
        let (store, keys) = (SecretStore::new(state.path()), Keys::derive(&[7; 32]));
        store.set(&keys, "openai", "token", "sk-1\n").unwrap();
        let secret = SecretRef {
            name: "openai".into(),
            key: "token".into(),
        };
        let sent = credential(&store, &keys, &Credential::SecretRef(secret.clone()));
        assert_eq!(sent.unwrap(), "sk-1");
        // A program gets what was stored: it may be a key in PEM's form.
        assert_eq!(store.get(&keys, &secret).unwrap(), "sk-1\n");
    }
}
