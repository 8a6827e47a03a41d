//! A workspace of a test's own, and how to look at it.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);
const OURS: &str = "mainstay.dev";

/// A workspace's name and namespace.
pub(crate) struct Space {
    pub(crate) client: Client,
    pub(crate) name: String,
}

/// Runs a test with a workspace's name of its own, and cleans up whatever became of it.
pub(crate) async fn with_space<F: Future<Output = ()>>(test: impl FnOnce(Space) -> F) {
    let Ok(path) = std::env::var("MAINSTAY_TEST_CLUSTER") else {
        eprintln!("left out: MAINSTAY_TEST_CLUSTER names no kubeconfig");
        return;
    };
    let client = client(&path).await;
    operator(&path, client.clone()).await;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("operator-it-{}-{number}", std::process::id());
    let space = || Space {
        client: client.clone(),
        name: name.clone(),
    };
    let ended = AssertUnwindSafe(test(space())).catch_unwind().await;
    space().clean_up().await;
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}

async fn client(path: &str) -> Client {
    let config = kube::config::Kubeconfig::read_from(path).unwrap();
    let options = kube::config::KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(config, &options).await;
    let config = config.unwrap();
    Client::try_from(config).unwrap()
}

/// The kinds, and an operator that serves them, once per process.
async fn operator(path: &str, client: Client) {
    static STARTED: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
    let start = || async {
        let namespace = operator::install::NAMESPACE;
        let body =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        apply(&client, &core("Namespace", "namespaces"), None, &body).await;
        for definition in api::crd::all() {
            let kind = kind(
                "apiextensions.k8s.io",
                "v1",
                "CustomResourceDefinition",
                "customresourcedefinitions",
            );
            let there: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
            let name = definition["metadata"]["name"].as_str().unwrap();
            if there.get_opt(name).await.unwrap().is_none() {
                apply(&client, &kind, None, &definition).await;
            }
        }
        let (path, image) = (path.to_owned(), installed_image(&client).await);
        std::thread::spawn(move || run(&path, image));
    };
    STARTED.get_or_init(start).await;
}

/// The image of the operator that is installed: workspaces that aren't ours see no other from us.
async fn installed_image(client: &Client) -> String {
    let deployments = apps("Deployment", "deployments");
    let namespace = operator::install::NAMESPACE;
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &deployments);
    let installed = api.get_opt(operator::install::OPERATOR).await.unwrap();
    let spec = installed.map(|installed| installed.data["spec"]["template"]["spec"].clone());
    let image = spec.and_then(|spec| spec["containers"][0]["image"].as_str().map(str::to_owned));
    image.unwrap_or_else(|| "localhost/mainstay:none".to_owned())
}

/// Each test has a runtime that ends with it; the operator has its own.
fn run(path: &str, image: String) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ended = runtime.block_on(async {
        operator::run(
            operator::Options {
                client: client(path).await,
                image,
                image_prefix: None,
                namespace: operator::install::NAMESPACE.to_owned(),
                name: format!("operator-it-{}", std::process::id()),
                listen: "127.0.0.1:0".parse().unwrap(),
                admission: "127.0.0.1:0".parse().unwrap(),
                authority: std::path::PathBuf::from("/nonexistent"),
                checks: api::Knowledge::nothing(),
            },
            std::future::pending(),
        )
        .await
    });
    ended.unwrap();
}

async fn apply(client: &Client, kind: &ApiResource, namespace: Option<&str>, body: &Value) {
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, kind),
        None => Api::all_with(client.clone(), kind),
    };
    let name = body["metadata"]["name"].as_str().unwrap();
    let parameters = PatchParams::apply("operator-it").force();
    api.patch(name, &parameters, &Patch::Apply(body))
        .await
        .unwrap();
}

