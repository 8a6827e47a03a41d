//! A session moves from one home to another and back, and nothing is done twice.

use std::path::Path;
use std::time::Duration;

use api::fleet::Fleet;
use bytes::Bytes;
use contract::shim::{Exit, ToShim};
use hub::caller::Caller;
use hub::session::{check, file};
use hub::step::{Effect, Settled, StepTurn};
use hub::tally::Tally;
use hub::task::SubmitTask;
use hub::view::ImportView;
use hub::{Code, Hub, HubError};
use mainstay_core::usage::Cost;
use serde_json::json;
use tempfile::TempDir;

use crate::home::{Home, WAIT, exited, finish, fleet, model, tool, work};
use crate::rig::fold;

fn turn(input: &str) -> SubmitTask {
    SubmitTask {
        session: Some("order-7".into()),
        ..work(input)
    }
}

async fn export(hub: &Hub) -> Result<Vec<u8>, HubError> {
    hub.session_export("order-7", "owner").await
}

async fn import(hub: &Hub, file: &[u8]) -> Result<ImportView, HubError> {
    hub.session_import(Bytes::copy_from_slice(file), "owner")
        .await
}

/// Tasks of the agent that ask a person, as whoever scales it counts them.
async fn asking(home: &Home) -> u32 {
    home.hub.loads().await.unwrap()["helper"].asking
}

/// Ends a home and holds its log against itself.
async fn whole(home: Home, state: &Path) {
    home.end().await;
    let log = state.join("workspaces/default");
    store::verify(&log, &store::VerifyOptions::default()).unwrap();
    fold::rows_are_what_the_entries_say(&log);
}

/// A state, a hub on it, and a task of the session that has asked a model and called a tool.
struct Begun {
    state: TempDir,
    home: Home,
    task: String,
    caller: Caller,
}

async fn begun(fleet: &Fleet) -> Begun {
    let (state, mut home) = started(fleet).await;
    let earlier = home.hub.task_submit(turn("hello")).await.unwrap().id;
    home.shim.assigned().await;
    home.ended(&earlier, 1, exited(0, "hello yourself"), false)
        .await;
    let task = home.hub.task_submit(turn("pay")).await.unwrap().id;
    let (_, attempts) = home.shim.assigned().await;
    let caller = home.hub.identify(&attempts[0].token).await.unwrap();
    home.call(&caller, model("one"), "pay it").await;
    home.call(&caller, tool("{}", Effect::Keyed), "paid").await;
    Begun {
        state,
        home,
        task,
        caller,
    }
}

/// The next attempt of the task, whose first calls are answered from the journal.
async fn replayed(home: &mut Home, task: &str) -> (Caller, u32) {
    home.hub.task_retry(task, "owner").await.unwrap();
    let (id, attempts) = home.shim.assigned().await;
    assert_eq!(id, task);
    let caller = home.hub.identify(&attempts[0].token).await.unwrap();
    for (ask, answer) in [
        (model("one"), "pay it"),
        (tool("{}", Effect::Keyed), "paid"),
    ] {
        let answered = home.call(&caller, ask, "never").await;
        assert_eq!(answered, (answer.to_owned(), true));
    }
    (caller, attempts[0].number)
}

/// Such a state, and the file with which its session has left.
async fn left(fleet: &Fleet) -> (Begun, Vec<u8>) {
    let mut begun = begun(fleet).await;
    let file = exported(&mut begun.home, &begun.task, 1).await;
    (begun, file)
}

/// A state with a hub on it.
async fn started(fleet: &Fleet) -> (TempDir, Home) {
    let state = tempfile::tempdir().unwrap();
    let home = Home::start(state.path(), fleet, vec![]).await;
    (state, home)
}

/// Exports with the task's process ending as asked.
async fn exported(home: &mut Home, task: &str, attempt: u32) -> Vec<u8> {
    let hub = home.hub.clone();
    let (file, ()) = tokio::join!(export(&hub), home.ends_as_asked(task, attempt));
    file.unwrap()
}

