//! What a second attempt, a second hub and a second process get.

use contract::shim::Running;
use hub::Code;
use hub::answer::Broken;
use hub::step::{Effect, Settled, StepTurn};
use hub::task::Resume;
use mainstay_core::task::ResumeAs;
use serde_json::json;

use crate::home::{Home, WAIT, exited, finish, fleet, killed, model, read, tool};

#[tokio::test]
async fn an_agents_death_repeats_no_call() {
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &fleet(|_| {}), vec![]).await;
    let task = home.submit("x").await.id;
    let (_, attempts) = home.shim.assigned().await;
    let first = home.hub.identify(&attempts[0].token).await.unwrap();
    home.call(&first, model("one"), "answer one").await;
    home.call(&first, tool("{}", Effect::Opaque), "result")
        .await;
    // The third call is in flight when the agent dies, and runs on.
    let StepTurn::Run(run, stream) = home.hub.step_begin(&first, model("two")).await.unwrap()
    else {
        panic!("a new call")
    };
    drop(stream);
    home.ended(&task, 1, killed(), true).await;
    let second = home.hub.identify(&attempts[1].token).await.unwrap();
    assert_eq!(
        home.hub
            .identify(&attempts[0].token)
            .await
            .unwrap_err()
            .code,
        Code::Fenced
    );
    assert_eq!(
        home.call(&second, model("one"), "never").await,
        ("answer one".into(), true)
    );
    assert_eq!(
        home.call(&second, tool("{}", Effect::Opaque), "never")
            .await,
        ("result".into(), true)
    );
    let StepTurn::Answer(joined) = home.hub.step_begin(&second, model("two")).await.unwrap() else {
        panic!("the call in flight is joined")
    };
    finish(*run, "answer two").await;
    assert_eq!(read(joined).await, ("answer two".into(), true));
    home.ended(&task, 2, exited(0, "done"), false).await;
    let view = home.hub.task_wait(&task, WAIT).await.unwrap();
    let counts = (
        view.attempts,
        view.steps,
        view.replayed,
        view.repeated,
        view.diverged_at,
    );
    assert_eq!(counts, (2, 3, 3, 0, None));
    home.end().await;
}

#[tokio::test]
async fn an_answer_asked_for_again_and_again_and_never_taken_makes_one_entry() {
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &fleet(|_| {}), vec![]).await;
    let task = home.submit("x").await.id;
    let (_, attempts) = home.shim.assigned().await;
    let caller = home.hub.identify(&attempts[0].token).await.unwrap();
    let order = || tool(r#"{"order":1}"#, Effect::Opaque);
    home.call(&caller, order(), "r").await;
    home.ended(&task, 1, killed(), true).await;
    let caller = home.hub.identify(&attempts[1].token).await.unwrap();
    let mut sizes = Vec::new();
    for _ in 0..5 {
        let turn = home.hub.step_begin(&caller, order()).await.unwrap();
        let StepTurn::Answer(unread) = turn else {
            panic!("a recorded answer")
        };
        drop(unread);
        sizes.push(home.hub.log_head().await.unwrap().size);
    }
    assert_eq!(sizes[1..], [sizes[0]; 4]);
    home.end().await;
}

#[tokio::test]
async fn no_byte_of_a_held_answer_leaves_before_its_commit() {
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &fleet(|_| {}), vec![]).await;
    home.submit("x").await;
    let (_, attempts) = home.shim.assigned().await;
    let caller = home.hub.identify(&attempts[0].token).await.unwrap();
    let StepTurn::Run(mut run, mut stream) =
        home.hub.step_begin(&caller, model("one")).await.unwrap()
    else {
        panic!("a new call")
    };
    run.head(200, "text/event-stream");
    run.push("text".into(), false, Some("text")).unwrap();
    run.push("end".into(), true, None).unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), "text");
    let early = tokio::time::timeout(std::time::Duration::from_millis(50), stream.next()).await;
    assert!(early.is_err(), "held");
    run.finish(Settled::default()).await;
    assert_eq!(stream.next().await.unwrap().unwrap(), "end");
    assert!(stream.next().await.is_none());
    home.end().await;
}

#[tokio::test]
async fn a_call_dropped_in_the_middle_resets_who_waits_for_it() {
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &fleet(|_| {}), vec![]).await;
    home.submit("x").await;
    let (_, attempts) = home.shim.assigned().await;
    let caller = home.hub.identify(&attempts[0].token).await.unwrap();
    let StepTurn::Run(run, mut stream) = home.hub.step_begin(&caller, model("one")).await.unwrap()
    else {
        panic!("a new call")
    };
    drop(run);
    assert_eq!(stream.head().await.unwrap_err(), Broken);
    // A model call of unknown outcome is repeated, and says so.
    assert_eq!(
        home.call(&caller, model("one"), "second").await,
        ("second".into(), false)
    );
    home.end().await;
}

