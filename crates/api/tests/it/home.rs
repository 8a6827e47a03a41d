//! The two homes of a fleet: fields that one of them doesn't read, and what it can't reach.

use crate::{check, documents, facts, resolved};
use api::fleet::{Member, Role, Store, ToolKind};
use api::{Fleet, Home, Problems};
use insta::assert_snapshot;

const PODS: &str = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: openai, annotations: {example.com/owner: red}}
spec: {credential: {secretRef: {name: openai, key: apiKey}}}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: helper}
spec:
  models: [openai/gpt-5.1]
  tools: [desk/files]
  runtime: {exec: {command: [python3, agent.py]}}
  image: ghcr.io/example/agent@sha256:0123
  volume: {size: 1Gi, path: /workspace}
  resources: {cpu: 500m, memory: 512Mi, pids: 256}
  placement:
    nodeSelector: {pool: limbs}
    tolerations:
      - {key: spot, operator: Exists, effect: NoExecute, tolerationSeconds: 30}
---
apiVersion: mainstay.dev/v1alpha1
kind: ToolRegistry
metadata: {name: desk}
spec:
  tools:
    - {name: files, mcp: {command: [files], image: "files:1"}}
---
apiVersion: mainstay.dev/v1alpha1
kind: Workspace
metadata: {name: default}
spec:
  members:
    - {subject: "group:platform", role: operator}
    - {subject: "serviceAccount:ci/deployer", role: owner}
  quota: {agents: 20, cpu: 8, memory: 16Gi}
  store: {sqlite: {size: 10Gi}}
"#;

fn check_on_kubernetes(set: &str) -> String {
    let resolved = facts(|facts| {
        let facts = api::Facts {
            home: Home::Kubernetes,
            ..*facts
        };
        api::resolve(&documents(set), &facts)
    });
    match resolved {
        Ok(resolved) if resolved.warnings.is_empty() => "ok".to_owned(),
        Ok(resolved) => Problems(resolved.warnings).to_string(),
        Err(problems) => problems.to_string(),
    }
}

