//! Whether a JPEG codestream has all of its compressed data.
//!
//! Where the data ends early, decoders put zeros in its place and say nothing, and a file may have lost its middle and kept its
//! end marker. So it is decoded twice, the second time with other bits behind each scan: a file that is whole is not touched by
//! them.

use std::collections::BTreeMap;

/// The file with some bytes behind the compressed data of each scan.
///
/// # Errors
///
/// If the file has no end marker, or ends before the scan that refines a coefficient last.
pub(crate) fn with_other_bits_behind_scans(bytes: &[u8]) -> Result<Vec<u8>, &'static str> {
    const OTHER_BITS: [u8; 8] = [0xaa, 0x55, 0xcc, 0xb3, 0xd2, 0x95, 0x6b, 0xa6];
    let cut = || "it has no end marker";
    let mut changed = bytes.get(..2).ok_or_else(cut)?.to_vec();
    let mut refinement = Refinement::default();
    let mut at = 2;
    loop {
        // Some writers leave bytes between segments, and any number of 0xff may stand before a marker's code.
        let rest = bytes.get(at..).ok_or_else(cut)?;
        let is_marker = |pair: &[u8]| pair[0] == 0xff && pair[1] != 0xff;
        let code_at = at + rest.windows(2).position(is_marker).ok_or_else(cut)? + 1;
        let code = bytes[code_at];
        if code == END_OF_IMAGE {
            changed.extend(rest);
            return match refinement.is_complete() {
                true => Ok(changed),
                false => Err("it ends before its last scans"),
            };
        }
        let length = bytes.get(code_at + 1..code_at + 3).ok_or_else(cut)?;
        let mut end = code_at + 1 + usize::from(u16::from_be_bytes([length[0], length[1]]));
        refinement.note(code, bytes.get(code_at + 3..end).unwrap_or_default());
        if code == START_OF_SCAN {
            end = end_of_scan(bytes, end).ok_or_else(cut)?;
        }
        changed.extend(bytes.get(at..end).ok_or_else(cut)?);
        if code == START_OF_SCAN {
            changed.extend(OTHER_BITS);
        }
        at = end;
    }
}

const PROGRESSIVE_FRAME: u8 = 0xc2;
const END_OF_IMAGE: u8 = 0xd9;
const START_OF_SCAN: u8 = 0xda;

/// How far the scans of a progressive file have come: by component, how many low bits each of its 64 coefficients still
/// lacks. A file of another kind is complete with its scan.
#[derive(Default)]
struct Refinement {
    missing_bits: BTreeMap<u8, [u8; 64]>,
}

impl Refinement {
    /// Takes note of a segment: ITU-T T.81, B.2.2 and B.2.3.
    fn note(&mut self, code: u8, segment: &[u8]) {
        match (code, segment) {
            (PROGRESSIVE_FRAME, [_, _, _, _, _, _, components @ ..]) => {
                self.missing_bits =
                    components.chunks_exact(3).map(|component| (component[0], [u8::MAX; 64])).collect();
            }
            (START_OF_SCAN, [count, rest @ ..]) => {
                let (components, rest) = rest.split_at_checked(2 * usize::from(*count)).unwrap_or_default();
                let [first, last, bits, ..] = rest else { return };
                for component in components.chunks_exact(2) {
                    let coefficients = self.missing_bits.get_mut(&component[0]);
                    let sent =
                        coefficients.and_then(|all| all.get_mut(usize::from(*first)..=usize::from(*last)));
                    sent.into_iter().flatten().for_each(|missing| *missing = bits & 0x0f);
                }
            }
            _ => {}
        }
    }

    fn is_complete(&self) -> bool {
        self.missing_bits.values().flatten().all(|missing| *missing == 0)
    }
}

/// Where the next marker begins that neither is a stuffed byte nor restarts the decoder, with the bytes that fill up to it.
fn end_of_scan(bytes: &[u8], start: usize) -> Option<usize> {
    let is_end = |pair: &[u8]| pair[0] == 0xff && !matches!(pair[1], 0x00 | 0xd0..=0xd7 | 0xff);
    let mut end = start + bytes.get(start..)?.windows(2).position(is_end)?;
    while end > start && bytes[end - 1] == 0xff {
        end -= 1;
    }
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::with_other_bits_behind_scans;

    #[test]
    fn bits_come_behind_the_data_and_before_what_fills_up_to_the_next_marker() {
        let header = [0xff, 0xd8, 0xff, 0xda, 0, 3, 1];
        let changed = |scan: &[u8]| with_other_bits_behind_scans(&[&header, scan].concat());
        let data = [0x12, 0xff, 0x00, 0x34, 0xff, 0xd0, 0x56];
        for filling in [&[][..], &[0xff], &[0xff, 0xff]] {
            let end = [filling, &[0xff, 0xd9]].concat();
            let expected =
                [&header[..], &data, &[0xaa, 0x55, 0xcc, 0xb3, 0xd2, 0x95, 0x6b, 0xa6], &end].concat();
            assert_eq!(changed(&[&data[..], &end].concat()), Ok(expected));
        }
        assert_eq!(changed(&data), Err("it has no end marker"));
    }
}
