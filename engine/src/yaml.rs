//! YAML as a tree that knows where each key and each value was written.
//!
//! Deserialising straight into a struct stops at the first mistake. A tree with places can be checked as a whole
//! (see [`crate::shape`]), so that every mistake is reported at once, each where it stands. The dialect is YAML 1.2:
//! `no` is text, `0o17` is 15. Anchors, aliases and merge keys (`<<`) are expanded; tags are not known.

mod error;

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{Location, Options, Spanned};

use crate::diagnostic::{Diagnostic, FileId, Span};

/// Largest text that is read, in bytes. The longest hand-written finding packs have some tens of kilobytes.
const MAX_BYTES: usize = 8 << 20;
/// Most lists, mappings and values in one file, those that aliases repeat included: a few lines of nested aliases
/// can stand for billions.
const MAX_NODES: usize = 100_000;
/// Deepest nesting of lists and mappings. A level takes up to 40 kB of stack in a debug build, and threads have 2 MB.
const MAX_DEPTH: usize = 24;

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Quotes and brackets included. A value repeated by an alias has the span of the alias (`*name`); what is
    /// inside that value, and what a merge key brings in, has the span of its definition. A value that is left out
    /// has an empty span.
    pub span: Span,
}

/// What a [`Node`] holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// `null`, `~`, or a value that is left out.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number; also `0x1F` and `0o17`.
    Int(i64),
    /// A finite number with a point or an exponent.
    Float(f64),
    /// Anything else, and everything in quotes.
    Text(String),
    /// `[a, b]`, or lines that begin with `-`.
    List(Vec<Node>),
    /// Keys are unique and in the order of the file, followed by those that merge keys bring in.
    Map(Vec<Entry>),
}

/// A key of a mapping and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key as text: `1: a` has the key `1`.
    pub key: String,
    /// Where the key was written.
    pub key_span: Span,
    /// Its value.
    pub value: Node,
}

/// Reads one YAML document. An empty text is [`Kind::Null`].
///
/// # Errors
///
/// The first mistake of syntax, or every key that is defined twice and every number out of range. A text over
/// 8 MiB, more than 24 levels deep or with more than 100 000 values is refused before it takes time or memory.
pub fn parse(file: FileId, text: &str) -> Result<Node, Vec<Diagnostic>> {
    if text.len() > MAX_BYTES {
        let message = format!("the file has {} bytes, expected at most {MAX_BYTES}", text.len());
        return Err(vec![Diagnostic::error(Span { file, start: 0, end: 0 }, message)]);
    }
    let mut tree = Tree { file, text, mistakes: Vec::new(), duplicates: HashSet::new() };
    let raw: Spanned<Raw> =
        serde_saphyr::from_str_with_options(text, options()).map_err(|error| vec![tree.reworded(&error)])?;
    let root = tree.node(raw, None);
    if tree.mistakes.is_empty() { Ok(root) } else { Err(tree.mistakes) }
}

impl Node {
    /// The value of a key, if this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        let Kind::Map(entries) = &self.kind else { return None };
        entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// The same value without places.
    ///
    /// # Panics
    ///
    /// If a number is not finite, which [`parse`] refuses and JSON cannot hold.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value;
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Int(value) => Value::Number((*value).into()),
            Kind::Float(value) => Value::Number(
                serde_json::Number::from_f64(*value).expect("parse refuses numbers that are not finite"),
            ),
            Kind::Text(value) => Value::String(value.clone()),
            Kind::List(items) => items.iter().map(Node::to_json).collect(),
            Kind::Map(entries) => {
                entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect()
            }
        }
    }

    /// What this is in plain words, to stand after "found": `a whole number`, `text`, `a list` …
    pub fn describe(&self) -> &'static str {
        match &self.kind {
            Kind::Null => "nothing",
            Kind::Bool(true) => "`true`",
            Kind::Bool(false) => "`false`",
            Kind::Int(_) => "a whole number",
            Kind::Float(_) => "a decimal number",
            Kind::Text(_) => "text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
        }
    }
}

