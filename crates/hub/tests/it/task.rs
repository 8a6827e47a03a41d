//! A task from its submission to its end.

use api::fleet::{Fleet, Runtime, ServiceProtocol};
use contract::shim::{Fact, Running, ToShim};
use hub::Code;
use hub::task::{Resume, TaskFilter};
use hub::view::TaskView;
use mainstay_core::task::ResumeAs;
use mainstay_core::usage::{Cost, Usage};
use serde_json::json;

use crate::home::{Home, WAIT, exited, fleet, killed, model, tool, work};
use hub::step::{AfterUnknown, Effect, Failure, StepTurn};

#[tokio::test]
async fn a_task_goes_from_manifest_to_answer() {
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &fleet(|_| {}), vec![]).await;
    let task = home.submit("hello").await;
    let (id, attempts) = home.shim.assigned().await;
    assert_eq!(id, task.id);
    let stdin: serde_json::Value = serde_json::from_str(&attempts[0].stdin).unwrap();
    assert_eq!(stdin["input"], "hello");
    assert_eq!(stdin["attempt"], 1);
    assert_eq!(stdin["history"], json!([]));
    let caller = home.hub.identify(&attempts[0].token).await.unwrap();
    assert_eq!(
        home.call(&caller, model("one"), "answer").await,
        ("answer".into(), false)
    );
    home.ended(&id, 1, exited(0, "done\n"), false).await;
    let view = home.hub.task_wait(&id, WAIT).await.unwrap();
    assert_eq!(
        (view.state.as_str(), view.output, view.steps, view.replayed),
        ("completed", json!("done"), 1, 0)
    );

    // The next turn of the session sees the first.
    let mut next = work("again");
    next.session = Some(view.session.clone());
    home.hub.task_submit(next).await.unwrap();
    let (_, attempts) = home.shim.assigned().await;
    let stdin: serde_json::Value = serde_json::from_str(&attempts[0].stdin).unwrap();
    assert_eq!(
        stdin["history"],
        json!([{"role": "user", "content": "hello"}, {"role": "agent", "content": "done"}])
    );
    home.end().await;
}

#[tokio::test]
async fn an_idempotency_key_makes_one_task() {
    let state = tempfile::tempdir().unwrap();
    let home = Home::start(state.path(), &fleet(|_| {}), vec![]).await;
    let keyed = |input: &str| {
        let mut submit = work(input);
        submit.idempotency_key = Some("key".into());
        submit
    };
    let first = home.hub.task_submit(keyed("a")).await.unwrap();
    assert_eq!(home.hub.task_submit(keyed("a")).await.unwrap().id, first.id);
    assert_eq!(
        home.hub.task_submit(keyed("b")).await.unwrap_err().code,
        Code::Conflict
    );
    home.end().await;
}

#[tokio::test]
async fn a_full_queue_refuses_and_an_unknown_agent_is_named() {
    let state = tempfile::tempdir().unwrap();
    let home = Home::start(state.path(), &fleet(|_| {}), vec![]).await;
    let mut refused = None;
    for n in 0..8 {
        if let Err(error) = home.hub.task_submit(work(&n.to_string())).await {
            refused = Some((n, error.code));
            break;
        }
    }
    let (n, code) = refused.unwrap();
    assert!((3..=4).contains(&n), "one runs, three wait: {n}");
    assert_eq!(code, Code::QueueFull);
    let mut submit = work("x");
    submit.agent = "helpr".into();
    let error = home.hub.task_submit(submit).await.unwrap_err();
    assert!(
        error.code == Code::NotFound && error.message.contains("helper"),
        "{error}"
    );
    home.end().await;
}

