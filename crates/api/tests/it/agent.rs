//! Agents: models, prompts, tools, runtime, environment.
//!
//! Each case is a set as a person would write it, and the whole of what that person reads.

use crate::check;
use insta::assert_snapshot;

#[test]
fn a_builtin_agent_needs_a_model() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: helper}
spec:
  instructions: Hi.
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: other}
spec:
  models: []
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:5:3: `spec.models` is missing: the builtin runtime needs a model
      5 |   instructions: Hi.
        |   ^^^^^^^^^^^^^^^^^
      hint: write `models: [provider/model]`

    fleet.yaml:11:11: `spec.models` is missing: the builtin runtime needs a model
      11 |   models: []
         |           ^^
      hint: write `models: [provider/model]`
    "#);
}

#[test]
fn a_model_belongs_to_a_provider() {
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
  models: [opnai/gpt-5.1, gpt-5.1, openai/a, openai/a, openai/]
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:10:12: there is no Provider `opnai`
      10 |   models: [opnai/gpt-5.1, gpt-5.1, openai/a, openai/a, openai/]
         |            ^^^^^^^^^^^^^
      hint: did you mean `openai`?

    fleet.yaml:10:27: `gpt-5.1` is not of the form provider/model
      10 |   models: [opnai/gpt-5.1, gpt-5.1, openai/a, openai/a, openai/]
         |                           ^^^^^^^
      hint: for instance `openai/gpt-5.1`

    fleet.yaml:10:46: `openai/a` is written twice
      10 |   models: [opnai/gpt-5.1, gpt-5.1, openai/a, openai/a, openai/]
         |                                              ^^^^^^^^

    fleet.yaml:10:56: `openai/` is not of the form provider/model
      10 |   models: [opnai/gpt-5.1, gpt-5.1, openai/a, openai/a, openai/]
         |                                                        ^^^^^^^
      hint: write provider/model
    "#);
}

#[test]
fn a_provider_that_is_broken_is_not_missing_too() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: openai}
spec: {bseUrl: http://x}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: helper}
spec:
  models: [openai/gpt-5.1]
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:4:8: `bseUrl` is no field of `spec`
      4 | spec: {bseUrl: http://x}
        |        ^^^^^^
      hint: did you mean `baseUrl`?
    "#);
}

#[test]
fn a_registry_that_is_broken_misses_no_tool() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: ToolRegistry
metadata: {name: desk}
spec:
  tools:
    - {name: a, description: A.}
    - {name: b, mcp: 5}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: helper}
spec:
  runtime: {exec: {command: [a]}}
  tools: [desk/a, desk/b]
---
apiVersion: mainstay.dev/v1alpha1
kind: ToolRegistry
metadata: {name: other}
spec:
  tools:
    - {name: [a]}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: second}
spec:
  runtime: {exec: {command: [a]}}
  tools: [other/a]
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:6:7: `spec.tools[0]` needs exactly one of mcp, http, agent
      6 |     - {name: a, description: A.}
        |       ^^^^^^^^^^^^^^^^^^^^^^^^^^

    fleet.yaml:7:22: `spec.tools[1].mcp` must be a mapping, not `5`
      7 |     - {name: b, mcp: 5}
        |                      ^

    fleet.yaml:21:7: `spec.tools[0]` needs exactly one of mcp, http, agent
      21 |     - {name: [a]}
         |       ^^^^^^^^^^^

    fleet.yaml:21:14: `spec.tools[0].name` must be text, not a list
      21 |     - {name: [a]}
         |              ^^^
    "#);
}

#[test]
fn without_providers_the_hint_says_so() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: helper}
spec:
  models: [openai/gpt-5.1]
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:5:12: there is no Provider `openai`
      5 |   models: [openai/gpt-5.1]
        |            ^^^^^^^^^^^^^^
      hint: the set has no Provider
    "#);
}

#[test]
fn instructions_come_from_one_place() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: openai}
spec: {}
---
apiVersion: mainstay.dev/v1alpha1
kind: PromptPack
metadata: {name: support}
spec:
  prompts: {system: Hi.}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: helper}
spec:
  models: [openai/gpt-5.1]
  instructions: Hi.
  prompt: {pack: support, name: system}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:18:11: `spec.prompt` stands beside instructions, but only one of them may be written
      18 |   prompt: {pack: support, name: system}
         |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    "#);
}

#[test]
fn a_prompt_is_in_its_pack() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: openai}
spec: {}
---
apiVersion: mainstay.dev/v1alpha1
kind: PromptPack
metadata: {name: support}
spec:
  prompts: {system: Hi., triage: Ho.}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: helper}
spec:
  models: [openai/gpt-5.1]
  prompt: {pack: support, name: sytem}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: other}
spec:
  models: [openai/gpt-5.1]
  prompt: {pack: suport, name: system}
---
apiVersion: mainstay.dev/v1alpha1
kind: PromptPack
metadata: {name: empty}
spec:
  prompts: {}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:17:33: PromptPack `support` has no prompt `sytem`
      17 |   prompt: {pack: support, name: sytem}
         |                                 ^^^^^
      hint: did you mean `system`?

    fleet.yaml:24:18: there is no PromptPack `suport`
      24 |   prompt: {pack: suport, name: system}
         |                  ^^^^^^
      hint: did you mean `support`?

    fleet.yaml:30:12: `spec.prompts` is empty
      30 |   prompts: {}
         |            ^^
    "#);
}

