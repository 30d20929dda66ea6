//! Reading and writing NIfTI-1 and NIfTI-2 files.
//!
//! A file is read whole or refused: a truncated or damaged one never becomes a volume with zeros at its end,
//! and nothing in a header is guessed without a warning that says so.

mod affine;
mod error;
mod gzip;
mod header;
mod slices;
mod write;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use error::{ReadError, ReadProblem};
pub use slices::SliceReader;
pub use write::write;

use crate::buffer::Buffer;
use crate::stored::StoredVolume;
use crate::voxels::Voxels;
use header::{Header, LONGEST_HEADER_BYTES};

/// Reads a `.nii` or `.nii.gz` file from memory. `name` stands in warnings and errors; the bytes alone decide
/// whether they are gzip.
///
/// # Errors
///
/// The problem is in [`ReadError::problem`]: truncated or damaged bytes, a broken header, a file of two or of
/// more than three axes, colour or complex voxels, voxels that are NaN or infinite, the header of an
/// `.hdr`/`.img` pair.
pub fn read(bytes: &[u8], name: &str) -> Result<StoredVolume, ReadError> {
    read_single(bytes, name).map_err(|problem| problem.in_file(name))
}

/// Reads a `.nii` or `.nii.gz` file, or a pair of `.hdr` and `.img` of which `path` names either; a missing
/// member of the pair is looked for next to it with and without `.gz`.
///
/// # Errors
///
/// As [`read`], and when a file cannot be read or the other half of a pair is not there.
pub fn read_file(path: &Path) -> Result<StoredVolume, ReadError> {
    read_named(path, &path.display().to_string())
}

/// As [`read_file`], with a name to stand for the path in warnings and errors: for files kept under another
/// name than their own, and where a path must not be shown.
///
/// # Errors
///
/// As [`read_file`].
pub fn read_named(path: &Path, name: &str) -> Result<StoredVolume, ReadError> {
    read_path(path, name).map_err(|problem| problem.in_file(name))
}

fn read_path(path: &Path, name: &str) -> Result<StoredVolume, ReadProblem> {
    if is_image_half(path) {
        let header_path = other_half(path, "hdr")?;
        return read_pair(&load(&header_path)?, path);
    }
    let bytes = load(path)?;
    if parse_header(&bytes)?.pair {
        let image_path = other_half(path, "img")?;
        return read_pair(&bytes, &image_path);
    }
    read_single(&bytes, name)
}

fn read_single(bytes: &[u8], name: &str) -> Result<StoredVolume, ReadProblem> {
    let mut header = parse_header(bytes)?;
    if header.pair {
        return Err(ReadProblem::Pair(
            "the header of an .hdr/.img pair, whose voxels are in another file; read it by its path"
                .to_owned(),
        ));
    }
    let compressed = gzip::is_gzip(bytes);
    let named_compressed =
        Path::new(name).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz"));
    if compressed != named_compressed && Path::new(name).extension().is_some() {
        let is = if compressed { "gzip" } else { "not gzip" };
        header.warnings.push(format!("the file is {is}, unlike its name; read by its content"));
    }
    assemble(header, bytes)
}

fn read_pair(header_bytes: &[u8], image_path: &Path) -> Result<StoredVolume, ReadProblem> {
    assemble(pair_header(header_bytes)?, &load(image_path)?)
}

/// The header of a pair, from its `.hdr`.
fn pair_header(bytes: &[u8]) -> Result<Header, ReadProblem> {
    let header = parse_header(bytes)?;
    if !header.pair {
        return Err(ReadProblem::Pair(
            "the .hdr next to the .img says that it holds the voxels itself; read it as a .nii file"
                .to_owned(),
        ));
    }
    Ok(header)
}

/// Whether a path names the half of a pair that holds the voxels.
fn is_image_half(path: &Path) -> bool {
    pair_suffix(path).is_some_and(|(_, half, _)| half == "img")
}