/// Where in `source` (a value as it is written) a part of the value's text stands; none where it does not stand
/// there as it is. Quotes, escapes and the indentation of blocks move texts, but not the words in them, so the
/// part is found as the same occurrence of the same words.
pub fn part_of(source: &str, text: &str, part: &std::ops::Range<usize>) -> Option<std::ops::Range<usize>> {
    let words = text.get(part.clone()).filter(|words| !words.is_empty())?;
    let before = text.match_indices(words).take_while(|(at, _)| *at < part.start).count();
    if source.matches(words).count() != text.matches(words).count() {
        return None;
    }
    let (start, _) = source.match_indices(words).nth(before)?;
    Some(start..start + words.len())
}

fn options() -> Options {
    let budget = serde_saphyr::budget! {
        max_depth: MAX_DEPTH,
        max_nodes: MAX_NODES,
        // One anchor used in a hundred steps is no attack: what aliases repeat is limited below.
        enforce_alias_anchor_ratio: false,
    };
    let alias_limits = serde_saphyr::alias_limits! { max_total_replayed_events: MAX_NODES };
    serde_saphyr::options! {
        budget: budget,
        alias_limits: alias_limits,
        // Passed on so that all of them are found, each with its first place.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        strict_booleans: true,
        underscored_numbers_as_strings: true,
        non_finite_float_policy: NonFiniteFloatPolicy::Reject,
        // A tag would be dropped in silence, and `!env X` would become the text `X`.
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}

/// A value as the parser hands it over, before places are turned into spans.
enum Raw {
    Null,
    Bool(bool),
    Int(i64),
    /// A whole number over `i64::MAX`.
    TooLarge,
    Float(f64),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RawVisitor;

        impl<'de> Visitor<'de> for RawVisitor {
            type Value = Raw;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E>(self) -> Result<Raw, E> {
                Ok(Raw::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
                Ok(Raw::Bool(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
                Ok(Raw::Int(value))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
                Ok(i64::try_from(value).map_or(Raw::TooLarge, Raw::Int))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
                Ok(Raw::Float(value))
            }

            fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
                Ok(Raw::Text(value.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Raw::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
                let mut map = Vec::new();
                while let Some(entry) = entries.next_entry()? {
                    map.push(entry);
                }
                Ok(Raw::Map(map))
            }
        }

        deserializer.deserialize_any(RawVisitor)
    }
}

/// Turns what the parser says about one text into nodes and diagnostics.
struct Tree<'a> {
    file: FileId,
    text: &'a str,
    mistakes: Vec<Diagnostic>,
    /// The keys that are reported: an alias repeats the mistakes in what it stands for.
    duplicates: HashSet<Span>,
}

impl Tree<'_> {
    /// `alias` is the place of the alias (or merge key) that this value is expanded from, if its parent is too.
    fn node(&mut self, raw: Spanned<Raw>, alias: Option<Location>) -> Node {
        let is_alias = raw.referenced != raw.defined && Some(raw.referenced) != alias;
        let inner_alias = if is_alias { Some(raw.referenced) } else { alias };
        let defined = self.span(&raw.defined);
        let (kind, written) = match raw.value {
            Raw::Null => (Kind::Null, defined),
            Raw::Bool(value) => (Kind::Bool(value), defined),
            Raw::Int(value) => (Kind::Int(value), defined),
            Raw::TooLarge => (self.too_large(defined), defined),
            Raw::Float(value) => (self.number(value, defined), defined),
            Raw::Text(value) => (Kind::Text(value), defined),
            Raw::List(items) => {
                let items: Vec<Node> = items.into_iter().map(|item| self.node(item, inner_alias)).collect();
                let end = items.iter().map(|item| item.span.end).max();
                (Kind::List(items), self.collection(defined, end))
            }
            Raw::Map(entries) => {
                let (entries, end) = self.entries(entries, inner_alias);
                (Kind::Map(entries), self.collection(defined, end))
            }
        };
        Node { kind, span: if is_alias { self.span(&raw.referenced) } else { written } }
    }

    /// The entries of a mapping, and the end of the last one of them that is written in the mapping itself.
    fn entries(
        &mut self,
        raw: Vec<(Spanned<String>, Spanned<Raw>)>,
        alias: Option<Location>,
    ) -> (Vec<Entry>, Option<usize>) {
        let mut first_of: HashMap<String, Span> = HashMap::new();
        let mut end = None;
        let mut entries = Vec::with_capacity(raw.len());
        for (key, value) in raw {
            let is_expanded = key.referenced != key.defined;
            // A merge key hands on its own place for both; `*name: value` only for the key.
            let is_merged =
                is_expanded && key.referenced == value.referenced && Some(key.referenced) != alias;
            let inner_alias = if is_merged { Some(key.referenced) } else { alias };
            let is_inside = Some(key.referenced) == inner_alias;
            let key_span = self.span(if is_expanded && !is_inside { &key.referenced } else { &key.defined });
            let value = self.node(value, inner_alias);
            end = end.max(Some(value.span.end));
            if is_merged {
                end = end.max(Some(self.span(&key.referenced).end));
            }
            match first_of.get(&key.value) {
                Some(&first) => self.duplicate(&key.value, key_span, first),
                None => {
                    first_of.insert(key.value.clone(), key_span);
                    entries.push(Entry { key: key.value, key_span, value });
                }
            }
        }
        (entries, end)
    }

    fn duplicate(&mut self, key: &str, again: Span, first: Span) {
        if self.duplicates.insert(again) {
            let mistake = Diagnostic::error(again, format!("`{key}` is defined twice in one mapping"))
                .label(again, "defined again")
                .label(first, "first defined here")
                .help("remove one of the two, or give it another name");
            self.mistakes.push(mistake);
        }
    }

    /// The parser reads `007` and numbers over 64 bits as floats; by YAML 1.2 both are whole numbers.
    fn number(&mut self, value: f64, written: Span) -> Kind {
        let source = &self.text[written.start..written.end];
        let digits = source.strip_prefix(['-', '+']).unwrap_or(source);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Kind::Float(value);
        }
        match source.parse() {
            Ok(whole) => Kind::Int(whole),
            Err(_) => self.too_large(written),
        }
    }

    fn too_large(&mut self, span: Span) -> Kind {
        let message = format!("this whole number is out of range: expected {} to {}", i64::MIN, i64::MAX);
        self.mistakes
            .push(Diagnostic::error(span, message).help("put it in quotes if it is a name, not a number"));
        Kind::Null
    }

    /// The span of a list or mapping: the parser tells only where it begins.
    fn collection(&self, begin: Span, end_of_last: Option<usize>) -> Span {
        // What aliases and merge keys bring in stands before.
        let inner_end = end_of_last.unwrap_or(begin.start).max(begin.start);
        let end = match self.text[begin.start..].chars().next() {
            Some('[') => self.closing(']', inner_end.max(begin.start + 1)),
            Some('{') => self.closing('}', inner_end.max(begin.start + 1)),
            _ => inner_end,
        };
        Span { end, ..begin }
    }

    /// The offset after the next `bracket`, comments skipped.
    fn closing(&self, bracket: char, from: usize) -> usize {
        let mut in_comment = false;
        for (offset, character) in self.text[from..].char_indices() {
            match character {
                '#' => in_comment = true,
                '\n' => in_comment = false,
                _ if character == bracket && !in_comment => return from + offset + 1,
                _ => {}
            }
        }
        from
    }

    /// The bytes of a place, without the space and line breaks that the parser counts to a block of text.
    fn span(&self, location: &Location) -> Span {
        let start = self.offset(location);
        let length = location.span().byte_len().unwrap_or(0);
        let end = usize::try_from(length).unwrap_or(0) + start;
        let end = self.text.floor_char_boundary(end);
        Span { file: self.file, start, end: start + self.text[start..end].trim_end().len() }
    }

    /// Syntax errors come with an index in characters only.
    fn offset(&self, location: &Location) -> usize {
        let span = location.span();
        let bytes = span.byte_offset().and_then(|offset| usize::try_from(offset).ok());
        let offset = bytes.or_else(|| {
            let characters = usize::try_from(span.offset()).ok()?;
            self.text.char_indices().nth(characters).map(|(offset, _)| offset)
        });
        self.text.floor_char_boundary(offset.unwrap_or(self.text.len()))
    }
}

#[cfg(test)]
mod tests;
