//! A custom resource as the API server sends it, so read that none can stop the others.
//!
//! `kube` reads a list in one piece, and an event with its object. What fails to be read there fails
//! again in the next list, for ever, and whoever may write one object would end the watch of
//! everybody's. So the part that nests too deep to be read is cut (`api::kubernetes::shallow`).

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::{ApiResource, DynamicObject, DynamicResourceScope};
use serde::de::{Deserialize, Deserializer, Error as _};

/// So many are in one page of a list. The whole page is held as text, and one may have 1.5 MiB.
pub(crate) const PAGE: u32 = 50;

#[derive(Clone, Debug)]
pub(crate) struct CustomResource(pub(crate) DynamicObject);

impl<'de> Deserialize<'de> for CustomResource {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        let object = api::kubernetes::shallow(json)?;
        let object = serde_json::from_value(object);
        object.map(Self).map_err(D::Error::custom)
    }
}

impl Resource for CustomResource {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        DynamicObject::kind(resource)
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        DynamicObject::group(resource)
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        DynamicObject::version(resource)
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        DynamicObject::plural(resource)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.0.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.0.metadata
    }
}
