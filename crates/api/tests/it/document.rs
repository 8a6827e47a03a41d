//! Documents: kinds, versions, syntax, and many of them at once.
//!
//! Each case is a set as a person would write it, and the whole of what that person reads.

use crate::check;
use insta::assert_snapshot;

#[test]
fn a_kind_is_one_of_five() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Agnet
metadata: {name: a}
---
apiVersion: mainstay.dev/v1alpha1
metadata: {name: a}
---
- a
---
just text
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:2:7: `kind` is `Agnet`, which is none of Provider, PromptPack, ToolRegistry, Agent, Workspace
      2 | kind: Agnet
        |       ^^^^^
      hint: did you mean `Agent`?

    fleet.yaml:5:1: `kind` is missing: one of Provider, PromptPack, ToolRegistry, Agent, Workspace
      5 | apiVersion: mainstay.dev/v1alpha1
        | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^

    fleet.yaml:8:1: a manifest is a mapping with apiVersion, kind, metadata and spec
      8 | - a
        | ^^^

    fleet.yaml:10:1: a manifest is a mapping with apiVersion, kind, metadata and spec
      10 | just text
         | ^^^^^^^^^
    "#);
}

#[test]
fn a_misspelt_kind_hides_only_references_to_its_own_name() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Provder
metadata: {name: openai}
spec: {}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: helper}
spec:
  models: [openai/gpt-5.1, antropic/claude-opus-4-5]
  tools: [desk/search]
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:2:7: `kind` is `Provder`, which is none of Provider, PromptPack, ToolRegistry, Agent, Workspace
      2 | kind: Provder
        |       ^^^^^^^
      hint: did you mean `Provider`?

    fleet.yaml:10:28: there is no Provider `antropic`
      10 |   models: [openai/gpt-5.1, antropic/claude-opus-4-5]
         |                            ^^^^^^^^^^^^^^^^^^^^^^^^

    fleet.yaml:11:11: there is no ToolRegistry `desk`
      11 |   tools: [desk/search]
         |           ^^^^^^^^^^^
    "#);
}

#[test]
fn another_version_is_refused() {
    let set = r#"
apiVersion: mainstay.dev/v1
kind: Workspace
metadata: {name: default}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:1:13: `apiVersion` is `mainstay.dev/v1`; this version of Mainstay reads mainstay.dev/v1alpha1
      1 | apiVersion: mainstay.dev/v1
        |             ^^^^^^^^^^^^^^^
    "#);
}

#[test]
fn broken_yaml_is_shown_where_it_breaks() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: helper
spec:
  models: [a
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:4:5: this is not YAML: while parsing a flow mapping, did not find expected ',' or '}'
      4 | spec:
        |     ^
    "#);
}

#[test]
fn a_key_written_twice_is_refused() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: helper}
spec:
  models: [openai/a]
  replicas: 1
  replicas: 2
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:5:12: there is no Provider `openai`
      5 |   models: [openai/a]
        |            ^^^^^^^^
      hint: the set has no Provider

    fleet.yaml:7:3: `replicas` is written twice in one mapping; the first is at fleet.yaml:6:3
      7 |   replicas: 2
        |   ^^^^^^^^
    "#);
}

#[test]
fn json_is_read_like_yaml() {
    let set = r#"
=== fleet.json
{"apiVersion": "mainstay.dev/v1alpha1", "kind": "Agent",
 "metadata": {"name": "helper"},
 "spec": {"modles": [], "runtime": {"exec": {"command": ["a"]}}}}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.json:3:11: `modles` is no field of `spec`
      3 |  "spec": {"modles": [], "runtime": {"exec": {"command": ["a"]}}}}
        |           ^^^^^^^^
      hint: did you mean `models`?
    "#);
}

#[test]
fn all_problems_of_all_files_come_at_once() {
    let set = r#"
=== a.yaml
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: helper}
spec:
  modles: [openai/gpt-5.1]
  replicas: many
=== b.yaml
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: openai}
spec: {bseUrl: http://x}
=== c.yaml
kind: [
"#;
    assert_snapshot!(check(set), @r#"
    a.yaml:5:3: `modles` is no field of `spec`
      5 |   modles: [openai/gpt-5.1]
        |   ^^^^^^
      hint: did you mean `models`?

    a.yaml:6:13: `spec.replicas` must be a whole number, not `many`
      6 |   replicas: many
        |             ^^^^

    b.yaml:4:8: `bseUrl` is no field of `spec`
      4 | spec: {bseUrl: http://x}
        |        ^^^^^^
      hint: did you mean `baseUrl`?

    c.yaml:1:7: this is not YAML: unclosed bracket '['
      1 | kind: [
        |       ^
    "#);
}

#[test]
fn text_of_the_file_cannot_drive_the_terminal() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: "a\e[31m"}
spec: {"\e]0;x\a": 1, runtime: {exec: {command: [a]}}}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:3:18: `metadata.name` is `a·[31m`, which is no name: lower-case letters, digits and hyphens, at most 63, with a letter or digit at both ends
      3 | metadata: {name: "a\e[31m"}
        |                  ^^^^^^^^^

    fleet.yaml:4:8: `·]0;x·` is no field of `spec`
      4 | spec: {"\e]0;x\a": 1, runtime: {exec: {command: [a]}}}
        |        ^^^^^^^^^^
      hint: its fields are models, instructions, prompt, tools, runtime, source, image, env, secretEnv, replicas, scale, concurrency, queue, volume, resources, placement, restart, replay, budget
    "#);
}
