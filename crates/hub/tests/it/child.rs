//! An agent called as a tool: a task of its own, and what its waiting and its end mean for the
//! task that called it.

use contract::shim::{Exit, ToShim};
use hub::caller::Caller;
use hub::step::{Effect, StepRun, StepTurn};
use hub::view::TaskView;
use serde_json::json;

use crate::home::{Home, WAIT, exited, finish, fleet, model, tool};

/// A task in its first attempt, in the middle of a call to an agent, whose task runs too.
struct Called {
    parent: String,
    caller: Caller,
    run: StepRun,
    stream: hub::answer::AnswerStream,
    child: TaskView,
}

async fn called(home: &mut Home) -> Called {
    let parent = home.submit("parent").await.id;
    let (_, attempts) = home.shim.assigned().await;
    let caller = home.hub.identify(&attempts[0].token).await.unwrap();
    home.call(&caller, model("one"), "call the other").await;
    let StepTurn::Run(run, stream) = home
        .hub
        .step_begin(&caller, tool("{}", Effect::Keyed))
        .await
        .unwrap()
    else {
        panic!("a new call")
    };
    let child = home
        .hub
        .agent_tool_submit(&caller, run.id(), "helper", json!("child"))
        .await
        .unwrap();
    let (id, _) = home.shim.assigned().await;
    assert_eq!(id, child.id);
    Called {
        parent,
        caller,
        run: *run,
        stream,
        child,
    }
}

/// Two crashes alike: the task waits for a person.
async fn poison(home: &mut Home, task: &str) {
    home.ended(task, 1, exited(1, ""), true).await;
    home.started(task, 2).await;
    home.ended(task, 2, exited(1, ""), false).await;
    let view = home.hub.task_wait(task, WAIT).await.unwrap();
    assert_eq!(view.state, "input-required");
}

fn asked() -> Exit {
    Exit {
        asked: true,
        ..exited(0, "")
    }
}

#[tokio::test]
async fn a_task_waits_with_the_agent_it_called_and_goes_on_when_that_has_ended() {
    let state = tempfile::tempdir().unwrap();
    let fleet = fleet(|agent| agent.concurrency = 2);
    let mut home = Home::start(state.path(), &fleet, vec![]).await;
    let Called {
        parent,
        run,
        mut stream,
        child,
        ..
    } = called(&mut home).await;
    let run = run.parked(child.id.clone()).await;
    let run = run.expect("one that works is waited for");
    poison(&mut home, &child.id).await;
    let (n, id) = (run.n(), run.id().to_owned());
    assert!(run.parked(child.id.clone()).await.is_none());

    let view = home.hub.task_get(&parent).await.unwrap();
    let said = view.error.unwrap().message;
    assert_eq!(
        (view.state.as_str(), view.reason.as_deref(), view.asked_step),
        ("input-required", Some("parked"), None)
    );
    assert!(
        said.contains(&child.id) && said.contains("poison"),
        "{said}"
    );
    assert!(stream.head().await.is_err(), "who waits for it is reset");
    home.shim
        .until(|message| matches!(message, ToShim::EndTask { task, .. } if *task == parent))
        .await;
    home.ended(&parent, 1, asked(), false).await;
    let steps = home.hub.task_steps(&parent).await.unwrap().items;
    assert_eq!(steps[1].state, "parked");

    // Another hub knows it as well.
    home.end().await;
    let mut home = Home::start(state.path(), &fleet, vec![]).await;
    home.hub.task_retry(&child.id, "owner").await.unwrap();
    let (task, attempts) = home.shim.assigned().await;
    assert_eq!((task, attempts[0].number), (child.id.clone(), 3));
    assert_eq!(
        home.hub.task_get(&parent).await.unwrap().state,
        "input-required"
    );
    home.ended(&child.id, 3, exited(0, "written"), false).await;

    let (task, attempts) = home.shim.assigned().await;
    assert_eq!((&task, attempts[0].number), (&parent, 2));
    let caller = home.hub.identify(&attempts[0].token).await.unwrap();
    assert!(home.call(&caller, model("one"), "never").await.1);
    let again = home.hub.step_begin(&caller, tool("{}", Effect::Keyed));
    let StepTurn::Run(run, _) = again.await.unwrap() else {
        panic!("it is looked for again")
    };
    assert_eq!((run.n(), run.id()), (n, id.as_str()));
    let found = home
        .hub
        .agent_tool_submit(&caller, run.id(), "helper", json!("child"))
        .await
        .unwrap();
    assert_eq!(
        (found.id, found.output),
        (child.id.clone(), json!("written"))
    );
    finish(*run, "written").await;
    home.ended(&parent, 2, exited(0, "ok"), false).await;
    let view = home.hub.task_wait(&parent, WAIT).await.unwrap();
    assert_eq!(
        (view.state.as_str(), view.repeated, view.diverged_at),
        ("completed", 0, None)
    );
    home.end().await;
}

#[tokio::test]
async fn when_a_task_fails_or_is_canceled_the_agents_it_called_stop() {
    for cancels in [true, false] {
        let state = tempfile::tempdir().unwrap();
        let fleet = fleet(|agent| agent.concurrency = 2);
        let mut home = Home::start(state.path(), &fleet, vec![]).await;
        let Called { parent, child, .. } = called(&mut home).await;
        if cancels {
            home.hub.task_cancel(&parent, "owner").await.unwrap();
            home.shim
                .until(
                    |message| matches!(message, ToShim::EndTask { task, .. } if *task == child.id),
                )
                .await;
        } else {
            home.ended(&parent, 1, exited(78, ""), false).await;
        }
        let view = home.hub.task_wait(&child.id, WAIT).await.unwrap();
        assert_eq!(view.state, "canceled");
        home.end().await;

        let reader = store::Reader::open(&state.path().join("workspaces/default")).unwrap();
        let entries = reader.entries(0, 1000).unwrap();
        let entry = entries
            .iter()
            .find(|entry| entry.subject == child.id && entry.kind == "task.canceled")
            .unwrap();
        assert_eq!(entry.author, if cancels { "owner" } else { "hub" });
    }
}

#[tokio::test]
async fn a_call_whose_agents_answer_was_erased_makes_no_second_task() {
    let state = tempfile::tempdir().unwrap();
    let mut fleet = fleet(|agent| agent.concurrency = 2);
    fleet.retention.payloads_seconds = Some(0);
    let mut home = Home::start(state.path(), &fleet, vec![]).await;
    let Called {
        caller, run, child, ..
    } = called(&mut home).await;
    home.ended(&child.id, 1, exited(0, "written"), false).await;
    let until = std::time::Instant::now() + WAIT;
    while !home.hub.task_get(&child.id).await.unwrap().input.is_null() {
        assert!(std::time::Instant::now() < until, "nothing is erased");
        // Longer than the hub waits between two looks at the rules.
        tokio::time::pause();
        tokio::time::advance(std::time::Duration::from_secs(61)).await;
        tokio::time::resume();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    // As the next attempt would, or another look of this one.
    let again = home
        .hub
        .agent_tool_submit(&caller, run.id(), "helper", json!("child"))
        .await
        .unwrap();
    assert_eq!((again.id, again.state.as_str()), (child.id, "completed"));
    drop(run);
    home.end().await;
}
