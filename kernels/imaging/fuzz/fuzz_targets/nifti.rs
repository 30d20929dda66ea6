//! NIfTI: whatever the bytes, a volume that is as long as its shape, or a reason.
#![no_main]

use argent_imaging::nifti::read;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match read(bytes, "fuzz.nii") {
        Ok(volume) => {
            let count = volume.geometry.voxel_count();
            assert_eq!(volume.into_volume().0.hounsfield.len(), count);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
