//! What an agent becomes, looked at object by object.

use super::*;

fn of(spec: &str) -> Agent {
    let text = format!(
        "apiVersion: mainstay.dev/v1alpha1\nkind: Provider\nmetadata: {{name: openai}}\nspec: {{}}\n---\n\
         apiVersion: mainstay.dev/v1alpha1\nkind: Agent\nmetadata: {{name: helper}}\nspec:\n{spec}"
    );
    let nowhere = |_: &std::path::Path| Err("no such file".to_owned());
    let unknown = |_: &str, _: &str| None;
    let mut facts = api::Facts::new(&unknown, &nowhere);
    facts.home = api::Home::Kubernetes;
    let resolved = api::resolve(&[api::Document::named("a.yaml", text)], &facts).unwrap();
    resolved.fleet.agents["helper"].clone()
}

fn built(spec: &str) -> Vec<Object> {
    let owner = Owner {
        kind: api::Kind::Agent,
        name: "helper".to_owned(),
        uid: "1".to_owned(),
    };
    agent(&AgentInput {
        namespace: "acme",
        owner: &owner,
        agent: &of(spec),
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
