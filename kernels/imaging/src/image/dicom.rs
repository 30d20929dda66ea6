//! X-ray images in DICOM files: made light on dark, with the window that the file asks for.

use super::{Format, Image, ImageProblem, Photometric, largest};
use crate::dicom::{self, DicomProblem, Header, VoiTable};

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
    let (slope, intercept) = header.rescale().unwrap_or((1.0, 0.0));
    let values =
        Values { slope, intercept, shift: f64::from(shift), largest: f64::from(largest_value), inverted };
    let voi = Voi::of(bytes, header, &mut warnings);
    let voi_window = voi.as_ref().and_then(|voi| voi.window(&values));
    let voi_shades = voi.as_ref().filter(|_| voi_window.is_some()).and_then(|voi| voi.shades(&values));
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
        voi_shades,
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

/// How a file wants its values to be seen.
enum Voi {
    /// From black to white between two rescaled values: PS3.3, C.11.2.1.2.1 and C.11.2.1.3.2.
    Straight(f64, f64),
    /// `1 / (1 + exp(-4 (x - center) / width))` of rescaled values: PS3.3, C.11.2.1.3.1.
    Sigmoid { center: f64, width: f64 },
    /// By a table of rescaled values.
    Table(VoiTable),
}

impl Voi {
    /// What a file asks for: its table where it has one, as most viewers take it, else its first window.
    fn of(bytes: &[u8], header: &Header, warnings: &mut Vec<String>) -> Option<Voi> {
        match dicom::voi_table(bytes, "") {
            Ok(Some(table)) => return Some(Voi::Table(table)),
            Ok(None) => {}
            Err(error) => warnings.push(format!("{}; the table was left out", error.problem)),
        }
        let (center, width) = (*header.window_center.first()?, *header.window_width.first()?);
        let function = dicom::tag_of("VOILUTFunction")
            .and_then(|tag| dicom::header(bytes, "", &[tag]).ok())
            .and_then(|header| header.kept.into_iter().next().flatten());
        Some(match function.as_deref() {
            Some("SIGMOID") => Voi::Sigmoid { center, width },
            Some("LINEAR_EXACT") => Voi::Straight(center - width / 2.0, center + width / 2.0),
            _ => Voi::Straight(center - 0.5 - (width - 1.0) / 2.0, center - 0.5 + (width - 1.0) / 2.0),
        })
    }

    /// The rescaled values at its ends. A sigmoid has none; its straight part reaches from an eighth to seven eighths.
    fn ends(&self) -> Option<(f64, f64)> {
        let (low, high) = match self {
            Voi::Straight(low, high) => (*low, *high),
            Voi::Sigmoid { center, width } => (center - width / 2.0, center + width / 2.0),
            Voi::Table(table) => {
                (f64::from(table.first), f64::from(table.first) + (table.entries.len() - 1) as f64)
            }
        };
        (low < high).then_some((low, high))
    }

    /// How light a rescaled value is, from 0 to 1; `None` for a straight line, which its ends tell.
    fn curve(&self) -> Option<Box<dyn Fn(f64) -> f64 + '_>> {
        match self {
            Voi::Straight(..) => None,
            Voi::Sigmoid { center, width } => {
                Some(Box::new(move |value| 1.0 / (1.0 + (-4.0 * (value - center) / width).exp())))
            }
            Voi::Table(table) => {
                let white = f64::from((1_u32 << table.bits) - 1);
                let last = (table.entries.len() - 1) as f64;
                Some(Box::new(move |value| {
                    let place = (value - f64::from(table.first)).round().clamp(0.0, last);
                    (f64::from(table.entries[place as usize]) / white).min(1.0)
                }))
            }
        }
    }

    /// The values of the image at its ends, which lie the other way round where dark and light were exchanged.
    fn window(&self, values: &Values) -> Option<[f64; 2]> {
        let (low, high) = self.ends()?;
        let (one, other) = (values.of_rescaled(low), values.of_rescaled(high));
        let ends = [one.min(other), one.max(other)];
        (ends.iter().all(|end| end.is_finite()) && ends[0] < ends[1]).then_some(ends)
    }

    /// By value of the image, how light it is.
    fn shades(&self, values: &Values) -> Option<Vec<f64>> {
        let curve = self.curve()?;
        let share = |value: u32| {
            let share = curve(values.rescaled(f64::from(value)));
            if values.inverted { 1.0 - share } else { share }
        };
        Some((0..=values.largest as u32).map(share).collect())
    }
}

/// How the values of an image come from the rescaled ones of its file.
struct Values {
    slope: f64,
    intercept: f64,
    /// What is added to signed stored values.
    shift: f64,
    largest: f64,
    inverted: bool,
}

impl Values {
    fn of_rescaled(&self, value: f64) -> f64 {
        let stored = (value - self.intercept) / self.slope + self.shift;
        if self.inverted { self.largest - stored } else { stored }
    }

    fn rescaled(&self, value: f64) -> f64 {
        let stored = if self.inverted { self.largest - value } else { value } - self.shift;
        stored * self.slope + self.intercept
    }
}
