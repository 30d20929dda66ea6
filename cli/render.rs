//! Diagnostics as people read them in a terminal: the line of the file, underlined, as rustc shows it.

use std::borrow::Cow;
use std::collections::HashSet;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Renderer, Snippet};
use argent_engine::diagnostic::{Diagnostic, FileId, Level, Sources, Span};

/// More than this is no list of mistakes but one mistake in what wrote the file.
const MOST_SHOWN: usize = 100;

/// The diagnostics in the order of the files and of the places in them, each once, with a blank line between any two
/// and their count at the end; of more than 100 the first 100. No diagnostics give no text.
///
/// `colour` adds ANSI escapes; every word and caret is the same without.
///
/// # Panics
///
/// If a diagnostic speaks of a file that is not in `sources`.
pub(crate) fn render(diagnostics: &[Diagnostic], sources: &Sources, colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() }.decor_style(DecorStyle::Ascii);
    let mut seen = HashSet::new();
    // What an alias repeats is checked at each use, and wrong at one place.
    let mut ordered: Vec<&Diagnostic> =
        diagnostics.iter().filter(|diagnostic| seen.insert(*diagnostic)).collect();
    ordered.sort_by_key(|diagnostic| diagnostic.span());
    let shown = &ordered[..ordered.len().min(MOST_SHOWN)];
    let mut text: String =
        shown.iter().map(|diagnostic| one(diagnostic, sources, &renderer) + "\n\n").collect();
    if !ordered.is_empty() {
        text += &count(&ordered, sources);
        if shown.len() < ordered.len() {
            text += &format!(", of which the first {MOST_SHOWN} are shown");
        }
        text.push('\n');
    }
    text
}

fn one(diagnostic: &Diagnostic, sources: &Sources, renderer: &Renderer) -> String {
    let level = match diagnostic.level {
        Level::Error => annotate_snippets::Level::ERROR,
        Level::Warning => annotate_snippets::Level::WARNING,
    };
    let snippets = files(diagnostic).into_iter().map(|file| snippet(diagnostic, file, sources));
    let notes = diagnostic.notes_with_chain(sources);
    let mut group = level.primary_title(printable(&diagnostic.message)).elements(snippets);
    for note in &notes {
        group = group.element(annotate_snippets::Level::NOTE.message(printable(note)));
    }
    let help = diagnostic
        .help
        .as_deref()
        .map(|help| Group::with_title(annotate_snippets::Level::HELP.secondary_title(printable(help))));
    let groups: Vec<Group<'_>> = std::iter::once(group).chain(help).collect();
    renderer.render(&groups)
}

/// The files that it speaks of, that of the primary place first.
fn files(diagnostic: &Diagnostic) -> Vec<FileId> {
    let mut files = Vec::new();
    for (span, _) in &diagnostic.labels {
        if !files.contains(&span.file) {
            files.push(span.file);
        }
    }
    files
}

fn snippet<'a>(
    diagnostic: &'a Diagnostic,
    file: FileId,
    sources: &'a Sources,
) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
    let source = sources.get(file);
    let annotations = diagnostic.labels.iter().enumerate().filter(|(_, (span, _))| span.file == file).map(
        |(index, (span, label))| {
            let kind = if index == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
            let annotation = kind.span(within(&source.text, span));
            if label.is_empty() { annotation } else { annotation.label(printable(label)) }
        },
    );
    Snippet::source(source.text.as_str()).path(printable(&source.path)).annotations(annotations)
}

/// Messages quote files, and an escape sequence in a file must not reach the terminal. (The renderer shows control
/// characters of the lines themselves as symbols.)
fn printable(text: &str) -> Cow<'_, str> {
    let is_unsafe = |character: char| character.is_control() && character != '\n';
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let shown = |character: char| if is_unsafe(character) { '\u{fffd}' } else { character };
    Cow::Owned(text.chars().map(shown).collect())
}

/// The span's bytes, cut to whole characters of the text: a caller's span may be of a value put in for another.
fn within(text: &str, span: &Span) -> std::ops::Range<usize> {
    let start = text.floor_char_boundary(span.start.min(text.len()));
    let end = text.floor_char_boundary(span.end.min(text.len()));
    start..end.max(start)
}

/// `5 mistakes and 1 warning in pipelines/x.yaml`.
fn count(diagnostics: &[&Diagnostic], sources: &Sources) -> String {
    let of_level = |level| diagnostics.iter().filter(|diagnostic| diagnostic.level == level).count();
    let counts = [("mistake", of_level(Level::Error)), ("warning", of_level(Level::Warning))];
    let counts: Vec<String> = counts
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(noun, count)| format!("{count} {noun}{}", if count == 1 { "" } else { "s" }))
        .collect();
    let mut paths: Vec<&str> = diagnostics
        .iter()
        .filter_map(|diagnostic| Some(sources.get(diagnostic.span()?.file).path.as_str()))
        .collect();
    paths.sort_unstable();
    paths.dedup();
    let place = match paths.as_slice() {
        [] => String::new(),
        [path] => format!(" in {path}"),
        paths => format!(" in {} files", paths.len()),
    };
    counts.join(" and ") + &place
}

