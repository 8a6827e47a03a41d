//! Who knocks: the request's token, whose it is, and whether it belongs at this listener.
//!
//! Every request passes here, and none is let in by where it comes from alone: a token counts only
//! at the listener of its own instance, and only until a newer attempt's first call. Bodies are
//! bounded here, each and all of an instance's together; what they ask for is decided elsewhere.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::{BodyExt, Limited};
use hub::caller::Caller;
use hub::{Code, HubError, Refusal};
use hyper::body::{Body, Incoming};
use serde_json::Value;

use crate::Gateway;
use crate::room::{Held, Room};
use crate::wire::Connection;

/// The largest request that is read.
pub const MAX_REQUEST_BYTES: usize = 32 * 1024 * 1024;
/// How long a body may take to arrive, once there is room for it.
const BODY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);
/// How long the rest of a body that is too large is read and dropped.
const SWALLOW_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// One request's way in, without its body.
pub struct Door {
    /// The instance whose listener this is.
    pub instance: Arc<str>,
    pub connection: Arc<Connection>,
    pub headers: HeaderMap,
    /// What all of the instance's requests may hold.
    pub(crate) room: Room,
}

impl Door {
    /// A header as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The token: a task's own first, then where the SDKs put their keys.
    fn token(&self) -> Option<&str> {
        if let Some(token) = self.header("mainstay-token") {
            return Some(token.trim());
        }
        let bearer = self
            .header(header::AUTHORIZATION.as_str())
            .and_then(|value| {
                let (scheme, token) = value.split_once(' ')?;
                scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
            });
        bearer.or_else(|| self.header("x-api-key").map(str::trim))
    }

    /// Whose call this is. A token counts at its own instance's listener only.
    pub async fn identify(&self, gateway: &Gateway) -> Result<Caller, Refusal> {
        let token = self
            .token()
            .filter(|token| !token.is_empty())
            .ok_or_else(|| {
                HubError::new(
                    Code::Unauthorized,
                    "no token: send MAINSTAY_TOKEN as Authorization: Bearer or x-api-key",
                )
            })?;
        let caller = gateway.hub.identify(token).await?;
        if caller.instance != *self.instance {
            return Err(HubError::new(
                Code::NotAllowed,
                "the token belongs to another instance",
            ));
        }
        gateway.fence.enter(&caller, &self.connection);
        Ok(caller)
    }

    /// Reads a body up to [`MAX_REQUEST_BYTES`]. The room that it takes is the caller's to keep
    /// for as long as what was read, or what was made of it, is held.
    pub(crate) async fn read_body(&self, mut body: Incoming) -> Result<(Bytes, Held), Refusal> {
        // Who doesn't say how much there will be takes as much as there may be.
        let declared = body.size_hint().upper().unwrap_or(u64::MAX);
        let most = usize::try_from(declared).map_or(MAX_REQUEST_BYTES, |declared| {
            declared.min(MAX_REQUEST_BYTES)
        });
        let mut held = self.room.take(most).await?;
        let reading = Limited::new(&mut body, MAX_REQUEST_BYTES).collect();
        let Ok(read) = tokio::time::timeout(BODY_TIMEOUT, reading).await else {
            let reason = format!("no whole body arrived in {} s", BODY_TIMEOUT.as_secs());
            return Err(HubError::new(Code::Invalid, reason));
        };
        match read {
            Ok(collected) => {
                let bytes = collected.to_bytes();
                held.keep(bytes.len());
                Ok((bytes, held))
            }
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                swallow(body).await;
                Err(HubError::new(
                    Code::TooLarge,
                    format!("the request is larger than {MAX_REQUEST_BYTES} bytes"),
                ))
            }
            Err(_) => Err(HubError::new(Code::Invalid, "the request's body broke off")),
        }
    }
}

/// Reads on for a while and keeps nothing: clients look for the answer only once they have sent
/// all of theirs, and would see a broken pipe instead of 413.
async fn swallow(mut body: Incoming) {
    let rest = async {
        let mut left = MAX_REQUEST_BYTES;
        while left > 0
            && let Some(Ok(frame)) = body.frame().await
        {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        }
    };
    let _ = tokio::time::timeout(SWALLOW_TIMEOUT, rest).await;
}

/// Reads a body that must be JSON.
pub fn parse(body: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(body).map_err(|error| {
        HubError::new(
            Code::Invalid,
            format!("the request's body is not JSON: {error}"),
        )
    })
}
