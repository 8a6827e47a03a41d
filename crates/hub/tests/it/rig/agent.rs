//! A faithful agent and what performs its calls. What it asks for stands in its task's input, one
//! act after another, so every attempt asks alike; it tries again what broke.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use contract::shim::Exit;
use hub::answer::Broken;
use hub::caller::Caller;
use hub::step::{
    AfterUnknown, Effect, Failure, Occasion, Settled, StepAsk, StepKind, StepRun, StepTurn,
};
use hub::{Code, Hub};
use mainstay_core::usage::{Cost, Usage};
use serde_json::json;

use super::world::{Fate, World};
use crate::home::{exited, killed, model, tool};

/// How often an agent tries one request.
const TRIES: u32 = 400;
/// Tokens that a model call reserves and uses.
pub(crate) const TOKENS: u64 = 15;

/// One thing that an agent does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// `model NAME`, `hasty NAME` (a model call that is not tried again), `pure NAME`,
    /// `keyed NAME`, `queryable NAME`, `opaque NAME`, or `local NAME`, a tool of its own.
    Call {
        verb: String,
        name: String,
    },
    /// `changes NAME`: after it has read the answer of an opaque call its process is killed, and
    /// from then on it asks for another.
    Changes(String),
    /// `crash-once NAME`, `killed-once NAME`: the first time it comes here.
    CrashOnce(String),
    KilledOnce(String),
    /// `crash-while NAME`: as long as the world says so.
    CrashWhile(String),
    /// `take SECONDS`.
    Take(u64),
    /// `give-up-once NAME`.
    GiveUpOnce(String),
}

/// Reads a task's input.
pub(crate) fn program(input: &str) -> Vec<Act> {
    let acts = input
        .split(';')
        .map(str::trim)
        .filter(|act| !act.is_empty());
    acts.map(|act| {
        let (verb, name) = act.split_once(' ').unwrap_or((act, ""));
        let name = name.to_owned();
        match verb {
            "changes" => Act::Changes(name),
            "crash-once" => Act::CrashOnce(name),
            "killed-once" => Act::KilledOnce(name),
            "crash-while" => Act::CrashWhile(name),
            "take" => Act::Take(name.parse().unwrap()),
            "give-up-once" => Act::GiveUpOnce(name),
            _ => Act::Call {
                verb: verb.to_owned(),
                name,
            },
        }
    })
    .collect()
}

/// The calls of an input.
pub(crate) fn calls(input: &str) -> usize {
    let acts = program(input);
    acts.iter()
        .filter(|act| matches!(act, Act::Call { .. }))
        .count()
}

fn request(verb: &str, name: &str) -> StepAsk {
    let effect = match verb {
        "model" | "hasty" => {
            let mut ask = model(name);
            ask.reserve.tokens = TOKENS;
            return ask;
        }
        "pure" => Effect::Pure,
        "keyed" => Effect::Keyed,
        "queryable" => Effect::Queryable,
        "opaque" | "local" => Effect::Opaque,
        other => panic!("no such act: {other}"),
    };
    let mut ask = tool(&json!({ "order": name }).to_string(), effect);
    ask.name = verb.to_owned();
    ask.canonical = [verb.as_bytes(), &ask.canonical].concat();
    if verb == "local" {
        ask.kind = StepKind::Local;
    }
    ask
}

/// The tool calls that the answer of the model call at this place proposes: those up to the next.
fn proposals(program: &[Act], at: usize) -> Vec<Vec<u8>> {
    let after = program.iter().skip(at + 1);
    let tools = after
        .take_while(|act| !is_model(act))
        .filter_map(|act| match act {
            Act::Call { verb, name } => Some(request(verb, name).canonical),
            _ => None,
        });
    tools.collect()
}

fn is_model(act: &Act) -> bool {
    matches!(act, Act::Call { verb, .. } if verb == "model" || verb == "hasty")
}

/// One process: how it ends.
pub(crate) async fn run(world: Arc<World>, task: String, token: String, input: String) -> Exit {
    let mut said: Vec<String> = Vec::new();
    let program = program(&input);
    for (at, act) in program.iter().cloned().enumerate() {
        let mut process = Process {
            world: &world,
            token: &token,
            said: &said,
            proposals: Vec::new(),
        };
        let answer = match act {
            Act::Call { verb, name } => {
                if is_model(&program[at]) {
                    process.proposals = proposals(&program, at);
                }
                process.ask(&verb, &name).await
            }
            Act::Changes(name) => {
                let (before, after) = (format!("{name} before"), format!("{name} after"));
                if world.has(&before) {
                    process.ask("opaque", &after).await
                } else {
                    if process.ask("opaque", &before).await.is_some() {
                        world.first(&before);
                        return killed();
                    }
                    None
                }
            }
            Act::CrashOnce(name) if world.first(&name) => None,
            Act::CrashWhile(name) if world.has(&name) => None,
            Act::KilledOnce(name) if world.first(&name) => return killed(),
            Act::GiveUpOnce(name) if world.first(&name) => return exited(78, ""),
            Act::Take(seconds) => {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                continue;
            }
            Act::CrashOnce(_) | Act::CrashWhile(_) | Act::KilledOnce(_) | Act::GiveUpOnce(_) => {
                continue;
            }
        };
        let Some(answer) = answer else {
            return exited(1, "");
        };
        world.has_read(&task, at, &answer);
        said.push(answer);
    }
    exited(0, &said.join("\n"))
}

