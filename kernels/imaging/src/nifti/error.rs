//! Why a NIfTI file was refused.

use std::fmt;

/// A NIfTI file that cannot be read as a volume.
#[derive(Debug)]
pub struct ReadError {
    /// The name of the file, as the caller gave it.
    pub name: String,
    /// What is wrong with it.
    pub problem: ReadProblem,
}

/// What is wrong with a NIfTI file.
#[derive(Debug)]
pub enum ReadProblem {
    /// The operating system would not read it.
    Io(std::io::Error),
    /// It is not NIfTI: what it seems to be instead.
    NotNifti(String),
    /// It ends too early. Sizes in bytes, after decompression.
    Truncated {
        /// The part that is cut short.
        part: &'static str,
        /// Bytes that the header asks for.
        expected: u64,
        /// Bytes that are there.
        actual: u64,
    },
    /// The gzip stream is cut short, damaged, or fails its checksum.
    Gzip(String),
    /// The header contradicts itself or the standard.
    Header(String),
    /// It is sound NIfTI of a kind that is no scalar volume.
    Unsupported(String),
    /// A header and image pair is incomplete.
    Pair(String),
    /// Voxels that are no numbers.
    NotFinite {
        /// How many voxels are NaN or infinite.
        count: usize,
        /// How many voxels there are.
        of: usize,
        /// Index of the first one.
        first: [usize; 3],
    },
}

impl ReadProblem {
    /// The error for the file `name`.
    pub(super) fn in_file(self, name: &str) -> ReadError {
        ReadError { name: name.to_owned(), problem: self }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.problem)
    }
}

impl fmt::Display for ReadProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadProblem::Io(error) => write!(f, "cannot be read: {error}"),
            ReadProblem::NotNifti(what) => write!(f, "not a NIfTI file: {what}"),
            ReadProblem::Truncated { part, expected, actual } => write!(
                f,
                "truncated: the {part} needs {expected} bytes and {actual} are there; copy the file again from its source"
            ),
            ReadProblem::Gzip(what) => {
                write!(f, "damaged gzip stream: {what}; copy the file again from its source")
            }
            ReadProblem::Header(what) => write!(f, "broken header: {what}"),
            ReadProblem::Unsupported(what) => write!(f, "{what}"),
            ReadProblem::Pair(what) => write!(f, "{what}"),
            ReadProblem::NotFinite { count, of, first: [i, j, k] } => write!(
                f,
                "{count} of {of} voxels are NaN or infinite, the first at ({i}, {j}, {k}); expected numbers, because one \
                 such voxel spoils every voxel interpolated from it: replace them at the source"
            ),
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.problem {
            ReadProblem::Io(error) => Some(error),
            _ => None,
        }
    }
}
