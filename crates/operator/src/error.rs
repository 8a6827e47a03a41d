//! Why a reconcile didn't get through, by what can be done about it.

use custom_resource::said::answer;
use std::time::Duration;

use crate::object::Resource;

/// What an error means for the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Category {
    /// Somebody has to change something; trying again is no use until then.
    User,
    /// The cluster: tried again, later each time.
    Cluster,
    /// Ours.
    Internal,
}

impl Category {
    /// As logs, Events and metrics call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Cluster => "cluster",
            Self::Internal => "internal",
        }
    }
}

/// One failing operation each.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("read {resource} {name}")]
    Read {
        resource: String,
        name: String,
        source: kube::Error,
    },
    #[error("write {resource} {name}: {}", answer(source))]
    Write {
        resource: Resource,
        name: String,
        source: kube::Error,
    },
    #[error("write Namespace {name}: {}", answer(source))]
    Namespace { name: String, source: kube::Error },
    #[error("remove {resource} {name}")]
    Remove {
        resource: Resource,
        name: String,
        source: kube::Error,
    },
    #[error("there is a {resource} {name} already that isn't this object's")]
    Taken { resource: Resource, name: String },
    #[error("{manager} keeps changing {resource} {name}")]
    Contested {
        resource: Resource,
        name: String,
        manager: String,
    },
    #[error("write the status: {}", answer(source))]
    Status { source: kube::Error },
    #[error(transparent)]
    Keys(#[from] crate::build::KeysError),
}

/// How long a contested object is left to the other.
const TRUCE: Duration = Duration::from_secs(60);

impl Error {
    pub(crate) fn category(&self) -> Category {
        match self {
            Self::Taken { .. } | Self::Contested { .. } => Category::User,
            Self::Write { source, .. } | Self::Namespace { source, .. } if is_refusal(source) => {
                Category::User
            }
            Self::Read { .. }
            | Self::Write { .. }
            | Self::Namespace { .. }
            | Self::Remove { .. }
            | Self::Status { .. } => Category::Cluster,
            Self::Keys(_) => Category::Internal,
        }
    }

    /// The reason that a condition gives.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Taken { .. } => "NameTaken",
            Self::Contested { .. } => "Contested",
            Self::Write { source, .. } | Self::Namespace { source, .. } if is_refusal(source) => {
                "Refused"
            }
            Self::Read { .. }
            | Self::Write { .. }
            | Self::Namespace { .. }
            | Self::Remove { .. }
            | Self::Status { .. } => "ClusterFailed",
            Self::Keys(_) => "Failed",
        }
    }

    /// What to do, for a person.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Taken { resource, name } => Some(format!(
                "give this object another name, or delete {resource} {name} if nothing needs it"
            )),
            Self::Contested { manager, .. } => Some(format!(
                "let {manager} leave what Mainstay manages alone (label app.kubernetes.io/managed-by=mainstay)"
            )),
            _ => None,
        }
    }

    /// How long it rests, if not by the number of failures.
    pub(crate) fn rest(&self) -> Option<Duration> {
        matches!(self, Self::Contested { .. }).then_some(TRUCE)
    }
}

/// The API server understood and said no: an invalid field, a policy, a missing right.
fn is_refusal(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 400 | 403 | 422))
}
