use std::sync::atomic::{AtomicU32, Ordering};

use api::kubernetes::agent_account;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contract::Versions;
use contract::pod::{AUDIENCE, Network, Purpose};
use serde_json::{Value, json};

use super::*;

pub(crate) const NAMESPACE: &str = "acme";

/// A cluster that signs tokens.
pub(crate) struct Issuer {
    rsa: RsaKeyPair,
    elliptic: EcdsaKeyPair,
}

impl Issuer {
    pub(crate) fn new() -> Self {
        let rsa = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
        Self {
            rsa,
            elliptic: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
        }
    }

    pub(crate) fn jwks(&self) -> String {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        // PKCS#1: a sequence of n, with the zero of its sign before it, and e.
        let public = self.rsa.public_key().as_ref();
        let point = self.elliptic.public_key().as_ref();
        json!({"keys": [
            {"kty": "OKP", "kid": "other", "crv": "Ed25519", "x": "AAAA"},
            {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "rsa",
             "n": text(&public[8..265]),
             "e": text(&public[public.len() - 3..])},
            {"kty": "EC", "use": "sig", "crv": "P-256", "kid": "ec",
             "x": text(&point[1..33]), "y": text(&point[33..])},
        ]})
        .to_string()
    }

    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = unsigned(header, claims);
        let random = SystemRandom::new();
        let signature = match header["kid"].as_str() {
            Some("ec") => {
                let signed = self.elliptic.sign(&random, signed.as_bytes());
                signed.unwrap().as_ref().to_vec()
            }
            _ => {
                let mut signature = vec![0; self.rsa.public_modulus_len()];
                self.rsa
                    .sign(
                        &RSA_PKCS1_SHA256,
                        &random,
                        signed.as_bytes(),
                        &mut signature,
                    )
                    .unwrap();
                signature
            }
        };
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// The token of an agent's pod.
    pub(crate) fn token(&self, pod: &str, agent: &str) -> String {
        self.sign(
            &json!({"alg": "RS256", "kid": "rsa"}),
            &claims(pod, agent, |_| {}),
        )
    }
}

fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

fn claims(pod: &str, agent: &str, change: impl FnOnce(&mut Value)) -> Value {
    let now = now_seconds();
    let account = agent_account(agent);
    let mut claims = json!({
        "aud": [AUDIENCE], "iss": "https://kubernetes.default.svc", "exp": now + 3600, "iat": now, "nbf": now,
        "kubernetes.io": {
            "namespace": NAMESPACE, "node": {"name": "n", "uid": "n-1"},
            "pod": {"name": pod, "uid": format!("uid-{pod}")},
            "serviceaccount": {"name": account, "uid": "s-1"},
        },
        "sub": format!("system:serviceaccount:{NAMESPACE}:{account}"),
    });
    change(&mut claims);
    claims
}

pub(crate) fn frame(token: String, owner: &str) -> FromPod {
    FromPod {
        versions: Versions::OURS,
        purpose: Purpose::Offer,
        token,
        owner: owner.into(),
        kind: InstanceKind::Exec,
        template: "t".into(),
        isolation: "none".into(),
        service_port: None,
        memory_percent: None,
        draining: false,
        network: Network::Unknown,
        source: None,
    }
}

/// A fleet of one agent, `helper`, a process per task.
pub(crate) fn fleet() -> Fleet {
    fleet_of("{exec: {command: [\"true\"]}}")
}

fn fleet_of(runtime: &str) -> Fleet {
    fleet_in(&[&manifest(
        "Agent",
        "helper",
        &format!("{{runtime: {runtime}}}"),
    )])
}

fn manifest(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: mainstay.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    )
}

fn fleet_in(manifests: &[&str]) -> Fleet {
    let documents = [api::Document::found("a.yaml", manifests.join("---\n"))];
    let facts = api::Facts::new(&|_, _| None, &|_| Err("no such file".into()));
    api::resolve(&documents, &facts).unwrap().fleet
}

