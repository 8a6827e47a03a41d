//! KEDA's external scaler: what the hub tells KEDA about agents that have `scale.by: keda`.
//!
//! Theory: one metric, the number of instances that `core::scale` decided on, with a target of one
//! for each. KEDA and the HPA that it makes then write the number that Mainstay would have written,
//! with its steps, its connections and its patience, and nothing has to be said twice. Whether an
//! agent is active is whether that number is above zero. What is asked changes nothing.
//!
//! KEDA reads `false` on a stream nowhere since 2.18: to zero it goes when it asks. A `true` that it
//! gets before it knows the metric is lost, so it's repeated until the agent has instances.

mod door;

use std::pin::Pin;
use std::time::Duration;

use api::fleet::ScaleBy;
use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::scale::{Decision, Decisions};
use contract::external_scaler_server::ExternalScaler;
use contract::{
    GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, MetricSpec,
    MetricValue, ScaledObjectRef,
};

pub(super) use contract::external_scaler_server::ExternalScalerServer;
pub(super) use door::KedaDoor;
pub use door::KedaOptions;

/// The contract, made of `proto/externalscaler.proto`.
#[allow(
    clippy::pedantic,
    clippy::derive_partial_eq_without_eq,
    reason = "made code"
)]
mod contract {
    tonic::include_proto!("externalscaler");
}

/// The metric's name.
const METRIC: &str = "mainstay-instances";
/// What a ScaledObject's trigger may name the agent by; without it the ScaledObject is called so.
const AGENT: &str = "agent";
/// How often a `true` is said again while there is no instance.
const AGAIN: Duration = Duration::from_secs(5);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What answers KEDA. Cheap to clone.
#[derive(Clone)]
pub(super) struct Keda {
    namespace: String,
    decisions: watch::Receiver<Decisions>,
}

impl Keda {
    pub(super) fn new(namespace: &str, decisions: watch::Receiver<Decisions>) -> Self {
        Self {
            namespace: namespace.to_owned(),
            decisions,
        }
    }

    /// Which agent a ScaledObject is for.
    fn agent(&self, asked: ScaledObjectRef) -> Result<String, Status> {
        if asked.namespace != self.namespace {
            return Err(Status::not_found(format!(
                "this is the hub of {}",
                self.namespace
            )));
        }
        let mut metadata = asked.scaler_metadata;
        Ok(metadata.remove(AGENT).unwrap_or(asked.name))
    }

    fn decision(&self, agent: &str) -> Result<Decision, Status> {
        let decision = self.decisions.borrow().get(agent).copied();
        match decision {
            Some(decision) if decision.by == ScaleBy::Keda => Ok(decision),
            Some(_) => Err(Status::failed_precondition(format!(
                "agent {agent} is scaled by Mainstay: its scale.by is not keda"
            ))),
            None => Err(Status::not_found(format!(
                "there is no agent {agent} with scale.by: keda"
            ))),
        }
    }

    fn asked(&self, asked: Option<ScaledObjectRef>) -> Result<Decision, Status> {
        self.decision(&self.agent(asked.unwrap_or_default())?)
    }
}

#[tonic::async_trait]
impl ExternalScaler for Keda {
    async fn is_active(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<IsActiveResponse>, Status> {
        let decision = self.asked(Some(request.into_inner()))?;
        Ok(Response::new(active(decision)))
    }

    type StreamIsActiveStream = Answers<IsActiveResponse>;

    async fn stream_is_active(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<Self::StreamIsActiveStream>, Status> {
        let agent = self.agent(request.into_inner())?;
        let watched = Watched {
            last: None,
            is_over: false,
            keda: self.clone(),
            agent,
        };
        Ok(Response::new(Box::pin(unfold(watched, Watched::next))))
    }

    async fn get_metric_spec(
        &self,
        _: Request<ScaledObjectRef>,
    ) -> Result<Response<GetMetricSpecResponse>, Status> {
        Ok(Response::new(specs()))
    }

    async fn get_metrics(
        &self,
        request: Request<GetMetricsRequest>,
    ) -> Result<Response<GetMetricsResponse>, Status> {
        let request = request.into_inner();
        if request.metric_name != METRIC {
            return Err(Status::not_found(format!("the one metric is {METRIC}")));
        }
        let decision = self.asked(request.scaled_object_ref)?;
        let value = MetricValue {
            metric_name: METRIC.to_owned(),
            metric_value: decision.wanted.into(),
            metric_value_float: decision.wanted.into(),
        };
        let metric_values = vec![value];
        Ok(Response::new(GetMetricsResponse { metric_values }))
    }

    type StreamMetricSpecStream = Answers<GetMetricSpecResponse>;

    /// The target never changes: it's told at once and the stream stays, until the hub ends.
    async fn stream_metric_spec(
        &self,
        _: Request<ScaledObjectRef>,
    ) -> Result<Response<Self::StreamMetricSpecStream>, Status> {
        let told = unfold(
            (false, self.decisions.clone()),
            |(is_told, mut hub)| async move {
                if !is_told {
                    return Some((Ok(specs()), (true, hub)));
                }
                while hub.changed().await.is_ok() {}
                None
            },
        );
        Ok(Response::new(Box::pin(told)))
    }
}

fn active(decision: Decision) -> IsActiveResponse {
    IsActiveResponse {
        result: decision.wanted > 0,
    }
}

fn specs() -> GetMetricSpecResponse {
    let spec = MetricSpec {
        metric_name: METRIC.to_owned(),
        target_size: 1,
        target_size_float: 1.0,
    };
    GetMetricSpecResponse {
        metric_specs: vec![spec],
    }
}

/// A stream of whether an agent is active.
struct Watched {
    last: Option<IsActiveResponse>,
    is_over: bool,
    keda: Keda,
    agent: String,
}

impl Watched {
    async fn next(mut self) -> Option<(Result<IsActiveResponse, Status>, Self)> {
        if self.is_over {
            return None;
        }
        loop {
            self.keda.decisions.mark_unchanged();
            let decision = match self.keda.decision(&self.agent) {
                Ok(decision) => decision,
                Err(status) => {
                    self.is_over = true;
                    return Some((Err(status), self));
                }
            };
            let is_active = active(decision);
            if self.last != Some(is_active) {
                self.last = Some(is_active);
                return Some((Ok(is_active), self));
            }
            let changed = self.keda.decisions.changed();
            match tokio::time::timeout(AGAIN, changed).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return None,
                Err(_) if is_active.result && decision.replicas == 0 => self.last = None,
                Err(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
