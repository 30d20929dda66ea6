//! From the channels of a file to one grey value per pixel.

use super::ImageProblem;

/// The samples of a file, pixel by pixel.
pub(super) struct Samples {
    /// `channels` samples for each pixel.
    pub(super) values: Vec<u16>,
    /// 1 to 4: grey, grey and opacity, three colours, three colours and opacity.
    pub(super) channels: usize,
    /// The value of an opaque pixel.
    pub(super) opaque: u16,
}

/// Grey values, and what was left out to have them.
#[derive(Debug)]
pub(super) struct Grey {
    pub(super) pixels: Vec<u16>,
    pub(super) warnings: Vec<String>,
}

/// The grey values of samples whose colours differ by `tolerance` at most; where they differ at all, their luma.
///
/// # Errors
///
/// [`ImageProblem::Colour`], if the colours of a pixel differ by more.
pub(super) fn to_grey(samples: Samples, width: usize, tolerance: u16) -> Result<Grey, ImageProblem> {
    let Samples { values, channels, opaque } = samples;
    let mut warnings = Vec::new();
    if channels.is_multiple_of(2) {
        let pixels = values.chunks_exact(channels);
        let (of, seen_through) = (pixels.len(), pixels.filter(|pixel| pixel[channels - 1] != opaque).count());
        warnings
            .push(format!("the opacity channel was dropped; {seen_through} of {of} pixels are not opaque"));
    }
    if channels < 3 {
        let pixels = if channels == 1 { values } else { values.into_iter().step_by(2).collect() };
        return Ok(Grey { pixels, warnings });
    }
    let colours = || values.chunks_exact(channels).map(|pixel| [pixel[0], pixel[1], pixel[2]]);
    let differences = || colours().map(spread);
    let largest = differences().max().unwrap_or(0);
    if largest > tolerance {
        let first = differences().position(|difference| difference > tolerance).unwrap_or(0);
        let count = differences().filter(|difference| *difference > tolerance).count();
        let of = values.len() / channels;
        return Err(ImageProblem::Colour { count, of, first: [first % width, first / width] });
    }
    if largest > 0 {
        warnings
            .push(format!("colours differ by up to {largest} levels within a pixel; their luma was kept"));
    }
    Ok(Grey { pixels: colours().map(luma).collect(), warnings })
}

fn spread([red, green, blue]: [u16; 3]) -> u16 {
    red.max(green).max(blue) - red.min(green).min(blue)
}

/// ITU-R BT.601 luma, rounded; the value itself where all three are equal.
fn luma([red, green, blue]: [u16; 3]) -> u16 {
    let weighted = 299 * u32::from(red) + 587 * u32::from(green) + 114 * u32::from(blue);
    ((weighted + 500) / 1000) as u16
}
