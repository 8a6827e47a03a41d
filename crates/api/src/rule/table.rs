//! The rules. A new one needs a case that keeps it and one that breaks it in `tests/it/sets/rules.yaml`.

use super::Rule;
use crate::manifest::Kind;

/// All of them, in the order they are reported.
pub static TABLE: &[Rule] = &[
    // Every name becomes the name of other objects, and a label.
    name(Kind::Provider),
    name(Kind::PromptPack),
    name(Kind::ToolRegistry),
    name(Kind::Agent),
    name(Kind::Workspace),
    // Provider
    worded(
        Kind::Provider,
        ("", "spec.type"),
        "has(self.spec.type) || self.metadata.name in ['openai', 'anthropic', 'script']",
        "is missing, and the object's name is not the name of a type",
    )
    .hint("write `type: openai`, `type: anthropic` or `type: script`"),
    rule(
        Kind::Provider,
        ("", "spec.script"),
        "(has(self.spec.type) ? self.spec.type : self.metadata.name) != 'script' || has(self.spec.script)",
        "is missing",
    )
    .hint("type script plays `script: {file: transcript.yaml}`"),
    rule(
        Kind::Provider,
        ("", "spec.script"),
        "(has(self.spec.type) ? self.spec.type : self.metadata.name) == 'script' || !has(self.spec.script)",
        "is for type script",
    ),
    rule(
        Kind::Provider,
        ("", "spec.baseUrl"),
        "(has(self.spec.type) ? self.spec.type : self.metadata.name) == 'script' || !has(self.spec.baseUrl) || !self.spec.baseUrl.contains('?')",
        "has a query; paths are put after it",
    ),
    credential(Kind::Provider, "spec.credential"),
    // ToolRegistry
    worded(
        Kind::ToolRegistry,
        ("spec.tools[]", ""),
        "[has(self.mcp), has(self.http), has(self.agent)].filter(x, x).size() == 1",
        "needs exactly one of mcp, http and agent",
    ),
    tool(
        "description",
        "!(has(self.http) || has(self.agent)) || (has(self.description) && size(self.description) > 0)",
        "is missing: the model reads it",
    ),
    tool(
        "inputSchema",
        "!has(self.mcp) || !has(self.inputSchema)",
        "has no meaning here: an MCP server brings its tools' schemas",
    ),
    tool(
        "inputSchema",
        "!has(self.agent) || !has(self.inputSchema)",
        "has no meaning here: an agent as a tool takes one text, `input`",
    ),
    tool(
        "readBack",
        "!(has(self.mcp) || has(self.agent)) || !has(self.readBack)",
        "has no meaning here: only http tools are read back",
    ),
    tool(
        "allow",
        "!(has(self.http) || has(self.agent)) || !has(self.allow)",
        "has no meaning here: only an MCP server has tools of its own",
    ),
    tool(
        "effects",
        "!(has(self.http) || has(self.agent)) || !has(self.effects) || size(self.effects) == 0",
        "has no meaning here: only an MCP server has tools of its own; write `effect`",
    ),
    worded(
        Kind::ToolRegistry,
        ("spec.tools[]", "effects"),
        "!has(self.effects) || self.effects.all(name, self.effects[name] != 'queryable')",
        "can't hold queryable: a call to an MCP server can't be read back",
    ),
    tool(
        "effect",
        "!has(self.mcp) || !has(self.effect) || self.effect != 'queryable'",
        "can't be queryable: a call to an MCP server can't be read back",
    ),
    tool(
        "effect",
        "!has(self.agent) || !has(self.effect) || self.effect == 'keyed'",
        "must be keyed: the id of an agent's task comes from the step",
    ),
    tool(
        "effect",
        "!has(self.http) || !has(self.effect) || self.effect != 'keyed' || has(self.key)",
        "is keyed, which needs `key`: where the call carries the step's id",
    )
    .hint("write `key: {header: Idempotency-Key}` or `key: {argument: NAME}`"),
    tool(
        "effect",
        "!has(self.http) || !has(self.effect) || self.effect != 'queryable' || has(self.readBack)",
        "is queryable, which needs `readBack`: how the call's outcome is read",
    ),
    tool(
        "key",
        "!has(self.agent) || !has(self.key)",
        "has no meaning here: an agent as a tool is keyed by the step's id already",
    ),
    tool(
        "key",
        "!has(self.http) || !has(self.key) || (has(self.effect) && self.effect == 'keyed')",
        "is for tools with `effect: keyed`",
    ),
    tool(
        "key.header",
        "!has(self.mcp) || !has(self.key) || !has(self.key.header)",
        "has no meaning here: a call to an MCP server has no headers of its own; write `argument`",
    ),
    tool(
        "readBack",
        "!has(self.http) || !has(self.readBack) || (has(self.effect) && self.effect == 'queryable')",
        "is for tools with `effect: queryable`",
    ),
    tool(
        "readBack.url",
        "!has(self.readBack) || self.readBack.url.contains('{stepId}')",
        "must name {stepId}, or reading back may find another call",
    ),
    worded(
        Kind::ToolRegistry,
        ("spec.tools[].key", ""),
        "has(self.header) != has(self.argument)",
        "needs exactly one of header and argument",
    ),
    worded(
        Kind::ToolRegistry,
        ("spec.tools[].mcp", ""),
        "has(self.url) != has(self.command)",
        "needs exactly one of url and command",
    ),
    server(
        "env",
        "!has(self.url) || !has(self.env) || size(self.env) == 0",
        "has no meaning here: only a server that Mainstay starts has an environment",
    ),
    server(
        "image",
        "!has(self.url) || !has(self.image)",
        "has no meaning here: only a server that Mainstay starts has an image",
    ),
    server(
        "credential",
        "!has(self.command) || !has(self.credential)",
        "has no meaning here: it is sent with `url` only",
    ),
    worded(
        Kind::ToolRegistry,
        ("spec.tools[].mcp.env", ""),
        "self.all(name, !name.startsWith('MAINSTAY_') && !(name in ['HOME', 'LANG', 'PATH', 'PYTHONHASHSEED', 'TMPDIR', 'TZ']))",
        "has a variable that is set by Mainstay and can't be changed",
    ),
    credential(Kind::ToolRegistry, "spec.tools[].mcp.credential"),
    credential(Kind::ToolRegistry, "spec.tools[].http.credential"),
    // Agent
    rule(
        Kind::Agent,
        ("spec", "models"),
        "(has(self.models) && size(self.models) > 0) || (has(self.runtime) && (has(self.runtime.exec) || has(self.runtime.service)))",
        "is missing: the builtin runtime needs a model",
    )
    .hint("write `models: [provider/model]`"),
    rule(
        Kind::Agent,
        ("spec", "prompt"),
        "!has(self.prompt) || !has(self.instructions)",
        "stands beside instructions, but only one of them may be written",
    ),
    worded(
        Kind::Agent,
        ("spec", "secretEnv"),
        "!has(self.env) || !has(self.secretEnv) || self.secretEnv.all(name, !(name in self.env))",
        "has a variable that is in env, too",
    ),
    worded(Kind::Agent, ("spec.env", ""), RESERVED, RESERVED_SAID),
    worded(Kind::Agent, ("spec.secretEnv", ""), RESERVED, RESERVED_SAID),
    worded(
        Kind::Agent,
        ("spec.runtime", ""),
        "[has(self.builtin), has(self.exec), has(self.service)].filter(x, x).size() <= 1",
        "may have only one of builtin, exec and service",
    ),
    rule(
        Kind::Agent,
        ("spec.runtime.service", "port"),
        "!has(self.port) || (has(self.protocol) && self.protocol != 'attach')",
        "has no meaning for protocol attach: the service dials in",
    )
    .hint("write `protocol: http` or `protocol: openai`"),
    rule(
        Kind::Agent,
        ("spec.budget.task", "usd"),
        "!has(self.usd) || self.usd > 0.0",
        "must be more than 0",
    ),
    scale(
        "max",
        "(has(self.min) ? self.min : 0) <= (has(self.max) ? self.max : 10)",
        "must be at least min",
    ),
    scale(
        "steps",
        "!has(self.steps) || self.steps.all(a, self.steps.exists_one(b, a.upTo == b.upTo))",
        "name an upTo twice",
    ),
    scale(
        "steps",
        "!has(self.steps) || self.steps.all(a, self.steps.all(b, a.upTo >= b.upTo || a.replicas <= b.replicas))",
        "have fewer replicas for more tasks",
    ),
    toleration(
        "key",
        "has(self.key) || (has(self.operator) && self.operator == 'Exists')",
        "is missing: only `operator: Exists` does without",
    ),
    toleration(
        "value",
        "!has(self.value) || !has(self.operator) || self.operator != 'Exists'",
        "has no meaning with `operator: Exists`",
    ),
    toleration(
        "tolerationSeconds",
        "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
        "is for `effect: NoExecute`",
    ),
];

