//! Agents: what each runs, with which environment, and within which bounds.

use super::home::Home;
use super::{Resolver, beside, secret_ref};
use crate::agent::{AgentSpec, RuntimeSpec, TaskBudgetSpec};
use crate::fleet::{Agent, Placement, Resources, Runtime, Scale, Source, TaskBudget, Volume};
use crate::format::is_env;
use crate::kubernetes::sent_source;
use crate::manifest::{Kind, Object, Spec};
use crate::placement::{PlacementSpec, ResourcesSpec};
use crate::problem::quoted;
use crate::scale::ScaleSpec;
use std::collections::BTreeMap;

/// Environment variables that Mainstay sets for agents and MCP servers alike, so a manifest can't. Beside these,
/// everything that begins with `MAINSTAY_`.
pub const STANDARD_ENV: [&str; 6] = ["HOME", "LANG", "PATH", "PYTHONHASHSEED", "TMPDIR", "TZ"];

/// What Mainstay sets for agents only: the way to the gateway, and where a service listens.
pub const GATEWAY_ENV: [&str; 6] = [
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_BASE_URL",
    "OPENAI_AGENTS_DISABLE_TRACING",
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "PORT",
];

impl Resolver<'_> {
    pub(super) fn agents(&mut self) {
        for object in self.of_kind(Kind::Agent) {
            let Spec::Agent(spec) = &object.spec else {
                continue;
            };
            let agent = self.agent(object, spec);
            self.fleet.agents.insert(agent.name.clone(), agent);
        }
    }

    fn agent(&mut self, object: &Object, spec: &AgentSpec) -> Agent {
        let runtime = runtime(&spec.runtime);
        let (instructions, prompt) = self.instructions(object, spec);
        if runtime != Runtime::Builtin && (spec.instructions.is_some() || prompt.is_some()) {
            let field = if prompt.is_some() {
                "spec.prompt"
            } else {
                "spec.instructions"
            };
            self.warning(
                object,
                field,
                format!("`{field}` has no effect: only the builtin runtime reads it"),
            );
        }
        self.environment(object, "spec.env", spec.env.keys());
        self.environment(object, "spec.secretEnv", spec.secret_env.keys());
        for name in spec
            .secret_env
            .keys()
            .filter(|name| spec.env.contains_key(*name))
        {
            let message = format!("{} is in env and in secretEnv", quoted(name));
            self.problem(object, &format!("spec.secretEnv.{name}"), message);
        }
        for (name, secret) in &spec.secret_env {
            let field = format!("spec.secretEnv.{name}.secretRef.name");
            self.secret_is_not_ours(object, &field, &secret.secret_ref);
        }
        self.on_kubernetes(object, spec);
        Agent {
            name: object.name().to_owned(),
            labels: object.metadata.labels.clone(),
            models: self.model_refs(object, "spec.models", &spec.models),
            model_facts: BTreeMap::new(),
            instructions,
            prompt,
            tools: self.agent_tools(object, &spec.tools),
            runtime,
            source: spec.source.as_ref().map(|path| Source {
                path: beside(object, path),
                hash: self.sent(object, path),
            }),
            image: spec.image.clone(),
            env: spec.env.clone(),
            secret_env: spec
                .secret_env
                .iter()
                .map(|(name, secret)| (name.clone(), secret_ref(&secret.secret_ref)))
                .collect(),
            replicas: spec.replicas,
            scale: spec.scale.as_ref().map(scale),
            concurrency: spec.concurrency,
            queue_max: spec.queue.max,
            volume: spec.volume.as_ref().map(|volume| Volume {
                size_bytes: volume.size.map(|size| size.bytes),
                path: volume.path.clone(),
            }),
            resources: Resources {
                cpu_millis: spec.resources.cpu.map(|cpu| cpu.millis),
                memory_bytes: spec.resources.memory.map(|memory| memory.bytes),
                pids: spec.resources.pids,
            },
            placement: Placement {
                node_selector: spec.placement.node_selector.clone(),
                tolerations: spec.placement.tolerations.clone(),
            },
            max_attempts: spec.restart.max_attempts,
            grace_ms: spec.restart.grace.ms,
            on_divergence: spec.replay.on_divergence,
            mask: spec.replay.mask.clone(),
            budget: budget(&spec.budget.task),
        }
    }

    /// The artifact that a source was sent as; on one server it is copied later.
    fn sent(&self, object: &Object, source: &str) -> Option<String> {
        match self.facts.home {
            Home::Box => None,
            Home::Kubernetes => sent_source(&object.metadata.annotations, source),
        }
    }

    fn on_kubernetes(&mut self, object: &Object, spec: &AgentSpec) {
        let path = spec.volume.as_ref().and_then(|volume| volume.path.as_ref());
        for (field, written) in [
            ("spec.image", spec.image.is_some()),
            ("spec.scale", spec.scale.is_some()),
            ("spec.volume.path", path.is_some()),
            ("spec.resources", spec.resources != ResourcesSpec::default()),
            ("spec.placement", spec.placement != PlacementSpec::default()),
        ] {
            self.kubernetes_only(object, field, written);
        }
        if spec.resources.pids.is_some() && self.facts.home == Home::Kubernetes {
            let message = "`spec.resources.pids` has no effect on Kubernetes: how many processes a pod may have is the kubelet's `podPidsLimit`";
            self.warning(object, "spec.resources.pids", message);
        }
    }

    /// Refuses a number that somebody wrote where another writes it.
    pub(super) fn replicas_beside_scale(&mut self) {
        for object in self.of_kind(Kind::Agent) {
            let Spec::Agent(spec) = &object.spec else {
                continue;
            };
            if spec.scale.is_some() && object.wrote("spec.replicas") {
                let message =
                    "`spec.replicas` follows from `spec.scale` and can't be written beside it";
                let hint = "leave one of them out";
                self.hinted(object, "spec.replicas", message, hint);
            }
        }
    }

    /// Names that can't be set, for agents and for MCP servers.
    pub(super) fn environment<'n>(
        &mut self,
        object: &Object,
        field: &str,
        names: impl Iterator<Item = &'n String>,
    ) {
        for name in names {
            let field = format!("{field}.{name}");
            if !is_env(name) {
                self.problem(
                    object,
                    &field,
                    format!("{} is no name of an environment variable", quoted(name)),
                );
            } else if name.starts_with("MAINSTAY_")
                || STANDARD_ENV.contains(&name.as_str())
                || (object.kind() == Kind::Agent && GATEWAY_ENV.contains(&name.as_str()))
            {
                self.problem(
                    object,
                    &field,
                    format!("{} is set by Mainstay and can't be changed", quoted(name)),
                );
            }
        }
    }
}

/// The schema has seen to it that at most one is written.
fn runtime(spec: &RuntimeSpec) -> Runtime {
    if let Some(exec) = &spec.exec {
        return Runtime::Exec {
            command: exec.command.clone(),
        };
    }
    let Some(service) = &spec.service else {
        return Runtime::Builtin;
    };
    Runtime::Service {
        command: service.command.clone(),
        protocol: service.protocol,
        port: service.port,
    }
}

fn scale(spec: &ScaleSpec) -> Scale {
    let mut steps = spec.steps.clone();
    steps.sort_by_key(|step| step.up_to);
    Scale {
        min: spec.min,
        max: spec.max,
        steps,
        idle_after_ms: spec.idle_after.ms,
        by: spec.by,
    }
}

fn budget(spec: &TaskBudgetSpec) -> TaskBudget {
    TaskBudget {
        usd: spec.usd,
        tokens: spec.tokens,
        steps: spec.steps,
        time_ms: spec.time.map(|time| time.ms),
    }
}
