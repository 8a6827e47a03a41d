//! `mainstay new agent`: a manifest to begin with, made from a look at the project.
//!
//! Writes one file and nothing else, and never over another. What it guessed it says on standard
//! error, so that a wrong guess is seen.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use api::{Document, Kind};

use crate::exit::{Exit, Failure, Outcome};
use crate::output::line;
use crate::survey::{Survey, looks_secret};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  mainstay new agent helper\n  mainstay new agent researcher -- python3 research/agent.py"
)]
pub struct NewArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// An agent: with a command its process, without one the built-in loop
    #[command(
        after_help = "Example:\n  mainstay new agent researcher -- python3 research/agent.py"
    )]
    Agent {
        name: String,
        /// How the agent is started, after `--`
        #[arg(last = true)]
        command: Vec<String>,
    },
}

pub fn new(args: NewArgs) -> Outcome {
    let What::Agent { name, command } = args.what;
    let current = std::env::current_dir()
        .map_err(|error| Failure::usage("there is no current directory").because(error))?;
    let survey = (!command.is_empty()).then(|| Survey::of(&current, &command));
    let taken = names_in(&current);
    let text = manifest(&name, &command, survey.as_ref(), &current, &taken);
    let path = current.join(format!("{name}.yaml"));
    let shown = format!("{name}.yaml");
    api::parse(&[Document::named(&shown, &text)])
        .map_err(|problems| Failure::usage(problems.to_string()))?;
    if taken.contains(&(Kind::Agent, name.clone())) {
        return Err(
            Failure::usage(format!("a manifest here has an agent `{name}` already"))
                .with_hint("choose another name"),
        );
    }
    write(&path, &text)?;
    tell(survey.as_ref(), &command);
    for word in missing(&current, &command) {
        eprintln!("warning: {word} is not there; write it before you start the fleet");
    }
    line(&shown)?;
    eprintln!("next: mainstay up {shown}, then: mainstay run {name} 'hello'");
    Ok(Exit::Done)
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| {
        let failure = Failure::usage(format!("failed to write {}", path.display()));
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                failure.with_hint("it is there already; remove it or choose another name")
            }
            _ => failure.because(error),
        }
    })
}

/// Objects of the manifests that lie here.
fn names_in(directory: &Path) -> BTreeSet<(Kind, String)> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_manifest = path
            .extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml");
        let Some(text) = is_manifest
            .then(|| std::fs::read_to_string(&path).ok())
            .flatten()
        else {
            continue;
        };
        if let Ok(objects) = api::parse(&[Document::found(path.display().to_string(), text)]) {
            names.extend(
                objects
                    .iter()
                    .map(|object| (object.kind(), object.name().to_owned())),
            );
        }
    }
    names
}

fn manifest(
    name: &str,
    command: &[String],
    survey: Option<&Survey>,
    current: &Path,
    taken: &BTreeSet<(Kind, String)>,
) -> String {
    let provider = survey.map_or("openai", Survey::provider);
    let (variable, default_model) = match provider {
        "anthropic" => ("ANTHROPIC_API_KEY", "claude-sonnet-5"),
        _ => ("OPENAI_API_KEY", "gpt-5.1"),
    };
    let prefix = if provider == "anthropic" {
        "claude"
    } else {
        ""
    };
    let named = survey.and_then(|survey| {
        survey.models.iter().find(|model| {
            model.starts_with(prefix) && (provider == "anthropic" || !model.starts_with("claude"))
        })
    });
    let model = named.map_or(default_model, String::as_str);
    let mut text = String::new();
    if !taken.contains(&(Kind::Provider, provider.to_owned())) {
        let _infallible = write!(
            text,
            "apiVersion: {version}\nkind: Provider\nmetadata: {{name: {provider}}}\nspec:\n  \
             # Read where `mainstay up` is started; the agent never sees it. Or: secretRef: {{name: …, key: …}}\n  \
             credential: {{env: {variable}}}\n---\n",
            version = api::API_VERSION,
        );
    }
    let _infallible = write!(
        text,
        "apiVersion: {version}\nkind: Agent\nmetadata: {{name: {name}}}\nspec:\n  models: [{provider}/{model}]\n",
        version = api::API_VERSION,
        name = scalar(name),
    );
    match survey {
        None => text.push_str("  instructions: You answer in one sentence.\n"),
        Some(survey) => text.push_str(&process(command, survey, current)),
    }
    text.push_str(
        "  # A call beyond these is refused.\n  budget: {task: {steps: 200, time: 1h}}\n",
    );
    text
}

