//! Where a hub's calls go: from the addresses that providers and tools name to what a
//! NetworkPolicy can say.
//!
//! A policy knows addresses and pods, no names of the outside. So a name leads to its port
//! anywhere, an address to itself, and a Service of the cluster to the pods of its namespace,
//! because a policy sees a pod's port and not the Service's.
//!
//! What a tenant writes never leads to a node's own network: clouds answer there with the node's
//! credentials. An address of it is refused, and a name's rule leaves it out.

use std::net::IpAddr;

use api::node_address::{blocks, blocks_v6, is_nodes};
use serde_json::{Value, json};

/// The address that a URL names, if it is one that no tenant may name.
pub(crate) fn node_address(url: &str) -> Option<IpAddr> {
    address(host_and_port(url)?.0).filter(|address| is_nodes(*address))
}

/// Where one address leads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Destination {
    /// A port of whatever has that name.
    Port(u16),
    Address(IpAddr, u16),
    /// Pods of a namespace.
    Namespace(String),
}

impl Destination {
    /// From a URL; `own` is the namespace that short names are looked up in.
    pub(super) fn read(url: &str, own: &str) -> Option<Self> {
        let (host, port) = host_and_port(url)?;
        if let Some(address) = address(host) {
            return (!is_nodes(address)).then_some(Self::Address(address, port));
        }
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let labels: Vec<&str> = host.split('.').collect();
        match labels.as_slice() {
            [_] => Some(Self::Namespace(own.to_owned())),
            [_, namespace, "svc", ..] => Some(Self::Namespace((*namespace).to_owned())),
            _ => Some(Self::Port(port)),
        }
    }

    /// An egress rule that leads there.
    pub(super) fn rule(&self) -> Value {
        let ports = |port: &u16| json!([{"protocol": "TCP", "port": port}]);
        match self {
            Self::Port(port) => json!({
                "to": [
                    {"ipBlock": {"cidr": "0.0.0.0/0", "except": blocks()}},
                    {"ipBlock": {"cidr": "::/0", "except": blocks_v6()}},
                    // Some networks take pods for no addresses.
                    {"namespaceSelector": {}},
                ],
                "ports": ports(port),
            }),
            Self::Address(address, port) => {
                let bits = if address.is_ipv4() { 32 } else { 128 };
                let cidr = format!("{address}/{bits}");
                json!({"to": [{"ipBlock": {"cidr": cidr}}], "ports": ports(port)})
            }
            Self::Namespace(name) => json!({"to": [
                {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}},
            ]}),
        }
    }
}

/// The name and port of the outside that a URL leads to, if it is one.
pub(super) fn named(url: &str) -> Option<(String, u16)> {
    let (host, port) = host_and_port(url)?;
    let is_named = matches!(Destination::read(url, "")?, Destination::Port(_));
    is_named.then(|| (host.trim_end_matches('.').to_ascii_lowercase(), port))
}

fn host_and_port(url: &str) -> Option<(&str, u16)> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let authority = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let default = if scheme.eq_ignore_ascii_case("http") {
        80
    } else {
        443
    };
    split(authority, default)
}

fn address(host: &str) -> Option<IpAddr> {
    host.trim_matches(['[', ']']).parse().ok()
}

fn split(authority: &str, default: u16) -> Option<(&str, u16)> {
    let after_host = authority.rfind(']').map_or(0, |end| end + 1);
    match authority[after_host..].find(':') {
        None => Some((authority, default)),
        Some(colon) => {
            let (host, port) = authority.split_at(after_host + colon);
            Some((host, port[1..].parse().ok()?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_leads_where_a_policy_can_follow() {
        let cases = [
            ("https://api.openai.com/v1", Destination::Port(443)),
            ("http://models.example:8443/v1?x=1", Destination::Port(8443)),
            (
                "http://10.0.0.7:11434",
                Destination::Address("10.0.0.7".parse().unwrap(), 11434),
            ),
            (
                "http://[fd00::1]/x",
                Destination::Address("fd00::1".parse().unwrap(), 80),
            ),
            (
                "http://ollama:11434",
                Destination::Namespace("acme".to_owned()),
            ),
            (
                "http://llm.serving.svc.cluster.local",
                Destination::Namespace("serving".to_owned()),
            ),
            ("https://user:pass@x.example/", Destination::Port(443)),
        ];
        for (url, expected) in cases {
            assert_eq!(Destination::read(url, "acme"), Some(expected), "{url}");
        }
        assert_eq!(Destination::read("nonsense", "acme"), None);
        assert_eq!(Destination::read("http://x.example:99999/", "acme"), None);
    }

    #[test]
    fn a_nodes_own_network_is_no_destination() {
        let refused = [
            "http://169.254.169.254/latest/meta-data",
            "http://user@169.254.0.1:8080/",
            "http://168.63.129.16/machine",
            "http://[fe80::1]/",
            "http://100.100.100.200/latest",
            "http://[fd00:ec2::254]/",
            "http://[fd00:ec2::23]/v1/credentials",
            "http://[fd20:ce::254]/",
            "http://[::ffff:169.254.169.254]/",
            "http://[64:ff9b::a9fe:a9fe]/",
            "http://[64:ff9b::168.63.129.16]/",
        ];
        for url in refused {
            assert!(node_address(url).is_some(), "{url}");
            assert_eq!(Destination::read(url, "acme"), None, "{url}");
        }
        for url in [
            "http://169.253.0.1/",
            "http://[fd00::1]/",
            "http://[64:ff9b::808:808]/",
        ] {
            assert_eq!(node_address(url), None, "{url}");
            assert!(Destination::read(url, "acme").is_some(), "{url}");
        }
    }

    #[test]
    fn a_name_leads_anywhere_but_to_a_nodes_own_network() {
        let rule = Destination::Port(443).rule();
        assert_eq!(rule["to"][0]["ipBlock"]["except"][0], "169.254.0.0/16");
        let blocks = rule["to"].as_array().unwrap().iter();
        let blocks = blocks.filter_map(|to| to.get("ipBlock"));
        assert!(blocks.clone().count() == 2);
        for block in blocks {
            let size = |cidr: &str| cidr.rsplit_once('/').unwrap().1.parse::<u32>().unwrap();
            let family = block["cidr"].as_str().unwrap().contains(':');
            for except in block["except"].as_array().unwrap() {
                let except = except.as_str().unwrap();
                assert_eq!(except.contains(':'), family);
                assert!(size(except) > 0);
            }
        }
    }
}
