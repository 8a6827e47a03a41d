//! The client for providers and tools, and which addresses it calls.
//!
//! In a cluster the hub stands on a node whose link-local addresses give out the node's credentials,
//! and a tenant writes the URLs. A name is held against them once it is resolved, by the resolver
//! whose addresses are then dialled; an address in a URL is resolved by nobody, so [`Outgoing::to`]
//! is the only way to the client. Private addresses stay allowed: providers live there.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use api::node_address::is_nodes;
use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use url::{Host, Url};

/// A provider or tool that takes no connection within this is out of reach.
const CONNECT: Duration = Duration::from_secs(10);

/// Which addresses of providers and tools are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    Anywhere,
    /// Everywhere but link-local addresses and clouds' metadata: the hub runs in a cluster.
    NotTheNode,
}

/// An address that isn't called.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address} is link-local or a cloud's metadata, which a hub in a cluster does not call")]
pub struct Refused {
    address: IpAddr,
}

/// A client and its bounds. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    client: reqwest::Client,
    reach: Reach,
}

impl Outgoing {
    /// No redirects: credentials would follow. No proxy variables: the hub's environment is no policy.
    pub(crate) fn new(
        reach: Reach,
        change: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
    ) -> reqwest::Result<Self> {
        let builder = reqwest::Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT)
            .user_agent(concat!("mainstay/", env!("CARGO_PKG_VERSION")));
        let builder = match reach {
            Reach::Anywhere => builder,
            Reach::NotTheNode => builder.dns_resolver(Resolver { look_up }),
        };
        let client = change(builder).build()?;
        Ok(Self { client, reach })
    }

    /// The client for this URL.
    pub(crate) fn to(&self, url: &str) -> Result<&reqwest::Client, Refused> {
        let address = match Url::parse(url).ok().as_ref().and_then(Url::host) {
            Some(Host::Ipv4(address)) => IpAddr::V4(address),
            Some(Host::Ipv6(address)) => IpAddr::V6(address),
            // No URL is no request either.
            Some(Host::Domain(_)) | None => return Ok(&self.client),
        };
        match self.reach == Reach::NotTheNode && is_nodes(address) {
            true => Err(Refused { address }),
            false => Ok(&self.client),
        }
    }

    /// The client for an agent of ours that is a server: at an address that the hub chose.
    pub(crate) fn to_service(&self) -> &reqwest::Client {
        &self.client
    }
}

/// Asks the system, and leaves out what isn't called.
struct Resolver {
    look_up: fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let found = (self.look_up)(name.as_str().to_owned());
        Box::pin(async move { Ok(Box::new(allowed(found.await?)?.into_iter()) as Addrs) })
    }
}

fn look_up(name: String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
    // The URL's port, or its scheme's, takes the place of 0.
    Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) })
}

fn allowed(mut found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Refused> {
    let refused = found.iter().map(SocketAddr::ip).find(|ip| is_nodes(*ip));
    found.retain(|address| !is_nodes(address.ip()));
    match refused {
        Some(address) if found.is_empty() => Err(Refused { address }),
        _ => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn an_address_in_a_url_is_held_against_the_nodes_own() {
        let there = Outgoing::new(Reach::NotTheNode, |builder| builder).unwrap();
        for host in [
            "169.254.169.254",
            "169.254.170.23",
            "0xA9FEA9FE",
            "2852039166",
            "169.254.169.254.",
            "168.63.129.16",
            "100.100.100.200",
            "[fd20:ce::254]",
            "[fe80::1]",
            "[febf::1]",
            "[fd00:ec2::254]",
            "[fd00:ec2::23]",
            "[::ffff:169.254.169.254]",
            "[::169.254.169.254]",
            "[::ffff:168.63.129.16]",
            "[64:ff9b::a9fe:a9fe]",
            "[64:ff9b:1::a9fe:a9fe]",
            "[2002:a9fe:a9fe::1]",
        ] {
            let refused = there.to(&format!("http://{host}/latest")).unwrap_err();
            assert!(refused.to_string().contains("metadata"), "{host}");
        }
        for host in [
            "10.0.0.1",
            "192.168.1.1",
            "127.0.0.1",
            "169.253.255.255",
            "168.63.129.17",
            "[::1]",
            "[fd00:ec2::1]",
            "[64:ff9b::a00:1]",
            "[2001:db8::a9fe:a9fe]",
            "169.254.169.254.example.com",
        ] {
            assert!(there.to(&format!("http://{host}/")).is_ok(), "{host}");
        }
        let anywhere = Outgoing::new(Reach::Anywhere, |builder| builder).unwrap();
        assert!(anywhere.to("http://169.254.169.254/").is_ok());
    }

    fn scripted(name: String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let metadata = SocketAddr::from(([169, 254, 169, 254], 0));
        let here = SocketAddr::from(([127, 0, 0, 1], 0));
        Box::pin(async move {
            Ok(match name.as_str() {
                "both.test" => vec![metadata, here],
                _ => vec![metadata],
            })
        })
    }

    #[tokio::test]
    async fn a_name_is_held_against_them_once_it_is_resolved() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let resolver = Resolver { look_up: scripted };
        let change = |builder: reqwest::ClientBuilder| builder.dns_resolver(resolver);
        let outgoing = Outgoing::new(Reach::NotTheNode, change).unwrap();
        let url = format!("http://metadata.test:{port}/");
        let error = outgoing.to(&url).unwrap().get(&url).send().await;
        let error = error.unwrap_err();
        assert!(error.is_connect(), "{error:?}");
        let mut cause: &dyn std::error::Error = &error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        assert!(cause.to_string().starts_with("169.254.169.254 is"));
        let url = format!("http://both.test:{port}/");
        let served = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 4096];
            let _read = stream.read(&mut head).await.unwrap();
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
        };
        let sent = outgoing.to(&url).unwrap().get(&url).send();
        let (answer, ()) = tokio::join!(sent, served);
        assert_eq!(answer.unwrap().status(), 200);
    }
}
