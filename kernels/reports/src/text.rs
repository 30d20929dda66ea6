//! The text of a report in one spelling, so that equal reports are equal texts.

use unicode_normalization::UnicodeNormalization;

/// The text with one spelling of what a reader does not see: line ends are `\n`, characters are composed (Unicode
/// NFC), blanks of any kind are single spaces, at most one empty line stands between paragraphs, and nothing stands
/// before the first or behind the last word. Soft hyphens, zero-width and control characters are gone.
///
/// Words, case, punctuation and line breaks stay: they can mean something.
pub fn normalised(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.replace("\r\n", "\n").split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}', '\u{0c}']) {
        let line: String = line.chars().filter(|c| c.is_whitespace() || !is_invisible(*c)).nfc().collect();
        for (place, word) in line.split_whitespace().enumerate() {
            if place > 0 {
                out.push(' ');
            }
            out.push_str(word);
        }
        if !out.ends_with("\n\n") {
            out.push('\n');
        }
    }
    out.trim().to_owned()
}

fn is_invisible(c: char) -> bool {
    c.is_control() || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_sees_has_one_spelling() {
        for (text, expected) in [
            ("  Small\u{a0}effusion. \r\n\r\n\r\n\r\nStable.\t ", "Small effusion.\n\nStable."),
            ("Lunge\u{ad}nfl\u{75}\u{308}gel\rKein\u{200b} Erguss", "Lungenflügel\nKein Erguss"),
            ("\u{feff}a\u{0}b", "ab"),
            (" \n \n", ""),
            ("FINDINGS:\n- a\n- b", "FINDINGS:\n- a\n- b"),
        ] {
            assert_eq!(normalised(text), expected, "{text:?}");
            assert_eq!(normalised(&normalised(text)), normalised(text), "{text:?} once more");
        }
    }
}
