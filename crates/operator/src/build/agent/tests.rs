//! What an agent becomes, looked at object by object.

use super::*;

fn of(spec: &str) -> Agent {
    sent_as("", spec)
}

fn sent_as(annotations: &str, spec: &str) -> Agent {
    let text = format!(
        "apiVersion: mainstay.dev/v1alpha1\nkind: Provider\nmetadata: {{name: openai}}\nspec: {{}}\n---\n\
         apiVersion: mainstay.dev/v1alpha1\nkind: Agent\nmetadata: {{name: helper{annotations}}}\nspec:\n{spec}"
    );
    let nowhere = |_: &std::path::Path| Err("no such file".to_owned());
    let unknown = |_: &str, _: &str| None;
    let mut facts = api::Facts::new(&unknown, &nowhere);
    facts.home = api::Home::Kubernetes;
    let resolved = api::resolve(&[api::Document::named("a.yaml", text)], &facts).unwrap();
    resolved.fleet.agents["helper"].clone()
}

fn owner() -> Owner {
    Owner {
        kind: api::Kind::Agent,
        name: "helper".to_owned(),
        uid: "1".to_owned(),
    }
}

fn built(spec: &str) -> Vec<Object> {
    let owner = owner();
    built_of(&of(spec), &owner)
}

fn built_of(of: &Agent, owner: &Owner) -> Vec<Object> {
    agent(&AgentInput {
        namespace: "acme",
        owner,
        agent: of,
        image: &image_of(of, "mainstay:1", None),
        own_image: "mainstay:1",
        hub: "198.19.0.9:7443",
    })
}

fn only(objects: &[Object], resource: Resource) -> Value {
    let mut objects = objects.iter().filter(|object| object.resource == resource);
    let object = objects.next().unwrap();
    assert!(objects.next().is_none());
    object.body.clone()
}

const BUILTIN: &str = "  models: [openai/gpt-5.1]\n";
const EXEC: &str = "  models: [openai/gpt-5.1]\n  image: python:3.12-slim\n  runtime: {exec: {command: [python3, agent.py]}}\n";

#[test]
fn a_builtin_agent_is_an_account_and_a_deployment_of_mainstays_own_image() {
    let objects = built(BUILTIN);
    let kinds: Vec<Resource> = objects.iter().map(|object| object.resource).collect();
    assert_eq!(kinds, [Resource::ServiceAccount, Resource::Deployment]);
    let spec = &only(&objects, Resource::Deployment)["spec"];
    assert_eq!(spec["replicas"], 1);
    let pod = &spec["template"]["spec"];
    assert_eq!(pod["containers"][0]["image"], "mainstay:1");
    assert_eq!(
        pod["containers"][0]["command"],
        json!(["/mainstay/bin/mainstay", "shim"])
    );
    assert_eq!(pod["serviceAccountName"], "mainstay-agent-helper");
    assert_eq!(pod["terminationGracePeriodSeconds"], 40);
}

#[test]
fn a_pod_is_told_what_it_runs_and_where_its_hub_is() {
    let objects = built(EXEC);
    let deployment = only(&objects, Resource::Deployment);
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], "python:3.12-slim");
    let pod: Pod = serde_json::from_str(container["env"][0]["value"].as_str().unwrap()).unwrap();
    assert_eq!(pod.command, ["python3", "agent.py"]);
    assert_eq!(pod.hub, "198.19.0.9:7443");
    assert_eq!(
        (pod.owner.as_str(), pod.workspace.as_str()),
        ("helper", "acme")
    );
}

