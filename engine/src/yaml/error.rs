//! The parser's errors in plain words.

use serde_saphyr::Error;
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::granit_parser::ErrorKind;
use serde_saphyr::localizer::ExternalMessageSource;

use super::{MAX_DEPTH, MAX_NODES, Tree};
use crate::diagnostic::{Diagnostic, Span};

impl Tree<'_> {
    /// The diagnostic for an error of the parser, at the words that it is about.
    pub(super) fn reworded(&self, error: &Error) -> Diagnostic {
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

fn is_over_budget(error: &Error) -> bool {
    matches!(
        error,
        Error::Budget { .. }
            | Error::AliasReplayLimitExceeded { .. }
            | Error::AliasReplayStackDepthExceeded { .. }
    )
}
