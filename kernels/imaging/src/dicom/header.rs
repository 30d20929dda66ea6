//! What a file says of its image, without its pixels.

use std::io::Read;
use std::path::Path;

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::dataset::{DataSet, Extent, is_pixel_data};
use super::error::{DicomError, DicomProblem};
use super::file::File;
use super::frames::{Frame, frames};

/// What a file says of its image. What the file does not say, or says in a way that means nothing, is `None`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Header {
    /// The UID of the transfer syntax; `None` where the file names none.
    pub transfer_syntax: Option<String>,
    /// What kind of object it is, by UID.
    pub sop_class_uid: Option<String>,
    /// The object's own UID.
    pub sop_instance_uid: Option<String>,
    /// The UID of the study.
    pub study_instance_uid: Option<String>,
    /// The UID of the series.
    pub series_instance_uid: Option<String>,
    /// The number of the series within its study.
    pub series_number: Option<i64>,
    /// What the series is called.
    pub series_description: Option<String>,
    /// The patient's id in the hospital.
    pub patient_id: Option<String>,
    /// The kind of machine, such as `CT`, `DX`, `SR`.
    pub modality: Option<String>,
    /// The values of the image type, such as `ORIGINAL`, `PRIMARY`, `AXIAL`.
    pub image_type: Vec<String>,
    /// The number of the image within its series; it says nothing of the place.
    pub instance_number: Option<i64>,
    /// Whether there are pixel data at all.
    pub has_pixels: bool,
    /// Rows of the image.
    pub rows: Option<u32>,
    /// Columns of the image.
    pub columns: Option<u32>,
    /// Images in the file; 1 where it says nothing.
    pub frames: u32,
    /// How samples make colours, such as `MONOCHROME2`.
    pub photometric_interpretation: Option<String>,
    /// `IDENTITY`, or `INVERSE` where the lowest value is white.
    pub presentation_lut_shape: Option<String>,
    /// Samples of a pixel: 1, or 3 for colours.
    pub samples_per_pixel: u32,
    /// Bits in which a sample is kept.
    pub bits_allocated: Option<u32>,
    /// Bits that a sample has.
    pub bits_stored: Option<u32>,
    /// The place of a sample's highest bit.
    pub high_bit: Option<u32>,
    /// Whether samples are signed.
    pub signed: bool,
    /// Distance in mm of neighbouring rows and of neighbouring columns, in the patient; a spacing of 0 is none.
    pub pixel_spacing_mm: Option<[f64; 2]>,
    /// The same at the detector of a projection.
    pub imager_pixel_spacing_mm: Option<[f64; 2]>,
    /// The centre of the first pixel in mm, in DICOM's axes: x to the patient's Left, y to Posterior, z to Superior.
    pub position_mm: Option<[f64; 3]>,
    /// The direction in which columns count, then the one in which rows count, in the same axes.
    pub direction_cosines: Option<[f64; 6]>,
    /// The thickness in mm that the slice is said to have; it is not the distance of slices.
    pub slice_thickness_mm: Option<f64>,
    /// The tilt in degrees that the scanner was set to. Its sign differs between makers, so nothing is computed from it.
    pub gantry_tilt_degrees: Option<f64>,
    /// The factor from stored values to Hounsfield units.
    pub rescale_slope: Option<f64>,
    /// What is added behind the factor.
    pub rescale_intercept: Option<f64>,
    /// What rescaled values are, such as `HU`.
    pub rescale_type: Option<String>,
    /// Centres of the windows to look through.
    pub window_center: Vec<f64>,
    /// Widths of the same windows.
    pub window_width: Vec<f64>,
    /// The stored value outside the field of view.
    pub padding_value: Option<f64>,
    /// Where the first pixel of each frame lies, as [`Header::position_mm`], in the order of the file; empty where the file is
    /// one image, or does not say it of every frame.
    pub frame_positions_mm: Vec<[f64; 3]>,
    /// Slope and intercept of each frame, where the file says what each is; [`Header::rescale`] has those that all share.
    pub frame_rescales: Vec<Option<(f64, f64)>>,
    /// The stacks that the frames belong to, each once.
    pub stack_ids: Vec<String>,
    /// The texts of the tags that were asked for, in their order; `None` where the file has none.
    pub kept: Vec<Option<String>>,
}

