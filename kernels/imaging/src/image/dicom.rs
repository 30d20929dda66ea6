//! X-ray images in DICOM files: made light on dark, with the window that the file asks for.

use super::{Format, Image, ImageProblem, Photometric, largest};
use crate::dicom::{self, DicomProblem, Header};

/// Reads the one frame of a DICOM file; `None` where the bytes are no DICOM file.
///
/// Where the lowest value is to be white (`MONOCHROME1`, or a presentation LUT of the shape `INVERSE`), values become
/// `2^bits - 1 - value`. Signed values are moved up by half their range, so that none is negative. Pixels of the padding
/// value, which show nothing, become black either way.
pub(super) fn decode(bytes: &[u8]) -> Result<Option<Image>, ImageProblem> {
    let decoded = match dicom::image(bytes, "", 0) {
        Ok(decoded) => decoded,
        Err(error) => {
            return match error.problem {
                DicomProblem::NotDicom(_) => Ok(None),
                problem => Err(ImageProblem::Dicom(problem)),
            };
        }
    };
    let header = &decoded.header;
    if header.frames != 1 {
        return Err(ImageProblem::Unsupported(format!("{} frames; expected one image", header.frames)));
    }
    let bits = u8::try_from(decoded.bits).ok().filter(|bits| (1..=16).contains(bits));
    let bits =
        bits.ok_or_else(|| ImageProblem::Unsupported(format!("{} bits; expected 1 to 16", decoded.bits)))?;
    let shift = if decoded.signed { 1_i32 << (bits - 1) } else { 0 };
    let largest_value = i32::from(largest(bits));
    let inverted = is_inverted(header);
    let padding = header.padding_value.filter(|value| value.fract() == 0.0).map(|value| value as i32);
    let pixel = |value: &i32| {
        if Some(*value) == padding {
            return 0;
        }
        let value = (value + shift).clamp(0, largest_value);
        (if inverted { largest_value - value } else { value }) as u16
    };
    let mut warnings = Vec::new();
    let spacing_mm = spacing_mm(header, &mut warnings);
    let padded = decoded.values.iter().filter(|value| Some(**value) == padding).count();
    if padded > 0 {
        warnings.push(format!(
            "{padded} of {} pixels have the padding value and were made black",
            decoded.values.len()
        ));
    }
    let voi_window = voi_window(bytes, header)
        .map(|window| window.map(|value| value + f64::from(shift)))
        .map(|[low, high]| {
            let largest_value = f64::from(largest_value);
            if inverted { [largest_value - high, largest_value - low] } else { [low, high] }
        });
    Ok(Some(Image {
        width: decoded.columns,
        height: decoded.rows,
        pixels: decoded.values.iter().map(pixel).collect(),
        bits,
        spacing_mm,
        format: Format::Dicom,
        photometric: photometric(header),
        inverted,
        orientation: None,
        voi_window,
        modality: header.modality.clone(),
        warnings,
    }))
}

/// Whether the file wants its lowest value to be white. The two ways to say so go together: digital X-rays must have both,
/// older kinds have only the first.
fn is_inverted(header: &Header) -> bool {
    header.photometric_interpretation.as_deref() == Some("MONOCHROME1")
        || header.presentation_lut_shape.as_deref() == Some("INVERSE")
}

fn photometric(header: &Header) -> Photometric {
    match header.photometric_interpretation.as_deref() {
        Some("MONOCHROME1") => Photometric::Monochrome1,
        Some("RGB") => Photometric::Rgb,
        Some(other) if other.starts_with("YBR") => Photometric::YCbCr,
        _ => Photometric::Monochrome2,
    }
}

/// The distance of pixel centres along x and y: as calibrated for the patient, else at the detector. DICOM gives that of
/// rows first.
fn spacing_mm(header: &Header, warnings: &mut Vec<String>) -> Option<[f64; 2]> {
    if let Some([rows, columns]) = header.pixel_spacing_mm {
        return Some([columns, rows]);
    }
    let [rows, columns] = header.imager_pixel_spacing_mm?;
    warnings.push(
        "the spacing is that at the detector; the patient is nearer to the source and smaller".to_owned(),
    );
    Some([columns, rows])
}

/// The stored values that become black and white by the file's first window: PS3.3, C.11.2.1.2 and C.11.2.1.3.
///
/// A sigmoid window is taken as the linear one of its centre and width. Lookup tables in the file's place of a window are
/// not read.
fn voi_window(bytes: &[u8], header: &Header) -> Option<[f64; 2]> {
    let (center, width) = (*header.window_center.first()?, *header.window_width.first()?);
    let function = dicom::tag_of("VOILUTFunction")
        .and_then(|tag| dicom::header(bytes, "", &[tag]).ok())
        .and_then(|header| header.kept.into_iter().next().flatten());
    let [low, high] = match function.as_deref() {
        Some("LINEAR_EXACT" | "SIGMOID") => [center - width / 2.0, center + width / 2.0],
        _ => [center - 0.5 - (width - 1.0) / 2.0, center - 0.5 + (width - 1.0) / 2.0],
    };
    if low >= high {
        return None;
    }
    let (slope, intercept) = header.rescale().unwrap_or((1.0, 0.0));
    let stored = |value: f64| (value - intercept) / slope;
    let (one, other) = (stored(low), stored(high));
    let ends = [one.min(other), one.max(other)];
    (ends.iter().all(|end| end.is_finite()) && ends[0] < ends[1]).then_some(ends)
}
