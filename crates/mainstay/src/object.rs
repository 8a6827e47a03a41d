//! `mainstay get|describe`: the five kinds as written, with their status, and instances.

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
    Instance,
    /// One of the five kinds: as written, with its status.
    Object(api::Kind),
}

impl Kind {
    fn parse(text: &str) -> Result<Self, Failure> {
        if text.eq_ignore_ascii_case("instance") || text.eq_ignore_ascii_case("instances") {
            return Ok(Self::Instance);
        }
        match api::Kind::parse(text) {
            Some(kind) => Ok(Self::Object(kind)),
            None => Err(
                Failure::usage(format!("there is no kind `{}`", printable(text))).with_hint(
                    "kinds: agent, provider, promptpack, toolregistry, workspace, instance",
                ),
            ),
        }
    }

    /// Heads, each with where the cells are; then those for who wants it wide.
    fn columns(self, wide: bool) -> Vec<(&'static str, &'static str)> {
        const NAME: (&str, &str) = ("NAME", "/metadata/name");
        let (mut columns, more) = match self {
            Self::Object(api::Kind::Agent) => (
                vec![
                    NAME,
                    ("RUNTIME", "/status/runtime"),
                    ("STATE", "/status/state"),
                    ("READY", "/status/ready"),
                    ("REPLICAS", "/spec/replicas"),
                    ("QUEUED", "/status/queued"),
                    ("WORKING", "/status/working"),
                ],
                vec![
                    ("MODELS", "/spec/models"),
                    ("TOOLS", "/spec/tools"),
                    ("EXPOSED", "/status/exposedSecrets"),
                ],
            ),
            Self::Instance => (
                vec![
                    ("NAME", "/name"),
                    ("AGENT", "/agent"),
                    ("STATE", "/state"),
                    ("PID", "/pid"),
                    ("ISOLATION", "/isolation"),
                    ("RESTARTS", "/restarts"),
                ],
                vec![
                    ("TASK", "/task"),
                    ("GATEWAY", "/gatewayPort"),
                    ("SHIM", "/shimPid"),
                    ("LAST ERROR", "/lastError"),
                ],
            ),
            Self::Object(api::Kind::Provider) => (
                vec![NAME, ("TYPE", "/status/type")],
                vec![("URL", "/status/baseUrl")],
            ),
            Self::Object(api::Kind::PromptPack) => {
                (vec![NAME, ("VERSION", "/status/version")], vec![])
            }
            Self::Object(api::Kind::ToolRegistry) => {
                (vec![NAME, ("TOOLS", "/status/effects")], vec![])
            }
            Self::Object(api::Kind::Workspace) => {
                (vec![NAME], vec![("DESCRIPTION", "/spec/description")])
            }
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
    let found = fetch(&Client::new(place)?, kind, args.name.as_deref()).await?;
    print(args.output, &found, |found| match found.get("items") {
        Some(list) => described(list),
        None => described(found),
    })?;
    Ok(Exit::Done)
}

async fn fetch(client: &Client, kind: Kind, name: Option<&str>) -> Result<Value, Failure> {
    let name_path = name.map_or_else(String::new, |name| format!("/{}", encoded(name)));
    match kind {
        Kind::Object(kind) => Ok(client
            .get(&format!("/control/objects/{}{name_path}", kind.name()))
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

fn table(list: &Value, columns: &[(&'static str, &'static str)]) -> String {
    let heads: Vec<&'static str> = columns.iter().map(|(head, _)| *head).collect();
    let mut table = Columns::new(&heads);
    for item in items(list) {
        table.row(columns.iter().map(|(_, at)| cell_at(item, at)).collect());
    }
    table.render()
}

/// A field further in; of a map only the names.
fn cell_at(item: &Value, pointer: &str) -> String {
    let (parent, field) = pointer.rsplit_once('/').unwrap_or_default();
    match item.pointer(pointer) {
        Some(Value::Object(fields)) => fields.keys().cloned().collect::<Vec<_>>().join(","),
        _ => item
            .pointer(parent)
            .map_or_else(|| "-".to_owned(), |parent| cell(parent, field)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_known_in_any_case_and_number() {
        for word in ["agent", "Agents", "AGENT"] {
            assert_eq!(Kind::parse(word).unwrap(), Kind::Object(api::Kind::Agent));
        }
        assert_eq!(
            Kind::parse("toolregistries").unwrap(),
            Kind::Object(api::Kind::ToolRegistry)
        );
        assert_eq!(Kind::parse("agentz").unwrap_err().exit, Exit::Usage);
    }
}
