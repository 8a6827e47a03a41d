//! The keeper against real processes: agents are shell scripts, the hub a stand-in.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and writes what an operator would"
)]

mod credential;
mod fleet;
mod idle;
mod reach;
mod save;
mod switch;
mod tidy;

use std::time::{Duration, Instant};

use contract::keeper::ToKeeper;
use contract::shim::{Attempt, Fact, FromShim, Role, ServiceToken, ToShim};
use fleet::{Fleet, Hub, exec_agent, wait_for};

fn attempt(number: u32, stdin: &str) -> Attempt {
    Attempt {
        number,
        token: format!("token-{number}"),
        stdin: stdin.to_owned(),
        env: [
            ("MAINSTAY_TASK_ID".to_owned(), "t".to_owned()),
            ("EVIL".to_owned(), "x".to_owned()),
        ]
        .into(),
    }
}

fn assign(task: &str, attempts: Vec<Attempt>) -> ToShim {
    ToShim::Assign {
        task: task.to_owned(),
        generation: 1,
        attempts,
        hold_restart: false,
    }
}

fn end(task: &str, grace_ms: u64) -> ToShim {
    ToShim::EndTask {
        task: task.to_owned(),
        grace_ms,
    }
}

#[test]
fn an_attempt_reads_its_input_and_its_answer_is_kept_until_acknowledged() {
    let fleet = Fleet::up(&exec_agent(
        "echo",
        "cat; echo \" $MAINSTAY_TOKEN [$EVIL] $MAINSTAY_TASK_ID\"; echo why >&2",
    ));
    let mut hub = fleet.hub("echo-0");
    hub.send(&assign("t", vec![attempt(1, "hello")]));
    let pid = hub.started("t", 1);
    assert!(pid > 0);
    let (exit, will_restart, _) = hub.ended("t", 1);
    assert_eq!((exit.code, will_restart), (Some(0), false));
    assert_eq!(exit.stdout, "hello token-1 [] t\n");
    assert_eq!(exit.stderr_tail, "why\n");
    // A hub that died before its log had it is told again, and asking twice runs nothing twice.
    let mut hub = fleet.hub("echo-0");
    hub.send(&assign("t", vec![attempt(1, "hello")]));
    hub.started("t", 1);
    hub.ended("t", 1);
    hub.acknowledge_all();
    let mut hub = fleet.hub("echo-0");
    hub.send(&assign("t", vec![attempt(2, "again")]));
    hub.started("t", 2);
    assert_eq!(hub.ended("t", 2).0.stdout, "again token-2 [] t\n");
    let log = std::fs::read_to_string(fleet.state().join("logs/echo-0/stdout.log")).unwrap();
    assert!(log.contains("--- attempt 2 of task t\nagain"), "{log}");
}

#[test]
fn a_killed_agent_goes_on_with_the_next_token_at_once() {
    let fleet = Fleet::up(&exec_agent("a", "echo $MAINSTAY_TOKEN; sleep 1000"));
    let mut hub = fleet.hub("a-0");
    hub.send(&assign("t", vec![attempt(1, ""), attempt(2, "")]));
    let pid = hub.started("t", 1);
    let before = Instant::now();
    fleet.kill(pid);
    let (exit, will_restart, delay_ms) = hub.ended("t", 1);
    assert_eq!((exit.signal, exit.asked, exit.oom), (Some(9), false, false));
    assert_eq!((will_restart, delay_ms), (true, 0));
    hub.started("t", 2);
    assert!(
        before.elapsed() < Duration::from_secs(1),
        "{:?}",
        before.elapsed()
    );
    let log = fleet.state().join("logs/a-0/stdout.log");
    wait_for("its first line", || {
        let text = std::fs::read_to_string(&log).ok()?;
        text.contains("token-2").then_some(())
    });
    hub.send(&end("t", 5000));
    let (exit, will_restart, _) = hub.ended("t", 2);
    assert_eq!((exit.asked, will_restart), (true, false));
    assert_eq!(exit.stdout, "token-2\n");
}

