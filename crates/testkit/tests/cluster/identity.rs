//! Rights by kubectl are rights at a hub: who may see, who may run, who is nobody, and what is taken
//! away is gone.

use std::io::Read as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::cluster::{Cluster, Workspace};
use testkit::until;

use crate::world::BOUND;

const TELLER: &str = "teller";
/// How long a right that was taken may still be used.
const SOON: Duration = Duration::from_secs(10);

/// Kubeconfigs of people, gone with it.
struct People {
    cluster: &'static Cluster,
    folder: PathBuf,
}

impl People {
    fn new(cluster: &'static Cluster, workspace: &Workspace) -> Self {
        let folder = std::env::temp_dir().join(format!("people-{}", workspace.name()));
        std::fs::create_dir_all(&folder).unwrap();
        Self { cluster, folder }
    }

    /// A kubeconfig like the administrator's but with another user.
    fn kubeconfig(&self, name: &str, change: impl Fn(&mut Value)) -> String {
        let own = self
            .cluster
            .run(&["config", "view", "--raw", "--flatten", "--output=json"]);
        let mut config: Value = serde_json::from_str(&own).unwrap();
        change(&mut config["users"][0]["user"]);
        let path = self.folder.join(name);
        std::fs::write(&path, config.to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Somebody whom the API server takes for that user: it is told so by who may.
    fn user(&self, name: &str) -> String {
        self.kubeconfig(name, |user| {
            user["as"] = name.into();
            user["as-groups"] = json!(["system:authenticated"]);
        })
    }

    /// Somebody with nothing but a token.
    fn bearer(&self, name: &str, token: &str) -> String {
        self.kubeconfig(name, |user| *user = json!({ "token": token }))
    }
}

impl Drop for People {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.folder);
    }
}

fn scene(label: &str) -> Option<(Workspace, People)> {
    let cluster = Cluster::find(label)?;
    let workspace = Workspace::start(cluster, label);
    workspace.apply(&cluster.teller(TELLER, ""));
    let _pods = workspace.wait_pods(TELLER, 1);
    let people = People::new(cluster, &workspace);
    Some((workspace, people))
}

#[test]
fn who_may_see_sees_who_may_run_runs_and_a_stranger_is_told_why_not() {
    let Some((workspace, people)) = scene("identity") else {
        return;
    };
    let name = workspace.name();
    workspace.kubectl(&[
        "create",
        "rolebinding",
        "eve",
        "--clusterrole=view",
        "--user=eve",
    ]);
    let members = json!({"spec": {"members": [
        {"subject": "user:ada", "role": "operator"}, {"subject": "user:vic", "role": "viewer"},
    ]}});
    let patch = members.to_string();
    let patch = [
        "patch",
        "workspace",
        name,
        "--type=merge",
        "--patch",
        &patch,
    ];
    people.cluster.run(&patch);
    for (user, verb) in [("ada", "create"), ("vic", "get"), ("eve", "get")] {
        let user = format!("--as={user}");
        let namespace = format!("--namespace={name}");
        let may = [
            "auth",
            "can-i",
            verb,
            "agents.mainstay.dev",
            "--subresource=tasks",
        ];
        let may = [&may[..], &[&user, &namespace]].concat();
        until("the members' roles", BOUND, || {
            (people.cluster.kubectl(&may, "").code == 0).then_some(())
        });
    }
    let call = |config: &str, arguments: &[&str]| {
        let place = ["--kubeconfig", config, "--namespace", name];
        people.cluster.mainstay(&[&place[..], arguments].concat())
    };
    let ada = people.user("ada");
    let run = call(&ada, &["run", TELLER, "hello", "-o", "json"]).expect_code(0);
    let id = run.json()["id"].as_str().unwrap().to_owned();
    for viewer in ["eve", "vic"] {
        let config = people.user(viewer);
        let list = call(&config, &["task", "list", "-o", "json"]).expect_code(0);
        assert!(list.stdout.contains(&id), "{}", list.stdout);
        let refused = call(&config, &["run", TELLER, "hello"]).expect_code(5);
        let why = format!("user:{viewer} may not create agents.mainstay.dev/tasks");
        assert!(refused.stderr.contains(&why), "{}", refused.stderr);
        let _no_token = call(&config, &["token"]).expect_code(5);
        let _no_stop = call(&config, &["stop", TELLER]).expect_code(5);
    }
    // The log says who it was.
    let log = call(&ada, &["log", "show", "-o", "json"]).expect_code(0);
    assert!(log.stdout.contains("user:ada"), "{}", log.stdout);
    let _no_secrets = call(&ada, &["token"]).expect_code(5);
    let stranger = call(&people.user("mallory"), &["task", "list"]).expect_code(5);
    assert!(stranger.stderr.contains("members"), "{}", stranger.stderr);
    let wrong = people.bearer("nobody", "no-such-token");
    let _nobody = call(&wrong, &["task", "list"]).expect_code(5);
    // Nobody gets a token that says that he is another.
    let audience = format!("mainstay-hub.{name}");
    let forged = people.cluster.kubectl(
        &[
            "--as=ada",
            "create",
            "token",
            "mainstay-clients",
            "--namespace",
            name,
            "--audience",
            &audience,
            "--audience=user:admin",
        ],
        "",
    );
    assert_ne!(forged.code, 0, "{}", forged.stdout);
    assert!(
        forged.stderr.contains("says whose it is"),
        "{}",
        forged.stderr
    );
}

