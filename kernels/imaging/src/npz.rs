//! Reading volumes from numpy's `.npz` archives, such as those of RAD-ChestCT.
//!
//! An archive is a zip file of arrays, each in numpy's `.npy` format
//! (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>). It says nothing of where its voxels lie in the
//! world: spacing and orientation must be told beside it.

mod array;

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::Path;

use zip::ZipArchive;
use zip::read::ZipFile;
use zip::result::ZipError;

use crate::buffer::Buffer;
use crate::geometry::Geometry;
use crate::orientation::Orientation;
use crate::stored::{AffineSource, StoredVolume};
use crate::voxels::Voxels;
use array::ArrayHeader;

/// Reads the volume of an archive: of the array that is named, else of the only one. The last axis of the array becomes the
/// first of the volume, as numpy lays arrays out; axes of length 1 are left out. Its geometry is a spacing of 1 mm and
/// [`AffineSource::None`].
///
/// # Errors
/// [`NpzError`]: no archive, not that array, no three axes of real numbers, values that are NaN or infinite, damage.
pub fn read(path: &Path, array: Option<&str>) -> Result<StoredVolume, NpzError> {
    read_archive(BufReader::new(File::open(path)?), array)
}

/// Reads the volume of an archive in memory, as [`read`].
///
/// # Errors
/// As [`read`].
pub fn read_archive(archive: impl Read + Seek, array: Option<&str>) -> Result<StoredVolume, NpzError> {
    let mut archive = ZipArchive::new(archive).map_err(NpzError::of_zip)?;
    let name = chosen(&archive, array)?;
    let mut entry = archive.by_name(&format!("{name}{NPY}")).map_err(NpzError::of_zip)?;
    let header = ArrayHeader::read(&mut entry).map_err(|problem| problem.of(&name))?;
    let voxels = voxels(&mut entry, &header).map_err(|problem| problem.of(&name))?;
    if let Some((count, first)) = voxels.non_finite(None) {
        return Err(ArrayProblem::NotFinite { count, of: voxels.len(), first }.of(&name));
    }
    let geometry = Geometry::from_spacing(header.shape, [1.0; 3], Orientation::RAS);
    Ok(StoredVolume {
        geometry,
        voxels,
        dtype: header.dtype.name(),
        affine_source: AffineSource::None,
        scaling: None,
        warnings: Vec::new(),
    })
}

/// What the names of arrays end in, inside of an archive.
const NPY: &str = ".npy";

/// Deflate cannot expand a byte to more than this (258 bytes out of 2 bits), so a header that claims more lies.
const DEFLATE_MAX_RATIO: u64 = 1032;

fn chosen<R: Read + Seek>(archive: &ZipArchive<R>, array: Option<&str>) -> Result<String, NpzError> {
    // An entry whose name is no text cannot be asked for.
    let names: Vec<String> =
        archive.file_names().filter_map(|name| Some(name.ok()?.strip_suffix(NPY)?.to_owned())).collect();
    let found = match array {
        Some(wanted) => names.iter().find(|name| *name == wanted),
        None if names.len() == 1 => names.first(),
        None => None,
    };
    found.cloned().ok_or_else(|| NpzError::NoSuchArray { wanted: array.map(str::to_owned), names })
}

/// The voxels behind a header, all of them, x fastest.
fn voxels<R: Read>(entry: &mut ZipFile<'_, R>, header: &ArrayHeader) -> Result<Voxels, ArrayProblem> {
    let expected = header.bytes()?;
    let most = entry.compressed_size().saturating_mul(DEFLATE_MAX_RATIO);
    if expected as u64 > most {
        return Err(ArrayProblem::Truncated { expected: expected as u64, actual: None });
    }
    let mut buffer = Buffer::of_length(expected);
    let mut filled = 0;
    while filled < expected {
        match entry.read(&mut buffer.bytes_mut()[filled..]) {
            Ok(0) => {
                let (expected, actual) = (expected as u64, Some(filled as u64));
                return Err(ArrayProblem::Truncated { expected, actual });
            }
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ArrayProblem::Damaged(error.to_string())),
        }
    }
    // The checksum is looked at when the end is read.
    let rest = io::copy(entry, &mut io::sink()).map_err(|error| ArrayProblem::Damaged(error.to_string()))?;
    if rest > 0 {
        return Err(ArrayProblem::Header(format!("{rest} bytes stand behind the array, expected none")));
    }
    let buffer = if header.fortran_order { header.in_numpy_order(&buffer) } else { buffer };
    Ok(Voxels::new(buffer, 0, header.shape.iter().product(), header.dtype, header.endian))
}