/// Beside what Mainstay sets for agents, what it sets for all.
const RESERVED: &str = "self.all(name, !name.startsWith('MAINSTAY_') && !(name in ['HOME', 'LANG', 'PATH', 'PYTHONHASHSEED', 'TMPDIR', 'TZ', \
     'ANTHROPIC_API_KEY', 'ANTHROPIC_BASE_URL', 'OPENAI_AGENTS_DISABLE_TRACING', 'OPENAI_API_KEY', 'OPENAI_BASE_URL', 'PORT']))";
const RESERVED_SAID: &str = "has a variable that is set by Mainstay and can't be changed";

const fn rule(
    kind: Kind,
    (path, field): (&'static str, &'static str),
    cel: &'static str,
    message: &'static str,
) -> Rule {
    Rule {
        kind,
        path,
        field,
        cel,
        message,
        hint: None,
        worded: false,
    }
}

const fn worded(
    kind: Kind,
    place: (&'static str, &'static str),
    cel: &'static str,
    message: &'static str,
) -> Rule {
    Rule {
        worded: true,
        ..rule(kind, place, cel, message)
    }
}

const fn name(kind: Kind) -> Rule {
    worded(
        kind,
        ("", "metadata.name"),
        "size(self.metadata.name) <= 63 && !self.metadata.name.contains('.')",
        "is no name: lower-case letters, digits and hyphens, at most 63, with a letter or digit at both ends",
    )
}

const fn credential(kind: Kind, path: &'static str) -> Rule {
    worded(
        kind,
        (path, ""),
        "[has(self.secretRef), has(self.env), has(self.file)].filter(x, x).size() == 1",
        "needs exactly one of secretRef, env and file",
    )
}

const fn tool(field: &'static str, cel: &'static str, message: &'static str) -> Rule {
    rule(Kind::ToolRegistry, ("spec.tools[]", field), cel, message)
}

const fn server(field: &'static str, cel: &'static str, message: &'static str) -> Rule {
    rule(
        Kind::ToolRegistry,
        ("spec.tools[].mcp", field),
        cel,
        message,
    )
}

const fn scale(field: &'static str, cel: &'static str, message: &'static str) -> Rule {
    rule(Kind::Agent, ("spec.scale", field), cel, message)
}

const fn toleration(field: &'static str, cel: &'static str, message: &'static str) -> Rule {
    let path = "spec.placement.tolerations[]";
    rule(Kind::Agent, (path, field), cel, message)
}

impl Rule {
    const fn hint(self, hint: &'static str) -> Self {
        Self {
            hint: Some(hint),
            ..self
        }
    }
}
