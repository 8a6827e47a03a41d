//! OpenAI Chat Completions, both sides. The wire format is OpenAI's API reference; the fields that open models add
//! (`reasoning_content`) and that carry foreign reasoning through this dialect (`thinking_blocks`, as LiteLLM has it)
//! are named where they are read and written.

pub(crate) mod parse_request;
pub(crate) mod read_answer;
pub(crate) mod render_request;
pub(crate) mod write_answer;