/// An archive that cannot be read as a volume.
#[derive(Debug)]
pub enum NpzError {
    /// The operating system would not read it.
    Io(io::Error),
    /// It is no zip archive, or a damaged one.
    NotArchive(String),
    /// It lacks the array, or has several and none was named.
    NoSuchArray {
        /// The array that was asked for.
        wanted: Option<String>,
        /// Those that there are.
        names: Vec<String>,
    },
    /// An array is no volume.
    Array {
        /// Its name.
        name: String,
        /// What is wrong with it.
        problem: ArrayProblem,
    },
}

/// What is wrong with an array.
#[derive(Debug)]
pub enum ArrayProblem {
    /// Its header is not numpy's, or says what makes no volume.
    Header(String),
    /// It ends too early. Sizes in bytes, after decompression.
    Truncated {
        /// Bytes that the header asks for.
        expected: u64,
        /// Bytes that are there, where they were read.
        actual: Option<u64>,
    },
    /// It does not decompress, or fails its checksum.
    Damaged(String),
    /// Voxels that are no numbers.
    NotFinite {
        /// How many voxels are NaN or infinite.
        count: usize,
        /// How many voxels there are.
        of: usize,
        /// The place of the first one, x fastest.
        first: usize,
    },
}

impl ArrayProblem {
    fn of(self, name: &str) -> NpzError {
        NpzError::Array { name: name.to_owned(), problem: self }
    }
}

impl NpzError {
    fn of_zip(error: ZipError) -> NpzError {
        match error {
            ZipError::Io(error) if error.kind() != io::ErrorKind::UnexpectedEof => NpzError::Io(error),
            other => NpzError::NotArchive(other.to_string()),
        }
    }
}

impl From<io::Error> for NpzError {
    fn from(error: io::Error) -> NpzError {
        NpzError::Io(error)
    }
}

impl fmt::Display for NpzError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NpzError::Io(error) => write!(f, "cannot be read: {error}"),
            NpzError::NotArchive(what) => {
                write!(f, "not an .npz archive: {what}; copy the file again from its source")
            }
            NpzError::NoSuchArray { wanted, names } => {
                match wanted {
                    Some(wanted) => write!(f, "no array `{wanted}` in the archive")?,
                    None => {
                        write!(f, "{} arrays in the archive, expected one, or the name of one", names.len())?
                    }
                }
                write!(f, "; it has {}", if names.is_empty() { "none".to_owned() } else { names.join(", ") })
            }
            NpzError::Array { name, problem } => write!(f, "array `{name}`: {problem}"),
        }
    }
}

impl fmt::Display for ArrayProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ArrayProblem::Header(what) => write!(f, "{what}"),
            ArrayProblem::Truncated { expected, actual } => {
                let actual = actual.map_or("far fewer".to_owned(), |actual| actual.to_string());
                write!(
                    f,
                    "truncated: it needs {expected} bytes and {actual} are there; copy the file again from its source"
                )
            }
            ArrayProblem::Damaged(what) => write!(f, "damaged: {what}; copy the file again from its source"),
            ArrayProblem::NotFinite { count, of, first } => write!(
                f,
                "{count} of {of} voxels are NaN or infinite, the first at {first}; expected numbers: replace them at the source"
            ),
        }
    }
}

impl std::error::Error for NpzError {}
