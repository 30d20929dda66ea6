//! Archives as numpy writes them, and archives that are none.

use std::io::{Cursor, Write};

use proptest::prelude::*;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::{NpzError, read, read_archive};
use crate::reference::folder;
use crate::stored::AffineSource;

/// An array in numpy's format, version 1.
fn npy(descr: &str, fortran_order: bool, shape: &str, voxels: &[u8]) -> Vec<u8> {
    let order = if fortran_order { "True" } else { "False" };
    let header = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(voxels);
    bytes
}

fn npz(arrays: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, array) in arrays {
        archive.start_file(*name, SimpleFileOptions::default()).unwrap();
        archive.write_all(array).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

fn counting(count: i16) -> Vec<u8> {
    (0..count).flat_map(i16::to_le_bytes).collect()
}

fn refusal(bytes: Vec<u8>, array: Option<&str>) -> String {
    read_archive(Cursor::new(bytes), array).unwrap_err().to_string()
}

#[test]
fn the_last_axis_of_an_array_is_the_first_of_the_volume() {
    let volume =
        read_archive(Cursor::new(npz(&[("ct.npy", npy("<i2", false, "(2, 3, 4)", &counting(24)))])), None);
    let volume = volume.unwrap();
    assert_eq!(volume.geometry.shape, [4, 3, 2]);
    assert_eq!((volume.dtype, volume.affine_source), ("int16", AffineSource::None));
    let values = volume.to_f32();
    assert_eq!(values, (0..24).map(|value| value as f32).collect::<Vec<_>>());
    // The same array, laid out the other way: element (a, b, c) is a + 2 b + 6 c in memory.
    let fortran = read_archive(
        Cursor::new(npz(&[("ct.npy", npy("<i2", true, "(2, 3, 4)", &counting(24)))])),
        Some("ct"),
    );
    let fortran = fortran.unwrap();
    assert_eq!(fortran.geometry.shape, [4, 3, 2]);
    let element = |a: usize, b: usize, c: usize| (a + 2 * b + 6 * c) as f32;
    let expected = (0..24).map(|place| element(place / 12, place / 4 % 3, place % 4));
    assert_eq!(fortran.to_f32(), expected.collect::<Vec<_>>());
}

#[test]
fn numbers_of_every_type_are_read_and_axes_of_one_left_out() {
    let values = |descr: &str, bytes: &[u8]| {
        let volume =
            read_archive(Cursor::new(npz(&[("v.npy", npy(descr, false, "(1, 2, 2, 2)", bytes))])), None);
        volume.unwrap().to_f32()
    };
    let eight: [i16; 8] = [0, 1, 2, 3, 4, 5, 6, 7];
    let floats: Vec<f32> = eight.iter().map(|value| f32::from(*value)).collect();
    assert_eq!(values("|u1", &eight.map(|value| value as u8)), floats);
    assert_eq!(
        values(">i2", &eight.iter().flat_map(|value| value.to_be_bytes()).collect::<Vec<_>>()),
        floats
    );
    let wide = eight.iter().flat_map(|value| i64::from(*value).to_le_bytes()).collect::<Vec<_>>();
    assert_eq!(values("<i8", &wide), floats);
    let real = eight.iter().flat_map(|value| f64::from(*value).to_be_bytes()).collect::<Vec<_>>();
    assert_eq!(values(">f8", &real), floats);
}

#[test]
fn what_is_no_volume_is_refused_with_its_reason() {
    let good = npy("<i2", false, "(2, 3, 4)", &counting(24));
    assert_eq!(
        refusal(b"not a zip file".to_vec(), None),
        "not an .npz archive: invalid Zip archive: Could not find EOCD; copy the file again from its source"
    );
    let two = npz(&[("ct.npy", good.clone()), ("mask.npy", good.clone()), ("readme.txt", Vec::new())]);
    assert_eq!(
        refusal(two.clone(), None),
        "2 arrays in the archive, expected one, or the name of one; it has ct, mask"
    );
    assert_eq!(refusal(two, Some("volume")), "no array `volume` in the archive; it has ct, mask");
    assert_eq!(
        refusal(npz(&[("ct.npy", npy("<i2", false, "(2, 3, 4)", &counting(23)))]), None),
        "array `ct`: truncated: it needs 48 bytes and 46 are there; copy the file again from its source"
    );
    assert_eq!(
        refusal(npz(&[("ct.npy", npy("<i2", false, "(200000, 300000, 400)", &counting(24)))]), None),
        "array `ct`: truncated: it needs 48000000000000 bytes and far fewer are there; copy the file again from its source"
    );
    assert_eq!(
        refusal(npz(&[("ct.npy", npy("<i2", false, "(2, 3, 4)", &counting(25)))]), None),
        "array `ct`: 2 bytes stand behind the array, expected none"
    );
    assert_eq!(
        refusal(npz(&[("ct.npy", npy("<c8", false, "(2, 3, 4)", &[]))]), None),
        "array `ct`: voxels of type `<c8`, expected integers or floating-point numbers of 8 to 64 bits"
    );
    assert_eq!(
        refusal(npz(&[("ct.npy", npy("<i2", false, "(6, 4)", &counting(24)))]), None),
        "array `ct`: a shape of (6, 4), expected three axes longer than 1"
    );
    let nan = [1.0_f32, 2.0, 3.0, 4.0, 5.0, f32::NAN, 7.0, 8.0].iter().flat_map(|value| value.to_le_bytes());
    assert_eq!(
        refusal(npz(&[("ct.npy", npy("<f4", false, "(2, 2, 2)", &nan.collect::<Vec<_>>()))]), None),
        "array `ct`: 1 of 8 voxels are NaN or infinite, the first at 5; expected numbers: replace them at the source"
    );
    // A byte of the voxels is another one than the archive's checksum knows.
    let mut damaged = npz(&[("ct.npy", good)]);
    let place = damaged.len() / 4;
    damaged[place] ^= 0xff;
    assert!(matches!(
        read_archive(Cursor::new(damaged), None),
        Err(NpzError::Array { .. } | NpzError::NotArchive(_))
    ));
}

#[test]
fn a_volume_of_rad_chestct_is_read_as_numpy_reads_it() {
    let Some(folder) = folder() else { return };
    let path = folder.join("npz/radchest_FAKE000.npz");
    let volume = read(&path, Some("ct")).unwrap();
    assert_eq!((volume.geometry.shape, volume.dtype), ([10, 10, 10], "int32"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn no_change_of_a_byte_and_no_cut_is_a_panic(at in 0_usize..400, to in any::<u8>(), cut in 0_usize..500) {
        let mut bytes = npz(&[("ct.npy", npy("<i2", false, "(2, 3, 4)", &counting(24)))]);
        let at = at % bytes.len();
        bytes[at] = to;
        bytes.truncate(cut.max(1));
        drop(read_archive(Cursor::new(bytes), None));
    }
}
