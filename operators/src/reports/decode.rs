//! From the bytes of a text file to its text.

use encoding_rs::{Encoding, UTF_8, WINDOWS_1252};

/// The text of these bytes: in the named encoding, or, without a name, what they tell of themselves (a byte order
/// mark, UTF-8), and Windows-1252 where they are no UTF-8, as the files of older hospital systems are.
///
/// # Errors
/// When the name is none of the Encoding Standard's, or the bytes are not text in that encoding; the message holds
/// nothing of the text.
pub fn text(bytes: &[u8], encoding: Option<&str>) -> Result<String, String> {
    let chosen = match encoding {
        Some(name) => named(name)?,
        None => match Encoding::for_bom(bytes) {
            Some((encoding, _)) => encoding,
            None if std::str::from_utf8(bytes).is_ok() => UTF_8,
            None => WINDOWS_1252,
        },
    };
    let (text, used, damaged) = chosen.decode(bytes);
    if damaged {
        return Err(format!("the bytes are not text in {}", used.name()));
    }
    if text.contains('\0') {
        return Err("the file holds zero bytes: it is no text, or text in another encoding".to_owned());
    }
    Ok(text.into_owned())
}

/// The encoding of this name (`utf-8`, `windows-1252`, `iso-8859-15`, `utf-16le`, …).
///
/// # Errors
/// When there is none.
pub fn named(name: &str) -> Result<&'static Encoding, String> {
    let unknown =
        || format!("`{name}` names no encoding; there are utf-8, windows-1252, iso-8859-15, utf-16le …");
    Encoding::for_label(name.as_bytes()).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_tell_their_encoding_where_they_can() {
        assert_eq!(text("Erguß".as_bytes(), None).as_deref(), Ok("Erguß"));
        assert_eq!(text(b"\xef\xbb\xbfErgu\xc3\x9f", None).as_deref(), Ok("Erguß"));
        assert_eq!(text(b"Ergu\xdf", None).as_deref(), Ok("Erguß"));
        assert_eq!(text(b"\xff\xfeE\0r\0", None).as_deref(), Ok("Er"));
        assert_eq!(text(b"E\0r\0", Some("utf-16le")).as_deref(), Ok("Er"));
    }

    #[test]
    fn what_is_no_text_is_refused_without_a_word_of_it() {
        assert_eq!(text(b"Ergu\xdf", Some("utf-8")), Err("the bytes are not text in UTF-8".to_owned()));
        assert!(text(b"E\0r\0", None).unwrap_err().contains("zero bytes"));
        assert!(text(b"a", Some("iso-8859-15")).is_ok() && text(b"a", Some("ebcdic")).is_err());
    }
}
