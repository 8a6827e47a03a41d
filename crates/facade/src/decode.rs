//! Extractors that refuse with a problem document: path, query and JSON body.
//!
//! Bodies are capped in size and time before anything is parsed; unknown fields are refused by the
//! types that are parsed into.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use crate::problem::Problem;

/// The largest body: images travel in JSON.
pub(crate) const MAX_BODY_BYTES: usize = 32 * 1024 * 1024;
/// A body that takes longer is given up.
const BODY_TIMEOUT: Duration = Duration::from_secs(120);
/// What is read and dropped of a refused body: most clients look for the answer only once they
/// have sent theirs, and would see a broken pipe instead of 413.
const SWALLOWED_BYTES: usize = 64 * 1024 * 1024;
const SWALLOW_TIMEOUT: Duration = Duration::from_secs(5);

/// A path parameter.
#[derive(FromRequestParts)]
#[from_request(via(Path), rejection(Problem))]
pub(crate) struct PathOf<T>(pub(crate) T);

/// The query; unknown parameters are refused where `T` refuses them.
#[derive(FromRequestParts)]
#[from_request(via(Query), rejection(Problem))]
pub(crate) struct QueryOf<T>(pub(crate) T);

/// A JSON body.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        if !is_json(&parts.headers) {
            return Err(Problem::media_type());
        }
        let bytes = read(&parts.headers, body, MAX_BODY_BYTES).await?;
        // A struct would be read from a list too, by position; and the parser's words for what is
        // neither would be those of our types.
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            return Err(Problem::invalid("the body is not one JSON object"));
        }
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|e| Problem::invalid(format!("the body is not what is expected: {e}")))
    }
}

/// JSON, or a client that doesn't say.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return true;
    };
    let essence = value
        .to_str()
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// A body of at most so many bytes.
pub(crate) async fn read(
    headers: &HeaderMap,
    mut body: Body,
    limit_bytes: usize,
) -> Result<Bytes, Problem> {
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > limit_bytes as u64) {
        // A client that asks first must not be told to go on.
        if !headers.contains_key(EXPECT) {
            swallow(&mut body).await;
        }
        return Err(Problem::too_large(limit_bytes));
    }
    let collected = Limited::new(&mut body, limit_bytes).collect();
    match tokio::time::timeout(BODY_TIMEOUT, collected).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(e)) if e.is::<LengthLimitError>() => {
            swallow(&mut body).await;
            Err(Problem::too_large(limit_bytes))
        }
        Ok(Err(_)) => Err(Problem::invalid("the body broke off")),
        Err(_) => Err(Problem::body_too_slow()),
    }
}

/// Reads on for a while and keeps nothing.
pub(crate) async fn swallow(body: &mut Body) {
    let rest = async {
        let mut left = SWALLOWED_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            left = left.saturating_sub(bytes);
            if left == 0 {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(SWALLOW_TIMEOUT, rest).await;
}

/// A session is a name of the client's choosing.
pub(crate) fn session_name(name: &str) -> Result<(), Problem> {
    if hub::task::is_session_name(name) {
        return Ok(());
    }
    Err(Problem::invalid(
        "a session's name is 1 to 128 of the characters A-Z a-z 0-9 . _ -",
    ))
}

/// A header's text, where it is there and readable.
pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// A page's size: what was asked for, within 1 to 200; 50 unless told.
pub(crate) fn page_limit(limit: Option<usize>) -> Result<usize, Problem> {
    match limit {
        None => Ok(50),
        Some(limit @ 1..=200) => Ok(limit),
        Some(_) => Err(Problem::invalid("limit is 1 to 200")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(name: http::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn session_names_are_short_and_plain() {
        for good in ["a", "A.b_c-9", &"x".repeat(128)] {
            assert!(session_name(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a/b", "ä", "a\n", &"x".repeat(129)] {
            assert!(session_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_body_is_json_if_it_says_so_or_says_nothing() {
        for (value, expected) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/vnd.a2a+json", true),
            ("text/plain", false),
            ("application/x-www-form-urlencoded", false),
        ] {
            assert_eq!(is_json(&headers(CONTENT_TYPE, value)), expected, "{value}");
        }
        assert!(is_json(&HeaderMap::new()));
    }

    #[tokio::test]
    async fn a_body_that_announces_too_much_is_refused_before_it_is_read() {
        let announced = headers(CONTENT_LENGTH, &(MAX_BODY_BYTES + 1).to_string());
        let error = read(&announced, Body::empty(), MAX_BODY_BYTES)
            .await
            .unwrap_err();
        assert_eq!((error.status.as_u16(), error.code), (413, "too_large"));
    }

    #[tokio::test]
    async fn the_rest_of_a_refused_body_is_read_unless_the_client_asked_first() {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicUsize, Ordering};

        for (asks, expected) in [(false, 40), (true, 0)] {
            let mut announced = headers(CONTENT_LENGTH, &(40 * 1024 * 1024).to_string());
            if asks {
                announced.insert(EXPECT, HeaderValue::from_static("100-continue"));
            }
            let sent = Arc::new(AtomicUsize::new(0));
            let counted = sent.clone();
            let pieces = futures_util::stream::iter((0..40).map(move |_| {
                counted.fetch_add(1, Ordering::Relaxed);
                Ok::<_, std::io::Error>(vec![b' '; 1024 * 1024])
            }));
            let error = read(&announced, Body::from_stream(pieces), MAX_BODY_BYTES)
                .await
                .unwrap_err();
            assert_eq!(error.status.as_u16(), 413);
            assert_eq!(sent.load(Ordering::Relaxed), expected);
        }
    }

    #[tokio::test]
    async fn a_body_that_turns_out_too_large_is_refused() {
        let error = read(
            &HeaderMap::new(),
            Body::from(vec![b' '; MAX_BODY_BYTES + 1]),
            MAX_BODY_BYTES,
        )
        .await
        .unwrap_err();
        assert_eq!(error.status.as_u16(), 413);
    }

    #[tokio::test]
    async fn a_list_is_not_taken_for_an_object_s_fields_in_order() {
        #[derive(serde::Deserialize, Debug)]
        struct One {
            _input: String,
        }
        let request = Request::new(Body::from(r#" ["x"]"#));
        let error = JsonBody::<One>::from_request(request, &()).await.err();
        assert_eq!(error.map(|problem| problem.status.as_u16()), Some(400));
    }

    #[tokio::test]
    async fn an_unknown_field_is_refused_by_name() {
        #[derive(serde::Deserialize, Debug)]
        #[serde(deny_unknown_fields)]
        #[allow(dead_code, reason = "only its refusal is looked at")]
        struct Known {
            input: String,
        }
        let request = Request::new(Body::from(r#"{"input": "x", "inptu": 1}"#));
        let error = JsonBody::<Known>::from_request(request, &())
            .await
            .err()
            .unwrap();
        assert_eq!(error.status.as_u16(), 400);
        assert!(error.detail.contains("inptu"), "{}", error.detail);
    }
}
