//! Prompt packs, and the prompts that agents take from them.

use super::{Resolver, listed};
use crate::agent::AgentSpec;
use crate::fleet::{PromptPack, PromptRef};
use crate::manifest::{Kind, Object, Spec};
use crate::nearest::did_you_mean;
use crate::problem::quoted;

impl Resolver<'_> {
    pub(super) fn prompt_packs(&mut self) {
        for object in self.of_kind(Kind::PromptPack) {
            let Spec::PromptPack(spec) = &object.spec else {
                continue;
            };
            let prompts = serde_json::Value::from_iter(spec.prompts.clone());
            let hash = crate::canonical::hash(&prompts);
            let pack = PromptPack {
                version: spec
                    .version
                    .clone()
                    .unwrap_or_else(|| hash[..12].to_owned()),
                prompts: spec.prompts.clone(),
            };
            self.fleet
                .prompt_packs
                .insert(object.name().to_owned(), pack);
        }
    }

    /// The text an agent starts with, and where it came from.
    pub(super) fn instructions(
        &mut self,
        object: &Object,
        spec: &AgentSpec,
    ) -> (String, Option<PromptRef>) {
        let Some(prompt) = &spec.prompt else {
            return (spec.instructions.clone().unwrap_or_default(), None);
        };
        let reference = PromptRef {
            pack: prompt.pack.clone(),
            name: prompt.name.clone(),
            version: prompt.version.clone(),
        };
        let text = self.prompt_text(object, &reference);
        (text, Some(reference))
    }

    fn prompt_text(&mut self, object: &Object, prompt: &PromptRef) -> String {
        let Some(pack) = self.fleet.prompt_packs.get(&prompt.pack) else {
            match &prompt.version {
                Some(version) => {
                    let message = format!(
                        "PromptPack {} is not in this set; version {} works only if the hub still has it",
                        quoted(&prompt.pack),
                        quoted(version)
                    );
                    self.warning(object, "spec.prompt.pack", message);
                }
                None => self.missing(object, "spec.prompt.pack", Kind::PromptPack, &prompt.pack),
            }
            return String::new();
        };
        if let Some(version) = prompt
            .version
            .as_ref()
            .filter(|version| **version != pack.version)
        {
            let message = format!(
                "PromptPack {} is at version {} in this set; version {} works only if the hub still has it",
                quoted(&prompt.pack),
                quoted(&pack.version),
                quoted(version)
            );
            self.warning(object, "spec.prompt.version", message);
            return String::new();
        }
        if let Some(text) = pack.prompts.get(&prompt.name) {
            return text.clone();
        }
        let names = || pack.prompts.keys().map(String::as_str);
        let hint = did_you_mean(&prompt.name, names())
            .unwrap_or_else(|| format!("it has {}", listed(names())));
        let message = format!(
            "PromptPack {} has no prompt {}",
            quoted(&prompt.pack),
            quoted(&prompt.name)
        );
        self.hinted(object, "spec.prompt.name", message, hint);
        String::new()
    }
}
