//! From the notation of a pack to a regular expression.

/// Up to five other words, for the notation ` ... `.
const GAP: &str = r"[ ,/-]+(?:[^ ,/;:-]+[ ,/-]+){0,5}?";

/// What follows is no letter, digit or underscore.
const END_BOUNDARY: &str = r"(?-u:\b{end-half})";

/// Regular expression of a pattern that matches whole words.
///
/// The text has been folded (see [`crate::sentences::fold`]), so that a space stands for any white
/// space. Word boundaries are those of ASCII: with Unicode ones the matcher leaves its fast path at
/// the first umlaut.
pub(crate) fn whole_words(pattern: &str) -> String {
    let starts_with_sign = pattern.starts_with(|c: char| c.is_ascii_punctuation() && !"([\\".contains(c));
    let start = if starts_with_sign { "" } else { r"(?-u:\b{start-half})" };
    let end = if pattern.ends_with(' ') { "" } else { END_BOUNDARY };
    format!("{start}(?:{}){end}", expand(pattern))
}

/// The expression of [`whole_words`] or [`synonym`] without the condition at its end.
pub(crate) fn without_end_boundary(expression: &str) -> &str {
    expression.strip_suffix(END_BOUNDARY).unwrap_or(expression)
}

/// The pattern with ` ... ` and spaces expanded, in lower case as the folded text is.
///
/// Character classes keep their spaces, and escapes such as `\\W` their case.
pub(crate) fn expand(pattern: &str) -> String {
    let mut expanded = String::with_capacity(pattern.len() * 2);
    let (mut in_class, mut escaped) = (false, false);
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        if !in_class
            && !escaped
            && let Some(after) = rest.strip_prefix(" ... ")
        {
            expanded.push_str(GAP);
            rest = after;
            continue;
        }
        match c {
            ' ' if !in_class => expanded.push_str("(?: +)"),
            c if escaped => expanded.push(c),
            c => expanded.extend(c.to_lowercase()),
        }
        in_class = if escaped { in_class } else { (in_class || c == '[') && c != ']' };
        escaped = c == '\\' && !escaped;
        rest = &rest[c.len_utf8()..];
    }
    expanded
}

/// Regular expression of a plain phrase: any spacing or hyphen between the words, last word also
/// in its plural.
pub(crate) fn synonym(phrase: &str) -> String {
    let words: Vec<&str> = phrase.split([' ', '-']).filter(|word| !word.is_empty()).collect();
    let Some((last, first)) = words.split_last() else { return String::new() };
    let mut expression = String::from(r"(?-u:\b{start-half})");
    for word in first {
        expression.push_str(&regex::escape(word));
        expression.push_str("[ -]+");
    }
    expression.push_str(&with_plural(last));
    expression.push_str(END_BOUNDARY);
    expression
}

/// A word or its plural, by the regular English and the common Latin and Greek endings.
fn with_plural(word: &str) -> String {
    const ENDINGS: [(&str, &str); 8] = [
        ("sis", "s[ie]s"),
        ("xis", "x[ie]s"),
        ("us", "(?:us|uses|i)"),
        ("um", "(?:um|ums|a)"),
        ("oma", "oma(?:s|ta)?"),
        ("ura", "ura[es]?"),
        ("thorax", "thora(?:x|xes|ces)"),
        ("y", "(?:y|ies)"),
    ];
    let lower = word.to_lowercase();
    for (ending, plural) in ENDINGS {
        if let Some(stem) = lower.strip_suffix(ending).filter(|stem| stem.len() > 1) {
            return format!("{}{plural}", regex::escape(stem));
        }
    }
    if lower.ends_with(|c: char| c.is_ascii_alphabetic()) {
        format!("{}(?:e?s)?", regex::escape(&lower))
    } else {
        regex::escape(&lower)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use regex::Regex;

    #[test]
    fn synonyms_match_whole_words_and_plurals() {
        for (phrase, text, matches) in [
            ("stent", "consistent with", false),
            ("stent", "two stents are seen", true),
            ("pleural effusion", "pleural  effusions", true),
            ("ground glass", "ground-glass density", true),
            ("atelectasis", "atelectases", true),
            ("pneumothorax", "pneumothoraces", true),
            ("opacity", "opacities", true),
            ("granuloma", "granulomata", true),
            ("thrombus", "thrombi", true),
            ("mass", "masses", true),
            ("mass", "massive", false),
            ("C++", "c++ code", true),
        ] {
            let expression = synonym(phrase);
            assert_eq!(Regex::new(&expression).unwrap().is_match(text), matches, "{phrase} in {text}");
        }
    }

    #[test]
    fn patterns_expand_spaces_and_gaps() {
        for (pattern, text, matches) in [
            ("heart ... enlarged", "heart is mildly enlarged", true),
            ("heart ... enlarged", "heart enlarged", true),
            ("heart ... enlarged", "heart a b c d e f enlarged", false),
            ("low lung", "low   lung volumes", true),
            ("a[ -]b", "a-b", true),
            (r"a\[ b", "a[  b", true),
            ("hemi ?diaphragm", "hemidiaphragm", true),
            ("COPD", "copd", true),
            (r"cat\W+scan", "cat - scan", true),
            ("effusion", "effusions", false),
        ] {
            let expression = whole_words(pattern);
            assert_eq!(Regex::new(&expression).unwrap().is_match(text), matches, "{pattern} in {text}");
        }
    }
}