#[test]
fn what_holds_in_pods_only_is_said_to_have_no_effect_on_one_server() {
    assert_snapshot!(check(PODS), @r#"
    ok, with warnings:
    fleet.yaml:13:10: `spec.image` has no effect here: it is read on Kubernetes only
      13 |   image: ghcr.io/example/agent@sha256:0123
         |          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^

    fleet.yaml:14:29: `spec.volume.path` has no effect here: it is read on Kubernetes only
      14 |   volume: {size: 1Gi, path: /workspace}
         |                             ^^^^^^^^^^

    fleet.yaml:15:14: `spec.resources` has no effect here: it is read on Kubernetes only
      15 |   resources: {cpu: 500m, memory: 512Mi, pids: 256}
         |              ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^

    fleet.yaml:17:5: `spec.placement` has no effect here: it is read on Kubernetes only
      17 |     nodeSelector: {pool: limbs}
         |     ^^^^^^^^^^^^^^^^^^^^^^^^^^^

    fleet.yaml:26:52: `spec.tools[0].mcp.image` has no effect here: it is read on Kubernetes only
      26 |     - {name: files, mcp: {command: [files], image: "files:1"}}
         |                                                    ^^^^^^^^^

    fleet.yaml:33:5: `spec.members` has no effect here: it is read on Kubernetes only
      33 |     - {subject: "group:platform", role: operator}
         |     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^

    fleet.yaml:35:10: `spec.quota` has no effect here: it is read on Kubernetes only
      35 |   quota: {agents: 20, cpu: 8, memory: 16Gi}
         |          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^

    fleet.yaml:36:10: `spec.store` has no effect here: it is read on Kubernetes only
      36 |   store: {sqlite: {size: 10Gi}}
         |          ^^^^^^^^^^^^^^^^^^^^^^
    "#);
    // All of it holds there but what Kubernetes knows by node only.
    let said = check_on_kubernetes(PODS);
    assert!(
        said.starts_with("fleet.yaml:15:47: `spec.resources.pids` has no effect on Kubernetes")
    );
    assert_eq!(said.matches("has no effect").count(), 1, "{said}");
    assert_eq!(check_on_kubernetes(&PODS.replace(", pids: 256", "")), "ok");
}

#[test]
fn what_pods_are_made_of_is_in_the_fleet() {
    let fleet = resolved(PODS).fleet;
    let agent = &fleet.agents["helper"];
    assert_eq!(
        agent.image.as_deref(),
        Some("ghcr.io/example/agent@sha256:0123")
    );
    assert_eq!(agent.resources.cpu_millis, Some(500));
    assert_eq!(agent.resources.memory_bytes, Some(512 << 20));
    assert_eq!(agent.resources.pids, Some(256));
    assert_eq!(agent.placement.node_selector["pool"], "limbs");
    assert_eq!(agent.placement.tolerations[0].toleration_seconds, Some(30));
    let volume = agent.volume.as_ref().expect("a volume");
    assert_eq!(volume.path.as_deref(), Some("/workspace"));
    let ToolKind::McpStdio { image, .. } = &fleet.tools["desk/files"].kind else {
        panic!("no stdio server");
    };
    assert_eq!(image.as_deref(), Some("files:1"));
    assert_eq!(fleet.quota.agents, Some(20));
    assert_eq!(fleet.quota.cpu_millis, Some(8000));
    assert_eq!(fleet.quota.memory_bytes, Some(16 << 30));
    assert_eq!(
        fleet.store,
        Store::Sqlite {
            size_bytes: 10 << 30
        }
    );
    let operator = Member {
        subject: "group:platform".to_owned(),
        role: Role::Operator,
    };
    assert_eq!(fleet.members[0], operator);
}

#[test]
fn a_fleet_of_before_is_read_and_keeps_its_hash() {
    let set = crate::whole::EVERYTHING;
    let fleet = resolved(set).fleet;
    let json = serde_json::to_value(&fleet).expect("JSON");
    for absent in ["members", "quota", "store"] {
        assert_eq!(json.get(absent), None, "{absent}");
    }
    for absent in ["image", "resources", "placement"] {
        assert_eq!(json["agents"]["writer"].get(absent), None, "{absent}");
    }
    let read: Fleet = serde_json::from_value(json).expect("a fleet");
    assert_eq!(read, fleet);
}

#[test]
fn a_wrong_field_of_a_pod_says_what_is_wanted() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: openai}
spec: {}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: helper}
spec:
  models: [openai/gpt-5.1]
  image: "python 3"
  volume: {path: ../workspace}
  resources: {cpu: 0.5, memory: 512MB}
  placement:
    tolerations:
      - {value: x}
      - {key: a, operator: Exists, value: x, tolerationSeconds: 3}
      - {key: a, operator: In}
---
apiVersion: mainstay.dev/v1alpha1
kind: Workspace
metadata: {name: default}
spec:
  members:
    - {subject: platform, role: admin}
    - {subject: "user:a", role: viewer}
    - {subject: "user:a", role: owner}
  store: {sqlite: {size: 1Mi}}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:11:10: `spec.image` is `python 3`, which is no name of an image: write registry/name:tag
      11 |   image: "python 3"
         |          ^^^^^^^^^^

    fleet.yaml:12:18: `spec.volume.path` is `../workspace`, which is no place for a volume: an absolute path below /, without `..`
      12 |   volume: {path: ../workspace}
         |                  ^^^^^^^^^^^^

    fleet.yaml:13:20: `spec.resources.cpu` is 0.5: write a number with a fraction in quotes
      13 |   resources: {cpu: 0.5, memory: 512MB}
         |                    ^^^

    fleet.yaml:13:33: `spec.resources.memory` is `512MB`, which is no size: write 256Ki, 512Mi or 5Gi
      13 |   resources: {cpu: 0.5, memory: 512MB}
         |                                 ^^^^^

    fleet.yaml:16:9: `spec.placement.tolerations[0].key` is missing: only `operator: Exists` does without
      16 |       - {value: x}
         |         ^^^^^^^^^^

    fleet.yaml:17:43: `spec.placement.tolerations[1].value` has no meaning with `operator: Exists`
      17 |       - {key: a, operator: Exists, value: x, tolerationSeconds: 3}
         |                                           ^

    fleet.yaml:17:65: `spec.placement.tolerations[1].tolerationSeconds` is for `effect: NoExecute`
      17 |       - {key: a, operator: Exists, value: x, tolerationSeconds: 3}
         |                                                                 ^

    fleet.yaml:18:28: `spec.placement.tolerations[2].operator` is `In`, which is none of Equal, Exists
      18 |       - {key: a, operator: In}
         |                            ^^

    fleet.yaml:25:17: `spec.members[0].subject` is `platform`, which names nobody: write user:NAME, group:NAME or serviceAccount:NAMESPACE/NAME
      25 |     - {subject: platform, role: admin}
         |                 ^^^^^^^^

    fleet.yaml:25:33: `spec.members[0].role` is `admin`, which is none of viewer, user, operator, owner
      25 |     - {subject: platform, role: admin}
         |                                 ^^^^^

    fleet.yaml:28:26: `spec.store.sqlite.size` is `1Mi`, which is below the least of 64Mi
      28 |   store: {sqlite: {size: 1Mi}}
         |                          ^^^
    "#);
}

