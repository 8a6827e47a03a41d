//! Fields: names, types, values, bounds.
//!
//! Each case is a set as a person would write it, and the whole of what that person reads.

use crate::check;
use insta::assert_snapshot;

#[test]
fn a_misspelt_field_is_named_with_the_right_one() {
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
  modles: [openai/gpt-5.1]
  replicsa: 2
  restart: {maxAttempt: 3}
  queue: {maximum: 3}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:10:3: `modles` is no field of `spec`
      10 |   modles: [openai/gpt-5.1]
         |   ^^^^^^
      hint: did you mean `models`?

    fleet.yaml:11:3: `replicsa` is no field of `spec`
      11 |   replicsa: 2
         |   ^^^^^^^^
      hint: did you mean `replicas`?

    fleet.yaml:12:13: `maxAttempt` is no field of `spec.restart`
      12 |   restart: {maxAttempt: 3}
         |             ^^^^^^^^^^
      hint: did you mean `maxAttempts`?

    fleet.yaml:13:11: `maximum` is no field of `spec.queue`
      13 |   queue: {maximum: 3}
         |           ^^^^^^^
      hint: its only field is max
    "#);
}

#[test]
fn a_field_of_another_place_is_sent_there() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: helper, models: []}
spec: {maxAttempts: 3, models: []}
replicas: 1
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:3:26: `models` is no field of `metadata`
      3 | metadata: {name: helper, models: []}
        |                          ^^^^^^
      hint: did you mean `spec.models`?

    fleet.yaml:4:8: `maxAttempts` is no field of `spec`
      4 | spec: {maxAttempts: 3, models: []}
        |        ^^^^^^^^^^^
      hint: did you mean `spec.restart.maxAttempts`?

    fleet.yaml:4:32: `spec.models` is missing: the builtin runtime needs a model
      4 | spec: {maxAttempts: 3, models: []}
        |                                ^^
      hint: write `models: [provider/model]`

    fleet.yaml:5:1: `replicas` is no field of a manifest
      5 | replicas: 1
        | ^^^^^^^^
      hint: did you mean `spec.replicas`?
    "#);
}

#[test]
fn a_field_without_any_neighbour_gets_the_list() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: openai}
spec: {limits: {xyzzy: 1}}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:4:17: `xyzzy` is no field of `spec.limits`
      4 | spec: {limits: {xyzzy: 1}}
        |                 ^^^^^
      hint: its fields are concurrency, requestsPerMinute, tokensPerMinute, timeout
    "#);
}

