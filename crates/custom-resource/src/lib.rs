//! What the operator and a hub's home both need to speak with the API server about our kinds: how a
//! kind is reached, how one of its objects is read, and what the server said.
//!
//! The two see nothing else of each other. What an object means is `api`'s.

mod object;
pub mod said;

use api::Kind;
use api::kubernetes::{GROUP, VERSION};
use kube::core::{ApiResource, GroupVersionKind};

pub use object::{CustomResource, PAGE};

/// How a kind of ours is reached.
pub fn resource(kind: Kind) -> ApiResource {
    let names = GroupVersionKind::gvk(GROUP, VERSION, kind.name());
    ApiResource::from_gvk_with_plural(&names, api::kubernetes::plural(kind))
}
