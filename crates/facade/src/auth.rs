//! Who may call at the TCP door: the owner's token, always; besides it whoever is vouched for from
//! outside (`access`), where there is somebody to vouch.
//!
//! Programs send it as a bearer. WebSockets may carry it in `?token=`, because browsers can't set
//! headers there. The page's link carries it once and gets a cookie in exchange; browsers send a
//! cookie to every port of a host, so it holds a key derived from the token that opens the page
//! and nothing else.

use std::sync::Arc;

use aws_lc_rs::{constant_time, hmac};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, LOCATION, SET_COOKIE};
use http::uri::Authority;
use http::{HeaderMap, StatusCode, Uri};
use tokio::time::Instant;

use crate::access::{self, Access, Refused, Standing};
use crate::connection::Peer;
use crate::door::Door;
use crate::openai::ApiError;
use crate::problem::Problem;
use crate::sse::Broken;

/// What tokens of ours begin with: nobody else is asked about them.
const OURS: [&str; 3] = ["mst_", "msa_", "msm_"];
/// The longest token that somebody else is asked about.
const MAX_BEARER_BYTES: usize = 16 * 1024;

/// Who asks, as it stands in the log.
#[derive(Clone, Debug)]
pub(crate) struct Author(pub(crate) Arc<str>);

/// Who was let in; with a standing if it can be taken from him.
struct Caller {
    author: Author,
    standing: Option<Standing>,
}

/// For the API: a bearer.
pub(crate) async fn bearer(State(door): State<Door>, request: Request, next: Next) -> Response {
    let bearer = bearer_of(request.headers());
    match identify(&door, bearer, access::of(&request)).await {
        Ok(caller) => admit(caller, request, next).await,
        Err(problem) => problem.into_response(),
    }
}

/// For the metrics: a bearer, which may also be one that opens nothing else.
pub(crate) async fn metrics(State(door): State<Door>, request: Request, next: Next) -> Response {
    let bearer = bearer_of(request.headers());
    if bearer.is_some_and(|token| door.hub.check_metrics_token(token)) {
        return admit(owner(), request, next).await;
    }
    match identify(&door, bearer, access::of(&request)).await {
        Ok(caller) => admit(caller, request, next).await,
        Err(problem) => problem.into_response(),
    }
}

/// For OpenAI's routes: a bearer, and OpenAI's shape if it is wrong.
pub(crate) async fn openai(State(door): State<Door>, request: Request, next: Next) -> Response {
    let bearer = bearer_of(request.headers());
    match identify(&door, bearer, access::of(&request)).await {
        Ok(caller) => admit(caller, request, next).await,
        Err(problem) => ApiError::from(problem).into_response(),
    }
}

/// For WebSockets: a bearer or `?token=`.
pub(crate) async fn socket(State(door): State<Door>, request: Request, next: Next) -> Response {
    let in_query = token_of(request.uri());
    let bearer = bearer_of(request.headers()).or(in_query.as_deref());
    match identify(&door, bearer, access::of(&request)).await {
        Ok(caller) => admit(caller, request, next).await,
        Err(problem) => problem.into_response(),
    }
}

/// For the page: the cookie, a bearer, or the link with `?token=`, which is exchanged.
pub(crate) async fn page(State(door): State<Door>, request: Request, next: Next) -> Response {
    if let Some(token) = token_of(request.uri()) {
        if door.hub.check_token(&token) {
            return exchange(&request, &token);
        }
    } else if has_page_key(request.headers(), &door.hub.owner_token()) {
        return admit(owner(), request, next).await;
    } else if let Some(bearer) = bearer_of(request.headers()) {
        return match identify(&door, Some(bearer), access::of(&request)).await {
            Ok(caller) => admit(caller, request, next).await,
            Err(problem) if problem.status != StatusCode::UNAUTHORIZED => problem.into_response(),
            Err(_) => crate::page::locked(),
        };
    }
    crate::page::locked()
}

fn owner() -> Caller {
    Caller {
        author: Author("owner".into()),
        standing: None,
    }
}

/// Who the bearer is, if he may do that.
async fn identify(door: &Door, bearer: Option<&str>, access: Access) -> Result<Caller, Problem> {
    let bearer = bearer.ok_or_else(Problem::unauthorized)?;
    if door.hub.check_token(bearer) {
        return Ok(owner());
    }
    let is_ours = OURS.iter().any(|ours| bearer.starts_with(ours));
    let review = door.options.review.clone();
    let review = review.filter(|_| !is_ours && bearer.len() <= MAX_BEARER_BYTES);
    let standing = Standing {
        review: review.ok_or_else(Problem::unauthorized)?,
        bearer: bearer.into(),
        access,
    };
    let author = standing.review.of(bearer, standing.access).await?;
    Ok(Caller {
        author: Author(author),
        standing: Some(standing),
    })
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Unknown(why) => Self::unknown(why),
            Refused::NotAllowed(why) => Self::not_allowed(why),
            Refused::Unanswered(why) => Self::unanswered(why),
        }
    }
}

async fn admit(caller: Caller, mut request: Request, next: Next) -> Response {
    let Caller { author, standing } = caller;
    request.extensions_mut().insert(author);
    let Some(standing) = standing else {
        return next.run(request).await;
    };
    request.extensions_mut().insert(standing.clone());
    let begun = Instant::now();
    let response = next.run(request).await;
    // Who waits for a task may wait for minutes.
    if begun.elapsed() > access::AGAIN && standing.is_lost().await {
        return Problem::not_allowed("the right to do this was taken away meanwhile")
            .into_response();
    }
    held(response, standing)
}

/// A stream is broken off once the right to it is gone.
fn held(response: Response, standing: Standing) -> Response {
    let kind = response.headers().get(CONTENT_TYPE);
    if !kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream")) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let lost = Box::pin(standing.lost());
    let pieces = stream::unfold(Some((body.into_data_stream(), lost)), |state| async move {
        let (mut pieces, mut lost) = state?;
        let piece = tokio::select! {
            biased;
            () = &mut lost => Err(Broken),
            piece = pieces.next() => piece?.map_err(|_| Broken),
        };
        let rest = piece.is_ok().then_some((pieces, lost));
        Some((piece, rest))
    });
    Response::from_parts(parts, Body::from_stream(pieces))
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
