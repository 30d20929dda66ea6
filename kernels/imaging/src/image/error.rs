//! Why an image file was refused.

use std::fmt;

use super::{Format, LARGEST_PIXELS};
use crate::dicom::DicomProblem;

/// A file that cannot be read as a grey image.
#[derive(Debug)]
pub struct ImageError {
    /// The name of the file, as the caller gave it.
    pub name: String,
    /// What is wrong with it.
    pub problem: ImageProblem,
}

/// What is wrong with an image file.
#[derive(Debug)]
pub enum ImageProblem {
    /// The operating system would not read it.
    Io(std::io::Error),
    /// It is no image file that is read here: what it seems to be instead.
    NotAnImage(String),
    /// It ends too early, fails a checksum, or contradicts its format.
    Damaged {
        /// The kind of file.
        format: Format,
        /// What is wrong.
        what: String,
    },
    /// It is a DICOM file that cannot be read as one grey image.
    Dicom(DicomProblem),
    /// It has more pixels than [`LARGEST_PIXELS`].
    TooLarge {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// Its channels differ.
    Colour {
        /// How many pixels are not grey.
        count: usize,
        /// How many pixels there are.
        of: usize,
        /// Column and row of the first one.
        first: [usize; 2],
    },
    /// It is a sound file of a kind that is no grey image.
    Unsupported(String),
}

impl ImageProblem {
    /// The error for the file `name`.
    pub(super) fn in_file(self, name: &str) -> ImageError {
        ImageError { name: name.to_owned(), problem: self }
    }
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.problem)
    }
}

impl fmt::Display for ImageProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageProblem::Io(error) => write!(f, "cannot be read: {error}"),
            ImageProblem::NotAnImage(what) => write!(f, "not an image: {what}"),
            ImageProblem::Damaged { format, what } => {
                write!(f, "damaged {format} file: {what}; copy the file again from its source")
            }
            ImageProblem::Dicom(problem) => problem.fmt(f),
            ImageProblem::TooLarge { width, height } => write!(
                f,
                "{width} x {height} pixels; expected at most {LARGEST_PIXELS}: make it smaller at its source, or leave it out"
            ),
            ImageProblem::Colour { count, of, first: [x, y] } => write!(
                f,
                "{count} of {of} pixels are in colour, the first at column {x}, row {y}; expected grey: a photograph, an overlay \
                 or a colour map is no X-ray image"
            ),
            ImageProblem::Unsupported(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for ImageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.problem {
            ImageProblem::Io(error) => Some(error),
            _ => None,
        }
    }
}
