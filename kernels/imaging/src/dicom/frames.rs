//! The functional groups of a multi-frame image (PS3.3, C.7.6.16): what each of its frames is and where it lies.

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::dataset::DataSet;
use super::error::DicomProblem;

/// What is said of one frame. What the file does not say of it is `None`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Frame {
    pub(super) position_mm: Option<[f64; 3]>,
    pub(super) direction_cosines: Option<[f64; 6]>,
    pub(super) pixel_spacing_mm: Option<[f64; 2]>,
    pub(super) slice_thickness_mm: Option<f64>,
    pub(super) rescale_slope: Option<f64>,
    pub(super) rescale_intercept: Option<f64>,
    pub(super) rescale_type: Option<String>,
    pub(super) stack_id: Option<String>,
}

/// What a file says of each of its frames, by the groups of all frames together and of each one; none where it has no groups
/// of frames, or not as many as frames.
///
/// # Errors
/// When the groups cannot be read.
pub(super) fn frames(elements: &DataSet, count: u32) -> Result<Vec<Frame>, DicomProblem> {
    let shared = elements.items(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE)?;
    let each = elements.items(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE)?;
    // Groups of more or fewer frames say nothing of any.
    if each.len() != count as usize {
        return Ok(Vec::new());
    }
    each.iter().map(|own| frame(own, shared.first())).collect()
}

/// What a frame's own groups say, and for the rest what all frames have in common.
fn frame(own: &DataSet, shared: Option<&DataSet>) -> Result<Frame, DicomProblem> {
    let group = |tag: Tag| {
        let own = own.items(tag)?.into_iter().next();
        let shared = || shared.map_or(Ok(Vec::new()), |shared| shared.items(tag));
        let group = if own.is_some() { own } else { shared()?.into_iter().next() };
        Ok::<DataSet, DicomProblem>(group.unwrap_or_default())
    };
    let measures = group(tags::PIXEL_MEASURES_SEQUENCE)?;
    let values = group(tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE)?;
    Ok(Frame {
        position_mm: group(tags::PLANE_POSITION_SEQUENCE)?.array(tags::IMAGE_POSITION_PATIENT),
        direction_cosines: group(tags::PLANE_ORIENTATION_SEQUENCE)?.array(tags::IMAGE_ORIENTATION_PATIENT),
        pixel_spacing_mm: measures.array(tags::PIXEL_SPACING),
        slice_thickness_mm: measures.number(tags::SLICE_THICKNESS),
        rescale_slope: values.number(tags::RESCALE_SLOPE),
        rescale_intercept: values.number(tags::RESCALE_INTERCEPT),
        rescale_type: values.text(tags::RESCALE_TYPE),
        stack_id: group(tags::FRAME_CONTENT_SEQUENCE)?.text(tags::STACK_ID),
    })
}
