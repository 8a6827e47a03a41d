//! The first step: everything that an object's reconcile looks at, taken from the world at one
//! moment. Later steps ask nobody.

use std::sync::Arc;

use api::Kind;
use api::kubernetes::HUB;
use contract::pod::POD_DOOR_PORT;

use crate::context::Context;
use crate::object::{Owner, Resource};
use crate::resolve::Set;
use crate::world::{Key, Written};

/// An object of a namespace, with what it depends on.
pub(crate) struct Dereferenced {
    pub(crate) key: Key,
    pub(crate) written: Arc<Written>,
    pub(crate) owner: Owner,
    pub(crate) set: Arc<Set>,
    pub(crate) home: Home,
}

/// The workspace around it.
pub(crate) enum Home {
    /// There is no Workspace of the namespace's name.
    None,
    /// There is one, but the namespace isn't its own yet.
    NotReady,
    /// `ADDRESS:PORT` of its hub's pod door, once there is one.
    Of { hub: Option<String> },
}

/// None if there is nothing to do now: it is gone, it is going, or what is needed to judge it isn't
/// known yet, and it is looked at again when it is.
pub(crate) fn dereference(context: &Context, key: &Key) -> Option<Dereferenced> {
    let world = &context.world;
    let written = world.written(key).filter(|written| !written.deleting)?;
    let set = world.set(key.home())?;
    if !set.knows(key.kind, &key.name, &written) {
        return None;
    }
    Some(Dereferenced {
        owner: owner(key, &written),
        home: home(context, &key.namespace)?,
        key: key.clone(),
        written,
        set,
    })
}

pub(crate) fn owner(key: &Key, written: &Written) -> Owner {
    Owner {
        kind: key.kind,
        name: key.name.clone(),
        uid: written.uid.clone(),
    }
}

fn home(context: &Context, namespace: &str) -> Option<Home> {
    let world = &context.world;
    if !world.is_whole() {
        return None;
    }
    let workspace = world.written(&Key::new(Kind::Workspace, "", namespace));
    let Some(workspace) = workspace.filter(|workspace| !workspace.deleting) else {
        return Some(Home::None);
    };
    if !world.is_known(namespace) {
        return is_stuck(&workspace).then_some(Home::NotReady);
    }
    let service = world.owned(namespace, Resource::Service, HUB);
    let address = service.and_then(|service| service.cluster_ip);
    Some(Home::Of {
        hub: address.map(|address| at(&address)),
    })
}

/// Whether it gets its namespace only once somebody does something. Until that is known, as after
/// a start of the operator, nobody's condition changes.
fn is_stuck(workspace: &Written) -> bool {
    let status = workspace.status();
    let conditions = status["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|condition| {
        let reason = condition["reason"].as_str().unwrap_or_default();
        condition["type"] == "Ready"
            && ["Invalid", "NamespaceNotOurs", "NamespaceTerminating"].contains(&reason)
    })
}

fn at(address: &str) -> String {
    match address.contains(':') {
        true => format!("[{address}]:{POD_DOOR_PORT}"),
        false => format!("{address}:{POD_DOOR_PORT}"),
    }
}
