//! That a token of `mainstay-clients` says who asked for it: the one place where somebody's name is
//! written down, by the API server, which has just authenticated him.
//!
//! It holds for everybody who asks for such a token, the cluster's administrators and kubelets
//! included, and in any namespace: the account may be made by others before a workspace is. A hub
//! believes such tokens only while this is there (`cluster::reviews`).

use api::kubernetes::{AS_GROUP, AS_USER, CLIENTS, HUB, LONGEST_S};
use serde_json::{Value, json};

use super::labels;

/// What narrows an `OpenShift` token to less than its user may. It can't be carried over.
const SCOPES: &str = "scopes.authorization.openshift.io";

pub(super) fn objects() -> [Value; 2] {
    [definition(), binding()]
}

fn definition() -> Value {
    let validations = demands().map(|(expression, message)| {
        json!({"expression": expression, "message": message, "reason": "Forbidden"})
    });
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": CLIENTS, "labels": labels()},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "resources": ["serviceaccounts/token"],
                "operations": ["CREATE"], "scope": "Namespaced",
            }]},
            "matchConditions": [{
                "name": "is-of-a-client", "expression": format!("request.name == '{CLIENTS}'"),
            }],
            "validations": validations,
        },
    })
}

/// What has to be true, and what is said otherwise.
fn demands() -> [(String, &'static str); 4] {
    let all = "object.spec.?audiences.orValue([])";
    [
        (
            format!(
                "{all}.size() > 1 && {all}[0] == '{HUB}.' + request.namespace && \
                 {all}[1] == '{AS_USER}' + request.userInfo.username"
            ),
            "such a token is for the hub of its namespace and says whose it is: mainstay -n NAMESPACE makes it",
        ),
        (
            format!(
                "{all}.all(a, a == {all}[0] || a == {all}[1] || (a.startsWith('{AS_GROUP}') && \
                 a.substring({}) in request.userInfo.?groups.orValue([])))",
                AS_GROUP.len()
            ),
            "such a token names no group that its user isn't in, and is for nothing else",
        ),
        (
            format!("object.spec.?expirationSeconds.orValue({LONGEST_S}) <= {LONGEST_S}"),
            "such a token is valid for an hour at most",
        ),
        (
            format!("!('{SCOPES}' in request.userInfo.?extra.orValue({{}}))"),
            "a login that is narrowed to scopes gets no such token, which couldn't be",
        ),
    ]
}

fn binding() -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": CLIENTS, "labels": labels()},
        "spec": {"policyName": CLIENTS, "validationActions": ["Deny"]},
    })
}
