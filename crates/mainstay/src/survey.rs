//! A look at a project: which language and framework, which interpreter, which variables it reads.
//!
//! Reads text and guesses; runs nothing of the project. What it finds is shown to a person, who
//! has the last word, so a wrong guess costs a line in a file.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const MAX_FILES: usize = 2000;
const MAX_FILE_BYTES: u64 = 256 * 1024;
const SKIPPED: [&str; 6] = [
    "node_modules",
    "__pycache__",
    "site-packages",
    "dist",
    "build",
    "target",
];
const ENVIRONMENTS: [&str; 3] = [".venv", "venv", "env"];
const ROOT_MARKS: [&str; 6] = [
    "pyproject.toml",
    "requirements.txt",
    "setup.py",
    "package.json",
    "uv.lock",
    ".git",
];
/// Set for every agent, so nobody needs to give them.
const GIVEN: [&str; 14] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "LANG",
    "TZ",
    "PYTHONHASHSEED",
    "PORT",
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_BASE_URL",
    "OPENAI_AGENTS_DISABLE_TRACING",
    "USER",
    "PWD",
];

/// What a project looks like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    pub root: PathBuf,
    pub frameworks: BTreeSet<&'static str>,
    /// The interpreter of a virtual environment.
    pub interpreter: Option<PathBuf>,
    pub variables: BTreeSet<String>,
    /// Models named in the code.
    pub models: BTreeSet<String>,
}

impl Survey {
    /// Looks at the project that this command belongs to.
    pub fn of(current: &Path, command: &[String]) -> Self {
        let named = command
            .iter()
            .map(|word| current.join(word))
            .find(|path| path.is_file() && is_code(path));
        let start = named.as_deref().and_then(Path::parent).unwrap_or(current);
        let mut survey = Self {
            root: root_of(start, current),
            ..Self::default()
        };
        survey.interpreter = interpreter(&survey.root);
        for file in files(&survey.root) {
            let Ok(text) = std::fs::read_to_string(&file) else {
                continue;
            };
            survey.read(&file, &text);
        }
        survey
    }

    fn read(&mut self, file: &Path, text: &str) {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        if is_code(file) {
            self.frameworks.extend(imported(text));
            self.variables
                .extend(variables(text).filter(|name| !is_given(name)));
            self.models.extend(models(text));
        } else if name == "package.json"
            || name == "pyproject.toml"
            || name.starts_with("requirements")
        {
            self.frameworks.extend(required(text));
        }
    }

    /// Which provider the code talks to, as far as it shows.
    pub fn provider(&self) -> &'static str {
        let anthropic = self.frameworks.contains("anthropic")
            || self.models.iter().any(|model| model.starts_with("claude"));
        if anthropic && !self.frameworks.contains("openai") {
            "anthropic"
        } else {
            "openai"
        }
    }
}

/// A secret by the look of its name.
pub fn looks_secret(name: &str) -> bool {
    ["KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL"]
        .iter()
        .any(|word| name.contains(word))
}

fn is_given(name: &str) -> bool {
    GIVEN.contains(&name) || name.starts_with("MAINSTAY_")
}

fn is_code(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("py" | "js" | "mjs" | "cjs" | "ts"))
}

/// The nearest directory that looks like a project's, not above where the person is.
fn root_of(start: &Path, current: &Path) -> PathBuf {
    let within = start
        .ancestors()
        .take_while(|directory| directory.starts_with(current));
    let marked = within
        .into_iter()
        .find(|directory| ROOT_MARKS.iter().any(|mark| directory.join(mark).exists()));
    marked.unwrap_or(start).to_owned()
}

fn interpreter(root: &Path) -> Option<PathBuf> {
    let candidates = ENVIRONMENTS
        .iter()
        .map(|name| root.join(name).join("bin/python"));
    candidates.into_iter().find(|path| path.exists())
}

fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        let mut entries: Vec<_> = std::fs::read_dir(&directory)
            .into_iter()
            .flatten()
            .flatten()
            .collect();
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.')
                || SKIPPED.contains(&name.as_str())
                || ENVIRONMENTS.contains(&name.as_str())
            {
                continue;
            }
            // Not followed: a link may lead anywhere.
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => open.push(entry.path()),
                Ok(metadata) if metadata.is_file() && metadata.len() <= MAX_FILE_BYTES => {
                    found.push(entry.path())
                }
                _ => {}
            }
            if found.len() >= MAX_FILES {
                return found;
            }
        }
    }
    found
}

/// Packages and what we call them: (Python requirement, npm package, import, name).
const FRAMEWORKS: [(&str, &str, &str, &str); 5] = [
    ("openai-agents", "@openai/agents", "agents", "openai-agents"),
    ("openai", "openai", "openai", "openai"),
    ("anthropic", "@anthropic-ai/sdk", "anthropic", "anthropic"),
    (
        "langgraph",
        "@langchain/langgraph",
        "langgraph",
        "langgraph",
    ),
    ("langchain", "langchain", "langchain", "langchain"),
];

