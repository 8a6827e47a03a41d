//! How data is printed: JSON, YAML, or columns for a person; colour on a terminal only.
//!
//! Text that agents, tools or providers wrote goes through [`printable`] before it may reach a
//! terminal: escape sequences would let it move the cursor, set the title or fake our own lines.

use std::io::{IsTerminal, Write};

use serde_json::Value;

use crate::exit::{Exit, Failure};

/// `-o`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Json,
    Yaml,
    Table,
    /// A table with more columns.
    Wide,
}

/// The `-o` option, where a command prints data.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct OutputArgs {
    /// How to print what comes back
    #[arg(short = 'o', long = "output", value_name = "FORMAT")]
    format: Option<Format>,
}

impl OutputArgs {
    pub fn format(self) -> Format {
        self.format.unwrap_or(Format::Table)
    }

    /// Whether the caller wants data rather than a view.
    pub fn is_data(self) -> bool {
        matches!(self.format, Some(Format::Json | Format::Yaml))
    }

    pub fn is_wide(self) -> bool {
        self.format == Some(Format::Wide)
    }
}

/// Prints a value as data, or else what `view` makes of it.
pub fn print(
    output: OutputArgs,
    value: &Value,
    view: impl FnOnce(&Value) -> String,
) -> Result<(), Failure> {
    match output.format() {
        Format::Json => line(&pretty(value)),
        Format::Yaml => {
            let text = serde_saphyr::to_string(value).map_err(|error| {
                Failure::new(Exit::Failed, "failed to write YAML").because(error)
            })?;
            write_out(text.as_bytes())
        }
        Format::Table | Format::Wide => write_out(view(value).as_bytes()),
    }
}

pub fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())
}

/// One line of data.
pub fn line(text: &str) -> Result<(), Failure> {
    write_out(format!("{text}\n").as_bytes())
}

/// Data to standard output. A reader that went away (`| head`) ends the command quietly.
pub fn write_out(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            Err(Failure::new(Exit::Failed, "failed to write to standard output").because(error))
        }
    }
}

/// A terminal that wants colour is at the other end of standard output.
pub fn is_coloured() -> bool {
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    wanted
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
        && std::io::stdout().is_terminal()
}

/// Without anything that drives a terminal. Line ends and tabs stay.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c == '\n' || c == '\t' || is_plain(c) {
                c
            } else {
                '\u{b7}'
            }
        })
        .collect()
}

