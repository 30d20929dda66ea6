//! Archives of arrays: whatever the bytes, a volume that is as long as its shape, or a reason.
#![no_main]

use std::io::Cursor;

use argent_imaging::npz::read_archive;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match read_archive(Cursor::new(bytes), None) {
        Ok(volume) => {
            let count = volume.geometry.voxel_count();
            assert_eq!(volume.into_volume().0.hounsfield.len(), count);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
