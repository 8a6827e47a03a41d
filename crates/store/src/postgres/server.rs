//! How a Postgres is reached: what a connection string says, and which schema in it is a log's.
//!
//! The string holds a password, so it is read from a file or a Secret and shown nowhere: what errors name is the server
//! without it. A log has a schema to itself, named by the string or else like its role, which is Postgres' own custom.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use super::tls::{Roots, Tls};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A server that acknowledges nothing for so long is away: without it a cut network holds a commit for minutes.
const UNHEARD_FOR: Duration = Duration::from_secs(5);
/// Postgres cuts longer names without a word.
const NAME_BYTES: usize = 63;

/// A Postgres server and a schema in it.
#[derive(Clone)]
pub struct Server {
    pub(super) config: Box<Config>,
    pub(super) tls: Tls,
    schema: String,
}

/// Why a connection string can't be used.
#[derive(Debug, Error)]
pub enum ServerError {
    #[error("connection string is no URL that begins with postgres://")]
    NoUrl,
    #[error("connection string can't be read")]
    Unreadable(#[source] tokio_postgres::Error),
    #[error("connection string names no user")]
    NoUser,
    #[error(
        "connection string says sslmode={0}, which whoever is on the way can turn into a connection without TLS: \
         say verify-full, or disable where the way is trusted"
    )]
    WeakTls(String),
    #[error("schema {0} is longer than Postgres' names may be")]
    LongSchema(String),
    #[error("failed to use the certificates in {}", path.display())]
    Roots {
        path: PathBuf,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Server {
    /// Reads `postgres://USER:PASSWORD@HOST:PORT/DATABASE`. Of the parameters `schema` is ours, `sslmode` and
    /// `sslrootcert` mean what they do elsewhere, and the rest is the driver's. Without `sslmode` a socket of this
    /// machine is plain, and everything else is TLS with a certificate that is checked.
    pub fn parse(url: &str) -> Result<Server, ServerError> {
        let url = url.trim();
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(ServerError::NoUrl);
        }
        let (rest, ours) = Ours::split(url);
        let mut config: Config = rest.parse().map_err(ServerError::Unreadable)?;
        let user = config.get_user().filter(|user| !user.is_empty());
        let user = user.ok_or(ServerError::NoUser)?.to_owned();
        let is_local = config
            .get_hosts()
            .iter()
            .all(|host| matches!(host, Host::Unix(_)));
        let roots = match ours.sslrootcert {
            None => Roots::Mozilla,
            Some(path) => Roots::file(PathBuf::from(path))?,
        };
        let is_plain = match ours.sslmode.as_deref() {
            None => is_local,
            Some("disable") => true,
            Some("require" | "verify-ca" | "verify-full") => false,
            Some(other) => return Err(ServerError::WeakTls(other.to_owned())),
        };
        config.ssl_mode(if is_plain {
            SslMode::Disable
        } else {
            SslMode::Require
        });
        set_defaults(&mut config);
        let tls = Tls::new(roots);
        let schema = ours.schema.filter(|name| !name.is_empty());
        let schema = schema.unwrap_or(user);
        Server {
            config: Box::new(config),
            tls,
            schema,
        }
        .checked()
    }

    /// The same server with the schema for another log of the same owner.
    pub fn beside(&self, log: &str) -> Result<Server, ServerError> {
        Server {
            schema: format!("{}_{log}", self.schema),
            ..self.clone()
        }
        .checked()
    }

    fn checked(self) -> Result<Server, ServerError> {
        if self.schema.len() > NAME_BYTES {
            return Err(ServerError::LongSchema(self.schema));
        }
        Ok(self)
    }

    pub(super) fn schema(&self) -> &str {
        &self.schema
    }

    pub(super) fn role(&self) -> String {
        self.config.get_user().unwrap_or_default().to_owned()
    }

    /// The schema as SQL names it.
    pub(super) fn quoted_schema(&self) -> String {
        format!("\"{}\"", self.schema.replace('"', "\"\""))
    }

    /// Names the log in errors, as a path does: without user and password.
    pub(crate) fn shown(&self) -> PathBuf {
        PathBuf::from(self.to_string())
    }
}

