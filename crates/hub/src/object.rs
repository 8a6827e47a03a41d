//! Objects as people wrote them, each with its status: what `get` and `describe` show.
//!
//! A spec comes from the manifests that the keeper put beside the current generation's fleet, with
//! its defaults filled in; a status from the fleet and from what runs. The fleet's own shape is
//! between keeper and hub, and is never shown.

use std::path::Path;
use std::sync::Arc;

use api::fleet::{Fleet, ModelFacts, Provider};
use api::{Document, Kind};
use serde_json::{Map, Value, json};

use crate::admin::agents;
use crate::view::AgentView;
use crate::{Code, Hub, HubError};

impl Hub {
    /// Objects of one kind, by name.
    pub async fn object_list(&self, kind: &str) -> Result<Vec<Value>, HubError> {
        let kind = Kind::parse(kind).ok_or_else(|| {
            let kinds = Kind::ALL.map(Kind::name).join(", ");
            HubError::new(Code::NotFound, format!("no kind {kind}: there is {kinds}"))
        })?;
        let state_dir = self.shared.state_dir.clone();
        let (number, agents) = self
            .writer
            .run(|tx| {
                let current = tx.state.generation.as_ref();
                (current.map(|current| current.number), agents(tx.state))
            })
            .await?;
        let Some(number) = number else {
            return Ok(Vec::new());
        };
        let now = Now {
            number,
            fleet: self.fleet(),
            agents,
        };
        let failed = |error: String| {
            HubError::new(
                Code::Internal,
                format!("failed to read generation {number}: {error}"),
            )
        };
        tokio::task::spawn_blocking(move || now.objects(kind, &state_dir))
            .await
            .map_err(|error| failed(error.to_string()))?
            .map_err(failed)
    }

    /// One object.
    pub async fn object_get(&self, kind: &str, name: &str) -> Result<Value, HubError> {
        let mut objects = self.object_list(kind).await?;
        let named = |object: &Value| object.pointer("/metadata/name") == Some(&name.into());
        if let Some(at) = objects.iter().position(named) {
            return Ok(objects.swap_remove(at));
        }
        let wanted = name.to_owned();
        let hint = match Kind::parse(kind) {
            Some(Kind::Agent) => self.writer.run(move |tx| tx.state.nearest(&wanted)).await?,
            _ => String::new(),
        };
        let kind = Kind::parse(kind).map_or_else(|| kind.to_owned(), |kind| kind.name().to_owned());
        Err(HubError::new(
            Code::NotFound,
            format!("no {kind} {name}{hint}"),
        ))
    }
}

/// What runs at this moment.
struct Now {
    number: u64,
    fleet: Arc<Fleet>,
    agents: Vec<AgentView>,
}

impl Now {
    fn objects(&self, kind: Kind, state_dir: &Path) -> Result<Vec<Value>, String> {
        let documents = manifests(state_dir, self.number).map_err(|error| error.to_string())?;
        let objects = api::parse(&documents).map_err(|problems| problems.to_string())?;
        let written = objects.iter().filter(|object| object.kind() == kind);
        // A file given twice is there twice.
        let by_name: std::collections::BTreeMap<&str, &api::Object> =
            written.map(|object| (object.name(), object)).collect();
        let mut shown: Vec<Value> = by_name
            .values()
            .map(|object| self.with_status(object.to_json(), kind, object.name()))
            .collect();
        if kind == Kind::Workspace && shown.is_empty() {
            let name = self.fleet.workspace.as_str();
            let object = json!({"apiVersion": api::API_VERSION, "kind": kind.name(), "metadata": {"name": name}, "spec": {}});
            shown.push(self.with_status(object, kind, name));
        }
        Ok(shown)
    }

    fn with_status(&self, mut object: Value, kind: Kind, name: &str) -> Value {
        object["status"] = match kind {
            Kind::Agent => self.agent(name),
            Kind::Provider => self.fleet.providers.get(name).map_or(Value::Null, provider),
            Kind::PromptPack => {
                let pack = self.fleet.prompt_packs.get(name);
                json!({"version": pack.map(|pack| pack.version.as_str())})
            }
            Kind::ToolRegistry => self.registry(name),
            Kind::Workspace => json!({"generation": self.number}),
        };
        object
    }

    /// What its spec doesn't say already.
    fn agent(&self, name: &str) -> Value {
        let found = self.agents.iter().find(|agent| agent.name == name);
        let mut status = found.map_or(Value::Null, |agent| json!(agent));
        if let Value::Object(fields) = &mut status {
            for said in ["name", "models", "tools", "replicas"] {
                fields.remove(said);
            }
        }
        status
    }

    /// The effect of each tool, whether it was written or comes from the tool's kind.
    fn registry(&self, name: &str) -> Value {
        let tools = self.fleet.tools.values();
        let effects: Map<String, Value> = tools
            .filter(|tool| tool.registry == name)
            .map(|tool| (tool.name.clone(), json!(tool.effect)))
            .collect();
        json!({"effects": effects})
    }
}

fn provider(provider: &Provider) -> Value {
    let models: Map<String, Value> = provider
        .models
        .iter()
        .map(|(name, facts)| (name.clone(), model(facts)))
        .collect();
    json!({"type": provider.kind, "baseUrl": provider.base_url, "models": models})
}

/// Null means unknown, never zero.
fn model(facts: &ModelFacts) -> Value {
    let price = facts.price.as_ref().map(|price| {
        json!({
            "input": price.input,
            "output": price.output,
            "cacheRead": price.cache_read,
            "cacheWrite": price.cache_write,
        })
    });
    json!({"context": facts.context, "price": price})
}

/// The manifests of a generation, as the keeper copied them. Files beside them, such as
/// transcripts, were copied too and are passed over.
fn manifests(state_dir: &Path, number: u64) -> std::io::Result<Vec<Document>> {
    let directory = state_dir.join(format!("generations/{number:03}/manifests"));
    let mut documents = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let text = std::fs::read_to_string(&path)?;
        documents.push(Document::found(path.display().to_string(), text));
    }
    documents.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(documents)
}
