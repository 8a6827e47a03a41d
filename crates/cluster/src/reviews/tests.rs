//! Who is let in, against an API server that says what the test wants.

use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use api::kubernetes::{CLIENTS, client_audiences};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

/// What the API server holds to be true.
struct World {
    /// The token's user.
    user: &'static str,
    /// Audiences that the token is for.
    audiences: Vec<&'static str>,
    has_policy: bool,
    /// Who may everything.
    may: StdMutex<Vec<&'static str>>,
    away: bool,
    asked: AtomicUsize,
    subjects: StdMutex<Vec<Value>>,
}

impl World {
    fn new(user: &'static str) -> Self {
        Self {
            user,
            audiences: vec!["mainstay-hub.acme"],
            has_policy: true,
            may: StdMutex::new(vec!["ada", "system:serviceaccount:ci:bot"]),
            away: false,
            asked: AtomicUsize::new(0),
            subjects: StdMutex::default(),
        }
    }

    fn reviews(self) -> (Arc<Self>, Reviews) {
        let world = Arc::new(self);
        let own = Arc::clone(&world);
        let service = tower::service_fn(move |request: Request<Body>| {
            let world = Arc::clone(&own);
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                let asked = serde_json::from_slice(&body).unwrap_or_default();
                let (code, said) = world.answer(parts.uri.path(), &asked);
                let said = Response::builder()
                    .status(code)
                    .body(Body::from(said.to_string().into_bytes()));
                Ok::<_, std::convert::Infallible>(said.unwrap())
            }
        });
        (world, Reviews::new(Client::new(service, "acme"), "acme"))
    }

    fn answer(&self, path: &str, asked: &Value) -> (u16, Value) {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.away {
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
                "message": "etcd is away", "reason": "InternalError", "code": 500});
            return (500, status);
        }
        if path.ends_with("/tokenreviews") {
            let wanted = &asked["spec"]["audiences"][0];
            let is_for = self.audiences.iter().any(|audience| wanted == audience);
            let status = match is_for {
                true => json!({"authenticated": true, "audiences": [wanted],
                    "user": {"username": self.user, "groups": ["system:authenticated"]}}),
                false => json!({"error": "for another"}),
            };
            let mut said = asked.clone();
            said["status"] = status;
            return (201, said);
        }
        if path.ends_with("/namespaces/acme/localsubjectaccessreviews") {
            let spec = &asked["spec"];
            self.subjects.lock().unwrap().push(spec.clone());
            let may = self.may.lock().unwrap();
            let mut said = asked.clone();
            said["status"] = json!({"allowed": may.iter().any(|user| spec["user"] == *user)});
            return (201, said);
        }
        let of = |kind: &str, spec: Value| {
            let object = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
                "metadata": {"name": CLIENTS}, "spec": spec});
            (200, object)
        };
        match (self.has_policy, path.rsplit('/').nth(1)) {
            (true, Some("validatingadmissionpolicies")) => of(
                "ValidatingAdmissionPolicy",
                json!({"failurePolicy": "Fail", "validations": [{"expression": "true"}]}),
            ),
            (true, Some("validatingadmissionpolicybindings")) => of(
                "ValidatingAdmissionPolicyBinding",
                json!({"policyName": CLIENTS, "validationActions": ["Deny"]}),
            ),
            _ => {
                let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
                    "message": "there is none", "reason": "NotFound", "code": 404});
                (404, status)
            }
        }
    }
}

