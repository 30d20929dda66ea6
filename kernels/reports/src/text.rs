//! The text of a report in one spelling, so that equal reports are equal texts.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;

/// The text with one spelling of what a reader does not see: line ends are `\n`, characters are composed (Unicode
/// NFC), blanks of any kind are single spaces, at most one empty line stands between paragraphs, and nothing stands
/// before the first or behind the last word. Soft hyphens, zero-width and control characters are gone.
///
/// Words, case, punctuation and line breaks stay: they can mean something.
pub fn normalised(text: &str) -> Cow<'_, str> {
    // Most texts of most tables are so already, and there may be millions.
    if is_plain(text) { Cow::Borrowed(text) } else { Cow::Owned(respelled(text)) }
}

/// Whether a text is ASCII with single blanks and nothing that would go.
fn is_plain(text: &str) -> bool {
    let blank = |byte: u8| byte == b' ' || byte == b'\n';
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return true };
    let plain = |byte: u8| (b' '..=b'~').contains(&byte) || byte == b'\n';
    !blank(*first)
        && !blank(*last)
        && bytes.iter().all(|byte| plain(*byte))
        && !bytes.windows(2).any(|pair| blank(pair[0]) && blank(pair[1]))
}

fn respelled(text: &str) -> String {
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
            ("a\n\nb", "a\n\nb"),
            ("a \nb", "a\nb"),
            ("a", "a"),
            ("", ""),
        ] {
            assert_eq!(normalised(text), expected, "{text:?}");
            assert_eq!(normalised(&normalised(text)), normalised(text), "{text:?} once more");
            assert_eq!(normalised(text), respelled(text), "{text:?} the long way");
        }
    }
}
