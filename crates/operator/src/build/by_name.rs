//! Where a hub's calls go, by their names: a policy of Cilium's, where its kind is there.
//!
//! A NetworkPolicy knows no names, and so a provider's leads to its port anywhere. Cilium learns what
//! a name resolves to from the answers that it passes on, and lets only that through. Both kinds of
//! policy add up: with this one in force, the other leaves those ports out.

use std::collections::BTreeMap;

use api::fleet::Fleet;
use api::kubernetes::{COMPONENT, HUB};
use api::node_address::{blocks, blocks_v6};
use serde_json::{Value, json};

use super::destination::named;
use super::policy::fleet_urls;
use crate::object::{Object, Owner, Place, Resource};

/// Cilium takes so many ports in one rule.
const PORTS: usize = 40;

/// The policy; none if the fleet names nothing of the outside.
pub fn by_name(namespace: &str, owner: &Owner, fleet: &Fleet) -> Option<Object> {
    let mut by_port: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    for (name, port) in fleet_urls(fleet).filter_map(|url| named(url)) {
        let names = by_port.entry(port).or_default();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if by_port.is_empty() {
        return None;
    }
    let mut egress = vec![answers()];
    for (port, names) in &mut by_port {
        names.sort();
        let names = names.iter().map(|name| json!({"matchName": name}));
        let names: Vec<Value> = names.collect();
        egress.push(json!({"toFQDNs": names, "toPorts": ports(&[*port])}));
    }
    let all: Vec<u16> = by_port.into_keys().collect();
    let nodes = [blocks(), blocks_v6()].concat();
    let content = json!({"spec": {
        "endpointSelector": {"matchLabels": {COMPONENT: "hub"}},
        "egress": egress,
        // A name is its owner's, who may let it lead to a node's own network.
        "egressDeny": [{"toCIDR": nodes, "toPorts": ports(&all)}],
    }});
    let place = Place {
        namespace: Some(namespace),
        component: "tenancy",
        owner,
    };
    Some(place.object(Resource::CiliumNetworkPolicy, HUB, &[], content))
}

fn ports(all: &[u16]) -> Value {
    let rules = all.chunks(PORTS).map(|some| {
        let some = some.iter();
        let some = some.map(|port| json!({"port": port.to_string(), "protocol": "TCP"}));
        json!({"ports": some.collect::<Vec<Value>>()})
    });
    rules.collect()
}

/// Names are learned from what is asked here, wherever the cluster's name server is.
fn answers() -> Value {
    json!({"toEntities": ["all"], "toPorts": [{
        "ports": [{"port": "53", "protocol": "ANY"}],
        "rules": {"dns": [{"matchPattern": "*"}]},
    }]})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(text: &str) -> Option<Object> {
        let nowhere = |_: &std::path::Path| Err("no such file".to_owned());
        let unknown = |_: &str, _: &str| None;
        let mut facts = api::Facts::new(&unknown, &nowhere);
        facts.home = api::Home::Kubernetes;
        let resolved = api::resolve(&[api::Document::named("a.yaml", text)], &facts).unwrap();
        let owner = Owner {
            kind: api::Kind::Workspace,
            name: "acme".to_owned(),
            uid: "1".to_owned(),
        };
        by_name("acme", &owner, &resolved.fleet)
    }

    fn provider(name: &str, url: &str) -> String {
        format!(
            "apiVersion: mainstay.dev/v1alpha1\nkind: Provider\nmetadata: {{name: {name}}}\n\
             spec: {{type: openai, baseUrl: '{url}'}}\n---\n"
        )
    }

    #[test]
    fn names_of_the_outside_lead_to_themselves_at_their_port() {
        let text = [
            provider("one", "https://api.openai.com/v1"),
            provider("two", "https://Other.Example./v1"),
            provider("three", "http://models.example:8080/v1"),
            provider("near", "http://10.0.0.7:11434/v1"),
            provider("inside", "http://llm.serving.svc/v1"),
        ]
        .concat();
        let spec = &built(&text).unwrap().body["spec"];
        let ways = |port: &str| {
            let ways = spec["egress"].as_array().unwrap().iter();
            let mut ways = ways.filter(|way| way["toPorts"][0]["ports"][0]["port"] == port);
            ways.next().unwrap()["toFQDNs"].clone()
        };
        let names = json!([{"matchName": "api.openai.com"}, {"matchName": "other.example"}]);
        assert_eq!(ways("443"), names);
        assert_eq!(ways("8080"), json!([{"matchName": "models.example"}]));
        assert_eq!(spec["egress"].as_array().unwrap().len(), 3);
        let denied = spec["egressDeny"][0].to_string();
        assert!(denied.contains("169.254.0.0/16") && denied.contains("\"443\""));
    }

    #[test]
    fn a_fleet_that_names_nothing_of_the_outside_needs_none() {
        assert_eq!(built(&provider("near", "http://10.0.0.7:11434/v1")), None);
    }
}