#[test]
fn a_pin_that_only_the_hub_knows_is_a_warning() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: openai}
spec: {}
---
apiVersion: mainstay.dev/v1alpha1
kind: PromptPack
metadata: {name: support}
spec:
  version: 1.5.0
  prompts: {system: Hi.}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: helper}
spec:
  models: [openai/gpt-5.1]
  prompt: {pack: support, name: system, version: 1.4.0}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: other}
spec:
  models: [openai/gpt-5.1]
  prompt: {pack: gone, name: system, version: 1.4.0}
"#;
    assert_snapshot!(check(set), @r#"
    ok, with warnings:
    fleet.yaml:18:50: PromptPack `support` is at version `1.5.0` in this set; version `1.4.0` works only if the hub still has it
      18 |   prompt: {pack: support, name: system, version: 1.4.0}
         |                                                  ^^^^^

    fleet.yaml:25:18: PromptPack `gone` is not in this set; version `1.4.0` works only if the hub still has it
      25 |   prompt: {pack: gone, name: system, version: 1.4.0}
         |                  ^^^^
    "#);
}

#[test]
fn a_runtime_is_one_of_three() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: helper}
spec:
  runtime: {exec: {command: [a]}, service: {command: [b]}}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:5:12: `spec.runtime` has exec and service, but only one of them may be written
      5 |   runtime: {exec: {command: [a]}, service: {command: [b]}}
        |            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    "#);
}

#[test]
fn a_command_is_not_empty() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: helper}
spec:
  runtime: {exec: {command: []}}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: other}
spec:
  runtime: {service: {command: [""]}}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:5:29: `spec.runtime.exec.command` is empty
      5 |   runtime: {exec: {command: []}}
        |                             ^^

    fleet.yaml:11:33: `spec.runtime.service.command[0]` is empty
      11 |   runtime: {service: {command: [""]}}
         |                                 ^^
    "#);
}

#[test]
fn a_service_that_attaches_has_no_port() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: helper}
spec:
  runtime: {service: {command: [a], protocol: attach, port: 80}}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:5:61: `spec.runtime.service.port` has no meaning for protocol attach: the service dials in
      5 |   runtime: {service: {command: [a], protocol: attach, port: 80}}
        |                                                             ^^
      hint: write `protocol: http` or `protocol: openai`
    "#);
}

#[test]
fn instructions_without_a_reader_are_a_warning() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: helper}
spec:
  runtime: {exec: {command: [a]}}
  instructions: Hi.
"#;
    assert_snapshot!(check(set), @r#"
    ok, with warnings:
    fleet.yaml:6:17: `spec.instructions` has no effect: only the builtin runtime reads it
      6 |   instructions: Hi.
        |                 ^^^
    "#);
}

