//! A home in the test's hands: one instance `helper-0`, its shim and its gateway listener.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use api::fleet::{
    Agent, AgentTool, Fleet, Limits, ModelFacts, ModelRef, Price, Provider, ProviderKind, Tool,
    ToolKind,
};
use contract::keeper::{Instance, InstanceKind, ListenerPurpose, ToHub, ToKeeper};
use contract::shim::{Attempt, ServiceState};
use hub::home::{HomeEvent, HomeLink, Listener};
use hub::task::SubmitTask;
use hub::view::TaskView;
use hub::{Hub, HubError, Options};
use serde_json::{Value, json};
pub(crate) use testkit::home::WAIT;
use testkit::home::{Listening, Shim, exited, instance, killed, write_fleet};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// A hub with its gateway, and one instance whose shim the test plays.
pub(crate) struct Home {
    pub(crate) hub: Hub,
    pub(crate) address: SocketAddr,
    pub(crate) http: reqwest::Client,
    pub(crate) shim: Shim,
    events: mpsc::Sender<HomeEvent>,
    instance: Instance,
    running: JoinHandle<Result<(), HubError>>,
}

/// A fleet of one agent `helper`.
pub(crate) fn fleet() -> Fleet {
    testkit::home::fleet(|_| {})
}

pub(crate) fn agent(fleet: &mut Fleet) -> &mut Agent {
    fleet.agents.get_mut("helper").unwrap()
}

/// Adds a provider and gives its model `fake-1`, priced, to the agent.
pub(crate) fn add_provider(fleet: &mut Fleet, name: &str, kind: ProviderKind, base_url: &str) {
    let price = Price {
        input: 1.0,
        output: 10.0,
        cache_read: None,
        cache_write: None,
    };
    let facts = ModelFacts {
        price: Some(price),
        context: None,
    };
    let provider = Provider {
        name: name.into(),
        kind,
        base_url: base_url.into(),
        credential: None,
        models: [("fake-1".to_owned(), facts)].into(),
        limits: Limits {
            concurrency: 32,
            requests_per_minute: None,
            tokens_per_minute: None,
            timeout_ms: 10_000,
        },
        fallback: Vec::new(),
        script: None,
    };
    fleet.providers.insert(name.into(), provider);
    agent(fleet).models.push(model(name));
}

pub(crate) fn model(provider: &str) -> ModelRef {
    ModelRef {
        provider: provider.into(),
        model: "fake-1".into(),
    }
}

/// A fleet with one openai provider at this address.
pub(crate) fn with_openai(base_url: &str) -> Fleet {
    let mut fleet = fleet();
    add_provider(&mut fleet, "openai", ProviderKind::Openai, base_url);
    fleet
}

/// Adds a tool of registry `desk` and gives it to the agent under this name.
pub(crate) fn add_tool(
    fleet: &mut Fleet,
    name: &str,
    exposed: &str,
    kind: ToolKind,
    change: impl FnOnce(&mut Tool),
) {
    let mut tool = Tool {
        registry: "desk".into(),
        name: name.into(),
        kind,
        description: format!("The tool {name}."),
        input_schema: Some(json!({"type": "object"})),
        effect: api::fleet::Effect::Opaque,
        key: None,
        timeout_ms: 2000,
        result_bytes: 64 * 1024,
        allow: None,
        effects: Default::default(),
    };
    change(&mut tool);
    let key = format!("desk/{name}");
    fleet.tools.insert(key.clone(), tool);
    agent(fleet).tools.push(AgentTool {
        tool: key,
        exposed: exposed.into(),
    });
}

impl Home {
    pub(crate) async fn start(state: &Path, fleet: &Fleet) -> Self {
        Self::start_as(state, fleet, InstanceKind::Exec, None).await
    }

    /// Starts a hub on the state with this fleet as generation 1, serves its gateway, and plays
    /// the shim of `helper-0`.
    pub(crate) async fn start_as(
        state: &Path,
        fleet: &Fleet,
        kind: InstanceKind,
        service_port: Option<u16>,
    ) -> Self {
        write_fleet(state, 1, fleet);
        let (events, events_rx) = mpsc::channel(16);
        let (commands, commands_rx) = mpsc::unbounded_channel();
        let home = HomeLink {
            events: events_rx,
            commands,
        };
        let options = Options {
            home,
            pid: std::process::id(),
            state_key: [7; 32],
            state_dir: state.to_owned(),
            workspace: "default".into(),
        };
        let (hub, running) = Hub::start(options).await.unwrap();
        tokio::spawn(gateway::serve(hub.clone(), gateway::Reach::NotTheNode));
        let door = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = door.local_addr().unwrap();
        let instance = Instance {
            gateway_port: address.port(),
            service_port,
            ..instance(state, "helper", 0, kind)
        };
        let listening = Listening::of(&instance);
        announce(&events, instance.clone(), address, door).await;
        committed(commands_rx).await;
        let service = (kind == InstanceKind::Service).then_some(ServiceState {
            incarnation: 1,
            pid: 1,
            ready: service_port.is_some(),
            ..ServiceState::default()
        });
        let shim = listening.greet(Vec::new(), service).await;
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(WAIT)
            .build()
            .unwrap();
        Self {
            hub,
            address,
            http,
            shim,
            events,
            instance,
            running,
        }
    }