/// The same, whose agent has a model of a provider `one`, which falls back on `two`; nobody uses
/// `idle`.
pub(crate) fn fleet_with_models() -> Fleet {
    let provider = |name: &str, fallback: &str| {
        let spec =
            format!("{{type: openai, baseUrl: \"http://127.0.0.1:9\", fallback: [{fallback}]}}");
        manifest("Provider", name, &spec)
    };
    let agent = "{runtime: {exec: {command: [\"true\"]}}, models: [one/m]}";
    fleet_in(&[
        &manifest("Agent", "helper", agent),
        &provider("one", "two/m"),
        &provider("two", ""),
        &provider("idle", ""),
    ])
}

/// The same, whose agent is a server.
pub(crate) fn fleet_of_service() -> Fleet {
    fleet_of("{service: {command: [\"true\"], protocol: http, port: 8000}}")
}

/// A check with keys that come from the issuer at the first need.
pub(crate) fn tokens(issuer: &Issuer, state: &Path) -> Tokens {
    tokens_for(issuer, state, fleet())
}

pub(crate) fn tokens_for(issuer: &Issuer, state: &Path, fleet: Fleet) -> Tokens {
    let jwks = issuer.jwks();
    let fetch: Fetch = Arc::new(move || {
        let jwks = jwks.clone();
        Box::pin(async move { Ok(jwks) })
    });
    let (_, fleet) = watch::channel(Arc::new(fleet));
    Tokens::new(NAMESPACE, state, fetch, fleet)
}

async fn admitted(tokens: &Tokens, token: String) -> Result<Identity, AdmitError> {
    tokens.admit(&frame(token, "helper"), |_, _| None).await
}

#[tokio::test]
async fn a_pods_token_says_whose_it_is() {
    let (issuer, state) = (Issuer::new(), tempfile::tempdir().unwrap());
    let tokens = tokens(&issuer, state.path());
    for header in [
        json!({"alg": "RS256", "kid": "rsa"}),
        json!({"alg": "ES256", "kid": "ec"}),
    ] {
        let token = issuer.sign(&header, &claims("helper-1", "helper", |_| {}));
        let identity = admitted(&tokens, token).await.unwrap();
        assert_eq!(identity.pod, "helper-1");
        assert_eq!(identity.uid, "uid-helper-1");
    }
}

