//! DICOM files: whatever the bytes, a header and a frame that is as long as its rows and columns, or a reason.
#![no_main]

use argent_imaging::dicom::{header, image};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(error) = header(bytes, "fuzz", &[]) {
        assert!(!error.to_string().is_empty());
    }
    if let Err(error) = image(bytes, "fuzz", 0) {
        assert!(!error.to_string().is_empty());
    }
});
