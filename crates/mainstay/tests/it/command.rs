//! Commands that need no hub.

use crate::house::House;

#[test]
fn every_help_has_an_example() {
    let house = House::new();
    let commands = [
        "demo",
        "up",
        "new",
        "new agent",
        "apply",
        "diff",
        "delete",
        "get",
        "describe",
        "schema",
        "run",
        "chat",
        "task",
        "task list",
        "task show",
        "task steps",
        "task cancel",
        "task retry",
        "task resume",
        "session",
        "session list",
        "session show",
        "session export",
        "session import",
        "logs",
        "events",
        "start",
        "stop",
        "restart",
        "log",
        "log head",
        "log show",
        "log verify",
        "log rebuild",
        "secret",
        "secret set",
        "secret list",
        "secret remove",
        "token",
        "doctor",
        "completions",
        "kubernetes",
        "kubernetes install",
        "kubernetes status",
        "kubernetes uninstall",
        "render",
        "hub",
        "runtime",
    ];
    for command in commands {
        let words: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let help = house.run(&words).expect(0).out;
        assert!(help.contains("Example"), "{command}: {help}");
        assert!(help.contains("--state"), "{command}: {help}");
    }
}

#[test]
fn the_schema_is_json_on_standard_output() {
    let schema = House::new().run(&["schema"]).expect(0).json();
    assert_eq!(schema["oneOf"].as_array().unwrap().len(), 5);
}

#[test]
fn completions_are_a_script() {
    assert!(
        House::new()
            .run(&["completions", "bash"])
            .expect(0)
            .out
            .contains("complete")
    );
}

#[test]
fn a_new_agent_is_a_manifest_that_is_right_and_never_written_over_another() {
    let house = House::new();
    house.write(
        "bot/agent.py",
        "import anthropic, os\nprint(os.environ['CITY'])\n",
    );
    let ran = house
        .run(&["new", "agent", "helper", "--", "python3", "bot/agent.py"])
        .expect(0);
    assert_eq!(ran.out, "helper.yaml\n");
    assert!(
        ran.err.contains("anthropic") && ran.err.contains("CITY"),
        "{}",
        ran.err
    );
    let text = std::fs::read_to_string(house.path("helper.yaml")).unwrap();
    assert!(
        text.contains("source: ./bot") && text.contains("[python3, agent.py]"),
        "{text}"
    );
    house.run(&["new", "agent", "helper"]).expect(2);
    assert_eq!(
        std::fs::read_to_string(house.path("helper.yaml")).unwrap(),
        text
    );
    house.run(&["new", "agent", "Bad_Name"]).expect(2);
    assert!(!ran.err.contains("is not there"), "{}", ran.err);
    let ran = house
        .run(&["new", "agent", "late", "--", "python3", "bot/later.py"])
        .expect(0);
    assert!(ran.err.contains("bot/later.py is not there"), "{}", ran.err);
}

#[test]
fn secrets_and_token_work_on_a_state_that_nobody_runs_and_values_are_never_shown() {
    let house = House::new();
    house
        .feed(&["secret", "set", "openai/apiKey"], "sk-very-secret\n")
        .expect(0);
    let list = house.run(&["secret", "list"]).expect(0);
    assert!(
        list.out.contains("apiKey") && !list.out.contains("very-secret"),
        "{list:?}"
    );
    let stored = std::fs::read(house.state().join("workspaces/default/secrets")).unwrap();
    assert!(!String::from_utf8_lossy(&stored).contains("very-secret"));
    assert!(house.run(&["token"]).expect(0).out.starts_with("mst_"));
    house.run(&["secret", "remove", "openai/apiKey"]).expect(0);
    house.run(&["secret", "remove", "openai/apiKey"]).expect(4);
    house.feed(&["secret", "set", "openai"], "x").expect(2);
    house
        .feed(&["secret", "set", "openai/apiKey"], "")
        .expect(2);
}

#[test]
fn doctor_finds_a_state_that_is_not_there_yet() {
    let ran = House::new().run(&["doctor", "-o", "json"]).expect(0).json();
    let checks: Vec<&str> = ran["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["check"].as_str().unwrap())
        .collect();
    for check in ["state", "disk", "isolation", "open files", "hub"] {
        assert!(checks.contains(&check), "{checks:?}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let house = House::new();
    let mut child = house
        .command(&["schema"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn asked_for_nothing_it_says_what_there_is_and_nothing_that_is_hidden() {
    let ran = House::new().run(&[]).expect(2);
    assert!(ran.out.is_empty(), "{ran:?}");
    assert!(
        ran.err.contains("\n  doctor ") && !ran.err.contains("demo-tools"),
        "{ran:?}"
    );
}