#[test]
fn a_pod_meets_the_restricted_profile_and_has_no_way_to_the_api_server() {
    let objects = built(EXEC);
    let deployment = only(&objects, Resource::Deployment);
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(pod["dnsConfig"]["nameservers"], json!(["127.0.0.1"]));
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(
        pod["securityContext"]["seccompProfile"]["type"],
        "RuntimeDefault"
    );
    for list in ["initContainers", "containers"] {
        let context = &pod[list][0]["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false, "{list}");
        assert_eq!(context["capabilities"]["drop"], json!(["ALL"]), "{list}");
    }
    let token = &pod["volumes"][4]["projected"]["sources"][0]["serviceAccountToken"];
    assert_eq!(token["audience"], "mainstay-hub");
}

#[test]
fn what_the_hub_alone_reads_replaces_no_pod_and_what_the_pod_runs_does() {
    let template =
        |spec: &str| only(&built(spec), Resource::Deployment)["spec"]["template"].clone();
    assert_eq!(
        template(EXEC),
        template(&format!("{EXEC}  instructions: Other.\n  replicas: 2\n"))
    );
    assert_ne!(
        template(EXEC),
        template(&format!("{EXEC}  env: {{A: b}}\n"))
    );
}

#[test]
fn an_agent_with_a_volume_is_a_stateful_set_that_keeps_it() {
    let objects = built(&format!("{BUILTIN}  volume: {{size: 2Gi, path: /data}}\n"));
    let set = only(&objects, Resource::StatefulSet);
    let spec = &set["spec"];
    assert_eq!(spec["serviceName"], "helper");
    assert_eq!(
        spec["persistentVolumeClaimRetentionPolicy"]["whenScaled"],
        "Retain"
    );
    let claim = &spec["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"];
    assert_eq!(*claim, (2u64 << 30).to_string());
    let mounts = spec["template"]["spec"]["containers"][0]["volumeMounts"].to_string();
    assert!(mounts.contains("/data"), "{mounts}");
    assert_eq!(
        only(&objects, Resource::Service)["spec"]["clusterIP"],
        "None"
    );
}

#[test]
fn several_instances_have_a_budget_for_disruptions() {
    let objects = built(&format!("{BUILTIN}  replicas: 3\n"));
    assert_eq!(
        only(&objects, Resource::PodDisruptionBudget)["spec"]["maxUnavailable"],
        1
    );
}

#[test]
fn what_is_asked_for_is_requested_and_the_limit() {
    let asked = format!(
        "{BUILTIN}  resources: {{cpu: 500m, memory: 64Mi}}\n  placement: {{nodeSelector: {{pool: gpu}}, tolerations: [{{key: gpu, operator: Exists}}]}}\n"
    );
    let deployment = only(&built(&asked), Resource::Deployment);
    let pod = &deployment["spec"]["template"]["spec"];
    let resources = &pod["containers"][0]["resources"];
    assert_eq!(resources["requests"], resources["limits"]);
    assert_eq!(resources["limits"]["cpu"], "500m");
    assert_eq!(pod["nodeSelector"], json!({"pool": "gpu"}));
    assert_eq!(pod["tolerations"][2]["key"], "gpu");
}

const SOURCE: &str = "  models: [openai/gpt-5.1]\n  source: ./agent\n  runtime: {exec: {command: [python3, agent.py]}}\n";

fn with_source(digit: char, spec: &str) -> Value {
    let hash: String = std::iter::repeat_n(digit, 64).collect();
    let annotations = format!(", annotations: {{mainstay.dev/source: '{hash}  ./agent'}}");
    let built = built_of(&sent_as(&annotations, spec), &owner());
    only(&built, Resource::Deployment)["spec"]["template"].clone()
}

#[test]
fn a_source_is_brought_before_the_agent_starts_and_is_not_the_agents_to_change() {
    let template = with_source('a', SOURCE);
    let pod = &template["spec"];
    let bringing = &pod["initContainers"][1];
    assert_eq!(
        bringing["command"],
        json!(["/bin/mainstay", "shim", "--fetch-source"])
    );
    let told = bringing["env"][0]["value"].as_str().unwrap();
    let told: Pod = serde_json::from_str(told).unwrap();
    assert_eq!(told.source, Some("a".repeat(64)));
    let container = &pod["containers"][0];
    assert_eq!(container["image"], "python:3.12-slim");
    let mounts = container["volumeMounts"].as_array().unwrap();
    let mut mounts = mounts.iter();
    let source = mounts.find(|mount| mount["name"] == "source").unwrap();
    assert_eq!(
        *source,
        json!({"name": "source", "mountPath": "/mainstay/source", "readOnly": true})
    );
    let volumes = pod["volumes"].as_array().unwrap();
    assert!(volumes.iter().any(|volume| volume["name"] == "source"));
    let without = only(&built(EXEC), Resource::Deployment)["spec"]["template"].to_string();
    for word in ["fetch-source", "/mainstay/source"] {
        assert!(!without.contains(word), "{without}");
    }
}

#[test]
fn a_source_that_was_changed_replaces_pods_and_one_that_moved_does_not() {
    assert_ne!(with_source('a', SOURCE), with_source('b', SOURCE));
    let sent = |path: &str| {
        let hash = "c".repeat(64);
        let annotations = format!(", annotations: {{mainstay.dev/source: '{hash}  {path}'}}");
        let agent = sent_as(&annotations, &SOURCE.replace("./agent", path));
        built_of(&agent, &owner())
    };
    assert_eq!(sent("./agent"), sent("elsewhere/agent"));
}

#[test]
fn only_a_source_of_python_or_node_has_an_image_by_default() {
    let image = |spec: &str, prefix| {
        let agent = of(spec);
        (has_image(&agent), image_of(&agent, "own:1", prefix))
    };
    let python = (true, "python:3.12-slim".to_owned());
    assert_eq!(image(SOURCE, None), python);
    let near = (true, "registry.example/team/python:3.12-slim".to_owned());
    assert_eq!(image(SOURCE, Some("registry.example/team/")), near);
    let node = SOURCE.replace("python3, agent.py", "node, agent.js");
    assert_eq!(image(&node, None).1, "node:20-slim");
    let other = SOURCE.replace("python3, agent.py", "./server");
    assert!(!image(&other, None).0);
    let named = image(
        &format!("{SOURCE}  image: mine:2\n"),
        Some("registry.example"),
    );
    assert_eq!(named, (true, "mine:2".to_owned()));
    assert_eq!(image(BUILTIN, Some("registry.example")).1, "own:1");
}
