//! `mainstay up`: the keeper in the foreground, told what only the binary knows.
//!
//! The keeper may have one thread when it starts, because it forks without exec; so nothing here
//! starts a runtime, and the token of the ready link is derived from the state's key.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use api::fleet::{ModelFacts, Price};
use hub::keys::Keys;
use keeper::{Ended, HubCommand, Knowledge, Options, Ready, UpError};

use crate::exit::{Exit, Failure, Outcome};
use crate::hub::log_to_stderr;
use crate::place::{PlaceArgs, absolute};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  mainstay up fleet.yaml\n  mainstay up ./agents --state /srv/agents --listen 127.0.0.1:7080\n\n\
    Without a path: what was applied, or ran before, runs."
)]
pub struct UpArgs {
    /// Manifests: files, or directories with their subdirectories
    path: Vec<PathBuf>,
    /// Where clients connect
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7080")]
    listen: SocketAddr,
}

pub fn up(place: &PlaceArgs, args: UpArgs) -> Outcome {
    let paths = args
        .path
        .iter()
        .map(|path| existing(path))
        .collect::<Result<Vec<_>, _>>()?;
    let state = place.state()?;
    let program = std::env::current_exe().map_err(|error| {
        Failure::new(Exit::Failed, "failed to find this program's own file").because(error)
    })?;
    log_to_stderr();
    let options = Options {
        state,
        manifests: paths,
        listen: args.listen,
        hub: HubCommand {
            program: program.clone(),
            arguments: vec!["hub".to_owned()],
            // Credentials by {env: NAME} are among it; agents get none of it.
            environment: std::env::vars_os()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
        },
        program,
        knowledge: knowledge(),
        on_ready: Box::new(announce),
    };
    match keeper::up(options) {
        Ok(Ended::Stopped) => Ok(Exit::Done),
        Ok(Ended::Interrupted) => Ok(Exit::Interrupted),
        Err(UpError::Manifests(problems)) => {
            Err(Failure::new(Exit::Manifest, problems.to_string()))
        }
        Err(error) => Err(failed(error)),
    }
}

fn failed(error: UpError) -> Failure {
    let exit = match error.exit_code() {
        2 => Exit::Usage,
        3 => Exit::Manifest,
        4 => Exit::NotFound,
        5 => Exit::NotAllowed,
        6 => Exit::Unreachable,
        _ => Exit::Failed,
    };
    Failure::new(exit, "failed to run the fleet").because(error)
}

fn existing(path: &Path) -> Result<PathBuf, Failure> {
    let path = absolute(path)?;
    match path.try_exists() {
        Ok(true) => Ok(path),
        Ok(false) => Err(
            Failure::new(Exit::NotFound, format!("{} is not there", path.display()))
                .with_hint("`mainstay new agent NAME` writes a manifest to begin with"),
        ),
        Err(error) => Err(Failure::new(
            Exit::NotAllowed,
            format!("failed to look at {}", path.display()),
        )
        .because(error)),
    }
}

/// What resolving a fleet needs from rooms that the keeper may not depend on.
pub fn knowledge() -> Knowledge {
    Knowledge {
        model: facts_of,
        check_expression: gateway::check_expression,
        check_schema: gateway::check_schema,
    }
}

/// The dated table's facts in the manifest's form.
fn facts_of(provider_type: &str, model: &str) -> Option<ModelFacts> {
    let known = llm::lookup(provider_type, model)?;
    let price = Price {
        input: known.price.input,
        output: known.price.output,
        cache_read: known.price.cache_read,
        cache_write: known.price.cache_write,
    };
    Some(ModelFacts {
        price: Some(price),
        context: Some(known.context_tokens),
    })
}

/// The one line of data that `up` has: where to go.
fn announce(ready: &Ready) {
    let token = owner_token(&ready.state);
    let query = token.map_or_else(String::new, |token| format!("?token={token}"));
    let mut stdout = std::io::stdout().lock();
    // Nobody has to read it.
    let _closed =
        writeln!(stdout, "ready: http://{}/{query}", ready.address).and_then(|()| stdout.flush());
    eprintln!(
        "isolation: {}; state: {}",
        ready.isolation,
        ready.state.display()
    );
}

/// The owner's token of a state on this machine, for who may read its key.
pub fn owner_token(state: &Path) -> Option<String> {
    let key: [u8; 32] = std::fs::read(state.join("key")).ok()?.try_into().ok()?;
    Some(Keys::derive(&key).owner_token().to_owned())
}
