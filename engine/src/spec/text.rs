//! A file as text, refused early where it is none or too large to have been written by hand.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Largest file that is read as text, in bytes: what the YAML reader takes.
pub const MAX_BYTES: u64 = 8 << 20;

/// The text of a file. What is said of one that does not read has no path in it.
///
/// # Errors
/// Why the file is not text, or does not open.
pub fn read(path: &Path) -> Result<String, String> {
    let does_not_read = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "it may not be read by this user".to_owned(),
        _ => error.to_string(),
    };
    let file = File::open(path).map_err(does_not_read)?;
    let meta = file.metadata().map_err(does_not_read)?;
    if meta.is_dir() {
        return Err("it is a folder, expected a file".to_owned());
    }
    let mut bytes = Vec::new();
    // One byte more tells of a file that has no length beforehand, such as a pipe.
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(does_not_read)?;
    if bytes.len() as u64 > MAX_BYTES {
        let size = meta.len().max(bytes.len() as u64);
        return Err(format!("it has {size} bytes, expected at most {MAX_BYTES}"));
    }
    if bytes.contains(&0) {
        return Err("it is a binary file, expected text".to_owned());
    }
    String::from_utf8(bytes).map_err(|error| {
        let (valid, bytes) = (error.utf8_error().valid_up_to(), error.as_bytes());
        let line = bytes[..valid].iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("it is not UTF-8: line {line} has a byte that is no character; save it as UTF-8")
    })
}