/// What an attacker can do to a token, and what is said of it.
#[tokio::test]
async fn no_other_token_is_believed() {
    let (issuer, state) = (Issuer::new(), tempfile::tempdir().unwrap());
    let tokens = tokens(&issuer, state.path());
    let rs256 = json!({"alg": "RS256", "kid": "rsa"});
    let signed = |change: &dyn Fn(&mut Value)| {
        issuer.sign(
            &rs256,
            &claims("helper-1", "helper", |claims| change(claims)),
        )
    };
    let good = claims("helper-1", "helper", |_| {});
    let none = format!(
        "{}.",
        unsigned(&json!({"alg": "none", "kid": "rsa"}), &good)
    );
    // The public key as an HMAC's key: an old trick on libraries that let the token choose.
    let symmetric = {
        let signed = unsigned(&json!({"alg": "HS256", "kid": "rsa"}), &good);
        let key = aws_lc_rs::hmac::Key::new(
            aws_lc_rs::hmac::HMAC_SHA256,
            issuer.rsa.public_key().as_ref(),
        );
        let tag = aws_lc_rs::hmac::sign(&key, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
    };
    let other_key = Issuer::new().sign(&rs256, &good);
    let mut altered = signed(&|_| {});
    let at = altered.find('.').unwrap() + 12;
    altered.replace_range(at..=at, if &altered[at..=at] == "A" { "B" } else { "A" });
    let now = now_seconds();
    let cases: Vec<(&str, String, TokenError)> = vec![
        ("no algorithm", none, TokenError::Algorithm),
        (
            "an HMAC with the public key",
            symmetric,
            TokenError::Algorithm,
        ),
        ("another cluster's", other_key, TokenError::Signature),
        ("an altered one", altered, TokenError::Signature),
        (
            "an unknown key",
            issuer.sign(&json!({"alg": "RS256", "kid": "new"}), &good),
            TokenError::UnknownKey,
        ),
        (
            "no key named",
            issuer.sign(&json!({"alg": "RS256"}), &good),
            TokenError::UnknownKey,
        ),
        (
            "a key of another algorithm",
            issuer.sign(&json!({"alg": "ES256", "kid": "rsa"}), &good),
            TokenError::Algorithm,
        ),
        (
            "something that must be understood",
            issuer.sign(
                &json!({"alg": "RS256", "kid": "rsa", "crit": ["b64"]}),
                &good,
            ),
            TokenError::Malformed,
        ),
        (
            "another audience",
            signed(&|c| c["aud"] = json!(["api"])),
            TokenError::Audience,
        ),
        (
            "another namespace",
            signed(&|c| c["kubernetes.io"]["namespace"] = json!("other")),
            TokenError::Namespace,
        ),
        (
            "an expired one",
            signed(&|c| c["exp"] = json!(now - 61)),
            TokenError::Expired,
        ),
        (
            "one of tomorrow",
            signed(&|c| c["nbf"] = json!(now + 3600)),
            TokenError::Early,
        ),
        (
            "no pod",
            signed(&|c| c["kubernetes.io"]["pod"] = Value::Null),
            TokenError::NoPod,
        ),
        (
            "no Kubernetes",
            signed(&|c| c["kubernetes.io"] = Value::Null),
            TokenError::NoPod,
        ),
        (
            "a path as its name",
            signed(&|c| c["kubernetes.io"]["pod"]["name"] = json!("../x")),
            TokenError::Malformed,
        ),
        (
            "no date of issue",
            signed(&|c| c["iat"] = Value::Null),
            TokenError::Malformed,
        ),
        ("no dots", "token".into(), TokenError::Malformed),
        ("nothing", String::new(), TokenError::Malformed),
    ];
    for (what, token, expected) in cases {
        match admitted(&tokens, token).await {
            Err(AdmitError::Token(error)) => assert_eq!(error, expected, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_pod_is_its_accounts_and_nobody_elses() {
    let (issuer, state) = (Issuer::new(), tempfile::tempdir().unwrap());
    let tokens = tokens(&issuer, state.path());
    let none = |_: &str, _: &str| None;
    let other = tokens
        .admit(&frame(issuer.token("p", "helper"), "other"), none)
        .await;
    assert!(
        matches!(other, Err(AdmitError::OtherOwner { .. })),
        "{other:?}"
    );
    let gone = tokens
        .admit(&frame(issuer.token("p", "gone"), "gone"), none)
        .await;
    assert!(
        matches!(&gone, Err(error @ AdmitError::NoOwner { .. }) if error.may_pass()),
        "{gone:?}"
    );
    for kind in [InstanceKind::Mcp, InstanceKind::Service] {
        let mut server = frame(issuer.token("p", "helper"), "helper");
        server.kind = kind;
        let wrong = tokens.admit(&server, none).await;
        assert!(
            matches!(wrong, Err(AdmitError::WrongKind { .. })),
            "{wrong:?}"
        );
    }
    // A pod that was let in before its agent was removed.
    let known = |pod: &str, _: &str| (pod == "p").then(|| "gone".to_owned());
    let stays = tokens
        .admit(&frame(issuer.token("p", "gone"), "gone"), known)
        .await;
    assert_eq!(stays.unwrap().owner, "gone");
}

#[tokio::test(start_paused = true)]
async fn keys_are_kept_on_disk_and_fetched_for_a_new_one_now_and_then() {
    let (issuer, state) = (Issuer::new(), tempfile::tempdir().unwrap());
    admitted(&tokens(&issuer, state.path()), issuer.token("p", "helper"))
        .await
        .unwrap();
    // Without the API server the kept keys serve.
    let asked = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&asked);
    let away: Fetch = Arc::new(move || {
        counter.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { Err("away".into()) })
    });
    let (_, fleet) = watch::channel(Arc::new(fleet()));
    let tokens = Tokens::new(NAMESPACE, state.path(), away, fleet);
    admitted(&tokens, issuer.token("p", "helper"))
        .await
        .unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    let unknown = issuer.sign(
        &json!({"alg": "RS256", "kid": "new"}),
        &claims("p", "helper", |_| {}),
    );
    for _ in 0..100 {
        admitted(&tokens, unknown.clone()).await.unwrap_err();
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    tokio::time::advance(REFRESH + Duration::from_secs(1)).await;
    admitted(&tokens, unknown).await.unwrap_err();
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}
