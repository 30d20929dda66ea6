//! What is wrong in a file, where, and what would be right.

use serde::Serialize;

/// One mistake (or something worth a look), with the places it concerns.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Diagnostic {
    /// Whether it stops the pipeline.
    pub level: Level,
    /// One line in lower case that says what is there and what was expected.
    pub message: String,
    /// Places with a word on each; the first is the primary one. A text may be empty where the message says all.
    pub labels: Vec<(Span, String)>,
    /// What to do about it.
    pub help: Option<String>,
    /// Further facts that explain the message.
    pub notes: Vec<String>,
}

impl Diagnostic {
    /// A mistake at `span` that stops the pipeline.
    pub fn error(span: Span, message: impl Into<String>) -> Self {
        Self::new(Level::Error, span, message.into())
    }

    /// Something at `span` that is probably not meant, and stops nothing.
    pub fn warning(span: Span, message: impl Into<String>) -> Self {
        Self::new(Level::Warning, span, message.into())
    }

    fn new(level: Level, span: Span, message: String) -> Self {
        Self { level, message, labels: vec![(span, String::new())], help: None, notes: Vec::new() }
    }

    /// Says `text` about the place `span`. The primary place takes it if `span` is the same and it has no text
    /// yet; any other place is added as a secondary one, such as the first of two definitions.
    #[must_use]
    pub fn label(mut self, span: Span, text: impl Into<String>) -> Self {
        match self.labels.first_mut() {
            Some((primary, said)) if *primary == span && said.is_empty() => *said = text.into(),
            _ => self.labels.push((span, text.into())),
        }
        self
    }

    /// Says what to do; the last call wins.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }

    /// Adds a fact that explains the message.
    #[must_use]
    pub fn note(mut self, text: impl Into<String>) -> Self {
        self.notes.push(text.into());
        self
    }

    /// The primary place, if it has one.
    pub fn span(&self) -> Option<Span> {
        self.labels.first().map(|(span, _)| *span)
    }

    /// The same in paths, lines and columns, for machines to read.
    ///
    /// # Panics
    ///
    /// If a label's file was not added to `sources`.
    pub fn located(&self, sources: &Sources) -> LocatedDiagnostic {
        let label = |(span, text): &(Span, String)| {
            let source = sources.get(span.file);
            LocatedLabel {
                path: source.path.clone(),
                start: source.position(span.start),
                end: source.position(span.end),
                text: text.clone(),
            }
        };
        LocatedDiagnostic {
            level: self.level,
            message: self.message.clone(),
            labels: self.labels.iter().map(label).collect(),
            help: self.help.clone(),
            notes: self.notes_with_chain(sources),
        }
    }

    /// The notes, and how the file was reached that the primary place lies in.
    ///
    /// # Panics
    ///
    /// If a label's file was not added to `sources`.
    pub fn notes_with_chain(&self, sources: &Sources) -> Vec<String> {
        let chain = self.span().map(|span| sources.chain(span.file)).unwrap_or_default();
        self.notes.iter().cloned().chain(chain).collect()
    }
}

/// How grave a [`Diagnostic`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The pipeline cannot run.
    Error,
    /// The pipeline can run, perhaps not as meant.
    Warning,
}

/// A stretch of one file, in bytes of its UTF-8 text; `end` is exclusive.
///
/// Spans order by file, then by place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The file.
    pub file: FileId,
    /// Offset of the first byte.
    pub start: usize,
    /// Offset after the last byte.
    pub end: usize,
}

/// One of the texts in [`Sources`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(u32);

/// The texts that spans point into.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    files: Vec<Source>,
}

impl Sources {
    /// Keeps `text` under the name `path`, as it is to be shown to people.
    ///
    /// # Panics
    ///
    /// After 2³² files.
    pub fn add(&mut self, path: impl Into<String>, text: impl Into<String>) -> FileId {
        let file = u32::try_from(self.files.len()).expect("nobody reads 2^32 files in one run");
        self.files.push(Source { path: path.into(), text: text.into(), included_at: None });
        FileId(file)
    }

    /// As [`Sources::add`], for a file that another one includes at `place`.
    ///
    /// # Panics
    ///
    /// After 2³² files.
    pub fn add_included(&mut self, path: impl Into<String>, text: impl Into<String>, place: Span) -> FileId {
        let file = self.add(path, text);
        self.files[file.0 as usize].included_at = Some(place);
        file
    }

    /// How a file came to be read, from the file itself outwards: `included from chest-ct.yaml:4:10`.
    ///
    /// # Panics
    ///
    /// If `file` comes from other sources.
    pub fn chain(&self, file: FileId) -> Vec<String> {
        let mut chain = Vec::new();
        let mut included_at = self.get(file).included_at;
        while let Some(place) = included_at {
            let source = self.get(place.file);
            let Position { line, column } = source.position(place.start);
            chain.push(format!("included from {}:{line}:{column}", source.path));
            included_at = source.included_at;
        }
        chain
    }

