//! From a fleet to instances: which processes, as whom, with which files and variables.
//!
//! Everything that starts is built here, from a generation alone; nothing of it comes from the hub.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use api::Fleet;
use api::fleet::{Agent, Runtime, ServiceProtocol, ToolKind};
use contract::keeper::InstanceKind;
use contract::shim::Spec;

use crate::reach;
use crate::state::State;

const ANSWER_MAX_BYTES: u64 = 8 * 1024 * 1024;
const MCP_GRACE_MS: u64 = 5_000;

/// One instance that should run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Planned {
    pub(crate) name: String,
    pub(crate) owner: String,
    pub(crate) kind: InstanceKind,
    pub(crate) index: u32,
    pub(crate) program: Program,
}

/// What it runs, before users, ports and directories are known.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Program {
    command: Vec<String>,
    env: BTreeMap<String, String>,
    secrets: BTreeMap<String, String>,
    source: Option<String>,
    grace_ms: u64,
    volume: bool,
    workspace: String,
    pub(crate) serves: bool,
    pub(crate) wanted_port: Option<u16>,
}

/// What the keeper found for an instance.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) user: Option<u32>,
    pub(crate) gateway_port: u16,
    pub(crate) service_port: Option<u16>,
    pub(crate) landlock: bool,
}

/// All instances of a fleet, sorted by name.
pub(crate) fn instances(fleet: &Fleet, own_program: &Path) -> Vec<Planned> {
    let mut planned = Vec::new();
    for agent in fleet.agents.values() {
        for index in 0..agent.replicas {
            planned.push(agent_instance(fleet, agent, index, own_program));
        }
    }
    let taken: BTreeSet<String> = planned
        .iter()
        .map(|instance| instance.name.clone())
        .collect();
    planned.extend(tool_instances(fleet, &taken));
    planned.sort_by(|left, right| left.name.cmp(&right.name));
    planned
}

fn agent_instance(fleet: &Fleet, agent: &Agent, index: u32, own_program: &Path) -> Planned {
    let own = || vec![own_program.display().to_string(), "runtime".to_owned()];
    let (kind, command, serves, wanted_port) = match &agent.runtime {
        Runtime::Builtin => (InstanceKind::Exec, own(), false, None),
        Runtime::Exec { command } => (InstanceKind::Exec, command.clone(), false, None),
        Runtime::Service {
            command,
            protocol,
            port,
        } => {
            let serves = *protocol != ServiceProtocol::Attach || port.is_some();
            let wanted = port.filter(|_| agent.replicas == 1);
            (InstanceKind::Service, command.clone(), serves, wanted)
        }
    };
    Planned {
        name: format!("{}-{index}", agent.name),
        owner: agent.name.clone(),
        kind,
        index,
        program: Program {
            command,
            env: agent.env.clone(),
            secrets: agent
                .secret_env
                .iter()
                .map(|(name, secret)| (name.clone(), format!("{}/{}", secret.name, secret.key)))
                .collect(),
            source: agent.source.as_ref().and_then(|source| source.hash.clone()),
            grace_ms: agent.grace_ms,
            volume: agent.volume.is_some(),
            workspace: fleet.workspace.clone(),
            serves,
            wanted_port,
        },
    }
}

/// One server for each stdio tool that an agent uses.
fn tool_instances(fleet: &Fleet, taken: &BTreeSet<String>) -> Vec<Planned> {
    let used: BTreeSet<&str> = fleet
        .agents
        .values()
        .filter(|agent| agent.replicas > 0)
        .flat_map(|agent| agent.tools.iter().map(|tool| tool.tool.as_str()))
        .collect();
    let mut planned = Vec::new();
    for (owner, tool) in fleet
        .tools
        .iter()
        .filter(|(owner, _)| used.contains(owner.as_str()))
    {
        let ToolKind::McpStdio { command, env, .. } = &tool.kind else {
            continue;
        };
        let mut name = format!("{}-{}-0", tool.registry, tool.name);
        if taken.contains(&name) {
            name = format!("{}-{}-mcp-0", tool.registry, tool.name);
        }
        planned.push(Planned {
            name,
            owner: owner.clone(),
            kind: InstanceKind::Mcp,
            index: 0,
            program: Program {
                command: command.clone(),
                env: env.clone(),
                secrets: BTreeMap::new(),
                source: None,
                grace_ms: MCP_GRACE_MS,
                volume: false,
                workspace: fleet.workspace.clone(),
                serves: false,
                wanted_port: None,
            },
        });
    }
    planned
}

impl Planned {
    /// For a shim that no generation knows any more and that is ended.
    pub(crate) fn retired(name: &str, kind: InstanceKind) -> Self {
        Self {
            name: name.to_owned(),
            owner: String::new(),
            kind,
            index: 0,
            program: Program {
                command: Vec::new(),
                env: BTreeMap::new(),
                secrets: BTreeMap::new(),
                source: None,
                grace_ms: MCP_GRACE_MS,
                volume: false,
                workspace: String::new(),
                serves: false,
                wanted_port: None,
            },
        }
    }

    /// Where its volume is, if it has one.
    pub(crate) fn volume(&self, state: &State) -> Option<PathBuf> {
        let workspace = state.root.join("workspaces").join(&self.program.workspace);
        self.program
            .volume
            .then(|| workspace.join("volumes").join(&self.name))
    }

