//! Names of spans and attributes: OpenTelemetry's GenAI conventions (schema 1.42), and our own.
//!
//! Written out here because the conventions' crate marks its constants as deprecated while the
//! names move to a repository of their own. Attributes that carry content are left out for good.

pub const CHAT: &str = "chat";
pub const EXECUTE_TOOL: &str = "execute_tool";
pub const INVOKE_AGENT: &str = "invoke_agent";

pub const OPERATION: &str = "gen_ai.operation.name";
pub const PROVIDER: &str = "gen_ai.provider.name";
pub const AGENT: &str = "gen_ai.agent.name";
pub const CONVERSATION: &str = "gen_ai.conversation.id";
pub const REQUEST_MODEL: &str = "gen_ai.request.model";
pub const RESPONSE_MODEL: &str = "gen_ai.response.model";
pub const INPUT_TOKENS: &str = "gen_ai.usage.input_tokens";
pub const OUTPUT_TOKENS: &str = "gen_ai.usage.output_tokens";
pub const CACHE_READ_TOKENS: &str = "gen_ai.usage.cache_read.input_tokens";
pub const CACHE_CREATION_TOKENS: &str = "gen_ai.usage.cache_creation.input_tokens";
pub const TOOL_NAME: &str = "gen_ai.tool.name";
pub const TOOL_TYPE: &str = "gen_ai.tool.type";
pub const TOOL_CALL: &str = "gen_ai.tool.call.id";
pub const ERROR: &str = "error.type";

pub const TASK: &str = "mainstay.task.id";
pub const STATE: &str = "mainstay.task.state";
pub const STEP: &str = "mainstay.step.id";
pub const STEP_NUMBER: &str = "mainstay.step.number";
pub const ATTEMPT: &str = "mainstay.attempt";
pub const ATTEMPTS: &str = "mainstay.attempts";
pub const INSTANCE: &str = "mainstay.instance";
pub const EXIT: &str = "mainstay.exit";
pub const COST: &str = "mainstay.cost.usd";
/// How a person settled a step whose outcome nobody knew.
pub const RESOLVED: &str = "mainstay.step.resolved";
