//! A queryable call of unknown outcome: its `readBack` is requested, and `found`, a CEL expression
//! over `status` and `body`, tells whether the call took effect.

use std::sync::Arc;
use std::time::Duration;

use api::fleet::ToolKind;
use cel::{Context, Program, Value as Cel};
use mcp::server::text_result;
use reqwest::Method;
use serde_json::Value;

use super::ToolCall;
use super::filling::Filling;
use super::http::{self, Answer, Prepared};
use crate::Gateway;

/// How often the other side is asked before it counts as silent.
const MAX_TRIES: u32 = 5;
/// The wait before the second try; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// What reading back showed.
#[derive(Debug, PartialEq)]
pub(super) enum Seen {
    /// The call took effect; this stands for its result.
    Done(Value),
    Absent,
    /// The other side didn't say.
    Unclear(String),
}

pub(super) async fn look(gateway: &Arc<Gateway>, call: &ToolCall, step_id: &str) -> Seen {
    let mut wait = FIRST_WAIT;
    let mut tries = 1;
    loop {
        match look_once(gateway, call, step_id).await {
            Seen::Unclear(message) if tries < MAX_TRIES => {
                tracing::info!(tool = call.exposed, message, "reading back is tried again");
            }
            seen => return seen,
        }
        tokio::time::sleep(wait.mul_f64(0.5 + rand::random::<f64>())).await;
        wait *= 2;
        tries += 1;
    }
}

async fn look_once(gateway: &Arc<Gateway>, call: &ToolCall, step_id: &str) -> Seen {
    let ToolKind::Http {
        credential,
        read_back: Some(read_back),
        ..
    } = &call.tool.kind
    else {
        return Seen::Unclear("the tool has no readBack".into());
    };
    let arguments = call.arguments.as_object().cloned().unwrap_or_default();
    let filling = Filling {
        arguments: &arguments,
        step_id,
    };
    let (Ok(url), Ok(method)) = (
        filling.url(&read_back.url),
        Method::from_bytes(read_back.method.as_bytes()),
    ) else {
        return Seen::Unclear("the address of readBack can't be made".into());
    };
    let prepared = Prepared {
        method,
        url,
        body: None,
        key: None,
    };
    let limit_bytes = usize::try_from(call.tool.result_bytes).unwrap_or(usize::MAX);
    let answer = match http::send(
        gateway,
        prepared,
        credential.as_ref(),
        call.tool.timeout_ms,
        limit_bytes,
    )
    .await
    {
        Ok(answer) if answer.cut => {
            return Seen::Unclear("what readBack answers is larger than limits.result".into());
        }
        // A server in trouble proves nothing, whatever the expression makes of its error page.
        Ok(answer) if answer.status >= 500 || answer.status == 429 => {
            return Seen::Unclear(format!(
                "readBack was answered with status {}",
                answer.status
            ));
        }
        Ok(answer) => answer,
        Err(made) => return Seen::Unclear(format!("readBack had no answer: {made:?}")),
    };
    decide(read_back.found.clone(), answer).await
}

/// Evaluates on a thread of its own: an expression may take its time, and its parser may panic.
async fn decide(found: String, answer: Answer) -> Seen {
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let body = serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text.clone()));
    let status = answer.status;
    let evaluated = tokio::task::spawn_blocking(move || is_found(&found, status, &body)).await;
    match evaluated {
        Ok(Ok(true)) => Seen::Done(text_result(&text, false)),
        Ok(Ok(false)) => Seen::Absent,
        Ok(Err(why)) => Seen::Unclear(format!("readBack.found can't be evaluated: {why}")),
        Err(_) => Seen::Unclear("readBack.found can't be evaluated".into()),
    }
}

fn is_found(expression: &str, status: u16, body: &Value) -> Result<bool, String> {
    let program = Program::compile(expression).map_err(|error| error.to_string())?;
    let mut context = Context::default();
    context
        .add_variable("status", i64::from(status))
        .map_err(|error| error.to_string())?;
    context
        .add_variable("body", body)
        .map_err(|error| error.to_string())?;
    match program
        .execute(&context)
        .map_err(|error| error.to_string())?
    {
        Cel::Bool(found) => Ok(found),
        other => Err(format!("it gives {other:?}, not true or false")),
    }
}

/// Is this a CEL expression over `status` and `body`? The error says what is wrong with it.
pub fn check_expression(expression: &str) -> Result<(), String> {
    // The parser has panicked on odd input before; here that is the expression's fault.
    let compiled = std::panic::catch_unwind(|| Program::compile(expression));
    let program = match compiled {
        Ok(compiled) => compiled.map_err(|error| fault(&error.to_string()))?,
        Err(_) => return Err("it can't be parsed".into()),
    };
    let references = program.references();
    let unknown = references
        .variables()
        .into_iter()
        .find(|name| !KNOWN.contains(name) && !is_bound(expression, name));
    match unknown {
        Some(name) => Err(format!("there is no {name} in it, only status and body")),
        None => Ok(()),
    }
}

/// What an expression may name: its two variables, and CEL's types.
const KNOWN: [&str; 14] = [
    "status",
    "body",
    "bool",
    "bytes",
    "double",
    "duration",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "timestamp",
    "type",
    "uint",
];

/// Does a macro such as `exists(item, …)` give the name its meaning?
fn is_bound(expression: &str, name: &str) -> bool {
    expression.match_indices('(').any(|(at, _)| {
        let inner = expression[at + 1..].trim_start();
        inner
            .strip_prefix(name)
            .is_some_and(|rest| rest.trim_start().starts_with(','))
    })
}

/// The parser's first complaint, without the drawing below it.
fn fault(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let line = line.strip_prefix("ERROR: <input>:1:").unwrap_or(line);
    let line = line.split(" expecting {").next().unwrap_or(line);
    match line.split_once(": ") {
        Some((column, rest)) if column.parse::<u32>().is_ok() => {
            mcp::message::bounded(&format!("at character {column}, {rest}"), 300)
        }
        _ => mcp::message::bounded(line, 300),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_expression_sees_status_and_body() {
        let body = json!({"items": [{"ref": "s-1"}], "total": 1});
        let check = |expression: &str, expect: bool| {
            assert_eq!(is_found(expression, 200, &body), Ok(expect), "{expression}");
        };
        check("size(body.items) > 0", true);
        check("status == 200 && body.total == 1", true);
        check("body.items.exists(item, item.ref == 's-2')", false);
        check("status == 404", false);
    }

    #[test]
    fn what_is_no_answer_is_no_proof_of_absence() {
        assert!(is_found("body.missing > 1", 200, &json!({})).is_err());
        assert!(is_found("size(body)", 200, &json!([])).is_err());
        assert!(check_expression("size(body.items) >").is_err());
        for expression in [
            "size(body.items) > 0",
            "body.items.exists(item, item.ref == 's-2') && type(status) == int",
            "has(body.id) || body.map( x , x.y).all(z, z > 1)",
        ] {
            assert_eq!(check_expression(expression), Ok(()), "{expression}");
        }
    }

    #[test]
    fn an_expression_that_could_never_be_evaluated_is_refused_when_it_is_written() {
        let refused = |expression| check_expression(expression).unwrap_err();
        assert_eq!(
            refused("size(bdy.items) > 0"),
            "there is no bdy in it, only status and body"
        );
        let told = refused("size(body.items >");
        assert!(told.starts_with("at character "), "{told}");
        assert!(
            !told.contains("IDENTIFIER") && !told.contains('|'),
            "{told}"
        );
    }
}