#[tokio::test]
async fn two_crashes_alike_with_nothing_done_between_wait_for_a_person() {
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &fleet(|_| {}), vec![]).await;
    let task = home.submit("x").await.id;
    home.shim.assigned().await;
    home.ended(&task, 1, exited(1, ""), true).await;
    home.started(&task, 2).await;
    home.ended(&task, 2, exited(1, ""), true).await;
    let view = home.hub.task_wait(&task, WAIT).await.unwrap();
    assert_eq!(
        (view.state.as_str(), view.reason.as_deref()),
        ("input-required", Some("poison"))
    );
    assert!(view.error.unwrap().message.contains("it broke"));
    home.hub.task_retry(&task, "owner").await.unwrap();
    let (_, attempts) = home.shim.assigned().await;
    assert_eq!(attempts[0].number, 3);
    home.ended(&task, 3, exited(0, "ok"), false).await;
    assert_eq!(
        home.hub.task_wait(&task, WAIT).await.unwrap().state,
        "completed"
    );
    home.end().await;
}

#[tokio::test]
async fn kills_from_outside_are_not_counted() {
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &fleet(|agent| agent.max_attempts = 2), vec![]).await;
    let task = home.submit("x").await.id;
    home.shim.assigned().await;
    for attempt in 1..=6 {
        home.ended(&task, attempt, killed(), true).await;
        home.fact(Fact::AttemptStarted {
            task: task.clone(),
            attempt: attempt + 1,
            pid: 1,
        })
        .await;
    }
    home.ended(&task, 7, exited(0, "ok"), false).await;
    let view = home.hub.task_wait(&task, WAIT).await.unwrap();
    assert_eq!((view.state.as_str(), view.attempts), ("completed", 7));
    home.end().await;
}

#[tokio::test]
async fn an_answer_without_end_fails_the_task_however_its_process_ended() {
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &fleet(|_| {}), vec![]).await;
    home.submit("write").await;
    let (id, _) = home.shim.assigned().await;
    let mut exit = killed();
    exit.stdout_truncated = true;
    home.ended(&id, 1, exit, false).await;
    let view = home.hub.task_wait(&id, WAIT).await.unwrap();
    let error = view.error.expect("an error");
    assert_eq!(
        (view.state.as_str(), error.code.as_str(), view.attempts),
        ("failed", "too_large", 1)
    );
    home.end().await;
}

#[tokio::test]
async fn exit_78_fails_the_task_for_good() {
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &fleet(|_| {}), vec![]).await;
    let task = home.submit("x").await.id;
    home.shim.assigned().await;
    home.ended(&task, 1, exited(78, ""), false).await;
    let view = home.hub.task_wait(&task, WAIT).await.unwrap();
    let error = view.error.unwrap();
    assert_eq!(
        (
            view.state.as_str(),
            error.code.as_str(),
            error.message.as_str()
        ),
        ("failed", "agent", "it broke")
    );
    home.end().await;
}

#[tokio::test]
async fn a_budget_refuses_the_next_call_and_the_task_fails_with_it() {
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(
        state.path(),
        &fleet(|agent| agent.budget.steps = Some(1)),
        vec![],
    )
    .await;
    let task = home.submit("x").await.id;
    let (_, attempts) = home.shim.assigned().await;
    let caller = home.hub.identify(&attempts[0].token).await.unwrap();
    home.call(&caller, model("one"), "a").await;
    let refused = home
        .hub
        .step_begin(&caller, model("two"))
        .await
        .unwrap_err();
    assert_eq!(refused.code, Code::Budget);
    home.ended(&task, 1, exited(1, ""), true).await;
    let view = home.hub.task_wait(&task, WAIT).await.unwrap();
    assert_eq!(
        (view.state.as_str(), view.reason.as_deref()),
        ("failed", Some("budget"))
    );
    home.end().await;
}

#[tokio::test]
async fn a_canceled_task_ends_its_process_and_its_token() {
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &fleet(|_| {}), vec![]).await;
    let task = home.submit("x").await.id;
    let (_, attempts) = home.shim.assigned().await;
    let caller = home.hub.identify(&attempts[0].token).await.unwrap();
    home.hub.task_cancel(&task, "owner").await.unwrap();
    home.shim
        .until(|message| matches!(message, ToShim::EndTask { .. }))
        .await;
    assert_eq!(
        home.hub
            .identify(&attempts[0].token)
            .await
            .unwrap_err()
            .code,
        Code::Fenced
    );
    assert_eq!(
        home.hub
            .step_begin(&caller, model("late"))
            .await
            .unwrap_err()
            .code,
        Code::Fenced
    );
    home.end().await;
}