#[tokio::test]
async fn after_a_hubs_death_models_are_repeated_and_opaque_tools_wait_for_a_person() {
    let state = tempfile::tempdir().unwrap();
    let fleet = fleet(|_| {});
    let mut home = Home::start(state.path(), &fleet, vec![]).await;
    let task = home.submit("x").await.id;
    let (_, attempts) = home.shim.assigned().await;
    let caller = home.hub.identify(&attempts[0].token).await.unwrap();
    home.call(&caller, model("one"), "answer").await;
    let StepTurn::Run(model_run, _) = home.hub.step_begin(&caller, model("two")).await.unwrap()
    else {
        panic!("a new call")
    };
    let StepTurn::Run(tool_run, _) = home
        .hub
        .step_begin(&caller, tool("{}", Effect::Opaque))
        .await
        .unwrap()
    else {
        panic!("a new call")
    };
    // As with a kill: nobody settles them.
    std::mem::forget((model_run, tool_run));
    home.end().await;

    let running = vec![Running {
        task: task.clone(),
        attempt: 1,
        pid: 1,
    }];
    let mut home = Home::start(state.path(), &fleet, running).await;
    let caller = home.hub.identify(&attempts[0].token).await.unwrap();
    assert_eq!(
        home.call(&caller, model("two"), "paid twice").await,
        ("paid twice".into(), false)
    );
    let parked = home
        .hub
        .step_begin(&caller, tool("{}", Effect::Opaque))
        .await
        .unwrap_err();
    assert_eq!(parked.code, Code::Parked);
    let view = home.hub.task_wait(&task, WAIT).await.unwrap();
    assert_eq!(
        (view.state.as_str(), view.reason.as_deref(), view.asked_step),
        ("input-required", Some("question"), Some(3))
    );
    let mut exit = killed();
    exit.asked = true;
    home.ended(&task, 1, exit, false).await;

    let word = Resume {
        step: 3,
        how: ResumeAs::Done,
        result: Some(json!("it was done")),
        author: "owner".into(),
    };
    home.hub.task_resume(&task, word).await.unwrap();
    let (_, attempts) = home.shim.assigned().await;
    let caller = home.hub.identify(&attempts[0].token).await.unwrap();
    assert!(home.call(&caller, model("one"), "never").await.1);
    assert_eq!(
        home.call(&caller, model("two"), "never").await,
        ("paid twice".into(), true)
    );
    let (result, replayed) = home
        .call(&caller, tool("{}", Effect::Opaque), "never")
        .await;
    assert!(replayed && result.contains("it was done"), "{result}");
    home.ended(&task, 2, exited(0, "ok"), false).await;
    let view = home.hub.task_wait(&task, WAIT).await.unwrap();
    assert_eq!(
        (view.state.as_str(), view.repeated, view.replayed),
        ("completed", 1, 3)
    );
    home.end().await;
}

#[tokio::test]
async fn an_agent_that_the_hubs_death_cut_off_is_not_counted() {
    let state = tempfile::tempdir().unwrap();
    let fleet = fleet(|agent| agent.max_attempts = 1);
    let mut home = Home::start(state.path(), &fleet, vec![]).await;
    let task = home.submit("x").await.id;
    let (_, attempts) = home.shim.assigned().await;
    let caller = home.hub.identify(&attempts[0].token).await.unwrap();
    let StepTurn::Run(run, _) = home.hub.step_begin(&caller, model("one")).await.unwrap() else {
        panic!("new")
    };
    std::mem::forget(run);
    home.end().await;
    let mut home = Home::start(state.path(), &fleet, vec![]).await;
    home.ended(&task, 1, exited(1, ""), true).await;
    home.started(&task, 2).await;
    home.ended(&task, 2, exited(0, "ok"), false).await;
    assert_eq!(
        home.hub.task_wait(&task, WAIT).await.unwrap().state,
        "completed"
    );
    home.end().await;
}

#[tokio::test]
async fn an_agent_whose_connection_went_with_the_hub_between_two_calls_is_not_counted() {
    let state = tempfile::tempdir().unwrap();
    let fleet = fleet(|agent| agent.max_attempts = 1);
    let mut home = Home::start(state.path(), &fleet, vec![]).await;
    let task = home.submit("x").await.id;
    home.shim.assigned().await;
    home.end().await;
    let mut home = Home::start(state.path(), &fleet, vec![]).await;
    home.ended(&task, 1, exited(1, ""), true).await;
    home.started(&task, 2).await;
    // This one began under the hub that is there, so its crash is its own.
    home.ended(&task, 2, exited(1, ""), false).await;
    let view = home.hub.task_wait(&task, WAIT).await.unwrap();
    assert_eq!((view.state.as_str(), view.attempts), ("failed", 2));
    home.end().await;
}

#[tokio::test]
async fn a_live_call_that_may_be_a_second_is_parked_with_both_shown() {
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &fleet(|_| {}), vec![]).await;
    let task = home.submit("x").await.id;
    let (_, attempts) = home.shim.assigned().await;
    let caller = home.hub.identify(&attempts[0].token).await.unwrap();
    home.call(&caller, tool(r#"{"order":1}"#, Effect::Opaque), "r")
        .await;
    home.ended(&task, 1, killed(), true).await;
    let caller = home.hub.identify(&attempts[1].token).await.unwrap();
    tokio::time::pause();
    let parked = home
        .hub
        .step_begin(&caller, tool(r#"{"order": "1"}"#, Effect::Opaque))
        .await
        .unwrap_err();
    tokio::time::resume();
    assert_eq!(parked.code, Code::Parked);
    let view = home.hub.task_get(&task).await.unwrap();
    assert_eq!(
        (view.reason.as_deref(), view.asked_step),
        (Some("divergence"), Some(2))
    );
    home.end().await;
}