#[test]
fn a_right_that_is_taken_away_is_gone_within_seconds() {
    let Some((workspace, people)) = scene("taken") else {
        return;
    };
    let name = workspace.name();
    workspace.kubectl(&["create", "serviceaccount", "reader"]);
    let account = format!("--serviceaccount={name}:reader");
    let token = |audience: &str| {
        let made = workspace.kubectl(&["create", "token", "reader", "--audience", audience]);
        made.trim().to_owned()
    };
    let mut client = workspace.client();
    // Its own for the API server, where it is worth something, is refused here.
    client.token = token("https://kubernetes.default.svc.cluster.local");
    let answer = client.request("GET", "/api/v1/tasks").send().unwrap();
    assert_eq!(answer.status, 401, "{}", answer.text());
    assert!(answer.text().contains("--audience"), "{}", answer.text());
    client.token = token(&format!("mainstay-hub.{name}"));
    let status = |method: &str, path: &str| client.request(method, path).send().unwrap().status;
    assert_eq!(status("GET", "/api/v1/tasks"), 403);
    workspace.kubectl(&[
        "create",
        "rolebinding",
        "reader",
        "--clusterrole=view",
        &account,
    ]);
    until("the right", BOUND, || {
        (status("GET", "/api/v1/tasks") == 200).then_some(())
    });
    assert_eq!(status("GET", "/control/token"), 403);
    let events = client.request("GET", "/api/v1/events").timeout(3 * SOON);
    let (code, mut events) = events.stream().unwrap();
    assert_eq!(code, 200);
    let events = std::thread::spawn(move || {
        let mut read = Vec::new();
        let is_read = events.read_to_end(&mut read).is_ok();
        let has_ended = is_read && read.ends_with(b"0\r\n\r\n");
        (has_ended, Instant::now())
    });
    let asked = Instant::now();
    workspace.kubectl(&["delete", "rolebinding", "reader"]);
    let taken = Instant::now();
    until("the right's end", BOUND, || {
        (status("GET", "/api/v1/tasks") == 403).then_some(())
    });
    assert!(taken.elapsed() <= SOON, "{:?}", taken.elapsed());
    let (has_ended, at) = events.join().unwrap();
    assert!(!has_ended, "it was to be broken off");
    let after = at.checked_duration_since(asked);
    let after = after.expect("it broke off before the right was taken");
    assert!(after <= SOON + Duration::from_secs(4), "{after:?}");
    drop(people);
}
