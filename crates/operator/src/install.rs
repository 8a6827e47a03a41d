//! What an installation is, as plain objects: from the namespace to the operator's Deployment.
//!
//! One pure function, so that the command line, `render` and the Helm chart can't say different
//! things. It reads no cluster and no file; what is put where, and in which order it is taken away
//! again, is for who calls it. What a workspace gets is not here: the operator makes that.

mod admission;
mod clients;
mod deployment;
mod guard;
mod rbac;

use api::kubernetes::{GROUP, MANAGED_BY, VERSION, WORKSPACE_LABEL};
use serde_json::{Value, json};

pub use admission::{ADMISSION_PORT, AUTHORITY, AUTHORITY_FOLDER, Authority, AuthorityError};
pub use rbac::{IN_WORKSPACE_ROLE, OPERATOR_ROLE};

/// The operator's Deployment, ServiceAccount and selector.
pub const OPERATOR: &str = "mainstay-operator";
/// Where the operator lives if nobody says otherwise.
pub const NAMESPACE: &str = "mainstay-system";
/// The image's name without a prefix and a tag.
pub const IMAGE: &str = "mainstay";
/// On the operator's Deployment: the version that was installed.
pub const VERSION_LABEL: &str = "app.kubernetes.io/version";
/// Who writes the installation's objects.
pub const FIELD_MANAGER: &str = "mainstay-install";
/// The workspace that exists without being written, and the namespace that it adopts.
pub const DEFAULT_WORKSPACE: &str = "default";

/// What can be chosen about an installation.
#[derive(Clone, Debug)]
pub struct Options {
    /// The image of operator, hubs and built-in agents, with its tag.
    pub image: String,
    /// Where images are pulled from that nobody named.
    pub image_prefix: Option<String>,
    /// Where the operator lives.
    pub namespace: String,
    /// How many operators; one of them leads.
    pub replicas: u32,
    /// Whether the workspace `default` adopts the namespace of that name.
    pub default_workspace: bool,
    /// What the admission webhook is trusted by; without one there is no webhook.
    pub authority: Option<Authority>,
}

impl Options {
    /// One operator in its usual place, of this version's image.
    pub fn new(image: String) -> Self {
        Self {
            image,
            image_prefix: None,
            namespace: NAMESPACE.to_owned(),
            replicas: 1,
            default_workspace: true,
            authority: None,
        }
    }
}

/// The image of this version, pulled from `prefix` if there is one.
pub fn image(prefix: Option<&str>) -> String {
    let name = format!("{IMAGE}:{}", env!("CARGO_PKG_VERSION"));
    match prefix.map(|prefix| prefix.trim_end_matches('/')) {
        Some(prefix) if !prefix.is_empty() => format!("{prefix}/{name}"),
        _ => name,
    }
}

/// Everything that is installed, in the order in which it can be applied. `definitions` are the
/// custom resource definitions of the five kinds.
pub fn objects(options: &Options, definitions: Vec<Value>) -> Vec<Value> {
    let mut objects = vec![namespace(options)];
    objects.extend(definitions);
    objects.extend(rbac::objects(options));
    objects.extend(guard::objects(options));
    objects.extend(clients::objects());
    objects.extend(deployment::objects(options));
    objects.extend(admission::objects(options));
    if options.default_workspace {
        objects.extend(default_workspace());
    }
    objects
}

fn namespace(options: &Options) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": options.namespace, "labels": {
            MANAGED_BY: "mainstay",
            "app.kubernetes.io/part-of": "mainstay",
            "pod-security.kubernetes.io/enforce": "restricted",
            "pod-security.kubernetes.io/warn": "restricted",
        }},
    })
}

/// The namespace has the leave to be adopted; that it is there is not ours.
fn default_workspace() -> [Value; 2] {
    [
        json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": DEFAULT_WORKSPACE, "labels": {WORKSPACE_LABEL: DEFAULT_WORKSPACE}},
        }),
        json!({
            "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "Workspace",
            "metadata": {"name": DEFAULT_WORKSPACE},
            "spec": {},
        }),
    ]
}

/// The labels of what is installed.
fn labels() -> Value {
    json!({
        MANAGED_BY: "mainstay",
        "app.kubernetes.io/name": OPERATOR,
        "app.kubernetes.io/part-of": "mainstay",
    })
}

#[cfg(test)]
mod tests;
