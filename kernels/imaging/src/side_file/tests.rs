//! Volumes are kept without loss, read in part, and refused where they are damaged.

use proptest::prelude::*;

use super::{HEADER_BYTES, MAGIC, Reader, SideFileError, Storage, decode, encode};
use crate::geometry::Geometry;
use crate::orientation::Orientation;
use crate::volume::Volume;

fn geometry(shape: [usize; 3]) -> Geometry {
    let mut geometry = Geometry::from_spacing(shape, [0.1 + 0.2, 1.0 / 3.0, 2.5], Orientation::LPS);
    geometry.set_column(3, [-123.456, 78.9, f64::MIN_POSITIVE]);
    geometry
}

/// A volume that leaps over the whole range of 16 bits.
fn volume(shape: [usize; 3]) -> Volume {
    let geometry = geometry(shape);
    Volume { geometry, hounsfield: (0..geometry.voxel_count()).map(|place| (place * 7919) as i16).collect() }
}

fn packed(volume: &Volume) -> Vec<u8> {
    encode(volume, Storage::Packed).unwrap()
}

fn plain(volume: &Volume) -> Vec<u8> {
    encode(volume, Storage::Plain).unwrap()
}

/// A part of a volume, voxel by voxel.
fn part(volume: &Volume, start: [usize; 3], shape: [usize; 3]) -> Vec<i16> {
    let [columns, rows, _] = volume.geometry.shape;
    let mut voxels = Vec::new();
    for k in start[2]..start[2] + shape[2] {
        for j in start[1]..start[1] + shape[1] {
            voxels.extend(
                (start[0]..start[0] + shape[0]).map(|i| volume.hounsfield[i + columns * (j + rows * k)]),
            );
        }
    }
    voxels
}

/// A shape, and a box in it.
fn boxes() -> impl Strategy<Value = ([usize; 3], [usize; 3], [usize; 3])> {
    let axis = (1..100_usize)
        .prop_flat_map(|whole| (Just(whole), 0..=whole))
        .prop_flat_map(|(whole, start)| (Just(whole), Just(start), 0..=whole - start));
    [axis.clone(), axis.clone(), axis]
        .prop_map(|[x, y, z]| ([x.0, y.0, z.0], [x.1, y.1, z.1], [x.2, y.2, z.2]))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn what_is_encoded_is_decoded_whole_and_in_part((shape, start, size) in boxes(), seed in any::<u64>()) {
        let mut state = seed | 1;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 48) as i16
        };
        let geometry = geometry(shape);
        let volume = Volume { geometry, hounsfield: (0..geometry.voxel_count()).map(|_| next()).collect() };
        let mut voxels = vec![7; 5];
        for bytes in [packed(&volume), plain(&volume)] {
            prop_assert_eq!(&decode(&bytes).unwrap(), &volume);
            let reader = Reader::new(bytes).unwrap();
            reader.crop(start, size, &mut voxels).unwrap();
            prop_assert_eq!(&voxels, &part(&volume, start, size));
        }
    }

    #[test]
    fn any_header_is_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 184), version in 1..3_u8) {
        let bytes = [MAGIC.as_slice(), &[version, 0, 0, 0, 192, 0, 0, 0], &bytes].concat();
        if let Ok(volume) = decode(&bytes) {
            prop_assert_eq!(volume.hounsfield.len(), volume.geometry.voxel_count());
        }
    }

    #[test]
    fn a_byte_that_changed_behind_the_header_is_noticed(place in any::<prop::sample::Index>(), by in 1..=255_u8) {
        let mut bytes = packed(&volume([65, 5, 40]));
        let place = HEADER_BYTES + place.index(bytes.len() - HEADER_BYTES);
        bytes[place] ^= by;
        prop_assert!(decode(&bytes).is_err(), "{place} by {by}");
    }
}

/// The layout is a promise: stores keep such files.
#[test]
fn the_layout_is_as_documented() {
    let bytes = packed(&volume([2, 65, 4]));
    assert_eq!(
        bytes[..40],
        *b"ARGENTHU\x02\0\0\0\xc0\0\0\0\x02\0\0\0\0\0\0\0\x41\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0"
    );
    assert_eq!(bytes[40..48], (-(0.1_f64 + 0.2)).to_le_bytes());
    assert_eq!(bytes[64..72], (-123.456_f64).to_le_bytes());
    assert_eq!(bytes[136..192], [0; 56]);
    let plain = plain(&volume([2, 65, 4]));
    assert_eq!((plain[8], &plain[12..192]), (1, &bytes[12..192]));
    assert_eq!((plain.len(), &plain[194..196]), (192 + 2 * 520, &7919_i16.to_le_bytes()[..]));
    // Two chunks: of 64 rows, and of the one that is left.
    let lengths = [192, 196].map(|at| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize);
    assert_eq!(bytes.len(), 200 + lengths[0] + lengths[1]);
    for frame in [200, 200 + lengths[0]] {
        assert_eq!(bytes[frame..frame + 4], 0xfd2f_b528_u32.to_le_bytes(), "the magic of Zstandard");
    }
}

