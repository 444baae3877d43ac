//! YAML text to nodes that know their place.
//!
//! Built on the parser's events rather than on a ready-made tree, because a ready-made one drops the place of
//! keys and lets the last of two equal keys win in silence. Anchors, aliases and tags are refused: the schema
//! needs none, and aliases are how small files become large trees.

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

use super::problem::{Place, Problem};
use crate::limits::CONFIG_DEPTH_MAX;

/// A node and where it starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Where it starts.
    pub place: Place,
    /// What it holds.
    pub value: Value,
}

/// What a node holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// Text, number or word; the schema decides which.
    Scalar {
        /// The text.
        text: String,
        /// Whether it was written in quotes, which makes a number text.
        quoted: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// Keys and values in the order of the file.
    Map(Vec<(Key, Node)>),
}

/// A key and where it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Key {
    /// Where.
    pub place: Place,
    /// Its text.
    pub text: String,
}

impl Node {
    /// Whether the node is written but empty (`key:` with nothing after it, `~`, `null`).
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, quoted: false } if matches!(text.as_str(), "" | "~" | "null"))
    }

    /// What the node is, for messages.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.value {
            _ if self.is_null() => "nothing",
            Value::Scalar { .. } => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

/// A collection that is still open.
enum Open {
    List { place: Place, items: Vec<Node> },
    Map { place: Place, entries: Vec<(Key, Node)>, key: Option<Key> },
}

/// Parses one document. `None` when there is no usable tree; the problems then say why.
pub fn parse(text: &str, problems: &mut Vec<Problem>) -> Option<Node> {
    let mut builder = Builder { open: Vec::new(), root: None, documents: 0, problems };
    for event in Parser::new_from_str(text) {
        match event {
            Ok((event, span)) => builder.take(&event, place(&span.start))?,
            Err(error) => {
                builder.report(place(error.marker()), format!("not YAML: {}", error.info()));
                return None;
            }
        }
    }
    let start = Place { line: 1, column: 1 };
    if builder.root.is_none() {
        builder.report(start, "the file is empty; start from the commented example".to_owned());
    }
    builder.root
}

fn place(marker: &Marker) -> Place {
    Place { line: marker.line().max(1), column: marker.col() + 1 }
}

struct Builder<'a> {
    open: Vec<Open>,
    root: Option<Node>,
    documents: usize,
    problems: &'a mut Vec<Problem>,
}

impl Builder<'_> {
    fn report(&mut self, place: Place, text: String) {
        self.problems.push(Problem { place, text });
    }

    /// Takes one event in. `None` ends the parse.
    fn take(&mut self, event: &Event<'_>, place: Place) -> Option<()> {
        let tagged = |tag: bool, anchor: usize| tag || anchor != 0;
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            Event::DocumentStart(_) => {
                self.documents += 1;
                if 1 < self.documents {
                    self.report(
                        place,
                        "a second document; a node reads exactly one NodeConfig, remove the rest".to_owned(),
                    );
                    return None;
                }
            }
            Event::Alias(_) => {
                self.report(place, "aliases are not supported; write the value out".to_owned());
                self.close(Node { place, value: Value::Scalar { text: String::new(), quoted: false } });
            }
            Event::Scalar(text, style, anchor, tag) => {
                if tagged(tag.is_some(), *anchor) {
                    self.report(
                        place,
                        "anchors and tags are not supported; write the plain value".to_owned(),
                    );
                }
                let quoted = *style != ScalarStyle::Plain;
                self.close(Node { place, value: Value::Scalar { text: text.to_string(), quoted } });
            }
            Event::SequenceStart(anchor, tag) => {
                if tagged(tag.is_some(), *anchor) {
                    self.report(place, "anchors and tags are not supported; write the plain list".to_owned());
                }
                self.enter(Open::List { place, items: Vec::new() }, place)?;
            }
            Event::MappingStart(anchor, tag) => {
                if tagged(tag.is_some(), *anchor) {
                    self.report(
                        place,
                        "anchors and tags are not supported; write the plain mapping".to_owned(),
                    );
                }
                self.enter(Open::Map { place, entries: Vec::new(), key: None }, place)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let node = match self.open.pop()? {
                    Open::List { place, items } => Node { place, value: Value::List(items) },
                    Open::Map { place, entries, .. } => Node { place, value: Value::Map(entries) },
                };
                self.close(node);
            }
        }
        Some(())
    }

    fn enter(&mut self, open: Open, place: Place) -> Option<()> {
        if CONFIG_DEPTH_MAX <= self.open.len() {
            self.report(
                place,
                format!("nested deeper than {CONFIG_DEPTH_MAX} levels; the schema needs seven"),
            );
            return None;
        }
        self.open.push(open);
        Some(())
    }

    /// Puts a finished node where it belongs.
    fn close(&mut self, node: Node) {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { entries, key, .. }) => match key.take() {
                Some(key) => entries.push((key, node)),
                None => match node {
                    Node { place, value: Value::Scalar { text, .. } } => {
                        let first = entries.iter().find(|(known, _)| known.text == text);
                        if let Some((first, _)) = first {
                            let line = first.place.line;
                            let text = format!("`{text}` is written twice (first in line {line}); keep one");
                            self.problems.push(Problem { place, text });
                        }
                        *key = Some(Key { place, text });
                    }
                    Node { place, .. } => {
                        let text = "a key must be a single word".to_owned();
                        self.problems.push(Problem { place, text });
                        *key = Some(Key { place, text: String::new() });
                    }
                },
            },
        }
    }
}