#[test]
fn final_and_held_ends_start_nothing() {
    let fleet = Fleet::up(&exec_agent("a", "read code; exit $code"));
    let mut hub = fleet.hub("a-0");
    hub.send(&assign(
        "final",
        vec![attempt(1, "78\n"), attempt(2, "78\n")],
    ));
    hub.started("final", 1);
    let (exit, will_restart, _) = hub.ended("final", 1);
    assert_eq!((exit.code, will_restart), (Some(78), false));
    hub.send(&ToShim::Assign {
        task: "held".to_owned(),
        generation: 1,
        attempts: vec![attempt(1, "1\n"), attempt(2, "1\n")],
        hold_restart: true,
    });
    hub.started("held", 1);
    let (exit, will_restart, _) = hub.ended("held", 1);
    assert_eq!((exit.code, will_restart), (Some(1), false));
    // An attempt that was prepared but never ran may be asked for anew.
    hub.send(&assign("held", vec![attempt(2, "0\n")]));
    hub.started("held", 2);
    assert_eq!(hub.ended("held", 2).0.code, Some(0));
}

#[test]
fn a_program_that_is_not_there_is_explained() {
    let fleet = Fleet::up(
        "apiVersion: mainstay.dev/v1alpha1\nkind: Agent\nmetadata: {name: a}\nspec: {runtime: {exec: {command: [no-such-program]}}}\n",
    );
    let mut hub = fleet.hub("a-0");
    hub.send(&assign("t", vec![attempt(1, "")]));
    let (exit, will_restart, _) = hub.ended("t", 1);
    assert!(!will_restart);
    let reason = exit.spawn_error.unwrap();
    assert!(
        reason.contains("no-such-program is in no directory of PATH: install it"),
        "{reason}"
    );
}

#[test]
fn an_agent_that_ignores_term_and_double_forks_is_ended_whole() {
    let script = "trap '' TERM; setsid sh -c 'trap \"\" TERM; echo $$ > $HOME/pid; env -i sleep 1000' </dev/null >/dev/null 2>&1 & wait; sleep 1000";
    let fleet = Fleet::up(&exec_agent("a", script));
    let mut hub = fleet.hub("a-0");
    hub.send(&assign("t", vec![attempt(1, "")]));
    let pid = hub.started("t", 1);
    let file = fleet.state().join("run/home/a-0/home/pid");
    let grandchild: u32 = wait_for("the grandchild", || {
        std::fs::read_to_string(&file).ok()?.trim().parse().ok()
    });
    hub.send(&end("t", 100));
    let (exit, _, _) = hub.ended("t", 1);
    assert_eq!((exit.asked, exit.signal), (true, Some(9)));
    // Gone before it was told.
    assert!(!fleet::is_alive(pid) && !fleet::is_alive(grandchild));
}

#[test]
fn tasks_side_by_side_end_without_each_other() {
    let script = "setsid sh -c 'echo $$ > $HOME/pid; exec sleep 1000' & sleep 1000";
    let manifest = exec_agent("a", script).replace("spec: {", "spec: {concurrency: 2, ");
    let fleet = Fleet::up(&manifest);
    let mut hub = fleet.hub("a-0");
    let with_token = |token: &str| Attempt {
        token: token.to_owned(),
        ..attempt(1, "")
    };
    hub.send(&assign("one", vec![with_token("token-one")]));
    let one = hub.started("one", 1);
    hub.send(&assign("two", vec![with_token("token-two")]));
    let two = hub.started("two", 1);
    let grandchild = |home: &str| -> u32 {
        let file = fleet.state().join("run/home/a-0").join(home).join("pid");
        wait_for("a grandchild", || {
            std::fs::read_to_string(&file).ok()?.trim().parse().ok()
        })
    };
    let (child_one, child_two) = (grandchild("home"), grandchild("home-1"));
    hub.send(&end("one", 1000));
    hub.ended("one", 1);
    assert!(!fleet::is_alive(one) && !fleet::is_alive(child_one));
    assert!(fleet::is_alive(two) && fleet::is_alive(child_two));
    hub.send(&end("two", 1000));
    hub.ended("two", 1);
    assert!(!fleet::is_alive(two) && !fleet::is_alive(child_two));
}

#[test]
fn what_outlives_a_finished_attempt_is_ended_before_the_next() {
    let script = "setsid sh -c 'echo $$ > $HOME/../pid-file; exec sleep 1000' >/dev/null 2>&1 & while ! [ -s $HOME/../pid-file ]; do sleep 0.01; done; exit 0";
    let script = script.replace("$HOME/../pid-file", "/tmp/$MAINSTAY_TOKEN.pid");
    let token = format!("left-{}", std::process::id());
    let fleet = Fleet::up(&exec_agent("a", &script));
    let mut hub = fleet.hub("a-0");
    hub.send(&assign(
        "t",
        vec![Attempt {
            token: token.clone(),
            ..attempt(1, "")
        }],
    ));
    hub.started("t", 1);
    assert_eq!(hub.ended("t", 1).0.code, Some(0));
    let file = format!("/tmp/{token}.pid");
    let left: u32 = std::fs::read_to_string(&file)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    std::fs::remove_file(file).unwrap();
    assert!(!fleet::is_alive(left));
}

