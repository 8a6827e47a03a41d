//! `mainstay start|stop|restart`: an operator's hand on an agent or one instance of it.

use serde_json::json;

use crate::client::Client;
use crate::exit::{Exit, Outcome};
use crate::place::PlaceArgs;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  mainstay start researcher")]
pub struct StartArgs {
    #[arg(value_name = "AGENT[/INSTANCE]")]
    target: String,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  mainstay stop researcher\n  mainstay stop researcher/1")]
pub struct StopArgs {
    #[arg(value_name = "AGENT[/INSTANCE]")]
    target: String,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  mainstay restart researcher/researcher-0")]
pub struct RestartArgs {
    #[arg(value_name = "AGENT[/INSTANCE]")]
    target: String,
}

pub async fn start(place: &PlaceArgs, args: StartArgs) -> Outcome {
    act(place, "start", &args.target).await
}

pub async fn stop(place: &PlaceArgs, args: StopArgs) -> Outcome {
    act(place, "stop", &args.target).await
}

pub async fn restart(place: &PlaceArgs, args: RestartArgs) -> Outcome {
    act(place, "restart", &args.target).await
}

async fn act(place: &PlaceArgs, verb: &str, target: &str) -> Outcome {
    let target = in_full(target);
    Client::new(place)?
        .post(&format!("/control/{verb}"), &json!({"target": target}))
        .await?;
    Ok(Exit::Done)
}

/// `researcher/0` and `researcher/researcher-0` both name `researcher/researcher-0`.
fn in_full(target: &str) -> String {
    match (target.rsplit_once('/'), instance(target)) {
        (Some((owner, _)), Some(instance)) => format!("{owner}/{instance}"),
        _ => target.to_owned(),
    }
}

/// `researcher/0` and `researcher/researcher-0` both name the instance `researcher-0`. A tool
/// server is shown as `registry/tool`, and its instances begin with `registry-tool`.
pub fn instance_or_owner(target: &str) -> String {
    instance(target).unwrap_or_else(|| target.replace('/', "-"))
}

/// The instance that is named behind its owner, if one is.
fn instance(target: &str) -> Option<String> {
    let (owner, last) = target.rsplit_once('/')?;
    let owner = owner.replace('/', "-");
    if !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(format!("{owner}-{last}"));
    }
    let index = last.strip_prefix(&owner)?;
    index.starts_with('-').then(|| last.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_named_in_full_or_by_its_number() {
        let check = |target: &str, expect: &str| assert_eq!(instance_or_owner(target), expect);
        check("researcher", "researcher");
        check("researcher/1", "researcher-1");
        assert_eq!(instance("researcher/"), None);
        check("researcher/researcher-1", "researcher-1");
        check("desk/files", "desk-files");
        check("desk/files/0", "desk-files-0");
        check("desk/files/desk-files-0", "desk-files-0");
        assert_eq!(in_full("desk/files/0"), "desk/files/desk-files-0");
        assert_eq!(in_full("researcher"), "researcher");
        assert_eq!(in_full("researcher/1"), "researcher/researcher-1");
    }
}
