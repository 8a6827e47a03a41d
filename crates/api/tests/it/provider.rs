//! Providers: type, address, credential, prices, fallback.
//!
//! Each case is a set as a person would write it, and the whole of what that person reads.

use crate::check;
use insta::assert_snapshot;

#[test]
fn a_type_is_needed_where_the_name_says_none() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: claude}
spec: {}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:3:18: `spec.type` is missing, and `claude` is not the name of a type
      3 | metadata: {name: claude}
        |                  ^^^^^^
      hint: write `type: openai`, `type: anthropic` or `type: script`
    "#);
}

#[test]
fn a_credential_comes_from_one_place() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: openai}
spec: {credential: {env: A, file: b}}
---
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: anthropic}
spec: {credential: {}}
---
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: other}
spec: {type: openai, credential: {secretRef: {name: ../x, key: k}}}
---
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: pasted}
spec: {type: openai, credential: {env: sk-proj-1}}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:4:20: `spec.credential` has env and file, but only one of them may be written
      4 | spec: {credential: {env: A, file: b}}
        |                    ^^^^^^^^^^^^^^^^^

    fleet.yaml:9:20: `spec.credential` needs exactly one of secretRef, env, file
      9 | spec: {credential: {}}
        |                    ^^

    fleet.yaml:14:53: `spec.credential.secretRef.name` is `../x`, which is no key: letters, digits, dot, underscore and hyphen, at most 128
      14 | spec: {type: openai, credential: {secretRef: {name: ../x, key: k}}}
         |                                                     ^^^^

    fleet.yaml:19:40: `spec.credential.env` is `sk-proj-1`, which is no name of an environment variable (the secret itself doesn't belong in a manifest)
      19 | spec: {type: openai, credential: {env: sk-proj-1}}
         |                                        ^^^^^^^^^
    "#);
}

#[test]
fn an_address_is_an_address() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: openai}
spec: {baseUrl: api.openai.com}
---
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: anthropic}
spec: {baseUrl: "https://me:pw@host"}
---
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: other}
spec: {type: openai, baseUrl: "https://host/v1?key=1"}
---
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: nohost}
spec: {type: openai, baseUrl: "https:///v1"}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:4:17: `spec.baseUrl` is `api.openai.com`, which is no address: it must begin with http:// or https://
      4 | spec: {baseUrl: api.openai.com}
        |                 ^^^^^^^^^^^^^^

    fleet.yaml:9:17: `spec.baseUrl` is `https://me:pw@host`, which holds a user name or password: use credential
      9 | spec: {baseUrl: "https://me:pw@host"}
        |                 ^^^^^^^^^^^^^^^^^^^^

    fleet.yaml:14:31: `spec.baseUrl` has a query; paths are put after it
      14 | spec: {type: openai, baseUrl: "https://host/v1?key=1"}
         |                               ^^^^^^^^^^^^^^^^^^^^^^^

    fleet.yaml:19:31: `spec.baseUrl` is `https:///v1`, which is no address: it names no host
      19 | spec: {type: openai, baseUrl: "https:///v1"}
         |                               ^^^^^^^^^^^^^
    "#);
}

#[test]
fn a_script_needs_its_transcript() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: script}
spec: {}
---
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: other}
spec: {type: script, script: {file: missing.yaml}}
---
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: openai}
spec: {script: {file: transcript.yaml}}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:4:7: `spec.script` is missing
      4 | spec: {}
        |       ^^
      hint: type script plays `script: {file: transcript.yaml}`

    fleet.yaml:9:37: `missing.yaml` can't be read: no such file
      9 | spec: {type: script, script: {file: missing.yaml}}
        |                                     ^^^^^^^^^^^^

    fleet.yaml:14:16: `spec.script` is for type script
      14 | spec: {script: {file: transcript.yaml}}
         |                ^^^^^^^^^^^^^^^^^^^^^^^
    "#);
}

