//! A session on its way between two real homes, its agent killed at each: what was asked of the
//! provider and done outside is asked and done once.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use testkit::provider::loop_of;
use testkit::wait::until;
use testkit::{EffectServer, Fleet, Provider, Up, processes};

const BOUND: Duration = Duration::from_secs(120);
const TURNS: u32 = 8;

fn home(provider: &Provider, effects: &EffectServer) -> Up {
    let fleet = Fleet::new().with(
        "fleet.yaml",
        &format!(
            r#"apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {{name: counting}}
spec: {{type: openai, baseUrl: "{provider}"}}
---
apiVersion: mainstay.dev/v1alpha1
kind: ToolRegistry
metadata: {{name: desk}}
spec:
  tools:
    - name: record
      description: Record a number.
      http: {{method: POST, url: "{effects}/effects", body: {{conversation: "{{conversation}}", n: "{{n}}"}}}}
      inputSchema: {{type: object, properties: {{conversation: {{type: string}}, n: {{type: integer}}}}, required: [conversation, n]}}
      effect: keyed
      key: {{header: Idempotency-Key}}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {{name: worker}}
spec:
  models: [counting/fake-1]
  tools: [desk/record]
  env: {{TESTKIT_FLEET: "{{{{mark}}}}"}}
"#,
            provider = provider.openai_url(),
            effects = effects.url(),
        ),
    );
    Up::start(fleet)
}

/// Waits for so many calls, and kills the agent in the middle.
fn killed_after(home: &Up, provider: &Provider, calls: usize) {
    until("calls to the provider", BOUND, || {
        (provider.calls().len() >= calls).then_some(())
    });
    for agent in home.agents() {
        processes::kill(agent.pid);
    }
}

fn done(home: &Up, arguments: &[&str]) {
    let output = home.cli(arguments);
    assert_eq!(output.code, 0, "{output:?}");
}

fn moved(from: &Up, to: &Up, session: &str, file: &Path) {
    let file = file.to_str().unwrap();
    done(from, &["session", "export", session, "-o", file]);
    let key = from
        .cli(&["log", "head", "-o", "json"])
        .expect_code(0)
        .json();
    let key = key["key"].as_str().unwrap();
    done(to, &["session", "import", file, "--check", "--key", key]);
    done(to, &["session", "import", file]);
}

#[test]
fn a_task_killed_at_each_home_ends_with_every_call_made_once() {
    let script = loop_of(TURNS, "record");
    let provider = Provider::start(move |call| script(call).after(Duration::from_millis(200)));
    let effects = EffectServer::start();
    let (a, b) = (home(&provider, &effects), home(&provider, &effects));
    let id = a.submit("worker", "moving");
    let session = a.task(&id).unwrap()["session"].as_str().unwrap().to_owned();

    killed_after(&a, &provider, 2);
    let out = a.fleet().folder().join("out.session");
    moved(&a, &b, &session, &out);
    assert_eq!(a.task(&id).unwrap()["reason"], "moved");
    assert_eq!(b.task(&id).unwrap()["reason"], "imported");
    let refused = a.cli(&["task", "retry", &id]);
    assert_eq!(refused.code, 1, "{refused:?}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&out.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    let before = provider.calls().len();
    done(&b, &["task", "retry", &id]);
    killed_after(&b, &provider, before + 2);
    let back = b.fleet().folder().join("back.session");
    moved(&b, &a, &session, &back);
    done(&a, &["task", "retry", &id]);
    let shown = a.wait_state(&id, &["completed", "failed", "input-required"], BOUND);
    assert_eq!(shown["state"], "completed", "{shown}");
    assert_eq!(shown["output"], "done: moving", "{shown}");
    assert_eq!(shown["repeated"], 0, "{shown}");

    let expected: BTreeMap<_, _> = (0..TURNS)
        .map(|turn| (("moving".to_owned(), turn), 1))
        .collect();
    assert_eq!(provider.counts(), expected, "{:?}", a.steps(&id));
    let posts = effects.requests();
    assert_eq!(
        posts.len(),
        TURNS as usize - 1,
        "each asked for once: {posts:?}"
    );
    assert_eq!(effects.effects().len(), posts.len());
    for home in [&a, &b] {
        done(home, &["log", "verify"]);
        done(home, &["log", "rebuild", "--check"]);
    }
}
