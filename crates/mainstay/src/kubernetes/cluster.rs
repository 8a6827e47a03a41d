//! A cluster as these commands see it: objects as JSON, by apply, get, list and delete.
//!
//! Kinds come from the objects themselves, so nothing here knows what Mainstay installs. A failure
//! says which object and leaves with the exit code that its cause has.

use std::time::Duration;

use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams,
    PropagationPolicy,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::{Client, Config};
use serde_json::Value;

use crate::exit::{Exit, Failure};
use crate::place::KubeAddress;

/// How often something that is waited for is looked at.
const POLL: Duration = Duration::from_millis(500);
const CONNECT: Duration = Duration::from_secs(10);

/// A connection with somebody's rights.
#[derive(Clone)]
pub struct Cluster {
    pub client: Client,
    /// Its address, for people.
    pub address: String,
}

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    pub api_version: String,
    pub kind: String,
    pub namespace: Option<String>,
    pub name: String,
}

impl Reference {
    /// What an object calls itself.
    pub fn of(object: &Value) -> Self {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let owned = |pointer: &str| text(pointer).unwrap_or_default().to_owned();
        Self {
            api_version: owned("/apiVersion"),
            kind: owned("/kind"),
            namespace: text("/metadata/namespace").map(str::to_owned),
            name: owned("/metadata/name"),
        }
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

impl Cluster {
    pub async fn connect(of: &KubeAddress) -> Result<Self, Failure> {
        let mut config = configuration(of).await?;
        config.connect_timeout = Some(CONNECT);
        let address = config.cluster_url.to_string();
        let client = Client::try_from(config).map_err(|error| {
            Failure::usage(format!("failed to set up a client of {address}")).because(error)
        })?;
        Ok(Self { client, address })
    }

    fn api(&self, of: &Reference) -> Api<DynamicObject> {
        let resource = resource(&of.api_version, &of.kind);
        match &of.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }

    /// The object, or that there is none (or no such kind).
    pub async fn get(&self, of: &Reference) -> Result<Option<Value>, Failure> {
        match self.api(of).get(&of.name).await {
            Ok(found) => Ok(Some(json(found))),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(self.failed("read", &of.to_string(), error)),
        }
    }

    /// Server-side apply, taking over what others manage of these fields.
    pub async fn apply(
        &self,
        object: &Value,
        manager: &str,
        is_dry_run: bool,
    ) -> Result<Value, Failure> {
        let of = Reference::of(object);
        let mut how = PatchParams::apply(manager).force().validation_strict();
        how.dry_run = is_dry_run;
        self.api(&of)
            .patch(&of.name, &how, &Patch::Apply(object))
            .await
            .map(json)
            .map_err(|error| self.failed("apply", &of.to_string(), error))
    }

    /// A merge patch of an object that may be gone by now.
    pub async fn merge(&self, of: &Reference, patch: &Value) -> Result<(), Failure> {
        let patched = self
            .api(of)
            .patch(&of.name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        match patched {
            Ok(_) => Ok(()),
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(self.failed("change", &of.to_string(), error)),
        }
    }

    /// All objects of a kind, in a namespace or everywhere; none where the kind isn't known.
    pub async fn list(
        &self,
        (api_version, kind): (&str, &str),
        namespace: Option<&str>,
        labels: &str,
    ) -> Result<Vec<Value>, Failure> {
        let resource = resource(api_version, kind);
        let api: Api<DynamicObject> = match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let list = match api.list(&ListParams::default().labels(labels)).await {
            Ok(list) => list,
            Err(error) if is_absent(&error) => return Ok(Vec::new()),
            Err(error) => return Err(self.failed("list", &resource.plural, error)),
        };
        // Items of a list don't say what they are.
        let typed = list.items.into_iter().map(|item| {
            let mut object = json(item);
            object["apiVersion"] = api_version.into();
            object["kind"] = kind.into();
            object
        });
        Ok(typed.collect())
    }

    /// Deletes it if it is there. Its dependents follow, or stay without an owner.
    pub async fn delete(
        &self,
        of: &Reference,
        propagation: PropagationPolicy,
    ) -> Result<(), Failure> {
        let how = DeleteParams {
            propagation_policy: Some(propagation),
            ..DeleteParams::default()
        };
        match self.api(of).delete(&of.name, &how).await {
            Ok(_) => Ok(()),
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(self.failed("delete", &of.to_string(), error)),
        }
    }

    /// The API server's version.
    pub async fn version(&self) -> Result<String, Failure> {
        match self.client.apiserver_version().await {
            Ok(version) => Ok(version.git_version),
            Err(error) => Err(self.failed("read", "the API server's version", error)),
        }
    }

    pub fn failed(&self, verb: &str, what: &str, error: kube::Error) -> Failure {
        let (exit, said) = match &error {
            kube::Error::Api(status) => match status.code {
                401 | 403 => (Exit::NotAllowed, Some(status.message.clone())),
                404 => (Exit::NotFound, Some(status.message.clone())),
                503 => (Exit::Unreachable, Some(status.message.clone())),
                _ => (Exit::Failed, Some(status.message.clone())),
            },
            kube::Error::HyperError(_) | kube::Error::Service(_) => (Exit::Unreachable, None),
            kube::Error::Auth(_) => (Exit::NotAllowed, None),
            _ => (Exit::Failed, None),
        };
        let failure = match exit {
            Exit::Unreachable => Failure::new(
                exit,
                format!("cannot reach the cluster at {}", self.address),
            )
            .with_hint("check --kubeconfig and --kube-context"),
            _ => Failure::new(exit, format!("failed to {verb} {what}")),
        };
        failure.because(std::io::Error::other(said.unwrap_or_else(|| root(&error))))
    }
}

async fn configuration(of: &KubeAddress) -> Result<Config, Failure> {
    let wrong = |error: &dyn std::error::Error| {
        Failure::usage("no cluster is configured")
            .because(std::io::Error::other(root(error)))
            .with_hint("name a file with --kubeconfig or KUBECONFIG")
    };
    let options = KubeConfigOptions {
        context: of.context.clone(),
        ..KubeConfigOptions::default()
    };
    match (&of.kubeconfig, &of.context) {
        (Some(path), _) => {
            let file = Kubeconfig::read_from(path).map_err(|error| wrong(&error))?;
            let config = Config::from_custom_kubeconfig(file, &options).await;
            config.map_err(|error| wrong(&error))
        }
        (None, Some(_)) => {
            let config = Config::from_kubeconfig(&options).await;
            config.map_err(|error| wrong(&error))
        }
        (None, None) => Config::infer().await.map_err(|error| wrong(&error)),
    }
}

/// What is at the bottom of an error: those above it say the same again.
fn root(error: &dyn std::error::Error) -> String {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root.to_string()
}

fn resource(api_version: &str, kind: &str) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

/// Of a kind that isn't served the API server says so in plain text.
fn is_absent(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

fn json(object: DynamicObject) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

/// Looks until `done` has an answer, or the time is up.
pub async fn wait_until<T>(
    at_most: Duration,
    mut done: impl AsyncFnMut() -> Result<Option<T>, Failure>,
) -> Result<Option<T>, Failure> {
    let started = std::time::Instant::now();
    loop {
        if let Some(answer) = done().await? {
            return Ok(Some(answer));
        }
        if started.elapsed() >= at_most {
            return Ok(None);
        }
        tokio::time::sleep(POLL).await;
    }
}
