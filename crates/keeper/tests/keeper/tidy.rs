//! Old generations, artifacts and what removed instances left go; what is in use stays.

use std::collections::BTreeSet;

use contract::keeper::ToKeeper;

use crate::fleet::{Fleet, exec_agent, wait_for};
use crate::{assign, attempt};

/// An agent whose code and manifest both say this number.
fn agent(n: u32) -> String {
    let with_source = format!("spec: {{source: ./code, env: {{N: \"{n}\"}}, ");
    exec_agent("a", "cat n").replace("spec: {", &with_source)
}

fn names(fleet: &Fleet, directory: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(fleet.state().join(directory)).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn the_last_ten_generations_and_pinned_ones_stay_with_their_code_and_nothing_else_does() {
    let mut fleet = Fleet::up(&exec_agent("b", "exit 0"));
    std::fs::create_dir(fleet.directory().join("code")).unwrap();
    for n in 2..=14 {
        std::fs::write(fleet.directory().join("code/n"), n.to_string()).unwrap();
        fleet.write("fleet.yaml", &agent(n));
        let number = format!("{n:03}");
        wait_for("the generation", || {
            names(&fleet, "generations").contains(&number).then_some(())
        });
    }
    assert_eq!(names(&fleet, "artifacts").len(), 13, "one for each code");
    // A crash between putting aside and taking apart.
    let left = fleet.state().join("artifacts/.old-left");
    std::fs::create_dir(&left).unwrap();
    let pins = ToKeeper::Pins {
        generations: vec![3],
    };
    wait_for("the rest to go", || {
        // The last generation may not be the current one at the first word.
        fleet.tell(&pins);
        (names(&fleet, "artifacts").len() == 11 && !left.exists()).then_some(())
    });
    let kept: BTreeSet<String> = (5..=14).chain([3]).map(|n| format!("{n:03}")).collect();
    wait_for("old generations to go", || {
        (names(&fleet, "generations") == kept).then_some(())
    });
    // The pinned code still runs, and a new keeper finds all that it needs.
    fleet.kill_keeper();
    fleet.start();
    fleet.tell(&pins);
    let mut hub = fleet.hub("a-0");
    // The shim may be asked before it is told of the pinned generation.
    let exit = (1..)
        .map(|n| {
            let mut order = assign(&format!("t{n}"), vec![attempt(1, "")]);
            if let contract::shim::ToShim::Assign { generation, .. } = &mut order {
                *generation = 3;
            }
            hub.send(&order);
            hub.ended(&format!("t{n}"), 1).0
        })
        .take(100)
        .find(|exit| exit.spawn_error.is_none());
    assert_eq!(exit.unwrap().stdout, "3");
}

#[test]
fn what_a_removed_instance_left_goes_once_the_hub_has_its_facts() {
    let two = [exec_agent("a", "exit 0"), exec_agent("b", "exit 0")].join("---\n");
    let fleet = Fleet::up(&two);
    let mut told = fleet.hub("a-0");
    let mut untold = fleet.hub("b-0");
    for hub in [&mut told, &mut untold] {
        hub.send(&assign("t", vec![attempt(1, "")]));
        hub.ended("t", 1);
    }
    told.acknowledge_all();
    fleet.write("fleet.yaml", &exec_agent("c", "exit 0"));
    let run = |name: &str| fleet.state().join("run").join(name);
    wait_for("both shims to leave", || {
        (!run("a-0.sock").exists() && !run("b-0.sock").exists()).then_some(())
    });
    wait_for("the scratch to go", || {
        (!run("home/a-0").exists() && !run("home/b-0").exists()).then_some(())
    });
    assert!(!run("a-0.spool").exists());
    assert!(run("b-0.spool").exists(), "the hub may still ask for it");
    assert!(fleet.state().join("logs/a-0").exists());
}