#[test]
fn a_tool_is_in_its_registry() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: ToolRegistry
metadata: {name: desk}
spec:
  tools:
    - {name: tickets, mcp: {url: http://x}}
    - {name: files, mcp: {url: http://x}}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: helper}
spec:
  runtime: {exec: {command: [a]}}
  tools: [desk/tickts, dsek/tickets, desk, desk/files, desk/files, desk/nothing]
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:14:11: ToolRegistry `desk` has no tool `tickts`
      14 |   tools: [desk/tickts, dsek/tickets, desk, desk/files, desk/files, desk/nothing]
         |           ^^^^^^^^^^^
      hint: did you mean `tickets`?

    fleet.yaml:14:24: there is no ToolRegistry `dsek`
      14 |   tools: [desk/tickts, dsek/tickets, desk, desk/files, desk/files, desk/nothing]
         |                        ^^^^^^^^^^^^
      hint: did you mean `desk`?

    fleet.yaml:14:38: `desk` is not of the form registry/tool
      14 |   tools: [desk/tickts, dsek/tickets, desk, desk/files, desk/files, desk/nothing]
         |                                      ^^^^
      hint: write `desk/files`

    fleet.yaml:14:56: `desk/files` is written twice
      14 |   tools: [desk/tickts, dsek/tickets, desk, desk/files, desk/files, desk/nothing]
         |                                                        ^^^^^^^^^^

    fleet.yaml:14:68: ToolRegistry `desk` has no tool `nothing`
      14 |   tools: [desk/tickts, dsek/tickets, desk, desk/files, desk/files, desk/nothing]
         |                                                                    ^^^^^^^^^^^^
      hint: it has `files`, `tickets`
    "#);
}

#[test]
fn two_tools_never_share_a_name() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: ToolRegistry
metadata: {name: desk}
spec:
  tools:
    - {name: a, mcp: {url: http://x}, allow: [search]}
    - {name: b, mcp: {url: http://x}, allow: [search, find]}
    - {name: find, description: F., http: {url: http://x}}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: helper}
spec:
  runtime: {exec: {command: [a]}}
  tools: [desk/a, desk/b, desk/find]
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:15:19: `desk/a` and `desk/b` would both be `search` to the model
      15 |   tools: [desk/a, desk/b, desk/find]
         |                   ^^^^^^

    fleet.yaml:15:27: `desk/b` and `desk/find` would both be `find` to the model
      15 |   tools: [desk/a, desk/b, desk/find]
         |                           ^^^^^^^^^
    "#);
}

#[test]
fn a_name_the_model_sees_is_at_most_64_long_and_a_servers_dots_and_slashes_are_no_problem() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: ToolRegistry
metadata: {name: rrrrrrrrrrrrrrrrrrrrrrrrrrrrrr}
spec:
  tools:
    - {name: tttttttttttttttttttttttttttttttttttttttt, description: A., http: {url: http://x}}
---
apiVersion: mainstay.dev/v1alpha1
kind: ToolRegistry
metadata: {name: desk}
spec:
  tools:
    - {name: a, mcp: {url: http://x}, allow: ["a.b", "a/b", "c.d"]}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: helper}
spec:
  runtime: {exec: {command: [a]}}
  tools: [rrrrrrrrrrrrrrrrrrrrrrrrrrrrrr/tttttttttttttttttttttttttttttttttttttttt, desk/a]
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:20:11: the model would see `rrrrrrrrrrrrrrrrrrrrrrrrrrrrrr__tttttttttttttttttttttttttttttttttttttttt` of `rrrrrrrrrrrrrrrrrrrrrrrrrrrrrr/tttttttttttttttttttttttttttttttttttttttt`, which is 72 characters long; models take at most 64
      20 |   tools: [rrrrrrrrrrrrrrrrrrrrrrrrrrrrrr/tttttttttttttttttttttttttttttttttttttttt, desk/a]
         |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      hint: shorten the name of the registry or of the tool

    fleet.yaml:20:84: two tools that `desk/a` allows would both be `desk__a_b` to the model
      20 |   tools: [rrrrrrrrrrrrrrrrrrrrrrrrrrrrrr/tttttttttttttttttttttttttttttttttttttttt, desk/a]
         |                                                                                    ^^^^^^
    "#);
}

#[test]
fn mainstays_own_variables_are_its_own() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: helper}
spec:
  runtime: {exec: {command: [a]}}
  env: {OPENAI_BASE_URL: http://x, PATH: /bin, MAINSTAY_X: a, "A-B": c, OK: fine, TOKEN: x, 1: x}
  secretEnv:
    TOKEN: {secretRef: {name: a, key: b}}
    ANTHROPIC_API_KEY: {secretRef: {name: a, key: b}}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:6:9: `OPENAI_BASE_URL` is set by Mainstay and can't be changed
      6 |   env: {OPENAI_BASE_URL: http://x, PATH: /bin, MAINSTAY_X: a, "A-B": c, OK: fine, TOKEN: x, 1: x}
        |         ^^^^^^^^^^^^^^^

    fleet.yaml:6:36: `PATH` is set by Mainstay and can't be changed
      6 |   env: {OPENAI_BASE_URL: http://x, PATH: /bin, MAINSTAY_X: a, "A-B": c, OK: fine, TOKEN: x, 1: x}
        |                                    ^^^^

    fleet.yaml:6:48: `MAINSTAY_X` is set by Mainstay and can't be changed
      6 |   env: {OPENAI_BASE_URL: http://x, PATH: /bin, MAINSTAY_X: a, "A-B": c, OK: fine, TOKEN: x, 1: x}
        |                                                ^^^^^^^^^^

    fleet.yaml:6:63: `A-B` is no name of an environment variable
      6 |   env: {OPENAI_BASE_URL: http://x, PATH: /bin, MAINSTAY_X: a, "A-B": c, OK: fine, TOKEN: x, 1: x}
        |                                                               ^^^^^

    fleet.yaml:6:93: `1` is no name of an environment variable
      6 |   env: {OPENAI_BASE_URL: http://x, PATH: /bin, MAINSTAY_X: a, "A-B": c, OK: fine, TOKEN: x, 1: x}
        |                                                                                             ^

    fleet.yaml:8:5: `TOKEN` is in env and in secretEnv
      8 |     TOKEN: {secretRef: {name: a, key: b}}
        |     ^^^^^

    fleet.yaml:9:5: `ANTHROPIC_API_KEY` is set by Mainstay and can't be changed
      9 |     ANTHROPIC_API_KEY: {secretRef: {name: a, key: b}}
        |     ^^^^^^^^^^^^^^^^^
    "#);
}

#[test]
fn a_secret_for_an_agent_is_a_stored_one() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: helper}
spec:
  runtime: {exec: {command: [a]}}
  secretEnv: {X: {env: Y}}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:6:18: `spec.secretEnv.X.secretRef` is missing
      6 |   secretEnv: {X: {env: Y}}
        |                  ^^^^^^^^

    fleet.yaml:6:19: `env` is no field of `spec.secretEnv.X`
      6 |   secretEnv: {X: {env: Y}}
        |                   ^^^
      hint: its only field is secretRef
    "#);
}