#[test]
fn a_script_ignores_address_and_credential() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: script}
spec: {script: {file: transcript.yaml}, baseUrl: http://x, credential: {env: A}}
"#;
    assert_snapshot!(check(set), @r#"
    ok, with warnings:
    fleet.yaml:4:50: `spec.baseUrl` has no effect for type script
      4 | spec: {script: {file: transcript.yaml}, baseUrl: http://x, credential: {env: A}}
        |                                                  ^^^^^^^^

    fleet.yaml:4:72: `spec.credential` has no effect for type script
      4 | spec: {script: {file: transcript.yaml}, baseUrl: http://x, credential: {env: A}}
        |                                                                        ^^^^^^^^
    "#);
}

#[test]
fn providers_may_back_each_other_up() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: a}
spec: {type: openai, fallback: [b/x, a/y]}
---
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: b}
spec: {type: openai, fallback: [a/x]}
"#;
    assert_snapshot!(check(set), @"ok");
}

#[test]
fn a_fallback_names_a_provider_and_a_model() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: openai}
spec: {fallback: [anthropc/claude, gpt, openai/]}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:4:19: there is no Provider `anthropc`
      4 | spec: {fallback: [anthropc/claude, gpt, openai/]}
        |                   ^^^^^^^^^^^^^^^
      hint: there is `openai`

    fleet.yaml:4:36: `gpt` is not of the form provider/model
      4 | spec: {fallback: [anthropc/claude, gpt, openai/]}
        |                                    ^^^
      hint: for instance `openai/gpt`

    fleet.yaml:4:41: `openai/` is not of the form provider/model
      4 | spec: {fallback: [anthropc/claude, gpt, openai/]}
        |                                         ^^^^^^^
      hint: write provider/model
    "#);
}

#[test]
fn a_model_is_priced_once() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: openai}
spec: {models: [{name: a}, {name: a}]}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:4:35: model `a` is written twice
      4 | spec: {models: [{name: a}, {name: a}]}
        |                                   ^
    "#);
}

#[test]
fn half_a_price_is_no_price() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: openai}
spec: {models: [{name: a, price: {input: 1}}]}
"#;
    assert_snapshot!(check(set), @r#"
    ok, with warnings:
    fleet.yaml:4:34: the price stays unknown: it needs both input and output
      4 | spec: {models: [{name: a, price: {input: 1}}]}
        |                                  ^^^^^^^^^^
    "#);
}

#[test]
fn a_dollar_budget_needs_prices() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: openai}
spec: {fallback: [anthropic/unknown]}
---
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: anthropic}
spec: {models: [{name: half, price: {input: 1}}]}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: helper}
spec:
  models: [openai/gpt-5.1]
  budget: {task: {usd: 1}}
  tools: [desk/ask]
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: writer}
spec:
  models: [anthropic/half]
---
apiVersion: mainstay.dev/v1alpha1
kind: ToolRegistry
metadata: {name: desk}
spec:
  tools:
    - {name: ask, description: Ask., agent: writer}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:16:24: a budget in dollars needs prices, but the price of `anthropic/unknown` is unknown
      16 |   budget: {task: {usd: 1}}
         |                        ^
      hint: write `models: [{name: unknown, price: {input: …, output: …}}]` in Provider `anthropic`, or bound `tokens` instead

    fleet.yaml:16:24: a budget in dollars needs prices, but the price of `anthropic/half`, of agent `writer`, its tool, is unknown
      16 |   budget: {task: {usd: 1}}
         |                        ^
      hint: write `models: [{name: half, price: {input: …, output: …}}]` in Provider `anthropic`, or bound `tokens` instead
    "#);
}

#[test]
fn a_transcript_that_cannot_be_played_is_refused() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: script}
spec: {script: {file: wrong.yaml}}
"#;
    assert_snapshot!(check(set), @r"
    fleet.yaml:4:23: `wrong.yaml` is no transcript: line 1: `rulez` is no field
      4 | spec: {script: {file: wrong.yaml}}
        |                       ^^^^^^^^^^
    ");
}
