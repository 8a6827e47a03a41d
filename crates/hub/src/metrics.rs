//! Metrics by the names that dashboards know, fed by events and commits.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use mainstay_core::event::Event;
use mainstay_core::restart::Class;
use mainstay_core::step::{Step, StepKind};
use mainstay_core::task::TaskRecord;
use mainstay_core::usage::Usage;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::shared::lock;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AgentState {
    agent: String,
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AgentOnly {
    agent: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StepLabels {
    agent: String,
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TokenLabels {
    agent: String,
    model: String,
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ModelLabels {
    agent: String,
    model: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RestartLabels {
    agent: String,
    class: &'static str,
}

/// OpenTelemetry's GenAI attributes, as of the conventions' 2026 development version.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct GenAi {
    gen_ai_operation_name: &'static str,
    gen_ai_provider_name: String,
    gen_ai_request_model: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct GenAiTokens {
    gen_ai_operation_name: &'static str,
    gen_ai_provider_name: String,
    gen_ai_request_model: String,
    gen_ai_token_type: &'static str,
}

/// All metrics and their registry.
pub struct Metrics {
    registry: Registry,
    tasks: Family<AgentState, Counter>,
    queued: Family<AgentOnly, Gauge>,
    duration: Histogram,
    steps: Family<StepLabels, Counter>,
    replayed: Family<AgentOnly, Counter>,
    tokens: Family<TokenLabels, Counter>,
    cost: Family<ModelLabels, Counter<f64, AtomicU64>>,
    restarts: Family<RestartLabels, Counter>,
    instances: Family<AgentState, Gauge>,
    connections: Family<AgentOnly, Gauge>,
    recovery: Histogram,
    entries: Counter,
    commit: Histogram,
    operation: Family<GenAi, Histogram>,
    token_usage: Family<GenAiTokens, Histogram>,
    /// Models that only their askers' words name.
    asked: Mutex<BTreeSet<String>>,
}

/// Beyond it they are counted as `other`.
const MAX_ASKED: usize = 256;

fn seconds(start: f64, count: u16) -> Histogram {
    Histogram::new(exponential_buckets(start, 2.0, count))
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            tasks: Family::default(),
            queued: Family::default(),
            duration: seconds(0.01, 20),
            steps: Family::default(),
            replayed: Family::default(),
            tokens: Family::default(),
            cost: Family::default(),
            restarts: Family::default(),
            instances: Family::default(),
            connections: Family::default(),
            recovery: seconds(0.000_5, 18),
            entries: Counter::default(),
            commit: seconds(0.000_02, 18),
            operation: Family::new_with_constructor(|| seconds(0.01, 14)),
            token_usage: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(1.0, 4.0, 14))
            }),
            asked: Mutex::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "mainstay_tasks",
            "Tasks submitted and ended",
            self.tasks.clone(),
        );
        registry.register(
            "mainstay_tasks_queued",
            "Tasks that wait for an instance",
            self.queued.clone(),
        );
        registry.register_with_unit(
            "mainstay_task_duration",
            "From submission to the end",
            Unit::Seconds,
            self.duration.clone(),
        );
        registry.register("mainstay_steps", "Model and tool calls", self.steps.clone());
        registry.register(
            "mainstay_steps_replayed",
            "Answers given from the journal",
            self.replayed.clone(),
        );
        registry.register("mainstay_tokens", "Tokens", self.tokens.clone());
        registry.register(
            "mainstay_cost_usd",
            "US dollars, where prices are known",
            self.cost.clone(),
        );
        registry.register(
            "mainstay_instance_restarts",
            "Ends of processes by class",
            self.restarts.clone(),
        );
        registry.register("mainstay_instances", "Instances", self.instances.clone());
        registry.register(
            "mainstay_connections",
            "Conversations that clients hold open",
            self.connections.clone(),
        );
        registry.register_with_unit(
            "mainstay_recovery",
            "From an end to ready again",
            Unit::Seconds,
            self.recovery.clone(),
        );
        registry.register(
            "mainstay_log_entries",
            "Entries appended by this hub",
            self.entries.clone(),
        );
        registry.register_with_unit(
            "mainstay_log_commit",
            "Commits, flush included",
            Unit::Seconds,
            self.commit.clone(),
        );
        registry.register(
            "gen_ai_client_operation_duration_seconds",
            "GenAI operation duration",
            self.operation.clone(),
        );
        registry.register(
            "gen_ai_client_token_usage",
            "Tokens used per call",
            self.token_usage.clone(),
        );
    }

    /// One event after it was applied.
    pub(crate) fn event(&self, record: &TaskRecord, event: &Event) {
        let agent = record.task.agent.clone();
        match event {
            Event::TaskCompleted { .. } => self.ended(record, "completed"),
            Event::TaskFailed { .. } => self.ended(record, "failed"),
            Event::TaskCanceled if !record.task.ambient => self.ended(record, "canceled"),
            Event::StepFinished {
                n,
                model,
                usage,
                cost,
                ..
            } => {
                self.step(record, *n, "finished");
                if let Some(model) = model {
                    self.spent(&agent, model, usage, cost.usd());
                    self.model_call(record, *n, model, usage);
                }
            }
            Event::StepFailed { n, usage, cost, .. } => {
                self.step(record, *n, "failed");
                // A stream that broke off was paid for as far as it came.
                let step = record
                    .step(*n)
                    .filter(|step| step.kind == StepKind::Model && usage.total() > 0);
                if let Some(step) = step {
                    let model = self.model_of(record, step);
                    self.spent(&agent, &model, usage, cost.usd());
                }
            }
            Event::StepUnknown { n } => self.step(record, *n, "unknown"),
            _ => {}
        }
    }

    /// The model that a failed call went to, as far as it is known: a failure doesn't say.
    fn model_of(&self, record: &TaskRecord, step: &Step) -> String {
        let known = record
            .steps
            .iter()
            .rev()
            .filter(|other| other.name == step.name)
            .find_map(|other| other.model.as_ref());
        if let Some(model) = known {
            return model.clone();
        }
        // What was asked for is the agent's own word, and it could use a new one each time.
        let mut asked = lock(&self.asked);
        if asked.len() < MAX_ASKED || asked.contains(&step.name) {
            asked.insert(step.name.clone());
            step.name.clone()
        } else {
            "other".to_owned()
        }
    }

    fn spent(&self, agent: &str, model: &str, usage: &Usage, usd: Option<f64>) {
        let counts = [
            ("input", usage.input_tokens),
            ("output", usage.output_tokens),
            ("cacheRead", usage.cache_read_tokens),
            ("cacheWrite", usage.cache_write_tokens),
        ];
        for (kind, count) in counts {
            let labels = TokenLabels {
                agent: agent.to_owned(),
                model: model.to_owned(),
                kind,
            };
            self.tokens.get_or_create(&labels).inc_by(count);
        }
        if let Some(usd) = usd {
            let labels = ModelLabels {
                agent: agent.to_owned(),
                model: model.to_owned(),
            };
            self.cost.get_or_create(&labels).inc_by(usd);
        }
    }

    fn model_call(&self, record: &TaskRecord, n: u32, model: &str, usage: &Usage) {
        let (provider, name) = model.split_once('/').unwrap_or(("", model));
        let operation = GenAi {
            gen_ai_operation_name: "chat",
            gen_ai_provider_name: provider.to_owned(),
            gen_ai_request_model: name.to_owned(),
        };
        let tokens = |kind| GenAiTokens {
            gen_ai_operation_name: "chat",
            gen_ai_provider_name: provider.to_owned(),
            gen_ai_request_model: name.to_owned(),
            gen_ai_token_type: kind,
        };
        #[allow(
            clippy::cast_precision_loss,
            reason = "token counts and durations are far below 2^52"
        )]
        {
            self.token_usage
                .get_or_create(&tokens("input"))
                .observe(usage.input_tokens as f64);
            self.token_usage
                .get_or_create(&tokens("output"))
                .observe(usage.output_tokens as f64);
            if let Some(step) = record.step(n) {
                let ms = step.ended_ms.unwrap_or(step.intended_ms) - step.intended_ms;
                self.operation
                    .get_or_create(&operation)
                    .observe(ms as f64 / 1000.0);
            }
        }
    }

    fn ended(&self, record: &TaskRecord, state: &'static str) {
        let agent = record.task.agent.clone();
        self.tasks.get_or_create(&AgentState { agent, state }).inc();
        #[allow(
            clippy::cast_precision_loss,
            reason = "durations are far below 2^52 ms"
        )]
        self.duration
            .observe((record.task.updated_ms - record.task.created_ms) as f64 / 1000.0);
    }

    fn step(&self, record: &TaskRecord, n: u32, outcome: &'static str) {
        let kind = match record.step(n).map(|step| step.kind) {
            Some(StepKind::Model) => "model",
            _ => "tool",
        };
        self.steps
            .get_or_create(&StepLabels {
                agent: record.task.agent.clone(),
                kind,
                outcome,
            })
            .inc();
    }

    pub(crate) fn submitted(&self, agent: &str) {
        self.tasks
            .get_or_create(&AgentState {
                agent: agent.to_owned(),
                state: "submitted",
            })
            .inc();
    }

    pub(crate) fn replayed(&self, agent: &str) {
        self.replayed
            .get_or_create(&AgentOnly {
                agent: agent.to_owned(),
            })
            .inc();
    }

    pub(crate) fn restart(&self, agent: &str, class: Class) {
        self.restarts
            .get_or_create(&RestartLabels {
                agent: agent.to_owned(),
                class: class.name(),
            })
            .inc();
    }

    pub(crate) fn recovery(&self, ms: f64) {
        self.recovery.observe(ms / 1000.0);
    }

    pub(crate) fn commit(&self, entries: u64, micros: u64) {
        self.entries.inc_by(entries);
        #[allow(
            clippy::cast_precision_loss,
            reason = "a commit takes far less than 2^52 µs"
        )]
        self.commit.observe(micros as f64 / 1e6);
    }

    /// What an agent may come to counts from 0: the first of something is a rise, too.
    fn begin(&self, agent: &str) {
        let agent = agent.to_owned();
        for class in [Class::Crash, Class::KilledFromOutside] {
            drop(self.restarts.get_or_create(&RestartLabels {
                agent: agent.clone(),
                class: class.name(),
            }));
        }
        drop(self.replayed.get_or_create(&AgentOnly { agent }));
    }

    /// Sets the gauges and prints everything in the OpenMetrics text format.
    pub(crate) fn text(
        &self,
        queued: &[(String, i64)],
        instances: &[(String, &'static str, i64)],
        connections: &HashMap<String, u32>,
    ) -> String {
        self.queued.clear();
        self.instances.clear();
        self.connections.clear();
        for (agent, count) in queued {
            self.begin(agent);
            self.queued
                .get_or_create(&AgentOnly {
                    agent: agent.clone(),
                })
                .set(*count);
            let open = connections.get(agent).copied().unwrap_or_default();
            self.connections
                .get_or_create(&AgentOnly {
                    agent: agent.clone(),
                })
                .set(open.into());
        }
        for (agent, state, count) in instances {
            self.instances
                .get_or_create(&AgentState {
                    agent: agent.clone(),
                    state,
                })
                .set(*count);
        }
        let mut text = String::new();
        // Writing to a string can't fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agents_series_are_there_before_anything_has_happened() {
        let connections = HashMap::from([("gone".to_owned(), 3)]);
        let text = Metrics::new().text(&[("helper".to_owned(), 0)], &[], &connections);
        assert!(!text.contains("gone"), "{text}");
        for series in [
            "mainstay_connections{agent=\"helper\"} 0",
            "mainstay_tasks_queued{agent=\"helper\"} 0",
            "mainstay_steps_replayed_total{agent=\"helper\"} 0",
            "mainstay_instance_restarts_total{agent=\"helper\",class=\"crash\"} 0",
        ] {
            assert!(text.contains(series), "{series} in {text}");
        }
    }
}
