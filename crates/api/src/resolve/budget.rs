//! Dollar budgets: refused over a model whose price nobody knows, because such a call would count as free.

use super::Resolver;
use crate::manifest::{Kind, Object};
use crate::problem::quoted;
use std::collections::BTreeSet;

impl Resolver<'_> {
    pub(super) fn budgets(&mut self) {
        for object in self.of_kind(Kind::Agent) {
            if self
                .fleet
                .agents
                .get(object.name())
                .is_some_and(|agent| agent.budget.usd.is_some())
            {
                self.unknown_prices(object);
            }
        }
    }

    fn unknown_prices(&mut self, object: &Object) {
        for (agent, model) in self.models_without_price(object.name()) {
            let whose = if agent == object.name() {
                String::new()
            } else {
                format!(", of agent {}, its tool,", quoted(&agent))
            };
            let message = format!(
                "a budget in dollars needs prices, but the price of {}{whose} is unknown",
                quoted(&model)
            );
            let (provider, name) = model.split_once('/').unwrap_or((&model, ""));
            let hint = format!(
                "write `models: [{{name: {name}, price: {{input: …, output: …}}}}]` in Provider {}, or bound `tokens` instead",
                quoted(provider)
            );
            self.hinted(object, "spec.budget.task.usd", message, hint);
        }
    }

    /// Of the agent and of all agents it can call: their spend counts against it.
    fn models_without_price(&self, agent: &str) -> BTreeSet<(String, String)> {
        let mut agents = vec![agent.to_owned()];
        let mut seen = BTreeSet::from([agent.to_owned()]);
        let mut unknown = BTreeSet::new();
        while let Some(name) = agents.pop() {
            let facts = self
                .fleet
                .agents
                .get(&name)
                .map(|agent| &agent.model_facts)
                .into_iter()
                .flatten();
            unknown.extend(
                facts
                    .filter(|(_, facts)| facts.price.is_none())
                    .map(|(model, _)| (name.clone(), model.clone())),
            );
            agents.extend(
                self.called_by(&name)
                    .into_iter()
                    .map(|(_, agent)| agent)
                    .filter(|agent| seen.insert(agent.clone())),
            );
        }
        unknown
    }
}
