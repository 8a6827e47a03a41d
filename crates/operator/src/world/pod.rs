//! A pod, as far as its owner's condition depends on it: whether it is ready, and what ails it.

use std::collections::BTreeMap;

use kube::core::DynamicObject;
use serde_json::Value;

use api::kubernetes::{AGENT_LABEL, COMPONENT, TOOL_LABEL};

use crate::build::{REGISTRY_LABEL, SOURCE_CONTAINER};

/// The agent's code can't be brought into its pod.
pub(crate) const SOURCE_UNAVAILABLE: &str = "SourceUnavailable";

/// Whose pod it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum PodOwner {
    Hub,
    Agent(String),
    /// The registry and the tool's short id.
    Tool(String, String),
}

/// What is kept of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pod {
    pub(crate) owner: PodOwner,
    pub(crate) is_ready: bool,
    pub(crate) trouble: Option<Trouble>,
}

/// Why a pod doesn't work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// As Kubernetes calls it: `ErrImagePull`, `CrashLoopBackOff`, `Unschedulable`, …
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl Pod {
    /// None if nothing says whose it is.
    pub(crate) fn read(object: &DynamicObject) -> Option<Self> {
        let owner = owner(object.metadata.labels.as_ref()?)?;
        let status = &object.data["status"];
        let is_leaving = object.metadata.deletion_timestamp.is_some();
        Some(Self {
            owner,
            is_ready: !is_leaving && condition(status, "Ready").is_some_and(is_true),
            trouble: trouble(status).filter(|_| !is_leaving),
        })
    }
}

fn owner(labels: &BTreeMap<String, String>) -> Option<PodOwner> {
    let label = |name: &str| labels.get(name).cloned();
    match label(COMPONENT)?.as_str() {
        "hub" => Some(PodOwner::Hub),
        "agent" => label(AGENT_LABEL).map(PodOwner::Agent),
        "tool" => Some(PodOwner::Tool(label(REGISTRY_LABEL)?, label(TOOL_LABEL)?)),
        _ => None,
    }
}

fn condition<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    let mut conditions = status["conditions"].as_array()?.iter();
    conditions.find(|condition| condition["type"] == kind)
}

fn is_true(condition: &Value) -> bool {
    condition["status"] == "True"
}

fn trouble(status: &Value) -> Option<Trouble> {
    if status["phase"] == "Failed" {
        return Some(told(status));
    }
    if let Some(scheduled) = condition(status, "PodScheduled")
        && scheduled["status"] == "False"
    {
        return Some(told(scheduled));
    }
    let containers = ["initContainerStatuses", "containerStatuses"];
    containers
        .into_iter()
        .flat_map(|list| status[list].as_array().into_iter().flatten())
        .find_map(of_container)
}

/// What the container that brings the code says at its end is about the code.
fn is_of_source(container: &Value, ended: &Value) -> bool {
    container["name"] == SOURCE_CONTAINER && ended["exitCode"].is_i64()
}

/// A container that waits because of something, or that ended badly and hasn't started since.
fn of_container(container: &Value) -> Option<Trouble> {
    let waiting = &container["state"]["waiting"];
    let ended = [&container["state"], &container["lastState"]].map(|state| &state["terminated"]);
    if let Some(ended) = ended.into_iter().find(|it| is_of_source(container, it)) {
        return (ended["exitCode"] != 0).then(|| Trouble {
            reason: SOURCE_UNAVAILABLE.to_owned(),
            message: told(ended).message.trim().to_owned(),
        });
    }
    match waiting["reason"].as_str() {
        None | Some("PodInitializing" | "ContainerCreating") => None,
        Some("CrashLoopBackOff") => {
            let last = &container["lastState"]["terminated"];
            let mut trouble = told(waiting);
            let exit = last["exitCode"]
                .as_i64()
                .map(|code| format!("exit code {code}"));
            let said = last["message"].as_str().map(str::trim).map(str::to_owned);
            let parts: Vec<String> = [exit, said].into_iter().flatten().collect();
            if !parts.is_empty() {
                trouble.message = parts.join(": ");
            }
            Some(trouble)
        }
        Some(_) => Some(told(waiting)),
    }
}

fn told(value: &Value) -> Trouble {
    let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    Trouble {
        reason: text("reason"),
        message: text("message"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(status: Value) -> Pod {
        let object = json!({
            "metadata": {"name": "p", "labels": {COMPONENT: "agent", AGENT_LABEL: "helper"}},
            "status": status,
        });
        Pod::read(&serde_json::from_value(object).unwrap()).unwrap()
    }

    #[test]
    fn what_a_source_lacks_is_said_in_its_own_words() {
        let bringing = |exit: i32, state: Value| {
            let status = json!({"initContainerStatuses": [{
                "name": "source", "state": state,
                "lastState": {"terminated": {"exitCode": exit, "message": "error: no source\n"}}}]});
            read(status).trouble
        };
        let waiting = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m"}});
        for state in [waiting, json!({"running": {}})] {
            let trouble = bringing(1, state).unwrap();
            assert_eq!(trouble.reason, SOURCE_UNAVAILABLE);
            assert_eq!(trouble.message, "error: no source");
        }
        assert_eq!(bringing(0, json!({"running": {}})), None);
    }

    #[test]
    fn a_pod_says_what_ails_it() {
        let pulling = json!({"containerStatuses": [{"state": {"waiting": {
            "reason": "ErrImagePull", "message": "no such image"}}}]});
        let pod = read(pulling);
        assert_eq!(pod.owner, PodOwner::Agent("helper".to_owned()));
        assert_eq!(pod.trouble.unwrap().reason, "ErrImagePull");
        let crashing = json!({"containerStatuses": [{
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
            "lastState": {"terminated": {"exitCode": 3, "message": "no key\n"}}}]});
        assert_eq!(
            read(crashing).trouble.unwrap().message,
            "exit code 3: no key"
        );
        let starting =
            json!({"containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]});
        assert_eq!(read(starting).trouble, None);
        let homeless = json!({"conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes"}]});
        assert_eq!(read(homeless).trouble.unwrap().message, "0/2 nodes");
        let ready = json!({"conditions": [{"type": "Ready", "status": "True"}]});
        assert!(read(ready).is_ready);
    }
}
