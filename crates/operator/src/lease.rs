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

/// A claim to lead.
pub(crate) struct Claim {
    api: Api<Lease>,
    name: &'static str,
    holder: String,
    /// The version that was seen last, and since when: a lease is over by our own clock, not by
    /// the other's.
    seen: Option<(String, Instant)>,
}

impl Claim {
    pub(crate) fn new(client: Client, namespace: &str, holder: String) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: crate::FIELD_MANAGER,
            holder,
            seen: None,
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
            tokio::time::sleep(RENEWED).await;
        }
    }

    /// Renews it; returns when it is lost.
    pub(crate) async fn lost(&mut self) {
        let mut renewed = Instant::now();
        while renewed.elapsed() < HOLDS {
            tokio::time::sleep(RENEWED).await;
            match tokio::time::timeout(RENEWED, self.attempt()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => return,
                // Unknown: ours until its time is up.
                Ok(Err(_)) | Err(_) => {}
            }
        }
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
