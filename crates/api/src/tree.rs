//! YAML (and with it JSON) as a tree in which every key and value knows its place.
//!
//! Types are not guessed here: a plain scalar stays text until something knows what it should be, so `1.10` is still
//! `1.10` where a version is wanted. Bounded in size, depth and alias expansion, so a small file can't become a large tree.

use crate::file::{File, Mark};
use crate::problem::{Problem, quoted};
use granit_parser::{ErrorKind, Event, Parser, ScanError, Span, Tag};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// A value and where it is.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) mark: Mark,
    pub(crate) content: Content,
}

#[derive(Debug, Clone)]
pub(crate) enum Content {
    Scalar { text: String, plain: bool },
    Sequence(Vec<Node>),
    Mapping(Vec<(Key, Node)>),
}

#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) text: String,
    pub(crate) mark: Mark,
}

/// What could be read of a file.
pub(crate) struct Tree {
    pub(crate) documents: Vec<Node>,
    pub(crate) problems: Vec<Problem>,
    /// False if reading stopped before the end.
    pub(crate) complete: bool,
}

/// Longer files are refused.
pub(crate) const LARGEST_FILE_BYTES: usize = 4 << 20;
const MOST_NODES: usize = 100_000;
/// So many lists and mappings, one in another, and no more.
pub(crate) const DEEPEST: usize = 64;
/// A file with more is not read on.
pub(crate) const MOST_PROBLEMS: usize = 100;

impl Node {
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.content, Content::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The value of a key of a mapping.
    pub(crate) fn get(&self, name: &str) -> Option<&Node> {
        match &self.content {
            Content::Mapping(pairs) => pairs
                .iter()
                .find(|(key, _)| key.text == name)
                .map(|(_, node)| node),
            _ => None,
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar { text, .. } if !self.is_null() => Some(text),
            _ => None,
        }
    }
}

/// Reads all documents of a file, up to the first syntax error.
pub(crate) fn read(file: &File, text: &str) -> Tree {
    let mut options =
        granit_parser::options! { flow_nesting_limit: DEEPEST, block_nesting_limit: DEEPEST };
    options.set_emit_comments(false);
    let mut builder = Builder::new(file);
    let mut complete = true;
    for event in Parser::new_from_str_with_options(text, options) {
        let step = match event {
            Ok((event, span)) => builder.event(event, span),
            Err(error) => {
                let mark = Mark {
                    line: error.marker().line(),
                    column: error.marker().col() + 1,
                    length: 1,
                };
                Err(file.problem(mark, unreadable(&error)))
            }
        };
        if let Err(problem) = step {
            builder.problems.push(problem);
            complete = false;
            break;
        }
    }
    Tree {
        documents: builder.documents,
        problems: builder.problems,
        complete,
    }
}

fn unreadable(error: &ScanError) -> String {
    match error.kind() {
        ErrorKind::RecursionLimitExceeded => too_deep(),
        _ => format!("this is not YAML: {}", error.info()),
    }
}

fn too_deep() -> String {
    format!("nested deeper than {DEEPEST} levels")
}

/// A collection that is still open.
struct Open {
    mark: Mark,
    anchor: usize,
    /// How many nodes there were before it.
    nodes_before: usize,
    items: Vec<Node>,
    pairs: Vec<(Key, Node)>,
    names: BTreeSet<String>,
    key: Option<Key>,
    is_mapping: bool,
}

struct Builder<'a> {
    file: &'a File,
    open: Vec<Open>,
    anchors: BTreeMap<usize, (Node, usize)>,
    nodes: usize,
    documents: Vec<Node>,
    problems: Vec<Problem>,
}

impl<'a> Builder<'a> {
    fn new(file: &'a File) -> Self {
        Self {
            file,
            open: Vec::new(),
            anchors: BTreeMap::new(),
            nodes: 0,
            documents: Vec::new(),
            problems: Vec::new(),
        }
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Problem> {
        let mark = mark_of(span);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_text = self.tag(tag, mark)?;
                let plain = matches!(style, granit_parser::ScalarStyle::Plain) && !is_text;
                let node = Node {
                    mark,
                    content: Content::Scalar {
                        text: text.into_owned(),
                        plain,
                    },
                };
                self.add(node, anchor, 1)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.tag(tag, mark).map(|_| self.start(mark, anchor, false))
            }
            Event::MappingStart(_, anchor, tag) => {
                self.tag(tag, mark).map(|_| self.start(mark, anchor, true))
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(span),
            Event::Alias(anchor) => self.alias(anchor, mark),
            _ => Ok(()),
        }
    }

