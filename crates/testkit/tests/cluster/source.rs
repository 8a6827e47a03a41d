//! An agent's code: sent with its manifest, brought to its pods by hash, followed when it changes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use testkit::cluster::{Cluster, PATIENCE, Pod, Workspace};
use testkit::{processes, until};

use crate::world::{BOUND, submit};

const READER: &str = "reader";
/// Of a source that takes a while to send.
const LARGE_BYTES: u64 = 200 * 1024 * 1024;

/// A workspace, its agent, and the agent's code, in one directory.
struct Source {
    directory: tempfile::TempDir,
    workspace: Workspace,
}

impl Source {
    fn new(cluster: &'static Cluster, label: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let workspace = Workspace::unmade(cluster, label);
        let namespace = workspace.name();
        let image = &cluster.agent_image;
        let manifests = format!(
            "apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {{name: {READER}, namespace: {namespace}}}
spec:
  source: ./code
  image: {image}
  runtime: {{exec: {{command: [bin/steps, answer.txt]}}}}
---
apiVersion: mainstay.dev/v1alpha1
kind: Workspace
metadata: {{name: {namespace}}}
spec: {{description: {label}}}
"
        );
        let source = Self {
            directory,
            workspace,
        };
        fs::write(source.manifest(), manifests).unwrap();
        fs::create_dir_all(source.code("bin")).unwrap();
        let program = source.code("bin/steps");
        fs::copy(env!("CARGO_BIN_EXE_testkit-steps"), &program).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        source.answer("one");
        source
    }

    fn manifest(&self) -> PathBuf {
        self.directory.path().join("fleet.yaml")
    }

    fn code(&self, path: &str) -> PathBuf {
        self.directory.path().join("code").join(path)
    }

    fn answer(&self, text: &str) {
        fs::write(self.code("answer.txt"), text).unwrap();
    }

    /// `mainstay apply`, which says what it changed.
    fn apply(&self) -> String {
        let manifest = self.manifest();
        let apply = ["-n", self.workspace.name(), "apply"];
        let arguments = [&apply[..], &[manifest.to_str().unwrap()]].concat();
        let output = self.workspace.cluster.mainstay(&arguments);
        output.expect_code(0).stdout
    }

    fn annotation(&self) -> Value {
        let agent = self.workspace.get(&["agent", READER]).unwrap();
        agent["metadata"]["annotations"]["mainstay.dev/source"].clone()
    }

    /// What the agent says now.
    fn says(&self, expected: &str) {
        let client = self.workspace.client();
        let id = submit(&client, READER, &format!("what is {expected}?"));
        let task = client.reached(&id, &["completed", "failed"], BOUND);
        let task = task.unwrap_or_else(|why| panic!("{why}\n{}", self.workspace.describe()));
        assert_eq!(task["output"], expected, "{task}");
    }

    /// The one pod once it is ready and none of those.
    fn pod_after(&self, before: &[Pod]) -> Pod {
        until("a pod of the new source", PATIENCE, || {
            let pods = self.workspace.pods(READER);
            let is_new = |pod: &Pod| before.iter().all(|old| old.name != pod.name);
            match &pods[..] {
                [pod] if pod.ready && is_new(pod) => Some(pod.clone()),
                _ => None,
            }
        })
    }

    /// The hub's process, and where its artifacts are as this machine sees them.
    fn hub(&self) -> Option<(i32, PathBuf)> {
        let hub = self.workspace.hub_process()?;
        let root = format!("/proc/{hub}/root/var/lib/mainstay/artifacts");
        Some((hub, root.into()))
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().into_string().unwrap());
    names.collect()
}

#[test]
fn one_apply_brings_a_workspace_and_its_agents_code_and_the_next_one_what_changed() {
    let Some(cluster) = Cluster::find("a source") else {
        return;
    };
    let source = Source::new(cluster, "source");
    let said = source.apply();
    assert!(
        said.contains("+ Workspace") && said.contains("+ Agent"),
        "{said}"
    );
    source.says("one");
    let first = source.workspace.wait_pods(READER, 1);
    assert_eq!(source.apply(), "nothing changes\n");
    // Another hand with the same file: what was sent is still what runs.
    let sent = source.annotation();
    source
        .workspace
        .apply(&fs::read_to_string(source.manifest()).unwrap());
    assert_eq!(source.annotation(), sent);
    source.answer("two");
    let said = source.apply();
    assert!(said.contains("~ Agent"), "{said}");
    assert_ne!(source.annotation(), sent);
    let second = source.pod_after(&first);
    source.says("two");
    // The hub's next process has it as well.
    let (hub, _) = source.hub().unwrap();
    assert!(processes::kill(hub));
    source.workspace.kubectl(&["delete", "pod", &second.name]);
    let _ = source.pod_after(&[second]);
    let id = submit(&source.workspace.client(), READER, "once more");
    let task = source
        .workspace
        .client()
        .reached(&id, &["completed"], BOUND);
    assert_eq!(task.unwrap()["output"], "two");
}

#[test]
fn a_hub_that_is_killed_while_a_source_comes_keeps_nothing_of_it_and_takes_it_again() {
    let Some(cluster) = Cluster::find("a source that breaks off") else {
        return;
    };
    let source = Source::new(cluster, "upload");
    let large = fs::File::create(source.code("large")).unwrap();
    large.set_len(LARGE_BYTES).unwrap();
    let applied = std::thread::scope(|scope| {
        let applying = scope.spawn(|| source.apply());
        let kill = || {
            let (hub, artifacts) = source.hub()?;
            let is_coming = names(&artifacts)
                .iter()
                .any(|name| name.starts_with(".new-"));
            is_coming.then(|| processes::kill(hub))
        };
        let deadline = std::time::Instant::now() + PATIENCE;
        while !kill().unwrap_or(false) {
            assert!(
                !applying.is_finished(),
                "it was sent before the hub was killed"
            );
            assert!(std::time::Instant::now() < deadline, "nothing was sent");
            std::thread::sleep(Duration::from_millis(2));
        }
        applying.join().unwrap()
    });
    assert!(applied.contains("+ Agent"), "{applied}");
    source.says("one");
    let (_, artifacts) = source.hub().unwrap();
    let kept = names(&artifacts);
    let sent = source.annotation();
    let sent = sent.as_str().and_then(|sent| sent.split(' ').next());
    assert_eq!(kept, [sent.unwrap()], "only what is whole");
}