/// What a process has when it asks.
struct Process<'a> {
    world: &'a Arc<World>,
    token: &'a str,
    /// Earlier answers: a request to a model contains them.
    said: &'a [String],
    proposals: Vec<Vec<u8>>,
}

impl Process<'_> {
    /// One call, tried until it is answered; `None` if it is refused.
    async fn ask(&self, verb: &str, name: &str) -> Option<String> {
        let (world, token) = (self.world, self.token);
        let mut call = request(verb, name);
        if call.kind == StepKind::Model {
            call.marks = self.said.to_vec();
        }
        let tries = if verb == "hasty" { 1 } else { TRIES };
        for _ in 0..tries {
            let hub = world.hub().await;
            let turn = async {
                let caller = hub.identify(token).await?;
                let turn = hub.step_begin(&caller, call.clone()).await?;
                Ok::<_, hub::HubError>((caller, turn))
            };
            let (caller, turn) = match turn.await {
                Ok(turn) => turn,
                Err(error) if matches!(error.code, Code::Unavailable | Code::NoSpace) => {
                    pause().await;
                    continue;
                }
                Err(_) => return None,
            };
            let read = match turn {
                StepTurn::Answer(stream) => read(stream).await,
                StepTurn::Run(run, stream) => {
                    let label = format!("{verb} {name}");
                    let proposals = self.proposals.clone();
                    world.call(perform(Arc::clone(world), label, proposals, *run));
                    read(stream).await
                }
                StepTurn::Local {
                    result: Some(result),
                    ..
                } => read(result).await.map(|(_, result)| {
                    // The agent's own word, or what a person said in its place.
                    let text = serde_json::from_str(&result).unwrap_or(result);
                    (200, text)
                }),
                StepTurn::Local { step, result: None } => {
                    local(world, hub, &caller, &step, &format!("{verb} {name}")).await
                }
            };
            match read {
                Ok((status, answer)) if status < 400 => return Some(plain(answer)),
                Ok(_) | Err(Broken) => call.retry = true,
            }
            pause().await;
        }
        None
    }
}

/// The text of a tool's result, which a person's word comes as.
fn plain(answer: String) -> String {
    let result: Option<serde_json::Value> = serde_json::from_str(&answer).ok();
    let text = result
        .as_ref()
        .and_then(|result| result.pointer("/content/0/text"));
    text.and_then(serde_json::Value::as_str)
        .map_or(answer.clone(), str::to_owned)
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(2)).await;
}

/// A tool inside the agent: it may die between doing it and saying so.
async fn local(
    world: &World,
    mut hub: Hub,
    caller: &Caller,
    step: &str,
    label: &str,
) -> Result<(u16, String), Broken> {
    let result = world.perform(step, label);
    pause().await;
    let mut left = 1 + u32::from(world.is_double);
    for _ in 0..TRIES {
        match hub.step_report(caller, step, json!(result)).await {
            Ok(()) if left == 1 => return Ok((200, result)),
            Ok(()) => left -= 1,
            // Whether it was heard is not known: it is said again.
            Err(error) if error.code == Code::Unavailable => {
                pause().await;
                hub = world.hub().await;
            }
            Err(_) => break,
        }
    }
    Err(Broken)
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
async fn perform(world: Arc<World>, label: String, proposals: Vec<Vec<u8>>, mut run: StepRun) {
    loop {
        if run.occasion() == Occasion::ReadBack {
            pause().await;
            if world.executions(run.id()) > 0 {
                let result = world.result(run.id(), &label);
                return finish(run, &label, &result, proposals).await;
            }
            run.absent().await;
        }
        world.dawdle(4).await;
        let fate = world.fate(&label);
        if matches!(fate, Fate::Answer | Fate::BreakAfter | Fate::DropAfter) {
            world.perform(run.id(), &label);
        }
        match fate {
            Fate::Answer => {
                world.dawdle(3).await;
                let result = world.result(run.id(), &label);
                return finish(run, &label, &result, proposals).await;
            }
            Fate::Fail => return fail(run, 502, None).await,
            Fate::Unauthorized => {
                return fail(run, 401, Some("every credential was refused".into())).await;
            }
            Fate::BreakAfter | Fate::BreakBefore => {
                let (AfterUnknown::Again | AfterUnknown::ReadBack, Some(again)) =
                    run.unknown("the connection broke".into()).await
                else {
                    return;
                };
                run = again;
            }
            Fate::DropAfter => return drop(run),
        }
    }
}

async fn finish(mut run: StepRun, label: &str, result: &str, proposals: Vec<Vec<u8>>) {
    run.head(200, "application/json");
    run.push(Bytes::from(result.to_owned()), true, None)
        .unwrap();
    let mut settled = Settled::default();
    if label.starts_with("model") || label.starts_with("hasty") {
        settled.usage.input_tokens = TOKENS - 5;
        settled.usage.output_tokens = 5;
        settled.cost.micro_usd = 7;
        settled.marks = vec![result.to_owned()];
        settled.proposals = proposals;
    }
    run.finish(settled).await;
}

async fn fail(run: StepRun, status: u16, credential: Option<String>) {
    run.fail(Failure {
        status,
        content_type: "application/json".into(),
        body: Bytes::from_static(b"{}"),
        broken: false,
        usage: Usage::default(),
        cost: Cost::default(),
        retry_after: None,
        credential,
    })
    .await;
}
