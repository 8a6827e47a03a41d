//! The hub's keys: made once, and never made again while anything is sealed with them.

use api::kubernetes::{HUB, HUB_CA};
use k8s_openapi::ByteString;
use kube::Error as KubeError;
use kube::api::PostParams;
use kube::core::DynamicObject;

use crate::apply;
use crate::build::{self, Keys};
use crate::context::Context;
use crate::error::Error;
use crate::object::{Owner, Resource};
use crate::verdict::Verdict;

/// What is needed of them here.
pub(super) struct OfHub {
    /// The authority's certificate, as PEM.
    pub(super) authority: String,
    pub(super) state_key: Vec<u8>,
}

/// Those that are there or are made now; or why there are none.
pub(super) async fn keys(
    context: &Context,
    owner: &Owner,
) -> Result<Result<OfHub, Verdict>, Error> {
    let namespace = owner.name.as_str();
    let api = apply::api(&context.client, Resource::Secret, Some(namespace));
    let found = api.get_opt(HUB).await.map_err(|source| Error::Read {
        resource: Resource::Secret.to_string(),
        name: HUB.to_owned(),
        source,
    })?;
    if let Some(found) = found {
        return Ok(read(&found).ok_or_else(|| incomplete(namespace)));
    }
    // Its certificate is made from it: it was there, and a hub has sealed its log with it.
    if context
        .world
        .owned(namespace, Resource::ConfigMap, HUB_CA)
        .is_some()
    {
        return Ok(Err(lost(namespace)));
    }
    let keys = Keys::generate(namespace)?;
    let secret = build::hub_keys(namespace, owner, &keys);
    // Created, not applied: another operator's must not be written over.
    let parameters = PostParams {
        field_manager: Some(crate::FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    let object: DynamicObject = match serde_json::from_value(secret.body) {
        Ok(object) => object,
        Err(_) => return Ok(Err(incomplete(namespace))),
    };
    match api.create(&parameters, &object).await {
        Ok(_) => context.metrics.wrote(Resource::Secret.kind()),
        Err(KubeError::Api(status)) if status.code == 409 => {
            return Ok(Err(Verdict::waiting("Starting", "its keys are being made")));
        }
        Err(source) => {
            return Err(Error::Write {
                resource: Resource::Secret,
                name: HUB.to_owned(),
                source,
            });
        }
    }
    Ok(Ok(OfHub {
        state_key: keys.state_key.to_vec(),
        authority: keys.authority,
    }))
}

fn read(secret: &DynamicObject) -> Option<OfHub> {
    let data = &secret.data["data"];
    let decoded = |key: &str| serde_json::from_value::<ByteString>(data[key].clone()).ok();
    let authority = ["tls.crt", "tls.key"]
        .into_iter()
        .all(|key| decoded(key).is_some())
        .then(|| decoded("ca.crt"))
        .flatten()?;
    Some(OfHub {
        authority: String::from_utf8(authority.0).ok()?,
        state_key: decoded("state-key")?.0,
    })
}

fn incomplete(namespace: &str) -> Verdict {
    Verdict::problem(
        "KeysDamaged",
        format!(
            "Secret {namespace}/{HUB} has no state-key, ca.crt, tls.crt or tls.key: restore it from a backup"
        ),
    )
}

fn lost(namespace: &str) -> Verdict {
    Verdict::problem(
        "KeysLost",
        format!(
            "Secret {namespace}/{HUB} is gone, and what the hub has sealed can't be read without it: restore it from a backup; or, to begin anew, delete StatefulSet {HUB}, its volume and ConfigMap {HUB_CA}"
        ),
    )
}