#[cfg(test)]
mod tests {
    use argent_engine::yaml;
    use expect_test::expect;

    use super::*;

    fn span(sources: &Sources, file: FileId, part: &str) -> Span {
        let start = sources.get(file).text.find(part).expect("the part is in the text");
        Span { file, start, end: start + part.len() }
    }

    const SPEC: &str = "# Größe: 1 mm\r\nsteps:\r\n  grid:\r\n    use: volumes.resample\r\n    with: { größe: µ, spacng_mm: [1.5, 1.5], order: up }\r\n";

    #[test]
    fn rustc_look_with_place_label_help_and_note() {
        let mut sources = Sources::default();
        let file = sources.add("pipelines/x.yaml", SPEC);
        let diagnostic = Diagnostic::error(
            span(&sources, file, "spacng_mm"),
            "`spacng_mm` is not a parameter of volumes.resample",
        )
        .label(span(&sources, file, "spacng_mm"), "not a parameter")
        .label(span(&sources, file, "volumes.resample"), "of this operator")
        .help("did you mean `spacing_mm`?")
        .note("lengths are in millimetres");
        expect![[r#"
            error: `spacng_mm` is not a parameter of volumes.resample
             --> pipelines/x.yaml:5:23
              |
            4 |     use: volumes.resample
              |          ---------------- of this operator
            5 |     with: { größe: µ, spacng_mm: [1.5, 1.5], order: up }
              |                       ^^^^^^^^^ not a parameter
              |
              = note: lengths are in millimetres
            help: did you mean `spacing_mm`?

            1 mistake in pipelines/x.yaml
        "#]]
        .assert_eq(&render(&[diagnostic], &sources, false));
    }

    #[test]
    fn ordered_by_place_each_once_with_a_count() {
        let mut sources = Sources::default();
        let file = sources.add("pipelines/x.yaml", SPEC);
        let late = Diagnostic::error(span(&sources, file, "up"), "`up` is not a value of `order`");
        let early = Diagnostic::warning(span(&sources, file, "grid"), "`grid` is read by no step");
        expect![[r#"
            warning: `grid` is read by no step
             --> pipelines/x.yaml:3:3
              |
            3 |   grid:
              |   ^^^^

            error: `up` is not a value of `order`
             --> pipelines/x.yaml:5:53
              |
            5 |     with: { größe: µ, spacng_mm: [1.5, 1.5], order: up }
              |                                                     ^^

            1 mistake and 1 warning in pipelines/x.yaml
        "#]]
        .assert_eq(&render(&[late.clone(), early, late], &sources, false));
    }

    #[test]
    fn two_files() {
        let mut sources = Sources::default();
        let spec = sources.add("x.yaml", "findings: pack.yaml\n");
        let pack = sources.add("pack.yaml", "findings: 3\n");
        let both = Diagnostic::error(
            span(&sources, pack, "3"),
            "expected a list for `findings`, found a whole number",
        )
        .label(span(&sources, spec, "pack.yaml"), "read from here");
        let other = Diagnostic::error(span(&sources, spec, "findings"), "`findings` is wrong");
        expect![[r#"
            error: `findings` is wrong
             --> x.yaml:1:1
              |
            1 | findings: pack.yaml
              | ^^^^^^^^

            error: expected a list for `findings`, found a whole number
             --> pack.yaml:1:11
              |
            1 | findings: 3
              |           ^
              |
             ::: x.yaml:1:11
              |
            1 | findings: pack.yaml
              |           --------- read from here

            2 mistakes in 2 files
        "#]]
        .assert_eq(&render(&[both, other], &sources, false));
    }

    #[test]
    fn spans_over_lines_at_the_end_and_empty() {
        let mut sources = Sources::default();
        let file = sources.add("x.yaml", "a: [1,\n  2]\nb:\n");
        let list = Diagnostic::error(
            span(&sources, file, "[1,\n  2]"),
            "expected a list of 3 numbers for `a`, found a list of 2",
        );
        let nothing =
            Diagnostic::error(Span { file, start: 14, end: 14 }, "expected text for `b`, found nothing");
        let end = Diagnostic::error(Span { file, start: 15, end: 15 }, "at the end");
        let behind = Diagnostic::error(Span { file, start: 99, end: 120 }, "behind the end");
        expect![[r#"
            error: expected a list of 3 numbers for `a`, found a list of 2
             --> x.yaml:1:4
              |
            1 |   a: [1,
              |  ____^
            2 | |   2]
              | |____^

            error: expected text for `b`, found nothing
             --> x.yaml:3:3
              |
            3 | b:
              |   ^

            error: at the end
             --> x.yaml:3:4
              |
            3 | b:
              |   ^

            error: behind the end
             --> x.yaml:3:4
              |
            3 | b:
              |   ^

            4 mistakes in x.yaml
        "#]]
        .assert_eq(&render(&[list, nothing, end, behind], &sources, false));
    }

    #[test]
    fn empty_file() {
        let mut sources = Sources::default();
        let file = sources.add("x.yaml", "");
        let diagnostic =
            Diagnostic::error(Span { file, start: 0, end: 0 }, "`name` is missing: a pipeline needs it");
        expect![[r#"
            error: `name` is missing: a pipeline needs it
             --> x.yaml:1:1
              |
            1 |
              | ^

            1 mistake in x.yaml
        "#]]
        .assert_eq(&render(&[diagnostic], &sources, false));
    }

    #[test]
    fn duplicate_keys_show_both_places() {
        let mut sources = Sources::default();
        let text = "lr: 1\nepochs: 2\n\n\n\n\n\n\n\nlr: 2\n";
        let file = sources.add("x.yaml", text);
        let mistakes = yaml::parse(file, text).expect_err("`lr` is there twice");
        expect![[r#"
            error: `lr` is defined twice in one mapping
              --> x.yaml:10:1
               |
             1 | lr: 1
               | -- first defined here
            ...
            10 | lr: 2
               | ^^ defined again
               |
            help: remove one of the two, or give it another name

            1 mistake in x.yaml
        "#]]
        .assert_eq(&render(&mistakes, &sources, false));
    }

    #[test]
    fn tab_is_shown() {
        let mut sources = Sources::default();
        let text = "a:\n\tb: 1\n";
        let file = sources.add("x.yaml", text);
        let mistakes = yaml::parse(file, text).expect_err("YAML takes no tabs");
        expect![[r#"
            error: a tab stands where spaces are expected
             --> x.yaml:2:1
              |
            2 |     b: 1
              | ^^^^
              |
            help: indent with spaces

            1 mistake in x.yaml
        "#]]
        .assert_eq(&render(&mistakes, &sources, false));
    }

    #[test]
    fn a_flood_is_cut() {
        let mut sources = Sources::default();
        let text = "k: 1\n".repeat(1001);
        let file = sources.add("x.yaml", text.as_str());
        let mistakes = yaml::parse(file, &text).expect_err("`k` is there often");
        let shown = render(&mistakes, &sources, false);
        assert_eq!(shown.matches("error:").count(), 100);
        assert!(shown.ends_with("\n1000 mistakes in x.yaml, of which the first 100 are shown\n"));
    }

    #[test]
    fn nothing_wrong_is_no_text() {
        assert_eq!(render(&[], &Sources::default(), true), "");
    }

    #[test]
    fn colour_adds_no_words() {
        let mut sources = Sources::default();
        let file = sources.add("x.yaml", SPEC);
        let diagnostic = Diagnostic::error(span(&sources, file, "up"), "`up` is not a value of `order`")
            .label(span(&sources, file, "order"), "here")
            .help("there are `ascending` and `descending`")
            .note("a note");
        let diagnostics = [diagnostic];
        let (plain, coloured) = (render(&diagnostics, &sources, false), render(&diagnostics, &sources, true));
        assert!(coloured.contains("\u{1b}["), "there is colour");
        assert_eq!(without_escapes(&coloured), plain);
    }

    #[test]
    fn escapes_in_a_file_do_not_reach_the_terminal() {
        let mut sources = Sources::default();
        let file = sources.add("x.yaml", "a: \u{1b}[31mx\n");
        let diagnostic = Diagnostic::error(Span { file, start: 0, end: 1 }, "`\u{1b}[31m` is unknown")
            .label(Span { file, start: 0, end: 1 }, "\u{1b}[31m")
            .help("\u{1b}[31m")
            .note("\u{1b}[31m");
        expect![[r#"
            error: `�[31m` is unknown
             --> x.yaml:1:1
              |
            1 | a: ␛[31mx
              | ^ �[31m
              |
              = note: �[31m
            help: �[31m

            1 mistake in x.yaml
        "#]]
        .assert_eq(&render(&[diagnostic], &sources, false));
    }

    /// Text without ANSI colour sequences, which end with `m`.
    fn without_escapes(text: &str) -> String {
        let mut parts = text.split("\u{1b}[");
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |all, part| all + part.split_once('m').map_or(part, |(_, rest)| rest))
    }
}