/// What a chunk's frame holds, worked out by hand.
#[test]
fn voxels_are_differences_from_what_their_neighbours_say() {
    let hounsfield = vec![10, 12, 11, 14, -1000, 300, -1001, 303];
    let bytes = packed(&Volume { geometry: geometry([2, 2, 2]), hounsfield });
    let planes = zstd::bulk::decompress(&bytes[196..], 16).unwrap();
    // 10, 12 - 10; 11 - 10, 14 - 11 - (12 - 10); -1000 - 10, 300 + 1000 - (12 - 10); -1001 + 1000, 303 + 1001 - (300 + 1000)
    let folded = [20_u16, 4, 2, 2, 2019, 2596, 1, 8];
    assert_eq!(planes[..8], folded.map(|difference| difference as u8));
    assert_eq!(planes[8..], folded.map(|difference| (difference >> 8) as u8));
}

#[test]
fn a_smooth_volume_takes_a_fraction_of_its_bytes() {
    let geometry = geometry([64, 64, 64]);
    let hounsfield = (0..geometry.voxel_count()).map(|place| (place % 64 + place / 64 % 64) as i16).collect();
    let bytes = packed(&Volume { geometry, hounsfield });
    assert!(bytes.len() < 2 * geometry.voxel_count() / 100, "{} bytes", bytes.len());
}

#[test]
fn what_is_no_side_file_is_refused() {
    let whole = volume([2, 3, 4]);
    let bytes = packed(&whole);
    let length = bytes.len();
    let refused = |bytes: &[u8]| decode(bytes).unwrap_err().to_string();
    assert_eq!(decode(b"\x89PNG"), Err(SideFileError::Magic));
    assert_eq!(decode(&bytes[..100]), Err(SideFileError::Length { expected: 192, actual: 100 }));
    let cut = SideFileError::Length { expected: length as u128, actual: length - 1 };
    assert_eq!(decode(&bytes[..length - 1]), Err(cut));
    let cut = SideFileError::Length { expected: 240, actual: 239 };
    assert_eq!(decode(&plain(&whole)[..239]), Err(cut));
    let longer = SideFileError::Length { expected: length as u128, actual: length + 1 };
    assert_eq!(decode(&[bytes.as_slice(), &[0]].concat()), Err(longer));
    let mut newer = bytes.clone();
    newer[8] = 3;
    assert_eq!(
        refused(&newer),
        "a volume side file of version 3 with a header of 192 bytes; expected version 1 or 2 and 192: make the volume again \
         with this version of argent"
    );
    let mut damaged = bytes.clone();
    damaged[length - 1] ^= 1;
    assert_eq!(
        refused(&damaged),
        "chunk 1 of 1 of a volume side file is damaged (Restored data doesn't match checksum): make the volume again"
    );
    let mut short = bytes.clone();
    short[192..196].copy_from_slice(&3_u32.to_le_bytes());
    assert!(refused(&short).contains("its frame has 3 bytes; expected at least 14"));
    for version in [1, 2] {
        let mut endless = bytes.clone();
        endless[8] = version;
        endless[16..40].fill(0xff);
        assert!(matches!(decode(&endless), Err(SideFileError::Length { .. })));
        endless[32..40].fill(0);
        assert!(
            matches!(decode(&endless[..192]), Err(SideFileError::Length { .. })),
            "no voxels, and no end of rows"
        );
    }
}

#[test]
fn a_part_that_is_not_in_the_volume_is_refused() {
    let reader = Reader::new(packed(&volume([2, 3, 4]))).unwrap();
    let said = reader.crop([1, 0, 0], [2, 3, 4], &mut Vec::new()).unwrap_err().to_string();
    assert_eq!(
        said,
        "2 x 3 x 4 voxels from 1, 0, 0 on were asked for in a volume of 2 x 3 x 4; expected a part of it"
    );
    assert!(reader.crop([usize::MAX, 0, 0], [2, 1, 1], &mut Vec::new()).is_err());
}
