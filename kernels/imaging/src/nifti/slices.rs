//! Reading a file slice by slice, so that a volume of any size takes the memory of one slice.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use super::error::{ReadError, ReadProblem};
use super::header::Header;
use super::{affine, gzip, is_image_half, other_half, pair_header, parse_header, scaling};
use crate::buffer::Buffer;
use crate::geometry::Geometry;
use crate::stored::AffineSource;
use crate::volume::HOUNSFIELD_RANGE;
use crate::voxels::Voxels;

/// A volume's file that is read slice by slice, along its slowest axis.
///
/// Slices become 16-bit HU as [`StoredVolume::into_volume`](crate::StoredVolume::into_volume) makes them. The file is sound only once
/// [`SliceReader::finish`] has said so: a checksum stands at its end.
pub struct SliceReader {
    /// Shape and affine in mm, as of [`StoredVolume::geometry`](crate::StoredVolume::geometry).
    pub geometry: Geometry,
    /// The slope and intercept to apply, as of [`StoredVolume::scaling`](crate::StoredVolume::scaling).
    pub scaling: Option<(f64, f64)>,
    /// The stored type, by numpy's name.
    pub dtype: &'static str,
    /// Which transform of the header the affine is.
    pub affine_source: AffineSource,
    /// What a person should know of the file, one sentence each.
    pub warnings: Vec<String>,
    /// How many values of the slices so far lay more than half a unit outside of [`HOUNSFIELD_RANGE`].
    pub saturated: u64,
    name: String,
    header: Header,
    content: Box<dyn Read + Send>,
    /// Bytes of the content that were read.
    read_bytes: u64,
    /// Slices that were read.
    slices: usize,
}

/// Compressed bytes that are read at a time.
const BUFFER_BYTES: usize = 1 << 16;

impl SliceReader {
    /// Opens a `.nii` or `.nii.gz` file, or a pair of which `path` names either half. `name` stands for the path in errors.
    ///
    /// # Errors
    /// Those of [`read_named`](super::read_named) that a header gives.
    pub fn open(path: &Path, name: &str) -> Result<SliceReader, ReadError> {
        SliceReader::at(path, name).map_err(|problem| problem.in_file(name))
    }

    fn at(path: &Path, name: &str) -> Result<SliceReader, ReadProblem> {
        let (header, voxel_file) = header_of(path)?;
        let (voxel_bytes, end) = header.voxel_bytes()?;
        let mut file =
            BufReader::with_capacity(BUFFER_BYTES, File::open(&voxel_file).map_err(ReadProblem::Io)?);
        let compressed = gzip::is_gzip(io::BufRead::fill_buf(&mut file).map_err(ReadProblem::Io)?);
        let content: Box<dyn Read + Send> =
            if compressed { Box::new(gzip::Members::new(file)) } else { Box::new(file) };
        let mut warnings = header.warnings.clone();
        let (geometry, affine_source) = affine::geometry(&header, &mut warnings)?;
        let mut reader = SliceReader {
            geometry,
            scaling: scaling(header.slope, header.intercept)?,
            dtype: header.dtype.name(),
            affine_source,
            warnings,
            saturated: 0,
            name: name.to_owned(),
            header,
            content,
            read_bytes: 0,
            slices: 0,
        };
        let before = (end - voxel_bytes) as u64;
        let skipped = io::copy(&mut reader.content.by_ref().take(before), &mut io::sink());
        reader.read_bytes = skipped.map_err(|error| reader.problem(&error))?;
        Ok(reader)
    }

    /// The bytes of the file's content, inflated.
    pub fn content_bytes(&self) -> u64 {
        self.header.voxel_bytes().map_or(u64::MAX, |(_, end)| end as u64)
    }

    /// The voxels of the next slice in 16-bit HU, x fastest; none behind the last.
    ///
    /// # Errors
    /// Those of [`read_named`](super::read_named) that voxels give.
    pub fn next_slice(&mut self) -> Result<Option<Vec<i16>>, ReadError> {
        if self.slices == self.geometry.shape[2] {
            return Ok(None);
        }
        let slice = self.slice().map_err(|problem| problem.in_file(&self.name))?;
        self.slices += 1;
        Ok(Some(slice))
    }

    fn slice(&mut self) -> Result<Vec<i16>, ReadProblem> {
        let [nx, ny, _] = self.geometry.shape;
        let count = nx * ny;
        let mut buffer = Buffer::of_length(count * self.header.dtype.bytes());
        let mut filled = 0;
        while filled < buffer.len() {
            match self.content.read(&mut buffer.bytes_mut()[filled..]) {
                Ok(0) => {
                    let (expected, actual) = (self.content_bytes(), self.read_bytes);
                    return Err(ReadProblem::Truncated { part: "file", expected, actual });
                }
                Ok(read) => {
                    filled += read;
                    self.read_bytes += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.problem(&error)),
            }
        }
        let voxels = Voxels::new(buffer, 0, count, self.header.dtype, self.header.endian);
        if let Some((bad, first)) = voxels.non_finite(self.scaling) {
            let first = [first % nx, first / nx, self.slices];
            return Err(ReadProblem::NotFinite { count: bad, of: count, first });
        }
        let (hounsfield, saturated) = voxels.into_i16(self.scaling, HOUNSFIELD_RANGE);
        self.saturated += saturated;
        Ok(hounsfield)
    }

    /// Reads on to the end of the file, where its checksum stands.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn finish(mut self) -> Result<(), ReadError> {
        let rest = io::copy(&mut self.content, &mut io::sink());
        rest.map(drop).map_err(|error| self.problem(&error).in_file(&self.name))
    }

    fn problem(&self, error: &io::Error) -> ReadProblem {
        gzip::damaged(error, usize::try_from(self.read_bytes).unwrap_or(usize::MAX))
    }
}

/// The header of a file, and the file that holds its voxels.
fn header_of(path: &Path) -> Result<(Header, PathBuf), ReadProblem> {
    if is_image_half(path) {
        return Ok((pair_header(&start_of(&other_half(path, "hdr")?)?)?, path.to_owned()));
    }
    let header = parse_header(&start_of(path)?)?;
    let voxel_file = if header.pair { other_half(path, "img")? } else { path.to_owned() };
    Ok((header, voxel_file))
}

/// As much of a file as holds its header, compressed or not.
fn start_of(path: &Path) -> Result<Vec<u8>, ReadProblem> {
    let file = File::open(path).map_err(ReadProblem::Io)?;
    let mut start = Vec::new();
    // Several times what a header takes, even if it is not compressed.
    file.take(BUFFER_BYTES as u64).read_to_end(&mut start).map_err(ReadProblem::Io)?;
    Ok(start)
}
