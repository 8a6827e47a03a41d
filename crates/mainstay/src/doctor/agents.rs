//! The fleet's part of `doctor`: are credentials there, can commands be started, what became of work.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use api::Fleet;
use api::fleet::{Agent, Credential, Runtime, ToolKind};
use serde_json::Value;

use super::{Finding, no_agent};
use crate::client::{Client, encoded};
use crate::exit::Failure;
use crate::output::cell;
use crate::task::items;

pub(super) async fn look(
    state: &Path,
    client: &Client,
    only: Option<&str>,
) -> Result<Vec<Finding>, Failure> {
    let Some(fleet) = newest_fleet(state) else {
        if let Some(name) = only {
            return Err(no_agent(name, "none; nothing was run in this state yet"));
        }
        return Ok(vec![Finding::warn(
            "fleet",
            "no manifests were run in this state yet",
            "mainstay up PATH",
        )]);
    };
    let known = fleet.agents.keys().cloned().collect::<Vec<_>>().join(", ");
    if let Some(name) = only.filter(|name| !fleet.agents.contains_key(*name)) {
        return Err(no_agent(name, &known));
    }
    let agents: Vec<&Agent> = fleet
        .agents
        .values()
        .filter(|agent| only.is_none_or(|name| agent.name == name))
        .collect();
    let secrets = secrets(state, client).await;
    let mut findings = credentials(&fleet, &agents, secrets.as_ref());
    findings.extend(agents.iter().filter_map(|agent| command(state, agent)));
    findings.extend(servers(&fleet, &agents));
    findings.extend(super::volume::look(state, &agents));
    for agent in &agents {
        findings.extend(work(client, agent).await);
    }
    Ok(findings)
}

/// The fleet of the generation with the highest number.
fn newest_fleet(state: &Path) -> Option<Fleet> {
    let entries = std::fs::read_dir(state.join("generations")).ok()?.flatten();
    let number = |path: &PathBuf| {
        path.file_name()
            .and_then(|name| name.to_str()?.parse::<u64>().ok())
    };
    let newest = entries
        .map(|entry| entry.path())
        .filter(|path| number(path).is_some())
        .max_by_key(number)?;
    serde_json::from_slice(&std::fs::read(newest.join("fleet.json")).ok()?).ok()
}

/// Names of secrets that are set; `None` if that can't be known from here.
async fn secrets(state: &Path, client: &Client) -> Option<BTreeSet<(String, String)>> {
    match client.get("/control/secrets").await {
        Ok(list) => Some(
            items(&list)
                .map(|secret| (cell(secret, "name"), cell(secret, "key")))
                .collect(),
        ),
        Err(_) => {
            let store = hub::secret::SecretStore::new(&crate::place::workspace_dir(state));
            store.list().ok().map(|names| names.into_iter().collect())
        }
    }
}

fn credentials(
    fleet: &Fleet,
    agents: &[&Agent],
    secrets: Option<&BTreeSet<(String, String)>>,
) -> Vec<Finding> {
    let providers: BTreeSet<&str> = agents
        .iter()
        .flat_map(|agent| agent.models.iter().map(|model| model.provider.as_str()))
        .collect();
    let tools: BTreeSet<&str> = agents
        .iter()
        .flat_map(|agent| agent.tools.iter().map(|tool| tool.tool.as_str()))
        .collect();
    let of_providers = fleet
        .providers
        .iter()
        .filter(|(name, _)| providers.contains(name.as_str()));
    let of_providers = of_providers.filter_map(|(name, provider)| {
        Some((format!("provider {name}"), provider.credential.as_ref()?))
    });
    let of_tools = fleet
        .tools
        .iter()
        .filter(|(name, _)| tools.contains(name.as_str()));
    let of_tools = of_tools.filter_map(|(name, tool)| match &tool.kind {
        ToolKind::McpHttp { credential, .. } | ToolKind::Http { credential, .. } => {
            Some((format!("tool {name}"), credential.as_ref()?))
        }
        ToolKind::McpStdio { .. } | ToolKind::Agent { .. } => None,
    });
    let mut findings: Vec<Finding> = of_providers
        .chain(of_tools)
        .map(|(check, credential)| credential_is_there(&check, credential, secrets))
        .collect();
    for agent in agents {
        for (variable, secret) in &agent.secret_env {
            let check = format!("agent {} {variable}", agent.name);
            findings.push(secret_is_there(&check, &secret.name, &secret.key, secrets));
        }
    }
    findings
}