    /// Whether the tag asks for text. Tags of one's own have no meaning here.
    fn tag(&self, tag: Option<Cow<'_, Tag>>, mark: Mark) -> Result<bool, Problem> {
        match tag
            .as_deref()
            .map(|tag| (tag.core_suffix().map(str::to_owned), tag.original()))
        {
            None => Ok(false),
            Some((Some(suffix), _)) => Ok(suffix == "str"),
            Some((None, tag)) => Err(self.file.problem(
                mark,
                format!("the tag {} has no meaning here", quoted(&tag)),
            )),
        }
    }

    fn start(&mut self, mark: Mark, anchor: usize, is_mapping: bool) {
        self.open.push(Open {
            mark,
            anchor,
            nodes_before: self.nodes,
            items: Vec::new(),
            pairs: Vec::new(),
            names: BTreeSet::new(),
            key: None,
            is_mapping,
        });
    }

    fn end(&mut self, span: Span) -> Result<(), Problem> {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        let same_line = span.end.line() == open.mark.line;
        let length = if same_line {
            (span.end.col() + 1).saturating_sub(open.mark.column)
        } else {
            usize::MAX
        };
        let mark = Mark {
            length: length.max(1),
            ..open.mark
        };
        let content = if open.is_mapping {
            Content::Mapping(open.pairs)
        } else {
            Content::Sequence(open.items)
        };
        let size = self.nodes - open.nodes_before + 1;
        self.add(Node { mark, content }, open.anchor, size)
    }

    fn alias(&mut self, anchor: usize, mark: Mark) -> Result<(), Problem> {
        let Some((node, size)) = self.anchors.get(&anchor) else {
            return Err(self
                .file
                .problem(mark, "this alias stands inside what it names"));
        };
        let size = *size;
        self.check_bound(size, mark)?;
        let depth = self.open.len() + depth(node);
        if depth > DEEPEST {
            return Err(self.file.problem(mark, too_deep()));
        }
        let node = Node {
            mark,
            content: node.content.clone(),
        };
        self.nodes += size - 1;
        self.add(node, 0, size)
    }

    fn check_bound(&self, more: usize, mark: Mark) -> Result<(), Problem> {
        if self.nodes + more > MOST_NODES {
            return Err(self.file.problem(
                mark,
                format!("the file has more than {MOST_NODES} values, aliases included"),
            ));
        }
        Ok(())
    }

    /// Puts a complete node where it belongs: a key, a value, an item, or a document.
    fn add(&mut self, node: Node, anchor: usize, size: usize) -> Result<(), Problem> {
        self.check_bound(1, node.mark)?;
        self.nodes += 1;
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), size));
        }
        let Some(open) = self.open.last_mut() else {
            self.documents.push(node);
            return Ok(());
        };
        if !open.is_mapping {
            open.items.push(node);
        } else if let Some(key) = open.key.take() {
            if open.names.insert(key.text.clone()) {
                open.pairs.push((key, node));
            } else {
                let first = open.pairs.iter().find(|(other, _)| other.text == key.text);
                let place =
                    first.map_or_else(String::new, |(other, _)| self.file.place(other.mark));
                let message = format!(
                    "{} is written twice in one mapping; the first is at {place}",
                    quoted(&key.text)
                );
                self.problems.push(self.file.problem(key.mark, message));
                if self.problems.len() == MOST_PROBLEMS {
                    return Err(self.file.problem(key.mark, "too many problems to go on"));
                }
            }
        } else if let Content::Scalar { text, .. } = node.content {
            open.key = Some(Key {
                text,
                mark: node.mark,
            });
        } else {
            return Err(self.file.problem(node.mark, "a key must be plain text"));
        }
        Ok(())
    }
}

fn depth(node: &Node) -> usize {
    match &node.content {
        Content::Scalar { .. } => 0,
        Content::Sequence(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Content::Mapping(pairs) => 1 + pairs.iter().map(|(_, node)| depth(node)).max().unwrap_or(0),
    }
}

fn mark_of(span: Span) -> Mark {
    let same_line = span.end.line() == span.start.line();
    let length = if same_line {
        span.end.col().saturating_sub(span.start.col()).max(1)
    } else {
        usize::MAX
    };
    Mark {
        line: span.start.line(),
        column: span.start.col() + 1,
        length,
    }
}
