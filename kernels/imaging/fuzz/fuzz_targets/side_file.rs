//! Side files: whatever the bytes, a volume that is written as it was read, whole and in part, or a reason.
#![no_main]

use argent_imaging::side_file::{Reader, Storage, decode, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let volume = match decode(bytes) {
        Ok(volume) => volume,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    for storage in [Storage::Packed, Storage::Plain] {
        let written = encode(&volume, storage).expect("memory for a compressor");
        assert_eq!(decode(&written).expect("what was written is read").hounsfield, volume.hounsfield);
    }
    let reader = Reader::new(bytes).expect("it was read a moment ago");
    let [x, y, z] = reader.geometry().shape;
    let mut part = Vec::new();
    reader.crop([x / 3, y / 3, z / 3], [x / 2, y / 2, z / 2], &mut part).expect("a part of it");
    assert_eq!(part.len(), (x / 2) * (y / 2) * (z / 2));
});
