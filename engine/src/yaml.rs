//! YAML as a tree that knows where each key and each value was written.
//!
//! Deserialising straight into a struct stops at the first mistake. A tree with places can be checked as a whole
//! (see [`crate::shape`]), so that every mistake is reported at once, each where it stands. The dialect is YAML 1.2:
//! `no` is text, `0o17` is 15. Anchors, aliases and merge keys (`<<`) are expanded; tags are not known.

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::granit_parser::ErrorKind;
use serde_saphyr::localizer::ExternalMessageSource;
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{Error, Location, Options, Spanned};

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

fn is_over_budget(error: &Error) -> bool {
    matches!(
        error,
        Error::Budget { .. }
            | Error::AliasReplayLimitExceeded { .. }
            | Error::AliasReplayStackDepthExceeded { .. }
    )
}

/// The parser's errors in plain words.
impl Tree<'_> {
    fn reworded(&self, error: &Error) -> Diagnostic {
        let error = error.without_snippet();
        let offset = error.location().map_or(self.text.len(), |location| self.offset(&location));
        let word = self.word(offset);
        let at_word = |message: &str| Diagnostic::error(word, message);
        match error {
            Error::ExternalMessage { source, msg, .. } => match source.as_ref() {
                ExternalMessageSource::Parser(error) => self.syntax(error.kind(), offset, msg),
                _ => at_word("this is not valid YAML").note(msg.clone()),
            },
            Error::AliasError { error, locations, .. } => {
                let alias = self.span(&locations.reference_location);
                match error.as_ref() {
                    Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => self.too_deep(alias),
                    error if is_over_budget(error) => self.too_many(alias),
                    error => self.reworded(error).label(alias, "repeated here"),
                }
            }
            Error::MultipleDocuments { .. } => {
                let start = self.text[..offset].rfind("---").unwrap_or(offset);
                Diagnostic::error(self.word(start), "expected one document, found a second one")
                    .help("remove the `---`, or move what follows to its own file")
            }
            Error::MergeValueNotMapOrSeqOfMaps { .. } => {
                at_word("`<<` takes a mapping, or a list of mappings").help("write `<<: *name`")
            }
            Error::NullIntoString { .. } => at_word("expected text as a key, found nothing"),
            Error::Unexpected { expected: "string scalar", .. } => {
                at_word("expected text as a key, found a list or a mapping").help("put the key in quotes")
            }
            Error::RecursiveReferencesRequireWeakTypes { .. } => {
                at_word("this alias stands inside the value that it repeats")
                    .help("write the inner value out")
            }
            Error::NonFiniteFloat { value, .. } => at_word(&format!("`{value}` is not a finite number"))
                .help("write a finite number, or put it in quotes to make it text"),
            Error::UnsupportedTag { tag, .. } => {
                let start = self.text[..offset].rfind('!').unwrap_or(offset);
                Diagnostic::error(self.word(start), format!("the tag `{tag}` is not known"))
                    .help("remove the tag, or put the whole value in quotes")
            }
            Error::UnknownAnchor { .. } => self.unknown_anchor(offset),
            Error::InvalidScalar { .. } => at_word("this value does not fit its tag").help("remove the tag"),
            Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => self.too_deep(word),
            error if is_over_budget(error) => self.too_many(word),
            other => at_word("this is not valid YAML").note(other.to_string()),
        }
    }

    fn syntax(&self, kind: &ErrorKind, offset: usize, original: &str) -> Diagnostic {
        let word = self.word(offset);
        let character = self.character(offset);
        let advise = |span: Span, message: &str, help: &str| Diagnostic::error(span, message).help(help);
        match kind {
            ErrorKind::TabNotAllowed
            | ErrorKind::TabInBlockIndentation
            | ErrorKind::TabInIndentation
            | ErrorKind::TabAtBlockScalarStart
            | ErrorKind::TabInPlainScalar => {
                advise(self.tab(offset), "a tab stands where spaces are expected", "indent with spaces")
            }
            ErrorKind::UnclosedFlowCollection { open } => {
                let close = if *open == '[' { ']' } else { '}' };
                advise(character, &format!("this `{open}` is never closed"), &format!("add `{close}`"))
            }
            ErrorKind::MismatchedFlowCollectionEnd { open, close } => {
                let right = if *open == '[' { ']' } else { '}' };
                advise(
                    character,
                    &format!("this `{open}` is closed by `{close}`"),
                    &format!("close it with `{right}`"),
                )
            }
            ErrorKind::MisplacedFlowCollectionEnd => {
                advise(character, "this bracket closes nothing", "remove it, or open it before")
            }
            ErrorKind::ExpectedFlowMappingSeparator
            | ErrorKind::ExpectedFlowSequenceSeparator
            | ErrorKind::InvalidColonPlacement => self.inside_brackets(kind, offset),
            ErrorKind::UnclosedQuotedScalar
            | ErrorKind::InvalidQuotedScalarIndent
            | ErrorKind::DocumentIndicatorInQuotedScalar => {
                let start = self.text[..offset].rfind(['"', '\'']).unwrap_or(offset);
                advise(self.character(start), "this quote is never closed", "close it on the same line")
            }
            ErrorKind::InvalidTrailingSingleQuotedScalar => {
                advise(word, "text stands after the closing quote", "inside single quotes write `'` as `''`")
            }
            ErrorKind::InvalidTrailingDoubleQuotedScalar => advise(
                word,
                "text stands after the closing quote",
                r#"inside double quotes write `"` as `\"`"#,
            ),
            ErrorKind::UnknownQuotedScalarEscape
            | ErrorKind::InvalidQuotedScalarHexEscape
            | ErrorKind::InvalidUnicodeEscape => advise(
                word,
                r"a `\` in double quotes begins an escape that YAML does not know",
                r"use single quotes, or write `\\`",
            ),
            ErrorKind::UnexpectedCharacter { character: found } if found.is_control() => {
                let message = format!("the control character U+{:04X} is not allowed", u32::from(*found));
                advise(character, &message, "remove it")
            }
            ErrorKind::UnexpectedCharacter { character: '`' } => {
                advise(word, "a value cannot begin with a backtick", "put the value in quotes")
            }
            ErrorKind::UnexpectedCharacter { character: found } => {
                advise(word, &format!("a value cannot begin with `{found}`"), "put the value in quotes")
            }
            ErrorKind::MappingValueNotAllowed
            | ErrorKind::MappingKeyNotAllowed
            | ErrorKind::InvalidMappingValueWhitespace => self.misplaced_colon(offset),
            ErrorKind::ExpectedBlockMappingKey | ErrorKind::InvalidIndentation => advise(
                word,
                "this line does not line up with the keys above",
                "indent it as the other keys are",
            ),
            ErrorKind::ExpectedBlockSequenceEntry => advise(
                word,
                "expected another `-`, found a line that does not belong to the list above",
                "indent it as part of the last item, or less than the list",
            ),
            ErrorKind::SimpleKeyExpected | ErrorKind::InvalidSimpleKey => {
                advise(word, "expected `key: value`, found text alone", "write `:` and a space after the key")
            }
            ErrorKind::BlockSequenceEntryNotAllowed
            | ErrorKind::BlockEntryInFlowCollection
            | ErrorKind::InvalidBlockEntryWhitespace => advise(
                character,
                "a `-` item cannot stand here",
                "put the list on lines of its own below the key, or write it in `[ ]`",
            ),
            ErrorKind::InvalidBlockScalarIndent | ErrorKind::InvalidBlockScalarHeader => advise(
                word,
                "this does not fit the block of text that `|` or `>` begins",
                "indent every line of the text as the first one, more than its key",
            ),
            ErrorKind::UnknownAnchor | ErrorKind::MissingAnchorOrAliasName => self.unknown_anchor(offset),
            ErrorKind::RecursionLimitExceeded => self.too_deep(character),
            _ => {
                Diagnostic::error(word, "this is not valid YAML").note(format!("the parser says: {original}"))
            }
        }
    }

    /// A list or mapping in brackets goes on with something that cannot stand there.
    fn inside_brackets(&self, kind: &ErrorKind, offset: usize) -> Diagnostic {
        let before = &self.text[..offset];
        // `{` opens a mapping here, so an unquoted `${params.x}` falls apart into `$` and `{params.x}`.
        let is_placeholder = self.text[offset..].starts_with("${")
            || (before.ends_with('$') && self.text[offset..].starts_with('{'))
            || before.ends_with("${");
        if is_placeholder {
            let start = before.rfind('$').filter(|&start| start + 2 >= offset).unwrap_or(offset);
            let end = self.text[start..].find('}').map_or(offset, |length| start + length + 1);
            let span = Span { file: self.file, start, end };
            let help = format!("write \"{}\"", &self.text[start..end]);
            return Diagnostic::error(span, "inside `[ ]` and `{ }` a `${…}` needs quotes").help(help);
        }
        if let ErrorKind::InvalidColonPlacement = kind {
            return Diagnostic::error(self.character(offset), "a `:` cannot stand here, inside `[ ]`")
                .help("close the `[` above, or put the value in quotes");
        }
        let close = if let ErrorKind::ExpectedFlowSequenceSeparator = kind { ']' } else { '}' };
        Diagnostic::error(self.word(offset), format!("expected `,` or `{close}`"))
            .help("separate the items by commas, and put a value that holds brackets in quotes")
    }

    /// `a: b: c`, or a key indented below a finished value.
    fn misplaced_colon(&self, offset: usize) -> Diagnostic {
        let line_start = self.text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
        let diagnostic = Diagnostic::error(self.character(offset), "a `:` cannot stand here");
        if self.text[line_start..offset].contains(": ") {
            diagnostic.help("put a value that holds `: ` in quotes")
        } else {
            diagnostic.help("the value above goes on in this line: indent the line as the other keys are")
        }
    }

    fn unknown_anchor(&self, offset: usize) -> Diagnostic {
        let word = self.word(offset);
        let alias = &self.text[word.start..word.end];
        let name = alias.strip_prefix(['*', '&']).unwrap_or(alias);
        Diagnostic::error(word, format!("`{alias}` repeats a value named `&{name}`, and there is none above"))
            .help("put a value that begins with `*` or `&` in quotes")
    }

    fn too_deep(&self, span: Span) -> Diagnostic {
        Diagnostic::error(span, format!("lists and mappings are nested more than {MAX_DEPTH} deep"))
            .help("make the file flatter")
    }

    fn too_many(&self, span: Span) -> Diagnostic {
        Diagnostic::error(span, format!("the file stands for more than {MAX_NODES} values"))
            .note("each alias (`*name`) counts as all that it repeats")
            .help("split the file, or use fewer aliases")
    }

    /// The tab that the parser stumbled over: it stops behind the tab, or at the value above.
    fn tab(&self, offset: usize) -> Span {
        let line_start = self.text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
        let before = self.text[line_start..offset].rfind('\t').map(|tab| line_start + tab);
        let after = || self.text[offset..].find('\t').map(|tab| offset + tab);
        self.character(before.or_else(after).unwrap_or(offset))
    }

    /// One character; nothing at the end of a line or of the text.
    fn character(&self, start: usize) -> Span {
        let next = self.text[start..].chars().next().filter(|character| !matches!(character, '\r' | '\n'));
        Span { file: self.file, start, end: start + next.map_or(0, char::len_utf8) }
    }

    /// From `start` up to the next space, comma, bracket or `: `; at least one character.
    fn word(&self, start: usize) -> Span {
        let ends = |character: char| character.is_whitespace() || matches!(character, ',' | ']' | '}');
        let length = self.text[start..].find(ends).unwrap_or(self.text.len() - start);
        let word = &self.text[start..start + length];
        let word = word.strip_suffix(':').unwrap_or(word);
        if word.is_empty() {
            return self.character(start);
        }
        Span { file: self.file, start, end: start + word.len() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;
    use crate::diagnostic::Sources;

    fn read(text: &str) -> Result<Node, Vec<Diagnostic>> {
        let file = Sources::default().add("p.yaml", text);
        parse(file, text)
    }

    fn parsed(text: &str) -> Node {
        read(text).unwrap_or_else(|mistakes| panic!("{text:?} is well formed: {mistakes:?}"))
    }

    /// Each mistake as `line:column «what is underlined» message`, then its other labels, notes and help.
    fn check(text: &str, expected: Expect) {
        let mut sources = Sources::default();
        let file = sources.add("p.yaml", text);
        let mistakes = parse(file, text).expect_err("the text has a mistake");
        let mut shown = String::new();
        for mistake in mistakes {
            let at = |span: Span| {
                let position = sources.get(file).position(span.start);
                format!("{}:{} «{}»", position.line, position.column, &text[span.start..span.end])
            };
            shown += &format!("{} {}\n", at(mistake.labels[0].0), mistake.message);
            for (span, label) in &mistake.labels[1..] {
                shown += &format!("  {} {label}\n", at(*span));
            }
            for note in &mistake.notes {
                shown += &format!("  note: {note}\n");
            }
            if let Some(help) = &mistake.help {
                shown += &format!("  help: {help}\n");
            }
        }
        expected.assert_eq(&shown);
    }

    fn json(text: &str) -> String {
        parsed(text).to_json().to_string()
    }

    /// Every key and value with the text its span covers, one line each.
    fn spans(text: &str) -> String {
        fn walk(text: &str, node: &Node, depth: usize, out: &mut String) {
            let indent = "  ".repeat(depth);
            *out += &format!("{indent}{} {:?}\n", node.describe(), &text[node.span.start..node.span.end]);
            match &node.kind {
                Kind::List(items) => items.iter().for_each(|item| walk(text, item, depth + 1, out)),
                Kind::Map(entries) => {
                    for entry in entries {
                        let written = &text[entry.key_span.start..entry.key_span.end];
                        *out += &format!("{indent}  {}: key {written:?}\n", entry.key);
                        walk(text, &entry.value, depth + 2, out);
                    }
                }
                _ => {}
            }
        }
        let mut out = String::new();
        walk(text, &parsed(text), 0, &mut out);
        out
    }

    #[test]
    fn spans_are_bytes_also_after_other_alphabets_and_with_carriage_returns() {
        expect![[r#"
            a mapping "é: [1, 2.5 , ü]\r\nb: \"q é\"\r\nc:\r\nd: {x: 'y', z: }"
              é: key "é"
                a list "[1, 2.5 , ü]"
                  a whole number "1"
                  a decimal number "2.5"
                  text "ü"
              b: key "b"
                text "\"q é\""
              c: key "c"
                nothing ""
              d: key "d"
                a mapping "{x: 'y', z: }"
                  x: key "x"
                    text "'y'"
                  z: key "z"
                    nothing ""
        "#]]
        .assert_eq(&spans("é: [1, 2.5 , ü]\r\nb: \"q é\"\r\nc:\r\nd: {x: 'y', z: }  # }\r\n"));
    }

    #[test]
    fn spans_of_blocks_end_with_their_text() {
        expect![[r#"
            a mapping "a: |\n  hello\n  you\n\nb:\n  - x  # c\n  -\n  - {k: [1, # ]\n 2]}\nc: d\n e"
              a: key "a"
                text "hello\n  you"
              b: key "b"
                a list "- x  # c\n  -\n  - {k: [1, # ]\n 2]}"
                  text "x"
                  nothing ""
                  a mapping "{k: [1, # ]\n 2]}"
                    k: key "k"
                      a list "[1, # ]\n 2]"
                        a whole number "1"
                        a whole number "2"
              c: key "c"
                text "d\n e"
        "#]]
        .assert_eq(&spans(
            "a: |\n  hello\n  you\n\nb:\n  - x  # c\n  -\n  - {k: [1, # ]\n 2]}\nc: d\n e\n\n",
        ));
    }

    #[test]
    fn aliases_are_where_they_are_used_and_their_insides_where_they_are_defined() {
        expect![[r#"
            a mapping "c: &c {lr: 1, q: [2]}\nl: &l 7\ns:\n  <<: *c\n  b: *l\n  e: *c\n  f: [*l]"
              c: key "c"
                a mapping "{lr: 1, q: [2]}"
                  lr: key "lr"
                    a whole number "1"
                  q: key "q"
                    a list "[2]"
                      a whole number "2"
              l: key "l"
                a whole number "7"
              s: key "s"
                a mapping "<<: *c\n  b: *l\n  e: *c\n  f: [*l]"
                  b: key "b"
                    a whole number "*l"
                  e: key "e"
                    a mapping "*c"
                      lr: key "lr"
                        a whole number "1"
                      q: key "q"
                        a list "[2]"
                          a whole number "2"
                  f: key "f"
                    a list "[*l]"
                      a whole number "*l"
                  lr: key "lr"
                    a whole number "1"
                  q: key "q"
                    a list "[2]"
                      a whole number "2"
        "#]]
        .assert_eq(&spans("c: &c {lr: 1, q: [2]}\nl: &l 7\ns:\n  <<: *c\n  b: *l\n  e: *c\n  f: [*l]\n"));
    }

    #[test]
    fn merge_keys_give_way_to_the_keys_beside_them() {
        expect![[r#"{"a":{"x":1,"y":2},"b":{"y":3,"z":4},"c":{"x":0,"y":2,"z":4}}"#]]
            .assert_eq(&json("a: &a {x: 1, y: 2}\nb: &b {y: 3, z: 4}\nc:\n  <<: [*a, *b]\n  x: 0\n"));
    }

    #[test]
    fn scalars_are_of_yaml_1_2() {
        expect![[r#"["no","yes","on",null,null,true,7,-7,15,31,"1_000",5,12000.0,0.5,1.0,"1","12:30","2024-01-01",".5.6"]"#]].assert_eq(&json(
            "[no, yes, on, ~, null, true, 007, -007, 0o17, 0x1F, 1_000, +5, 12e3, .5, 1., '1', 12:30, 2024-01-01, .5.6]",
        ));
        expect!["[-9223372036854775808,9223372036854775807,1.0,100.0]"]
            .assert_eq(&json("[-9223372036854775808, 9223372036854775807, 1.0, 1e2]"));
    }

    #[test]
    fn empty_files_are_nothing() {
        for text in ["", "\n\n", "# only a comment\n", "---\n"] {
            assert_eq!(parsed(text).kind, Kind::Null, "{text:?}");
        }
    }

    #[test]
    fn byte_order_mark_is_skipped() {
        assert_eq!(spans("\u{feff}a: x\n"), "a mapping \"a: x\"\n  a: key \"a\"\n    text \"x\"\n");
        check(
            "\u{feff}a: @x\n",
            expect![[r#"
            1:4 «@x» a value cannot begin with `@`
              help: put the value in quotes
        "#]],
        );
    }

    #[test]
    fn get_finds_keys_of_mappings_only() {
        let node = parsed("a: {b: 1}\n");
        assert_eq!(node.get("a").and_then(|a| a.get("b")).map(|b| &b.kind), Some(&Kind::Int(1)));
        assert_eq!(node.get("b"), None);
        assert_eq!(parsed("[a]").get("a"), None);
    }

    #[test]
    fn all_duplicate_keys_are_found_with_both_places() {
        check(
            "a: 1\nb: {x: 1, \"x\": 2}\na: 3\na: 4\n",
            expect![[r#"
            2:11 «"x"» `x` is defined twice in one mapping
              2:5 «x» first defined here
              help: remove one of the two, or give it another name
            3:1 «a» `a` is defined twice in one mapping
              1:1 «a» first defined here
              help: remove one of the two, or give it another name
            4:1 «a» `a` is defined twice in one mapping
              1:1 «a» first defined here
              help: remove one of the two, or give it another name
        "#]],
        );
    }

    #[test]
    fn duplicate_in_a_repeated_mapping_is_told_once() {
        check(
            "a: &a {x: 1, x: 2}\nb: *a\nc: {<<: *a}\n",
            expect![[r#"
            1:14 «x» `x` is defined twice in one mapping
              1:8 «x» first defined here
              help: remove one of the two, or give it another name
        "#]],
        );
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        check(
            "a: 9223372036854775808\nb: 99999999999999999999\nc: 0xFFFFFFFFFFFFFFFF\n",
            expect![[r#"
            1:4 «9223372036854775808» this whole number is out of range: expected -9223372036854775808 to 9223372036854775807
              help: put it in quotes if it is a name, not a number
            2:4 «99999999999999999999» this whole number is out of range: expected -9223372036854775808 to 9223372036854775807
              help: put it in quotes if it is a name, not a number
            3:4 «0xFFFFFFFFFFFFFFFF» this whole number is out of range: expected -9223372036854775808 to 9223372036854775807
              help: put it in quotes if it is a name, not a number
        "#]],
        );
        check(
            "a: .nan\n",
            expect![[r#"
            1:4 «.nan» `.nan` is not a finite number
              help: write a finite number, or put it in quotes to make it text
        "#]],
        );
        check(
            "a: 1e999\n",
            expect![[r#"
            1:4 «1e999» `1e999` is not a finite number
              help: write a finite number, or put it in quotes to make it text
        "#]],
        );
    }

    #[test]
    fn tabs() {
        check(
            "a:\n\t- b\n",
            expect![[r#"
            2:1 «	» a tab stands where spaces are expected
              help: indent with spaces
        "#]],
        );
        check(
            "é:\r\n  x: 1\r\n\ty: 2\r\n",
            expect![[r#"
            3:1 «	» a tab stands where spaces are expected
              help: indent with spaces
        "#]],
        );
    }

    #[test]
    fn brackets() {
        check(
            "a: [1, 2\nb: 3\n",
            expect![[r#"
            2:2 «:» a `:` cannot stand here, inside `[ ]`
              help: close the `[` above, or put the value in quotes
        "#]],
        );
        check(
            "a: b\n# é\nc: [é, é\n",
            expect![[r#"
            3:4 «[» this `[` is never closed
              help: add `]`
        "#]],
        );
        check(
            "a: {b: 1]\n",
            expect![[r#"
            1:4 «{» this `{` is closed by `]`
              help: close it with `}`
        "#]],
        );
        check(
            "a: [1 2]]\n",
            expect![[r#"
            1:9 «]» this bracket closes nothing
              help: remove it, or open it before
        "#]],
        );
        check(
            "a: {b: 1 c: 2}\n",
            expect![[r#"
            1:11 «:» expected `,` or `}`
              help: separate the items by commas, and put a value that holds brackets in quotes
        "#]],
        );
        check(
            "a: {b: 'x' 'y'}\n",
            expect![[r#"
            1:12 «'y'» text stands after the closing quote
              help: inside single quotes write `'` as `''`
        "#]],
        );
    }

    #[test]
    fn placeholders_in_brackets() {
        check(
            "a: {b: ${params.x}}\n",
            expect![[r#"
            1:8 «${params.x}» inside `[ ]` and `{ }` a `${…}` needs quotes
              help: write "${params.x}"
        "#]],
        );
        check(
            "a: [${params.x}, 1]\n",
            expect![[r#"
            1:5 «${params.x}» inside `[ ]` and `{ }` a `${…}` needs quotes
              help: write "${params.x}"
        "#]],
        );
        assert_eq!(json("a: ${params.x}/b\n"), r#"{"a":"${params.x}/b"}"#);
    }

    #[test]
    fn quotes() {
        check(
            "a: \"x\nb: 1\n",
            expect![[r#"
            1:4 «"» this quote is never closed
              help: close it on the same line
        "#]],
        );
        check(
            "a: 'x\n",
            expect![[r#"
            1:4 «'» this quote is never closed
              help: close it on the same line
        "#]],
        );
        check(
            "a: 'it's'\n",
            expect![[r#"
            1:8 «s'» text stands after the closing quote
              help: inside single quotes write `'` as `''`
        "#]],
        );
        check(
            "a: \"x\" y\n",
            expect![[r#"
            1:8 «y» text stands after the closing quote
              help: inside double quotes write `"` as `\"`
        "#]],
        );
        check(
            "a: \"\\d+\"\n",
            expect![[r#"
            1:4 «"\d+"» a `\` in double quotes begins an escape that YAML does not know
              help: use single quotes, or write `\\`
        "#]],
        );
        check(
            "a: @x\n",
            expect![[r#"
            1:4 «@x» a value cannot begin with `@`
              help: put the value in quotes
        "#]],
        );
        check(
            "a: `x`\n",
            expect![[r#"
            1:4 «`x`» a value cannot begin with a backtick
              help: put the value in quotes
        "#]],
        );
        check(
            "a: \u{1}\n",
            expect![[r#"
            1:4 «» the control character U+0001 is not allowed
              help: remove it
        "#]],
        );
    }

    #[test]
    fn colons_and_indentation() {
        check(
            "a: b: c\n",
            expect![[r#"
            1:5 «:» a `:` cannot stand here
              help: put a value that holds `: ` in quotes
        "#]],
        );
        check(
            "a: 1\n  b: 2\n",
            expect![[r#"
            2:4 «:» a `:` cannot stand here
              help: the value above goes on in this line: indent the line as the other keys are
        "#]],
        );
        check(
            "a:\n  - b\n c: 1\n",
            expect![[r#"
            3:2 «c» this line does not line up with the keys above
              help: indent it as the other keys are
        "#]],
        );
        check(
            "- a\nb: 1\n",
            expect![[r#"
            2:1 «b» expected another `-`, found a line that does not belong to the list above
              help: indent it as part of the last item, or less than the list
        "#]],
        );
        check(
            "a: 1\nfoo\nb: 2\n",
            expect![[r#"
            2:1 «foo» expected `key: value`, found text alone
              help: write `:` and a space after the key
        "#]],
        );
        check(
            "a: - b\n",
            expect![[r#"
            1:4 «-» a `-` item cannot stand here
              help: put the list on lines of its own below the key, or write it in `[ ]`
        "#]],
        );
        check(
            "a: |\n    x\n  y\nb: 1\n",
            expect![[r#"
            3:3 «y» this line does not line up with the keys above
              help: indent it as the other keys are
        "#]],
        );
    }

    #[test]
    fn keys_that_are_no_text() {
        check(
            "~: c\n",
            expect![[r#"
            1:1 «~» expected text as a key, found nothing
        "#]],
        );
        check(
            "[1]: a\n",
            expect![[r#"
            1:1 «[1» expected text as a key, found a list or a mapping
              help: put the key in quotes
        "#]],
        );
        assert_eq!(json("{1: a, true: b, 0.5: c}"), r#"{"1":"a","true":"b","0.5":"c"}"#);
    }

    #[test]
    fn anchors_and_tags() {
        check(
            "path: *.csv\n",
            expect![[r#"
            1:7 «*.csv» `*.csv` repeats a value named `&.csv`, and there is none above
              help: put a value that begins with `*` or `&` in quotes
        "#]],
        );
        check(
            "path: */*.csv\n",
            expect![[r#"
            1:7 «*/*.csv» `*/*.csv` repeats a value named `&/*.csv`, and there is none above
              help: put a value that begins with `*` or `&` in quotes
        "#]],
        );
        check(
            "a: &a [*a]\n",
            expect![[r#"
            1:8 «*a» this alias stands inside the value that it repeats
              help: write the inner value out
        "#]],
        );
        check(
            "é: !env HOME\n",
            expect![[r#"
            1:4 «!env» the tag `!env` is not known
              help: remove the tag, or put the whole value in quotes
        "#]],
        );
        check(
            "a: !!int x\n",
            expect![[r#"
            1:10 «x» this value does not fit its tag
              help: remove the tag
        "#]],
        );
        check(
            "<<: 3\n",
            expect![[r#"
            1:5 «3» `<<` takes a mapping, or a list of mappings
              help: write `<<: *name`
        "#]],
        );
    }

    #[test]
    fn second_document() {
        check(
            "---\na: 1\n---\nb: 2\n",
            expect![[r#"
            3:1 «---» expected one document, found a second one
              help: remove the `---`, or move what follows to its own file
        "#]],
        );
    }

    /// Nine levels of ten aliases stand for 10^9 values. The time holds for a debug build on a busy machine.
    #[test]
    fn alias_bombs_end_quickly() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..10 {
            let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb += &format!("a{level}: &a{level} [{aliases}]\n");
        }
        let begun = Instant::now();
        check(
            &bomb,
            expect![[r#"
            5:45 «*a3» the file stands for more than 100000 values
              note: each alias (`*name`) counts as all that it repeats
              help: split the file, or use fewer aliases
        "#]],
        );
        assert!(begun.elapsed() < Duration::from_secs(10), "took {:?}", begun.elapsed());
    }

    #[test]
    fn one_anchor_may_be_used_often() {
        let text = format!("a: &a {{x: 1}}\nb: [{}]\n", vec!["*a"; 1000].join(", "));
        assert!(
            matches!(&parsed(&text).get("b").expect("it is there").kind, Kind::List(items) if items.len() == 1000)
        );
    }

    #[test]
    fn deep_and_large_files_are_refused() {
        check(
            &format!("a: {}1{}\n", "[".repeat(100), "]".repeat(100)),
            expect![[r#"
            1:27 «[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1» lists and mappings are nested more than 24 deep
              help: make the file flatter
        "#]],
        );
        check(
            &(0..100).map(|depth| " ".repeat(depth) + "a:\n").collect::<String>(),
            expect![[r#"
            25:25 «a» lists and mappings are nested more than 24 deep
              help: make the file flatter
        "#]],
        );
        let mistakes = read(&"[".repeat(1 << 20)).expect_err("far too deep");
        assert_eq!(mistakes.len(), 1);
        let mistakes = read(&format!("a: {}\n", "x".repeat(MAX_BYTES))).expect_err("far too large");
        assert_eq!(mistakes[0].message, "the file has 8388612 bytes, expected at most 8388608");
        let mistakes = read(&format!("[{}]", "1,".repeat(MAX_NODES))).expect_err("far too many");
        assert_eq!(mistakes[0].message, "the file stands for more than 100000 values");
        let begun = Instant::now();
        assert_eq!(read(&"k: 1\n".repeat(20_000)).expect_err("one key").len(), 19_999);
        assert!(begun.elapsed() < Duration::from_secs(10), "took {:?}", begun.elapsed());
    }

    proptest! {
        /// Whatever the text, the parser ends and every span lies in it on character boundaries.
        #[test]
        fn any_text_gives_spans_inside_it(text in "[a-cé:\\-\\[\\]{}'\"#&*,|> \\t\r\n~1.!\u{feff}😀]{0,60}") {
            match read(&text) {
                Ok(_) => { spans(&text); }
                Err(mistakes) => {
                    prop_assert!(!mistakes.is_empty());
                    for (span, _) in mistakes.iter().flat_map(|mistake| &mistake.labels) {
                        prop_assert!(text.get(span.start..span.end).is_some(), "{span:?}");
                    }
                }
            }
        }

        /// A text value's span covers it whatever stands before.
        #[test]
        fn span_covers_the_value(
            before in "[a-zé😀 ]{0,12}",
            newline in prop::sample::select(vec!["\n", "\r\n"]),
            value in "[a-zéß]{1,8}x",
        ) {
            let text = format!("# {before}{newline}k: \"{before}\"{newline}v: {value}{newline}");
            let span = parsed(&text).get("v").expect("it is there").span;
            prop_assert_eq!(&text[span.start..span.end], value);
        }
    }
}
