//! What a fleet needs from where it runs: variables, files, secrets, programs, hosts.
//!
//! Found in the resolved fleet, each with who needs it, so that what is rendered can say why.

use std::collections::{BTreeMap, BTreeSet};

use api::Fleet;
use api::fleet::{Agent, Credential, Runtime, ToolKind};

/// Each name with who needs it.
pub type Named = BTreeMap<String, String>;

#[derive(Debug, Default)]
pub struct Needs {
    /// Variables of the hub's environment.
    pub environment: Named,
    /// Files with credentials.
    pub files: Named,
    /// Stored secrets, `NAME/KEY`.
    pub secrets: Named,
    /// Directories with agents' code.
    pub sources: Named,
    /// Programs that agents and MCP servers are.
    pub programs: Named,
    /// Images that agents name.
    pub images: BTreeSet<String>,
    /// Hosts with a name of one word: somebody beside us.
    pub neighbours: Named,
    /// This machine, as an address.
    pub loopback: Named,
    pub longest_grace_ms: u64,
}

impl Needs {
    pub fn of(fleet: &Fleet) -> Self {
        let mut needs = Self::default();
        for provider in fleet.providers.values() {
            let who = format!("Provider {}", provider.name);
            needs.credential(provider.credential.as_ref(), &who);
            needs.address(&provider.base_url, &who);
        }
        for tool in fleet.tools.values() {
            let who = format!("tool {}/{}", tool.registry, tool.name);
            match &tool.kind {
                ToolKind::McpHttp { url, credential }
                | ToolKind::Http {
                    url, credential, ..
                } => {
                    needs.credential(credential.as_ref(), &who);
                    needs.address(url, &who);
                }
                ToolKind::McpStdio { command, .. } => needs.program(command, &who),
                ToolKind::Agent { .. } => {}
            }
        }
        for agent in fleet.agents.values() {
            needs.agent(agent);
        }
        needs
    }

    fn agent(&mut self, agent: &Agent) {
        let who = format!("Agent {}", agent.name);
        match &agent.runtime {
            Runtime::Exec { command } | Runtime::Service { command, .. } => {
                self.program(command, &who);
            }
            Runtime::Builtin => {}
        }
        for secret in agent.secret_env.values() {
            let name = format!("{}/{}", secret.name, secret.key);
            self.secrets.entry(name).or_insert_with(|| who.clone());
        }
        if let Some(source) = &agent.source {
            self.sources.entry(source.path.clone()).or_insert(who);
        }
        self.images.extend(agent.image.clone());
        self.longest_grace_ms = self.longest_grace_ms.max(agent.grace_ms);
    }

    fn credential(&mut self, credential: Option<&Credential>, who: &str) {
        let (named, name) = match credential {
            None => return,
            Some(Credential::Env { name }) => (&mut self.environment, name.clone()),
            Some(Credential::File { path }) => (&mut self.files, path.clone()),
            Some(Credential::SecretRef(secret)) => {
                (&mut self.secrets, format!("{}/{}", secret.name, secret.key))
            }
        };
        named.entry(name).or_insert_with(|| who.to_owned());
    }

    fn program(&mut self, command: &[String], who: &str) {
        if let Some(program) = command.first() {
            self.programs
                .entry(program.clone())
                .or_insert_with(|| who.to_owned());
        }
    }

    fn address(&mut self, url: &str, who: &str) {
        let url = reqwest::Url::parse(url);
        let Some(host) = url.ok().and_then(|url| url.host_str().map(str::to_owned)) else {
            return;
        };
        let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        let named = match address {
            Ok(address) if address.is_loopback() => &mut self.loopback,
            Ok(_) => return,
            Err(_) if host == "localhost" => &mut self.loopback,
            Err(_) if !host.contains('.') => &mut self.neighbours,
            Err(_) => return,
        };
        named.entry(host).or_insert_with(|| who.to_owned());
    }
}
