//! Tools that are HTTP requests: their arguments, where each goes, and how the call may be repeated.
//!
//! No argument may stand in the host: a model would choose who is sent the credential.

use super::tool::Written;
use super::{Resolver, listed};
use crate::fleet::{Effect, ReadBack, ToolKind};
use crate::format::{authority, url_problem};
use crate::nearest::did_you_mean;
use crate::problem::quoted;
use crate::template::{STEP_ID, arguments, arguments_of};
use crate::tool_registry::{HttpSpec, Method};
use serde_json::{Value, json};

impl Resolver<'_> {
    /// The schema of the arguments; without one the tool takes none.
    pub(super) fn input_schema(&mut self, tool: &Written<'_>) -> Value {
        let Some(schema) = &tool.spec.input_schema else {
            return json!({"type": "object", "properties": {}, "additionalProperties": false});
        };
        let schema = Value::Object(schema.clone());
        if schema.get("type").and_then(Value::as_str) != Some("object") {
            self.tool_problem(
                tool,
                "inputSchema",
                "the arguments are an object: `inputSchema` needs `type: object`",
            );
        } else if schema
            .get("properties")
            .is_some_and(|properties| !properties.is_object())
        {
            self.tool_problem(
                tool,
                "inputSchema.properties",
                "`properties` must be a mapping of argument names to schemas",
            );
        } else if let Err(reason) = (self.facts.check_schema)(&schema) {
            self.tool_problem(
                tool,
                "inputSchema",
                format!("this is no JSON Schema: {reason}"),
            );
        }
        if argument_names(&schema).contains(&STEP_ID) {
            let message = format!(
                "{} is Mainstay's own name for the step's id",
                quoted(STEP_ID)
            );
            self.tool_problem(tool, "inputSchema", message);
        }
        schema
    }

    pub(super) fn http_tool(
        &mut self,
        tool: &Written<'_>,
        http: &HttpSpec,
        schema: &Value,
    ) -> ToolKind {
        self.address(tool, "http.url", &http.url, schema);
        if let Some(body) = &http.body {
            self.refuse(
                tool,
                "http.body",
                http.method == Method::Get,
                "a GET request has no body",
            );
            self.placeholders(tool, "http.body", arguments_of(body), schema);
            self.unsent_arguments(tool, http, schema);
        }
        self.key_argument(tool, http, schema);
        self.read_back(tool, http, schema);
        ToolKind::Http {
            method: http.method.name().to_owned(),
            url: http.url.clone(),
            body: http.body.clone(),
            credential: self.credential(
                tool.object,
                &tool.field("http.credential"),
                http.credential.as_ref(),
            ),
            read_back: tool.spec.read_back.as_ref().map(|spec| ReadBack {
                method: spec.method.name().to_owned(),
                url: spec.url.clone(),
                found: spec.found.clone(),
            }),
        }
    }

    fn address(&mut self, tool: &Written<'_>, field: &str, url: &str, schema: &Value) {
        if let Some(reason) = url_problem(url) {
            self.tool_problem(
                tool,
                field,
                format!("`{}` is {}, which {reason}", tool.field(field), quoted(url)),
            );
            return;
        }
        let host = authority(url.split_once("://").map_or("", |(_, rest)| rest));
        if host.contains(['{', '}']) {
            let message = "an argument can't choose the host: the model would decide who is called";
            self.tool_problem(tool, field, message);
        }
        self.placeholders(tool, field, arguments(url).collect(), schema);
    }

    fn placeholders(&mut self, tool: &Written<'_>, field: &str, names: Vec<&str>, schema: &Value) {
        let key = tool
            .spec
            .key
            .as_ref()
            .and_then(|key| key.argument.as_deref());
        let known: Vec<&str> = argument_names(schema).into_iter().chain(key).collect();
        let mut unknown: Vec<&str> = names
            .into_iter()
            .filter(|name| *name != STEP_ID && !known.contains(name))
            .collect();
        unknown.sort_unstable();
        unknown.dedup();
        for name in unknown {
            let hint =
                did_you_mean(name, known.iter().copied().chain([STEP_ID])).unwrap_or_else(|| {
                    match known.as_slice() {
                        [] => "declare it in `inputSchema`".to_owned(),
                        known => format!("it has {}", listed(known.iter().copied())),
                    }
                });
            let message = format!(
                "{} is no argument of `inputSchema`",
                quoted(&format!("{{{name}}}"))
            );
            self.hinted(tool.object, &tool.field(field), message, hint);
        }
    }

    /// With a body of one's own nothing is sent that isn't named.
    fn unsent_arguments(&mut self, tool: &Written<'_>, http: &HttpSpec, schema: &Value) {
        let sent: Vec<&str> = sent_arguments(http);
        for name in argument_names(schema)
            .into_iter()
            .filter(|name| !sent.contains(name))
        {
            let message = format!(
                "argument {} is never sent: neither url nor body names it",
                quoted(name)
            );
            self.warning(tool.object, &tool.field("http.body"), message);
        }
    }

    fn key_argument(&mut self, tool: &Written<'_>, http: &HttpSpec, schema: &Value) {
        let key = tool.spec.key.as_ref();
        let Some(argument) = key.and_then(|key| key.argument.as_deref()) else {
            return;
        };
        let message = if argument_names(schema).contains(&argument) {
            format!(
                "{} is also an argument that the model fills in",
                quoted(argument)
            )
        } else if http.body.is_some() && !sent_arguments(http).contains(&argument) {
            format!(
                "the key is never sent: neither url nor body names {}",
                quoted(&format!("{{{argument}}}"))
            )
        } else {
            return;
        };
        self.tool_problem(tool, "key.argument", message);
    }

    fn read_back(&mut self, tool: &Written<'_>, http: &HttpSpec, schema: &Value) {
        let queryable = tool.spec.effect == Some(Effect::Queryable);
        if queryable && !sent_arguments(http).contains(&STEP_ID) {
            let message = "a queryable call must send the step's id, so that it can be found again";
            self.hinted(
                tool.object,
                &tool.field("effect"),
                message,
                "write {stepId} in the url or in the body",
            );
        }
        let Some(read_back) = &tool.spec.read_back else {
            return;
        };
        self.address(tool, "readBack.url", &read_back.url, schema);
        if let Err(reason) = (self.facts.check_expression)(&read_back.found) {
            self.tool_problem(
                tool,
                "readBack.found",
                format!("this is no CEL expression: {reason}"),
            );
        }
    }
}

fn argument_names(schema: &Value) -> Vec<&str> {
    let properties = schema.get("properties").and_then(Value::as_object);
    properties
        .into_iter()
        .flat_map(serde_json::Map::keys)
        .map(String::as_str)
        .collect()
}

fn sent_arguments(http: &HttpSpec) -> Vec<&str> {
    arguments(&http.url)
        .chain(http.body.iter().flat_map(arguments_of))
        .collect()
}
