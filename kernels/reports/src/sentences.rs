//! Report text in sentences, with the byte offsets of the original.

use std::ops::Range;

/// One sentence of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sentence {
    /// Byte range in the section.
    pub(crate) range: Range<usize>,
    /// Whether the sentence begins a paragraph: the section itself, or text after an empty line.
    pub(crate) starts_paragraph: bool,
}

/// Splits folded text into sentences.
///
/// A sentence ends at `. ; ! •` and `"`, at `?` outside parentheses, at an empty line, and at a line
/// break unless the next line goes on in lower case. A stop inside a number, after a known
/// abbreviation or before a lower-case word without a space ends nothing.
pub(crate) fn split(text: &str, original: &str) -> Vec<Sentence> {
    let bytes = text.as_bytes();
    let mut sentences = Vec::new();
    let (mut start, mut depth, mut starts_paragraph) = (0, 0_usize, true);
    for at in 0..bytes.len() {
        match bytes[at] {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        let Some(end) = sentence_end(bytes, original.as_bytes(), at, depth) else { continue };
        let paragraph_ends = is_empty_line(bytes, at);
        let added = push(&mut sentences, bytes, start..end, starts_paragraph);
        starts_paragraph = paragraph_ends || (starts_paragraph && !added);
        (start, depth) = (end, 0);
    }
    push(&mut sentences, bytes, start..bytes.len(), starts_paragraph);
    sentences
}

/// The text with the same byte length in lower case, with plain spaces, quotes and dashes.
///
/// Every character keeps its byte offset, so that a match in the folded text is a match in the
/// original. Line breaks and bullets stay, they end sentences.
pub(crate) fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '•' => folded.push(c),
            '\r' | '\t' | '\x0b' | '\x0c' => folded.push(' '),
            c if c.is_ascii() => folded.push(c.to_ascii_lowercase()),
            '‘' | '’' => folded.push_str("'  "),
            '“' | '”' => folded.push_str("\"  "),
            '‐' | '‑' | '‒' | '–' | '—' | '−' => folded.push_str(" - "),
            c if c.is_whitespace() || c == '\u{feff}' || c == '\u{200b}' => {
                folded.extend(std::iter::repeat_n(' ', c.len_utf8()));
            }
            c => folded.push(lower_case_of_same_length(c)),
        }
    }
    folded
}

fn lower_case_of_same_length(c: char) -> char {
    let mut lower = c.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(single), None) if single.len_utf8() == c.len_utf8() => single,
        _ => c,
    }
}

/// Byte offset behind the end of the sentence, where the character at `at` ends one.
fn sentence_end(folded: &[u8], original: &[u8], at: usize, depth: usize) -> Option<usize> {
    match folded[at] {
        b'.' => stop_ends(folded, original, at).then_some(at + 1),
        b';' | b'!' | b'"' => Some(at + 1),
        b'?' => (depth == 0 && followed_by_new_sentence(original, at)).then_some(at + 1),
        b'\n' => line_break_ends(original, at).then_some(at + 1),
        // The bullet is E2 80 A2; the sentence ends before it.
        0xe2 if folded[at..].starts_with("•".as_bytes()) => Some(at),
        _ => None,
    }
}

fn stop_ends(folded: &[u8], original: &[u8], at: usize) -> bool {
    const ABBREVIATIONS: [&str; 36] = [
        "dr", "mr", "mrs", "ms", "vs", "approx", "ca", "e.g", "i.e", "st", "fig", "resp", "bzw", "z.b",
        "z. b", "z", "v.a", "v. a", "v", "z.n", "z. n", "a.e", "a. e", "d.h", "z.t", "u.a", "i.s", "i.r",
        "o.g", "ggf", "evtl", "bds", "inkl", "fragl", "lat", "med",
    ];
    let next = folded.get(at + 1).copied().unwrap_or(b' ');
    let previous = at.checked_sub(1).map_or(b' ', |before| folded[before]);
    if previous.is_ascii_digit() && next.is_ascii_digit() {
        return false;
    }
    if next.is_ascii_alphabetic() && original[at + 1].is_ascii_lowercase() {
        return false;
    }
    let ends_here = |abbreviation: &str| {
        let before = folded[..at].strip_suffix(abbreviation.as_bytes());
        before.is_some_and(|before| before.last().is_none_or(|b| matches!(b, b' ' | b'(' | b'\n')))
    };
    !ABBREVIATIONS.into_iter().any(ends_here)
}