#[tokio::test]
async fn a_word_is_only_taken_on_a_step_in_question() {
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &fleet(|_| {}), vec![]).await;
    let task = home.submit("x").await.id;
    let (_, attempts) = home.shim.assigned().await;
    let caller = home.hub.identify(&attempts[0].token).await.unwrap();
    home.call(&caller, tool("{}", Effect::Opaque), "r").await;
    let resume = Resume {
        step: 1,
        how: ResumeAs::Repeat,
        result: None,
        author: "owner".into(),
    };
    assert_eq!(
        home.hub.task_resume(&task, resume).await.unwrap_err().code,
        Code::Conflict
    );
    home.end().await;
}

#[tokio::test]
async fn what_a_call_cost_that_failed_is_in_the_metrics() {
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &fleet(|_| {}), vec![]).await;
    home.submit("x").await;
    let (_, attempts) = home.shim.assigned().await;
    let caller = home.hub.identify(&attempts[0].token).await.unwrap();
    let StepTurn::Run(run, _) = home.hub.step_begin(&caller, model("one")).await.unwrap() else {
        panic!("new")
    };
    run.fail(Failure {
        status: 502,
        content_type: "application/json".into(),
        body: "{}".into(),
        broken: true,
        usage: Usage {
            output_tokens: 7,
            ..Usage::default()
        },
        cost: Cost::from_usd(Some(0.5)),
        retry_after: None,
        credential: None,
    })
    .await;
    let text = home.hub.metrics_text().await.unwrap();
    let value = |name: &str, label: &str| {
        text.lines()
            .find(|line| line.starts_with(name) && line.contains("\"gpt\"") && line.contains(label))
            .and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
    };
    assert_eq!(value("mainstay_tokens_total", "output"), Some(7.0));
    assert_eq!(value("mainstay_cost_usd_total", ""), Some(0.5));
    home.end().await;
}

/// The helper as a service.
fn service() -> Fleet {
    fleet(|agent| {
        agent.runtime = Runtime::Service {
            command: vec!["true".into()],
            protocol: ServiceProtocol::Http,
            port: None,
        };
    })
}

#[tokio::test]
async fn a_service_may_rest_for_as_long_as_no_task_waits_for_it() {
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &service(), vec![]).await;
    let rests = |wanted: bool| move |message: &ToShim| matches!(message, ToShim::Marks { idle, .. } if *idle == wanted);
    home.shim.until(rests(true)).await;
    let task = home.submit("x").await.id;
    home.shim.until(rests(false)).await;
    home.hub.task_cancel(&task, "owner").await.unwrap();
    home.shim.until(rests(true)).await;
    home.end().await;
}

#[tokio::test]
async fn a_services_call_outside_any_task_is_answered_when_nobody_knows_its_outcome() {
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &service(), vec![]).await;
    let has_tokens = |message: &ToShim| matches!(message, ToShim::ServiceTokens { .. });
    let ToShim::ServiceTokens { tokens, .. } = home.shim.until(has_tokens).await else {
        panic!("tokens were waited for");
    };
    home.fact(Fact::ServiceStarted {
        incarnation: 1,
        pid: 1,
    })
    .await;
    let caller = home.hub.identify(&tokens[0].token).await.unwrap();
    assert!(caller.ambient);
    let begin = async || {
        let asked = tool("{}", Effect::Opaque);
        home.hub.step_begin(&caller, asked).await.unwrap()
    };
    let StepTurn::Run(run, mut stream) = begin().await else {
        panic!("a new call is made");
    };
    let (after, again) = run.unknown("it broke".into()).await;
    assert_eq!((after, again.is_none()), (AfterUnknown::Told, true));
    assert_eq!(stream.head().await.unwrap().status, 504);
    let said = String::from_utf8(stream.next().await.unwrap().unwrap().to_vec()).unwrap();
    assert!(
        said.contains("nobody knows whether refund was done"),
        "{said}"
    );
    // Nor does a credential that is refused end what the service may call.
    let StepTurn::Run(run, _stream) = begin().await else {
        panic!("the next call is made");
    };
    run.fail(Failure {
        status: 401,
        content_type: "application/json".into(),
        body: "{}".into(),
        broken: false,
        usage: Usage::default(),
        cost: Cost::default(),
        retry_after: None,
        credential: Some("every credential was refused".into()),
    })
    .await;
    assert!(matches!(begin().await, StepTurn::Run(..)));
    home.end().await;
}

