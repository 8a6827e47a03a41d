//! Versions of prompt packs: kept for ever, so that a pin outlives the file it came from.
//!
//! A version that a manifest names is immutable: the same name and version with other text is
//! refused. A pin that only this store still knows is filled in from here.

use std::collections::BTreeMap;

use api::fleet::{Fleet, PromptPack, PromptRef};
use store::{Row, StateRow};

use crate::projection;
use crate::tx::Tx;

const KIND: &str = "prompt";

impl Tx<'_> {
    /// Checks and keeps the fleet's packs, and fills in pinned prompts that it doesn't carry.
    pub(crate) fn prompts(&mut self, fleet: &mut Fleet) -> Result<(), Vec<String>> {
        let mut problems = Vec::new();
        let mut new = Vec::new();
        for (name, pack) in &fleet.prompt_packs {
            match self.known_prompts(name, &pack.version) {
                Some(known) if known == pack.prompts => {}
                Some(_) => problems.push(format!(
                    "PromptPack {name}: version {} is known with other text, and a version is immutable: give the change a version of its own",
                    pack.version
                )),
                None => new.push((name.clone(), pack.clone())),
            }
        }
        let filled: Vec<(String, Result<String, String>)> = fleet
            .agents
            .iter()
            .filter(|(_, agent)| agent.instructions.is_empty())
            .filter_map(|(name, agent)| {
                Some((
                    name.clone(),
                    self.pinned(name, agent.prompt.as_ref()?, fleet),
                ))
            })
            .collect();
        for (agent, instructions) in filled {
            match instructions {
                Ok(text) => {
                    if let Some(agent) = fleet.agents.get_mut(&agent) {
                        agent.instructions = text;
                    }
                }
                Err(problem) => problems.push(problem),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        for (name, pack) in new {
            self.keep_prompts(&name, &pack);
        }
        Ok(())
    }

    fn pinned(&self, agent: &str, prompt: &PromptRef, fleet: &Fleet) -> Result<String, String> {
        let current = fleet.prompt_packs.get(&prompt.pack);
        let version = prompt
            .version
            .clone()
            .or_else(|| current.map(|pack| pack.version.clone()))
            .unwrap_or_default();
        let in_set = current
            .filter(|pack| pack.version == version)
            .map(|pack| pack.prompts.clone());
        let prompts = in_set.or_else(|| self.known_prompts(&prompt.pack, &version));
        prompts.as_ref().and_then(|prompts| prompts.get(&prompt.name)).cloned().ok_or_else(|| {
            format!(
                "Agent {agent}: prompt {} of PromptPack {} in version {version} is neither in the manifests nor known from before",
                prompt.name, prompt.pack
            )
        })
    }

    fn known_prompts(&self, name: &str, version: &str) -> Option<BTreeMap<String, String>> {
        let row = self
            .state
            .system
            .read()
            .state(KIND, &format!("{name}@{version}"))
            .ok()
            .flatten()?;
        projection::decode(&row.body)
    }

    fn keep_prompts(&mut self, name: &str, pack: &PromptPack) {
        let key = format!("{name}@{}", pack.version);
        let body = projection::encode(&pack.prompts);
        let row = Row::State(StateRow {
            kind: KIND.into(),
            key: key.clone(),
            body: body.clone(),
        });
        self.system("prompt.kept", &key, body, row);
    }
}
