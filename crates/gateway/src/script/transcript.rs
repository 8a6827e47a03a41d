//! A transcript: rules, tried in order; the first that fits the conversation answers.

use llm::ToolCall;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::conversation::Conversation;
use super::template;

/// The most of a wait that a transcript may ask for.
const LONGEST_MS: u64 = 3_600_000;

/// A transcript.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transcript {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    #[serde(default)]
    when: When,
    answer: Reply,
}

/// What must hold; what is left out always does. Texts are looked for anywhere, without regard to case.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct When {
    /// In the newest thing the user said.
    user: Option<String>,
    system: Option<String>,
    /// In some tool result since then.
    tool_result: Option<String>,
    /// Answers given since then.
    turn: Option<u32>,
    model: Option<String>,
    /// This call's attempt, from 1: how a failure that passes is played.
    attempt: Option<u32>,
}

/// What is answered.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Reply {
    pub text: String,
    tool_calls: Vec<Proposal>,
    /// Before the first byte.
    pub delay_ms: u64,
    /// Before each piece of a stream.
    pub pace_ms: u64,
    pub error: Option<ErrorReply>,
    /// The answer breaks off after so many pieces.
    pub break_after: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Proposal {
    name: String,
    #[serde(default)]
    arguments: Map<String, Value>,
}

/// An error instead of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ErrorReply {
    pub status: u16,
    #[serde(default = "scripted")]
    pub message: String,
    /// Seconds.
    #[serde(default)]
    pub retry_after: Option<u32>,
}

fn scripted() -> String {
    "the transcript says so".into()
}

impl Transcript {
    /// Reads a transcript; the error names the place.
    pub fn parse(text: &str) -> Result<Self, String> {
        let transcript: Self = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        if transcript.rules.is_empty() {
            return Err("it has no rules".into());
        }
        for (index, rule) in transcript.rules.iter().enumerate() {
            rule.answer
                .check()
                .map_err(|why| format!("rules[{index}].answer: {why}"))?;
        }
        Ok(transcript)
    }

    pub(super) fn answer(&self, conversation: &Conversation) -> Option<&Reply> {
        self.rules
            .iter()
            .find(|rule| rule.when.fits(conversation))
            .map(|rule| &rule.answer)
    }
}

impl When {
    fn fits(&self, conversation: &Conversation) -> bool {
        let within = |part: &Option<String>, whole: &str| {
            part.as_ref().is_none_or(|part| contains(whole, part))
        };
        within(&self.user, &conversation.input)
            && within(&self.system, &conversation.system)
            && self.tool_result.as_ref().is_none_or(|part| {
                conversation
                    .tool_results
                    .iter()
                    .any(|result| contains(result, part))
            })
            && self.turn.is_none_or(|turn| turn == conversation.turn)
            && self
                .model
                .as_ref()
                .is_none_or(|model| *model == conversation.model)
            && self
                .attempt
                .is_none_or(|attempt| attempt == conversation.attempt)
    }
}

fn contains(whole: &str, part: &str) -> bool {
    whole.to_lowercase().contains(&part.to_lowercase())
}

impl Reply {
    fn check(&self) -> Result<(), String> {
        if let Some(error) = &self.error
            && !(400..=599).contains(&error.status)
        {
            return Err(format!(
                "error.status is {}, not one of 400 to 599",
                error.status
            ));
        }
        if self.error.is_none() && self.text.is_empty() && self.tool_calls.is_empty() {
            return Err("write text, toolCalls or error".into());
        }
        if self.delay_ms > LONGEST_MS || self.pace_ms > LONGEST_MS {
            return Err(format!("delayMs and paceMs are at most {LONGEST_MS}"));
        }
        let arguments = self
            .tool_calls
            .iter()
            .map(|call| Value::Object(call.arguments.clone()).to_string());
        for text in arguments.chain([self.text.clone()]) {
            if let Some(name) = template::unknown_name(&text) {
                return Err(format!(
                    "{{{{{name}}}}} is unknown: there are input, lastToolResult, toolResults, turn and model"
                ));
            }
        }
        Ok(())
    }

    /// The tool calls, with ids that are the same whenever this conversation is answered.
    pub(super) fn calls(&self, conversation: &Conversation) -> Vec<ToolCall> {
        let calls = self.tool_calls.iter().enumerate().map(|(index, proposal)| {
            let arguments = Value::Object(proposal.arguments.clone());
            ToolCall {
                id: format!("call_{:016x}_{index}", conversation.fingerprint),
                name: proposal.name.clone(),
                arguments: template::fill_value(&arguments, conversation).to_string(),
            }
        });
        calls.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EXAMPLE: &str = r#"
rules:
  - when: {turn: 0, user: disk}
    answer:
      toolCalls: [{name: disks, arguments: {path: "{{input}}", depth: 2}}]
  - when: {turn: 1, toolResult: full}
    answer: {text: "It is full.", paceMs: 5}
  - when: {attempt: 1}
    answer: {error: {status: 429, retryAfter: 1}}
  - answer: {text: "I know nothing."}
"#;

    fn answer(conversation: &Conversation) -> Reply {
        Transcript::parse(EXAMPLE)
            .unwrap()
            .answer(conversation)
            .unwrap()
            .clone()
    }

    #[test]
    fn the_first_rule_that_fits_answers() {
        let mut conversation = Conversation {
            input: "how full is my DISK".into(),
            attempt: 1,
            ..Conversation::default()
        };
        let calls = answer(&conversation).calls(&conversation);
        assert_eq!(
            calls[0].arguments,
            r#"{"path":"how full is my DISK","depth":2}"#
        );
        conversation.turn = 1;
        conversation.tool_results = vec!["Full".into()];
        assert_eq!(answer(&conversation).text, "It is full.");
        conversation.tool_results.clear();
        assert_eq!(answer(&conversation).error.unwrap().status, 429);
        conversation.attempt = 2;
        assert_eq!(answer(&conversation).text, "I know nothing.");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let check = |text: &str, expect: &str| {
            let error = Transcript::parse(text).unwrap_err();
            assert!(error.contains(expect), "{error}");
        };
        check("rules: []", "no rules");
        check("rules: [{answer: {}}]", "rules[0].answer: write text");
        check("rules: [{answer: {text: a, pace: 3}}]", "pace");
        check("rules: [{answer: {error: {status: 200}}}]", "400 to 599");
        check("rules: [{answer: {text: \"{{inptu}}\"}}]", "inptu");
        check("rules: {", "line");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,80}") {
            let _ = Transcript::parse(&text);
        }
    }
}
