//! One operator leads: by a Lease that is renewed, taken over when it isn't, and given back at the
//! end.
//!
//! Two operators would do no harm (they would write the same), but twice the work. Who loses the
//! lease ends, and is started again as one that waits. Written by comparing and swapping: the API
//! server refuses a write that was based on an older version.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams};
use kube::{Client, Error as KubeError};

use crate::clock;

/// How long a lease holds without being renewed.
const HOLDS: Duration = Duration::from_secs(15);
/// How often it is renewed, and looked at by who waits.
const RENEWED: Duration = Duration::from_secs(4);

/// How long a lease is one's own, and how often it is looked at.
#[derive(Clone, Copy)]
struct Times {
    holds: Duration,
    renewed: Duration,
}

/// A claim to lead.
pub(crate) struct Claim {
    api: Api<Lease>,
    name: &'static str,
    holder: String,
    /// The version that was seen last, and since when: a lease is over by our own clock, not by
    /// the other's.
    seen: Option<(String, Instant)>,
    times: Times,
    /// When the last try began that got it.
    renewed: Instant,
}

impl Claim {
    pub(crate) fn new(client: Client, namespace: &str, holder: String) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: crate::FIELD_MANAGER,
            holder,
            seen: None,
            times: Times {
                holds: HOLDS,
                renewed: RENEWED,
            },
            renewed: Instant::now(),
        }
    }

    /// Returns once we lead.
    pub(crate) async fn won(&mut self) {
        loop {
            match self.attempt().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "can't look at the lease");
                }
            }
            tokio::time::sleep(self.times.renewed).await;
        }
    }

    /// Renews it; returns when it is lost. Neither a rest nor a try goes on past its time: another
    /// may lead from then on.
    pub(crate) async fn lost(&mut self) {
        loop {
            tokio::time::sleep(self.times.renewed.min(self.left())).await;
            let patience = self.times.renewed.min(self.left());
            if patience.is_zero() {
                return;
            }
            match tokio::time::timeout(patience, self.attempt()).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => return,
                // Unknown: ours until its time is up.
                Ok(Err(_)) | Err(_) => {}
            }
        }
    }

    /// For how long it is ours without being renewed.
    fn left(&self) -> Duration {
        self.times.holds.saturating_sub(self.renewed.elapsed())
    }

    /// Gives it back, so that another needn't wait.
    pub(crate) async fn give_back(&self) {
        let Ok(Some(mut lease)) = self.api.get_opt(self.name).await else {
            return;
        };
        if let Some(spec) = lease.spec.as_mut().filter(|spec| self.is_ours(spec)) {
            spec.holder_identity = None;
            spec.lease_duration_seconds = Some(1);
            // If it fails, the lease runs out by itself.
            let _late = self
                .api
                .replace(self.name, &PostParams::default(), &lease)
                .await;
        }
    }

    fn is_ours(&self, spec: &LeaseSpec) -> bool {
        spec.holder_identity.as_deref() == Some(&self.holder)
    }

    /// Takes or renews it; false if another holds it.
    async fn attempt(&mut self) -> Result<bool, KubeError> {
        let began = Instant::now();
        let won = self.take().await?;
        if won {
            self.renewed = began;
        }
        Ok(won)
    }

    async fn take(&mut self) -> Result<bool, KubeError> {
        let Some(mut lease) = self.api.get_opt(self.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(self.name.to_owned()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.spec(0)),
            };
            let made = self.api.create(&PostParams::default(), &lease).await;
            return won(made);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        if !self.is_ours(&spec) && !self.is_over(&spec, version, Instant::now()) {
            return Ok(false);
        }
        let changes = spec.lease_transitions.unwrap_or_default();
        let mut own = self.spec(changes);
        match self.is_ours(&spec) {
            true => own.acquire_time = spec.acquire_time,
            false => own.lease_transitions = Some(changes.saturating_add(1)),
        }
        lease.spec = Some(own);
        won(self
            .api
            .replace(self.name, &PostParams::default(), &lease)
            .await)
    }

    /// Nobody holds it, or its holder hasn't renewed it for as long as it holds.
    fn is_over(&mut self, spec: &LeaseSpec, version: String, now: Instant) -> bool {
        if spec
            .holder_identity
            .as_deref()
            .unwrap_or_default()
            .is_empty()
        {
            return true;
        }
        let holds = spec.lease_duration_seconds.map_or(HOLDS, |seconds| {
            Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
        });
        match &self.seen {
            Some((seen, since)) if *seen == version => now.duration_since(*since) > holds,
            _ => {
                self.seen = Some((version, now));
                false
            }
        }
    }

    fn spec(&self, transitions: i32) -> LeaseSpec {
        let now = MicroTime(clock::now());
        LeaseSpec {
            holder_identity: Some(self.holder.clone()),
            lease_duration_seconds: i32::try_from(HOLDS.as_secs()).ok(),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}

/// Whether a write went through; another's in between means that it leads.
fn won(written: Result<Lease, KubeError>) -> Result<bool, KubeError> {
    match written {
        Ok(_) => Ok(true),
        Err(KubeError::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::fake::{Answer, Fake};
    use serde_json::json;

    #[tokio::test]
    async fn a_lease_that_cannot_be_renewed_is_lost_when_its_time_is_up_and_not_later() {
        static IS_SILENT: AtomicBool = AtomicBool::new(false);
        let fake = Fake::start(|asked| match asked.method.as_str() {
            _ if IS_SILENT.load(Ordering::Relaxed) => Some(Answer::Silence),
            "GET" => Some(Answer::Say(200, lease("me"))),
            _ => None,
        })
        .await;
        let mut claim = claim(&fake);
        claim.won().await;
        let won = Instant::now();
        IS_SILENT.store(true, Ordering::Relaxed);
        claim.lost().await;
        let (held, holds) = (won.elapsed(), claim.times.holds);
        assert!(held <= holds + Duration::from_millis(200), "{held:?}");
        assert!(held + Duration::from_millis(500) > holds, "{held:?}");
        assert!(fake.count("GET", "/mainstay-operator") > 1, "it was tried");
    }

    #[tokio::test]
    async fn a_lease_that_another_has_is_lost_at_once() {
        let fake = Fake::start(|asked| {
            let is_get = asked.method == "GET";
            is_get.then(|| Answer::Say(200, lease("another")))
        })
        .await;
        let mut claim = claim(&fake);
        claim.renewed = Instant::now();
        claim.lost().await;
        assert!(!claim.left().is_zero());
    }

    /// Two tries fit in, and a third would end too late.
    fn claim(fake: &Fake) -> Claim {
        let mut claim = Claim::new(fake.client.clone(), "home", "me".to_owned());
        claim.times = Times {
            holds: Duration::from_millis(1500),
            renewed: Duration::from_millis(600),
        };
        claim
    }

    fn lease(holder: &str) -> serde_json::Value {
        json!({"kind": "Lease", "apiVersion": "coordination.k8s.io/v1",
            "metadata": {"name": crate::FIELD_MANAGER, "resourceVersion": "1"},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15}})
    }
}
