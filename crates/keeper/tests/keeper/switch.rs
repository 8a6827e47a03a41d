//! A new generation and the processes that run: those it wouldn't start are told, and replaced in
//! good order; all others stay.

use contract::shim::{Exit, Fact, Role, ServiceState, ServiceToken, ToShim};

use crate::fleet::{Fleet, Hub, service_agent, wait_for, with_stdio_server};

const SERVES: &str =
    "echo $MAINSTAY_TOKEN $WORD > $HOME/said; echo x >&$MAINSTAY_READY_FD; exec sleep 1000";

fn tokens(hub: &mut Hub, generation: u64, incarnations: std::ops::RangeInclusive<u32>, word: &str) {
    let tokens = incarnations.map(|incarnation| ServiceToken {
        incarnation,
        token: format!("token-{incarnation}"),
        env: [("WORD".to_owned(), word.to_owned())].into(),
    });
    hub.send(&ToShim::ServiceTokens {
        generation,
        tokens: tokens.collect(),
    });
}

fn ready(hub: &mut Hub) -> ServiceState {
    hub.service(|state| state.ready)
}

fn ended(hub: &mut Hub) -> (Exit, u64) {
    hub.fact(|fact| match fact {
        Fact::ServiceEnded { exit, delay_ms, .. } => Some((exit.clone(), *delay_ms)),
        _ => None,
    })
}

fn said(fleet: &Fleet) -> String {
    let file = fleet.state().join("run/home/s-0/home/said");
    std::fs::read_to_string(file).unwrap_or_default()
}

fn restart(hub: &mut Hub) {
    hub.send(&ToShim::RestartService { grace_ms: 2000 });
}

#[test]
fn a_service_whose_command_changed_runs_on_until_the_hub_says_so_and_is_then_another() {
    let fleet = Fleet::up(&service_agent("s", SERVES));
    let mut hub = fleet.hub("s-0");
    tokens(&mut hub, 1, 1..=3, "");
    let before = ready(&mut hub);
    assert_eq!((before.generation, before.outdated), (1, false));
    fleet.write(
        "fleet.yaml",
        &service_agent("s", &format!("echo new; {SERVES}")),
    );
    let told = hub.service(|state| state.generation == 2);
    assert_eq!(
        (told.pid, told.outdated, told.ready),
        (before.pid, true, true)
    );
    restart(&mut hub);
    let (exit, delay_ms) = ended(&mut hub);
    assert_eq!((exit.asked, delay_ms), (true, 0), "no crash, no wait");
    let after = ready(&mut hub);
    assert_eq!((after.incarnation, after.outdated), (2, false));
    wait_for("the new command's line", || {
        let log = fleet.state().join("logs/s-0/stdout.log");
        std::fs::read_to_string(log)
            .ok()?
            .contains("new")
            .then_some(())
    });
}

#[test]
fn what_does_not_touch_the_process_leaves_it_alone() {
    let manifest = service_agent("s", SERVES);
    let fleet = Fleet::up(&manifest);
    let mut hub = fleet.hub("s-0");
    tokens(&mut hub, 1, 1..=3, "");
    let before = ready(&mut hub);
    // A file beside the state changes the lists of what may be read, and no process.
    std::fs::write(fleet.directory().join("beside"), "").unwrap();
    let other = manifest.replace("grace: 2s", "grace: 3s");
    let other = other.replace(
        "spec: {",
        "spec: {budget: {task: {steps: 7}}, concurrency: 3, ",
    );
    fleet.write("fleet.yaml", &other);
    let told = hub.service(|state| state.generation == 2);
    assert_eq!((told.pid, told.outdated), (before.pid, false));
}

#[test]
fn another_port_env_or_secret_is_another_process() {
    let manifest = service_agent("s", SERVES).replace("spec: {", "spec: {A, ");
    let with = |field: &str| manifest.replace("{A, ", &format!("{{{field}, "));
    let secret = |name: &str| {
        with(&format!(
            "secretEnv: {{WORD: {{secretRef: {{name: {name}, key: k}}}}}}"
        ))
    };
    let fleet = Fleet::up(&with("env: {B: one}"));
    let mut hub = fleet.hub("s-0");
    tokens(&mut hub, 1, 1..=9, "");
    let first = ready(&mut hub);
    let changes = [with("env: {B: two}"), secret("one"), secret("two")];
    for (generation, manifest) in (2..).zip(&changes) {
        fleet.write("fleet.yaml", manifest);
        assert!(hub.service(|state| state.generation == generation).outdated);
        restart(&mut hub);
        assert!(!ready(&mut hub).outdated);
    }
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let with_port = format!("service: {{protocol: http, port: {port}, ");
    let manifest = secret("two").replace("service: {", &with_port);
    fleet.write("fleet.yaml", &manifest);
    let told = hub.service(|state| state.generation == 5);
    assert_eq!((told.outdated, told.port), (true, first.port));
    restart(&mut hub);
    assert_eq!(ready(&mut hub).port, Some(port));
}

#[test]
fn a_process_never_starts_with_the_secrets_of_an_older_generation() {
    let manifest = service_agent("s", SERVES);
    let secret = "spec: {secretEnv: {WORD: {secretRef: {name: n, key: k}}}, ";
    let manifest = manifest.replace("spec: {", secret);
    let fleet = Fleet::up(&manifest);
    let mut hub = fleet.hub("s-0");
    tokens(&mut hub, 1, 1..=3, "old");
    ready(&mut hub);
    assert_eq!(said(&fleet), "token-1 old\n");
    // A hub that knows of no process counts from the first one.
    tokens(&mut hub, 1, 1..=1, "new");
    restart(&mut hub);
    ended(&mut hub);
    ready(&mut hub);
    assert_eq!(said(&fleet), "token-2 new\n");
}

#[test]
fn a_stdio_server_is_replaced_when_its_command_changes_and_not_when_its_agent_does() {
    let script = "while read line; do echo \"one $line\"; done";
    let manifest = with_stdio_server(script);
    let fleet = Fleet::up(&manifest);
    let instance = fleet.instance("desk-files-0");
    let mut hub = fleet.hub("desk-files-0");
    let pid = hub.fact(|fact| match fact {
        Fact::ServiceStarted { pid, .. } => Some(*pid),
        _ => None,
    });
    let mut bridge = Hub::connect(&instance.socket, Role::Bridge).into_lines();
    assert_eq!(bridge.ask("a"), Some("one a".to_owned()));
    std::fs::write(fleet.directory().join("beside"), "").unwrap();
    let agent = manifest.replace("grace: 2s", "grace: 3s");
    fleet.write("fleet.yaml", &agent);
    wait_for("the generation", || {
        fleet.state().join("generations/002").exists().then_some(())
    });
    fleet.write("fleet.yaml", &agent.replace("one $line", "two $line"));
    let (exit, _) = ended(&mut hub);
    assert!(exit.asked);
    let next = hub.fact(|fact| match fact {
        Fact::ServiceStarted { incarnation, pid } => Some((*incarnation, *pid)),
        _ => None,
    });
    // The second process, so the agent's change started none.
    assert_eq!(next.0, 2);
    assert_ne!(next.1, pid);
    let mut bridge = Hub::connect(&instance.socket, Role::Bridge).into_lines();
    assert_eq!(bridge.ask("b"), Some("two b".to_owned()));
}
