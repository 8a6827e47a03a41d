//! The whole set: duplicates, workspaces, circles.
//!
//! Each case is a set as a person would write it, and the whole of what that person reads.

use crate::check;
use insta::assert_snapshot;

#[test]
fn an_object_written_twice_is_shown_with_both_places() {
    let set = r#"
=== a.yaml
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: openai}
spec: {}
=== b.yaml
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: helper}
spec:
  models: [openai/gpt-5.1]
---
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: openai}
spec: {}
"#;
    assert_snapshot!(check(set), @r#"
    b.yaml:9:18: Provider `openai` is written twice; the first is at a.yaml:3:18
      9 | metadata: {name: openai}
        |                  ^^^^^^
    "#);
}

#[test]
fn a_set_is_one_workspace() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: openai}
spec: {}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: helper, namespace: acme}
spec:
  models: [openai/gpt-5.1]
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:8:37: Agent `helper` belongs to workspace `acme`, but Provider `openai` at fleet.yaml:3:18 makes this set workspace `default`
      8 | metadata: {name: helper, namespace: acme}
        |                                     ^^^^
      hint: one set is one workspace; keep the others in a directory of their own
    "#);
}

#[test]
fn a_workspace_object_names_the_workspace() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Workspace
metadata: {name: acme}
spec: {}
---
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: openai}
spec: {}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:8:11: Provider `openai` belongs to workspace `default`, but Workspace `acme` at fleet.yaml:3:18 makes this set workspace `acme`
      8 | metadata: {name: openai}
        |           ^^^^^^^^^^^^^^
      hint: without `namespace` it is default: write `namespace: acme`
    "#);
}

#[test]
fn two_workspaces_are_one_too_many() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Workspace
metadata: {name: acme}
spec: {}
---
apiVersion: mainstay.dev/v1alpha1
kind: Workspace
metadata: {name: other}
spec: {}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:8:11: Workspace `other` is workspace `other`, but Workspace `acme` at fleet.yaml:3:18 makes this set workspace `acme`
      8 | metadata: {name: other}
        |           ^^^^^^^^^^^^^
      hint: one set is one workspace; keep the others in a directory of their own
    "#);
}

#[test]
fn a_workspace_is_in_no_namespace() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Workspace
metadata: {name: acme, namespace: other}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:3:35: a Workspace is in no namespace: its name is the namespace it owns
      3 | metadata: {name: acme, namespace: other}
        |                                   ^^^^^
    "#);
}

#[test]
fn agents_never_call_each_other_in_a_circle() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: a}
spec:
  runtime: {exec: {command: [x]}}
  tools: [r/b]
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: b}
spec:
  runtime: {exec: {command: [x]}}
  tools: [r/d, r/c]
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: c}
spec:
  runtime: {exec: {command: [x]}}
  tools: [r/a]
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: d}
spec:
  runtime: {exec: {command: [x]}}
  tools: [r/d]
---
apiVersion: mainstay.dev/v1alpha1
kind: ToolRegistry
metadata: {name: r}
spec:
  tools:
    - {name: a, description: X., agent: a}
    - {name: b, description: X., agent: b}
    - {name: c, description: X., agent: c}
    - {name: d, description: X., agent: d}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:6:11: the agents call each other in a circle: a → b → c → a
      6 |   tools: [r/b]
        |           ^^^

    fleet.yaml:27:11: the agents call each other in a circle: d → d
      27 |   tools: [r/d]
         |           ^^^
    "#);
}
