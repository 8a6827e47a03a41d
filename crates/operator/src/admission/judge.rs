//! What is answered about an object that somebody is about to write. Pure.

use api::Knowledge;
use api::kubernetes::{alone, document};
use serde_json::{Value, json};

use crate::verdict::sentence;

/// What `kubectl` prints of each: the API server cuts longer ones.
const MAX_WARNING_BYTES: usize = 240;
const MAX_WARNINGS: usize = 8;
const MAX_MESSAGE_BYTES: usize = 4096;

/// The answer to an AdmissionReview; none where it is none.
pub(super) fn review(review: &Value, checks: &Knowledge) -> Option<Value> {
    let request = review.get("request")?;
    let uid = request.get("uid")?.as_str()?;
    let mut response = judged(request, checks);
    response["uid"] = uid.into();
    Some(json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response,
    }))
}

fn judged(request: &Value, checks: &Knowledge) -> Value {
    let object = &request["object"];
    if !is_news(object, &request["oldObject"]) {
        return json!({"allowed": true});
    }
    match alone(&document(object), &checks.on_kubernetes()) {
        Ok(warnings) => {
            let warnings = warnings.iter().take(MAX_WARNINGS).map(sentence);
            let warnings: Vec<String> = warnings.map(|it| cut(it, MAX_WARNING_BYTES)).collect();
            json!({"allowed": true, "warnings": warnings})
        }
        Err(problems) => {
            let sentences: Vec<String> = problems.0.iter().map(sentence).collect();
            let message = cut(sentences.join("; "), MAX_MESSAGE_BYTES);
            json!({"allowed": false, "status": {
                "status": "Failure", "reason": "Invalid", "code": 422, "message": message,
            }})
        }
    }
}

/// What is going may go, and what is wrong already may be labelled or let go of.
fn is_news(object: &Value, old: &Value) -> bool {
    object.is_object()
        && object["metadata"]["deletionTimestamp"].is_null()
        && (old.is_null() || object["spec"] != old["spec"])
}

fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        let mut end = most;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider(spec: Value) -> Value {
        json!({"apiVersion": "mainstay.dev/v1alpha1", "kind": "Provider",
            "metadata": {"name": "it", "namespace": "acme"}, "spec": spec})
    }

    fn answered(request: Value) -> Value {
        let mut request = request;
        request["uid"] = "1".into();
        let asked = json!({"request": request});
        let answer = review(&asked, &Knowledge::nothing()).unwrap();
        assert_eq!(answer["response"]["uid"], "1");
        answer["response"].clone()
    }

    fn wrong() -> Value {
        provider(json!({"type": "openai", "credential": {"file": "/etc/key"}}))
    }

    #[test]
    fn what_nothing_could_run_is_refused_by_its_field() {
        let response = answered(json!({"object": wrong()}));
        assert_eq!(response["allowed"], false);
        let message = response["status"]["message"].as_str().unwrap();
        assert!(message.contains("spec.credential"), "{message}");
    }

    #[test]
    fn what_waits_for_others_is_let_through() {
        let fine = provider(json!({"type": "openai", "fallback": ["later/gpt-5.1"]}));
        assert_eq!(answered(json!({"object": fine}))["allowed"], true);
    }

    #[test]
    fn what_is_wrong_already_can_be_labelled_and_can_go() {
        let mut labelled = wrong();
        labelled["metadata"]["labels"] = json!({"a": "b"});
        let labelled = json!({"object": labelled, "oldObject": wrong()});
        assert_eq!(answered(labelled)["allowed"], true);
        let mut going = wrong();
        going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        going["spec"]["credential"]["file"] = "/etc/other".into();
        let going = json!({"object": going, "oldObject": wrong()});
        assert_eq!(answered(going)["allowed"], true);
        assert_eq!(
            answered(json!({"object": null, "oldObject": wrong()}))["allowed"],
            true
        );
    }

    #[test]
    fn what_is_no_review_gets_no_answer() {
        for wrong in [json!({}), json!([]), json!({"request": {"uid": 1}})] {
            assert!(review(&wrong, &Knowledge::nothing()).is_none(), "{wrong}");
        }
    }
}
