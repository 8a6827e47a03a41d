//! Who reaches whom, by an evaluator that isn't ours: the whole matrix of pairs is held against a
//! table of those that are allowed, in both families of addresses.
//!
//! Runs where `MAINSTAY_TEST_POLICIES` names the program of `testbed/policies`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};

use api::kubernetes::COMPONENT;
use operator::build::{PolicyInput, policies};
use operator::object::Owner;
use serde_json::{Value, json};

/// A provider by its name, one by its address, one that is a Service, and a tool by its name.
const FLEET: &str = "\
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: named}
spec: {type: openai, baseUrl: 'https://api.openai.com/v1'}
---
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: near}
spec: {type: openai, baseUrl: 'http://10.0.0.7:11434/v1'}
---
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: nearer}
spec: {type: openai, baseUrl: 'http://[fd00:7::7]:11434/v1'}
---
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: inside}
spec: {type: openai, baseUrl: 'http://llm.serving.svc:80/v1'}
---
apiVersion: mainstay.dev/v1alpha1
kind: ToolRegistry
metadata: {name: desk}
spec: {tools: [{name: get, description: x, effect: pure, http: {method: GET, url: 'http://tools.example:8443/'}}]}
";

/// Pods of two workspaces and of others, and addresses that are no pod's: `NAME NAMESPACE COMPONENT
/// PORTS ADDRESSES`. A pod has an address of each family.
const PEERS: &str = "\
agent        acme             agent 7081,8080             10.244.1.1 fd01::11
agent-2      acme             agent 7081,8080             10.244.1.2 fd01::12
tool         acme             tool  7081,8080             10.244.1.3 fd01::13
hub          acme             hub   7080,7443             10.244.1.4 fd01::14
other-agent  globex           agent 7081,8080             10.244.2.1 fd01::21
other-tool   globex           tool  7081,8080             10.244.2.2 fd01::22
other-hub    globex           hub   7080,7443             10.244.2.3 fd01::23
stranger     globex           -     80,443,8080           10.244.2.4 fd01::24
client       default          -     8080                  10.244.3.1 fd01::31
model        serving          -     8000,443              10.244.3.2 fd01::32
dns          kube-system      -     53,53/UDP,9153        10.244.3.3 fd01::33
operator     mainstay-system  -     8080                  10.244.3.4 fd01::34
api-server   -                -     6443,443              172.18.0.2 fd02::2
internet     -                -     80,443,8443,22        203.0.113.9 2001:db8::9
named-alone  -                -     11434,80              10.0.0.7 fd00:7::7
unnamed      -                -     11434,80              10.0.0.8 fd00:7::8
metadata     -                -     80,443,8443           169.254.169.254 fd00:ec2::254
google       -                -     80,443,8443           fd20:ce::254
amazon-pods  -                -     80,443,8443           169.254.170.23 fd00:ec2::23
alibaba      -                -     80,443,8443           100.100.100.200
azure        -                -     80,443,8443,32526     168.63.129.16
link-local   -                -     80,443,8443           fe80::1
translated   -                -     80,443,8443           64:ff9b::a9fe:a9fe 64:ff9b:1::a83f:8110 2002:a9fe:a9fe::1
";

/// Every pair that is allowed of those in which a pod of workspace `acme` calls or is called.
const ALLOWED: &str = "\
agent       hub          7443
agent-2     hub          7443
tool        hub          7443
tool        dns          53 53/UDP
tool        internet     22 80 443 8443
hub         dns          53 53/UDP
hub         api-server   6443 443
hub         internet     443 8443
hub         named-alone  11434
hub         model        8000 443
hub         stranger     443
client      hub          7080
stranger    hub          7080
model       hub          7080
dns         hub          7080
operator    hub          7080
";

/// The workspace whose pairs the table has.
const OURS: &str = "acme";

