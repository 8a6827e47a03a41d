//! What the admission webhook is made of: an authority, the way to the operator, and when it's asked.
//!
//! The API server trusts the authority, whose key lies in a Secret beside the operator. It is kept
//! when an installation is brought up to date; without one (`mainstay render`) there is no webhook,
//! and what it would have refused stands in the objects' status.

use api::kubernetes::{GROUP, VERSION, WORKSPACE_LABEL};
use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, DnValue, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

use super::{OPERATOR, Options, labels};
use crate::rbac::IN_NAMESPACES;

/// The Secret with the authority.
pub const AUTHORITY: &str = "mainstay-operator-authority";
/// Where the operator is asked.
pub const ADMISSION_PORT: u16 = 8443;
/// Where the authority's files are in the operator's container.
pub const AUTHORITY_FOLDER: &str = "/etc/mainstay/authority";
const NAME: &str = "Mainstay admission";

/// A certificate that the API server trusts for the operator alone, and its key, both PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Authority {
    pub certificate: String,
    pub key: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority(..)")
    }
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[error("make a certificate of the operator")]
pub struct AuthorityError(#[from] rcgen::Error);

impl Authority {
    /// A new one.
    pub fn generate() -> Result<Self, AuthorityError> {
        let pair = KeyPair::generate()?;
        let key = pair.serialize_pem();
        let issuer = CertifiedIssuer::self_signed(authority()?, pair)?;
        Ok(Self {
            certificate: issuer.pem(),
            key,
        })
    }

    /// A certificate for the operator's Service, and its key in PKCS 8.
    pub(crate) fn sign(
        &self,
        namespace: &str,
    ) -> Result<(Vec<CertificateDer<'static>>, Vec<u8>), AuthorityError> {
        let issuer = Issuer::new(authority()?, KeyPair::from_pem(&self.key)?);
        let key = KeyPair::generate()?;
        let mut params = dated(vec![
            format!("{OPERATOR}.{namespace}.svc"),
            format!("{OPERATOR}.{namespace}.svc.cluster.local"),
        ])?;
        params.distinguished_name.push(DnType::CommonName, OPERATOR);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let signed = params.signed_by(&key, &issuer)?;
        Ok((vec![signed.der().clone()], key.serialize_der()))
    }
}

fn authority() -> Result<CertificateParams, rcgen::Error> {
    let mut params = dated(Vec::new())?;
    // Byte for byte what Helm makes of the same name: that of an issuer is compared so.
    let name = DnValue::PrintableString(NAME.try_into()?);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    Ok(params)
}

/// Good for thirty years: it is pinned, and taken back by deleting the Secret. What the operator
/// shows is a day old at most.
fn dated(names: Vec<String>) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    params.not_after = rcgen::date_time_ymd(2056, 1, 1);
    Ok(params)
}

pub(super) fn objects(options: &Options) -> Vec<Value> {
    let Some(authority) = &options.authority else {
        return Vec::new();
    };
    vec![
        secret(options, authority),
        service(options),
        webhook(options, authority),
    ]
}

/// As Kubernetes writes bytes.
fn encoded(text: &str) -> Value {
    serde_json::to_value(ByteString(text.as_bytes().to_vec())).unwrap_or_default()
}

fn secret(options: &Options, authority: &Authority) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": AUTHORITY, "namespace": options.namespace, "labels": labels()},
        "type": "Opaque",
        "data": {
            "ca.crt": encoded(&authority.certificate),
            "ca.key": encoded(&authority.key),
        },
    })
}

fn service(options: &Options) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": OPERATOR, "namespace": options.namespace, "labels": labels()},
        "spec": {
            "selector": {"app.kubernetes.io/name": OPERATOR},
            "ports": [{
                "name": "admission", "port": 443, "targetPort": "admission", "protocol": "TCP",
            }],
        },
    })
}

fn webhook(options: &Options, authority: &Authority) -> Value {
    let asked = |name: &str, resources: &[&str], scope: &str| {
        json!({
            "name": format!("{name}.{GROUP}"),
            "clientConfig": {
                "service": {
                    "name": OPERATOR, "namespace": options.namespace, "path": "/", "port": 443,
                },
                "caBundle": encoded(&authority.certificate),
            },
            "rules": [{
                "apiGroups": [GROUP], "apiVersions": [VERSION], "resources": resources,
                "operations": ["CREATE", "UPDATE"], "scope": scope,
            }],
            "matchPolicy": "Equivalent",
            // Whoever writes an object isn't held up by an operator that is away.
            "failurePolicy": "Ignore",
            "sideEffects": "None",
            "timeoutSeconds": 2,
            "admissionReviewVersions": ["v1"],
        })
    };
    let mut objects = asked("objects", &IN_NAMESPACES, "Namespaced");
    // Elsewhere nothing runs them.
    objects["namespaceSelector"] = json!({"matchExpressions": [
        {"key": WORKSPACE_LABEL, "operator": "Exists"},
    ]});
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": OPERATOR, "labels": labels()},
        "webhooks": [objects, asked("workspaces", &["workspaces"], "Cluster")],
    })
}
