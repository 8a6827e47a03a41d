//! The forms of text that a schema names with `format`: names, addresses, headers, durations, sizes.
//!
//! Each says in one fragment what it wants; that fragment ends up in the problem.

use crate::cpu::Cpu;
use crate::duration::Duration;
use crate::quantity::Quantity;
use serde_json::Value;

/// What is wrong with the text, as the end of "`field` is `text`, which …".
pub(crate) fn check(format: &str, text: &str, schema: &Value) -> Result<(), String> {
    match format {
        "mainstay-name" if !is_name(text) => Err(
            "is no name: lower-case letters, digits and hyphens, at most 63, with a letter or digit at both ends".into(),
        ),
        "mainstay-key" if !is_key(text) => Err("is no key: letters, digits, dot, underscore and hyphen, at most 128".into()),
        "mainstay-env" if !is_env(text) => Err(
            "is no name of an environment variable (the secret itself doesn't belong in a manifest)".into(),
        ),
        "mainstay-tool-name" if !is_tool_name(text) => {
            Err("is no tool name: letters, digits, underscore and hyphen, at most 64".into())
        }
        "mainstay-header" if !is_header(text) => Err("is no name of a header that may be set".into()),
        "mainstay-image" if !is_image(text) => Err("is no name of an image: write registry/name:tag".into()),
        "mainstay-path" if !is_mount(text) => {
            Err("is no place for a volume: an absolute path below /, without `..`".into())
        }
        "mainstay-subject" if !is_subject(text) => {
            Err("names nobody: write user:NAME, group:NAME or serviceAccount:NAMESPACE/NAME".into())
        }
        "mainstay-url" => url_problem(text).map_or(Ok(()), Err),
        "mainstay-duration" => within(Duration::parse(text), schema, Duration::parse)
            .map_err(|bound| bound.unwrap_or_else(|| "is no duration: write 30s, 10m or 1h30m".into())),
        "mainstay-quantity" => within(Quantity::parse(text), schema, Quantity::parse)
            .map_err(|bound| bound.unwrap_or_else(|| "is no size: write 256Ki, 512Mi or 5Gi".into())),
        "mainstay-cpu" => within(Cpu::parse(text), schema, Cpu::parse)
            .map_err(|bound| bound.unwrap_or_else(|| "is no amount of CPU: write 500m or 2".into())),
        _ => Ok(()),
    }
}

/// The same as a regular expression, for editors.
pub(crate) fn pattern(format: &str) -> Option<&'static str> {
    match format {
        "mainstay-name" => Some("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"),
        "mainstay-key" => Some("^[A-Za-z0-9._-]{1,128}$"),
        "mainstay-env" => Some("^[A-Za-z_][A-Za-z0-9_]*$"),
        "mainstay-tool-name" => Some("^[A-Za-z0-9_-]{1,64}$"),
        "mainstay-header" => Some("^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$"),
        "mainstay-url" => Some("^https?://[^\\s/?#@]+([/?][^\\s#]*)?$"),
        "mainstay-duration" => Some("^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$"),
        "mainstay-quantity" => Some(r"^[0-9]+(\.[0-9]+)?(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"),
        "mainstay-cpu" => Some(r"^[0-9]+(m|\.[0-9]{1,3})?$"),
        "mainstay-image" => Some("^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,511}$"),
        "mainstay-path" => Some(r"^(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+$"),
        "mainstay-subject" => {
            Some("^((user|group):.+|serviceAccount:[a-z0-9-]{1,63}/[a-z0-9.-]{1,253})$")
        }
        _ => None,
    }
}

/// A DNS label.
pub(crate) fn is_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_key(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    // A key becomes a file's name, so it must not climb.
    (1..=128).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with('.')
}

fn is_image(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"._:/@+-".contains(&b);
    (1..=512).contains(&text.len())
        && text.bytes().all(inner)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// An absolute path whose names are plain: no hidden ones, so none that climbs.
fn is_mount(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    text.len() <= 512
        && text.strip_prefix('/').is_some_and(|names| {
            let mut names = names.split('/');
            names.all(|name| !name.is_empty() && !name.starts_with('.') && name.bytes().all(inner))
        })
}

/// Who a member is, as Kubernetes' role bindings know it.
fn is_subject(text: &str) -> bool {
    match text.split_once(':') {
        Some(("user" | "group", name)) => (1..=253).contains(&name.chars().count()),
        Some(("serviceAccount", account)) => account
            .split_once('/')
            .is_some_and(|(namespace, name)| is_name(namespace) && is_account(name)),
        _ => false,
    }
}

fn is_account(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_name)
}

/// What a shell takes as the name of a variable.
pub(crate) fn is_env(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with(|c: char| c.is_ascii_digit())
}

/// What every provider takes as the name of a function.
pub(crate) fn is_tool_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

/// The name a model sees of an MCP server's tool: servers may use dots and slashes, models may not.
pub fn model_name(prefix: &str, name: &str) -> String {
    let name = name.chars().map(|c| {
        let accepted = c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if accepted { c } else { '_' }
    });
    prefix.chars().chain(name).collect()
}

/// A token of RFC 9110 that doesn't frame or route the request.
fn is_header(text: &str) -> bool {
    const RESERVED: [&str; 7] = [
        "host",
        "content-length",
        "content-type",
        "transfer-encoding",
        "connection",
        "authorization",
        "upgrade",
    ];
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    (1..=128).contains(&text.len())
        && text.bytes().all(token)
        && !RESERVED.contains(&text.to_ascii_lowercase().as_str())
}

/// What is wrong with an address; placeholders are not looked at.
pub(crate) fn url_problem(text: &str) -> Option<String> {
    let Some(rest) = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))
    else {
        return Some("is no address: it must begin with http:// or https://".into());
    };
    let host = authority(rest);
    if host.is_empty() || host.starts_with(':') {
        return Some("is no address: it names no host".into());
    }
    if host.contains('@') {
        return Some("holds a user name or password: use credential".into());
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control())
        || text.contains('#')
        || text.len() > 4096
    {
        return Some("is no address: it holds white space or a fragment, or is too long".into());
    }
    None
}

/// Host and port: everything before the path.
pub(crate) fn authority(after_scheme: &str) -> &str {
    &after_scheme[..after_scheme
        .find(['/', '?', '#', '\\'])
        .unwrap_or(after_scheme.len())]
}

/// `Err(None)` if it can't be read at all, else the bound that it breaks.
fn within<T: PartialOrd>(
    value: Option<T>,
    schema: &Value,
    parse: fn(&str) -> Option<T>,
) -> Result<(), Option<String>> {
    let value = value.ok_or(None)?;
    let bound = |name: &str| {
        schema
            .get(name)
            .and_then(Value::as_str)
            .and_then(|text| Some((text, parse(text)?)))
    };
    match (bound("x-minimum"), bound("x-maximum")) {
        (Some((text, least)), _) if value < least => {
            Err(Some(format!("is below the least of {text}")))
        }
        (_, Some((text, most))) if value > most => {
            Err(Some(format!("is above the most of {text}")))
        }
        _ => Ok(()),
    }
}