#[test]
fn endless_output_costs_bounded_memory_and_disk() {
    let fleet = Fleet::up(&exec_agent("a", "yes >&2"));
    let mut hub = fleet.hub("a-0");
    hub.send(&assign("t", vec![attempt(1, "")]));
    hub.started("t", 1);
    let logs = fleet.state().join("logs/a-0");
    wait_for("the log to be rotated", || {
        logs.join("stderr.log.1").exists().then_some(())
    });
    hub.send(&end("t", 0));
    let (exit, _, _) = hub.ended("t", 1);
    assert!(!exit.stdout_truncated);
    let bytes: u64 = std::fs::read_dir(&logs)
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(bytes <= 42 * 1024 * 1024, "{bytes}");
    let shim = fleet.instance("a-0").shim_pid;
    assert!(
        fleet::peak_kib(shim) < 128 * 1024,
        "{} KiB",
        fleet::peak_kib(shim)
    );
}

#[test]
fn an_answer_without_end_ends_its_process_and_is_not_tried_again() {
    let fleet = Fleet::up(&exec_agent("a", "yes"));
    let mut hub = fleet.hub("a-0");
    hub.send(&assign("t", vec![attempt(1, ""), attempt(2, "")]));
    hub.started("t", 1);
    let (exit, will_restart, _) = hub.ended("t", 1);
    assert_eq!((exit.stdout_truncated, will_restart), (true, false));
    assert_eq!(exit.stdout.len(), 8 * 1024 * 1024);
}

#[test]
fn an_agent_that_never_reads_a_large_input_just_ends() {
    let fleet = Fleet::up(&exec_agent("a", "exit 0"));
    let mut hub = fleet.hub("a-0");
    hub.send(&assign("t", vec![attempt(1, &"x".repeat(4 * 1024 * 1024))]));
    hub.started("t", 1);
    assert_eq!(hub.ended("t", 1).0.code, Some(0));
}

#[test]
fn a_killed_shim_is_replaced_and_hands_in_what_it_had() {
    let fleet = Fleet::up(&exec_agent(
        "a",
        "read word; if [ $word = stay ]; then sleep 1000; fi; echo $word",
    ));
    let mut hub = fleet.hub("a-0");
    hub.send(&assign("done", vec![attempt(1, "answer\n")]));
    hub.started("done", 1);
    hub.ended("done", 1);
    hub.send(&assign("open", vec![attempt(1, "stay\n")]));
    let pid = hub.started("open", 1);
    // A hub that has the start in its log still has to hear of the end.
    hub.acknowledge_last();
    let shim = fleet.instance("a-0").shim_pid;
    fleet.kill(shim);
    wait_for("another shim", || {
        (fleet.instance("a-0").shim_pid != shim).then_some(())
    });
    assert!(!fleet::is_alive(pid), "what a killed shim leaves is ended");
    let mut hub = fleet.hub("a-0");
    hub.started("done", 1);
    assert_eq!(hub.ended("done", 1).0.stdout, "answer\n");
    let (exit, will_restart, _) = hub.ended("open", 1);
    assert_eq!(
        (exit.signal, exit.oom, exit.spawn_error, will_restart),
        (Some(9), false, None, false)
    );
    hub.send(&assign("open", vec![attempt(2, "again\n")]));
    hub.started("open", 2);
    assert_eq!(hub.ended("open", 2).0.stdout, "again\n");
}

#[test]
fn a_new_keeper_adopts_the_shims_of_a_killed_one() {
    let mut fleet = Fleet::up(&exec_agent("a", "sleep 1000"));
    let mut hub = fleet.hub("a-0");
    hub.send(&assign("t", vec![attempt(1, ""), attempt(2, "")]));
    let pid = hub.started("t", 1);
    let before = fleet.instance("a-0");
    let old_hub = fleet.client();
    fleet.kill_keeper();
    wait_for("the old hub to end", || {
        (!fleet::is_alive(old_hub)).then_some(())
    });
    fleet.start();
    let after = fleet.instance("a-0");
    assert_eq!(before, after);
    assert!(fleet::is_alive(pid));
    assert_ne!(old_hub, fleet.client());
    let mut hub = fleet.hub("a-0");
    hub.started("t", 1);
    fleet.kill(pid);
    hub.ended("t", 1);
    hub.started("t", 2);
    // The adopted shim dies too: what it leaves is found although it isn't the keeper's child.
    let pid = hub.running()[0].pid;
    fleet.kill(after.shim_pid);
    wait_for("another shim", || {
        (fleet.instance("a-0").shim_pid != after.shim_pid).then_some(())
    });
    assert!(!fleet::is_alive(pid));
    assert_eq!(fleet.instance("a-0").gateway_port, before.gateway_port);
}