/// A file's header is looked for in so many bytes first; most have it there.
const FIRST_BYTES: u64 = 64 << 10;

/// Reads the header of a file, and the texts of further tags, up to the pixel data. `name` stands in errors.
///
/// # Errors
/// When the file is no DICOM file, or cut short before its pixel data.
pub fn read_header(path: &Path, name: &str, keep: &[Tag]) -> Result<Header, DicomError> {
    from_file(path, keep).map_err(|problem| problem.in_file(name))
}

/// As [`read_header`], of a file's bytes.
///
/// # Errors
/// As [`read_header`].
pub fn header(bytes: &[u8], name: &str, keep: &[Tag]) -> Result<Header, DicomError> {
    from_bytes(bytes, keep).map_err(|problem| problem.in_file(name))
}

/// Reads ever more of a file until its header is there.
fn from_file(path: &Path, keep: &[Tag]) -> Result<Header, DicomProblem> {
    let mut file = std::fs::File::open(path).map_err(DicomProblem::Io)?;
    let length = file.metadata().map_err(DicomProblem::Io)?.len();
    let (mut bytes, mut wanted) = (Vec::new(), FIRST_BYTES);
    loop {
        let more = wanted - bytes.len() as u64;
        file.by_ref().take(more).read_to_end(&mut bytes).map_err(DicomProblem::Io)?;
        let whole = bytes.len() as u64 >= length || (bytes.len() as u64) < wanted;
        match from_bytes(&bytes, keep) {
            Err(DicomProblem::Truncated { .. } | DicomProblem::Damaged { .. }) if !whole => wanted *= 8,
            // A part may end between two elements, before the pixel data.
            Ok(header) if !header.has_pixels && !whole => wanted *= 8,
            result => return result,
        }
    }
}

fn from_bytes(bytes: &[u8], keep: &[Tag]) -> Result<Header, DicomProblem> {
    let file = File::open(bytes)?;
    let elements = file.elements(Extent::Header)?;
    Header::of(&file, &elements, keep)
}

impl Header {
    /// What the elements of a file say.
    ///
    /// # Errors
    /// When the functional groups of its frames cannot be read.
    pub(super) fn of(file: &File, elements: &DataSet, keep: &[Tag]) -> Result<Header, DicomProblem> {
        let mut header = Header::of_file(file, elements, keep);
        let frames = frames(elements, header.frames)?;
        header.add(&frames);
        Ok(header)
    }

    /// What the frames share where the file itself does not say it, and what differs between them.
    fn add(&mut self, frames: &[Frame]) {
        fn shared<T: PartialEq>(frames: &[Frame], of: impl Fn(&Frame) -> Option<T>) -> Option<T> {
            let first = frames.first().and_then(&of)?;
            frames.iter().all(|frame| of(frame).as_ref() == Some(&first)).then_some(first)
        }
        let positive = |spacing: &[f64; 2]| spacing.iter().all(|&mm| mm > 0.0);
        self.direction_cosines = self.direction_cosines.or_else(|| shared(frames, |f| f.direction_cosines));
        self.pixel_spacing_mm =
            self.pixel_spacing_mm.or_else(|| shared(frames, |f| f.pixel_spacing_mm).filter(positive));
        self.slice_thickness_mm =
            self.slice_thickness_mm.or_else(|| shared(frames, |f| f.slice_thickness_mm));
        if self.rescale().is_none() {
            self.rescale_slope = shared(frames, |f| f.rescale_slope);
            self.rescale_intercept = shared(frames, |f| f.rescale_intercept);
            self.frame_rescales = frames.iter().map(Frame::rescale).collect();
        }
        self.rescale_type = self.rescale_type.take().or_else(|| shared(frames, |f| f.rescale_type.clone()));
        for id in frames.iter().filter_map(|frame| frame.stack_id.as_ref()) {
            if !self.stack_ids.contains(id) {
                self.stack_ids.push(id.clone());
            }
        }
        let positions: Option<Vec<[f64; 3]>> = frames.iter().map(|frame| frame.position_mm).collect();
        match positions.as_deref() {
            Some(&[only]) => self.position_mm = self.position_mm.or(Some(only)),
            Some(several) => self.frame_positions_mm = several.to_vec(),
            None => {}
        }
    }