#[tokio::test]
async fn a_task_that_waits_behind_another_of_its_session_says_behind_which() {
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &fleet(|_| {}), vec![]).await;
    let turn = |input: &str| {
        let mut submit = work(input);
        submit.session = Some("talk".into());
        submit
    };
    let first = home.hub.task_submit(turn("one")).await.unwrap();
    assert_eq!((first.reason, first.error.is_none()), (None, true));
    home.shim.assigned().await;
    let second = home.hub.task_submit(turn("two")).await.unwrap();
    let said = |view: &TaskView| {
        assert_eq!(view.reason.as_deref(), Some("behind"), "{view:?}");
        view.error.as_ref().unwrap().message.clone()
    };
    assert!(said(&second).contains(&first.id) && said(&second).contains("working"));
    // Two crashes in a row: the first waits for a person. The second is of its session and would
    // be parked with it, but for a third that comes later.
    home.ended(&first.id, 1, exited(1, ""), true).await;
    home.started(&first.id, 2).await;
    home.ended(&first.id, 2, exited(1, ""), false).await;
    let third = home.hub.task_submit(turn("three")).await.unwrap();
    assert_eq!(third.state, "submitted");
    assert!(said(&third).contains(&first.id) && said(&third).contains("poison"));
    let listed = home.hub.task_list(TaskFilter::default()).await.unwrap();
    assert_eq!(said(&listed.items[0]), said(&third));
    home.hub.task_cancel(&first.id, "owner").await.unwrap();
    home.hub.task_cancel(&second.id, "owner").await.unwrap();
    assert_eq!(home.shim.assigned().await.0, third.id);
    let third = home.hub.task_get(&third.id).await.unwrap();
    assert_eq!((third.state.as_str(), third.reason), ("working", None));
    home.end().await;
}

#[tokio::test]
async fn time_that_is_up_ends_what_never_calls_also_after_a_restart() {
    let state = tempfile::tempdir().unwrap();
    let fleet = fleet(|agent| {
        agent.budget.time_ms = Some(1500);
        agent.concurrency = 2;
    });
    let mut home = Home::start(state.path(), &fleet, vec![]).await;
    let budget = home.submit("computes for ever").await.id;
    let mut submit = work("has a deadline");
    submit.deadline_ms = Some(jiff::Timestamp::now().as_millisecond() + 1000);
    let deadline = home.hub.task_submit(submit).await.unwrap().id;
    home.shim.assigned().await;
    home.shim.assigned().await;
    home.end().await;
    let running = [&budget, &deadline].map(|task| Running {
        task: task.clone(),
        attempt: 1,
        pid: 1,
    });
    let mut home = Home::start(state.path(), &fleet, running.to_vec()).await;
    for (task, reason) in [(&deadline, "deadline"), (&budget, "budget")] {
        home.shim
            .until(
                |message| matches!(message, ToShim::EndTask { task: ended, .. } if ended == task),
            )
            .await;
        let view = home.hub.task_wait(task, WAIT).await.unwrap();
        assert_eq!(
            (view.state.as_str(), view.reason.as_deref()),
            ("failed", Some(reason))
        );
        assert_eq!(view.error.unwrap().code, reason);
    }
    home.end().await;
}