/// The part about the agent's own process.
fn process(command: &[String], survey: &Survey, current: &Path) -> String {
    let mut text = String::new();
    let source = survey.root.strip_prefix(current).unwrap_or(Path::new(""));
    let source = if source.as_os_str().is_empty() {
        PathBuf::from(".")
    } else {
        Path::new(".").join(source)
    };
    let words: Vec<String> = command
        .iter()
        .enumerate()
        .map(|(index, word)| scalar(&resettled(index, word, survey, current)))
        .collect();
    let _infallible = write!(
        text,
        "  source: {}\n  runtime:\n    exec: {{command: [{}]}}\n",
        scalar(&source.display().to_string()),
        words.join(", ")
    );
    let (secrets, plain): (Vec<&String>, Vec<&String>) =
        survey.variables.iter().partition(|name| looks_secret(name));
    if !plain.is_empty() {
        text.push_str("  # The code reads these; nothing is inherited.\n  # env:\n");
        for name in plain {
            let _infallible = writeln!(text, "  #   {name}: …");
        }
    }
    if !secrets.is_empty() {
        text.push_str("  # The code reads these; after `mainstay secret set NAME/KEY` (the agent can then read them):\n  # secretEnv:\n");
        for name in secrets {
            let secret = name.to_ascii_lowercase().replace('_', "-");
            let _infallible = writeln!(
                text,
                "  #   {name}: {{secretRef: {{name: {secret}, key: value}}}}"
            );
        }
    }
    text
}

/// Words of the command that are paths to something, but there is nothing.
fn missing<'a>(current: &Path, command: &'a [String]) -> Vec<&'a str> {
    let is_path = |word: &str| {
        let is_code = Path::new(word)
            .extension()
            .and_then(|extension| extension.to_str())
            .is_some_and(|extension| ["py", "js", "mjs", "ts", "sh"].contains(&extension));
        !word.starts_with('-') && !word.contains("://") && (word.contains('/') || is_code)
    };
    let words = command.iter().map(String::as_str);
    words
        .filter(|word| is_path(word) && !current.join(word).exists())
        .collect()
}

/// The interpreter of the project's environment, and paths as seen from the source.
fn resettled(index: usize, word: &str, survey: &Survey, current: &Path) -> String {
    let is_python = index == 0 && (word == "python" || word == "python3");
    if let Some(interpreter) = survey.interpreter.as_ref().filter(|_| is_python) {
        return interpreter.display().to_string();
    }
    let path = current.join(word);
    match path.strip_prefix(&survey.root) {
        Ok(inside) if path.exists() && !word.is_empty() && !inside.as_os_str().is_empty() => {
            let inside = inside.display().to_string();
            // A program needs a slash, or it would be looked up in PATH.
            if index == 0 {
                format!("./{inside}")
            } else {
                inside
            }
        }
        _ => word.to_owned(),
    }
}

/// A YAML scalar: quoted unless it is plain beyond doubt.
fn scalar(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '.' || c == '/')
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c))
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
            .contains(&text.to_ascii_lowercase().as_str());
    if plain {
        text.to_owned()
    } else {
        serde_json::Value::from(text).to_string()
    }
}

fn tell(survey: Option<&Survey>, command: &[String]) {
    let Some(survey) = survey else {
        eprintln!("no command: the built-in loop, with a model and instructions of yours");
        return;
    };
    let list = |names: Vec<String>| {
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        }
    };
    eprintln!("project     {}", survey.root.display());
    eprintln!(
        "framework   {}",
        list(
            survey
                .frameworks
                .iter()
                .map(|name| (*name).to_owned())
                .collect()
        )
    );
    match &survey.interpreter {
        Some(interpreter) => eprintln!("environment {}", interpreter.display()),
        None if command
            .first()
            .is_some_and(|word| word.starts_with("python")) =>
        {
            eprintln!(
                "environment none found: the system's {}",
                command.first().map_or("python3", String::as_str)
            );
        }
        None => {}
    }
    eprintln!(
        "reads       {}",
        list(survey.variables.iter().cloned().collect())
    );
    eprintln!(
        "models      {}",
        list(survey.models.iter().cloned().collect())
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_manifest_it_writes_is_right() {
        let survey = Survey {
            root: "/p/bot".into(),
            frameworks: BTreeSet::from(["anthropic"]),
            interpreter: Some("/p/bot/.venv/bin/python".into()),
            variables: BTreeSet::from(["CITY".to_owned(), "A_TOKEN".to_owned()]),
            models: BTreeSet::from(["claude-sonnet-5".to_owned()]),
        };
        let command = [
            "python3".to_owned(),
            "agent.py".to_owned(),
            "--say: #x".to_owned(),
        ];
        for survey in [None, Some(&survey)] {
            let text = manifest("bot", &command, survey, Path::new("/p"), &BTreeSet::new());
            let objects = api::parse(&[Document::named("bot.yaml", &text)])
                .unwrap_or_else(|e| panic!("{e}\n{text}"));
            assert_eq!(objects.len(), 2);
        }
    }

    #[test]
    fn a_provider_that_is_there_is_not_written_again() {
        let taken = BTreeSet::from([(Kind::Provider, "openai".to_owned())]);
        assert!(!manifest("a", &[], None, Path::new("/p"), &taken).contains("Provider"));
    }
}
