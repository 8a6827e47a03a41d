//! Models: references to them, and what is known of each that an agent may reach.

use super::Resolver;
use crate::fleet::{ModelFacts, ModelRef};
use crate::manifest::{Kind, Object};
use crate::problem::quoted;
use std::collections::{BTreeMap, BTreeSet};

impl Resolver<'_> {
    /// Reads `provider/model` references; those that can't be read or lead nowhere are reported and left out.
    pub(super) fn model_refs(
        &mut self,
        object: &Object,
        field: &str,
        texts: &[String],
    ) -> Vec<ModelRef> {
        let mut refs: Vec<ModelRef> = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let field = format!("{field}[{index}]");
            let Some(reference) = ModelRef::parse(text) else {
                let hint = match self.of_kind(Kind::Provider).first() {
                    Some(provider) if !text.contains('/') => {
                        format!(
                            "for instance {}",
                            quoted(&format!("{}/{text}", provider.name()))
                        )
                    }
                    _ => "write provider/model".to_owned(),
                };
                self.hinted(
                    object,
                    &field,
                    format!("{} is not of the form provider/model", quoted(text)),
                    hint,
                );
                continue;
            };
            if !self
                .objects
                .contains_key(&(Kind::Provider, reference.provider.as_str()))
            {
                self.missing(object, &field, Kind::Provider, &reference.provider);
            } else if refs.contains(&reference) {
                self.problem(object, &field, format!("{} is written twice", quoted(text)));
            } else {
                refs.push(reference);
            }
        }
        refs
    }

    /// Fills in what is known about every model that an agent may reach, fallbacks included.
    pub(super) fn model_facts(&mut self) {
        let agents: Vec<(String, Vec<ModelRef>)> = self
            .fleet
            .agents
            .values()
            .map(|agent| (agent.name.clone(), self.reachable(&agent.models)))
            .collect();
        for (name, refs) in agents {
            let facts: BTreeMap<String, ModelFacts> = refs
                .iter()
                .map(|reference| (reference.to_string(), self.facts_of(reference)))
                .collect();
            if let Some(agent) = self.fleet.agents.get_mut(&name) {
                agent.model_facts = facts;
            }
        }
    }

    /// The models themselves, then what their providers fall back to, and so on.
    fn reachable(&self, models: &[ModelRef]) -> Vec<ModelRef> {
        let mut reached = models.to_vec();
        let mut seen: BTreeSet<ModelRef> = reached.iter().cloned().collect();
        let mut next = 0;
        while let Some(reference) = reached.get(next) {
            let fallback = self
                .fleet
                .providers
                .get(&reference.provider)
                .map(|provider| provider.fallback.clone());
            reached.extend(
                fallback
                    .unwrap_or_default()
                    .into_iter()
                    .filter(|reference| seen.insert(reference.clone())),
            );
            next += 1;
        }
        reached
    }

    fn facts_of(&mut self, reference: &ModelRef) -> ModelFacts {
        let Some(provider) = self.fleet.providers.get_mut(&reference.provider) else {
            return ModelFacts::default();
        };
        let kind = provider.kind;
        let model = provider.models.entry(reference.model.clone());
        model
            .or_insert_with(|| {
                (self.facts.model)(kind.name(), &reference.model).unwrap_or_default()
            })
            .clone()
    }
}
