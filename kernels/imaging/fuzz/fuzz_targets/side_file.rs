//! Side files: whatever the bytes, a volume that is written as it was read, or a reason.
#![no_main]

use argent_imaging::side_file::{decode, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match decode(bytes) {
        Ok(volume) => drop(encode(&volume)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
