//! Tools: servers, requests, agents, and how their calls may be repeated.
//!
//! Each case is a set as a person would write it, and the whole of what that person reads.

use crate::check;
use insta::assert_snapshot;

#[test]
fn a_tool_is_exactly_one_thing() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: ToolRegistry
metadata: {name: desk}
spec:
  tools:
    - {name: a, description: A.}
    - {name: b, description: B., agent: x, http: {url: http://x}}
    - {name: c, mcp: {}}
    - {name: d, mcp: {url: http://x, command: [a]}}
    - {name: e, mcp: {command: []}}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:6:7: `spec.tools[0]` needs exactly one of mcp, http, agent
      6 |     - {name: a, description: A.}
        |       ^^^^^^^^^^^^^^^^^^^^^^^^^^

    fleet.yaml:7:7: `spec.tools[1]` has http and agent, but only one of them may be written
      7 |     - {name: b, description: B., agent: x, http: {url: http://x}}
        |       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^

    fleet.yaml:8:22: `spec.tools[2].mcp` needs exactly one of url, command
      8 |     - {name: c, mcp: {}}
        |                      ^^

    fleet.yaml:9:22: `spec.tools[3].mcp` has url and command, but only one of them may be written
      9 |     - {name: d, mcp: {url: http://x, command: [a]}}
        |                      ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^

    fleet.yaml:10:32: `spec.tools[4].mcp.command` is empty
      10 |     - {name: e, mcp: {command: []}}
         |                                ^^
    "#);
}

#[test]
fn a_tool_name_is_what_models_take() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: ToolRegistry
metadata: {name: desk}
spec:
  tools:
    - {name: a b, mcp: {url: http://x}}
    - {name: a/b, mcp: {url: http://x}}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:6:14: `spec.tools[0].name` is `a b`, which is no tool name: letters, digits, underscore and hyphen, at most 64
      6 |     - {name: a b, mcp: {url: http://x}}
        |              ^^^

    fleet.yaml:7:14: `spec.tools[1].name` is `a/b`, which is no tool name: letters, digits, underscore and hyphen, at most 64
      7 |     - {name: a/b, mcp: {url: http://x}}
        |              ^^^
    "#);
}

#[test]
fn a_tool_needs_a_description() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: ToolRegistry
metadata: {name: desk}
spec:
  tools:
    - {name: a, http: {url: http://x}}
    - {name: b, agent: a}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:6:7: `spec.tools[0].description` is missing: the model reads it
      6 |     - {name: a, http: {url: http://x}}
        |       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^

    fleet.yaml:7:7: `spec.tools[1].description` is missing: the model reads it
      7 |     - {name: b, agent: a}
        |       ^^^^^^^^^^^^^^^^^^^

    fleet.yaml:7:24: there is no Agent `a`
      7 |     - {name: b, agent: a}
        |                        ^
      hint: the set has no Agent
    "#);
}

#[test]
fn a_tool_is_written_once() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: ToolRegistry
metadata: {name: desk}
spec:
  tools:
    - {name: a, mcp: {url: http://x}}
    - {name: a, mcp: {url: http://y}}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:7:14: tool `a` is written twice; the first is at fleet.yaml:6:14
      7 |     - {name: a, mcp: {url: http://y}}
        |              ^
    "#);
}

#[test]
fn an_agent_as_a_tool_exists_and_is_keyed() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: ToolRegistry
metadata: {name: desk}
spec:
  tools:
    - {name: a, description: A., agent: hepler}
    - {name: b, description: B., agent: helper, effect: pure, key: {header: X}, inputSchema: {type: object}, allow: [x]}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: helper}
spec:
  runtime: {exec: {command: [a]}}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:6:41: there is no Agent `hepler`
      6 |     - {name: a, description: A., agent: hepler}
        |                                         ^^^^^^
      hint: did you mean `helper`?

    fleet.yaml:7:57: `spec.tools[1].effect` must be keyed: the id of an agent's task comes from the step
      7 |     - {name: b, description: B., agent: helper, effect: pure, key: {header: X}, inputSchema: {type: object}, allow: [x]}
        |                                                         ^^^^

    fleet.yaml:7:68: `spec.tools[1].key` has no meaning here: an agent as a tool is keyed by the step's id already
      7 |     - {name: b, description: B., agent: helper, effect: pure, key: {header: X}, inputSchema: {type: object}, allow: [x]}
        |                                                                    ^^^^^^^^^^^

    fleet.yaml:7:94: `spec.tools[1].inputSchema` has no meaning here: an agent as a tool takes one text, `input`
      7 |     - {name: b, description: B., agent: helper, effect: pure, key: {header: X}, inputSchema: {type: object}, allow: [x]}
        |                                                                                              ^^^^^^^^^^^^^^

    fleet.yaml:7:117: `spec.tools[1].allow` has no meaning here: only an MCP server has tools of its own
      7 |     - {name: b, description: B., agent: helper, effect: pure, key: {header: X}, inputSchema: {type: object}, allow: [x]}
        |                                                                                                                     ^^^
    "#);
}

#[test]
fn a_server_brings_its_own_schemas() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: ToolRegistry
metadata: {name: desk}
spec:
  tools:
    - {name: a, mcp: {url: http://x, env: {A: b}}, inputSchema: {type: object}, key: {header: X}}
    - {name: b, mcp: {command: [x], credential: {env: T}, env: {HOME: /, 1A: b, MAINSTAY_TOKEN: x, OPENAI_API_KEY: its-own}}}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:6:43: `spec.tools[0].mcp.env` has no meaning here: only a server that Mainstay starts has an environment
      6 |     - {name: a, mcp: {url: http://x, env: {A: b}}, inputSchema: {type: object}, key: {header: X}}
        |                                           ^^^^^^

    fleet.yaml:6:65: `spec.tools[0].inputSchema` has no meaning here: an MCP server brings its tools' schemas
      6 |     - {name: a, mcp: {url: http://x, env: {A: b}}, inputSchema: {type: object}, key: {header: X}}
        |                                                                 ^^^^^^^^^^^^^^

    fleet.yaml:6:95: `spec.tools[0].key.header` has no meaning here: a call to an MCP server has no headers of its own; write `argument`
      6 |     - {name: a, mcp: {url: http://x, env: {A: b}}, inputSchema: {type: object}, key: {header: X}}
        |                                                                                               ^

    fleet.yaml:7:49: `spec.tools[1].mcp.credential` has no meaning here: it is sent with `url` only
      7 |     - {name: b, mcp: {command: [x], credential: {env: T}, env: {HOME: /, 1A: b, MAINSTAY_TOKEN: x, OPENAI_API_KEY: its-o…
        |                                                 ^^^^^^^^

    fleet.yaml:7:65: `HOME` is set by Mainstay and can't be changed
      7 | …- {name: b, mcp: {command: [x], credential: {env: T}, env: {HOME: /, 1A: b, MAINSTAY_TOKEN: x, OPENAI_API_KEY: its-own}}…
        |                                                              ^^^^

    fleet.yaml:7:74: `1A` is no name of an environment variable
      7 | …b, mcp: {command: [x], credential: {env: T}, env: {HOME: /, 1A: b, MAINSTAY_TOKEN: x, OPENAI_API_KEY: its-own}}}
        |                                                              ^^

    fleet.yaml:7:81: `MAINSTAY_TOKEN` is set by Mainstay and can't be changed
      7 | … {command: [x], credential: {env: T}, env: {HOME: /, 1A: b, MAINSTAY_TOKEN: x, OPENAI_API_KEY: its-own}}}
        |                                                              ^^^^^^^^^^^^^^
    "#);
}

#[test]
fn effects_go_by_the_servers_allowed_tools() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: ToolRegistry
metadata: {name: desk}
spec:
  tools:
    - name: a
      mcp: {url: http://x}
      allow: [search, close, close]
      effects: {serch: pure, close: queryable, search: pur}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:8:30: `close` is written twice
      8 |       allow: [search, close, close]
        |                              ^^^^^

    fleet.yaml:9:17: tool `serch` is not in `allow`
      9 |       effects: {serch: pure, close: queryable, search: pur}
        |                 ^^^^^
      hint: did you mean `search`?

    fleet.yaml:9:30: a call to an MCP server can't be read back, so it can't be queryable
      9 |       effects: {serch: pure, close: queryable, search: pur}
        |                              ^^^^^

    fleet.yaml:9:56: `spec.tools[0].effects.search` is `pur`, which is none of pure, keyed, queryable, opaque
      9 |       effects: {serch: pure, close: queryable, search: pur}
        |                                                        ^^^
      hint: did you mean `pure`?
    "#);
}

#[test]
fn a_placeholder_is_an_argument() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: ToolRegistry
metadata: {name: desk}
spec:
  tools:
    - name: a
      description: A.
      http: {method: POST, url: "http://x/{itme}", body: {n: ["{other}", "{item}"]}}
      inputSchema: {type: object, properties: {item: {type: string}}}
    - {name: b, description: B., http: {url: "http://x/{id}"}}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:8:33: `{itme}` is no argument of `inputSchema`
      8 |       http: {method: POST, url: "http://x/{itme}", body: {n: ["{other}", "{item}"]}}
        |                                 ^^^^^^^^^^^^^^^^^
      hint: did you mean `item`?

    fleet.yaml:8:58: `{other}` is no argument of `inputSchema`
      8 |       http: {method: POST, url: "http://x/{itme}", body: {n: ["{other}", "{item}"]}}
        |                                                          ^^^^^^^^^^^^^^^^^^^^^^^^^^
      hint: it has `item`

    fleet.yaml:10:46: `{id}` is no argument of `inputSchema`
      10 |     - {name: b, description: B., http: {url: "http://x/{id}"}}
         |                                              ^^^^^^^^^^^^^^^
      hint: declare it in `inputSchema`
    "#);
}

#[test]
fn an_argument_cannot_choose_the_host() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: ToolRegistry
metadata: {name: desk}
spec:
  tools:
    - name: a
      description: A.
      http: {url: "http://{item}.example/"}
      inputSchema: {type: object, properties: {item: {type: string}}}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:8:19: an argument can't choose the host: the model would decide who is called
      8 |       http: {url: "http://{item}.example/"}
        |                   ^^^^^^^^^^^^^^^^^^^^^^^^
    "#);
}

#[test]
fn an_address_of_a_tool_is_an_address() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: ToolRegistry
metadata: {name: desk}
spec:
  tools:
    - {name: a, description: A., http: {url: "file:///etc/passwd"}}
    - {name: b, mcp: {url: "ws://x"}}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:6:46: `spec.tools[0].http.url` is `file:///etc/passwd`, which is no address: it must begin with http:// or https://
      6 |     - {name: a, description: A., http: {url: "file:///etc/passwd"}}
        |                                              ^^^^^^^^^^^^^^^^^^^^

    fleet.yaml:7:28: `spec.tools[1].mcp.url` is `ws://x`, which is no address: it must begin with http:// or https://
      7 |     - {name: b, mcp: {url: "ws://x"}}
        |                            ^^^^^^^^
    "#);
}

#[test]
fn a_get_has_no_body() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: ToolRegistry
metadata: {name: desk}
spec:
  tools:
    - {name: a, description: A., http: {url: "http://x", body: {}}}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:6:64: `spec.tools[0].http.body` has no meaning here: a GET request has no body
      6 |     - {name: a, description: A., http: {url: "http://x", body: {}}}
        |                                                                ^^
    "#);
}

#[test]
fn an_argument_that_is_never_sent_is_a_warning() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: ToolRegistry
metadata: {name: desk}
spec:
  tools:
    - name: a
      description: A.
      http: {method: POST, url: http://x, body: {n: 1}}
      inputSchema: {type: object, properties: {item: {type: string}}}
"#;
    assert_snapshot!(check(set), @r#"
    ok, with warnings:
    fleet.yaml:8:49: argument `item` is never sent: neither url nor body names it
      8 |       http: {method: POST, url: http://x, body: {n: 1}}
        |                                                 ^^^^^^
    "#);
}

#[test]
fn a_schema_of_arguments_is_an_object() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: ToolRegistry
metadata: {name: desk}
spec:
  tools:
    - {name: a, description: A., http: {url: http://x}, inputSchema: {type: string}}
    - {name: b, description: B., http: {url: http://x}, inputSchema: {type: object, properties: {x: {type: strin}}}}
    - {name: c, description: C., http: {url: http://x}, inputSchema: {type: object, properties: {stepId: {type: string}}}}
    - {name: d, description: D., http: {url: http://x}, inputSchema: {type: object, properties: [x]}}
    - {name: e, description: E., http: {url: http://x}, inputSchema: text}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:6:70: the arguments are an object: `inputSchema` needs `type: object`
      6 |     - {name: a, description: A., http: {url: http://x}, inputSchema: {type: string}}
        |                                                                      ^^^^^^^^^^^^^^

    fleet.yaml:7:70: this is no JSON Schema: "strin" is no type
      7 |     - {name: b, description: B., http: {url: http://x}, inputSchema: {type: object, properties: {x: {type: strin}}}}
        |                                                                      ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^

    fleet.yaml:8:70: `stepId` is Mainstay's own name for the step's id
      8 | …me: c, description: C., http: {url: http://x}, inputSchema: {type: object, properties: {stepId: {type: string}}}}
        |                                                              ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^

    fleet.yaml:9:85: `properties` must be a mapping of argument names to schemas
      9 |     - {name: d, description: D., http: {url: http://x}, inputSchema: {type: object, properties: [x]}}
        |                                                                                     ^^^^^^^^^^

    fleet.yaml:10:70: `spec.tools[4].inputSchema` must be a mapping, not `text`
      10 |     - {name: e, description: E., http: {url: http://x}, inputSchema: text}
         |                                                                      ^^^^
    "#);
}

#[test]
fn a_keyed_tool_says_where_its_key_goes() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: ToolRegistry
metadata: {name: desk}
spec:
  tools:
    - {name: a, description: A., http: {method: POST, url: http://x}, effect: keyed}
    - {name: b, description: B., http: {method: POST, url: http://x}, key: {header: X}}
    - {name: c, description: C., http: {method: POST, url: http://x}, effect: keyed, key: {}}
    - {name: d, description: D., http: {method: POST, url: http://x}, effect: keyed, key: {header: Host}}
    - {name: e, description: E., http: {method: POST, url: http://x, body: {a: 1}}, effect: keyed, key: {argument: requestId}}
    - {name: f, description: F., http: {method: POST, url: http://x}, effect: keyed, key: {argument: item}, inputSchema: {type: object, properties: {item: {type: string}}}}
    - {name: g, description: G., http: {method: POST, url: "http://x?k={requestId}", body: {a: 1}}, effect: keyed, key: {argument: requestId}}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:6:79: `spec.tools[0].effect` is keyed, which needs `key`: where the call carries the step's id
      6 |     - {name: a, description: A., http: {method: POST, url: http://x}, effect: keyed}
        |                                                                               ^^^^^
      hint: write `key: {header: Idempotency-Key}` or `key: {argument: NAME}`

    fleet.yaml:7:76: `spec.tools[1].key` is for tools with `effect: keyed`
      7 |     - {name: b, description: B., http: {method: POST, url: http://x}, key: {header: X}}
        |                                                                            ^^^^^^^^^^^

    fleet.yaml:8:91: `spec.tools[2].key` needs exactly one of header, argument
      8 |     - {name: c, description: C., http: {method: POST, url: http://x}, effect: keyed, key: {}}
        |                                                                                           ^^

    fleet.yaml:9:100: `spec.tools[3].key.header` is `Host`, which is no name of a header that may be set
      9 |     - {name: d, description: D., http: {method: POST, url: http://x}, effect: keyed, key: {header: Host}}
        |                                                                                                    ^^^^

    fleet.yaml:10:116: the key is never sent: neither url nor body names `{requestId}`
      10 | …rl: http://x, body: {a: 1}}, effect: keyed, key: {argument: requestId}}
         |                                                              ^^^^^^^^^

    fleet.yaml:11:102: `item` is also an argument that the model fills in
      11 | …ethod: POST, url: http://x}, effect: keyed, key: {argument: item}, inputSchema: {type: object, properties: {item: {type:…
         |                                                              ^^^^
    "#);
}

#[test]
fn a_queryable_tool_sends_the_step_and_reads_it_back() {
    let set = r#"
apiVersion: mainstay.dev/v1alpha1
kind: ToolRegistry
metadata: {name: desk}
spec:
  tools:
    - {name: a, description: A., http: {method: POST, url: http://x}, effect: queryable}
    - {name: b, description: B., http: {method: POST, url: "http://x/{stepId}"}, effect: queryable, readBack: {url: "http://x", found: "(("}}
    - {name: c, description: C., http: {method: POST, url: http://x}, readBack: {url: "http://x/{stepId}", found: "true"}}
    - {name: d, description: D., http: {method: POST, url: "http://x/{stepId}"}, effect: queryabel, readBack: {url: "http://x", foud: "true"}}
"#;
    assert_snapshot!(check(set), @r#"
    fleet.yaml:6:79: `spec.tools[0].effect` is queryable, which needs `readBack`: how the call's outcome is read
      6 |     - {name: a, description: A., http: {method: POST, url: http://x}, effect: queryable}
        |                                                                               ^^^^^^^^^

    fleet.yaml:6:79: a queryable call must send the step's id, so that it can be found again
      6 |     - {name: a, description: A., http: {method: POST, url: http://x}, effect: queryable}
        |                                                                               ^^^^^^^^^
      hint: write {stepId} in the url or in the body

    fleet.yaml:7:117: `spec.tools[1].readBack.url` must name {stepId}, or reading back may find another call
      7 | …l: "http://x/{stepId}"}, effect: queryable, readBack: {url: "http://x", found: "(("}}
        |                                                              ^^^^^^^^^^

    fleet.yaml:7:136: this is no CEL expression: unbalanced
      7 | …d}"}, effect: queryable, readBack: {url: "http://x", found: "(("}}
        |                                                              ^^^^

    fleet.yaml:8:81: `spec.tools[2].readBack` is for tools with `effect: queryable`
      8 | …ription: C., http: {method: POST, url: http://x}, readBack: {url: "http://x/{stepId}", found: "true"}}
        |                                                              ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^

    fleet.yaml:9:90: `spec.tools[3].effect` is `queryabel`, which is none of pure, keyed, queryable, opaque
      9 | …D., http: {method: POST, url: "http://x/{stepId}"}, effect: queryabel, readBack: {url: "http://x", foud: "true"}}
        |                                                              ^^^^^^^^^
      hint: did you mean `queryable`?

    fleet.yaml:9:117: `spec.tools[3].readBack.url` must name {stepId}, or reading back may find another call
      9 | …l: "http://x/{stepId}"}, effect: queryabel, readBack: {url: "http://x", foud: "true"}}
        |                                                              ^^^^^^^^^^

    fleet.yaml:9:129: `foud` is no field of `spec.tools[3].readBack`
      9 | …/{stepId}"}, effect: queryabel, readBack: {url: "http://x", foud: "true"}}
        |                                                              ^^^^
      hint: did you mean `found`?
    "#);
}
