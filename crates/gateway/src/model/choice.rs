//! Which model serves a request, and which ones stand in for it.

use api::fleet::{Agent, ModelFacts, ModelRef, Provider};
use hub::caller::Caller;
use hub::{Code, HubError, Refusal};

use super::Candidate;

/// The model asked for if it is in the agent's list, by its full or its bare name; else the first.
pub(super) fn choose<'a>(agent: &'a Agent, asked: &str) -> Result<&'a ModelRef, Refusal> {
    let full = agent.models.iter().find(|model| model.to_string() == asked);
    let bare = || agent.models.iter().find(|model| model.model == asked);
    full.or_else(bare)
        .or_else(|| agent.models.first())
        .ok_or_else(|| {
            HubError::new(
                Code::NotAllowed,
                format!(
                    "agent {} has no models: list some in spec.models",
                    agent.name
                ),
            )
        })
}

/// The chosen model, then what its provider falls back on, and so on. Which models is the task's
/// own generation; how their providers are reached is today's.
pub(super) fn candidates(caller: &Caller, chosen: &ModelRef) -> Vec<Candidate> {
    let mut order = Vec::new();
    follow(caller, chosen, &mut order);
    order
        .iter()
        .filter_map(|model| candidate(caller, model))
        .collect()
}

fn follow(caller: &Caller, model: &ModelRef, order: &mut Vec<ModelRef>) {
    if order.contains(model) {
        return;
    }
    order.push(model.clone());
    let pinned = caller.fleet.providers.get(&model.provider);
    for next in pinned.into_iter().flat_map(|provider| &provider.fallback) {
        follow(caller, next, order);
    }
}

fn candidate(caller: &Caller, model: &ModelRef) -> Option<Candidate> {
    let provider = [&caller.today, &caller.fleet]
        .into_iter()
        .find_map(|fleet| fleet.providers.get(&model.provider))?;
    let facts = facts(caller, provider, model);
    Some(Candidate {
        model: model.clone(),
        provider: provider.clone(),
        price: facts.and_then(|facts| facts.price.as_ref()).map(price),
    })
}

fn facts<'a>(
    caller: &'a Caller,
    provider: &'a Provider,
    model: &ModelRef,
) -> Option<&'a ModelFacts> {
    let todays = provider.models.get(&model.model);
    todays.or_else(|| caller.agent.model_facts.get(&model.to_string()))
}

fn price(price: &api::fleet::Price) -> llm::Price {
    llm::Price {
        input: price.input,
        output: price.output,
        cache_read: price.cache_read,
        cache_write: price.cache_write,
        long: None,
    }
}
