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
pub const PAGE: u32 = 50;

/// An object of one of our kinds, cut where it nests too deep for a manifest.
#[derive(Clone, Debug)]
pub struct CustomResource(pub DynamicObject);

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

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::{ObjectList, WatchEvent};

    const KIND: &str = r#""apiVersion":"mainstay.dev/v1alpha1","kind":"ToolRegistry""#;

    /// As the API server writes it; `managedFields` go as deep as the object.
    fn object(name: &str, levels: usize) -> String {
        let (open, close) = (r#"{"a":"#.repeat(levels), "}".repeat(levels));
        format!(
            r#"{{{KIND},"metadata":{{"name":"{name}","resourceVersion":"7","managedFields":
            [{{"fieldsV1":{open}1{close}}}]}},"spec":{{"x":{open}1{close}}},"status":{{}}}}"#
        )
        .replace('\n', " ")
    }

    /// Read as `kube` reads a list and a line of a watch.
    #[test]
    fn one_that_is_too_deep_ends_neither_a_list_nor_a_watch() {
        for levels in [1, 200, 5_000] {
            let list = format!(
                r#"{{"kind":"ToolRegistryList","apiVersion":"mainstay.dev/v1alpha1","metadata":
                {{"resourceVersion":"9","continue":"next"}},"items":[{},{}]}}"#,
                object("deep", levels),
                object("plain", 1),
            );
            let list: ObjectList<CustomResource> = serde_json::from_str(&list).unwrap();
            assert_eq!(list.metadata.continue_.as_deref(), Some("next"));
            let names = list.items.iter().map(|it| it.0.metadata.name.as_deref());
            assert!(names.eq([Some("deep"), Some("plain")]));
            assert_eq!(list.items[1].0.data["spec"]["x"]["a"], 1);

            for kind in ["ADDED", "MODIFIED", "DELETED"] {
                let line = format!(r#"{{"type":"{kind}","object":{}}}"#, object("deep", levels));
                let event: WatchEvent<CustomResource> = serde_json::from_str(&line).unwrap();
                let (WatchEvent::Added(object)
                | WatchEvent::Modified(object)
                | WatchEvent::Deleted(object)) = event
                else {
                    panic!("{kind}");
                };
                assert_eq!(object.meta().resource_version.as_deref(), Some("7"));
                assert!(object.meta().managed_fields.is_none());
            }
        }
    }

    #[test]
    fn a_bookmark_and_an_error_are_read_as_before() {
        let bookmark = format!(
            r#"{{"type":"BOOKMARK","object":{{{KIND},"metadata":{{"resourceVersion":"8"}}}}}}"#
        );
        let read: WatchEvent<CustomResource> = serde_json::from_str(&bookmark).unwrap();
        assert!(matches!(read, WatchEvent::Bookmark(it) if it.metadata.resource_version == "8"));
        let error = r#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}}"#;
        let read: WatchEvent<CustomResource> = serde_json::from_str(error).unwrap();
        assert!(matches!(read, WatchEvent::Error(it) if it.code == 410));
    }
}
