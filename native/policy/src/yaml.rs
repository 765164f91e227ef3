//! YAML events to a tree of nodes with positions.
//!
//! The tree is a subset of YAML that cannot surprise: text keys, each once; no anchors, aliases, tags or directives.
//! Plain scalars follow the core schema of YAML 1.2, where `on` and `no` are text.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span};

use crate::diagnostic::{Findings, Place, Reported};
use crate::scalar;

/// How deep lists and mappings may be nested.
pub const MAX_DEPTH: usize = 32;

/// A value and where it stands.
#[derive(Debug)]
pub(crate) struct Node {
    pub place: Place,
    pub value: Value,
}

#[derive(Debug)]
pub(crate) enum Value {
    Null,
    /// As written: no supported field takes one, so only messages need it.
    Bool(String),
    Number(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Field>),
    /// Something that was already reported.
    Refused(Reported),
}

impl Value {
    /// What messages call it.
    pub fn describe(&self) -> &'static str {
        match self {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
            Value::Refused(_) => "something that is not allowed",
        }
    }

    /// The text of a scalar, for messages.
    pub fn text(&self) -> &str {
        match self {
            Value::Bool(text) | Value::Number(text) | Value::Text(text) => text,
            Value::Null | Value::List(_) | Value::Map(_) | Value::Refused(_) => "",
        }
    }
}

/// One entry of a mapping.
#[derive(Debug)]
pub(crate) struct Field {
    pub key: String,
    pub place: Place,
    pub value: Node,
}

/// The documents of a text, as far as they can be read; what is wrong is reported.
pub(crate) fn parse(text: &str, findings: &mut Findings) -> Vec<Node> {
    let lines: Vec<&str> = text.split('\n').collect();
    let mut parser = Parser::new_from_str(text);
    let mut builder = Builder { stack: Vec::new(), root: None, end: end_of(&lines), findings };
    let mut documents = Vec::new();
    let mut between_from = 0;
    while let Some(result) = parser.next_event() {
        let (event, span) = match result {
            Ok(event) => event,
            Err(error) => {
                let place = builder.place(error.marker());
                builder.findings.report(place, "", syntax_message(error.info()));
                return documents;
            }
        };
        let proceed = match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd => true,
            Event::DocumentStart(_) => {
                let between = lines.get(between_from..span.start.line().saturating_sub(1)).unwrap_or_default();
                builder.refuse_directives(between, between_from);
                true
            }
            Event::DocumentEnd => {
                between_from = span.start.line().saturating_sub(1);
                documents.extend(builder.root.take());
                true
            }
            Event::Alias(_) => builder.alias(span),
            Event::Scalar(text, style, anchor, tag) => builder.scalar(&text, style, anchor, tag.is_some(), span),
            Event::SequenceStart(anchor, tag) => {
                builder.open(Collection::List(Vec::new()), anchor, tag.is_some(), span)
            }
            Event::MappingStart(anchor, tag) => {
                builder.open(Collection::Map(Mapping::default()), anchor, tag.is_some(), span)
            }
            Event::SequenceEnd | Event::MappingEnd => builder.close(),
        };
        if !proceed {
            return documents;
        }
    }
    if builder.root.is_some() || !builder.stack.is_empty() {
        builder.findings.report(builder.end, "", UNBALANCED);
    }
    documents
}

/// The end of the last line that is not blank.
fn end_of(lines: &[&str]) -> Place {
    let last = lines.iter().enumerate().rev().find(|(_, line)| !line.trim().is_empty());
    last.map_or(Place::START, |(index, line)| Place { line: index + 1, column: line.trim_end().chars().count() + 1 })
}

/// The parser's words where they are plain; ours where they name its inner workings.
fn syntax_message(info: &str) -> String {
    match info {
        "while parsing node, found unknown anchor" => ALIAS.to_owned(),
        "recursion limit exceeded" => too_deep(),
        _ => format!("not valid YAML: {info}"),
    }
}

const ALIAS: &str = "aliases (`*name`) are not allowed here; write the value out";
const ANCHOR: &str = "anchors (`&name`) are not allowed here; remove it";
const TAG: &str = "tags (`!name`) are not allowed here; remove it";
const UNBALANCED: &str = "not valid YAML: a list or mapping does not end where it should";
const DIRECTIVE: &str = "directives are not allowed here; remove this line";

fn too_deep() -> String {
    format!("lists and mappings are nested deeper than {MAX_DEPTH}")
}

/// A list or mapping that is being read.
struct Frame {
    place: Place,
    collection: Collection,
}