    pub(crate) fn workspace(&self) -> &str {
        &self.program.workspace
    }

    pub(crate) fn grace_ms(&self) -> u64 {
        self.program.grace_ms
    }

    /// The whole instruction to the shim.
    pub(crate) fn spec(&self, state: &State, place: &Place) -> Spec {
        let scratch = state.run("home").join(&self.name);
        let (home, tmp) = (scratch.join("home"), scratch.join("tmp"));
        let source = self.program.source.as_ref();
        let source = source.map(|hash| state.root.join("artifacts").join(hash));
        let volume = self.volume(state);
        let current_dir = source.clone().unwrap_or_else(|| home.clone());
        let (read, write) = match place.landlock {
            true => allowed(state, &scratch, source.as_deref(), volume.as_deref()),
            false => (Vec::new(), Vec::new()),
        };
        let volume_text = volume.as_deref().map(text);
        let env = environment(
            self.program.env.clone(),
            &Around {
                kind: self.kind,
                owner: &self.owner,
                instance: &self.name,
                gateway_port: place.gateway_port,
                service_port: place.service_port,
                volume: volume_text.as_deref(),
            },
        );
        let reach = match place.user {
            Some(_) => self.reach(&env, &current_dir, &scratch, volume.as_deref()),
            None => Vec::new(),
        };
        Spec {
            command: self.program.command.clone(),
            env,
            hub_env: self.program.secrets.keys().cloned().collect(),
            secrets: self.program.secrets.clone(),
            current_dir: text(&current_dir),
            uid: place.user,
            gid: place.user,
            read,
            write,
            home: text(&home),
            tmp: text(&tmp),
            log_dir: text(&state.root.join("logs").join(&self.name)),
            answer_max_bytes: answer_max_bytes(self.kind),
            grace_ms: self.program.grace_ms,
            gateway_port: place.gateway_port,
            service_port: place.service_port,
            reach,
            fresh_scratch: self.kind == InstanceKind::Exec && volume.is_none(),
        }
    }

    /// Directories that its user has to reach wherever they are: its own, and the program's.
    fn reach(
        &self,
        env: &BTreeMap<String, String>,
        current_dir: &Path,
        scratch: &Path,
        volume: Option<&Path>,
    ) -> Vec<String> {
        let mut wanted = BTreeSet::from([current_dir.to_owned(), scratch.to_owned()]);
        wanted.extend(volume.map(Path::to_owned));
        let path = env.get("PATH").map_or("", String::as_str);
        wanted.extend(reach::wanted(&self.program.command, path, current_dir));
        wanted.iter().map(|path| text(path)).collect()
    }
}

/// What a process's variables tell of what is around it.
pub(crate) struct Around<'a> {
    pub(crate) kind: InstanceKind,
    pub(crate) owner: &'a str,
    pub(crate) instance: &'a str,
    pub(crate) gateway_port: u16,
    pub(crate) service_port: Option<u16>,
    pub(crate) volume: Option<&'a str>,
}

/// The variables of a process: the manifest's own, and over them what is ours to say.
pub(crate) fn environment(
    mut env: BTreeMap<String, String>,
    around: &Around<'_>,
) -> BTreeMap<String, String> {
    let gateway = format!("http://127.0.0.1:{}", around.gateway_port);
    let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned());
    let mut set = |name: &str, value: String| env.insert(name.to_owned(), value);
    set("PATH", path);
    set("LANG", "C.UTF-8".to_owned());
    set("TZ", "UTC".to_owned());
    set("PYTHONHASHSEED", "0".to_owned());
    if around.kind != InstanceKind::Mcp {
        set("OPENAI_BASE_URL", format!("{gateway}/v1"));
        set("ANTHROPIC_BASE_URL", gateway.clone());
        set("OPENAI_AGENTS_DISABLE_TRACING", "1".to_owned());
        set("MAINSTAY_MCP_URL", format!("{gateway}/mcp"));
        set("MAINSTAY_STEP_URL", format!("{gateway}/step"));
        set("MAINSTAY_AGENT", around.owner.to_owned());
        set("MAINSTAY_INSTANCE", around.instance.to_owned());
    }
    if let Some(port) = around.service_port {
        set("PORT", port.to_string());
    }
    if let Some(volume) = around.volume {
        set("MAINSTAY_VOLUME", volume.to_owned());
    }
    env
}

/// How much of an instance's standard output is its answer. A service's is its log; nothing of it
/// is an answer.
pub(crate) fn answer_max_bytes(kind: InstanceKind) -> u64 {
    match kind {
        InstanceKind::Exec => ANSWER_MAX_BYTES,
        _ => 0,
    }
}

/// Landlock's two lists: everything but the state, and of the state what is the instance's.
fn allowed(
    state: &State,
    scratch: &Path,
    source: Option<&Path>,
    volume: Option<&Path>,
) -> (Vec<String>, Vec<String>) {
    let read = source.map(text).into_iter().collect();
    let own = [Some(scratch), volume]
        .into_iter()
        .flatten()
        .map(Path::to_owned);
    let write = sandbox::confine::all_but(&state.root)
        .into_iter()
        .chain(own)
        .map(|path| text(&path))
        .collect();
    (read, write)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