#[test]
fn a_connection_made_while_no_hub_runs_is_served_by_the_next() {
    let fleet = Fleet::up(&exec_agent("a", "exit 0"));
    for _ in 0..3 {
        let hub = fleet.client();
        fleet.kill(hub);
        // Else it may still take the connection with it into its grave.
        wait_for("its end", || (!fleet::is_alive(hub)).then_some(()));
        assert_ne!(fleet.client(), hub);
    }
    let said = "mainstay: the hub ended by SIGKILL and is started again";
    assert_eq!(
        fleet.errors().matches(said).count(),
        3,
        "{}",
        fleet.errors()
    );
}

#[test]
fn without_a_hub_for_long_connections_are_refused_and_the_port_comes_back() {
    let fleet = Fleet::up(&exec_agent("a", "exit 0"));
    let gateway = format!("127.0.0.1:{}", fleet.instance("a-0").gateway_port);
    let fail = fleet.state().join("system/fail");
    std::fs::write(&fail, "").unwrap();
    fleet.kill(fleet.client());
    for address in [&fleet.address, &gateway] {
        wait_for("a refusal", || {
            std::net::TcpStream::connect(address).is_err().then_some(())
        });
    }
    std::fs::remove_file(fail).unwrap();
    for address in [&fleet.address, &gateway] {
        wait_for("the port again", || {
            std::net::TcpStream::connect(address).ok()
        });
    }
    assert!(fleet::is_alive(fleet.client()));
    assert!(fleet.state().join("run/control.sock").exists());
}

#[test]
fn the_end_of_up_leaves_nothing_behind() {
    let script = "setsid sh -c 'sleep 1000' & sleep 1000";
    let mut fleet = Fleet::up(&exec_agent("a", script));
    let mut hub = fleet.hub("a-0");
    hub.send(&assign("t", vec![attempt(1, "")]));
    let agent = hub.started("t", 1);
    let pids = [agent, fleet.instance("a-0").shim_pid, fleet.client()];
    let family = wait_for("the sleepers", || {
        Some(fleet.family()).filter(|family| family.len() >= 5)
    });
    assert_eq!(fleet.terminate(15), Some(0));
    for pid in family.into_iter().chain(pids) {
        assert!(!fleet::is_alive(pid), "{pid}");
    }
    assert!(!fleet.state().join("run/control.sock").exists());
    fleet.start();
    let mut hub = fleet.hub("a-0");
    hub.started("t", 1);
    assert!(
        hub.ended("t", 1).0.asked,
        "the fact waited for the next hub"
    );
    assert_eq!(fleet.terminate(2), Some(130));
}

#[test]
fn a_second_keeper_a_busy_port_and_a_wrong_manifest_get_a_sentence() {
    let fleet = Fleet::up(&exec_agent("a", "exit 0"));
    let (code, errors) = fleet.another(&fleet.state(), "127.0.0.1:0");
    assert_eq!(code, Some(1));
    assert!(
        errors.contains(&format!(
            "is in use by the keeper with pid {}",
            fleet.keeper_pid()
        )),
        "{errors}"
    );
    let other = fleet.directory().join("other");
    let (code, errors) = fleet.another(&other, &fleet.address);
    assert_eq!(code, Some(1));
    assert!(
        errors.contains("choose another address with --listen"),
        "{errors}"
    );
    fleet.write(
        "fleet.yaml",
        &exec_agent("a", "exit 0").replace("runtime", "runtim"),
    );
    let (code, errors) = fleet.another(&fleet.directory().join("third"), "127.0.0.1:0");
    assert_eq!(code, Some(3));
    assert!(
        errors.contains("fleet.yaml:") && errors.contains("runtime"),
        "{errors}"
    );
    std::fs::write(other.join("VERSION"), "99\n").unwrap();
    fleet.write("fleet.yaml", &exec_agent("a", "exit 0"));
    let (code, errors) = fleet.another(&other, "127.0.0.1:0");
    assert_eq!(code, Some(1));
    assert!(errors.contains("format 99, newer than"), "{errors}");
}

