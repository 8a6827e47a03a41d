//! Fields that only one home of the two reads: said where they are written, never passed over in silence.

use super::Resolver;
use crate::credential::{CredentialSpec, SecretKey};
use crate::kubernetes::HUB;
use crate::manifest::Object;

/// Where a fleet is meant to run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Home {
    /// One server.
    #[default]
    Box,
    /// A cluster.
    Kubernetes,
}

impl Resolver<'_> {
    /// Warns of a field that has no meaning on one server.
    pub(super) fn kubernetes_only(&mut self, object: &Object, field: &str, written: bool) {
        if written && self.facts.home == Home::Box {
            let message = format!("`{field}` has no effect here: it is read on Kubernetes only");
            self.warning(object, field, message);
        }
    }

    /// Refuses a credential that lies on a server's own disk or in its environment.
    pub(super) fn credential_is_near(
        &mut self,
        object: &Object,
        field: &str,
        spec: &CredentialSpec,
    ) {
        if self.facts.home == Home::Box {
            return;
        }
        if let Some(secret) = &spec.secret_ref {
            self.secret_is_not_ours(object, &format!("{field}.secretRef.name"), secret);
        }
        for (name, written) in [("env", spec.env.is_some()), ("file", spec.file.is_some())] {
            if written {
                let field = format!("{field}.{name}");
                let message = format!("`{field}` can't be read on Kubernetes");
                let hint = "put it into a Secret and write `secretRef: {name: …, key: …}`";
                self.hinted(object, &field, message, hint);
            }
        }
    }

    /// Refuses the hub's own Secret: whoever writes objects could have its keys sent anywhere.
    pub(super) fn secret_is_not_ours(&mut self, object: &Object, field: &str, secret: &SecretKey) {
        if self.facts.home == Home::Kubernetes && secret.name == HUB {
            let message = format!("`{field}` is the hub's own Secret, which it gives to nobody");
            self.problem(object, field, message);
        }
    }
}
