//! Files and folders that survive a crash, and what to say when the disk refuses.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Only the owner may look into a store: it holds patient text.
const PRIVATE_FOLDER_MODE: u32 = 0o700;

/// Makes `folder`, and the folders above it, readable by the owner alone; one that exists is left as it is.
pub(crate) fn create_private_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(PRIVATE_FOLDER_MODE).create(folder)
}

/// Makes the names in `folder` durable.
///
/// A file whose bytes are synced can still lose its name in a crash until its folder is synced too.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Whether `file` is still what lies at `path`: another process may have replaced or removed it.
pub(crate) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let open = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (open.dev(), open.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Says which store refused what, why, and what to do about it; the kind of the error is kept.
pub(crate) fn storage_error(root: &Path, doing: &str, error: io::Error) -> io::Error {
    let hint = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            "; free some space and run the same command again: what is finished is kept"
        }
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => {
            "; make the folder writable for this user, or choose another store"
        }
        _ => "",
    };
    io::Error::new(error.kind(), format!("cannot {doing} in the store at {}: {error}{hint}", root.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_store_and_the_way_out() {
        let root = Path::new("/data/.argent");
        let full = storage_error(root, "write a blob", ErrorKind::StorageFull.into());
        assert_eq!(full.kind(), ErrorKind::StorageFull);
        assert_eq!(
            full.to_string(),
            "cannot write a blob in the store at /data/.argent: no storage space; free some space and run the \
             same command again: what is finished is kept"
        );
        let fixed = storage_error(root, "write a blob", ErrorKind::ReadOnlyFilesystem.into());
        assert!(fixed.to_string().ends_with("choose another store"), "{fixed}");
    }

    #[test]
    fn a_replaced_file_is_no_longer_at_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let file = File::create(&path).unwrap();
        assert!(is_at(&file, &path).unwrap());
        fs::remove_file(&path).unwrap();
        assert!(!is_at(&file, &path).unwrap());
        File::create(&path).unwrap();
        assert!(!is_at(&file, &path).unwrap());
    }
}
