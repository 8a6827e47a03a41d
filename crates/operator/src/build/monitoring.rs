//! What a cluster's Prometheus is told of a workspace's hub, where the kinds of its operator are
//! there: how to read the metrics, and when to wake somebody.
//!
//! It reads them at the clients' door over TLS, with a token that opens the metrics and nothing else.
//! Rules name only metrics that a hub has; those of its agents are in the hub's, as a pod has none.

use api::kubernetes::{COMPONENT, HUB, HUB_CA, MANAGED_BY};
use aws_lc_rs::hmac;
use contract::pod::SERVER_NAME;
use k8s_openapi::ByteString;
use serde_json::{Value, json};

use crate::object::{MANAGER, Object, Owner, Place, Resource};

/// The Secret with the token for the metrics.
pub const HUB_METRICS: &str = "mainstay-hub-metrics";
const TOKEN: &str = "token";

/// How a hub is read. The Secret comes first: the other names it.
pub fn monitor(namespace: &str, owner: &Owner, state_key: &[u8]) -> [Object; 2] {
    let place = place(namespace, owner);
    let token = ByteString(metrics_token(state_key).into_bytes());
    // The one form that Kubernetes has for bytes.
    let token = serde_json::to_value(token).unwrap_or_default();
    let secret = json!({"type": "Opaque", "data": {TOKEN: token}});
    let endpoint = json!({
        "port": "facade", "scheme": "https", "path": "/metrics",
        "tlsConfig": {
            "ca": {"configMap": {"name": HUB_CA, "key": "ca.crt"}},
            "serverName": SERVER_NAME,
        },
        "authorization": {"credentials": {"name": HUB_METRICS, "key": TOKEN}},
    });
    let monitor = json!({"spec": {
        "selector": {"matchLabels": {MANAGED_BY: MANAGER, COMPONENT: "hub"}},
        "endpoints": [endpoint],
    }});
    [
        place.object(Resource::Secret, HUB_METRICS, &[], secret),
        place.object(Resource::ServiceMonitor, HUB, &[], monitor),
    ]
}

/// When to wake somebody.
pub fn rules(namespace: &str, owner: &Owner) -> Object {
    let content = json!({"spec": {"groups": [{
        "name": format!("mainstay-{namespace}"),
        "rules": alerts(namespace),
    }]}});
    place(namespace, owner).object(Resource::PrometheusRule, HUB, &[], content)
}

fn place<'a>(namespace: &'a str, owner: &'a Owner) -> Place<'a> {
    Place {
        namespace: Some(namespace),
        component: "tenancy",
        owner,
    }
}

/// As the hub derives it from the same key.
fn metrics_token(state_key: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, state_key);
    let mac = hmac::sign(&key, b"mainstay.dev/v1/metrics-token");
    format!("msm_{}", in_url(mac.as_ref()))
}

/// Base64 as it stands in URLs, without its padding (RFC 4648, section 5).
fn in_url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let at = |place: usize| u32::from(chunk.get(place).copied().unwrap_or_default());
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..=chunk.len() {
            let six = bits >> (18 - 6 * digit) & 63;
            text.push(char::from(ALPHABET[six as usize]));
        }
    }
    text
}

fn alerts(namespace: &str) -> Vec<Value> {
    let of = |metric: &str, labels: &str| format!("{metric}{{namespace=\"{namespace}\"{labels}}}");
    let by_agent = |inner: String| format!("sum by (namespace, agent) ({inner})");
    let queued = by_agent(of("mainstay_tasks_queued", ""));
    let able = by_agent(of("mainstay_instances", ",state=~\"ready|working\""));
    let crashes = of("mainstay_instance_restarts_total", ",class=\"crash\"");
    let crashes = by_agent(format!("increase({crashes}[10m])"));
    let ended = |states: &str| {
        let ended = of("mainstay_tasks_total", &format!(",state=~\"{states}\""));
        by_agent(format!("increase({ended}[30m])"))
    };
    let (failed, all) = (ended("failed"), ended("completed|failed"));
    let flush = of("mainstay_log_commit_seconds_bucket", "");
    vec![
        alert(
            ("MainstayHubDown", "critical", "5m"),
            format!("absent({} == 1)", of("up", &format!(",service=\"{HUB}\""))),
            "the hub of this workspace can't be read, so that no task goes on: see kubectl describe of StatefulSet mainstay-hub",
        ),
        alert(
            ("MainstayAgentNotReady", "critical", "10m"),
            format!("{queued} > 0 unless on (namespace, agent) {able} > 0"),
            "tasks wait for this agent, and no pod of it is ready: see kubectl describe agent",
        ),
        alert(
            ("MainstayAgentCrashing", "warning", "0m"),
            format!("{crashes} > 5"),
            "processes of this agent crashed more than five times in ten minutes: see mainstay logs",
        ),
        alert(
            ("MainstayTasksFailing", "warning", "15m"),
            format!("{failed} / {all} > 0.5"),
            "more than half of this agent's tasks fail: see mainstay task list --state failed",
        ),
        alert(
            ("MainstayLogSlow", "warning", "15m"),
            format!("histogram_quantile(0.99, sum by (namespace, le) (rate({flush}[5m]))) > 1"),
            "the hub's log takes more than a second to flush, for which every call waits: see the volume's storage class",
        ),
    ]
}

fn alert((name, severity, wait): (&str, &str, &str), expr: String, says: &str) -> Value {
    json!({
        "alert": name, "expr": expr, "for": wait, "labels": {"severity": severity},
        "annotations": {"summary": says},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        Owner {
            kind: api::Kind::Workspace,
            name: "acme".to_owned(),
            uid: "1".to_owned(),
        }
    }

    #[test]
    fn the_token_is_the_one_that_the_hub_derives() {
        // The same as in the hub's test of its keys.
        let token = "msm_nQTgiuBKtfQ6YcIDnLHmlCErfyAtEURRqD3xVO-1i_I";
        assert_eq!(metrics_token(&[1; 32]), token);
        assert_eq!(in_url(b"fo"), "Zm8");
        assert_eq!(in_url(b"foo"), "Zm9v");
    }

    #[test]
    fn a_monitor_shows_the_token_of_the_secret_and_trusts_the_hubs_authority_alone() {
        let [secret, monitor] = monitor("acme", &owner(), &[1; 32]);
        let endpoint = &monitor.body["spec"]["endpoints"][0];
        let named = &endpoint["authorization"]["credentials"];
        assert_eq!(named["name"], secret.name.as_str());
        assert!(secret.body["data"][named["key"].as_str().unwrap()].is_string());
        assert_eq!(endpoint["tlsConfig"]["ca"]["configMap"]["name"], HUB_CA);
        assert_eq!(endpoint["tlsConfig"].get("insecureSkipVerify"), None);
    }

    #[test]
    fn a_rule_is_about_one_workspace() {
        let rules = rules("acme", &owner());
        for rule in rules.body["spec"]["groups"][0]["rules"].as_array().unwrap() {
            let expr = rule["expr"].as_str().unwrap();
            let selectors = expr.matches('{').count();
            let of_acme = expr.matches("{namespace=\"acme\"").count();
            assert_eq!(selectors, of_acme, "{expr}");
            assert_eq!(expr.matches('(').count(), expr.matches(')').count());
        }
    }
}
