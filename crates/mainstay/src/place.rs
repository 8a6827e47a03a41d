//! Where the state lies and how the hub is reached: `--state`, the environment, or a context.
//!
//! Order: an address given by hand (`MAINSTAY_URL`, then a cluster's, then `--context`) beats the
//! socket of a state that was named, which beats the configuration file's current context.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::exit::{Exit, Failure};

/// Options of every command.
#[derive(Clone, Debug, clap::Args)]
pub struct PlaceArgs {
    /// Directory of the state [default: /var/lib/mainstay as root, else $XDG_STATE_HOME/mainstay]
    #[arg(
        long,
        global = true,
        env = "MAINSTAY_STATE",
        value_name = "DIR",
        hide_env_values = true
    )]
    state: Option<PathBuf>,
    /// A context of the configuration file
    #[arg(
        long,
        global = true,
        env = "MAINSTAY_CONTEXT",
        value_name = "NAME",
        hide_env_values = true
    )]
    context: Option<String>,
    /// The workspace whose hub is called; in `kubernetes` and `render`, the operator's namespace
    #[arg(
        short = 'n',
        long,
        global = true,
        value_name = "NAME",
        help_heading = IN_A_CLUSTER
    )]
    namespace: Option<String>,
    /// A context of the kubeconfig
    #[arg(long, global = true, value_name = "NAME", help_heading = IN_A_CLUSTER)]
    kube_context: Option<String>,
    /// The file that says how to reach the cluster [default: KUBECONFIG, else ~/.kube/config]
    #[arg(long, global = true, value_name = "FILE", help_heading = IN_A_CLUSTER)]
    kubeconfig: Option<PathBuf>,
}

const IN_A_CLUSTER: &str = "In a cluster";

/// Which cluster, as `kubectl` is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KubeAddress {
    pub kubeconfig: Option<PathBuf>,
    pub context: Option<String>,
}

/// How to reach a hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// The control socket of a state on this machine.
    Socket(PathBuf),
    Url {
        url: String,
        token: Option<String>,
        ca: Option<PathBuf>,
    },
    /// The hub of a workspace in a cluster, through its API server.
    Cluster {
        cluster: KubeAddress,
        workspace: String,
    },
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    current: Option<String>,
    #[serde(default)]
    contexts: BTreeMap<String, Context>,
}

/// A hub elsewhere, or a state here.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Context {
    url: Option<String>,
    token: Option<String>,
    /// A certificate to trust, in PEM.
    ca: Option<PathBuf>,
    state: Option<PathBuf>,
    /// A workspace in a cluster.
    namespace: Option<String>,
    #[serde(rename = "kubeContext")]
    kube_context: Option<String>,
    kubeconfig: Option<PathBuf>,
}

impl PlaceArgs {
    /// The state directory. Nothing says that it exists.
    pub fn state(&self) -> Result<PathBuf, Failure> {
        if let (Some(state), None) = (&self.state, &self.context) {
            return absolute(state);
        }
        let of_context = self.context()?.and_then(|context| context.state);
        match of_context.as_ref().or(self.state.as_ref()) {
            Some(state) => absolute(state),
            None => default_state(),
        }
    }

    /// The state directory, for what can be read on its own machine only.
    pub fn local_state(&self, what: &str) -> Result<PathBuf, Failure> {
        match self.address()? {
            Address::Url { url, .. } if self.state.is_none() => Err(Failure::usage(format!(
                "{what} of the hub at {url} lie on its own machine"
            ))
            .with_hint("call this there, without MAINSTAY_URL or a context")),
            Address::Cluster { workspace, .. } => Err(Failure::usage(format!(
                "{what} of the hub of {workspace} lie in its pod"
            ))),
            _ => self.state(),
        }
    }

    /// Where the hub is.
    pub fn address(&self) -> Result<Address, Failure> {
        if let Some(url) = variable("MAINSTAY_URL") {
            let ca = variable("MAINSTAY_CA").map(PathBuf::from);
            return Ok(Address::Url {
                url,
                token: variable("MAINSTAY_TOKEN"),
                ca,
            });
        }
        if self.names_cluster() {
            let namespace = self.namespace.clone();
            return Ok(Address::Cluster {
                cluster: self.cluster(),
                workspace: namespace.unwrap_or_else(|| api::manifest::DEFAULT_NAMESPACE.to_owned()),
            });
        }
        if (self.state.is_none() || self.context.is_some())
            && let Some(address) = self.context()?.and_then(Context::address)
        {
            return Ok(address);
        }
        Ok(Address::Socket(self.state()?.join("run/control.sock")))
    }

