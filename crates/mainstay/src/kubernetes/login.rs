//! Who calls a hub, said so that the hub believes it and learns nothing it could misuse.
//!
//! What the kubeconfig has (a certificate, a token, a program that makes one) goes to the API server
//! and nowhere else. The API server says who that is, and signs a token for this one hub that says
//! the same: `api::kubernetes::client_audiences`, with the policy that sees to its truth.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use api::kubernetes::{CLIENTS, client_audiences};
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;

use super::cluster::Cluster;
use crate::exit::{Exit, Failure};

/// The shortest that Kubernetes signs: what somebody took with him ends soon.
const VALID_S: i64 = 600;
/// Renewed long before; and tried again this much later where that failed.
const RENEWED: Duration = Duration::from_secs(240);
const AGAIN: Duration = Duration::from_secs(15);

/// A token that is renewed as long as its way is open.
#[derive(Clone)]
pub struct Renewed(Arc<RwLock<String>>);

impl Renewed {
    /// As it is now.
    pub fn now(&self) -> String {
        let token = self.0.read().unwrap_or_else(PoisonError::into_inner);
        token.clone()
    }
}

impl std::fmt::Debug for Renewed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Renewed(..)")
    }
}

/// Somebody who calls the hub of a workspace.
pub(super) struct Login {
    cluster: Cluster,
    workspace: String,
    audiences: Vec<String>,
    token: Renewed,
}

impl Login {
    pub(super) async fn begin(cluster: &Cluster, workspace: &str) -> Result<Self, Failure> {
        let reviews: Api<SelfSubjectReview> = Api::all(cluster.client.clone());
        let asked = SelfSubjectReview::default();
        let said = reviews.create(&PostParams::default(), &asked).await;
        let said = said.map_err(|error| cluster.failed("learn", "who you are", error))?;
        let user = said.status.and_then(|status| status.user_info);
        let user = user.unwrap_or_default();
        let groups = user.groups.as_deref().unwrap_or_default();
        let name = user.username.unwrap_or_default();
        let login = Self {
            cluster: cluster.clone(),
            workspace: workspace.to_owned(),
            audiences: client_audiences(workspace, &name, groups.iter().map(String::as_str)),
            token: Renewed(Arc::default()),
        };
        login.renew().await.map_err(|failure| match failure.exit {
            Exit::NotAllowed => failure.with_hint(format!(
                "each role among `members` of Workspace {workspace} may, and so may who has Kubernetes' role view there"
            )),
            Exit::NotFound => failure.with_hint(
                "is it a workspace? `kubectl get workspaces` and `mainstay kubernetes status` say",
            ),
            _ => failure,
        })?;
        Ok(login)
    }

    pub(super) fn token(&self) -> Renewed {
        self.token.clone()
    }

    async fn renew(&self) -> Result<(), Failure> {
        let accounts: Api<ServiceAccount> =
            Api::namespaced(self.cluster.client.clone(), &self.workspace);
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: self.audiences.clone(),
                expiration_seconds: Some(VALID_S),
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let made = accounts
            .create_token_request(CLIENTS, &PostParams::default(), &request)
            .await;
        let made = made.map_err(|error| {
            let what = format!("a token for the hub in namespace {}", self.workspace);
            self.cluster.failed("get", &what, error)
        })?;
        let token = made.status.map(|status| status.token).unwrap_or_default();
        let mut kept = self.token.0.write().unwrap_or_else(PoisonError::into_inner);
        *kept = token;
        Ok(())
    }

    /// Keeps it valid until dropped.
    pub(super) async fn keep(self) {
        let mut wait = RENEWED;
        loop {
            tokio::time::sleep(wait).await;
            wait = match self.renew().await {
                Ok(()) => RENEWED,
                Err(failure) => {
                    tracing::debug!("a token was not renewed: {failure:?}");
                    AGAIN
                }
            };
        }
    }
}