fn is_plain(character: char) -> bool {
    !character.is_control()
        && !matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text of others: as it is into a file or pipe, made safe for a terminal.
pub fn for_terminal(text: &str) -> String {
    if std::io::stdout().is_terminal() {
        printable(text)
    } else {
        text.to_owned()
    }
}

/// Columns aligned with spaces. Cells are cut, made printable, and the state is coloured.
#[derive(Debug)]
pub struct Columns {
    heads: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    coloured: bool,
    widest_cell: usize,
}

const WIDEST_CELL: usize = 60;

impl Columns {
    pub fn new(heads: &[&'static str]) -> Self {
        Self {
            heads: heads.to_vec(),
            rows: Vec::new(),
            coloured: is_coloured(),
            widest_cell: WIDEST_CELL,
        }
    }

    /// For columns that hold sentences.
    pub fn with_widest_cell(mut self, characters: usize) -> Self {
        self.widest_cell = characters;
        self
    }

    pub fn row(&mut self, cells: Vec<String>) {
        let cells = cells.into_iter().take(self.heads.len());
        self.rows.push(
            cells
                .map(|cell| {
                    cut(
                        &printable(&cell).replace(['\n', '\t'], " "),
                        self.widest_cell,
                    )
                })
                .collect(),
        );
    }

    pub fn render(&self) -> String {
        let width = |column: usize| {
            let cells = self
                .rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count());
            cells.chain([self.heads[column].len()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.heads.len()).map(width).collect();
        let heads: Vec<String> = self.heads.iter().map(|head| (*head).to_owned()).collect();
        let mut text = self.line(&heads, &widths, false);
        for row in &self.rows {
            text.push_str(&self.line(row, &widths, self.coloured));
        }
        text
    }

    fn line(&self, cells: &[String], widths: &[usize], coloured: bool) -> String {
        let mut line = String::new();
        for (index, cell) in cells.iter().enumerate() {
            let pad = widths[index].saturating_sub(cell.chars().count());
            if coloured && self.heads[index] == "STATE" {
                line.push_str(&tinted(cell));
            } else {
                line.push_str(cell);
            }
            if index + 1 < cells.len() {
                line.push_str(&" ".repeat(pad + 2));
            }
        }
        format!("{}\n", line.trim_end())
    }
}

fn cut(text: &str, widest: usize) -> String {
    if text.chars().count() <= widest {
        return text.to_owned();
    }
    text.chars().take(widest - 1).chain(['…']).collect()
}

/// A state word in the colour it deserves.
pub fn tinted(state: &str) -> String {
    let colour = match state {
        "completed" | "ready" | "finished" | "running" | "ok" => "32",
        "failed" | "rejected" | "crashed" => "31",
        "input-required" | "auth-required" | "unknown" | "held" | "stopped" | "warn" => "33",
        _ => return state.to_owned(),
    };
    format!("\u{1b}[{colour}m{state}\u{1b}[0m")
}

/// A field as a cell: text bare, nothing as `-`, anything else as JSON.
pub fn cell(value: &Value, field: &str) -> String {
    match value.get(field) {
        None | Some(Value::Null) => "-".into(),
        Some(Value::String(text)) if text.is_empty() => "-".into(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) if items.iter().all(Value::is_string) => items
            .iter()
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join(","),
        Some(other) => other.to_string(),
    }
}

/// Dollars, or that they are not known.
pub fn dollars(value: &Value) -> String {
    match value.pointer("/cost/usd").and_then(Value::as_f64) {
        Some(usd) => format!("${usd:.4}"),
        None => "unknown".into(),
    }
}

/// Every field on a line of its own, nested ones indented.
pub fn described(value: &Value) -> String {
    let mut text = String::new();
    describe(&mut text, value, 0);
    text
}

fn describe(text: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                if is_nested(field) {
                    text.push_str(&format!("{indent}{name}:\n"));
                    describe(text, field, depth + 1);
                } else {
                    text.push_str(&format!(
                        "{indent}{name}: {}\n",
                        block(&cell(value, name), &indent)
                    ));
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                let mut inner = String::new();
                describe(&mut inner, item, depth + 1);
                text.push_str(&format!("{indent}- {}", inner.trim_start()));
            }
        }
        other => text.push_str(&format!("{indent}{}\n", plain(other))),
    }
}

fn is_nested(value: &Value) -> bool {
    match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => items.iter().any(|item| item.is_object() || item.is_array()),
        _ => false,
    }
}

fn block(text: &str, indent: &str) -> String {
    printable(text).replace('\n', &format!("\n{indent}  "))
}

/// A string bare, anything else as JSON.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut columns = Columns {
            coloured: false,
            ..Columns::new(&["NAME", "STATE"])
        };
        columns.row(vec!["a".into(), "ready".into()]);
        columns.row(vec!["longer".into(), "stopped".into()]);
        assert_eq!(
            columns.render(),
            "NAME    STATE\na       ready\nlonger  stopped\n"
        );
    }

    #[test]
    fn text_of_others_cannot_drive_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\u{202e}\n\r"), "a·[2Jb·\n·");
        let mut columns = Columns {
            coloured: false,
            ..Columns::new(&["A"])
        };
        columns.row(vec!["x\n\u{7}y".into()]);
        assert_eq!(columns.render(), "A\nx ·y\n");
    }

    #[test]
    fn a_description_nests_by_indentation() {
        let value =
            json!({"a": 1, "b": {"c": "x"}, "d": ["p", "q"], "e": null, "f": [{"g": 1, "h": 2}]});
        assert_eq!(
            described(&value),
            "a: 1\nb:\n  c: x\nd: p,q\ne: -\nf:\n  - g: 1\n    h: 2\n"
        );
    }
}
