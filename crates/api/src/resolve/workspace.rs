//! One set is one workspace: all objects share a namespace, and a Workspace object is named like it.

use super::Resolver;
use crate::fleet::{Member, Quota, Retention, Store};
use crate::manifest::{DEFAULT_NAMESPACE, Kind, Object, Spec};
use crate::problem::quoted;
use crate::workspace::WorkspaceSpec;
use std::collections::BTreeSet;

impl Resolver<'_> {
    pub(super) fn workspace(&mut self) {
        let workspaces = self.of_kind(Kind::Workspace);
        let first = workspaces.first().copied().or(self.written.first());
        let Some(first) = first else { return };
        first.workspace().clone_into(&mut self.fleet.workspace);
        for object in self.written {
            if object.workspace() == self.fleet.workspace {
                continue;
            }
            let what = if object.kind() == Kind::Workspace {
                "is"
            } else {
                "belongs to"
            };
            let message = format!(
                "{} {} {what} workspace {}, but {} {} at {} makes this set workspace {}",
                object.kind(),
                quoted(object.name()),
                quoted(object.workspace()),
                first.kind(),
                quoted(first.name()),
                first.place_of("metadata.name"),
                quoted(&self.fleet.workspace),
            );
            let hint = match object.metadata.namespace {
                None if object.kind() != Kind::Workspace => {
                    format!(
                        "without `namespace` it is {DEFAULT_NAMESPACE}: write `namespace: {}`",
                        self.fleet.workspace
                    )
                }
                _ => "one set is one workspace; keep the others in a directory of their own"
                    .to_owned(),
            };
            self.hinted(object, "metadata.namespace", message, hint);
        }
        for object in workspaces {
            if object
                .metadata
                .namespace
                .as_deref()
                .is_some_and(|namespace| namespace != object.name())
            {
                self.problem(
                    object,
                    "metadata.namespace",
                    "a Workspace is in no namespace: its name is the namespace it owns",
                );
            }
            if let Spec::Workspace(spec) = &object.spec {
                self.fleet.description.clone_from(&spec.description);
                self.fleet.retention = Retention {
                    payloads_seconds: spec.retention.payloads.map(|payloads| payloads.ms / 1000),
                    max_bytes: spec.retention.max_bytes.map(|size| size.bytes),
                };
                self.tenancy(object, spec);
            }
        }
    }

    fn tenancy(&mut self, object: &Object, spec: &WorkspaceSpec) {
        self.kubernetes_only(object, "spec.members", !spec.members.is_empty());
        self.kubernetes_only(object, "spec.quota", spec.quota.is_some());
        self.kubernetes_only(object, "spec.store", spec.store.is_some());
        let mut seen = BTreeSet::new();
        for (index, member) in spec.members.iter().enumerate() {
            if !seen.insert(&member.subject) {
                let field = format!("spec.members[{index}].subject");
                let message = format!("{} is written twice", quoted(&member.subject));
                self.problem(object, &field, message);
            }
        }
        let members = spec.members.iter().map(|member| Member {
            subject: member.subject.clone(),
            role: member.role,
        });
        self.fleet.members = members.collect();
        if let Some(quota) = &spec.quota {
            self.fleet.quota = Quota {
                agents: quota.agents,
                cpu_millis: quota.cpu.map(|cpu| cpu.millis),
                memory_bytes: quota.memory.map(|memory| memory.bytes),
            };
        }
        if let Some(sqlite) = spec.store.as_ref().and_then(|store| store.sqlite.as_ref()) {
            self.fleet.store = Store::Sqlite {
                size_bytes: sqlite.size.bytes,
            };
        }
    }
}