#[test]
fn a_later_field_is_said_to_be_later() {
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
  role: research
  placement: {pool: cpu}
  budget: {day: {usd: 2}}
  runtime: {a2a: {url: http://x}}
---
apiVersion: mainstay.dev/v1alpha1
kind: ToolRegistry
metadata: {name: desk}
spec:
  tools:
    - {name: python, description: Run., sandbox: {language: python}}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:11:3: `role` is no field of `spec`
      11 |   role: research
         |   ^^^^
      hint: `spec.role` comes with a later version of Mainstay

    fleet.yaml:12:15: `pool` is no field of `spec.placement`
      12 |   placement: {pool: cpu}
         |               ^^^^
      hint: `spec.placement.pool` comes with a later version of Mainstay

    fleet.yaml:13:12: `day` is no field of `spec.budget`
      13 |   budget: {day: {usd: 2}}
         |            ^^^
      hint: `spec.budget.day` comes with a later version of Mainstay

    fleet.yaml:14:13: `a2a` is no field of `spec.runtime`
      14 |   runtime: {a2a: {url: http://x}}
         |             ^^^
      hint: `spec.runtime.a2a` comes with a later version of Mainstay

    fleet.yaml:21:41: `sandbox` is no field of `spec.tools[0]`
      21 |     - {name: python, description: Run., sandbox: {language: python}}
         |                                         ^^^^^^^
      hint: `spec.tools[0].sandbox` comes with a later version of Mainstay
    "#);
}

#[test]
fn a_wrong_type_says_what_is_wanted() {
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
  models: openai/gpt-5.1
  replicas: "2"
  concurrency: 1.5
  env: [A]
  instructions: {a: b}
  queue: 10
  volume: {size: [1]}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:10:11: `spec.models` must be a list, not `openai/gpt-5.1`
      10 |   models: openai/gpt-5.1
         |           ^^^^^^^^^^^^^^

    fleet.yaml:11:13: `spec.replicas` must be a whole number, not text in quotes
      11 |   replicas: "2"
         |             ^^^

    fleet.yaml:12:16: `spec.concurrency` must be a whole number, not `1.5`
      12 |   concurrency: 1.5
         |                ^^^

    fleet.yaml:13:8: `spec.env` must be a mapping, not a list
      13 |   env: [A]
         |        ^^^

    fleet.yaml:14:17: `spec.instructions` must be text, not a mapping
      14 |   instructions: {a: b}
         |                 ^^^^^^

    fleet.yaml:15:10: `spec.queue` must be a mapping, not `10`
      15 |   queue: 10
         |          ^^

    fleet.yaml:16:18: `spec.volume.size` must be text, not a list
      16 |   volume: {size: [1]}
         |                  ^^^
    "#);
}

#[test]
fn one_slip_hides_no_other() {
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
  modles: [opnai/gpt-5.1]
  replicas: many
  tools: [desk/none]
---
apiVersion: mainstay.dev/v1alpha1
kind: ToolRegistry
metadata: {name: desk}
spec:
  tools:
    - {name: a, desciption: A., http: {urll: "http://{x}/{y}"}, effect: kyed}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:10:3: `modles` is no field of `spec`
      10 |   modles: [opnai/gpt-5.1]
         |   ^^^^^^
      hint: did you mean `models`?

    fleet.yaml:10:12: there is no Provider `opnai`
      10 |   modles: [opnai/gpt-5.1]
         |            ^^^^^^^^^^^^^
      hint: did you mean `openai`?

    fleet.yaml:11:13: `spec.replicas` must be a whole number, not `many`
      11 |   replicas: many
         |             ^^^^

    fleet.yaml:12:11: ToolRegistry `desk` has no tool `none`
      12 |   tools: [desk/none]
         |           ^^^^^^^^^
      hint: it has `a`

    fleet.yaml:19:17: `desciption` is no field of `spec.tools[0]`
      19 |     - {name: a, desciption: A., http: {urll: "http://{x}/{y}"}, effect: kyed}
         |                 ^^^^^^^^^^
      hint: did you mean `description`?

    fleet.yaml:19:40: `urll` is no field of `spec.tools[0].http`
      19 |     - {name: a, desciption: A., http: {urll: "http://{x}/{y}"}, effect: kyed}
         |                                        ^^^^
      hint: did you mean `url`?

    fleet.yaml:19:46: an argument can't choose the host: the model would decide who is called
      19 |     - {name: a, desciption: A., http: {urll: "http://{x}/{y}"}, effect: kyed}
         |                                              ^^^^^^^^^^^^^^^^

    fleet.yaml:19:46: `{x}` is no argument of `inputSchema`
      19 |     - {name: a, desciption: A., http: {urll: "http://{x}/{y}"}, effect: kyed}
         |                                              ^^^^^^^^^^^^^^^^
      hint: declare it in `inputSchema`

    fleet.yaml:19:46: `{y}` is no argument of `inputSchema`
      19 |     - {name: a, desciption: A., http: {urll: "http://{x}/{y}"}, effect: kyed}
         |                                              ^^^^^^^^^^^^^^^^
      hint: declare it in `inputSchema`

    fleet.yaml:19:73: `spec.tools[0].effect` is `kyed`, which is none of pure, keyed, queryable, opaque
      19 |     - {name: a, desciption: A., http: {urll: "http://{x}/{y}"}, effect: kyed}
         |                                                                         ^^^^
      hint: did you mean `keyed`?
    "#);
}

#[test]
fn lists_are_bounded() {
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
  models: [a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a]
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:10:11: `spec.models` has 65 items; the most is 64
      10 |   models: [a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a…
         |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    "#);
}

#[test]
fn an_octal_number_is_no_number() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: helper}
spec:
  models: []
  replicas: 010
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:5:11: `spec.models` is missing: the builtin runtime needs a model
      5 |   models: []
        |           ^^
      hint: write `models: [provider/model]`

    fleet.yaml:6:13: `spec.replicas` must be a whole number, not `010`
      6 |   replicas: 010
        |             ^^^
    "#);
}

#[test]
fn bounds_are_kept() {
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
  replicas: 201
  concurrency: 0
  queue: {max: 0}
  restart: {maxAttempts: 0, grace: 2h}
  budget: {task: {tokens: 0, steps: 0, usd: -1, time: 0s}}
  volume: {size: 1Ki}
---
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: anthropic}
spec: {limits: {concurrency: 0, requestsPerMinute: 0, timeout: 0s}, models: [{name: a, context: 0, price: {input: -1}}]}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:11:13: `spec.replicas` is 201; it must be between 0 and 200
      11 |   replicas: 201
         |             ^^^

    fleet.yaml:12:16: `spec.concurrency` is 0; it must be between 1 and 1000
      12 |   concurrency: 0
         |                ^

    fleet.yaml:13:16: `spec.queue.max` is 0; it must be between 1 and 100000
      13 |   queue: {max: 0}
         |                ^

    fleet.yaml:14:26: `spec.restart.maxAttempts` is 0; it must be between 1 and 1000
      14 |   restart: {maxAttempts: 0, grace: 2h}
         |                          ^

    fleet.yaml:14:36: `spec.restart.grace` is `2h`, which is above the most of 1h
      14 |   restart: {maxAttempts: 0, grace: 2h}
         |                                    ^^

    fleet.yaml:15:27: `spec.budget.task.tokens` is 0; it must be at least 1
      15 |   budget: {task: {tokens: 0, steps: 0, usd: -1, time: 0s}}
         |                           ^

    fleet.yaml:15:37: `spec.budget.task.steps` is 0; it must be at least 1
      15 |   budget: {task: {tokens: 0, steps: 0, usd: -1, time: 0s}}
         |                                     ^

    fleet.yaml:15:45: `spec.budget.task.usd` is -1; it must be between 0 and 1000000
      15 |   budget: {task: {tokens: 0, steps: 0, usd: -1, time: 0s}}
         |                                             ^^

    fleet.yaml:15:55: `spec.budget.task.time` is `0s`, which is below the least of 1ms
      15 |   budget: {task: {tokens: 0, steps: 0, usd: -1, time: 0s}}
         |                                                       ^^

    fleet.yaml:16:18: `spec.volume.size` is `1Ki`, which is below the least of 1Mi
      16 |   volume: {size: 1Ki}
         |                  ^^^

    fleet.yaml:21:30: `spec.limits.concurrency` is 0; it must be between 1 and 10000
      21 | spec: {limits: {concurrency: 0, requestsPerMinute: 0, timeout: 0s}, models: [{name: a, context: 0, price: {input: -1}}]}
         |                              ^

    fleet.yaml:21:52: `spec.limits.requestsPerMinute` is 0; it must be between 1 and 4294967295
      21 | spec: {limits: {concurrency: 0, requestsPerMinute: 0, timeout: 0s}, models: [{name: a, context: 0, price: {input: -1}}]}
         |                                                    ^

    fleet.yaml:21:64: `spec.limits.timeout` is `0s`, which is below the least of 1ms
      21 | spec: {limits: {concurrency: 0, requestsPerMinute: 0, timeout: 0s}, models: [{name: a, context: 0, price: {input: -1}}]}
         |                                                                ^^

    fleet.yaml:21:97: `spec.models[0].context` is 0; it must be at least 1
      21 | spec: {limits: {concurrency: 0, requestsPerMinute: 0, timeout: 0s}, models: [{name: a, context: 0, price: {input: -1}}]}
         |                                                                                                 ^

    fleet.yaml:21:115: `spec.models[0].price.input` is -1; it must be between 0 and 1000000
      21 | spec: {limits: {concurrency: 0, requestsPerMinute: 0, timeout: 0s}, models: [{name: a, context: 0, price: {input: -1}}]}
         |                                                                                                                   ^^
    "#);
}

#[test]
fn durations_and_sizes_have_units() {
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
  restart: {grace: 30}
  budget: {task: {time: 2 hours}}
  volume: {size: 5GB}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:11:20: `spec.restart.grace` is `30`, which is no duration: write 30s, 10m or 1h30m
      11 |   restart: {grace: 30}
         |                    ^^

    fleet.yaml:12:25: `spec.budget.task.time` is `2 hours`, which is no duration: write 30s, 10m or 1h30m
      12 |   budget: {task: {time: 2 hours}}
         |                         ^^^^^^^

    fleet.yaml:13:18: `spec.volume.size` is `5GB`, which is no size: write 256Ki, 512Mi or 5Gi
      13 |   volume: {size: 5GB}
         |                  ^^^
    "#);
}

#[test]
fn a_value_from_a_list_is_one_of_it() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: helper}
spec:
  runtime: {service: {command: [a], protocol: htttp}}
  replay: {onDivergence: never, mask: [now, uid]}
---
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: mine}
spec: {type: opnai}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:5:47: `spec.runtime.service.protocol` is `htttp`, which is none of attach, openai, http
      5 |   runtime: {service: {command: [a], protocol: htttp}}
        |                                               ^^^^^
      hint: did you mean `http`?

    fleet.yaml:6:26: `spec.replay.onDivergence` is `never`, which is none of ask, continue
      6 |   replay: {onDivergence: never, mask: [now, uid]}
        |                          ^^^^^

    fleet.yaml:6:45: `spec.replay.mask[1]` is `uid`, which is none of now, uuid
      6 |   replay: {onDivergence: never, mask: [now, uid]}
        |                                             ^^^
      hint: did you mean `uuid`?

    fleet.yaml:11:14: `spec.type` is `opnai`, which is none of openai, anthropic, script
      11 | spec: {type: opnai}
         |              ^^^^^
      hint: did you mean `openai`?
    "#);
}