/// The header at the start of a file, compressed or not.
fn parse_header(bytes: &[u8]) -> Result<Header, ReadProblem> {
    if bytes.is_empty() {
        return Err(ReadProblem::NotNifti("it is empty".to_owned()));
    }
    if gzip::is_gzip(bytes) {
        return Header::parse(&gzip::peek(bytes, LONGEST_HEADER_BYTES)?);
    }
    Header::parse(bytes)
}

/// Joins a header with the file that holds its voxels.
fn assemble(header: Header, voxel_file: &[u8]) -> Result<StoredVolume, ReadProblem> {
    let (voxel_bytes, end) = header.voxel_bytes()?;
    let buffer = if gzip::is_gzip(voxel_file) {
        gzip::inflate(voxel_file, end)?
    } else {
        Buffer::copy_of(&voxel_file[..end.min(voxel_file.len())])
    };
    if buffer.len() < end {
        return Err(ReadProblem::Truncated {
            part: "file",
            expected: end as u64,
            actual: buffer.len() as u64,
        });
    }
    let mut warnings = header.warnings.clone();
    let (geometry, affine_source) = affine::geometry(&header, &mut warnings)?;
    let scaling = scaling(header.slope, header.intercept)?;
    let count = geometry.voxel_count();
    let voxels = Voxels::new(buffer, end - voxel_bytes, count, header.dtype, header.endian);
    if let Some((bad, first)) = voxels.non_finite(scaling) {
        let [nx, ny, _] = geometry.shape;
        let first = [first % nx, first / nx % ny, first / (nx * ny)];
        return Err(ReadProblem::NotFinite { count: bad, of: count, first });
    }
    Ok(StoredVolume { geometry, voxels, dtype: header.dtype.name(), affine_source, scaling, warnings })
}

/// The scaling to apply. The standard says that slope 0 means none; readers disagree on NaN and infinity,
/// which can mean nothing else.
fn scaling(slope: f64, intercept: f64) -> Result<Option<(f64, f64)>, ReadProblem> {
    if slope == 0.0 || !slope.is_finite() {
        return Ok(None);
    }
    if !intercept.is_finite() {
        return Err(ReadProblem::Header(format!(
            "scl_inter is {intercept} with scl_slope {slope}; expected a number: repair the header at its source"
        )));
    }
    Ok(Some((slope, intercept)).filter(|&scaling| scaling != (1.0, 0.0)))
}

fn load(path: &Path) -> Result<Vec<u8>, ReadProblem> {
    std::fs::read(path).map_err(ReadProblem::Io)
}

/// Splits `scan.img.gz` into (`scan`, `img`, compressed).
fn pair_suffix(path: &Path) -> Option<(PathBuf, String, bool)> {
    let compressed = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz"));
    let inner = if compressed { path.with_extension("") } else { path.to_owned() };
    let half = inner.extension()?.to_str()?.to_ascii_lowercase();
    matches!(half.as_str(), "hdr" | "img").then(|| (inner.with_extension(""), half, compressed))
}

/// The file that belongs to `path`: the same stem with the extension `half`, compressed as `path` is if there
/// is such a file, else the other way.
fn other_half(path: &Path, half: &str) -> Result<PathBuf, ReadProblem> {
    let Some((stem, _, compressed)) = pair_suffix(path) else {
        return Err(ReadProblem::Pair(
            "the header of an .hdr/.img pair under another name; give it the extension .hdr next to its .img"
                .to_owned(),
        ));
    };
    let plain = stem.with_added_extension(half);
    let packed = plain.with_added_extension("gz");
    let order = if compressed { [packed, plain] } else { [plain, packed] };
    if let Some(found) = order.iter().find(|candidate| candidate.exists()) {
        return Ok(found.clone());
    }
    Err(ReadProblem::Pair(format!(
        "half of an .hdr/.img pair; expected the .{half} or .{half}.gz of the same name next to it"
    )))
}
