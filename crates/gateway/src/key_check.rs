//! Whether a provider takes its key, asked outside any call: its list of models, which costs nothing.
//!
//! Only 401 and 403 count against a key. A provider without such a list, or out of reach, says
//! nothing about it.

use std::time::Duration;

use api::fleet::{Provider, ProviderKind};
use hub::Hub;

use crate::GatewayError;
use crate::model::upstream::{Secret, Upstreams};
use crate::outgoing::{Outgoing, Reach};

/// What a provider has for an answer.
const ANSWER: Duration = Duration::from_secs(10);

/// What a provider says to its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyVerdict {
    Taken,
    /// By the provider, or there is none that could be sent. A sentence for a person.
    Refused(String),
    Unknown,
}

/// Asks providers about keys. Cheap to clone.
#[derive(Clone, Debug)]
pub struct KeyCheck {
    upstreams: std::sync::Arc<Upstreams>,
}

impl KeyCheck {
    /// With this hub's secrets.
    pub fn new(hub: &Hub, reach: Reach) -> Result<Self, GatewayError> {
        let http = Outgoing::new(reach, |client| client).map_err(GatewayError::Client)?;
        Ok(Self::with(http, crate::secret_of(hub)))
    }

    fn with(http: Outgoing, secret: Secret) -> Self {
        let upstreams = std::sync::Arc::new(Upstreams::new(http, secret));
        Self { upstreams }
    }

    /// Asks one provider.
    pub async fn ask(&self, provider: &Provider) -> KeyVerdict {
        if provider.kind == ProviderKind::Script || provider.credential.is_none() {
            return KeyVerdict::Taken;
        }
        let request = match self.upstreams.models(provider) {
            Ok(request) => request.timeout(ANSWER),
            Err(failed) => return KeyVerdict::Refused(failed.message),
        };
        match request.send().await.map(|answer| answer.status()) {
            Ok(status) if matches!(status.as_u16(), 401 | 403) => KeyVerdict::Refused(format!(
                "the provider refuses its key ({})",
                status.as_u16()
            )),
            Ok(status) if status.is_success() => KeyVerdict::Taken,
            _ => KeyVerdict::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use api::fleet::{Credential, Limits, SecretRef};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    fn provider(kind: ProviderKind, base_url: String) -> Provider {
        Provider {
            name: "one".into(),
            kind,
            base_url,
            credential: Some(Credential::SecretRef(SecretRef {
                name: "keys".into(),
                key: "one".into(),
            })),
            models: BTreeMap::new(),
            limits: Limits {
                concurrency: 1,
                requests_per_minute: None,
                tokens_per_minute: None,
                timeout_ms: 1000,
            },
            fallback: Vec::new(),
            script: None,
        }
    }

    fn check(secret: Result<&'static str, &'static str>) -> KeyCheck {
        let secret: Secret = Arc::new(move |_| secret.map(str::to_owned).map_err(str::to_owned));
        KeyCheck::with(
            Outgoing::new(Reach::NotTheNode, |client| client).unwrap(),
            secret,
        )
    }

    /// What the key is said to be by a provider that answers with this, and the request's head.
    async fn asked(kind: ProviderKind, status: &str) -> (KeyVerdict, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let provider = provider(kind, format!("http://{}", listener.local_addr().unwrap()));
        let served = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 4096];
            let read = stream.read(&mut head).await.unwrap();
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\n{{}}");
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&head[..read]).to_lowercase()
        };
        let check = check(Ok("k-1"));
        tokio::join!(check.ask(&provider), served)
    }

    #[tokio::test]
    async fn only_a_refusal_counts_against_a_key() {
        let (verdict, head) = asked(ProviderKind::Openai, "200 OK").await;
        assert_eq!(verdict, KeyVerdict::Taken);
        assert!(head.starts_with("get /models"), "{head}");
        assert!(head.contains("authorization: bearer k-1"), "{head}");
        let (verdict, head) = asked(ProviderKind::Anthropic, "401 Unauthorized").await;
        assert!(matches!(verdict, KeyVerdict::Refused(_)), "{verdict:?}");
        assert!(head.starts_with("get /v1/models"), "{head}");
        assert!(head.contains("x-api-key: k-1"), "{head}");
        for status in ["404 Not Found", "503 Service Unavailable"] {
            assert_eq!(
                asked(ProviderKind::Openai, status).await.0,
                KeyVerdict::Unknown
            );
        }
    }

    #[tokio::test]
    async fn a_key_that_is_not_there_is_refused_without_asking() {
        let away = provider(ProviderKind::Openai, "http://127.0.0.1:9".into());
        let verdict = check(Err("not set")).ask(&away).await;
        assert!(
            matches!(&verdict, KeyVerdict::Refused(why) if why.contains("not set")),
            "{verdict:?}"
        );
        assert_eq!(check(Ok("k")).ask(&away).await, KeyVerdict::Unknown);
    }
}
