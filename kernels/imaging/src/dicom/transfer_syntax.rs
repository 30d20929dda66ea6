//! Transfer syntaxes: how a file's elements and pixels are written.

use super::error::DicomProblem;

/// How a file is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TransferSyntax {
    /// Its UID; empty where the file names none.
    pub(super) uid: String,
    pub(super) encoding: Encoding,
    /// Whether the elements are one deflate stream.
    pub(super) deflated: bool,
    pub(super) pixels: Pixels,
}

/// How elements are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Encoding {
    /// Whether each element names its value representation.
    pub(super) explicit: bool,
    pub(super) big_endian: bool,
}

impl Encoding {
    pub(super) const EXPLICIT: Encoding = Encoding { explicit: true, big_endian: false };
    pub(super) const IMPLICIT: Encoding = Encoding { explicit: false, big_endian: false };
    pub(super) const EXPLICIT_BIG: Encoding = Encoding { explicit: true, big_endian: true };
}

/// How pixels are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pixels {
    Plain,
    Rle,
    /// Baseline, extended, progressive and lossless JPEG, by the codestream's own word.
    Jpeg(&'static str),
    JpegLs,
    Jpeg2000,
    /// A codec that is not decoded, by name.
    Other(&'static str),
}

/// The common start of the standard's UIDs.
const STANDARD: &str = "1.2.840.10008.1.2";

impl TransferSyntax {
    /// The transfer syntax of a UID.
    ///
    /// # Errors
    /// For a UID that PS3.6 does not list, since nothing says how the elements are written.
    pub(super) fn of(uid: &str) -> Result<TransferSyntax, DicomProblem> {
        let unknown = || {
            DicomProblem::Unsupported(format!(
                "the transfer syntax {uid} is not one of the standard's; convert the file to explicit VR little endian first"
            ))
        };
        let end = uid.strip_prefix(STANDARD).ok_or_else(unknown)?;
        let (encoding, deflated, pixels) = match end {
            "" => (Encoding::IMPLICIT, false, Pixels::Plain),
            ".1" => (Encoding::EXPLICIT, false, Pixels::Plain),
            ".1.98" => (Encoding::EXPLICIT, false, Pixels::Other("encapsulated uncompressed")),
            ".1.99" => (Encoding::EXPLICIT, true, Pixels::Plain),
            ".2" => (Encoding::EXPLICIT_BIG, false, Pixels::Plain),
            ".5" => (Encoding::EXPLICIT, false, Pixels::Rle),
            ".8.1" => (Encoding::EXPLICIT, false, Pixels::Other("deflated frames")),
            end => (Encoding::EXPLICIT, false, end.strip_prefix(".4.").and_then(codec).ok_or_else(unknown)?),
        };
        Ok(TransferSyntax { uid: uid.to_owned(), encoding, deflated, pixels })
    }

    /// A file that names no transfer syntax, whose elements are written in this way.
    pub(super) fn unnamed(encoding: Encoding) -> TransferSyntax {
        TransferSyntax { uid: String::new(), encoding, deflated: false, pixels: Pixels::Plain }
    }
}

/// The codec of `1.2.840.10008.1.2.4.<number>`, by PS3.6.
fn codec(number: &str) -> Option<Pixels> {
    Some(match number.parse().ok()? {
        50 => Pixels::Jpeg("JPEG baseline"),
        51 | 52 => Pixels::Jpeg("JPEG extended"),
        53 | 54 => Pixels::Jpeg("JPEG spectral selection"),
        55 | 56 => Pixels::Jpeg("JPEG full progression"),
        57 | 58 | 70 => Pixels::Jpeg("JPEG lossless"),
        59..=66 => Pixels::Other("hierarchical JPEG"),
        80 | 81 => Pixels::JpegLs,
        90 | 91 => Pixels::Jpeg2000,
        92 | 93 => Pixels::Other("JPEG 2000 part 2"),
        94..=99 => Pixels::Other("JPIP, whose pixels are on a server"),
        100..=106 => Pixels::Other("MPEG or H.264 video"),
        107 | 108 => Pixels::Other("HEVC video"),
        110..=112 => Pixels::Other("JPEG XL"),
        201..=205 => Pixels::Other("high-throughput JPEG 2000"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_says_how_elements_and_pixels_are_written() {
        let of = |uid: &str| TransferSyntax::of(uid).unwrap();
        assert_eq!(of("1.2.840.10008.1.2").encoding, Encoding::IMPLICIT);
        assert_eq!(of("1.2.840.10008.1.2.2").encoding, Encoding::EXPLICIT_BIG);
        assert!(of("1.2.840.10008.1.2.1.99").deflated);
        assert_eq!(of("1.2.840.10008.1.2.4.90").pixels, Pixels::Jpeg2000);
        assert_eq!(of("1.2.840.10008.1.2.4.201").pixels, Pixels::Other("high-throughput JPEG 2000"));
        assert!(TransferSyntax::of("1.2.840.113619.5.2").is_err());
        assert!(TransferSyntax::of("1.2.840.10008.1.2.4.x").is_err());
    }
}