fn kind(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    let api_version = match group {
        "" => version.to_owned(),
        group => format!("{group}/{version}"),
    };
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version,
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

pub(crate) fn core(name: &str, plural: &str) -> ApiResource {
    kind("", "v1", name, plural)
}

pub(crate) fn apps(name: &str, plural: &str) -> ApiResource {
    kind("apps", "v1", name, plural)
}

pub(crate) fn network_policies() -> ApiResource {
    kind(
        "networking.k8s.io",
        "v1",
        "NetworkPolicy",
        "networkpolicies",
    )
}

fn workspaces() -> ApiResource {
    kind(OURS, "v1alpha1", "Workspace", "workspaces")
}

pub(crate) fn agents() -> ApiResource {
    kind(OURS, "v1alpha1", "Agent", "agents")
}

impl Space {
    pub(crate) fn api(&self, kind: &ApiResource) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.name, kind)
    }

    pub(crate) fn namespaces(&self) -> Api<DynamicObject> {
        Api::all_with(self.client.clone(), &core("Namespace", "namespaces"))
    }

    pub(crate) fn workspaces(&self) -> Api<DynamicObject> {
        Api::all_with(self.client.clone(), &workspaces())
    }

    pub(crate) async fn make_namespace(&self, labels: Value) {
        let body = json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": self.name, "labels": labels}});
        let object = serde_json::from_value(body).unwrap();
        self.namespaces()
            .create(&PostParams::default(), &object)
            .await
            .unwrap();
    }

    pub(crate) async fn write_workspace(&self, spec: Value) {
        let body = json!({"apiVersion": api::API_VERSION, "kind": "Workspace",
            "metadata": {"name": self.name}, "spec": spec});
        apply(&self.client, &workspaces(), None, &body).await;
    }

    /// A workspace, its provider `fake`, and an agent.
    pub(crate) async fn with_agent(&self, name: &str, spec: Value) {
        self.write_workspace(json!({})).await;
        self.there(&apps("StatefulSet", "statefulsets"), "mainstay-hub")
            .await;
        let body = json!({"apiVersion": api::API_VERSION, "kind": "Provider",
            "metadata": {"name": "fake", "namespace": self.name},
            "spec": {"type": "openai", "baseUrl": "http://127.0.0.1:9"}});
        let providers = kind(OURS, "v1alpha1", "Provider", "providers");
        apply(&self.client, &providers, Some(&self.name), &body).await;
        self.write_agent(name, spec).await;
    }

    pub(crate) async fn write_agent(&self, name: &str, spec: Value) {
        let body = json!({"apiVersion": api::API_VERSION, "kind": "Agent",
            "metadata": {"name": name, "namespace": self.name}, "spec": spec});
        apply(&self.client, &agents(), Some(&self.name), &body).await;
    }

    /// The object, once it is there.
    pub(crate) async fn there(&self, kind: &ApiResource, name: &str) -> DynamicObject {
        self.when(kind, name, |_| true).await
    }

    /// The object, once it is as wanted.
    pub(crate) async fn when(
        &self,
        kind: &ApiResource,
        name: &str,
        is_wanted: impl Fn(&DynamicObject) -> bool,
    ) -> DynamicObject {
        until(self.api(kind), name, is_wanted).await
    }

    pub(crate) async fn gone(&self, kind: &ApiResource, name: &str) {
        gone(self.api(kind), name).await;
    }

    /// The reason of its condition `Ready`, once it is one of its present generation.
    pub(crate) async fn reason(&self, kind: &ApiResource, name: &str, reason: &str) -> Value {
        let object = self
            .when(kind, name, |object| ready(object)["reason"] == reason)
            .await;
        ready(&object)
    }

    pub(crate) async fn workspace_reason(&self, reason: &str) -> Value {
        let wanted = |object: &DynamicObject| ready(object)["reason"] == reason;
        ready(&until(self.workspaces(), &self.name, wanted).await)
    }

    async fn clean_up(&self) {
        let _gone = self
            .workspaces()
            .delete(&self.name, &DeleteParams::default())
            .await;
        gone(self.workspaces(), &self.name).await;
        let _gone = self
            .namespaces()
            .delete(&self.name, &DeleteParams::default())
            .await;
    }
}

/// Its condition `Ready`, if that is about the object as it is.
pub(crate) fn ready(object: &DynamicObject) -> Value {
    let conditions = object.data["status"]["conditions"].as_array().cloned();
    let mut conditions = conditions.unwrap_or_default().into_iter();
    let is_present =
        |condition: &Value| condition["observedGeneration"].as_i64() == object.metadata.generation;
    conditions
        .find(|condition| condition["type"] == "Ready" && is_present(condition))
        .unwrap_or_default()
}

async fn until(
    api: Api<DynamicObject>,
    name: &str,
    is_wanted: impl Fn(&DynamicObject) -> bool,
) -> DynamicObject {
    let (started, mut last) = (Instant::now(), None);
    while started.elapsed() < PATIENCE {
        last = api.get_opt(name).await.unwrap();
        if let Some(object) = last.take_if(|object| is_wanted(object)) {
            return object;
        }
        tokio::time::sleep(LOOK).await;
    }
    panic!("{name} isn't as wanted: {last:?}");
}

pub(crate) async fn gone(api: Api<DynamicObject>, name: &str) {
    let started = Instant::now();
    while api.get_opt(name).await.unwrap().is_some() {
        assert!(started.elapsed() < PATIENCE, "{name} is still there");
        tokio::time::sleep(LOOK).await;
    }
}