#[test]
fn a_missing_field_is_named() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Agent
spec: {prompt: {}, volume: {}, runtime: {exec: {}}}
---
kind: ToolRegistry
metadata: {}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:1:1: `metadata` is missing
      1 | apiVersion: mainstay.dev/v1alpha1
        | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^

    fleet.yaml:3:16: `spec.prompt.pack` is missing
      3 | spec: {prompt: {}, volume: {}, runtime: {exec: {}}}
        |                ^^

    fleet.yaml:3:16: `spec.prompt.name` is missing
      3 | spec: {prompt: {}, volume: {}, runtime: {exec: {}}}
        |                ^^

    fleet.yaml:3:48: `spec.runtime.exec.command` is missing
      3 | spec: {prompt: {}, volume: {}, runtime: {exec: {}}}
        |                                                ^^

    fleet.yaml:5:1: `apiVersion` is missing
      5 | kind: ToolRegistry
        | ^^^^^^^^^^^^^^^^^^

    fleet.yaml:5:1: `spec` is missing
      5 | kind: ToolRegistry
        | ^^^^^^^^^^^^^^^^^^

    fleet.yaml:6:11: `metadata.name` is missing
      6 | metadata: {}
        |           ^^
    "#);
}

#[test]
fn a_name_is_a_dns_label() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: My_Agent, namespace: -x}
spec: {runtime: {exec: {command: [a]}}}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa}
spec: {runtime: {exec: {command: [a]}}}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:3:18: `metadata.name` is `My_Agent`, which is no name: lower-case letters, digits and hyphens, at most 63, with a letter or digit at both ends
      3 | metadata: {name: My_Agent, namespace: -x}
        |                  ^^^^^^^^

    fleet.yaml:3:39: `metadata.namespace` is `-x`, which is no name: lower-case letters, digits and hyphens, at most 63, with a letter or digit at both ends
      3 | metadata: {name: My_Agent, namespace: -x}
        |                                       ^^

    fleet.yaml:8:11: Agent `aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa` belongs to workspace `default`, but Agent `My_Agent` at fleet.yaml:3:18 makes this set workspace `-x`
      8 | metadata: {name: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa}
        |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      hint: without `namespace` it is default: write `namespace: -x`

    fleet.yaml:8:18: `metadata.name` is `aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa`, which is no name: lower-case letters, digits and hyphens, at most 63, with a letter or digit at both ends
      8 | metadata: {name: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa}
        |                  ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    "#);
}

#[test]
fn tags_aliases_and_merge_keys_have_bounds() {
    let set = r#"
=== tag.yaml
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: helper}
spec:
  models: !mine [a]
=== merge.yaml
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: helper}
spec:
  <<: {replicas: 2}
  runtime: {exec: {command: [a]}}
=== loop.yaml
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: helper}
spec:
  models: &a [*a]
=== anchor.yaml
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: helper}
spec:
  models: [*nobody]
"#;
    assert_snapshot!(check(set), @r#"
    tag.yaml:5:17: the tag `!mine` has no meaning here
      5 |   models: !mine [a]
        |                 ^

    merge.yaml:5:3: `<<` is no field of `spec`
      5 |   <<: {replicas: 2}
        |   ^^
      hint: merge keys are not read; write the fields where they belong

    loop.yaml:5:15: this alias stands inside what it names
      5 |   models: &a [*a]
        |               ^^

    anchor.yaml:5:12: this is not YAML: while parsing node, found unknown anchor
      5 |   models: [*nobody]
        |            ^
    "#);
}
