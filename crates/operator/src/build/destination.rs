//! Where a hub's calls go: from the addresses that providers and tools name to what a
//! NetworkPolicy can say.
//!
//! A policy knows addresses and pods, no names of the outside. So a name leads to its port
//! anywhere, an address to itself, and a Service of the cluster to the pods of its namespace,
//! because a policy sees a pod's port and not the Service's.

use std::net::IpAddr;

use serde_json::{Value, json};

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
        let (host, port) = split(authority, default)?;
        if let Ok(address) = host.trim_matches(['[', ']']).parse() {
            return Some(Self::Address(address, port));
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
            Self::Port(port) => json!({"ports": ports(port)}),
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
}
