//! What runs in an agent's pod, without Kubernetes: the real program as the first process, a hub's
//! door that the test plays, and every process killed in turn.

mod container;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use contract::pod::Purpose;
use contract::shim::{Fact, ToShim};
use rustix::process::Signal;

use crate::house::SOON;
use container::{AT_ONCE, As, Container, can_be_first, is_alive, kill};

fn sh(kind: &str, script: &str) -> serde_json::Value {
    serde_json::json!({"kind": kind, "command": ["sh", "-c", script]})
}

/// Both ways where this machine allows it.
fn ways() -> Vec<As> {
    if can_be_first() {
        return vec![As::Process, As::First];
    }
    eprintln!("left out: a pid namespace can't be made here");
    vec![As::Process]
}

#[test]
fn a_task_runs_to_its_answer_which_the_containers_output_shows_too() {
    for how in ways() {
        let script = "cat; echo \" $MAINSTAY_TOKEN $MAINSTAY_INSTANCE $(pwd)\"; echo why >&2; \
            cat token/token >&2; exit 0";
        let mut container = Container::start(how, sh("exec", script));
        let mut hub = container.hub();
        assert_eq!(hub.instance, "echo-x");
        hub.assign(1..=1);
        hub.started(1);
        let (_, exit) = hub.ended(1);
        assert_eq!(exit.code, Some(0), "{how:?} {exit:?}");
        assert!(
            exit.stdout.starts_with("input 1 token-1 echo-x /"),
            "{exit:?}"
        );
        assert!(container.said("stdout").ends_with(&exit.stdout), "{how:?}");
        let said = container.said("stderr");
        assert!(said.contains("--- attempt 1 of task t\nwhy\n"), "{said}");
        // What is in force is said in the next offers, and is in force.
        let offer = container.door.next(Purpose::Offer);
        let hidden = !exit.stderr_tail.contains("token\n");
        assert_eq!(
            hidden,
            offer.hello.isolation == "partial: landlock",
            "{exit:?}"
        );
    }
}

#[test]
fn a_killed_agent_is_back_in_milliseconds_and_the_pod_goes_on() {
    for how in ways() {
        let script = "test \"$MAINSTAY_TOKEN\" = token-4 || exec sleep 1000; echo done";
        let mut container = Container::start(how, sh("exec", script));
        let mut hub = container.hub();
        hub.assign(1..=4);
        hub.started(1);
        for number in 1..=3 {
            let agent = testkit::until("the agent", SOON, || container.agent());
            kill(agent, Signal::KILL);
            let (ended_ms, exit) = hub.ended(number);
            assert_eq!((exit.signal, exit.oom), (Some(9), false));
            let recovery_ms = hub.started(number + 1) - ended_ms;
            assert!(recovery_ms < 1000, "{how:?}: {recovery_ms} ms");
        }
        assert_eq!(hub.ended(4).1.stdout, "done\n");
    }
}