#[test]
fn who_reaches_whom_is_what_the_table_says() {
    let Ok(program) = std::env::var("MAINSTAY_TEST_POLICIES") else {
        eprintln!("left out: MAINSTAY_TEST_POLICIES names no evaluator of policies");
        return;
    };
    let peers: Vec<Value> = PEERS.lines().map(peer).collect();
    let ours: BTreeSet<&str> = peers
        .iter()
        .filter(|peer| peer["namespace"] == OURS)
        .filter_map(|peer| peer["name"].as_str())
        .collect();
    let question = json!({"policies": written(), "peers": peers});
    let pairs = asked(&program, &question);
    let mut by_pair: BTreeMap<String, BTreeSet<bool>> = BTreeMap::new();
    for pair in pairs.as_array().unwrap() {
        let text = |field: &str| pair[field].as_str().unwrap();
        if ours.contains(text("from")) || ours.contains(text("to")) {
            let name = format!("{} > {} {}", text("from"), text("to"), port(pair));
            let allowed = pair["allowed"].as_bool().unwrap();
            by_pair.entry(name).or_default().insert(allowed);
        }
    }
    let both: Vec<&String> = by_pair
        .iter()
        .filter(|(_, said)| said.len() > 1)
        .map(|(pair, _)| pair)
        .collect();
    assert!(
        both.is_empty(),
        "by one address and not by another: {both:?}"
    );
    let allowed: BTreeSet<String> = by_pair
        .into_iter()
        .filter(|(_, said)| said.contains(&true))
        .map(|(pair, _)| pair)
        .collect();
    let table: BTreeSet<String> = ALLOWED.lines().flat_map(row).collect();
    let more: Vec<&String> = allowed.difference(&table).collect();
    let less: Vec<&String> = table.difference(&allowed).collect();
    assert!(
        more.is_empty() && less.is_empty(),
        "allowed and not in the table: {more:#?}\nin the table and denied: {less:#?}"
    );
}

/// The policies of both workspaces; the other one's fleet is empty.
fn written() -> Vec<Value> {
    let api_server = [("172.18.0.2", 6443), ("fd02::2", 6443)];
    let api_server = api_server.map(|(address, port)| (address.to_owned(), port));
    let fleets = [(OURS, fleet()), ("globex", api::Fleet::empty("globex"))];
    let written = fleets.iter().flat_map(|(namespace, fleet)| {
        let owner = Owner {
            kind: api::Kind::Workspace,
            name: (*namespace).to_owned(),
            uid: "1".to_owned(),
        };
        policies(&PolicyInput {
            namespace,
            owner: &owner,
            fleet,
            api_server: &api_server,
            are_named_elsewhere: false,
        })
    });
    written.map(|object| object.body).collect()
}

fn fleet() -> api::Fleet {
    let nowhere = |_: &std::path::Path| Err("no such file".to_owned());
    let unknown = |_: &str, _: &str| None;
    let mut facts = api::Facts::new(&unknown, &nowhere);
    facts.home = api::Home::Kubernetes;
    let resolved = api::resolve(&[api::Document::named("a.yaml", FLEET)], &facts);
    resolved.unwrap().fleet
}

fn peer(line: &str) -> Value {
    let mut words = line.split_whitespace();
    let mut word = || words.next().unwrap();
    let (name, namespace, component, ports) = (word(), word(), word(), word());
    let addresses: Vec<&str> = words.collect();
    let mut peer = json!({"name": name, "addresses": addresses, "labels": {}});
    peer["ports"] = ports.split(',').map(numbered).collect();
    if namespace != "-" {
        peer["namespace"] = namespace.into();
        peer["namespaceLabels"] = json!({"kubernetes.io/metadata.name": namespace});
    }
    if component != "-" {
        peer["labels"] = json!({COMPONENT: component});
    }
    peer
}

fn numbered(text: &str) -> Value {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "TCP"));
    json!({"number": number.parse::<u16>().unwrap(), "protocol": protocol})
}

fn port(pair: &Value) -> String {
    match pair["protocol"].as_str().unwrap() {
        "TCP" => pair["number"].to_string(),
        protocol => format!("{}/{protocol}", pair["number"]),
    }
}

fn row(line: &str) -> Vec<String> {
    let mut words = line.split_whitespace();
    let (from, to) = (words.next().unwrap(), words.next().unwrap());
    words.map(|port| format!("{from} > {to} {port}")).collect()
}

fn asked(program: &str, question: &Value) -> Value {
    let mut asked = Command::new(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = asked.stdin.take().unwrap();
    let text = question.to_string();
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = asked.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}
