//! `mainstay get|describe`: the five kinds and instances, as the hub has them now.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::client::{Client, encoded};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{Columns, OutputArgs, cell, described, print, printable};
use crate::place::PlaceArgs;
use crate::task::items;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  mainstay get agents\n  mainstay get provider openai -o yaml\n  mainstay get instances -o wide"
)]
pub struct GetArgs {
    /// agent, provider, promptpack, toolregistry, workspace or instance
    kind: String,
    name: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  mainstay describe agent helper")]
pub struct DescribeArgs {
    /// agent, provider, promptpack, toolregistry, workspace or instance
    kind: String,
    name: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// What can be got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Agent,
    Instance,
    /// A kind that is shown as it was resolved.
    Object(&'static str),
}

impl Kind {
    fn parse(text: &str) -> Result<Self, Failure> {
        if text.eq_ignore_ascii_case("instance") || text.eq_ignore_ascii_case("instances") {
            return Ok(Self::Instance);
        }
        match api::Kind::parse(text) {
            Some(api::Kind::Agent) => Ok(Self::Agent),
            Some(kind) => Ok(Self::Object(kind.name())),
            None => Err(
                Failure::usage(format!("there is no kind `{}`", printable(text))).with_hint(
                    "kinds: agent, provider, promptpack, toolregistry, workspace, instance",
                ),
            ),
        }
    }

    fn columns(self, wide: bool) -> Vec<(&'static str, &'static str)> {
        let (mut columns, more) = match self {
            Self::Agent => (
                vec![
                    ("NAME", "name"),
                    ("RUNTIME", "runtime"),
                    ("STATE", "state"),
                    ("READY", "ready"),
                    ("REPLICAS", "replicas"),
                    ("QUEUED", "queued"),
                    ("WORKING", "working"),
                ],
                vec![
                    ("MODELS", "models"),
                    ("TOOLS", "tools"),
                    ("EXPOSED", "exposedSecrets"),
                ],
            ),
            Self::Instance => (
                vec![
                    ("NAME", "name"),
                    ("AGENT", "agent"),
                    ("STATE", "state"),
                    ("PID", "pid"),
                    ("ISOLATION", "isolation"),
                    ("RESTARTS", "restarts"),
                ],
                vec![
                    ("TASK", "task"),
                    ("GATEWAY", "gatewayPort"),
                    ("SHIM", "shimPid"),
                ],
            ),
            Self::Object("Provider") => (
                vec![("NAME", "name"), ("TYPE", "kind")],
                vec![("URL", "base_url")],
            ),
            Self::Object("PromptPack") => (vec![("NAME", "name"), ("VERSION", "version")], vec![]),
            Self::Object("ToolRegistry") => {
                (vec![("NAME", "name"), ("TOOLS", "toolNames")], vec![])
            }
            Self::Object(_) => (vec![("NAME", "name")], vec![("DESCRIPTION", "description")]),
        };
        if wide {
            columns.extend(more);
        }
        columns
    }
}

pub async fn get(place: &PlaceArgs, args: GetArgs) -> Outcome {
    let kind = Kind::parse(&args.kind)?;
    let found = fetch(&Client::new(place)?, kind, args.name.as_deref()).await?;
    let columns = kind.columns(args.output.is_wide());
    print(args.output, &found, |found| {
        let one = json!({"items": [found]});
        table(
            if found.get("items").is_some_and(Value::is_array) {
                found
            } else {
                &one
            },
            &columns,
        )
    })?;
    Ok(Exit::Done)
}

pub async fn describe(place: &PlaceArgs, args: DescribeArgs) -> Outcome {
    let kind = Kind::parse(&args.kind)?;
    let client = Client::new(place)?;
    let mut found = fetch(&client, kind, args.name.as_deref()).await?;
    if let (Kind::Agent, Some(name)) = (kind, &args.name) {
        // What was resolved, beside how it stands.
        found["spec"] = client
            .get(&format!("/control/objects/Agent/{}", encoded(name)))
            .await?;
    }
    print(args.output, &found, |found| match found.get("items") {
        Some(list) => described(list),
        None => described(found),
    })?;
    Ok(Exit::Done)
}

async fn fetch(client: &Client, kind: Kind, name: Option<&str>) -> Result<Value, Failure> {
    let name_path = name.map_or_else(String::new, |name| format!("/{}", encoded(name)));
    match kind {
        Kind::Agent => Ok(client.get(&format!("/api/v1/agents{name_path}")).await?),
        Kind::Object("ToolRegistry") => registries(client, name).await,
        Kind::Object(kind) => Ok(client
            .get(&format!("/control/objects/{kind}{name_path}"))
            .await?),
        Kind::Instance => {
            let list = client.get("/api/v1/instances").await?;
            let Some(name) = name else { return Ok(list) };
            let found = items(&list)
                .find(|instance| cell(instance, "name") == name)
                .cloned();
            found.ok_or_else(|| {
                Failure::new(Exit::NotFound, format!("no instance `{}`", printable(name)))
                    .with_hint("mainstay get instances")
            })
        }
    }
}

/// Tools by the registry they stand in, as they were written.
async fn registries(client: &Client, name: Option<&str>) -> Result<Value, Failure> {
    let list = client.get("/control/objects/ToolRegistry").await?;
    let mut by_name: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for tool in items(&list) {
        by_name
            .entry(cell(tool, "registry"))
            .or_default()
            .push(tool.clone());
    }
    let registry = |(name, tools): (String, Vec<Value>)| {
        let names: Vec<String> = tools.iter().map(|tool| cell(tool, "name")).collect();
        json!({"name": name, "toolNames": names, "tools": tools})
    };
    let Some(name) = name else {
        let registries: Vec<Value> = by_name.into_iter().map(registry).collect();
        return Ok(json!({"items": registries, "next": null}));
    };
    by_name.remove_entry(name).map(registry).ok_or_else(|| {
        Failure::new(
            Exit::NotFound,
            format!("no ToolRegistry {}", printable(name)),
        )
        .with_hint("mainstay get toolregistries")
    })
}

fn table(list: &Value, columns: &[(&'static str, &'static str)]) -> String {
    let heads: Vec<&'static str> = columns.iter().map(|(head, _)| *head).collect();
    let mut table = Columns::new(&heads);
    for item in items(list) {
        table.row(columns.iter().map(|(_, field)| cell(item, field)).collect());
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_known_in_any_case_and_number() {
        for word in ["agent", "Agents", "AGENT"] {
            assert_eq!(Kind::parse(word).unwrap(), Kind::Agent);
        }
        assert_eq!(
            Kind::parse("toolregistries").unwrap(),
            Kind::Object("ToolRegistry")
        );
        assert_eq!(Kind::parse("agentz").unwrap_err().exit, Exit::Usage);
    }
}