    /// The cluster that the options name, or `kubectl`'s own.
    pub fn cluster(&self) -> KubeAddress {
        KubeAddress {
            kubeconfig: self.kubeconfig.clone(),
            context: self.kube_context.clone(),
        }
    }

    /// The namespace that `-n` names.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    fn names_cluster(&self) -> bool {
        self.namespace.is_some() || self.kube_context.is_some() || self.kubeconfig.is_some()
    }

    fn context(&self) -> Result<Option<Context>, Failure> {
        let Some(path) = config_path() else {
            return Ok(None);
        };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error)
                if error.kind() == std::io::ErrorKind::NotFound && self.context.is_none() =>
            {
                return Ok(None);
            }
            Err(error) => {
                return Err(
                    Failure::usage(format!("failed to read {}", path.display())).because(error)
                );
            }
        };
        let config: Config = serde_saphyr::from_str(&text).map_err(|error| {
            Failure::usage(format!("{} is not a configuration", path.display())).because(error)
        })?;
        let Some(name) = self.context.clone().or(config.current) else {
            return Ok(None);
        };
        let known = config
            .contexts
            .keys()
            .cloned()
            .collect::<Vec<_>>()
            .join(", ");
        let context = config.contexts.get(&name).cloned();
        context.map(Some).ok_or_else(|| {
            Failure::usage(format!("no context `{name}` in {}", path.display()))
                .with_hint(format!("there are: {known}"))
        })
    }
}

impl Context {
    /// A hub elsewhere; `None` for a state here.
    fn address(self) -> Option<Address> {
        if let Some(url) = self.url {
            return Some(Address::Url {
                url,
                token: self.token,
                ca: self.ca,
            });
        }
        let workspace = self.namespace?;
        Some(Address::Cluster {
            cluster: KubeAddress {
                kubeconfig: self.kubeconfig,
                context: self.kube_context,
            },
            workspace,
        })
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn config_path() -> Option<PathBuf> {
    let base = variable("XDG_CONFIG_HOME").map(PathBuf::from);
    let base = base.or_else(|| variable("HOME").map(|home| Path::new(&home).join(".config")));
    base.map(|base| base.join("mainstay/config.yaml"))
}

fn default_state() -> Result<PathBuf, Failure> {
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/mainstay".into());
    }
    let base = variable("XDG_STATE_HOME").map(PathBuf::from);
    let base = base.or_else(|| variable("HOME").map(|home| Path::new(&home).join(".local/state")));
    let base = base.filter(|base| base.is_absolute()).ok_or_else(|| {
        Failure::usage("neither XDG_STATE_HOME nor HOME says where state may lie")
            .with_hint("give --state DIR")
    })?;
    Ok(base.join("mainstay"))
}

/// A state that a newer program made may hold what this one misreads, or would spoil.
pub fn refuse_newer(state: &Path) -> Result<(), Failure> {
    let Ok(version) = std::fs::read_to_string(state.join("VERSION")) else {
        return Ok(());
    };
    match version.trim().parse::<u32>() {
        Ok(found) if found <= keeper::FORMAT => Ok(()),
        _ => {
            let found = crate::output::printable(version.trim());
            let text = format!(
                "state {} has format {found}, and this program knows {}",
                state.display(),
                keeper::FORMAT
            );
            Err(Failure::new(Exit::Failed, text).with_hint("use the program that made it"))
        }
    }
}

/// The directory of the state's one workspace.
pub fn workspace_dir(state: &Path) -> PathBuf {
    let workspaces = state.join("workspaces");
    let entries = std::fs::read_dir(&workspaces)
        .into_iter()
        .flatten()
        .flatten();
    let mut known: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.join("log.db").exists())
        .collect();
    known.sort();
    known
        .into_iter()
        .next()
        .unwrap_or_else(|| workspaces.join("default"))
}

/// A path that means the same in every process.
pub fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| {
        Failure::new(Exit::Usage, format!("{} is not a path", path.display())).because(error)
    })
}