    /// The file that `add` returned `file` for.
    ///
    /// # Panics
    ///
    /// If `file` comes from other sources.
    pub fn get(&self, file: FileId) -> &Source {
        &self.files[file.0 as usize]
    }
}

/// A file as it was read.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its path as people know it; need not exist (a command line has a text too).
    pub path: String,
    /// The whole text.
    pub text: String,
    /// Where another file includes it.
    pub included_at: Option<Span>,
}

impl Source {
    /// Line and column of a byte offset. An offset inside a character counts as that character's,
    /// one behind the text as the text's end. A byte-order mark takes no column.
    pub fn position(&self, offset: usize) -> Position {
        let before = &self.text[..self.text.floor_char_boundary(offset)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let in_line = before[line_start..].trim_start_matches('\u{feff}');
        Position {
            line: before.bytes().filter(|&byte| byte == b'\n').count() + 1,
            column: in_line.chars().count() + 1,
        }
    }
}

/// A place as editors count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Position {
    /// 1-based.
    pub line: usize,
    /// 1-based, in characters (Unicode scalar values), not bytes.
    pub column: usize,
}

/// A [`Diagnostic`] as `--json` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LocatedDiagnostic {
    /// `"error"` or `"warning"`.
    pub level: Level,
    /// See [`Diagnostic::message`].
    pub message: String,
    /// The places; the first is the primary one.
    pub labels: Vec<LocatedLabel>,
    /// What to do about it; null where there is nothing to add.
    pub help: Option<String>,
    /// Further facts.
    pub notes: Vec<String>,
}

/// One place of a [`LocatedDiagnostic`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LocatedLabel {
    /// The file's path as people know it.
    pub path: String,
    /// The first character.
    pub start: Position,
    /// The character after the last.
    pub end: Position,
    /// What there is to say about this place; may be empty.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn columns_count_characters_and_lines_end_with_newline() {
        let mut sources = Sources::default();
        let file = sources.add("p.yaml", "é: ü\r\nβγ: δ\n");
        let source = sources.get(file);
        let at = |needle: &str| source.position(source.text.find(needle).expect("it is in the text"));
        assert_eq!(at("ü"), Position { line: 1, column: 4 });
        assert_eq!(at("γ"), Position { line: 2, column: 2 });
        assert_eq!(at("δ"), Position { line: 2, column: 5 });
        assert_eq!(source.position(1), Position { line: 1, column: 1 }, "inside `é`");
        assert_eq!(source.position(9999), Position { line: 3, column: 1 });
    }

    #[test]
    fn byte_order_mark_takes_no_column() {
        let mut sources = Sources::default();
        let file = sources.add("p.yaml", "\u{feff}a: 1\n");
        assert_eq!(sources.get(file).position(3), Position { line: 1, column: 1 });
    }

    #[test]
    fn spans_order_by_file_then_place() {
        let mut sources = Sources::default();
        let (a, b) = (sources.add("a", ""), sources.add("b", ""));
        let mut spans = [
            Span { file: b, start: 0, end: 1 },
            Span { file: a, start: 5, end: 6 },
            Span { file: a, start: 2, end: 9 },
        ];
        spans.sort();
        assert_eq!(spans.map(|span| (span.file == a, span.start)), [(true, 2), (true, 5), (false, 0)]);
    }

    #[test]
    fn json_has_lines_columns_and_every_part() {
        let mut sources = Sources::default();
        let file = sources.add("pipelines/x.yaml", "é: 1\né: 2\n");
        let diagnostic = Diagnostic::error(Span { file, start: 6, end: 8 }, "`é` is defined twice")
            .label(Span { file, start: 6, end: 8 }, "again")
            .label(Span { file, start: 0, end: 2 }, "first")
            .help("remove one")
            .note("keys are unique");
        let json = serde_json::to_string_pretty(&diagnostic.located(&sources)).expect("it is plain data");
        expect![[r#"
            {
              "level": "error",
              "message": "`é` is defined twice",
              "labels": [
                {
                  "path": "pipelines/x.yaml",
                  "start": {
                    "line": 2,
                    "column": 1
                  },
                  "end": {
                    "line": 2,
                    "column": 2
                  },
                  "text": "again"
                },
                {
                  "path": "pipelines/x.yaml",
                  "start": {
                    "line": 1,
                    "column": 1
                  },
                  "end": {
                    "line": 1,
                    "column": 2
                  },
                  "text": "first"
                }
              ],
              "help": "remove one",
              "notes": [
                "keys are unique"
              ]
            }"#]]
        .assert_eq(&json);
    }
}
