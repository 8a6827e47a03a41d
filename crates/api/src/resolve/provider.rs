//! Providers: their type and address, what their models cost, and where a failed call goes.

use super::{Resolver, beside};
use crate::fleet::{Limits, ModelFacts, Price, Provider, ProviderKind};
use crate::manifest::{Kind, Object, Spec};
use crate::problem::quoted;
use crate::provider::{ModelSpec, PriceSpec, ProviderSpec};
use std::collections::BTreeMap;
use std::path::Path;

impl Resolver<'_> {
    pub(super) fn providers(&mut self) {
        for object in self.of_kind(Kind::Provider) {
            let Spec::Provider(spec) = &object.spec else {
                continue;
            };
            match self.provider(object, spec) {
                Some(provider) => {
                    drop(self.fleet.providers.insert(provider.name.clone(), provider))
                }
                None => self.set_aside(object),
            }
        }
    }

    fn provider(&mut self, object: &Object, spec: &ProviderSpec) -> Option<Provider> {
        let Some(kind) = spec.kind.or_else(|| kind_by_name(object.name())) else {
            let message = format!(
                "`spec.type` is missing, and {} is not the name of a type",
                quoted(object.name())
            );
            self.hinted(
                object,
                "metadata.name",
                message,
                "write `type: openai`, `type: anthropic` or `type: script`",
            );
            return None;
        };
        let limits = &spec.limits;
        Some(Provider {
            name: object.name().to_owned(),
            kind,
            base_url: self.base_url(object, spec, kind),
            credential: self.credential(object, "spec.credential", spec.credential.as_ref()),
            models: self.models(object, spec, kind),
            limits: Limits {
                concurrency: limits.concurrency,
                requests_per_minute: limits.requests_per_minute,
                tokens_per_minute: limits.tokens_per_minute,
                timeout_ms: limits.timeout.ms,
            },
            fallback: self.model_refs(object, "spec.fallback", &spec.fallback),
            script: self.script(object, spec, kind),
        })
    }

    fn base_url(&mut self, object: &Object, spec: &ProviderSpec, kind: ProviderKind) -> String {
        let default = match kind {
            ProviderKind::Openai => "https://api.openai.com/v1",
            ProviderKind::Anthropic => "https://api.anthropic.com",
            ProviderKind::Script => {
                for field in ["baseUrl", "credential"] {
                    let written = if field == "baseUrl" {
                        spec.base_url.is_some()
                    } else {
                        spec.credential.is_some()
                    };
                    if written {
                        self.warning(
                            object,
                            &format!("spec.{field}"),
                            format!("`spec.{field}` has no effect for type script"),
                        );
                    }
                }
                return String::new();
            }
        };
        let url = spec.base_url.as_deref().unwrap_or(default);
        url.trim_end_matches('/').to_owned()
    }

    fn script(
        &mut self,
        object: &Object,
        spec: &ProviderSpec,
        kind: ProviderKind,
    ) -> Option<String> {
        let script = spec
            .script
            .as_ref()
            .filter(|_| kind == ProviderKind::Script)?;
        let path = beside(object, &script.file);
        let problem = match (self.facts.read)(Path::new(&path)) {
            Ok(text) => match (self.facts.check_script)(&text) {
                Ok(()) => return Some(text),
                Err(reason) => format!("{} is no transcript: {reason}", quoted(&path)),
            },
            Err(reason) => format!("{} can't be read: {reason}", quoted(&path)),
        };
        self.problem(object, "spec.script.file", problem);
        None
    }

    fn models(
        &mut self,
        object: &Object,
        spec: &ProviderSpec,
        kind: ProviderKind,
    ) -> BTreeMap<String, ModelFacts> {
        let mut models = BTreeMap::new();
        for (index, model) in spec.models.iter().enumerate() {
            let field = format!("spec.models[{index}]");
            let facts = self.model(object, &format!("{field}.price"), model, kind);
            if models.insert(model.name.clone(), facts).is_some() {
                let message = format!("model {} is written twice", quoted(&model.name));
                self.problem(object, &format!("{field}.name"), message);
            }
        }
        models
    }

    fn model(
        &mut self,
        object: &Object,
        price_field: &str,
        model: &ModelSpec,
        kind: ProviderKind,
    ) -> ModelFacts {
        let known = (self.facts.model)(kind.name(), &model.name).unwrap_or_default();
        let price = match &model.price {
            None => known.price,
            Some(written) => {
                let price = merged(written, known.price.as_ref());
                if price.is_none() {
                    let message =
                        "the price stays unknown: it needs both input and output".to_owned();
                    self.warning(object, price_field, message);
                }
                price
            }
        };
        ModelFacts {
            price,
            context: model.context.or(known.context),
        }
    }
}

fn kind_by_name(name: &str) -> Option<ProviderKind> {
    [
        ProviderKind::Openai,
        ProviderKind::Anthropic,
        ProviderKind::Script,
    ]
    .into_iter()
    .find(|kind| kind.name() == name)
}

/// What is written, over what is known. Half a price is no price: the other half would count as zero.
fn merged(written: &PriceSpec, known: Option<&Price>) -> Option<Price> {
    Some(Price {
        input: written.input.or(known.map(|known| known.input))?,
        output: written.output.or(known.map(|known| known.output))?,
        cache_read: written
            .cache_read
            .or(known.and_then(|known| known.cache_read)),
        cache_write: written
            .cache_write
            .or(known.and_then(|known| known.cache_write)),
    })
}
