//! Host and Origin: what keeps web pages of strangers away from a server on loopback.
//!
//! DNS rebinding needs a name the attacker owns, so only loopback names, the address the
//! connection came in on, and configured names are answered. The port of a loopback name is not
//! compared: through a tunnel it is another one, and a page can't choose it freely. A request that
//! carries an Origin comes from a page and must be of the same origin.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, Uri};

use crate::connection::Peer;
use crate::door::Door;
use crate::problem::Problem;

/// The layer around the whole TCP door.
pub(crate) async fn check(State(door): State<Door>, request: Request, next: Next) -> Response {
    let local = match request.extensions().get::<Peer>() {
        Some(Peer::Network { local, .. }) => *local,
        _ => return Problem::not_allowed("not a network connection").into_response(),
    };
    match verdict(request.headers(), request.uri(), local, &door.options.names) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// The same where no token is asked for. Off loopback anybody may read there anyway, and monitors
/// call it by names of their own.
pub(crate) async fn check_on_loopback(
    State(door): State<Door>,
    request: Request,
    next: Next,
) -> Response {
    match request.extensions().get::<Peer>() {
        Some(Peer::Network { local, .. }) if !local.ip().is_loopback() => next.run(request).await,
        _ => check(State(door), request, next).await,
    }
}

fn verdict(
    headers: &HeaderMap,
    uri: &Uri,
    local: SocketAddr,
    names: &[String],
) -> Result<(), Problem> {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(Problem::misdirected(""));
    };
    let host = host.to_str().unwrap_or_default();
    if !is_ours(host, local, names) {
        return Err(Problem::misdirected(host));
    }
    // An absolute request line overrules Host; it must not name somebody else.
    if uri
        .authority()
        .is_some_and(|authority| !is_ours(authority.as_str(), local, names))
    {
        return Err(Problem::misdirected(
            uri.authority().map_or("", Authority::as_str),
        ));
    }
    let mut origins = headers.get_all(ORIGIN).iter();
    if origins.all(|origin| is_same_origin(origin.to_str().unwrap_or_default(), host, names)) {
        return Ok(());
    }
    Err(Problem::not_allowed(
        "pages of another origin may not call here",
    ))
}

fn is_ours(host: &str, local: SocketAddr, names: &[String]) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    if authority.as_str().contains('@') {
        return false;
    }
    let name = authority.host();
    let address = name
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost")
        || address.is_ok_and(|ip| ip.is_loopback() || ip == local.ip().to_canonical())
        || names
            .iter()
            .any(|allowed| allowed.eq_ignore_ascii_case(host) || allowed.eq_ignore_ascii_case(name))
}

fn is_same_origin(origin: &str, host: &str, names: &[String]) -> bool {
    let Some(authority) = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"))
    else {
        return false;
    };
    authority.eq_ignore_ascii_case(host)
        || names
            .iter()
            .any(|allowed| allowed.eq_ignore_ascii_case(authority))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn check(host: Option<&str>, origin: Option<&str>) -> u16 {
        let mut headers = HeaderMap::new();
        if let Some(host) = host {
            headers.insert(HOST, HeaderValue::from_str(host).unwrap());
        }
        if let Some(origin) = origin {
            headers.insert(ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        let names = ["agents.example".to_owned()];
        match verdict(
            &headers,
            &Uri::from_static("/"),
            "127.0.0.1:7080".parse().unwrap(),
            &names,
        ) {
            Ok(()) => 200,
            Err(problem) => problem.status.as_u16(),
        }
    }

    #[test]
    fn loopback_names_the_listen_address_and_configured_names_are_answered() {
        for host in [
            "127.0.0.1:7080",
            "localhost:7080",
            "LOCALHOST:7080",
            "[::1]:7080",
            "agents.example",
            "agents.example:80",
        ] {
            assert_eq!(check(Some(host), None), 200, "{host}");
        }
    }

    #[test]
    fn a_foreign_or_missing_host_is_misdirected() {
        for host in [
            "evil.example",
            "evil.example:7080",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "u@localhost:7080",
            "10.0.0.1:7080",
            "",
            "a b",
        ] {
            assert_eq!(check(Some(host), None), 421, "{host}");
        }
        assert_eq!(check(None, None), 421);
    }

    #[test]
    fn a_page_of_another_origin_is_refused() {
        let host = Some("127.0.0.1:7080");
        assert_eq!(check(host, Some("http://127.0.0.1:7080")), 200);
        assert_eq!(check(host, Some("http://agents.example")), 200);
        for origin in [
            "http://evil.example",
            "http://127.0.0.1:3000",
            "http://localhost:7080",
            "null",
            "file://",
            "",
        ] {
            assert_eq!(check(host, Some(origin)), 403, "{origin}");
        }
    }

    #[test]
    fn two_hosts_or_a_request_line_for_somebody_else_are_misdirected() {
        let mut headers = HeaderMap::new();
        headers.append(HOST, HeaderValue::from_static("localhost"));
        let local = "127.0.0.1:7080".parse().unwrap();
        assert!(
            verdict(
                &headers,
                &Uri::from_static("http://evil.example/"),
                local,
                &[]
            )
            .is_err()
        );
        headers.append(HOST, HeaderValue::from_static("evil.example"));
        assert!(verdict(&headers, &Uri::from_static("/"), local, &[]).is_err());
    }
}
