//! What is wrong with an object is said before it is written, and after it by its status where
//! nobody could be asked.

use testkit::cluster::{Cluster, Workspace, condition};
use testkit::until;

use crate::world::BOUND;

/// Its fields are right each by itself; what they say together no rule of a definition can tell.
const WRONG: &str = r#"apiVersion: mainstay.dev/v1alpha1
kind: ToolRegistry
metadata: {name: desk}
spec:
  tools:
    - name: weather
      description: The weather of a city now.
      http: {method: GET, url: "https://api.example/v1?city={city}"}
      inputSchema: {type: nonsense, properties: {city: {type: string}}}
      effect: pure
"#;
/// What it needs may come later.
const EARLY: &str = "apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: early}
spec: {models: [later/gpt-5.1], instructions: You answer., tools: [later/search]}
";
const SAID: &str = "`inputSchema` needs `type: object`";

#[test]
fn what_nothing_could_run_is_refused_and_an_operator_that_is_away_holds_nobody_up() {
    let Some(cluster) = Cluster::find("admission") else {
        return;
    };
    let workspace = Workspace::start(cluster, "admission");
    let namespace = format!("--namespace={}", workspace.name());
    let apply = |text: &str| cluster.kubectl(&["apply", "--filename=-", &namespace], text);
    // The operator may just have been put there.
    let refused = until("somebody to be asked", BOUND, || {
        let dry = ["apply", "--dry-run=server", "--filename=-", &namespace];
        let refused = cluster.kubectl(&dry, WRONG);
        (refused.code != 0 && refused.stderr.contains(SAID)).then_some(refused)
    });
    assert_ne!(apply(WRONG).code, 0);
    let _early = apply(EARLY).expect_code(0);
    let none = cluster.operate(0);
    let _accepted = apply(WRONG).expect_code(0);
    drop(none);
    // The same words, without the webhook's own.
    let said = until("its status", BOUND, || {
        let registry = workspace.get(&["toolregistry", "desk"])?;
        let ready = condition(&registry, "Ready")?;
        (ready["reason"] == "Invalid").then(|| ready["message"].as_str().unwrap().to_owned())
    });
    assert!(refused.stderr.contains(&said), "{said}\n{}", refused.stderr);
}