enum Collection {
    List(Vec<Node>),
    Map(Mapping),
}

#[derive(Default)]
struct Mapping {
    fields: Vec<Field>,
    seen: HashMap<String, Place>,
    key: Key,
}

/// The key whose value comes next.
#[derive(Default)]
enum Key {
    #[default]
    None,
    Text(String, Place),
    Refused,
}

struct Builder<'f> {
    stack: Vec<Frame>,
    root: Option<Node>,
    end: Place,
    findings: &'f mut Findings,
}

// The event handlers say whether to go on.
impl Builder<'_> {
    /// Where the marker stands; the parser points behind the text when something is missing at its end.
    fn place(&self, marker: &Marker) -> Place {
        let place = Place { line: marker.line().max(1), column: marker.col() + 1 };
        if place.line > self.end.line { self.end } else { place }
    }

    /// The parser reads directives and does not show them; between documents, only they begin with `%`.
    fn refuse_directives(&mut self, lines: &[&str], first_index: usize) {
        for (index, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with('%')) {
            let place = Place { line: first_index + index + 1, column: 1 };
            self.findings.report(place, line.trim_end(), DIRECTIVE);
        }
    }

    fn alias(&mut self, span: Span) -> bool {
        let place = self.place(&span.start);
        let reported = self.findings.report(place, "", ALIAS);
        self.attach(Node { place, value: Value::Refused(reported) });
        true
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, anchor: usize, tagged: bool, span: Span) -> bool {
        let place = self.place(&span.start);
        let tag = self.refuse_properties(place, text, anchor, tagged);
        let control = text.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t'));
        let value = match (tag, control) {
            (Some(reported), _) => Value::Refused(reported),
            (None, Some(control)) => {
                let message = format!("the character U+{:04X} is not allowed here", u32::from(control));
                Value::Refused(self.findings.report(place, text, message))
            }
            (None, None) if style == ScalarStyle::Plain => scalar::plain(text),
            (None, None) => Value::Text(text.to_owned()),
        };
        self.attach(Node { place, value });
        true
    }

    fn open(&mut self, collection: Collection, anchor: usize, tagged: bool, span: Span) -> bool {
        let place = self.place(&span.start);
        self.refuse_properties(place, "", anchor, tagged);
        if self.stack.len() >= MAX_DEPTH {
            self.findings.report(place, "", too_deep());
            return false;
        }
        self.stack.push(Frame { place, collection });
        true
    }

    fn close(&mut self) -> bool {
        let Some(Frame { place, collection }) = self.stack.pop() else {
            self.findings.report(self.end, "", UNBALANCED);
            return false;
        };
        let value = match collection {
            Collection::List(items) => Value::List(items),
            Collection::Map(mapping) => Value::Map(mapping.fields),
        };
        self.attach(Node { place, value });
        true
    }

    /// What it returns makes a scalar's value meaningless: a tag could change its type.
    fn refuse_properties(&mut self, place: Place, text: &str, anchor: usize, tagged: bool) -> Option<Reported> {
        if anchor != 0 {
            self.findings.report(place, text, ANCHOR);
        }
        tagged.then(|| self.findings.report(place, text, TAG))
    }

    /// Puts a finished node where it belongs: a list's next item, a mapping's next key or value, or the document.
    fn attach(&mut self, node: Node) {
        let mapping = match self.stack.last_mut().map(|frame| &mut frame.collection) {
            None => {
                self.root = Some(node);
                return;
            }
            Some(Collection::List(items)) => {
                items.push(node);
                return;
            }
            Some(Collection::Map(mapping)) => mapping,
        };
        match std::mem::take(&mut mapping.key) {
            Key::None => mapping.key = key(node, &mut mapping.seen, self.findings),
            Key::Text(key, place) => mapping.fields.push(Field { key, place, value: node }),
            Key::Refused => {}
        }
    }
}

fn key(node: Node, seen: &mut HashMap<String, Place>, findings: &mut Findings) -> Key {
    match node.value {
        Value::Text(text) => match seen.entry(text) {
            Slot::Occupied(first) => {
                let message = format!("`{}` is given twice, first in line {}", first.key(), first.get().line);
                findings.report(node.place, first.key(), message);
                Key::Refused
            }
            Slot::Vacant(slot) => {
                let text = slot.key().clone();
                slot.insert(node.place);
                Key::Text(text, node.place)
            }
        },
        Value::Refused(_) => Key::Refused,
        other => {
            let message = format!("the name of a field must be text, this is {}", other.describe());
            findings.report(node.place, other.text(), message);
            Key::Refused
        }
    }
}
