//! How a camera or scanner was held, as EXIF tells it, and turning an image upright.

use ::exif::{In, Reader, Tag};

use super::Image;

/// How the stored rows and columns lie in the upright image: EXIF's tag 0x0112, from 1 to 8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExifOrientation(u8);

impl ExifOrientation {
    /// The number: 1 as stored, 2 mirrored left to right, 3 turned by 180 degrees, 4 mirrored top to bottom,
    /// 5 mirrored at the diagonal, 6 to be turned by 90 degrees clockwise, 7 mirrored at the other diagonal, 8 to be
    /// turned by 90 degrees counter-clockwise.
    pub fn number(self) -> u8 {
        self.0
    }

    /// The orientation in an EXIF block, if it has one; else a word on why it does not read.
    pub(super) fn read(block: &[u8]) -> Result<Option<ExifOrientation>, String> {
        let read = Reader::new().read_raw(block.to_vec());
        let read =
            read.map_err(|_| "the EXIF block does not read; the image is kept as stored".to_owned())?;
        let Some(field) = read.get_field(Tag::Orientation, In::PRIMARY) else { return Ok(None) };
        match field.value.get_uint(0) {
            Some(number @ 1..=8) => Ok(Some(ExifOrientation(number as u8))),
            _ => Err("the EXIF orientation is none of 1 to 8; the image is kept as stored".to_owned()),
        }
    }
}

/// The image as it stands upright, with the orientation noted.
pub(super) fn upright(image: Image, block: Option<&[u8]>) -> Image {
    let Some(block) = block else { return image };
    match ExifOrientation::read(block) {
        Ok(None) => image,
        Ok(Some(orientation)) => Image { orientation: Some(orientation), ..turned(image, orientation) },
        Err(warning) => {
            let mut image = image;
            image.warnings.push(warning);
            image
        }
    }
}

fn turned(image: Image, orientation: ExifOrientation) -> Image {
    let exchanged = orientation.0 >= 5;
    let (stored_width, stored_height) = (image.width, image.height);
    let (width, height) =
        if exchanged { (stored_height, stored_width) } else { (stored_width, stored_height) };
    if orientation.0 == 1 {
        return image;
    }
    let stored = |x: usize, y: usize| {
        let (right, bottom) = (stored_width - 1, stored_height - 1);
        match orientation.0 {
            2 => (right - x, y),
            3 => (right - x, bottom - y),
            4 => (x, bottom - y),
            5 => (y, x),
            6 => (y, bottom - x),
            7 => (right - y, bottom - x),
            8 => (right - y, x),
            _ => (x, y),
        }
    };
    let mut pixels = Vec::with_capacity(image.pixels.len());
    for y in 0..height {
        pixels.extend((0..width).map(|x| {
            let (x, y) = stored(x, y);
            image.pixels[x + stored_width * y]
        }));
    }
    let spacing_mm = image.spacing_mm.map(|[x, y]| if exchanged { [y, x] } else { [x, y] });
    Image { width, height, pixels, spacing_mm, ..image }
}