#[tokio::test]
async fn a_session_moves_there_and_back_and_no_call_is_made_twice() {
    let fleet = fleet(|_| {});
    let (begun, file) = left(&fleet).await;
    let Begun {
        state: state_a,
        home: mut a,
        task,
        ..
    } = begun;

    let view = a.hub.task_get(&task).await.unwrap();
    assert_eq!(
        (view.state.as_str(), view.reason.as_deref()),
        ("input-required", Some("moved"))
    );
    assert_eq!(asking(&a).await, 0, "no instance is kept for it");
    let refused = a.hub.task_retry(&task, "owner").await.unwrap_err();
    assert_eq!(refused.code, Code::Conflict);
    assert!(refused.message.contains("left with an export"), "{refused}");
    let refused = a.hub.task_submit(turn("more")).await.unwrap_err();
    assert_eq!(refused.code, Code::Conflict);
    assert_eq!(
        export(&a.hub).await.unwrap().len(),
        file.len(),
        "made again"
    );

    let (state_b, b) = started(&fleet).await;
    let came = import(&b.hub, &file).await.unwrap();
    assert_eq!(came.tasks.len(), 2);
    assert!(came.tasks.iter().all(|task| task.change == "new"));
    let session = b.hub.session_get("order-7").await.unwrap();
    assert_eq!(session.turns[1].content, json!("hello yourself"));
    let view = b.hub.task_get(&task).await.unwrap();
    assert_eq!(
        (view.state.as_str(), view.reason.as_deref()),
        ("input-required", Some("imported"))
    );
    assert_eq!((view.input, view.generation), (json!("pay"), None));
    assert_eq!(asking(&b).await, 1);

    // It waits for a person, whatever starts anew.
    b.end().await;
    let mut b = Home::start(state_b.path(), &fleet, vec![]).await;
    assert_eq!(
        b.hub.task_get(&task).await.unwrap().reason.as_deref(),
        Some("imported")
    );
    let (caller, attempt) = replayed(&mut b, &task).await;
    assert_eq!(attempt, 2);
    assert!(!b.call(&caller, model("two"), "thank them").await.1);
    let back = exported(&mut b, &task, 2).await;

    let came = import(&a.hub, &back).await.unwrap();
    let change = |id: &str| came.tasks.iter().find(|task| task.id == id).unwrap().change;
    assert_eq!(change(&task), "continued");
    let (caller, attempt) = replayed(&mut a, &task).await;
    assert_eq!(attempt, 3);
    let answered = a.call(&caller, model("two"), "never").await;
    assert_eq!(answered, ("thank them".to_owned(), true));
    a.ended(&task, 3, exited(0, "done"), false).await;
    let view = a.hub.task_wait(&task, WAIT).await.unwrap();
    assert_eq!(
        (
            view.state.as_str(),
            view.steps,
            view.replayed,
            view.repeated
        ),
        ("completed", 3, 3, 0)
    );
    whole(a, state_a.path()).await;
    whole(b, state_b.path()).await;
}

#[tokio::test]
async fn an_answer_that_comes_after_the_move_is_of_no_task_here() {
    let fleet = fleet(|_| {});
    let Begun {
        state,
        mut home,
        task,
        caller,
    } = begun(&fleet).await;
    let asked = home
        .hub
        .step_begin(&caller, tool("{\"late\": 1}", Effect::Keyed));
    let StepTurn::Run(run, _stream) = asked.await.unwrap() else {
        panic!("a new call")
    };
    let (n, id) = (run.n(), run.id().to_owned());
    let hub = home.hub.clone();
    let exporting = tokio::spawn(async move { export(&hub).await });
    home.ends_as_asked(&task, 1).await;
    // Longer than a call in flight is waited for.
    let until = std::time::Instant::now() + WAIT;
    while !exporting.is_finished() {
        assert!(std::time::Instant::now() < until, "it waits for ever");
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(10)).await;
        tokio::time::resume();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let file = exporting.await.unwrap().unwrap();
    finish(*run, "done after all").await;
    let steps = home.hub.task_steps(&task).await.unwrap().items;
    assert_eq!(steps[n as usize - 1].state, "unknown");

    let (state_b, mut b) = started(&fleet).await;
    import(&b.hub, &file).await.unwrap();
    let (caller, attempt) = replayed(&mut b, &task).await;
    let asked = b
        .hub
        .step_begin(&caller, tool("{\"late\": 1}", Effect::Keyed));
    let StepTurn::Run(run, _stream) = asked.await.unwrap() else {
        panic!("nobody knows whether it was done")
    };
    assert_eq!((run.n(), run.id()), (n, id.as_str()), "under the same key");
    finish(*run, "done").await;
    assert_eq!(b.hub.task_get(&task).await.unwrap().repeated, 1);

    // What came late there doesn't stand in the way back.
    let back = exported(&mut b, &task, attempt).await;
    import(&home.hub, &back).await.unwrap();
    let steps = home.hub.task_steps(&task).await.unwrap().items;
    assert_eq!(steps[n as usize - 1].state, "finished");
    whole(home, state.path()).await;
    whole(b, state_b.path()).await;
}