/// Whether what follows a question mark is a new sentence: its end of the text or a capital.
fn followed_by_new_sentence(original: &[u8], at: usize) -> bool {
    let next = original[at + 1..].iter().find(|b| !b.is_ascii_whitespace());
    next.is_none_or(|b| b.is_ascii_uppercase() || !b.is_ascii() || *b == b'"')
}

fn line_break_ends(original: &[u8], at: usize) -> bool {
    let next = original[at + 1..].iter().find(|&&b| b != b' ' && b != b'\t' && b != b'\r');
    !next.is_some_and(u8::is_ascii_lowercase)
}

/// Whether the line break at `at` is followed by an empty line.
fn is_empty_line(folded: &[u8], at: usize) -> bool {
    folded[at] == b'\n' && folded[at + 1..].iter().find(|&&b| b != b' ') == Some(&b'\n')
}

/// Adds the trimmed range, if any text is in it.
fn push(sentences: &mut Vec<Sentence>, text: &[u8], range: Range<usize>, starts_paragraph: bool) -> bool {
    let is_margin = |b: &u8| matches!(b, b' ' | b'\n' | b'"' | b'.' | b';');
    let slice = &text[range.clone()];
    let Some(first) = slice.iter().position(|b| !is_margin(b)) else { return false };
    let last = slice.iter().rposition(|b| !is_margin(b)).unwrap_or(first);
    sentences.push(Sentence { range: range.start + first..range.start + last + 1, starts_paragraph });
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentences(text: &str) -> Vec<&str> {
        split(&fold(text), text).into_iter().map(|sentence| &text[sentence.range]).collect()
    }

    #[test]
    fn sentences_end_where_they_should() {
        let cases: [(&str, &[&str]); 12] = [
            ("A 3.5 mm nodule. No effusion.", &["A 3.5 mm nodule", "No effusion"]),
            ("Clear lungs.No effusion.", &["Clear lungs", "No effusion"]),
            ("Discussed with Dr. Smith. Stable.", &["Discussed with Dr. Smith", "Stable"]),
            ("Effusion (empyema?) is seen. End", &["Effusion (empyema?) is seen", "End"]),
            ("Pneumonia? Correlate.", &["Pneumonia?", "Correlate"]),
            ("no evidence of\npneumothorax", &["no evidence of\npneumothorax"]),
            ("Cardiomegaly\nNo effusion", &["Cardiomegaly", "No effusion"]),
            ("• Nodule • Cyst", &["• Nodule", "• Cyst"]),
            ("clear; no effusion", &["clear", "no effusion"]),
            ("\" Emphysema. \" Nodule", &["Emphysema", "Nodule"]),
            ("XXXX. No XXXX pneumothorax", &["XXXX", "No XXXX pneumothorax"]),
            ("", &[]),
        ];
        for (text, expected) in cases {
            assert_eq!(sentences(text), expected, "{text}");
        }
    }

    #[test]
    fn folding_keeps_every_offset() {
        for text in ["Überblähung – “kein” Erguss", "A\u{a0}B\tİ ẞ", "’s • 5µm"] {
            let folded = fold(text);
            assert_eq!(folded.len(), text.len(), "{text}");
            for (at, _) in text.char_indices() {
                assert!(folded.is_char_boundary(at), "{text} at {at}");
            }
        }
        assert_eq!(fold("Überblähung"), "überblähung");
    }

    #[test]
    fn an_empty_line_starts_a_paragraph() {
        let text = "History: cough\n\nClear. End";
        let starts: Vec<bool> = split(&fold(text), text).iter().map(|s| s.starts_paragraph).collect();
        assert_eq!(starts, [true, true, false]);
    }
}
