//! What can't run says so, in its object's condition and in an Event, with what to do about it.

use testkit::cluster::{Cluster, PATIENCE, Workspace, condition};
use testkit::until;

/// Waits until an agent's condition has this reason; says it.
fn said(workspace: &Workspace, agent: &str, kind: &str, reason: &str) -> String {
    let what = format!("{kind} of {agent} with {reason}");
    until(&what, PATIENCE, || {
        let object = workspace.get(&["agent", agent])?;
        let found = condition(&object, kind).filter(|it| it["reason"] == reason)?;
        Some(found["message"].as_str().unwrap_or_default().to_owned())
    })
}

fn event(workspace: &Workspace, agent: &str, reason: &str) -> String {
    let selector = format!("involvedObject.name={agent},reason={reason}");
    until(&format!("an Event {reason} of {agent}"), PATIENCE, || {
        let events = workspace.get(&["events", "--field-selector", &selector])?;
        let event = events["items"].as_array()?.first()?.clone();
        event["message"].as_str().map(str::to_owned)
    })
}

fn agent(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: mainstay.dev/v1alpha1\nkind: Agent\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    )
}

#[test]
fn an_agent_that_cannot_run_says_why_and_what_to_do() {
    let Some(cluster) = Cluster::find("what agents say that can't run") else {
        return;
    };
    let workspace = Workspace::start(cluster, "condition");
    let image = &cluster.agent_image;
    let runs = format!("image: {image}, runtime: {{exec: {{command: [/bin/testkit-steps]}}}}");
    let gone = "localhost/there-is-none:1";
    let all = [
        agent(
            "silent",
            &format!("{{image: {image}, models: [fake/fake-1]}}"),
        ),
        agent("absent", &format!("{{{}}}", runs.replace(image, gone))),
        agent(
            "wrong",
            &format!("{{{}}}", runs.replace("/bin/testkit-steps", "/bin/none")),
        ),
        agent(
            "elsewhere",
            "{source: ./code, runtime: {exec: {command: [python3, a.py]}}}",
        ),
        agent(
            "poor",
            &format!("{{{runs}, secretEnv: {{TOKEN: {{secretRef: {{name: none, key: token}}}}}}}}"),
        ),
        agent("grown", &format!("{{{runs}, volume: {{size: 16Mi}}}}")),
    ];
    let provider = "apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: fake}
spec: {type: openai, baseUrl: \"http://127.0.0.1:9\"}
";
    workspace.apply(&format!("{provider}---\n{}", all.join("---\n")));
    let says = |agent: &str, reason: &str, words: &[&str]| {
        let message = said(&workspace, agent, "Ready", reason);
        let told = event(&workspace, agent, reason);
        for word in words {
            assert!(message.contains(word), "{agent}: {message}");
            assert!(told.contains(word), "{agent}: {told}");
        }
    };
    says("silent", "CommandUnknown", &["spec.runtime.exec.command"]);
    says("absent", "ImageUnavailable", &[gone, "spec.image"]);
    says(
        "wrong",
        "Crashing",
        &["no program /bin/none", "kubectl logs"],
    );
    says(
        "elsewhere",
        "SourceNotHere",
        &["spec.source", "mainstay -n"],
    );
    let create = "kubectl create secret generic none --from-literal=token";
    says(
        "poor",
        "CredentialsMissing",
        &["spec.secretEnv.TOKEN", create],
    );
    // The Secret comes, and nobody has to apply anything.
    workspace.kubectl(&[
        "create",
        "secret",
        "generic",
        "none",
        "--from-literal=token=t",
    ]);
    let _ = said(&workspace, "poor", "Ready", "Running");
    let _ = said(&workspace, "grown", "Ready", "Running");
    workspace.apply(&all[5].replace("16Mi", "32Mi"));
    let fixed = said(&workspace, "grown", "VolumeSizeFixed", "Immutable");
    assert!(fixed.contains("spec.volume.size says 32Mi"), "{fixed}");
}

#[test]
fn a_full_quota_is_said_by_the_agent_that_it_keeps_out() {
    let Some(cluster) = Cluster::find("a full quota") else {
        return;
    };
    let workspace = Workspace::start(cluster, "quota");
    workspace.apply(&format!(
        "apiVersion: mainstay.dev/v1alpha1
kind: Workspace
metadata: {{name: {}}}
spec: {{quota: {{memory: 640Mi}}}}
",
        workspace.name()
    ));
    until("the quota is there", PATIENCE, || {
        let quotas = workspace.get(&["resourcequota"])?;
        (!quotas["items"].as_array()?.is_empty()).then_some(())
    });
    let runs = format!(
        "image: {}, runtime: {{exec: {{command: [/bin/testkit-steps]}}}}",
        cluster.agent_image
    );
    workspace.apply(&agent(
        "large",
        &format!("{{{runs}, resources: {{memory: 4Gi}}}}"),
    ));
    let message = said(&workspace, "large", "Ready", "QuotaExceeded");
    assert!(message.contains("spec.quota"), "{message}");
    let told = event(&workspace, "large", "QuotaExceeded");
    assert!(told.contains("spec.resources"), "{told}");
}
