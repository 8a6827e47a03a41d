//! The custom resource definitions of the five kinds, made from the schemas and rules that manifests
//! are checked against on the box.
//!
//! Plain JSON: whoever applies it needs no Kubernetes client from here.

mod status;
mod structural;

use crate::kubernetes::{GROUP, VERSION};
use crate::manifest::Kind;
use crate::schema::kind_schema;
use serde_json::{Value, json};

/// All five, in the order of `Kind::ALL`.
pub fn all() -> Vec<Value> {
    Kind::ALL.into_iter().map(crd).collect()
}

fn crd(kind: Kind) -> Value {
    let names = names(kind);
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{}.{GROUP}", names.plural),
            "labels": {"app.kubernetes.io/name": "mainstay", "app.kubernetes.io/part-of": "mainstay"},
        },
        "spec": {
            "group": GROUP,
            "scope": if kind == Kind::Workspace { "Cluster" } else { "Namespaced" },
            "names": {
                "kind": kind.name(),
                "listKind": format!("{kind}List"),
                "plural": names.plural,
                "singular": names.singular,
                "shortNames": names.short,
                "categories": ["mainstay", "ai"],
            },
            "conversion": {"strategy": "None"},
            "versions": [version(kind)],
        },
    })
}

fn version(kind: Kind) -> Value {
    let mut subresources = json!({"status": {}});
    if kind == Kind::Agent {
        subresources["scale"] = json!({
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        });
    }
    json!({
        "name": VERSION,
        "served": true,
        "storage": true,
        "schema": {"openAPIV3Schema": object(kind)},
        "subresources": subresources,
        "additionalPrinterColumns": columns(kind),
    })
}

fn object(kind: Kind) -> Value {
    let manifest = kind_schema(kind);
    let mut spec = structural::schema(kind, "spec", &manifest["properties"]["spec"]);
    // An agent with nothing in it breaks a rule, and a default may not.
    let needs_spec = spec.get("required").is_some() || kind == Kind::Agent;
    if !needs_spec {
        // So that what is filled in below it is filled in.
        spec["default"] = json!({});
    }
    let mut object = json!({
        "type": "object",
        "description": manifest["description"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status::schema(kind),
        },
    });
    if needs_spec {
        object["required"] = json!(["spec"]);
    }
    structural::add_rules(kind, "", &mut object);
    object
}

struct Names {
    plural: &'static str,
    singular: &'static str,
    short: &'static [&'static str],
}

fn names(kind: Kind) -> Names {
    let (singular, short): (_, &[&str]) = match kind {
        Kind::Provider => ("provider", &["prov"]),
        Kind::PromptPack => ("promptpack", &["pp"]),
        Kind::ToolRegistry => ("toolregistry", &["tools"]),
        Kind::Agent => ("agent", &["ag"]),
        Kind::Workspace => ("workspace", &["ws"]),
    };
    Names {
        plural: crate::kubernetes::plural(kind),
        singular,
        short,
    }
}

const READY: &str = r#".status.conditions[?(@.type=="Ready")].status"#;
const REASON: &str = r#".status.conditions[?(@.type=="Ready")].reason"#;

/// Whether nothing enforces a workspace's policies.
const UNENFORCED: &str = r#".status.conditions[?(@.type=="IsolationUnenforced")].status"#;

/// What `kubectl get` shows; priority 1 is for `-o wide`.
fn columns(kind: Kind) -> Vec<Value> {
    let mut columns = vec![column("Ready", "string", READY)];
    columns.extend(match kind {
        Kind::Agent => vec![
            column("Tasks", "integer", ".status.tasks.open"),
            column("Cost Today", "string", ".status.costToday"),
            column("Version", "string", ".status.version"),
            wide("Replicas", "integer", ".status.readyReplicas"),
        ],
        Kind::Provider => vec![
            column("Type", "string", ".spec.type"),
            column(
                "Key",
                "string",
                r#".status.conditions[?(@.type=="CredentialValid")].status"#,
            ),
        ],
        Kind::PromptPack => vec![column("Version", "string", ".status.version")],
        Kind::ToolRegistry => vec![column("Tools", "integer", ".status.toolCount")],
        Kind::Workspace => vec![
            column("Hub", "boolean", ".status.hub.ready"),
            wide("Namespace", "string", ".status.namespace"),
            wide("Unenforced", "string", UNENFORCED),
        ],
    });
    columns.push(wide("Reason", "string", REASON));
    columns.push(column("Age", "date", ".metadata.creationTimestamp"));
    columns
}

fn column(name: &str, kind: &str, path: &str) -> Value {
    json!({"name": name, "type": kind, "jsonPath": path})
}

fn wide(name: &str, kind: &str, path: &str) -> Value {
    json!({"name": name, "type": kind, "jsonPath": path, "priority": 1})
}