#[test]
fn a_hub_that_cannot_start_ends_up_with_its_code() {
    let (code, errors) = fleet::up_with_broken_hub(5);
    assert_eq!(code, Some(5), "{errors}");
}

#[test]
fn a_broken_save_keeps_what_runs_and_a_good_one_replaces_it() {
    let fleet = Fleet::up(&exec_agent("a", "exit 0"));
    let shim = fleet.instance("a-0").shim_pid;
    fleet.write(
        "fleet.yaml",
        "apiVersion: mainstay.dev/v1alpha1\nkind: Agnt\n",
    );
    wait_for("the complaint", || {
        fleet
            .errors()
            .contains("what runs keeps running")
            .then_some(())
    });
    assert_eq!(fleet.instance("a-0").shim_pid, shim);
    let two = format!(
        "{}---\n{}",
        exec_agent("a", "exit 0"),
        exec_agent("b", "exit 0")
    );
    fleet.write("fleet.yaml", &two);
    fleet.instance("b-0");
    assert_eq!(
        fleet.instance("a-0").shim_pid,
        shim,
        "an unchanged agent keeps its process"
    );
    fleet.write("fleet.yaml", &exec_agent("b", "exit 0"));
    wait_for("the agent to go", || {
        fleet
            .instances()
            .iter()
            .all(|instance| instance.name != "a-0")
            .then_some(())
    });
    wait_for("its shim to go", || (!fleet::is_alive(shim)).then_some(()));
}

#[test]
fn apply_adds_beside_the_directory_and_never_over_it() {
    let fleet = Fleet::up(&exec_agent("a", "exit 0"));
    let document = |name: &str, script: &str| contract::keeper::Document {
        path: "/elsewhere/b.yaml".to_owned(),
        text: exec_agent(name, script),
    };
    let apply = |request, document, dry_run| ToKeeper::Apply {
        request,
        documents: vec![document],
        dry_run,
    };
    let answer = fleet.ask(&apply(1, document("a", "exit 1"), false), 1);
    assert!(
        answer.0[0].contains("Agent a belongs to") && answer.0[0].contains("fleet.yaml"),
        "{answer:?}"
    );
    let answer = fleet.ask(&apply(2, document("b", "exit 0"), true), 2);
    assert_eq!(answer, (vec![], vec!["+ Agent b".to_owned()], None));
    let answer = fleet.ask(&apply(3, document("b", "exit 0"), false), 3);
    assert_eq!(answer.2, Some(2), "{answer:?}");
    fleet.instance("b-0");
    let delete = ToKeeper::Delete {
        request: 4,
        objects: vec![("Agent".to_owned(), "b".to_owned())],
        dry_run: false,
    };
    let answer = fleet.ask(&delete, 4);
    assert_eq!(answer.1, ["- Agent b"]);
    wait_for("the agent to go", || {
        fleet
            .instances()
            .iter()
            .all(|instance| instance.name != "b-0")
            .then_some(())
    });
}

#[test]
fn all_objects_of_an_applied_file_count_and_problems_show_the_file() {
    let fleet = Fleet::up(&exec_agent("a", "exit 0"));
    let apply = |request, text: String| ToKeeper::Apply {
        request,
        documents: vec![contract::keeper::Document {
            path: "/elsewhere/b.yaml".to_owned(),
            text,
        }],
        dry_run: false,
    };
    let both = |first: &str, second: &str| {
        format!(
            "{}---\n{}",
            exec_agent(first, "exit 0"),
            exec_agent(second, "exit 0")
        )
    };
    let answer = fleet.ask(&apply(1, both("b", "b")), 1);
    assert!(
        answer.0[0].contains("/elsewhere/b.yaml:8:") && answer.0[0].contains("written twice"),
        "{answer:?}"
    );
    let answer = fleet.ask(&apply(2, both("b", "c")), 2);
    assert_eq!(answer.1, ["+ Agent b", "+ Agent c"], "{answer:?}");
    // What the file no longer holds stays until it is deleted.
    let answer = fleet.ask(&apply(3, exec_agent("b", "exit 1")), 3);
    assert_eq!(answer.1, ["~ Agent b (spec.runtime)"], "{answer:?}");
    fleet.instance("b-0");
    fleet.instance("c-0");
}