fn set_defaults(config: &mut Config) {
    config.application_name("mainstay");
    // A server that may not be written to is a copy: another of the hosts is the one.
    config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(UNHEARD_FOR);
    }
    config.keepalives_idle(UNHEARD_FOR);
}

/// Parameters that the driver doesn't know.
#[derive(Default)]
struct Ours {
    schema: Option<String>,
    sslmode: Option<String>,
    sslrootcert: Option<String>,
}

impl Ours {
    /// The URL without them, and them.
    fn split(url: &str) -> (String, Ours) {
        let mut ours = Ours::default();
        let Some((base, query)) = url.split_once('?') else {
            return (url.to_owned(), ours);
        };
        let mut rest = Vec::new();
        for (pair, (name, value)) in query
            .split('&')
            .zip(url::form_urlencoded::parse(query.as_bytes()))
        {
            let value = value.into_owned();
            match name.as_ref() {
                "schema" => ours.schema = Some(value),
                "sslmode" => ours.sslmode = Some(value),
                "sslrootcert" => ours.sslrootcert = Some(value),
                _ => rest.push(pair),
            }
        }
        (format!("{base}?{}", rest.join("&")), ours)
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = self.config.get_ports();
        let hosts = self
            .config
            .get_hosts()
            .iter()
            .enumerate()
            .map(|(at, host)| {
                let host = match host {
                    Host::Tcp(name) => name.clone(),
                    Host::Unix(path) => path.display().to_string(),
                };
                match ports.get(at).or_else(|| ports.first()) {
                    Some(port) => format!("{host}:{port}"),
                    None => host,
                }
            });
        let hosts: Vec<String> = hosts.collect();
        let database = self.config.get_dbname().or(self.config.get_user());
        let database = database.unwrap_or_default();
        write!(
            f,
            "Postgres {}/{database} (schema {})",
            hosts.join(","),
            self.schema
        )
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> Server {
        Server::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    #[test]
    fn a_string_names_server_and_schema_and_no_error_shows_the_password() {
        let server = parsed("postgres://acme:hidden@db.example:5433/fleet?schema=a%22b");
        let shown = format!("{server:?}");
        assert_eq!(shown, "Postgres db.example:5433/fleet (schema a\"b)");
        assert_eq!(server.quoted_schema(), "\"a\"\"b\"");
        assert_eq!(parsed("postgresql://acme@h/d").schema(), "acme");
        let beside = parsed("postgresql://acme@h/d").beside("system").unwrap();
        assert_eq!(beside.schema(), "acme_system");
    }

    #[test]
    fn tls_is_what_a_server_elsewhere_gets_unless_it_is_told_not_to() {
        let mode = |url: &str| parsed(url).config.get_ssl_mode();
        assert_eq!(mode("postgres://a@h/d"), SslMode::Require);
        assert_eq!(
            mode("postgres://a@h/d?sslmode=verify-full"),
            SslMode::Require
        );
        assert_eq!(mode("postgres://a@h/d?sslmode=disable"), SslMode::Disable);
        assert_eq!(mode("postgres://a@%2Frun%2Fpg/d"), SslMode::Disable);
        let weak = Server::parse("postgres://a@h/d?sslmode=prefer").unwrap_err();
        assert!(matches!(weak, ServerError::WeakTls(_)));
    }

    #[test]
    fn what_is_no_such_string_is_refused_without_repeating_it() {
        for bad in [
            "host=h password=hidden",
            "postgres://:hidden@h/d",
            "postgres://a:hidden@h/d?nonsense=hidden",
            "postgres://a:hidden@h:port/d",
        ] {
            let error = Server::parse(bad).unwrap_err();
            let source = std::error::Error::source(&error).map(ToString::to_string);
            assert!(!format!("{error} {source:?}").contains("hidden"), "{bad}");
        }
    }
}
