//! Why a DICOM file was refused.

use std::fmt;

/// A DICOM file that cannot be read.
#[derive(Debug)]
pub struct DicomError {
    /// The name of the file, as the caller gave it.
    pub name: String,
    /// What is wrong with it.
    pub problem: DicomProblem,
}

/// What is wrong with a DICOM file.
#[derive(Debug)]
pub enum DicomProblem {
    /// The operating system would not read it.
    Io(std::io::Error),
    /// It is not DICOM: what it seems to be instead.
    NotDicom(String),
    /// It ends too early. Sizes in bytes.
    Truncated {
        /// The part that is cut short.
        part: &'static str,
        /// Bytes that the part needs.
        expected: u64,
        /// Bytes that are there.
        actual: u64,
    },
    /// Its elements contradict themselves or the standard.
    Header(String),
    /// It has no pixel data: a report, a plan, an index of other files.
    NoPixels,
    /// Its transfer syntax, or what a codestream of it holds, is one that is not decoded.
    Codec {
        /// The transfer syntax.
        uid: String,
        /// The codec's name.
        codec: &'static str,
        /// What is not decoded.
        what: String,
    },
    /// The codestream is damaged.
    Damaged {
        /// The codec's name.
        codec: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// It is sound DICOM of a kind that is not one grey image.
    Unsupported(String),
}

impl DicomProblem {
    /// The error for the file `name`.
    pub(super) fn in_file(self, name: &str) -> DicomError {
        DicomError { name: name.to_owned(), problem: self }
    }
}

impl fmt::Display for DicomError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.problem)
    }
}

impl fmt::Display for DicomProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DicomProblem::Io(error) => write!(f, "cannot be read: {error}"),
            DicomProblem::NotDicom(what) => write!(f, "not a DICOM file: {what}"),
            DicomProblem::Truncated { part, expected, actual } => write!(
                f,
                "truncated: the {part} needs {expected} bytes and {actual} are there; copy the file again from its source"
            ),
            DicomProblem::Header(what) => write!(f, "broken header: {what}"),
            DicomProblem::NoPixels => write!(f, "there are no pixel data; expected an image"),
            DicomProblem::Codec { uid, codec, what } => write!(
                f,
                "{what} is not decoded (transfer syntax {uid}, {codec}); convert the file to an uncompressed or losslessly \
                 compressed one first"
            ),
            DicomProblem::Damaged { codec, what } => {
                write!(f, "damaged {codec} codestream: {what}; copy the file again from its source")
            }
            DicomProblem::Unsupported(what) => write!(f, "{what}"),
        }
    }
}

impl std::error::Error for DicomError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.problem {
            DicomProblem::Io(error) => Some(error),
            _ => None,
        }
    }
}
