//! Values of Secrets that the fleet names, kept sealed in the state so that a hub starts without
//! the API server.
//!
//! Each is read by its name, the only way that the hub's Role allows. What was removed is removed
//! here; what can't be asked stays as it is. Values go from the API server into the sealed store,
//! and nowhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use api::Fleet;
use api::fleet::{Credential, SecretRef, ToolKind};
use hub::keys::Keys;
use hub::secret::SecretStore;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use tokio::sync::watch;

/// What the API server has for one answer.
const ANSWER: Duration = Duration::from_secs(5);

/// The Secrets of a workspace.
pub(crate) struct Secrets {
    store: SecretStore,
    keys: Keys,
    /// What the fleet named when it was last looked at.
    named: BTreeSet<SecretRef>,
    told: BTreeMap<SecretRef, String>,
    changes: watch::Sender<u64>,
}

/// What became of asking for a Secret.
#[derive(Debug)]
pub(crate) enum Asked {
    There(BTreeMap<String, Vec<u8>>),
    Gone,
    Unknown(String),
    /// Nothing was answered in time.
    Silent,
}

impl Secrets {
    pub(crate) fn new(workspace_dir: &Path, state_key: &[u8; 32]) -> Self {
        Self {
            store: SecretStore::new(workspace_dir),
            keys: Keys::derive(state_key),
            named: BTreeSet::new(),
            told: BTreeMap::new(),
            changes: watch::channel(0).0,
        }
    }

    /// Reads everything that these fleets name, and forgets what none does any longer. Whether all
    /// of it was there.
    pub(crate) async fn follow(
        &mut self,
        client: &Client,
        namespace: &str,
        fleets: &[&Fleet],
    ) -> bool {
        let named: BTreeSet<SecretRef> = fleets.iter().flat_map(|fleet| named(fleet)).collect();
        for gone in self.named.difference(&named).cloned().collect::<Vec<_>>() {
            self.remove(&gone);
        }
        let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let names: BTreeSet<&str> = named.iter().map(|secret| secret.name.as_str()).collect();
        let mut is_silent = false;
        for name in names {
            // Who waits for this waits for one answer that doesn't come, and not for each.
            let asked = match is_silent {
                true => Asked::Silent,
                false => ask(&api, name).await,
            };
            is_silent = matches!(asked, Asked::Silent);
            let references = named.iter().filter(|secret| secret.name == name);
            for reference in references {
                self.take(reference, &asked);
            }
        }
        self.told.retain(|reference, _| named.contains(reference));
        self.named = named;
        self.told.is_empty()
    }

    /// Counts changes of what is kept.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Makes the store agree with what the API server said.
    fn take(&mut self, reference: &SecretRef, asked: &Asked) {
        let problem = match asked {
            Asked::Unknown(reason) => Some(format!("can't be read: {reason}")),
            Asked::Silent => Some("can't be read: the API server does not answer".to_owned()),
            Asked::Gone => {
                self.remove(reference);
                Some("is not there".to_owned())
            }
            Asked::There(data) => match data.get(&reference.key) {
                Some(value) => self.set(reference, value).err(),
                None => {
                    self.remove(reference);
                    Some("has no such key".to_owned())
                }
            },
        };
        self.tell(reference, problem);
    }