    fn of_file(file: &File, elements: &DataSet, keep: &[Tag]) -> Header {
        let positive = |spacing: &[f64; 2]| spacing.iter().all(|&mm| mm > 0.0);
        Header {
            transfer_syntax: Some(file.syntax.uid.clone()).filter(|uid| !uid.is_empty()),
            sop_class_uid: elements.text(tags::SOP_CLASS_UID),
            sop_instance_uid: elements.text(tags::SOP_INSTANCE_UID),
            study_instance_uid: elements.text(tags::STUDY_INSTANCE_UID),
            series_instance_uid: elements.text(tags::SERIES_INSTANCE_UID),
            series_number: elements.number(tags::SERIES_NUMBER).map(|number| number as i64),
            series_description: elements.text(tags::SERIES_DESCRIPTION),
            patient_id: elements.text(tags::PATIENT_ID),
            modality: elements.text(tags::MODALITY),
            image_type: elements.texts(tags::IMAGE_TYPE),
            instance_number: elements.number(tags::INSTANCE_NUMBER).map(|number| number as i64),
            has_pixels: elements.tags().any(is_pixel_data),
            rows: elements.whole(tags::ROWS),
            columns: elements.whole(tags::COLUMNS),
            frames: elements.whole(tags::NUMBER_OF_FRAMES).unwrap_or(1),
            photometric_interpretation: elements.text(tags::PHOTOMETRIC_INTERPRETATION),
            presentation_lut_shape: elements.text(tags::PRESENTATION_LUT_SHAPE),
            samples_per_pixel: elements.whole(tags::SAMPLES_PER_PIXEL).unwrap_or(1),
            bits_allocated: elements.whole(tags::BITS_ALLOCATED),
            bits_stored: elements.whole(tags::BITS_STORED),
            high_bit: elements.whole(tags::HIGH_BIT),
            signed: elements.whole(tags::PIXEL_REPRESENTATION) == Some(1),
            pixel_spacing_mm: elements.array(tags::PIXEL_SPACING).filter(positive),
            imager_pixel_spacing_mm: elements.array(tags::IMAGER_PIXEL_SPACING).filter(positive),
            position_mm: elements.array(tags::IMAGE_POSITION_PATIENT),
            direction_cosines: elements.array(tags::IMAGE_ORIENTATION_PATIENT),
            slice_thickness_mm: elements.number(tags::SLICE_THICKNESS),
            gantry_tilt_degrees: elements.number(tags::GANTRY_DETECTOR_TILT),
            rescale_slope: elements.number(tags::RESCALE_SLOPE),
            rescale_intercept: elements.number(tags::RESCALE_INTERCEPT),
            rescale_type: elements.text(tags::RESCALE_TYPE),
            window_center: elements.numbers(tags::WINDOW_CENTER).unwrap_or_default(),
            window_width: elements.numbers(tags::WINDOW_WIDTH).unwrap_or_default(),
            padding_value: elements.number(tags::PIXEL_PADDING_VALUE),
            frame_positions_mm: Vec::new(),
            frame_rescales: Vec::new(),
            stack_ids: Vec::new(),
            kept: keep.iter().map(|&tag| elements.text(tag)).collect(),
        }
    }

    /// Slope and intercept from stored values to Hounsfield units; `None` where the file gives neither.
    pub fn rescale(&self) -> Option<(f64, f64)> {
        rescale(self.rescale_slope, self.rescale_intercept)
    }

    /// As [`Header::rescale`], of a frame counted from 0.
    pub fn rescale_of(&self, frame: usize) -> Option<(f64, f64)> {
        self.frame_rescales.get(frame).copied().unwrap_or_else(|| self.rescale())
    }
}

impl Frame {
    fn rescale(&self) -> Option<(f64, f64)> {
        rescale(self.rescale_slope, self.rescale_intercept)
    }
}

fn rescale(slope: Option<f64>, intercept: Option<f64>) -> Option<(f64, f64)> {
    match (slope, intercept) {
        (None, None) => None,
        (slope, intercept) => Some((slope.unwrap_or(1.0), intercept.unwrap_or(0.0))),
    }
}
