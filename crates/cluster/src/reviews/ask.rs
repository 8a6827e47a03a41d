//! The questions themselves: whose token it is, who stands behind it, what he may.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::kubernetes::{CLIENTS, GROUP, HUB, LONGEST_S, client_of, hub_audience};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{
    LocalSubjectAccessReview, ResourceAttributes, SubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};
use serde::Deserialize;
use tokio::time::Instant;

use super::{Answer, Refusal, Right};

/// How long it is believed that the policy is there which makes tokens of [`CLIENTS`] say the truth.
const POLICY: Duration = Duration::from_secs(10);
/// The longest name that stands in the log.
const MAX_NAME_BYTES: usize = 256;

pub(super) struct Ask {
    client: Client,
    namespace: String,
    policy_seen: Mutex<Option<Instant>>,
}

impl Ask {
    pub(super) fn new(client: Client, namespace: &str) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
            policy_seen: Mutex::default(),
        }
    }

    pub(super) async fn about(&self, token: &str, right: Right) -> Answer {
        let user = self.identify(token).await?;
        let name = name(user.username.as_deref().unwrap_or_default());
        if self.may(user, right).await? {
            return Ok(name);
        }
        Err(Refusal::NotAllowed(format!(
            "{name} may not {right} in namespace {}: a role there gives that right, such as one of `members` in Workspace {}",
            self.namespace, self.namespace
        )))
    }

    async fn identify(&self, token: &str) -> Result<UserInfo, Refusal> {
        let audience = hub_audience(&self.namespace);
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: Some(vec![audience.clone()]),
            },
            ..TokenReview::default()
        };
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let reviewed = api.create(&PostParams::default(), &review).await;
        let status = reviewed.map_err(unanswered)?.status.unwrap_or_default();
        let is_for_us = status.audiences.is_some_and(|all| all.contains(&audience));
        let user = status
            .user
            .filter(|_| status.authenticated == Some(true) && is_for_us);
        let user = user.ok_or_else(|| {
            Refusal::Unknown(format!(
                "Kubernetes knows no such token for this hub: send one of a service account for the audience {audience} (`kubectl create token ACCOUNT --audience {audience}`), or call `mainstay -n {}`, which makes its own",
                self.namespace
            ))
        })?;
        let clients = format!("system:serviceaccount:{}:{CLIENTS}", self.namespace);
        match user.username.as_deref() == Some(&clients) {
            true => self.client_behind(token).await,
            false => Ok(user),
        }
    }

    /// Who asked for a token of [`CLIENTS`]. The API server has just checked its signature.
    async fn client_behind(&self, token: &str) -> Result<UserInfo, Refusal> {
        self.policy_holds().await?;
        // One that is valid for longer was made before the policy was there.
        let claims = claims(token).filter(|claims| claims.exp - claims.iat <= LONGEST_S);
        let client = claims.and_then(|claims| client_of(&self.namespace, &claims.aud));
        let (user, groups) = client.ok_or_else(|| {
            Refusal::Unknown(format!("this token of {CLIENTS} does not say whose it is"))
        })?;
        Ok(UserInfo {
            username: Some(user),
            groups: Some(groups),
            ..UserInfo::default()
        })
    }

    /// Without the policy anybody who may ask for such tokens could call himself anybody.
    async fn policy_holds(&self) -> Result<(), Refusal> {
        let seen = *self.policy_seen();
        if seen.is_some_and(|seen| seen.elapsed() < POLICY) {
            return Ok(());
        }
        let policies: Api<ValidatingAdmissionPolicy> = Api::all(self.client.clone());
        let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(self.client.clone());
        let (policy, binding) =
            tokio::try_join!(policies.get_opt(CLIENTS), bindings.get_opt(CLIENTS))
                .map_err(unanswered)?;
        if !(policy.is_some_and(|it| demands(&it)) && binding.is_some_and(|it| denies(&it))) {
            let why = format!(
                "the admission policy {CLIENTS} is not in force, so nobody can say whose tokens these are: `mainstay kubernetes install` puts it there"
            );
            return Err(Refusal::Unknown(why));
        }
        *self.policy_seen() = Some(Instant::now());
        Ok(())
    }

    fn policy_seen(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.policy_seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn may(&self, user: UserInfo, right: Right) -> Result<bool, Refusal> {
        let some = |word: &str| (!word.is_empty()).then(|| word.to_owned());
        let attributes = ResourceAttributes {
            namespace: Some(self.namespace.clone()),
            verb: some(right.verb),
            group: some(right.group),
            resource: some(right.resource),
            subresource: some(right.subresource),
            name: some(right.name),
            ..ResourceAttributes::default()
        };
        let mut review = LocalSubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                resource_attributes: Some(attributes),
                user: user.username,
                uid: user.uid,
                groups: user.groups,
                extra: user.extra,
                ..SubjectAccessReviewSpec::default()
            },
            ..LocalSubjectAccessReview::default()
        };
        review.metadata.namespace = Some(self.namespace.clone());
        let api: Api<LocalSubjectAccessReview> =
            Api::namespaced(self.client.clone(), &self.namespace);
        let reviewed = api.create(&PostParams::default(), &review).await;
        let status = reviewed.map_err(unanswered)?.status.unwrap_or_default();
        Ok(status.allowed && status.denied != Some(true))
    }
}

