//! X-ray images: whatever the bytes of a PNG, JPEG or DICOM file, an image that has all its pixels, or a reason.
#![no_main]

use argent_imaging::image::read;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match read(bytes, "fuzz") {
        Ok(image) => assert_eq!(image.pixels.len(), image.width * image.height),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
