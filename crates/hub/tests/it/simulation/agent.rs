//! A faithful agent: what it asks depends on its task alone, and it tries again what broke.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hub::answer::Broken;
use hub::caller::Caller;
use hub::step::{
    AfterUnknown, Effect, Failure, Occasion, Settled, StepAsk, StepKind, StepRun, StepTurn,
};
use hub::{Code, Hub};
use mainstay_core::usage::{Cost, Usage};
use serde_json::json;

use super::world::{Random, World};
use crate::home::{model, tool};

/// How often an agent tries one request.
const TRIES: u32 = 1000;

/// The agent gives up: its process exits with an error.
#[derive(Debug)]
pub(crate) struct Exits;

/// What an agent of this input asks for, in order. An odd input's requests may be equal, and are
/// told apart by occurrence.
pub(crate) fn program(input: &str) -> Vec<StepAsk> {
    let input: u64 = input.parse().unwrap();
    let mut random = Random::seeded(input);
    let mut calls = Vec::new();
    for n in 0..random.below(4) + 1 {
        calls.push(model(&format!("turn {n}")));
        for _ in 0..random.below(3) {
            let effects = [
                Effect::Pure,
                Effect::Keyed,
                Effect::Queryable,
                Effect::Opaque,
            ];
            let effect = *random.choose(&effects);
            let order = if input % 2 == 1 {
                random.below(3)
            } else {
                calls.len() as u64
            };
            let mut call = tool(&json!({ "order": order }).to_string(), effect);
            call.name = format!("{effect:?}");
            call.canonical = [call.name.as_bytes(), &call.canonical].concat();
            if random.below(4) == 0 {
                call.kind = StepKind::Local;
                call.canonical.extend_from_slice(b"local");
            }
            calls.push(call);
        }
    }
    calls
}

/// One process.
pub(crate) async fn run(
    world: Arc<World>,
    task: String,
    token: String,
    input: String,
) -> Result<String, Exits> {
    let mut said = Vec::new();
    for (at, call) in program(&input).into_iter().enumerate() {
        let answer = ask(&world, &token, call).await?;
        world.has_read(&task, at, &answer);
        said.push(answer);
    }
    Ok(said.join("\n"))
}

async fn ask(world: &Arc<World>, token: &str, mut call: StepAsk) -> Result<String, Exits> {
    for _ in 0..TRIES {
        let hub = world.hub().await;
        let caller = match hub.identify(token).await {
            Ok(caller) => caller,
            Err(error) if error.code == Code::Unavailable => {
                pause().await;
                continue;
            }
            Err(_) => return Err(Exits),
        };
        let turn = match hub.step_begin(&caller, call.clone()).await {
            Ok(turn) => turn,
            Err(error) if error.code == Code::Unavailable => {
                pause().await;
                continue;
            }
            Err(_) => return Err(Exits),
        };
        let read = match turn {
            StepTurn::Answer(stream) => read(stream).await,
            StepTurn::Run(run, stream) => {
                world.call(perform(Arc::clone(world), call.effect, run));
                read(stream).await
            }
            StepTurn::Local {
                result: Some(result),
                ..
            } => return Ok(result.to_string()),
            StepTurn::Local { step, result: None } => local(world, &hub, &caller, &step).await,
        };
        match read {
            Ok((status, answer)) if status < 500 => return Ok(answer),
            Ok(_) | Err(Broken) => call.retry = true,
        }
        pause().await;
    }
    Err(Exits)
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(2)).await;
}

/// A tool inside the agent: it may die between doing it and saying so.
async fn local(
    world: &World,
    hub: &Hub,
    caller: &Caller,
    step: &str,
) -> Result<(u16, String), Broken> {
    let result = json!(world.perform(step));
    pause().await;
    match hub.step_report(caller, step, result.clone()).await {
        Ok(()) => Ok((200, result.to_string())),
        Err(_) => Err(Broken),
    }
}

async fn read(mut stream: hub::answer::AnswerStream) -> Result<(u16, String), Broken> {
    let status = stream.head().await?.status;
    let mut text = Vec::new();
    while let Some(chunk) = stream.next().await {
        text.extend_from_slice(&chunk?);
    }
    stream.delivered();
    Ok((status, String::from_utf8(text).unwrap()))
}

/// Who performs calls for the hub, with all that may happen to one.
async fn perform(world: Arc<World>, effect: Effect, mut run: StepRun) {
    let mut random = world.random();
    loop {
        if effect == Effect::Queryable && run.occasion() != Occasion::First {
            pause().await;
            if world.executions(run.id()) > 0 {
                let result = world.result(run.id());
                return finish(run, &result).await;
            }
            run.absent().await;
        }
        tokio::time::sleep(Duration::from_millis(random.below(4))).await;
        let fate = if world.is_kind() {
            99
        } else {
            random.below(100)
        };
        match fate {
            0..=4 => return fail(run).await,
            5..=12 => {
                if random.below(2) == 0 {
                    world.perform(run.id());
                }
                let (AfterUnknown::Again | AfterUnknown::ReadBack, Some(again)) =
                    run.unknown("the connection broke".into()).await
                else {
                    return;
                };
                run = again;
            }
            13..=16 => {
                if random.below(2) == 0 {
                    world.perform(run.id());
                }
                return drop(run);
            }
            _ => {
                let result = world.perform(run.id());
                tokio::time::sleep(Duration::from_millis(random.below(3))).await;
                return finish(run, &result).await;
            }
        }
    }
}

async fn finish(mut run: StepRun, result: &str) {
    run.head(200, "application/json");
    run.push(Bytes::from(result.to_owned()), true, None)
        .unwrap();
    run.finish(Settled::default()).await;
}

async fn fail(run: StepRun) {
    run.fail(Failure {
        status: 502,
        content_type: "application/json".into(),
        body: Bytes::from_static(b"{}"),
        broken: false,
        usage: Usage::default(),
        cost: Cost::default(),
        retry_after: None,
        credential: None,
    })
    .await;
}
