//! Who may reach whom in a workspace's namespace.
//!
//! Agents reach the hub's door for pods and nothing else, not even names. The hub reaches what its
//! providers and tools are, names, and the API server by its addresses. Tools reach the outside,
//! but nothing private. Who wants more for a tool adds a policy of their own: policies add up.

use std::collections::BTreeSet;

use api::fleet::{Fleet, Tool, ToolKind};
use api::kubernetes::COMPONENT;
use api::node_address::{blocks, blocks_v6};
use contract::pod::{FACADE_PORT, POD_DOOR_PORT};
use serde_json::{Value, json};

use super::destination::Destination;
use crate::object::{Object, Owner, Place, Resource};

/// Addresses that aren't the internet's: a tool doesn't reach them.
const PRIVATE: [&str; 7] = [
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "0.0.0.0/8",
];
const PRIVATE_V6: [&str; 2] = ["::1/128", "fc00::/7"];

/// What policies depend on.
#[derive(Clone, Debug)]
pub struct PolicyInput<'a> {
    pub namespace: &'a str,
    pub owner: &'a Owner,
    pub fleet: &'a Fleet,
    /// Addresses and ports of the API server.
    pub api_server: &'a [(String, u16)],
    /// Names of the outside are let through by another kind of policy.
    pub are_named_elsewhere: bool,
}

/// The three policies.
pub fn policies(input: &PolicyInput<'_>) -> Vec<Object> {
    let place = Place {
        namespace: Some(input.namespace),
        component: "tenancy",
        owner: input.owner,
    };
    [
        ("mainstay-agents", agents()),
        ("mainstay-tools", tools()),
        ("mainstay-hub", hub(input)),
    ]
    .into_iter()
    .map(|(name, spec)| {
        let content = json!({"spec": spec});
        place.object(Resource::NetworkPolicy, name, &[], content)
    })
    .collect()
}

fn of(component: &str) -> Value {
    json!({"matchLabels": {COMPONENT: component}})
}

/// A pod's own node always reaches it, which is how probes do.
fn agents() -> Value {
    json!({
        "podSelector": of("agent"),
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [],
        "egress": [to_hub()],
    })
}

fn to_hub() -> Value {
    json!({"to": [{"podSelector": of("hub")}], "ports": [{"protocol": "TCP", "port": POD_DOOR_PORT}]})
}

fn tools() -> Value {
    let private = beside(&PRIVATE, blocks());
    let private_v6 = beside(&PRIVATE_V6, blocks_v6());
    json!({
        "podSelector": of("tool"),
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [],
        "egress": [
            to_hub(),
            names(),
            {"to": [
                {"ipBlock": {"cidr": "0.0.0.0/0", "except": private}},
                {"ipBlock": {"cidr": "::/0", "except": private_v6}},
            ]},
        ],
    })
}

fn beside(private: &[&str], nodes: Vec<String>) -> Vec<String> {
    let private = private.iter().map(|block| (*block).to_owned());
    private.chain(nodes).collect()
}

fn names() -> Value {
    json!({"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]})
}

fn hub(input: &PolicyInput<'_>) -> Value {
    let mut egress = vec![names()];
    let api_server = input.api_server.iter();
    egress.extend(api_server.filter_map(|(address, port)| {
        Some(Destination::Address(address.parse().ok()?, *port).rule())
    }));
    egress.extend(destinations(input).iter().map(Destination::rule));
    let pods = json!({
        "from": [{"podSelector": {"matchExpressions": [
            {"key": COMPONENT, "operator": "In", "values": ["agent", "tool"]},
        ]}}],
        "ports": [{"protocol": "TCP", "port": POD_DOOR_PORT}],
    });
    let clients = json!({
        "from": [{"namespaceSelector": {}}],
        "ports": [{"protocol": "TCP", "port": FACADE_PORT}],
    });
    json!({
        "podSelector": of("hub"),
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [clients, pods],
        "egress": egress,
    })
}

fn destinations(input: &PolicyInput<'_>) -> BTreeSet<Destination> {
    let all = fleet_urls(input.fleet).filter_map(|url| Destination::read(url, input.namespace));
    let is_elsewhere =
        |to: &Destination| input.are_named_elsewhere && matches!(to, Destination::Port(_));
    all.filter(|to| !is_elsewhere(to)).collect()
}

/// What a hub's calls go to.
pub(super) fn fleet_urls(fleet: &Fleet) -> impl Iterator<Item = &String> {
    let providers = fleet.providers.values().map(|provider| &provider.base_url);
    providers.chain(fleet.tools.values().flat_map(urls))
}

/// What a tool's calls go to.
pub(crate) fn urls(tool: &Tool) -> Vec<&String> {
    match &tool.kind {
        ToolKind::McpHttp { url, .. } => vec![url],
        ToolKind::Http { url, read_back, .. } => {
            let read_back = read_back.iter().map(|read_back| &read_back.url);
            std::iter::once(url).chain(read_back).collect()
        }
        ToolKind::McpStdio { .. } | ToolKind::Agent { .. } => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(fleet: &Fleet) -> Vec<Object> {
        let owner = Owner {
            kind: api::Kind::Workspace,
            name: "acme".to_owned(),
            uid: "1".to_owned(),
        };
        policies(&PolicyInput {
            namespace: "acme",
            owner: &owner,
            fleet,
            api_server: &[("198.18.0.1".to_owned(), 6443)],
            are_named_elsewhere: false,
        })
    }

    #[test]
    fn an_agent_reaches_the_hubs_door_for_pods_and_nothing_else() {
        let objects = built(&Fleet::empty("acme"));
        let spec = &objects[0].body["spec"];
        assert_eq!(spec["ingress"], json!([]));
        assert_eq!(
            spec["egress"],
            json!([{
                "to": [{"podSelector": {"matchLabels": {COMPONENT: "hub"}}}],
                "ports": [{"protocol": "TCP", "port": 7443}],
            }])
        );
    }

    #[test]
    fn a_tool_reaches_neither_private_addresses_nor_its_nodes_network() {
        let objects = built(&Fleet::empty("acme"));
        let egress = objects[1].body["spec"]["egress"].to_string();
        for out in [
            "10.0.0.0/8",
            "169.254.0.0/16",
            "168.63.129.16/32",
            "fe80::/10",
        ] {
            assert!(egress.contains(out), "{out}: {egress}");
        }
    }

    #[test]
    fn a_hub_reaches_the_api_server_by_address() {
        let objects = built(&Fleet::empty("acme"));
        let egress = objects[2].body["spec"]["egress"].to_string();
        assert!(egress.contains("198.18.0.1/32"), "{egress}");
        assert!(egress.contains("6443"), "{egress}");
    }
}