#[tokio::test]
async fn an_agent_that_was_called_moves_with_its_caller_and_is_found_again() {
    let fleet = fleet(|agent| agent.concurrency = 2);
    let Begun {
        state,
        mut home,
        task,
        caller,
    } = begun(&fleet).await;
    let ask = || tool("{\"ask\": 1}", Effect::Keyed);
    let StepTurn::Run(run, _stream) = home.hub.step_begin(&caller, ask()).await.unwrap() else {
        panic!("a new call")
    };
    let child = home
        .hub
        .agent_tool_submit(&caller, run.id(), "helper", json!("child"))
        .await
        .unwrap();
    home.shim.assigned().await;
    let refused = home.hub.session_export(&child.session, "owner").await;
    assert!(refused.unwrap_err().message.contains("order-7"));
    let hub = home.hub.clone();
    let (file, ()) = tokio::join!(export(&hub), async {
        let mut told = Vec::new();
        while told.len() < 2 {
            if let ToShim::EndTask { task, .. } = home.shim.receive().await {
                told.push(task);
            }
        }
        for task in told {
            let exit = Exit {
                asked: true,
                ..exited(0, "")
            };
            home.ended(&task, 1, exit, false).await;
        }
    });
    let file = file.unwrap();
    drop(run);

    let (state_b, mut b) = started(&fleet).await;
    let came = import(&b.hub, &file).await.unwrap();
    assert_eq!(came.tasks.len(), 3);
    b.hub.task_retry(&child.id, "owner").await.unwrap();
    let (id, attempts) = b.shim.assigned().await;
    assert_eq!(id, child.id);
    b.ended(&id, attempts[0].number, exited(0, "written"), false)
        .await;
    let (caller, _) = replayed(&mut b, &task).await;
    let StepTurn::Run(run, _stream) = b.hub.step_begin(&caller, ask()).await.unwrap() else {
        panic!("it is looked for again")
    };
    let found = b
        .hub
        .agent_tool_submit(&caller, run.id(), "helper", json!("child"))
        .await
        .unwrap();
    assert_eq!((found.id, found.output), (child.id, json!("written")));
    finish(*run, "written").await;
    assert_eq!(b.hub.task_get(&task).await.unwrap().repeated, 0);
    whole(home, state.path()).await;
    whole(b, state_b.path()).await;
}

#[tokio::test]
async fn a_file_is_imported_once_and_never_over_what_went_on() {
    let fleet = fleet(|_| {});
    let (begun, file) = left(&fleet).await;
    let (state, mut a, task) = (begun.state, begun.home, begun.task);
    let (state_b, b) = started(&fleet).await;
    import(&b.hub, &file).await.unwrap();
    let before = b.hub.log_head().await.unwrap().size;
    let again = import(&b.hub, &file).await.unwrap();
    assert!(again.tasks.iter().all(|task| task.change == "known"));
    assert_eq!(b.hub.log_head().await.unwrap().size, before);

    // Taken back where it left from: it goes on there.
    let back = import(&a.hub, &file).await.unwrap();
    assert!(back.tasks.iter().all(|task| task.change == "returned"));
    a.hub.task_retry(&task, "owner").await.unwrap();
    a.shim.assigned().await;
    // Now there are two of it, and neither is taken for the other.
    let other = b.hub.session_export("order-7", "owner").await.unwrap();
    let refused = import(&a.hub, &other).await.unwrap_err();
    assert_eq!(refused.code, Code::Conflict);
    assert!(
        refused.message.contains("went on both here and"),
        "{refused}"
    );
    whole(a, state.path()).await;
    whole(b, state_b.path()).await;
}

#[tokio::test]
async fn a_session_of_that_name_or_a_fleet_without_the_agent_takes_no_file() {
    let ours = fleet(|_| {});
    let (begun, file) = left(&ours).await;
    let (_state_b, b) = started(&ours).await;
    b.hub.task_submit(turn("mine")).await.unwrap();
    let refused = import(&b.hub, &file).await.unwrap_err();
    assert!(
        refused.message.contains("there is a session order-7 here"),
        "{refused}"
    );
    let older = b
        .hub
        .task_list(Default::default())
        .await
        .unwrap()
        .items
        .len();
    assert_eq!(older, 1, "nothing came");

    let mut c = b;
    let mut other = fleet(|_| {});
    let agent = other.agents.remove("helper").unwrap();
    other.agents.insert("writer".into(), agent);
    c.propose(2, &other).await.unwrap();
    let refused = import(&c.hub, &file).await.unwrap_err();
    assert!(
        refused.message.contains("apply the manifests first"),
        "{refused}"
    );
    whole(begun.home, begun.state.path()).await;
    c.end().await;
}