#[test]
fn a_service_is_ready_by_its_byte_and_back_at_once_after_each_kill() {
    let fleet = Fleet::up(&fleet::service_agent(
        "s",
        "echo x >&$MAINSTAY_READY_FD; exec sleep 1000",
    ));
    let mut hub = fleet.hub("s-0");
    let tokens = (1..=20).map(|incarnation| ServiceToken {
        incarnation,
        token: format!("token-{incarnation}"),
        env: Default::default(),
    });
    hub.send(&ToShim::ServiceTokens {
        generation: 1,
        tokens: tokens.collect(),
    });
    for incarnation in 1..=10 {
        let pid = hub.fact(|fact| match fact {
            Fact::ServiceStarted {
                incarnation: found,
                pid,
            } if *found == incarnation => Some(*pid),
            _ => None,
        });
        let recovery = hub.fact(|fact| match fact {
            Fact::ServiceReady {
                incarnation: found,
                recovery_ms,
            } if *found == incarnation => Some(*recovery_ms),
            _ => None,
        });
        assert_eq!(recovery.is_some(), incarnation > 1);
        assert!(recovery.is_none_or(|ms| ms < 500.0), "{recovery:?}");
        fleet.kill(pid);
        let delay = hub.fact(|fact| match fact {
            Fact::ServiceEnded {
                incarnation: found,
                delay_ms,
                ..
            } if *found == incarnation => Some(*delay_ms),
            _ => None,
        });
        assert_eq!(delay, 0);
    }
}

#[test]
fn a_stdio_server_is_bridged_by_lines_and_its_death_closes_the_bridge() {
    let fleet = Fleet::up(&fleet::with_stdio_server(
        "while read line; do echo \"got $line\"; done",
    ));
    let instance = fleet.instance("desk-files-0");
    assert_eq!(instance.owner, "desk/files");
    let pid = fleet.hub("desk-files-0").fact(|fact| match fact {
        Fact::ServiceStarted { pid, .. } => Some(*pid),
        _ => None,
    });
    let mut bridge = Hub::connect(&instance.socket, Role::Bridge).into_lines();
    assert_eq!(bridge.ask("one"), Some("got one".to_owned()));
    // Half a line of a hub that dies reaches nobody.
    bridge.write("hal");
    drop(bridge);
    let mut bridge = Hub::connect(&instance.socket, Role::Bridge).into_lines();
    assert_eq!(bridge.ask("two"), Some("got two".to_owned()));
    fleet.kill(pid);
    assert_eq!(bridge.ask("three"), None);
    let mut bridge = wait_for("the next server", || {
        let mut bridge = Hub::connect(&instance.socket, Role::Bridge).into_lines();
        (bridge.ask("four")? == "got four").then_some(bridge)
    });
    assert_eq!(bridge.ask("five"), Some("got five".to_owned()));
}

#[test]
fn an_agent_cannot_read_the_state_nor_talk_to_its_shim() {
    for uid in fleet::users() {
        let script = "id -u; cat $STATE/key $STATE/run/a-0.spool $STATE/instances.json 2>/dev/null; ls $STATE/generations 2>/dev/null; kill -9 $PPID 2>/dev/null || echo alive";
        let fleet = Fleet::up_as(
            &exec_agent("a", "read STATE; ")
                .replace("read STATE; ", &format!("read STATE; {script}")),
            uid,
        );
        let mut hub = fleet.hub("a-0");
        hub.send(&assign(
            "t",
            vec![attempt(1, &format!("{}\n", fleet.state().display()))],
        ));
        hub.started("t", 1);
        let (exit, _, _) = hub.ended("t", 1);
        let isolation = fleet.instance("a-0").isolation;
        match uid {
            None => {
                assert_eq!(isolation, "partial: uid");
                assert_eq!(exit.stdout, format!("{}\nalive\n", fleet.first_agent()));
            }
            Some(uid) if isolation == "partial: landlock" => {
                assert_eq!(exit.stdout, format!("{uid}\nalive\n"));
            }
            Some(_) => assert_eq!(isolation, "none"),
        }
    }
}

#[test]
fn the_shim_says_hello_with_what_runs() {
    let fleet = Fleet::up(&exec_agent("a", "sleep 1000"));
    let mut hub = fleet.hub("a-0");
    hub.send(&assign("t", vec![attempt(1, "")]));
    let pid = hub.started("t", 1);
    let hub = fleet.hub("a-0");
    let FromShim::Hello {
        instance,
        running,
        service,
        ..
    } = hub.hello()
    else {
        panic!("a hello comes first");
    };
    assert_eq!(
        (instance.as_str(), running[0].pid, service),
        ("a-0", pid, None)
    );
}