#[test]
fn a_killed_service_is_ready_again_in_milliseconds() {
    for how in ways() {
        let mut container = Container::start(how, sh("service", "echo >&3; exec sleep 1000"));
        let mut hub = container.hub();
        hub.tokens(1..=30);
        let mut recoveries = Vec::new();
        while recoveries.len() < 20 {
            match hub.fact().1 {
                Fact::ServiceReady { recovery_ms, .. } => {
                    recoveries.extend(recovery_ms);
                    kill(container.agent().unwrap(), Signal::KILL);
                }
                Fact::ServiceStarted { .. } | Fact::ServiceEnded { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        recoveries.sort_by(f64::total_cmp);
        let (median, most) = (recoveries[10], recoveries[19]);
        eprintln!("{how:?}: killed to ready: {median:.2} ms at the median, {most:.2} ms at most");
        assert!(median < 100.0, "{recoveries:?}");
    }
}

#[test]
fn an_agent_that_the_kernel_kills_for_want_of_memory_is_known_as_such() {
    let Some(group) = container::MemoryGroup::of_64_mib() else {
        eprintln!("left out: a memory cgroup can't be made here");
        return;
    };
    let script = "read go; exec tail /dev/zero";
    let mut container = Container::start(As::Process, sh("exec", script));
    group.take(container.supervisor);
    // The one that starts now is in the group, and reads the group's counters.
    kill(
        testkit::until("the shim", SOON, || container.shim()),
        Signal::KILL,
    );
    let mut hub = container.hub();
    hub.assign(1..=1);
    hub.started(1);
    let exit = hub.ended(1).1;
    assert_eq!((exit.signal, exit.oom), (Some(9), true), "{exit:?}");
    assert_eq!(container.hub().running, [], "the pod goes on");
}

#[test]
fn a_killed_relay_costs_connections_and_no_work() {
    for how in ways() {
        let script = "echo $OPENAI_BASE_URL >&2; exec sleep 1000";
        let mut container = Container::start(how, sh("exec", script));
        let mut hub = container.hub();
        hub.assign(1..=1);
        hub.started(1);
        let before = testkit::until("the relay", SOON, || container.relay());
        let agent = container.agent().unwrap();
        kill(before, Signal::KILL);
        let since = Instant::now();
        let mut hub = container.hub();
        assert!(since.elapsed() < AT_ONCE, "{:?}", since.elapsed());
        assert_eq!(hub.running.len(), 1);
        assert_eq!(container.agent(), Some(agent), "it ran on");
        assert_ne!(container.relay(), Some(before));
        // The gateway's port is the same, and the next relay serves it. An agent's variables are
        // an agent's to read: it is the first line that it printed.
        let said = container.said("stderr");
        let url = said
            .lines()
            .find(|line| line.starts_with("http://"))
            .unwrap();
        let gateway = url
            .strip_prefix("http://")
            .unwrap()
            .strip_suffix("/v1")
            .unwrap();
        let mut connection = TcpStream::connect(gateway).unwrap();
        connection.write_all(b"request").unwrap();
        let mut gateway = container.door.next(Purpose::Gateway);
        assert_eq!(gateway.read(7), b"request");
        gateway.welcome();
        gateway.write(b"answer");
        gateway.finish();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "answer");
        hub.send(&ToShim::EndTask {
            task: "t".to_owned(),
            grace_ms: 0,
        });
        // The start is told again if the word that it was heard had not arrived.
        let ended = testkit::until("the end", SOON, || match hub.fact().1 {
            Fact::AttemptEnded { exit, .. } => Some(exit),
            _ => None,
        });
        assert!(ended.asked);
    }
}

#[test]
fn a_killed_shim_takes_its_agents_with_it_and_the_next_one_says_so() {
    for how in ways() {
        // One that left its session and took off what it could be known by.
        let script = "env -i setsid sleep 1000 & exec sleep 1000";
        let mut container = Container::start(how, sh("exec", script));
        let mut hub = container.hub();
        hub.assign(1..=3);
        hub.started(1);
        let shim = container.shim().unwrap();
        let left = testkit::until("both processes", SOON, || {
            let agents = container::children(shim);
            let escaped = agents.first().map(|agent| container::children(*agent));
            let all: Vec<u32> = agents
                .into_iter()
                .chain(escaped.unwrap_or_default())
                .collect();
            (all.len() >= 2).then_some(all)
        });
        kill(shim, Signal::KILL);
        let since = Instant::now();
        let mut hub = container.hub();
        assert!(since.elapsed() < AT_ONCE, "{:?}", since.elapsed());
        let exit = testkit::until("the end", SOON, || match hub.fact().1 {
            Fact::AttemptEnded { exit, .. } => Some(exit),
            _ => None,
        });
        assert_eq!(exit.signal, Some(9));
        assert!(left.iter().all(|pid| !is_alive(*pid)), "{how:?}: {left:?}");
        assert!(container.relay().is_some());
        hub.assign(2..=3);
        hub.started(2);
    }
}

#[test]
fn told_to_end_it_lets_agents_finish_and_the_hub_hear_of_it() {
    for how in ways() {
        let script = "trap 'echo last words; exit 0' TERM; echo ready >&2; \
            while :; do sleep 0.05; done";
        let mut container = Container::start(how, sh("exec", script));
        let mut hub = container.hub();
        hub.assign(1..=1);
        hub.started(1);
        testkit::until("the agent listens", SOON, || {
            container.said("stderr").contains("ready\n").then_some(())
        });
        let offer = container.door.next(Purpose::Offer);
        assert!(!offer.hello.draining);
        testkit::until("the pod is ready", SOON, || {
            let ready = container.ask("/readyz");
            ready.starts_with("HTTP/1.1 200").then_some(())
        });
        container.signal(Signal::TERM);
        testkit::until("offers say so", SOON, || {
            let offer = container.door.next(Purpose::Offer);
            offer.hello.draining.then_some(())
        });
        let ready = container.ask("/readyz");
        assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("told to end"));
        assert!(container.ask("/livez").starts_with("HTTP/1.1 200"));
        let (_, exit) = hub.ended(1);
        assert_eq!((exit.code, exit.asked), (Some(0), true));
        assert_eq!(exit.stdout, "last words\n");
        let shim = container.shim();
        assert_eq!(container.ended(), Some(0), "{how:?}");
        assert!(shim.is_none_or(|shim| !is_alive(shim)));
        assert_eq!(container.said("termination"), "");
    }
}

#[test]
fn what_never_gets_going_ends_the_container_with_a_reason() {
    for how in ways() {
        let mut container = Container::start(how, sh("service", "echo no module >&2; exit 3"));
        let mut hub = container.hub();
        hub.tokens(1..=9);
        let mut ends = 0;
        while ends < 5 {
            ends += u32::from(matches!(hub.fact().1, Fact::ServiceEnded { .. }));
        }
        assert_eq!(container.ended(), Some(1), "{how:?}");
        let reason = container.said("termination");
        let wanted = "5 times in a row: sh ended with exit code 3 before it was ready: no module";
        assert!(reason.contains(wanted), "{reason}");
        assert!(container.said("stderr").contains(&reason), "{how:?}");
    }
}

#[test]
fn a_program_that_the_image_has_not_is_told_at_once() {
    for (program, place) in [
        ("no-such-agent", "looked in PATH, /"),
        ("./agent", "looked from /"),
    ] {
        let pod = serde_json::json!({"kind": "exec", "command": [program]});
        let mut container = Container::start(As::Process, pod);
        assert_eq!(container.ended(), Some(1));
        let reason = container.said("termination");
        assert!(
            reason.contains(program) && reason.contains(place),
            "{reason}"
        );
    }
}

#[test]
fn a_pod_that_names_no_pod_is_a_wrong_command() {
    let run = |pod: Option<&str>| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mainstay"));
        command.arg("shim").env_remove("MAINSTAY_POD");
        command.envs(pod.map(|pod| ("MAINSTAY_POD", pod)));
        let output = command.output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    for pod in [None, Some("{}")] {
        let (code, said) = run(pod);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("MAINSTAY_POD"), "{said}");
    }
}
