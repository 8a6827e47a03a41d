//! The fifth step: says what became of an object, in its status and in an Event, and only when
//! that changed.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Error as KubeError;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use serde_json::{Map, Value, json};

use api::Kind;

use crate::FIELD_MANAGER;
use crate::clock;
use crate::context::Context;
use crate::error::Error;
use crate::verdict::Verdict;
use crate::world::{Key, Written};
use custom_resource::CustomResource;

/// The type of the condition that says how it does.
const READY: &str = "Ready";
/// The type of the condition that is there while a volume's size isn't the one that is written.
const FIXED: &str = "VolumeSizeFixed";

/// What of a status is the operator's: the rest is the hub's.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Status {
    pub(crate) verdict: Verdict,
    /// What is told of a volume that keeps another size than is written.
    pub(crate) fixed: Option<String>,
    /// Fields beside the conditions.
    pub(crate) fields: Map<String, Value>,
}

impl Status {
    pub(crate) fn of(verdict: Verdict) -> Self {
        Self {
            verdict,
            fixed: None,
            fields: Map::new(),
        }
    }
}

/// Writes it, if it isn't there.
pub(crate) async fn update(
    context: &Context,
    key: &Key,
    written: &Written,
    status: Status,
) -> Result<(), Error> {
    let before = written.status();
    let Some(wanted) = changed(&before, &status, written.generation) else {
        return Ok(());
    };
    let kind = custom_resource::resource(key.kind);
    let client = context.client.clone();
    let api: Api<CustomResource> = match key.kind {
        Kind::Workspace => Api::all_with(client, &kind),
        _ => Api::namespaced_with(client, &key.namespace, &kind),
    };
    let body = json!({
        "apiVersion": api::API_VERSION, "kind": key.kind.name(),
        "metadata": {"name": key.name, "uid": written.uid},
        "status": wanted,
    });
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    match api
        .patch_status(&key.name, &parameters, &Patch::Apply(&body))
        .await
    {
        Ok(now) => {
            context.metrics.wrote("status");
            let answer = Written::read(key.kind, &now.0);
            context.world.put_answer(key, answer);
        }
        // Deleted, or recreated under another uid: its own events follow.
        Err(KubeError::Api(refused)) if matches!(refused.code, 404 | 409) => return Ok(()),
        Err(source) => return Err(Error::Status { source }),
    }
    if is_news(&before, &status.verdict) {
        tell(context, key, written, &status.verdict).await;
    }
    Ok(())
}

/// The whole of the operator's part; none if it is there already.
fn changed(before: &Value, status: &Status, generation: i64) -> Option<Value> {
    let mut wanted = status.fields.clone();
    wanted.insert("observedGeneration".to_owned(), Value::from(generation));
    let is_same = wanted
        .iter()
        .all(|(name, value)| before[name.as_str()] == *value);
    let new = &status.verdict;
    let text = (new.reason.as_str(), new.message.as_str());
    let mut conditions = vec![renewed(before, READY, new.is_ready, text, generation)];
    if let Some(message) = &status.fixed {
        let text = ("Immutable", message.as_str());
        conditions.push(renewed(before, FIXED, true, text, generation));
    }
    let own = [READY, FIXED].map(|kind| condition(before, kind));
    let own = own.into_iter().filter(|condition| !condition.is_null());
    if is_same && own.eq(conditions.iter().cloned()) {
        return None;
    }
    wanted.insert("conditions".to_owned(), Value::from(conditions));
    Some(Value::Object(wanted))
}

/// A condition as it is to be; with the time since when its state is this.
fn renewed(
    before: &Value,
    kind: &str,
    is_true: bool,
    (reason, message): (&str, &str),
    generation: i64,
) -> Value {
    let old = condition(before, kind);
    let state = if is_true { "True" } else { "False" };
    let since = match old["lastTransitionTime"].as_str() {
        Some(since) if old["status"] == state => since.to_owned(),
        _ => clock::now_text(),
    };
    json!({
        "type": kind, "status": state, "reason": reason, "message": message,
        "observedGeneration": generation, "lastTransitionTime": since,
    })
}

fn condition(status: &Value, kind: &str) -> Value {
    let conditions = status["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    let found = conditions.find(|condition| condition["type"] == kind);
    found.cloned().unwrap_or_default()
}

/// A problem that is new, or the end of one.
fn is_news(before: &Value, verdict: &Verdict) -> bool {
    let old = condition(before, READY);
    let is_same = old["reason"] == verdict.reason.as_str();
    match verdict.is_problem {
        true => !is_same || old["message"] != verdict.message.as_str(),
        false => verdict.is_ready && old["status"] != "True",
    }
}

async fn tell(context: &Context, key: &Key, written: &Written, verdict: &Verdict) {
    let event = Event {
        type_: match verdict.is_problem {
            true => EventType::Warning,
            false => EventType::Normal,
        },
        reason: verdict.reason.clone(),
        note: Some(verdict.message.clone()),
        action: "Reconcile".to_owned(),
        secondary: None,
    };
    let reference = ObjectReference {
        api_version: Some(api::API_VERSION.to_owned()),
        kind: Some(key.kind.name().to_owned()),
        name: Some(key.name.clone()),
        namespace: (key.kind != Kind::Workspace).then(|| key.namespace.clone()),
        uid: Some(written.uid.clone()),
        ..ObjectReference::default()
    };
    match context.recorder.publish(&event, &reference).await {
        Ok(()) => context.metrics.wrote("Event"),
        // The condition says the same.
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(object = %key, error, "an Event can't be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_that_is_there_is_not_written() {
        let mut status = Status::of(Verdict::ready("Running", "fine"));
        status.fields.insert("replicas".to_owned(), Value::from(1));
        let first = changed(&Value::Null, &status, 3).unwrap();
        assert_eq!(first["conditions"][0]["status"], "True");
        assert_eq!(changed(&first, &status, 3), None);
        assert!(changed(&first, &status, 4).is_some());
        status.fields.insert("replicas".to_owned(), Value::from(2));
        let second = changed(&first, &status, 3).unwrap();
        assert_eq!(
            second["conditions"][0]["lastTransitionTime"],
            first["conditions"][0]["lastTransitionTime"]
        );
    }

    #[test]
    fn a_volume_that_keeps_its_size_is_told_of_until_it_is_as_written() {
        let mut status = Status::of(Verdict::ready("Running", "fine"));
        let before = changed(&Value::Null, &status, 1).unwrap();
        status.fixed = Some("spec.volume.size says 2Gi".to_owned());
        let told = changed(&before, &status, 1).unwrap();
        assert_eq!(told["conditions"][0], before["conditions"][0]);
        assert_eq!(told["conditions"][1]["type"], "VolumeSizeFixed");
        assert_eq!(changed(&told, &status, 1), None);
        status.fixed = None;
        assert_eq!(changed(&told, &status, 1), Some(before));
    }

    #[test]
    fn a_problem_is_news_once() {
        let problem = Verdict::problem("Invalid", "no");
        let before = changed(&Value::Null, &Status::of(problem.clone()), 1).unwrap();
        assert!(is_news(&Value::Null, &problem));
        assert!(!is_news(&before, &problem));
        assert!(is_news(&before, &Verdict::ready("Running", "fine")));
        assert!(!is_news(&before, &Verdict::waiting("Starting", "soon")));
    }
}
