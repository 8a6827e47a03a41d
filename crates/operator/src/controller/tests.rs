//! What keeps an object from being used, whatever its kind.

use super::*;

fn fleet(text: &str) -> Fleet {
    let nowhere = |_: &std::path::Path| Err("no such file".to_owned());
    let unknown = |_: &str, _: &str| None;
    let mut facts = api::Facts::new(&unknown, &nowhere);
    facts.home = api::Home::Kubernetes;
    let resolved = api::resolve(&[api::Document::named("a.yaml", text)], &facts).unwrap();
    resolved.fleet
}

#[test]
fn a_way_to_a_nodes_own_network_is_refused_by_its_field() {
    let fleet = fleet(
        "apiVersion: mainstay.dev/v1alpha1\nkind: Provider\nmetadata: {name: sly}\n\
         spec: {type: openai, baseUrl: 'http://169.254.169.254/v1'}\n---\n\
         apiVersion: mainstay.dev/v1alpha1\nkind: Provider\nmetadata: {name: good}\n\
         spec: {type: openai, baseUrl: 'http://10.0.0.1/v1'}\n---\n\
         apiVersion: mainstay.dev/v1alpha1\nkind: ToolRegistry\nmetadata: {name: desk}\n\
         spec: {tools: [{name: get, description: x, effect: pure, \
         http: {method: GET, url: 'http://[fd00:ec2::254]/'}}]}\n",
    );
    let refused = |kind, name: &str| node_address(&fleet, &Key::new(kind, "acme", name));
    let provider = refused(Kind::Provider, "sly").unwrap();
    assert_eq!(provider.reason, "Invalid");
    assert!(provider.message.starts_with("spec.baseUrl: 169.254"));
    let registry = refused(Kind::ToolRegistry, "desk").unwrap();
    assert!(registry.message.starts_with("spec.tools: get"));
    assert_eq!(refused(Kind::Provider, "good"), None);
}
