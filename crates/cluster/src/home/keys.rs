//! Whether providers take their keys, and which agents' pods are ready therefore.
//!
//! Each provider that an agent uses is asked now and then. Only a refusal counts against a key: a
//! provider that doesn't answer says nothing about it. An agent none of whose models can be
//! reached with a key is unready, and nobody restarts it for that. Its object says why, as it says
//! which of its own secrets aren't there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use api::Fleet;
use api::fleet::{Agent, Credential, Provider, SecretRef};
use futures_util::future::BoxFuture;
use hub::Hub;
use tokio::sync::watch;

use crate::ready::Readiness;

/// A key that was revoked is noticed within two of these.
const AGAIN: Duration = Duration::from_secs(25);

/// What a provider says to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Taken,
    /// By the provider. A sentence for a person.
    Refused(String),
    /// There is none to show. A sentence for a person.
    Missing(String),
    /// The provider didn't answer, or not about the key.
    Unknown,
}

/// Asks a provider whether it takes its key.
pub type KeyCheck = Arc<dyn Fn(Provider) -> BoxFuture<'static, Verdict> + Send + Sync>;

/// What is known of keys and secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdicts {
    /// By provider.
    pub(crate) providers: BTreeMap<String, Verdict>,
    /// By agent, what keeps it from its work. A sentence for a person.
    pub(crate) lacking: BTreeMap<String, String>,
}

/// Keeps verdicts and readiness up to date.
pub(crate) async fn watch(
    hub: Hub,
    mut today: watch::Receiver<Arc<Fleet>>,
    mut secrets: watch::Receiver<u64>,
    check: KeyCheck,
    verdicts: watch::Sender<Verdicts>,
    readiness: watch::Sender<Readiness>,
) {
    let mut again = tokio::time::interval(AGAIN);
    loop {
        tokio::select! {
            _ = again.tick() => {}
            changed = today.changed() => if changed.is_err() { return },
            Ok(()) = secrets.changed() => {}
        }
        let fleet = today.borrow_and_update().clone();
        let before = verdicts.borrow().clone();
        let providers = ask_all(&hub, &fleet, &check, &before.providers).await;
        let unready = unready(&fleet, &providers);
        let is_there = |secret: &SecretRef| {
            let credential = Credential::SecretRef(secret.clone());
            hub.secret(&credential).is_ok()
        };
        let found = Verdicts {
            lacking: lacking(&fleet, &unready, is_there),
            providers,
        };
        let unready = Readiness::except(unready);
        readiness.send_if_modified(|known| replace(known, unready));
        verdicts.send_if_modified(|known| replace(known, found));
    }
}

fn replace<T: PartialEq>(known: &mut T, new: T) -> bool {
    let is_other = *known != new;
    *known = new;
    is_other
}

async fn ask_all(
    hub: &Hub,
    fleet: &Fleet,
    check: &KeyCheck,
    before: &BTreeMap<String, Verdict>,
) -> BTreeMap<String, Verdict> {
    let used: BTreeSet<&str> = fleet.agents.values().flat_map(providers_of).collect();
    let asked = used.into_iter().filter_map(|name| {
        let provider = fleet.providers.get(name)?;
        let before = before.get(name).cloned().unwrap_or(Verdict::Unknown);
        Some(ask(hub, provider, check, before))
    });
    let found = futures_util::future::join_all(asked).await;
    found.into_iter().collect()
}

async fn ask(
    hub: &Hub,
    provider: &Provider,
    check: &KeyCheck,
    before: Verdict,
) -> (String, Verdict) {
    let name = provider.name.clone();
    let Some(credential) = &provider.credential else {
        return (name, Verdict::Taken);
    };
    if let Err(error) = hub.secret(credential) {
        let why = match credential {
            Credential::SecretRef(secret) => absent(secret),
            Credential::Env { .. } | Credential::File { .. } => error.to_string(),
        };
        return (name, Verdict::Missing(why));
    }
    match check(provider.clone()).await {
        // What it said last stands until it says something else.
        Verdict::Unknown if !matches!(before, Verdict::Missing(_)) => (name, before),
        verdict => (name, verdict),
    }
}