fn unanswered(error: kube::Error) -> Refusal {
    let said = custom_resource::said::answer(&error);
    tracing::warn!(error = said, "it can't be asked who a caller is");
    Refusal::Unanswered(format!(
        "the API server does not say who may call {HUB}: {said}"
    ))
}

/// Whether it is the one that is installed, and not switched off.
fn demands(policy: &ValidatingAdmissionPolicy) -> bool {
    let spec = policy.spec.as_ref();
    let fails = spec.and_then(|spec| spec.failure_policy.as_deref());
    let validations = spec.and_then(|spec| spec.validations.as_ref());
    fails.is_none_or(|fails| fails == "Fail") && validations.is_some_and(|all| !all.is_empty())
}

/// Whether it holds for everything and refuses.
fn denies(binding: &ValidatingAdmissionPolicyBinding) -> bool {
    binding.spec.as_ref().is_some_and(|spec| {
        let actions = spec.validation_actions.as_deref().unwrap_or_default();
        spec.policy_name.as_deref() == Some(CLIENTS)
            && spec.match_resources.is_none()
            && actions.iter().any(|action| action == "Deny")
    })
}

#[derive(Deserialize)]
struct Claims {
    aud: Vec<String>,
    exp: i64,
    iat: i64,
}

fn claims(token: &str) -> Option<Claims> {
    let claims = token.split('.').nth(1)?;
    let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
    serde_json::from_slice(&claims).ok()
}

/// As a Workspace's members are written.
fn name(user: &str) -> Arc<str> {
    let account = user.strip_prefix("system:serviceaccount:");
    let text = match account.and_then(|account| account.split_once(':')) {
        Some((namespace, name)) => format!("serviceAccount:{namespace}/{name}"),
        None => format!("user:{user}"),
    };
    let mut text: String = text.chars().filter(|c| !c.is_control()).collect();
    let mut end = MAX_NAME_BYTES.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text.into()
}

/// The rights that clients' doors ask for.
impl Right {
    const fn on_tasks(verb: &'static str) -> Self {
        Self {
            verb,
            group: GROUP,
            resource: "agents",
            subresource: api::kubernetes::TASKS,
            name: "",
        }
    }

    /// To see tasks, sessions, the log and how the fleet stands.
    pub const READ: Self = Self::on_tasks("get");
    /// To submit tasks.
    pub const RUN: Self = Self::on_tasks("create");
    pub const CANCEL: Self = Self::on_tasks("delete");
    /// To say how a task goes on, and to move sessions.
    pub const DECIDE: Self = Self::on_tasks("update");
    /// To start and stop agents.
    pub const STEER: Self = Self {
        subresource: "scale",
        ..Self::DECIDE
    };
    /// To change the fleet.
    pub const CHANGE: Self = Self {
        subresource: "",
        ..Self::DECIDE
    };
    /// To do all: who reads the hub's keys has its owner's token.
    pub const OWN: Self = Self {
        verb: "get",
        group: "",
        resource: "secrets",
        subresource: "",
        name: HUB,
    };
}