/// Whole words that stand in a list of requirements.
fn required(text: &str) -> impl Iterator<Item = &'static str> {
    let words: BTreeSet<&str> = text
        .split(|c: char| !(c.is_ascii_alphanumeric() || "@/-_".contains(c)))
        .filter(|word| !word.is_empty())
        .collect();
    let found: Vec<&'static str> = FRAMEWORKS
        .iter()
        .filter(|(python, npm, ..)| words.contains(python) || words.contains(npm))
        .map(|(.., name)| *name)
        .collect();
    found.into_iter()
}

fn imported(text: &str) -> impl Iterator<Item = &'static str> {
    let found: Vec<&'static str> = FRAMEWORKS
        .iter()
        .filter(|(_, npm, import, _)| {
            text.lines()
                .any(|line| is_import(line.trim_start(), npm, import))
        })
        .map(|(.., name)| *name)
        .collect();
    found.into_iter()
}

fn is_import(line: &str, npm: &str, import: &str) -> bool {
    let python = ["import ", "from "].iter().any(|word| {
        let rest = line
            .strip_prefix(word)
            .and_then(|rest| rest.strip_prefix(import));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '.', ',']))
    });
    let node = [
        format!("from \"{npm}\""),
        format!("from '{npm}'"),
        format!("require(\"{npm}\")"),
        format!("require('{npm}')"),
    ];
    python || node.iter().any(|form| line.contains(form.as_str()))
}

/// Names read by `os.environ`, `os.getenv` and `process.env`.
fn variables(text: &str) -> impl Iterator<Item = String> {
    let forms = [
        "os.environ[",
        "os.environ.get(",
        "os.getenv(",
        "environ.get(",
        "getenv(",
        "process.env[",
        "process.env.",
    ];
    let mut found = BTreeSet::new();
    for form in forms {
        for (at, _) in text.match_indices(form) {
            let rest = text[at + form.len()..].trim_start_matches(['"', '\'', ' ']);
            let name: String = rest
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect();
            let shouted = name.len() > 1 && name.starts_with(|c: char| c.is_ascii_uppercase());
            if shouted && !name.contains(|c: char| c.is_ascii_lowercase()) {
                found.insert(name);
            }
        }
    }
    found.into_iter()
}

/// Quoted names that look like a model's.
fn models(text: &str) -> impl Iterator<Item = String> {
    let quoted = text.split(['"', '\'']).skip(1).step_by(2);
    let found: BTreeSet<String> = quoted
        .filter(|word| {
            ["gpt-", "claude-", "o3", "o4-"]
                .iter()
                .any(|prefix| word.starts_with(prefix))
        })
        .filter(|word| {
            word.len() < 64
                && word
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
        })
        .map(str::to_owned)
        .collect();
    found.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(found: impl Iterator<Item = String>) -> Vec<String> {
        found.collect()
    }

    #[test]
    fn variables_are_found_in_both_languages() {
        let text = "os.environ['DB_URL']; os.getenv(\"A_TOKEN\", 'x'); process.env.REGION; process.env[\"X1\"]; os.environ[name]";
        assert_eq!(
            names(variables(text)),
            ["A_TOKEN", "DB_URL", "REGION", "X1"]
        );
    }

    #[test]
    fn frameworks_are_whole_words() {
        assert_eq!(
            required("openai-agents==0.2\nrequests").collect::<Vec<_>>(),
            ["openai-agents"]
        );
        assert_eq!(
            required("{\"@anthropic-ai/sdk\": \"^1\"}").collect::<Vec<_>>(),
            ["anthropic"]
        );
        assert_eq!(
            imported("from agents import Agent\nimport openai_mock").collect::<Vec<_>>(),
            ["openai-agents"]
        );
        assert_eq!(
            imported("import OpenAI from \"openai\";").collect::<Vec<_>>(),
            ["openai"]
        );
    }

    #[test]
    fn models_are_quoted_names() {
        assert_eq!(
            names(models("model=\"gpt-5.1\", x='claude-sonnet-5' # gpt-4")),
            ["claude-sonnet-5", "gpt-5.1"]
        );
    }

    #[test]
    fn a_project_is_read_without_its_environment() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put(
            "bot/agent.py",
            "import anthropic, os\nos.environ['CITY']\nos.environ['OPENAI_API_KEY']",
        );
        put("bot/requirements.txt", "anthropic>=0.60");
        put("bot/.venv/bin/python", "");
        put("bot/.venv/lib/x.py", "os.environ['NOT_MINE']");
        let survey = Survey::of(dir.path(), &["python3".into(), "bot/agent.py".into()]);
        assert_eq!(survey.root, dir.path().join("bot"));
        assert_eq!(
            survey.interpreter,
            Some(dir.path().join("bot/.venv/bin/python"))
        );
        assert_eq!(survey.variables, BTreeSet::from(["CITY".to_owned()]));
        assert_eq!(survey.provider(), "anthropic");
    }
}
