//! Who may call at the TCP door: the owner's token, always.
//!
//! Programs send it as a bearer. WebSockets may carry it in `?token=`, because browsers can't set
//! headers there. The page's link carries it once and gets a cookie in exchange; browsers send a
//! cookie to every port of a host, so it holds a key derived from the token that opens the page
//! and nothing else.

use std::sync::Arc;

use aws_lc_rs::{constant_time, hmac};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, COOKIE, HOST, LOCATION, SET_COOKIE};
use http::uri::Authority;
use http::{HeaderMap, StatusCode, Uri};
use hub::Hub;

use crate::connection::Peer;
use crate::openai::ApiError;
use crate::problem::Problem;

/// Who asks, as it stands in the log.
#[derive(Clone, Debug)]
pub(crate) struct Author(pub(crate) Arc<str>);

impl Author {
    fn owner() -> Self {
        Self("owner".into())
    }
}

/// For the API: a bearer.
pub(crate) async fn bearer(State(hub): State<Hub>, request: Request, next: Next) -> Response {
    if !bearer_of(request.headers()).is_some_and(|token| hub.check_token(token)) {
        return Problem::unauthorized().into_response();
    }
    admit(request, next).await
}

/// For OpenAI's routes: a bearer, and OpenAI's shape if it is wrong.
pub(crate) async fn openai(State(hub): State<Hub>, request: Request, next: Next) -> Response {
    if !bearer_of(request.headers()).is_some_and(|token| hub.check_token(token)) {
        return ApiError::from(Problem::unauthorized()).into_response();
    }
    admit(request, next).await
}

/// For WebSockets: a bearer or `?token=`.
pub(crate) async fn socket(State(hub): State<Hub>, request: Request, next: Next) -> Response {
    let in_query = token_of(request.uri());
    if !bearer_of(request.headers())
        .or(in_query.as_deref())
        .is_some_and(|token| hub.check_token(token))
    {
        return Problem::unauthorized().into_response();
    }
    admit(request, next).await
}

/// For the page: the cookie, a bearer, or the link with `?token=`, which is exchanged.
pub(crate) async fn page(State(hub): State<Hub>, request: Request, next: Next) -> Response {
    if let Some(token) = token_of(request.uri()) {
        if hub.check_token(&token) {
            return exchange(&request, &token);
        }
    } else if bearer_of(request.headers()).is_some_and(|token| hub.check_token(token))
        || has_page_key(request.headers(), &hub.owner_token())
    {
        return admit(request, next).await;
    }
    crate::page::locked()
}

async fn admit(mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(Author::owner());
    next.run(request).await
}

/// The token of one well-formed `Authorization` header; two of them are none.
fn bearer_of(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else {
        return None;
    };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The first `token` of the query, decoded.
fn token_of(uri: &Uri) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Token {
        token: String,
    }
    axum::extract::Query::<Token>::try_from_uri(uri)
        .ok()
        .map(|query| query.0.token)
}

/// The page's link, once: the cookie, and the same address without the token.
fn exchange(request: &Request, token: &str) -> Response {
    let secure = match request.extensions().get::<Peer>() {
        Some(Peer::Network { secure: true, .. }) => "; Secure",
        _ => "",
    };
    let cookie = format!(
        "{}={}; HttpOnly; SameSite=Strict; Path=/{secure}",
        cookie_name(request.headers()),
        page_key(token)
    );
    let path = request.uri().path().to_owned();
    (
        StatusCode::SEE_OTHER,
        [(SET_COOKIE, cookie), (LOCATION, path)],
        [("referrer-policy", "no-referrer")],
    )
        .into_response()
}

/// Browsers keep cookies by host without its port; two hubs on one host must not share one.
fn cookie_name(headers: &HeaderMap) -> String {
    let host = headers
        .get(HOST)
        .and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    let port = host
        .and_then(|authority| authority.port_u16())
        .unwrap_or(80);
    format!("mainstay_page_{port}")
}

/// Opens the page, and tells nothing about the token.
fn page_key(token: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, token.as_bytes());
    hex::encode(hmac::sign(&key, b"mainstay page 1").as_ref())
}

fn has_page_key(headers: &HeaderMap, token: &str) -> bool {
    let (name, expected) = (cookie_name(headers), page_key(token));
    let pairs = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'));
    pairs
        .filter_map(|pair| pair.trim().split_once('='))
        .any(|(found, value)| {
            found == name
                && constant_time::verify_slices_are_equal(value.as_bytes(), expected.as_bytes())
                    .is_ok()
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use http::HeaderValue;

    fn headers(pairs: &[(http::HeaderName, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(name.clone(), HeaderValue::from_str(value).unwrap());
        }
        map
    }

    #[test]
    fn a_bearer_is_one_header_of_that_scheme() {
        assert_eq!(
            bearer_of(&headers(&[(AUTHORIZATION, "Bearer abc")])),
            Some("abc")
        );
        assert_eq!(
            bearer_of(&headers(&[(AUTHORIZATION, "bearer abc")])),
            Some("abc")
        );
        assert_eq!(bearer_of(&headers(&[(AUTHORIZATION, "Basic abc")])), None);
        assert_eq!(bearer_of(&headers(&[(AUTHORIZATION, "abc")])), None);
        assert_eq!(bearer_of(&headers(&[])), None);
        assert_eq!(
            bearer_of(&headers(&[
                (AUTHORIZATION, "Bearer a"),
                (AUTHORIZATION, "Bearer b")
            ])),
            None
        );
    }

    #[test]
    fn a_token_in_the_query_is_decoded() {
        assert_eq!(
            token_of(&"/ws/x?session=s&token=a%2Bb".parse().unwrap()).as_deref(),
            Some("a+b")
        );
        assert_eq!(token_of(&"/ws/x?session=s".parse().unwrap()), None);
    }

    #[test]
    fn the_link_is_exchanged_for_a_cookie_that_does_not_hold_the_token() {
        let request = Request::builder()
            .uri("/?token=secret")
            .header(HOST, "127.0.0.1:7080")
            .body(Body::empty())
            .unwrap();
        let response = exchange(&request, "secret");
        assert_eq!(response.status(), 303);
        assert_eq!(response.headers()[LOCATION], "/");
        let cookie = response.headers()[SET_COOKIE].to_str().unwrap().to_owned();
        assert!(cookie.starts_with("mainstay_page_7080="), "{cookie}");
        assert!(
            cookie.contains("HttpOnly")
                && cookie.contains("SameSite=Strict")
                && !cookie.contains("secret"),
            "{cookie}"
        );
        let pair = cookie.split(';').next().unwrap();
        let sent = headers(&[
            (HOST, "127.0.0.1:7080"),
            (COOKIE, &format!("theme=dark; {pair}")),
        ]);
        assert!(has_page_key(&sent, "secret"));
        assert!(!has_page_key(&sent, "another"));
    }

    #[test]
    fn a_cookie_of_another_port_or_value_opens_nothing() {
        let key = page_key("secret");
        let other_port = headers(&[
            (HOST, "127.0.0.1:7081"),
            (COOKIE, &format!("mainstay_page_7080={key}")),
        ]);
        assert!(!has_page_key(&other_port, "secret"));
        let wrong = headers(&[
            (HOST, "127.0.0.1:7080"),
            (COOKIE, "mainstay_page_7080=secret"),
        ]);
        assert!(!has_page_key(&wrong, "secret"));
    }
}
