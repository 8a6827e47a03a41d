//! Credentials that aren't there are told; a file that only root may read reaches the hub.

use std::os::unix::fs::PermissionsExt;

use contract::keeper::{Document, ToKeeper};

use crate::fleet::{Fleet, exec_agent, wait_for};

fn provider(name: &str, credential: &str) -> String {
    format!(
        "apiVersion: mainstay.dev/v1alpha1\nkind: Provider\nmetadata: {{name: {name}}}\nspec: {{type: openai, credential: {{{credential}}}}}\n"
    )
}

#[test]
fn what_a_fleet_needs_and_is_not_there_is_told_at_each_load_and_it_runs_all_the_same() {
    let agent = exec_agent("a", "exit 0").replace(
        "spec: {",
        "spec: {secretEnv: {TOKEN: {secretRef: {name: chat, key: token}}}, ",
    );
    let fleet = Fleet::up(&[provider("one", "env: NO_SUCH_VARIABLE"), agent].join("---\n"));
    let said = fleet.errors();
    for expected in [
        "warning: Provider/one: environment variable NO_SUCH_VARIABLE is not set",
        "warning: Agent/a: TOKEN is left out: secret chat/token is not set: pipe it to `mainstay secret set chat/token`",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    fleet.write("fleet.yaml", &provider("two", "file: key"));
    wait_for("the next load's warning", || {
        let said = fleet.errors();
        said.contains("warning: Provider/two: credential file")
            .then_some(())
    });
}

#[test]
fn a_credential_file_that_only_root_reads_reaches_the_hub_and_only_if_ups_own_manifests_name_it() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let fleet = Fleet::up(&exec_agent("a", "exit 0"));
    let secret = |name: &str, text: &str| {
        let path = fleet.directory().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    };
    secret("own", "first");
    let other = secret("other", "hidden");
    let own = [provider("own", "file: own"), exec_agent("a", "exit 0")].join("---\n");
    fleet.write("fleet.yaml", &own);
    let handed = || std::fs::read_to_string(fleet.state().join("system/handed")).ok();
    let holds = |text: &str| handed().filter(|handed| handed.contains(text));
    wait_for("the file's content", || holds("/own: first"));
    secret("own", "second");
    wait_for("its next content", || holds("/own: second"));
    let text = provider("applied", &format!("file: {}", other.display()));
    let apply = ToKeeper::Apply {
        request: 1,
        documents: vec![Document {
            path: "applied.yaml".to_owned(),
            text,
        }],
        dry_run: false,
    };
    let (problems, ..) = fleet.ask(&apply, 1);
    assert!(problems.is_empty(), "{problems:?}");
    secret("own", "third");
    wait_for("what follows the apply", || holds("/own: third"));
    assert!(holds("hidden").is_none(), "the hub could name any file");
}