    /// Lists a stdio MCP server of tool `desk/files` beside the agent's instance; its shim
    /// listens on this socket.
    pub(crate) async fn list_server(&self, socket: &Path) {
        let server = Instance {
            name: "desk-files-0".into(),
            owner: "desk/files".into(),
            kind: InstanceKind::Mcp,
            socket: socket.to_str().unwrap().into(),
            ..self.instance.clone()
        };
        let instances = vec![self.instance.clone(), server];
        let listed = HomeEvent::Message(ToHub::Instances { instances });
        self.events.send(listed).await.unwrap();
    }

    /// Ends the hub in good order.
    pub(crate) async fn end(self) {
        drop(self.shim);
        self.events
            .send(HomeEvent::Message(ToHub::Stop))
            .await
            .unwrap();
        tokio::time::timeout(WAIT, self.running)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }

    /// Gives the agent work; returns the task and its attempts' tokens.
    pub(crate) async fn work(&mut self, input: &str) -> (String, Vec<Attempt>) {
        let submit = SubmitTask {
            agent: "helper".into(),
            input: json!(input),
            author: "test".into(),
            ..Default::default()
        };
        self.hub.task_submit(submit).await.unwrap();
        self.shim.assigned().await
    }

    /// A call at the gateway.
    pub(crate) async fn post(&self, token: &str, path: &str, body: &Value) -> reqwest::Response {
        let request = self.request(token, path).body(body.to_string());
        request.send().await.unwrap()
    }

    pub(crate) fn request(&self, token: &str, path: &str) -> reqwest::RequestBuilder {
        self.http
            .post(format!("http://{}{path}", self.address))
            .bearer_auth(token)
            .header("content-type", "application/json")
    }

    pub(crate) async fn get(&self, token: &str, path: &str) -> reqwest::Response {
        let request = self.http.get(format!("http://{}{path}", self.address));
        request.bearer_auth(token).send().await.unwrap()
    }

    /// A tool call over MCP; the JSON-RPC message that answers it.
    pub(crate) async fn call_tool(&self, token: &str, name: &str, arguments: Value) -> Value {
        let params = json!({"name": name, "arguments": arguments});
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
        let response = self.post(token, "/mcp", &message).await;
        response.json().await.unwrap()
    }

    /// The process ends by SIGKILL and the next attempt begins.
    pub(crate) async fn killed(&mut self, task: &str, attempt: u32) {
        self.shim.ended(task, attempt, killed(), true).await;
    }

    /// The process ends with an answer.
    pub(crate) async fn done(&mut self, task: &str, attempt: u32) -> TaskView {
        let exit = exited(0, "done");
        self.shim.ended(task, attempt, exit, false).await;
        self.hub.task_wait(task, WAIT).await.unwrap()
    }
}

async fn announce(
    events: &mpsc::Sender<HomeEvent>,
    instance: Instance,
    address: SocketAddr,
    listener: std::net::TcpListener,
) {
    let listener = HomeEvent::Listener {
        purpose: ListenerPurpose::Gateway {
            instance: instance.name.clone(),
        },
        address: address.to_string(),
        listener: Listener::Tcp(listener),
    };
    let proposed = ToHub::GenerationProposed {
        number: 1,
        hash: "hash".into(),
    };
    let instances = ToHub::Instances {
        instances: vec![instance],
    };
    events.send(HomeEvent::Message(proposed)).await.unwrap();
    events.send(HomeEvent::Message(instances)).await.unwrap();
    events.send(listener).await.unwrap();
}

async fn committed(mut commands: mpsc::UnboundedReceiver<ToKeeper>) {
    let committed = async {
        while let Some(message) = commands.recv().await {
            if message == (ToKeeper::GenerationCommitted { number: 1 }) {
                return;
            }
        }
    };
    tokio::time::timeout(WAIT, committed).await.unwrap();
    // The hub goes on sending; somebody must hold the other end.
    tokio::spawn(async move { while commands.recv().await.is_some() {} });
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = tokio::time::Instant::now() + WAIT;
    while !holds().await {
        assert!(tokio::time::Instant::now() < end, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