/// A token of the clients' account, as the API server signs it.
fn client_token(user: &str, groups: &[&str], valid_s: i64) -> String {
    let audiences = client_audiences("acme", user, groups.iter().copied());
    let claims = json!({"aud": audiences, "iat": 1000, "exp": 1000 + valid_s});
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

const CLIENT: &str = "system:serviceaccount:acme:mainstay-clients";

#[tokio::test]
async fn an_account_is_who_it_is_and_a_client_who_asked_for_its_token() {
    let (_, reviews) = World::new("system:serviceaccount:ci:bot").reviews();
    let answer = reviews.review("t", Right::RUN).await;
    assert_eq!(answer, Ok("serviceAccount:ci/bot".into()));
    let (world, reviews) = World::new(CLIENT).reviews();
    let token = client_token("ada", &["platform", "system:authenticated"], 600);
    let answer = reviews.review(&token, Right::RUN).await;
    assert_eq!(answer, Ok("user:ada".into()));
    let subjects = world.subjects.lock().unwrap();
    assert_eq!(
        subjects[0]["groups"],
        json!(["platform", "system:authenticated"])
    );
    let attributes = &subjects[0]["resourceAttributes"];
    assert_eq!(attributes["namespace"], "acme");
    assert_eq!(attributes["verb"], "create");
    assert_eq!(attributes["subresource"], "tasks");
}

#[tokio::test]
async fn who_may_not_is_told_by_name_what_he_may_not() {
    let (_, reviews) = World::new("system:serviceaccount:ci:other").reviews();
    let answer = reviews.review("t", Right::READ).await;
    let Err(Refusal::NotAllowed(why)) = answer else {
        panic!("{answer:?}")
    };
    assert!(
        why.contains("serviceAccount:ci/other may not get agents.mainstay.dev/tasks"),
        "{why}"
    );
    let (_, reviews) = World::new("system:serviceaccount:ci:other").reviews();
    let Err(Refusal::NotAllowed(why)) = reviews.review("t", Right::OWN).await else {
        panic!("let in")
    };
    assert!(why.contains("get secrets mainstay-hub"), "{why}");
}

#[tokio::test]
async fn a_token_for_another_is_nobodys() {
    let mut world = World::new("system:serviceaccount:ci:bot");
    world.audiences = vec!["https://kubernetes.default.svc", "mainstay-hub.other"];
    let (world, reviews) = world.reviews();
    let answer = reviews.review("t", Right::READ).await;
    let Err(Refusal::Unknown(why)) = answer else {
        panic!("{answer:?}")
    };
    assert!(why.contains("--audience mainstay-hub.acme"), "{why}");
    assert!(world.subjects.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_client_is_believed_only_under_the_policy_and_for_as_long_as_it_allows() {
    let (_, reviews) = World {
        has_policy: false,
        ..World::new(CLIENT)
    }
    .reviews();
    let token = client_token("ada", &[], 600);
    let answer = reviews.review(&token, Right::READ).await;
    assert!(matches!(answer, Err(Refusal::Unknown(_))), "{answer:?}");
    let (_, reviews) = World::new(CLIENT).reviews();
    for token in [
        client_token("ada", &[], 24 * 3600),
        client_token("", &[], 600),
        "e30.e30.c2ln".to_owned(),
        "t".to_owned(),
    ] {
        let answer = reviews.review(&token, Right::READ).await;
        assert!(matches!(answer, Err(Refusal::Unknown(_))), "{answer:?}");
    }
}

#[tokio::test]
async fn what_is_taken_away_is_gone_within_ten_seconds_and_what_is_given_is_there_sooner() {
    let (world, reviews) = World::new(CLIENT).reviews();
    let token = client_token("ada", &[], 600);
    tokio::time::pause();
    assert!(reviews.review(&token, Right::READ).await.is_ok());
    let asked = world.asked.load(Ordering::Relaxed);
    assert!(reviews.review(&token, Right::READ).await.is_ok());
    assert_eq!(world.asked.load(Ordering::Relaxed), asked, "it is kept");
    world.may.lock().unwrap().clear();
    tokio::time::advance(Duration::from_secs(9)).await;
    assert!(reviews.review(&token, Right::READ).await.is_err());
    world.may.lock().unwrap().push("ada");
    tokio::time::advance(Duration::from_secs(3)).await;
    assert!(reviews.review(&token, Right::READ).await.is_ok());
}

#[tokio::test]
async fn nobody_is_let_in_while_the_api_server_is_away() {
    let (_, reviews) = World {
        away: true,
        ..World::new("system:serviceaccount:ci:bot")
    }
    .reviews();
    let answer = reviews.review("t", Right::READ).await;
    assert!(matches!(answer, Err(Refusal::Unanswered(_))), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn strangers_wait_for_one_another_and_not_before_who_is_known() {
    let (_, reviews) = World::new("system:serviceaccount:ci:bot").reviews();
    assert!(reviews.review("known", Right::READ).await.is_ok());
    tokio::time::advance(Duration::from_secs(6)).await;
    let _taken = reviews.strangers.acquire_many(4).await;
    let answer = reviews.review("stranger", Right::READ).await;
    assert!(matches!(answer, Err(Refusal::Unanswered(_))), "{answer:?}");
    assert!(reviews.review("known", Right::READ).await.is_ok());
}