#[tokio::test]
async fn a_file_with_any_byte_changed_is_refused() {
    let fleet = fleet(|_| {});
    let (begun, file) = left(&fleet).await;
    let home = begun.home;
    let head = home.hub.log_head().await.unwrap();
    let key = store::PublicKey::parse(&head.key).unwrap();
    let session = file::read(&file, Some(&key)).and_then(check).unwrap();
    assert_eq!(session.tasks.len(), 2);
    // One in 7: each kind of place is met many times.
    for at in (0..file.len()).step_by(7) {
        for bit in [0x01, 0x20] {
            let mut changed = file.clone();
            changed[at] ^= bit;
            let read = file::read(&changed, None).and_then(check);
            assert!(
                read.is_err(),
                "byte {at} of {}: {:?}",
                file.len(),
                file[at] as char
            );
        }
    }
    for line in 1..file.split(|byte| *byte == b'\n').count() - 1 {
        let mut lines: Vec<&[u8]> = file.split(|byte| *byte == b'\n').collect();
        lines.remove(line);
        let cut = lines.join(&b'\n');
        assert!(
            file::read(&cut, None).and_then(check).is_err(),
            "without line {line}"
        );
        let fewer = String::from_utf8(cut).unwrap();
        let count = session.entries.len();
        let fewer = fewer.replacen(
            &format!("\"entries\":{count}"),
            &format!("\"entries\":{}", count - 1),
            1,
        );
        let read = file::read(fewer.as_bytes(), None).and_then(check);
        assert!(
            read.is_err(),
            "without line {line}, and the count set right"
        );
    }
    let foreign = store::SigningKey::from_seed(&[9; 32]).unwrap();
    let foreign = foreign.public_key(&head.origin).unwrap();
    let read = file::read(&file, Some(&foreign));
    assert_eq!(read.unwrap_err(), file::FileError::OtherKey);
    home.end().await;
}

#[tokio::test]
async fn what_a_session_cost_elsewhere_is_not_spent_here() {
    let fleet = fleet(|_| {});
    let (state, mut a) = started(&fleet).await;
    let task = a.hub.task_submit(turn("dear")).await.unwrap().id;
    let (_, attempts) = a.shim.assigned().await;
    let caller = a.hub.identify(&attempts[0].token).await.unwrap();
    let begun = a.hub.step_begin(&caller, model("one")).await.unwrap();
    let StepTurn::Run(mut run, _stream) = begun else {
        panic!("a new call")
    };
    run.head(200, "application/json");
    run.finish(Settled {
        cost: Cost::from_usd(Some(0.25)),
        ..Settled::default()
    })
    .await;
    a.ended(&task, 1, exited(0, "done"), false).await;
    let file = export(&a.hub).await.unwrap();

    let (state_b, b) = started(&fleet).await;
    import(&b.hub, &file).await.unwrap();
    let spent = async |home: &Home| {
        let tally = home.hub.tally(Tally::default()).await.unwrap();
        tally.usd("helper")
    };
    assert_eq!(spent(&b).await, Some(0.0));
    assert_eq!(b.hub.task_get(&task).await.unwrap().cost.usd, Some(0.25));
    // Back at home it is not paid a second time.
    let back = export(&b.hub).await.unwrap();
    import(&a.hub, &back).await.unwrap();
    assert_eq!(spent(&a).await, Some(0.25));
    whole(a, state.path()).await;
    whole(b, state_b.path()).await;
}

#[tokio::test]
async fn what_was_erased_stays_erased_wherever_a_session_goes() {
    let mut fleet = fleet(|_| {});
    fleet.retention.payloads_seconds = Some(0);
    let (state, mut a) = started(&fleet).await;
    let task = a.hub.task_submit(turn("forget me")).await.unwrap().id;
    a.shim.assigned().await;
    a.ended(&task, 1, exited(0, "forgotten"), false).await;
    let until = std::time::Instant::now() + WAIT;
    while !a.hub.task_get(&task).await.unwrap().input.is_null() {
        assert!(std::time::Instant::now() < until, "nothing is erased");
        // Longer than the hub waits between two looks at the rules.
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(61)).await;
        tokio::time::resume();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let file = export(&a.hub).await.unwrap();
    assert!(!String::from_utf8_lossy(&file).contains("\"name\":\"input\""));

    let (state_b, b) = started(&fleet).await;
    let came = import(&b.hub, &file).await.unwrap();
    assert!(came.erased >= 3, "input, key and output: {}", came.erased);
    let view = b.hub.task_get(&task).await.unwrap();
    assert_eq!(
        (view.state.as_str(), view.input),
        ("completed", json!(null))
    );
    let back = export(&b.hub).await.unwrap();
    let came = import(&a.hub, &back).await.unwrap();
    assert_eq!(came.tasks[0].change, "continued");
    whole(a, state.path()).await;
    whole(b, state_b.path()).await;
}