fn credential_is_there(
    check: &str,
    credential: &Credential,
    secrets: Option<&BTreeSet<(String, String)>>,
) -> Finding {
    match credential {
        Credential::SecretRef(secret) => secret_is_there(check, &secret.name, &secret.key, secrets),
        Credential::Env { name }
            if std::env::var_os(name).is_some_and(|value| !value.is_empty()) =>
        {
            Finding::ok(check, format!("variable {name} is set here"))
        }
        Credential::Env { name } => Finding::warn(
            check,
            format!("variable {name} is not set here"),
            format!(
                "it counts where `mainstay up` was started; set {name} there, or keep a secret and use secretRef"
            ),
        ),
        Credential::File { path } => match std::fs::metadata(path) {
            Ok(_) => Finding::ok(check, format!("file {path} is there")),
            Err(error) => Finding::fail(
                check,
                format!("file {path}: {error}"),
                "put the credential there, readable for the hub",
            ),
        },
    }
}

fn secret_is_there(
    check: &str,
    name: &str,
    key: &str,
    secrets: Option<&BTreeSet<(String, String)>>,
) -> Finding {
    let hint = format!("mainstay secret set {name}/{key} < FILE");
    match secrets {
        Some(secrets) if secrets.contains(&(name.to_owned(), key.to_owned())) => {
            Finding::ok(check, format!("secret {name}/{key} is set"))
        }
        Some(_) => Finding::fail(check, format!("secret {name}/{key} is not set"), hint),
        None => Finding::warn(
            check,
            format!("secret {name}/{key}: the store can't be read from here"),
            hint,
        ),
    }
}

fn command(state: &Path, agent: &Agent) -> Option<Finding> {
    let command = match &agent.runtime {
        Runtime::Builtin => return None,
        Runtime::Exec { command } | Runtime::Service { command, .. } => command,
    };
    let source = agent
        .source
        .as_ref()
        .and_then(|source| source.hash.as_ref())
        .map(|hash| state.join("artifacts").join(hash));
    Some(can_start(
        &format!("agent {}", agent.name),
        command,
        source.as_deref(),
    ))
}

fn servers(fleet: &Fleet, agents: &[&Agent]) -> Vec<Finding> {
    let used: BTreeSet<&str> = agents
        .iter()
        .flat_map(|agent| agent.tools.iter().map(|tool| tool.tool.as_str()))
        .collect();
    let tools = fleet
        .tools
        .iter()
        .filter(|(name, _)| used.contains(name.as_str()));
    tools
        .filter_map(|(name, tool)| match &tool.kind {
            ToolKind::McpStdio { command, .. } => {
                Some(can_start(&format!("tool {name}"), command, None))
            }
            _ => None,
        })
        .collect()
}

fn can_start(check: &str, command: &[String], source: Option<&Path>) -> Finding {
    let program = command.first().map_or("", String::as_str);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = if program.contains('/') {
        let path = source.unwrap_or(Path::new("/")).join(program);
        path.is_file().then_some(path)
    } else {
        std::env::split_paths(&path)
            .map(|directory| directory.join(program))
            .find(|path| path.is_file())
    };
    match found {
        Some(path) => Finding::ok(check, format!("starts {}", path.display())),
        None => Finding::fail(
            check,
            format!("there is no program {program}"),
            "install it, or correct the command in the manifest",
        ),
    }
}

/// How the agent stands, and tasks of it that wait for a person.
async fn work(client: &Client, agent: &Agent) -> Vec<Finding> {
    let check = format!("agent {}", agent.name);
    let mut findings = Vec::new();
    let name = encoded(&agent.name);
    if let Ok(view) = client.get(&format!("/api/v1/agents/{name}")).await {
        let ready = view.get("ready").and_then(Value::as_u64).unwrap_or(0);
        let wanted = view.get("replicas").and_then(Value::as_u64).unwrap_or(0);
        let text = format!(
            "{}, {ready} of {wanted} ready, {} waiting",
            cell(&view, "state"),
            cell(&view, "queued")
        );
        findings.push(match cell(&view, "state").as_str() {
            "stopped" => Finding::warn(&check, text, format!("mainstay start {}", agent.name)),
            _ if ready < wanted => {
                Finding::warn(&check, text, format!("mainstay logs {}", agent.name))
            }
            _ => Finding::ok(&check, text),
        });
    }
    if let Ok(list) = client
        .get(&format!(
            "/api/v1/tasks?agent={name}&state=input-required&limit=200"
        ))
        .await
    {
        let waiting = items(&list).count();
        if waiting > 0 {
            let hint = format!(
                "mainstay task list --agent {} --in input-required",
                agent.name
            );
            findings.push(Finding::warn(
                &check,
                format!("{waiting} tasks wait for a person"),
                hint,
            ));
        }
    }
    findings
}
