//! Reading and writing NIfTI-1 and NIfTI-2 files.
//!
//! A file is read whole or refused: a truncated or damaged one never becomes a volume with zeros at its end,
//! and nothing in a header is guessed without a warning that says so.

mod affine;
mod buffer;
mod error;
mod gzip;
mod header;
mod slices;
mod voxels;
mod write;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};

pub use error::{ReadError, ReadProblem};
pub use slices::SliceReader;
pub use voxels::Voxels;
pub use write::write;

use crate::geometry::Geometry;
use crate::volume::{HOUNSFIELD_RANGE, Volume};
use buffer::Buffer;
use header::{Header, LONGEST_HEADER_BYTES};

/// A scalar volume as its file has it.
#[derive(Debug, Clone)]
pub struct Nifti {
    /// Shape and affine in mm. With [`AffineSource::None`] only the spacing means anything.
    pub geometry: Geometry,
    /// The voxels, x fastest.
    pub voxels: Voxels,
    /// The stored type, by numpy's name, such as `int16`.
    pub dtype: &'static str,
    /// Which transform of the header the affine is.
    pub affine_source: AffineSource,
    /// The header's slope and intercept; `None` where it asks for none (slope 0, NaN or infinite, by the
    /// standard) or for the identity. Set it to `None` for a file whose stored values are HU whatever its
    /// header says.
    pub scaling: Option<(f64, f64)>,
    /// What a person should know of the file, one sentence each.
    pub warnings: Vec<String>,
}

impl Nifti {
    /// The values after [`Nifti::scaling`], computed in f64 and rounded once, x fastest.
    pub fn to_f32(&self) -> Vec<f32> {
        self.voxels.to_f32(self.scaling)
    }

    /// The values after [`Nifti::scaling`] as 16-bit HU, x fastest: rounded half to even and clipped to
    /// [`HOUNSFIELD_RANGE`]. The count says how many values lay more than half a unit outside that range.
    ///
    /// Every value is widened to f64 before it is scaled, so that none wraps.
    pub fn hounsfield_i16(&self) -> (Vec<i16>, u64) {
        self.voxels.to_i16(self.scaling, HOUNSFIELD_RANGE)
    }

    /// The stored values, x fastest, where they are 16-bit HU already. Unlike all others here they are not clipped.
    pub(crate) fn unclipped_i16(&self) -> Option<&[i16]> {
        self.voxels.as_i16(self.scaling)
    }

    /// The volume with the voxels of [`Nifti::hounsfield_i16`], and its count. An unscaled int16 file is
    /// converted where it lies, without a second copy of its voxels.
    pub fn into_volume(self) -> (Volume, u64) {
        let (hounsfield, saturated) = self.voxels.into_i16(self.scaling, HOUNSFIELD_RANGE);
        (Volume { geometry: self.geometry, hounsfield }, saturated)
    }
}

/// Which of a NIfTI header's transforms places the voxels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AffineSource {
    /// The sform: used whenever its code is positive.
    Sform,
    /// The qform: used when its code is positive and the sform's is not.
    Qform,
    /// Neither is set. The affine holds the spacing on axes labelled RAS at origin 0; left and right are
    /// unknown, and no orientation may be asked for before one is assumed with [`Geometry::from_spacing`].
    None,
}

/// Reads a `.nii` or `.nii.gz` file from memory. `name` stands in warnings and errors; the bytes alone decide
/// whether they are gzip.
///
/// # Errors
///
/// The problem is in [`ReadError::problem`]: truncated or damaged bytes, a broken header, a file of two or of
/// more than three axes, colour or complex voxels, voxels that are NaN or infinite, the header of an
/// `.hdr`/`.img` pair.
pub fn read(bytes: &[u8], name: &str) -> Result<Nifti, ReadError> {
    read_single(bytes, name).map_err(|problem| problem.in_file(name))
}

/// Reads a `.nii` or `.nii.gz` file, or a pair of `.hdr` and `.img` of which `path` names either; a missing
/// member of the pair is looked for next to it with and without `.gz`.
///
/// # Errors
///
/// As [`read`], and when a file cannot be read or the other half of a pair is not there.
pub fn read_file(path: &Path) -> Result<Nifti, ReadError> {
    read_named(path, &path.display().to_string())
}

/// As [`read_file`], with a name to stand for the path in warnings and errors: for files kept under another
/// name than their own, and where a path must not be shown.
///
/// # Errors
///
/// As [`read_file`].
pub fn read_named(path: &Path, name: &str) -> Result<Nifti, ReadError> {
    read_path(path, name).map_err(|problem| problem.in_file(name))
}

fn read_path(path: &Path, name: &str) -> Result<Nifti, ReadProblem> {
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

fn read_single(bytes: &[u8], name: &str) -> Result<Nifti, ReadProblem> {
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

fn read_pair(header_bytes: &[u8], image_path: &Path) -> Result<Nifti, ReadProblem> {
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
fn assemble(header: Header, voxel_file: &[u8]) -> Result<Nifti, ReadProblem> {
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
    Ok(Nifti { geometry, voxels, dtype: header.dtype.name(), affine_source, scaling, warnings })
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

impl fmt::Display for AffineSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AffineSource::Sform => "sform",
            AffineSource::Qform => "qform",
            AffineSource::None => "none",
        })
    }
}