/// The providers that an agent's models are of, and those that these fall back on.
pub(super) fn providers_of(agent: &Agent) -> BTreeSet<&str> {
    let models = agent.model_facts.keys();
    models
        .filter_map(|model| Some(model.split_once('/')?.0))
        .collect()
}

fn absent(secret: &SecretRef) -> String {
    let SecretRef { name, key } = secret;
    format!(
        "Secret {name} has no key {key}, or isn't there: kubectl create secret generic {name} --from-literal={key}=VALUE"
    )
}

/// What keeps agents from their work: that they are unready, and secrets of their own.
fn lacking(
    fleet: &Fleet,
    unready: &BTreeMap<String, String>,
    is_there: impl Fn(&SecretRef) -> bool,
) -> BTreeMap<String, String> {
    let of_agent = |agent: &Agent| {
        let own = agent.secret_env.iter();
        let own = own
            .filter(|(_, secret)| !is_there(secret))
            .map(|(variable, secret)| format!("spec.secretEnv.{variable}: {}", absent(secret)));
        let all: Vec<String> = unready
            .get(&agent.name)
            .cloned()
            .into_iter()
            .chain(own)
            .collect();
        (!all.is_empty()).then(|| (agent.name.clone(), all.join("; ")))
    };
    fleet.agents.values().filter_map(of_agent).collect()
}

/// Agents that can reach no model, each with the reason.
fn unready(fleet: &Fleet, verdicts: &BTreeMap<String, Verdict>) -> BTreeMap<String, String> {
    let mut unready = BTreeMap::new();
    for agent in fleet.agents.values() {
        let providers = providers_of(agent);
        let refused: Vec<String> = providers
            .iter()
            .filter_map(|name| match verdicts.get(*name)? {
                Verdict::Refused(reason) | Verdict::Missing(reason) => {
                    Some(format!("provider {name}: {reason}"))
                }
                Verdict::Taken | Verdict::Unknown => None,
            })
            .collect();
        if !providers.is_empty() && refused.len() == providers.len() {
            unready.insert(agent.name.clone(), refused.join("; "));
        }
    }
    unready
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_lacks_a_secret_says_which_and_what_to_do() {
        let mut fleet = crate::token::tests::fleet_with_models();
        let secret = SecretRef {
            name: "telegram".to_owned(),
            key: "token".to_owned(),
        };
        let agent = fleet.agents.get_mut("helper").unwrap();
        agent.secret_env.insert("TOKEN".to_owned(), secret);
        let refused = BTreeMap::from([("helper".to_owned(), "provider one: 401".to_owned())]);
        let said = |unready: &BTreeMap<String, String>, is_there: bool| {
            let lacking = lacking(&fleet, unready, |_| is_there);
            lacking.get("helper").cloned().unwrap_or_default()
        };
        let none = BTreeMap::new();
        assert_eq!(said(&none, true), "");
        assert_eq!(said(&refused, true), "provider one: 401");
        assert_eq!(
            said(&none, false),
            "spec.secretEnv.TOKEN: Secret telegram has no key token, or isn't there: kubectl create secret generic telegram --from-literal=token=VALUE"
        );
    }

    #[test]
    fn an_agent_is_unready_when_no_provider_takes_its_key() {
        let fleet = crate::token::tests::fleet_with_models();
        let refused = || Verdict::Refused("401".into());
        let judge = |one: Verdict, two: Verdict| {
            unready(
                &fleet,
                &[("one".to_owned(), one), ("two".to_owned(), two)].into(),
            )
        };
        assert!(judge(refused(), Verdict::Taken).is_empty());
        assert!(judge(refused(), Verdict::Unknown).is_empty());
        let both = judge(refused(), refused());
        assert!(both["helper"].contains("provider one: 401"), "{both:?}");
    }
}