#[tokio::test]
async fn the_time_for_which_a_task_waits_for_a_person_is_no_time_of_its_budget() {
    let state = tempfile::tempdir().unwrap();
    let fleet = fleet(|agent| agent.budget.time_ms = Some(2000));
    let mut home = Home::start(state.path(), &fleet, vec![]).await;
    let task = home.submit("x").await.id;
    home.shim.assigned().await;
    home.ended(&task, 1, exited(1, ""), true).await;
    home.started(&task, 2).await;
    home.ended(&task, 2, exited(1, ""), false).await;
    let parked = std::time::Instant::now();
    while parked.elapsed() < std::time::Duration::from_millis(2500) {
        let view = home.hub.task_get(&task).await.unwrap();
        assert_eq!(view.state, "input-required", "{view:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    home.hub.task_retry(&task, "owner").await.unwrap();
    let (_, attempts) = home.shim.assigned().await;
    let caller = home.hub.identify(&attempts[0].token).await.unwrap();
    home.call(&caller, model("one"), "in time").await;
    home.ended(&task, 3, exited(0, "ok"), false).await;
    let view = home.hub.task_wait(&task, WAIT).await.unwrap();
    assert_eq!(view.state, "completed");
    home.end().await;
}

/// An attempt whose one call the provider fails, and which ends by that.
async fn cut_off(home: &mut Home, task: &str) {
    let (id, attempts) = home.shim.assigned().await;
    assert_eq!(id, task);
    let caller = home.hub.identify(&attempts[0].token).await.unwrap();
    let turn = home.hub.step_begin(&caller, model("one")).await.unwrap();
    let StepTurn::Run(run, _) = turn else {
        panic!("tried again")
    };
    run.fail(Failure {
        status: 503,
        content_type: "application/json".into(),
        body: r#"{"error": {"message": "out of order"}}"#.into(),
        broken: false,
        usage: Usage::default(),
        cost: Cost::default(),
        retry_after: None,
        credential: None,
    })
    .await;
    home.ended(task, attempts[0].number, exited(1, ""), true)
        .await;
}

/// Half a minute passes.
async fn later() {
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(31)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_providers_outage_of_ten_minutes_is_not_counted_and_passes_by_itself() {
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &fleet(|agent| agent.max_attempts = 1), vec![]).await;
    let task = home.submit("x").await.id;
    cut_off(&mut home, &task).await;
    let rests = std::time::Instant::now();
    let view = home.hub.task_get(&task).await.unwrap();
    assert_eq!(
        (view.state.as_str(), view.reason.as_deref()),
        ("working", Some("provider"))
    );
    assert!(view.error.unwrap().message.contains("out of order"));
    // The rests of ten minutes: 1, 2, 4, 8, 16 and then 30 seconds.
    for _ in 1..24 {
        cut_off(&mut home, &task).await;
        later().await;
    }
    assert!(rests.elapsed() >= std::time::Duration::from_secs(1));
    let metrics = home.hub.metrics_text().await.unwrap();
    let counted = "mainstay_instance_restarts_total{agent=\"helper\",class=\"cut_off\"} 24";
    assert!(metrics.contains(counted), "{metrics}");
    let (_, attempts) = home.shim.assigned().await;
    let caller = home.hub.identify(&attempts[0].token).await.unwrap();
    home.call(&caller, model("one"), "back").await;
    home.ended(&task, 25, exited(0, "ok"), false).await;
    let view = home.hub.task_wait(&task, WAIT).await.unwrap();
    assert_eq!((view.state.as_str(), view.attempts), ("completed", 25));
    home.end().await;
}

#[tokio::test]
async fn a_provider_that_stays_away_has_the_task_wait_for_a_person() {
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &fleet(|_| {}), vec![]).await;
    let task = home.submit("x").await.id;
    let mut parked = None;
    for _ in 0..50 {
        cut_off(&mut home, &task).await;
        let view = home.hub.task_get(&task).await.unwrap();
        if view.state != "working" {
            parked = Some(view);
            break;
        }
        later().await;
    }
    let view = parked.unwrap();
    assert_eq!(
        (view.state.as_str(), view.reason.as_deref(), view.attempts),
        ("input-required", Some("provider"), 35)
    );
    home.hub.task_retry(&task, "owner").await.unwrap();
    home.shim.assigned().await;
    home.end().await;
}