    fn set(&self, reference: &SecretRef, value: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(value).map_err(|_| "is not text".to_owned())?;
        if self
            .store
            .get(&self.keys, reference)
            .is_ok_and(|known| known == text)
        {
            return Ok(());
        }
        let SecretRef { name, key } = reference;
        let set = self.store.set(&self.keys, name, key, text);
        set.map_err(|error| error.to_string())?;
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    fn remove(&self, reference: &SecretRef) {
        // Not being there is what is wanted.
        if self.store.remove(&reference.name, &reference.key).is_ok() {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// Says a problem once for as long as it stays the same.
    fn tell(&mut self, reference: &SecretRef, problem: Option<String>) {
        let Some(problem) = problem else {
            self.told.remove(reference);
            return;
        };
        if self.told.get(reference) != Some(&problem) {
            let SecretRef { name, key } = reference;
            tracing::warn!("secret {name}/{key} {problem}");
            self.told.insert(reference.clone(), problem);
        }
    }
}

async fn ask(api: &Api<Secret>, name: &str) -> Asked {
    match tokio::time::timeout(ANSWER, api.get_opt(name)).await {
        Ok(Ok(Some(secret))) => {
            let data = secret.data.unwrap_or_default().into_iter();
            Asked::There(data.map(|(key, value)| (key, value.0)).collect())
        }
        Ok(Ok(None)) => Asked::Gone,
        Ok(Err(error)) => Asked::Unknown(custom_resource::said::answer(&error)),
        Err(_) => Asked::Silent,
    }
}

/// Every Secret's key that a fleet names.
pub(crate) fn named(fleet: &Fleet) -> BTreeSet<SecretRef> {
    let of_credential = |credential: &Option<Credential>| match credential {
        Some(Credential::SecretRef(secret)) => Some(secret.clone()),
        _ => None,
    };
    let providers = fleet.providers.values();
    let mut named: BTreeSet<SecretRef> = providers
        .filter_map(|provider| of_credential(&provider.credential))
        .collect();
    named.extend(fleet.tools.values().filter_map(|tool| match &tool.kind {
        ToolKind::McpHttp { credential, .. } | ToolKind::Http { credential, .. } => {
            of_credential(credential)
        }
        ToolKind::McpStdio { .. } | ToolKind::Agent { .. } => None,
    }));
    for agent in fleet.agents.values() {
        named.extend(agent.secret_env.values().cloned());
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(key: &str) -> SecretRef {
        SecretRef {
            name: "keys".into(),
            key: key.into(),
        }
    }

    fn there(pairs: &[(&str, &[u8])]) -> Asked {
        let data = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.to_vec()));
        Asked::There(data.collect())
    }

    #[test]
    fn the_store_holds_what_the_api_server_says_and_keeps_it_while_it_is_away() {
        let state = tempfile::tempdir().unwrap();
        let mut secrets = Secrets::new(state.path(), &[7; 32]);
        let one = reference("one");
        let known = |secrets: &Secrets| secrets.store.get(&secrets.keys, &one).ok();
        let changes = secrets.changes();
        secrets.take(&one, &there(&[("one", b"first")]));
        assert_eq!(known(&secrets).as_deref(), Some("first"));
        secrets.take(&one, &there(&[("one", b"second")]));
        assert_eq!(known(&secrets).as_deref(), Some("second"));
        secrets.take(&one, &Asked::Unknown("away".into()));
        assert_eq!(known(&secrets).as_deref(), Some("second"));
        // What is no text is no value, and doesn't replace one.
        secrets.take(&one, &there(&[("one", &[0xff])]));
        assert_eq!(known(&secrets).as_deref(), Some("second"));
        secrets.take(&one, &there(&[("other", b"x")]));
        assert_eq!(known(&secrets), None);
        secrets.take(&one, &there(&[("one", b"third")]));
        secrets.take(&one, &Asked::Gone);
        assert_eq!(known(&secrets), None);
        assert_eq!(*changes.borrow(), 5);
        let sealed = std::fs::read_to_string(state.path().join("secrets")).unwrap();
        assert!(!sealed.contains("third"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_says_nothing_is_waited_for_once() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap();
        let config = kube::Config::new(format!("http://{address}").parse().unwrap());
        let client = Client::try_from(config).unwrap();
        let mut fleet = crate::token::tests::fleet();
        let agent = fleet.agents.get_mut("helper").unwrap();
        for name in ["a", "b", "c"] {
            let mut secret = reference("it");
            secret.name = name.into();
            agent.secret_env.insert(name.to_uppercase(), secret);
        }
        let state = tempfile::tempdir().unwrap();
        let mut secrets = Secrets::new(state.path(), &[7; 32]);
        let begun = tokio::time::Instant::now();
        assert!(!secrets.follow(&client, "acme", &[&fleet]).await);
        assert_eq!(secrets.told.len(), 3);
        let waited = begun.elapsed();
        assert!((ANSWER..ANSWER * 2).contains(&waited), "{waited:?}");
    }
}
