use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use futures_util::StreamExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use super::contract::external_scaler_client::ExternalScalerClient;
use super::*;
use crate::door::tests::certified;

const NAMESPACE: &str = "acme";

fn told(by: ScaleBy, wanted: u32, replicas: u32) -> Decisions {
    let decision = Decision {
        by,
        wanted,
        replicas,
    };
    Decisions::from([("helper".to_owned(), decision)])
}

fn object(name: &str) -> ScaledObjectRef {
    ScaledObjectRef {
        name: name.to_owned(),
        namespace: NAMESPACE.to_owned(),
        ..ScaledObjectRef::default()
    }
}

fn keda(decisions: Decisions) -> (Keda, watch::Sender<Decisions>) {
    let (sender, receiver) = watch::channel(decisions);
    (Keda::new(NAMESPACE, receiver), sender)
}

async fn is_active(keda: &Keda, asked: ScaledObjectRef) -> Result<bool, tonic::Code> {
    let answer = keda.is_active(Request::new(asked)).await;
    answer
        .map(|answer| answer.into_inner().result)
        .map_err(|status| status.code())
}

#[tokio::test]
async fn what_was_decided_is_the_metric_with_a_target_of_one() {
    let (keda, _decisions) = keda(told(ScaleBy::Keda, 5, 2));
    let specs = keda.get_metric_spec(Request::new(object("helper"))).await;
    let spec = specs.unwrap().into_inner().metric_specs.remove(0);
    assert_eq!(
        (spec.metric_name.as_str(), spec.target_size),
        ("mainstay-instances", 1)
    );
    let asked = |name: &str| {
        Request::new(GetMetricsRequest {
            scaled_object_ref: Some(object("helper")),
            metric_name: name.to_owned(),
        })
    };
    let metrics = keda.get_metrics(asked(METRIC)).await.unwrap().into_inner();
    // KEDA takes the second only where it's above zero, so both say it.
    assert_eq!(metrics.metric_values[0].metric_value, 5);
    assert!((metrics.metric_values[0].metric_value_float - 5.0).abs() < f64::EPSILON);
    let other = keda.get_metrics(asked("queue")).await.unwrap_err();
    assert_eq!(other.code(), tonic::Code::NotFound);
}

#[tokio::test]
async fn only_agents_of_this_hub_that_keda_scales_are_told_of() {
    let (keda, decisions) = keda(told(ScaleBy::Keda, 2, 0));
    assert_eq!(is_active(&keda, object("helper")).await, Ok(true));
    let mut named = object("its-own-name");
    named
        .scaler_metadata
        .insert(AGENT.to_owned(), "helper".to_owned());
    assert_eq!(is_active(&keda, named).await, Ok(true));
    let none = Err(tonic::Code::NotFound);
    assert_eq!(is_active(&keda, object("other")).await, none);
    let elsewhere = ScaledObjectRef {
        namespace: "others".to_owned(),
        ..object("helper")
    };
    assert_eq!(is_active(&keda, elsewhere).await, none);
    decisions.send_replace(told(ScaleBy::Mainstay, 2, 0));
    let ours = Err(tonic::Code::FailedPrecondition);
    assert_eq!(is_active(&keda, object("helper")).await, ours);
}

#[tokio::test(start_paused = true)]
async fn work_is_pushed_at_once_and_again_until_there_is_an_instance() {
    let (keda, decisions) = keda(told(ScaleBy::Keda, 0, 0));
    let stream = keda.stream_is_active(Request::new(object("helper"))).await;
    let mut stream = stream.unwrap().into_inner();
    let mut next = async || {
        let next = tokio::time::timeout(4 * AGAIN, stream.next()).await;
        next.ok().map(|told| told.unwrap().map(|told| told.result))
    };
    assert!(matches!(next().await, Some(Ok(false))));
    assert!(next().await.is_none(), "nothing has changed");
    decisions.send_replace(told(ScaleBy::Keda, 2, 0));
    assert!(matches!(next().await, Some(Ok(true))));
    assert!(matches!(next().await, Some(Ok(true))), "nobody came");
    decisions.send_replace(told(ScaleBy::Keda, 2, 1));
    assert!(next().await.is_none(), "it has one");
    decisions.send_replace(told(ScaleBy::Keda, 0, 1));
    assert!(matches!(next().await, Some(Ok(false))));
    decisions.send_replace(Decisions::new());
    assert!(matches!(next().await, Some(Err(_))), "the agent is gone");
}

/// KEDA's certificate and key in a directory.
fn client(dir: &Path, name: &str) -> (std::path::PathBuf, std::path::PathBuf) {
    let pair = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let made = params.self_signed(&pair).unwrap();
    let files = [".crt", ".key"].map(|end| dir.join(format!("{name}{end}")));
    std::fs::write(&files[0], made.pem()).unwrap();
    std::fs::write(&files[1], pair.serialize_pem()).unwrap();
    let [certificate, key] = files;
    (certificate, key)
}

/// Asks over the network, as whoever has that certificate.
async fn asked(
    address: SocketAddr,
    hub: &Path,
    shown: Option<&(std::path::PathBuf, std::path::PathBuf)>,
) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(hub)?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let mut config = match shown {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => config.with_client_auth_cert(
            vec![CertificateDer::from_pem_file(certificate)?],
            PrivateKeyDer::from_pem_file(key)?,
        )?,
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(::contract::pod::SERVER_NAME)?;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await?;
    let io = TokioIo::new(stream);
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
    tokio::spawn(connection);
    let service = tower::service_fn(move |request| sender.clone().send_request(request));
    let origin = "https://mainstay-hub".parse()?;
    let mut scaler = ExternalScalerClient::with_origin(service, origin);
    let answer = scaler.is_active(object("helper")).await?;
    Ok(answer.into_inner().result)
}

#[tokio::test]
async fn nobody_is_let_in_without_the_certificate_of_keda() {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key, _) = certified(dir.path());
    let (keda, _decisions) = keda(told(ScaleBy::Keda, 1, 0));
    let (kedas, strangers) = (client(dir.path(), "keda"), client(dir.path(), "stranger"));
    let shown = dir.path().join("client.crt");
    let door = KedaDoor::new((certificate.clone(), key), shown.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(door.serve(listener, keda));
    let ask = async |shown| asked(address, &certificate, shown).await;
    assert!(ask(Some(&kedas)).await.is_err(), "there is no file yet");
    std::fs::copy(&kedas.0, &shown).unwrap();
    assert!(ask(Some(&kedas)).await.unwrap());
    assert!(ask(None).await.is_err());
    assert!(ask(Some(&strangers)).await.is_err());
}
