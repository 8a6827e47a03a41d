//! The way to a workspace's hub in a cluster: through the API server, as `kubectl port-forward` goes.
//!
//! Nobody has to open a port: a listener on loopback, and behind each of its connections a forwarded
//! one to a hub's pod. TLS goes through to the hub, whose certificate is checked against the authority
//! in the workspace's ConfigMap. Who calls is said by `login`.

use std::sync::mpsc;

use api::kubernetes::{HUB, HUB_CA};
use contract::pod::FACADE_PORT;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use kube::Api;
use kube::api::ListParams;
use tokio::net::{TcpListener, TcpStream};

use super::cluster::Cluster;
use super::login::{Login, Renewed};
use crate::exit::{Exit, Failure};
use crate::place::KubeAddress;

/// An open way. It stays open as long as the process lives.
#[derive(Debug)]
pub struct Way {
    port: u16,
    authority: String,
    pub token: Renewed,
}

impl Way {
    /// Opens it, on a thread and a runtime of its own: whoever calls may be waiting on another.
    pub fn open(cluster: KubeAddress, workspace: String) -> Result<Self, Failure> {
        let (way_tx, way_rx) = mpsc::channel();
        let forward = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => {
                    let failure = Failure::new(Exit::Failed, "failed to start").because(error);
                    let _nobody_waits = way_tx.send(Err(failure));
                    return;
                }
            };
            runtime.block_on(async {
                let opened = prepare(&cluster, &workspace).await;
                match opened {
                    Ok((way, door, login)) => {
                        let _nobody_waits = way_tx.send(Ok(way));
                        tokio::join!(door.serve(), login.keep());
                    }
                    Err(failure) => {
                        let _nobody_waits = way_tx.send(Err(failure));
                    }
                }
            });
        };
        std::thread::spawn(forward);
        way_rx
            .recv()
            .unwrap_or_else(|_| Err(Failure::new(Exit::Failed, "the way to the hub broke off")))
    }

    /// The address on this machine. Its name is one that the hub's certificate has.
    pub fn base(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    pub fn certificates(&self) -> Result<Vec<reqwest::Certificate>, Failure> {
        reqwest::Certificate::from_pem_bundle(self.authority.as_bytes()).map_err(|error| {
            Failure::new(
                Exit::Failed,
                format!("ConfigMap {HUB_CA} holds no certificate in ca.crt"),
            )
            .because(error)
        })
    }
}

struct Door {
    listener: TcpListener,
    pods: Api<Pod>,
    /// The labels that the Service chooses pods by.
    selector: String,
}

async fn prepare(cluster: &KubeAddress, workspace: &str) -> Result<(Way, Door, Login), Failure> {
    let cluster = Cluster::connect(cluster).await?;
    let client = || cluster.client.clone();
    let absent = |what: &str| {
        Failure::new(
            Exit::NotFound,
            format!("there is no {what} in namespace {workspace}"),
        )
        .with_hint(
            "is it a workspace? `kubectl get workspaces` and `mainstay kubernetes status` say",
        )
    };
    let read = |what: &str, error| {
        let failure = cluster.failed("read", &format!("{what} in namespace {workspace}"), error);
        match failure.exit {
            Exit::NotAllowed => failure.with_hint(format!(
                "each role among `members` of Workspace {workspace} may"
            )),
            _ => failure,
        }
    };
    let services: Api<Service> = Api::namespaced(client(), workspace);
    let service = services.get_opt(HUB).await;
    let service = service.map_err(|error| read("Service mainstay-hub", error))?;
    let selector = service.and_then(|service| service.spec?.selector);
    let selector = selector.ok_or_else(|| absent("hub"))?;
    let maps: Api<ConfigMap> = Api::namespaced(client(), workspace);
    let map = maps.get_opt(HUB_CA).await;
    let map = map.map_err(|error| read("ConfigMap mainstay-hub-ca", error))?;
    let authority = map.and_then(|map| map.data?.remove("ca.crt"));
    let authority = authority.ok_or_else(|| absent("ca.crt of ConfigMap mainstay-hub-ca"))?;
    let login = Login::begin(&cluster, workspace).await?;
    let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await;
    let bound = listener.and_then(|listener| Ok((listener.local_addr()?.port(), listener)));
    let (port, listener) = bound.map_err(|error| {
        Failure::new(Exit::Failed, "failed to listen on loopback").because(error)
    })?;
    let way = Way {
        port,
        authority,
        token: login.token(),
    };
    let selector: Vec<String> = selector
        .iter()
        .map(|(label, value)| format!("{label}={value}"))
        .collect();
    let door = Door {
        listener,
        pods: Api::namespaced(client(), workspace),
        selector: selector.join(","),
    };
    Ok((way, door, login))
}

impl Door {
    async fn serve(self) {
        while let Ok((near, _)) = self.listener.accept().await {
            let (pods, selector) = (self.pods.clone(), self.selector.clone());
            tokio::spawn(async move {
                // The near end sees a connection that breaks, and its client says so.
                if let Err(error) = pass(&pods, &selector, near).await {
                    tracing::debug!(error = &*error, "a forwarded connection ended");
                }
            });
        }
    }
}

type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;

async fn pass(pods: &Api<Pod>, selector: &str, mut near: TcpStream) -> Ended {
    let found = pods.list(&ListParams::default().labels(selector)).await?;
    let ready = found.items.iter().find(|pod| is_ready(pod));
    let name = ready
        .and_then(|pod| pod.metadata.name.as_deref())
        .ok_or("no hub is ready")?;
    let mut forwarder = pods.portforward(name, &[FACADE_PORT]).await?;
    let mut far = forwarder
        .take_stream(FACADE_PORT)
        .ok_or("no stream was opened")?;
    tokio::io::copy_bidirectional(&mut near, &mut far).await?;
    Ok(())
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let is_going = pod.metadata.deletion_timestamp.is_some();
    !is_going
        && conditions
            .into_iter()
            .flatten()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_hub_that_is_ready_and_stays_is_called() {
        let pod = |status: &str, going: Option<&str>| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"name": "mainstay-hub-0", "deletionTimestamp": going},
                "status": {"conditions": [{"type": "Ready", "status": status}]},
            }))
            .unwrap()
        };
        assert!(is_ready(&pod("True", None)));
        assert!(!is_ready(&pod("False", None)));
        assert!(!is_ready(&pod("True", Some("2026-01-01T00:00:00Z"))));
        assert!(!is_ready(&Pod::default()));
    }
}
