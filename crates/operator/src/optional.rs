//! Kinds of others that a cluster may have or not: what is made of them is made where they are.
//!
//! Asked of the API server every minute, which every account may do. A kind that comes is made use of
//! then; of one that goes nothing is left, and nothing waits for it. None of them ever keeps a
//! workspace from being ready: what can't be written is said in the log.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::Kind;
use kube::{Client, Error as KubeError};

use crate::context::Context;
use crate::object::Resource;

const PACE: Duration = Duration::from_secs(60);

/// The kinds that are there.
#[derive(Default)]
pub(crate) struct Optional {
    there: Mutex<BTreeSet<Resource>>,
}

impl Optional {
    pub(crate) fn there(&self) -> BTreeSet<Resource> {
        let there = self.there.lock().unwrap_or_else(PoisonError::into_inner);
        there.clone()
    }

    /// Whether that is news.
    fn put(&self, there: BTreeSet<Resource>) -> bool {
        let mut known = self.there.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = *known != there;
        *known = there;
        is_news
    }
}

/// Follows which kinds there are.
pub(crate) async fn follow(context: Arc<Context>) {
    let mut pace = tokio::time::interval(PACE);
    loop {
        pace.tick().await;
        look(&context).await;
    }
}

/// Looks once, and has every workspace looked at if something came or went.
pub(crate) async fn look(context: &Arc<Context>) {
    let known = context.optional.there();
    let mut there = BTreeSet::new();
    for resource in Resource::OPTIONAL {
        let is_there = is_there(&context.client, resource).await;
        // Who gives no answer changes nothing.
        if is_there.unwrap_or_else(|| known.contains(&resource)) {
            there.insert(resource);
        }
    }
    if !context.optional.put(there.clone()) {
        return;
    }
    let names: Vec<&str> = there.iter().map(|resource| resource.kind()).collect();
    tracing::info!(kinds = names.join(", "), "kinds of others came or went");
    context.homes.watch_optional(context);
    for key in context.world.keys(Kind::Workspace) {
        context.push(key);
    }
}

/// `None` where that can't be told.
async fn is_there(client: &Client, resource: Resource) -> Option<bool> {
    let kind = resource.api_resource();
    match client.list_api_group_resources(&kind.api_version).await {
        Ok(list) => Some(list.resources.iter().any(|it| it.name == kind.plural)),
        Err(KubeError::Api(status)) if status.code == 404 => Some(false),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(
                kind = kind.kind,
                error,
                "whether a kind is there can't be told"
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU16, Ordering};

    use super::*;
    use crate::fake::{Answer, Fake};
    use serde_json::json;

    #[tokio::test]
    async fn a_kind_comes_and_goes_and_one_that_gives_no_answer_stays() {
        let code = Arc::new(AtomicU16::new(404));
        let says = Arc::clone(&code);
        let fake = Fake::start(move |asked| {
            if asked.path != "/apis/monitoring.coreos.com/v1" {
                return None;
            }
            let code = says.load(Ordering::SeqCst);
            let list = json!({
                "kind": "APIResourceList", "apiVersion": "v1",
                "groupVersion": "monitoring.coreos.com/v1",
                "resources": [{
                    "name": "servicemonitors", "singularName": "servicemonitor",
                    "namespaced": true, "kind": "ServiceMonitor", "verbs": ["get"],
                }],
            });
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "x",
                "message": "x", "code": code,
            });
            Some(Answer::Say(code, if code == 200 { list } else { status }))
        })
        .await;
        let context = fake.context();
        let looked = async |answer: u16| {
            code.store(answer, Ordering::SeqCst);
            look(&context).await;
            context.optional.there()
        };
        assert!(looked(404).await.is_empty());
        let monitors = BTreeSet::from([Resource::ServiceMonitor]);
        assert_eq!(looked(200).await, monitors);
        // Unlike 503, which the client itself tries again.
        assert_eq!(looked(500).await, monitors);
        assert!(looked(404).await.is_empty());
    }
}
