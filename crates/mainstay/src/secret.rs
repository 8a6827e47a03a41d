//! `mainstay secret`: values for providers, tools and agents, kept for the hub alone.
//!
//! A value comes from standard input and is never printed. With a hub running the hub stores it;
//! a state that nobody runs is written here, under the keeper's lock so that nobody starts it meanwhile.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use hub::HubError;
use hub::keys::Keys;
use hub::secret::{MAX_SECRET_BYTES, SecretStore};
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{CallError, Client, encoded};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{Columns, OutputArgs, cell, print, printable};
use crate::place::PlaceArgs;
use crate::task::items;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  printenv OPENAI_API_KEY | mainstay secret set openai/apiKey")]
pub struct SecretArgs {
    #[command(subcommand)]
    command: SecretCommand,
}

#[derive(Debug, clap::Subcommand)]
enum SecretCommand {
    /// Store a value read from standard input
    #[command(after_help = "Example:\n  mainstay secret set anthropic/apiKey < key.txt")]
    Set {
        #[arg(value_name = "NAME/KEY")]
        secret: String,
    },
    /// List names, never values
    #[command(after_help = "Example:\n  mainstay secret list")]
    List {
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Remove a value
    #[command(after_help = "Example:\n  mainstay secret remove anthropic/apiKey")]
    Remove {
        #[arg(value_name = "NAME/KEY")]
        secret: String,
    },
}

pub async fn secret(place: &PlaceArgs, args: SecretArgs) -> Outcome {
    let client = Client::new(place)?;
    match args.command {
        SecretCommand::Set { secret } => {
            let (name, key) = split(&secret)?;
            let value = read_value()?;
            let body = json!({"value": value});
            let path = format!("/control/secrets/{}/{}", encoded(name), encoded(key));
            let called = client.call(Method::PUT, &path, Some(&body), &[]).await;
            at_hub_or_here(place, &client, called, |here| {
                here.store
                    .set(&here.keys, name, key, &value)
                    .map(|()| Value::Null)
            })?;
        }
        SecretCommand::List { output } => {
            let called = client.get("/control/secrets").await;
            let list =
                at_hub_or_here(place, &client, called, |here| here.store.list().map(listed))?;
            print(output, &list, view)?;
        }
        SecretCommand::Remove { secret } => {
            let (name, key) = split(&secret)?;
            let path = format!("/control/secrets/{}/{}", encoded(name), encoded(key));
            let called = client.call(Method::DELETE, &path, None, &[]).await;
            at_hub_or_here(place, &client, called, |here| {
                here.store.remove(name, key).map(|()| Value::Null)
            })?;
        }
    }
    Ok(Exit::Done)
}

fn split(secret: &str) -> Result<(&str, &str), Failure> {
    secret
        .split_once('/')
        .filter(|(name, key)| !name.is_empty() && !key.is_empty())
        .ok_or_else(|| {
            Failure::usage(format!("`{}` is not NAME/KEY", printable(secret)))
                .with_hint("the same two words as in secretRef: {name: NAME, key: KEY}")
        })
}

/// Without the line end that `echo` adds.
fn read_value() -> Result<String, Failure> {
    if std::io::stdin().is_terminal() {
        eprintln!("value, then Enter and Ctrl-D (it will be visible):");
    }
    let mut value = String::new();
    let read = std::io::stdin()
        .lock()
        .take(MAX_SECRET_BYTES as u64 + 2)
        .read_to_string(&mut value);
    read.map_err(|error| {
        Failure::usage("failed to read the value from standard input").because(error)
    })?;
    let value = value.strip_suffix('\n').unwrap_or(&value);
    let value = value.strip_suffix('\r').unwrap_or(value);
    if value.is_empty() {
        return Err(Failure::usage("standard input holds no value")
            .with_hint("pipe it in: mainstay secret set NAME/KEY < FILE"));
    }
    Ok(value.to_owned())
}

/// The store of a state that nobody runs.
struct Here {
    store: SecretStore,
    keys: Keys,
    path: PathBuf,
    /// While it is held no keeper starts.
    state: keeper::State,
}

impl Here {
    /// As root the store is the hub's, whose user is another.
    fn give_to_hub(&self) -> Result<(), Failure> {
        let users = self.state.users;
        if !users.separate || !self.path.exists() {
            return Ok(());
        }
        std::os::unix::fs::chown(&self.path, Some(users.hub), Some(users.hub)).map_err(|error| {
            Failure::new(Exit::Failed, "failed to give the secret to the hub").because(error)
        })
    }
}

fn at_hub_or_here(
    place: &PlaceArgs,
    client: &Client,
    called: Result<Value, CallError>,
    here: impl FnOnce(&Here) -> Result<Value, HubError>,
) -> Result<Value, Failure> {
    match called {
        Ok(value) => Ok(value),
        Err(CallError::Lost(failure)) if client.socket().is_some() => {
            let opened = open(place).map_err(|unopened| unopened.unwrap_or(failure))?;
            let done = here(&opened).map_err(refused)?;
            opened.give_to_hub()?;
            Ok(done)
        }
        Err(error) => Err(error.into()),
    }
}

/// `None`: somebody runs it, so the hub's silence is the failure to report.
fn open(place: &PlaceArgs) -> Result<Here, Option<Failure>> {
    let root = place.state().map_err(Some)?;
    let opened = keeper::State::open(&root, keeper::Users::detect());
    let state = match opened {
        Ok(state) => state,
        Err(keeper::StateError::InUse { .. }) => return Err(None),
        Err(error) => {
            return Err(Some(
                Failure::new(Exit::Failed, "failed to open the state").because(error),
            ));
        }
    };
    let key = state.key().map_err(|error| {
        Some(Failure::new(Exit::Failed, "failed to open the state").because(error))
    })?;
    let key: [u8; 32] = key.try_into().map_err(|_| {
        Some(Failure::new(
            Exit::Failed,
            "the state's key is not 32 bytes long",
        ))
    })?;
    let workspace = state.choose_workspace(None).map_err(|error| {
        Some(Failure::new(Exit::Failed, "failed to open the state").because(error))
    })?;
    let workspace = state.root.join("workspaces").join(workspace);
    Ok(Here {
        store: SecretStore::new(&workspace),
        keys: Keys::derive(&key),
        path: workspace.join("secrets"),
        state,
    })
}

fn refused(error: HubError) -> Failure {
    let exit = match error.code {
        hub::Code::Invalid => Exit::Usage,
        hub::Code::NotFound => Exit::NotFound,
        _ => Exit::Failed,
    };
    Failure::new(exit, error.message)
}

fn listed(names: Vec<(String, String)>) -> Value {
    let items: Vec<Value> = names
        .into_iter()
        .map(|(name, key)| json!({"name": name, "key": key}))
        .collect();
    json!({"items": items})
}

fn view(list: &Value) -> String {
    let mut columns = Columns::new(&["NAME", "KEY"]);
    for secret in items(list) {
        columns.row(vec![cell(secret, "name"), cell(secret, "key")]);
    }
    columns.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_a_name_and_a_key() {
        assert_eq!(split("openai/apiKey").unwrap(), ("openai", "apiKey"));
        for wrong in ["openai", "/k", "n/", ""] {
            assert_eq!(split(wrong).unwrap_err().exit, Exit::Usage);
        }
    }
}
