//! `mainstay up`: the keeper in the foreground, told what only the binary knows.
//!
//! The keeper may have one thread when it starts, because it forks without exec; so nothing here
//! starts a runtime, and the token of the ready link is derived from the state's key.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use api::Knowledge;
use api::fleet::{ModelFacts, Price};
use hub::keys::Keys;
use keeper::{Ended, HubCommand, Options, Ready, UpError};

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
    /// A name, with or without a port, that clients call this machine by; may be given again
    #[arg(long = "name", value_name = "NAME", value_parser = host_name)]
    names: Vec<String>,
    /// Where /metrics is read without a token, on a port of its own
    #[arg(long, value_name = "ADDR")]
    metrics: Option<SocketAddr>,
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
        metrics: args.metrics,
        hub: HubCommand {
            program: program.clone(),
            arguments: hub_arguments(args.names),
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

fn hub_arguments(names: Vec<String>) -> Vec<String> {
    let names = names
        .into_iter()
        .flat_map(|name| ["--name".to_owned(), name]);
    ["hub".to_owned()].into_iter().chain(names).collect()
}

/// `agents.example`, `agents.example:8443` or an address that leads here.
fn host_name(text: &str) -> Result<String, String> {
    let (host, port) = text.split_once(':').unwrap_or((text, "443"));
    let is_label = |label: &str| {
        let mut bytes = label.bytes();
        bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.is_empty()
            && !label.starts_with('-')
    };
    if host.split('.').all(is_label) && port.parse::<u16>().is_ok() {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("it is no host name, as in agents.example or agents.example:8443".to_owned())
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

/// What whoever resolves a fleet can't know by itself.
pub fn knowledge() -> Knowledge {
    Knowledge {
        model: facts_of,
        check_expression: gateway::check_expression,
        check_schema: gateway::check_schema,
        check_script: gateway::script::check,
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
    let (base, is_secure) = base_url(&ready.address);
    let mut stdout = std::io::stdout().lock();
    // Nobody has to read it.
    let _closed = writeln!(stdout, "ready: {base}/{query}").and_then(|()| stdout.flush());
    let mut said = format!(
        "isolation: {}; state: {}\n",
        ready.isolation,
        ready.state.display()
    );
    if let Some(metrics) = &ready.metrics {
        said.push_str(&format!("metrics: {}/metrics\n", base_url(metrics).0));
    }
    if is_secure {
        let certificate = ready.state.join("system/tls/certificate.pem");
        said.push_str(&format!(
            "certificate for clients (MAINSTAY_CA): {}\n",
            certificate.display()
        ));
    }
    let _terminal_gone = std::io::stderr().lock().write_all(said.as_bytes());
}

/// Where a client on this machine goes, and whether by TLS: on anything but loopback.
fn base_url(address: &str) -> (String, bool) {
    match address.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => (format!("http://{address}"), false),
        Ok(address) if address.ip().is_unspecified() => {
            (format!("https://localhost:{}", address.port()), true)
        }
        _ => (format!("https://{address}"), true),
    }
}

/// The owner's token of a state on this machine, for who may read its key.
pub fn owner_token(state: &Path) -> Option<String> {
    let key: [u8; 32] = std::fs::read(state.join("key")).ok()?.try_into().ok()?;
    Some(Keys::derive(&key).owner_token().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_that_a_request_can_carry() {
        for name in ["box", "agents.example", "Agents.example:8443", "192.0.2.7"] {
            assert_eq!(host_name(name), Ok(name.to_ascii_lowercase()));
        }
        for none in ["", "a b", "a..b", "-a", "a:b", "https://a", "a/b", "*.a"] {
            assert!(host_name(none).is_err(), "{none}");
        }
    }

    #[test]
    fn the_link_speaks_tls_where_others_could_listen() {
        assert_eq!(
            base_url("127.0.0.1:7080"),
            ("http://127.0.0.1:7080".to_owned(), false)
        );
        assert_eq!(
            base_url("[::1]:7080"),
            ("http://[::1]:7080".to_owned(), false)
        );
        assert_eq!(
            base_url("0.0.0.0:7080"),
            ("https://localhost:7080".to_owned(), true)
        );
        assert_eq!(
            base_url("10.0.0.1:7080"),
            ("https://10.0.0.1:7080".to_owned(), true)
        );
    }
}
