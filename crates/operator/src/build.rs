//! What a workspace, an agent and a stdio MCP server are on Kubernetes: pure functions from what
//! was validated to objects.
//!
//! No cluster is asked and no clock is read here, so every object can be checked by a test.

mod agent;
mod by_name;
mod certificate;
mod destination;
mod hub;
mod monitoring;
mod pod;
mod policy;
mod rights;
mod tenancy;
mod tool;

pub use agent::{AgentInput, agent};
pub(crate) use agent::{has_image, image_of, selector_text};
pub use by_name::by_name;
pub use certificate::{Keys, KeysError};
pub(crate) use destination::node_address;
pub use hub::{HubInput, hub, hub_cluster_rules, hub_keys, hub_rules};
pub use monitoring::{HUB_METRICS, monitor, rules as alert_rules};
pub(crate) use policy::urls;
pub use policy::{PolicyInput, policies};
pub use rights::{ROLES, members, rights, role_name};
pub(crate) use rights::{on_tasks, reach};
pub use tenancy::tenancy;
pub use tool::{ToolInput, tool};

/// On pods of a stdio MCP server and what is made for them: its ToolRegistry.
pub const REGISTRY_LABEL: &str = "mainstay.dev/registry";

/// The init container of a pod that brings an agent's code.
pub(crate) const SOURCE_CONTAINER: &str = "source";

/// Who runs everything that isn't told otherwise.
const USER: u32 = 65532;