#[test]
fn a_member_has_one_role() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Workspace
metadata: {name: default}
spec: {members: [{subject: "user:a", role: viewer}, {subject: "user:a", role: owner}]}
"#;
    assert_snapshot!(check_on_kubernetes(set), @r#"
    fleet.yaml:4:63: `user:a` is written twice
      4 | spec: {members: [{subject: "user:a", role: viewer}, {subject: "user:a", role: owner}]}
        |                                                               ^^^^^^^^
    "#);
}

#[test]
fn a_credential_of_the_server_is_refused_on_kubernetes() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: openai}
spec: {credential: {env: OPENAI_API_KEY}}
---
apiVersion: mainstay.dev/v1alpha1
kind: ToolRegistry
metadata: {name: desk}
spec:
  tools:
    - {name: crm, mcp: {url: "https://crm.example/mcp", credential: {file: token}}}
"#;
    assert_snapshot!(check_on_kubernetes(set), @r#"
    fleet.yaml:4:26: `spec.credential.env` can't be read on Kubernetes
      4 | spec: {credential: {env: OPENAI_API_KEY}}
        |                          ^^^^^^^^^^^^^^
      hint: put it into a Secret and write `secretRef: {name: …, key: …}`

    fleet.yaml:11:76: `spec.tools[0].mcp.credential.file` can't be read on Kubernetes
      11 |     - {name: crm, mcp: {url: "https://crm.example/mcp", credential: {file: token}}}
         |                                                                            ^^^^^
      hint: put it into a Secret and write `secretRef: {name: …, key: …}`
    "#);
}

#[test]
fn the_hubs_own_secret_is_given_to_nobody() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: openai}
spec: {credential: {secretRef: {name: mainstay-hub, key: tls.key}}}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: helper}
spec:
  runtime: {exec: {command: [agent]}}
  secretEnv: {KEY: {secretRef: {name: mainstay-hub, key: tls.key}}}
"#;
    let said = check_on_kubernetes(set);
    for field in [
        "spec.credential.secretRef.name",
        "spec.secretEnv.KEY.secretRef.name",
    ] {
        let sentence = format!("`{field}` is the hub's own Secret, which it gives to nobody");
        assert!(said.contains(&sentence), "{said}");
    }
    assert!(
        !check(set).contains("own Secret"),
        "on one server the name means nothing"
    );
}

#[test]
fn a_file_writes_no_number_where_another_does_and_a_server_always_has_one() {
    let set = "
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: helper}
spec: {runtime: {exec: {command: [agent]}}, scale: {}, replicas: 2}
";
    let sentence = "`spec.replicas` follows from `spec.scale` and can't be written beside it";
    for said in [check(set), check_on_kubernetes(set)] {
        assert!(said.contains(sentence), "{said}");
    }
    let lenient = facts(|facts| {
        let facts = api::Facts {
            home: Home::Kubernetes,
            ..*facts
        };
        api::kubernetes::resolve_lenient(&documents(set), &facts, &|_, _| None)
    });
    assert!(lenient.refused.is_empty(), "{:?}", lenient.refused);
    assert_eq!(lenient.resolved.fleet.agents["helper"].replicas, 2);
}
