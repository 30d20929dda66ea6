//! The standard's data dictionary (PS3.6).

use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry, VirtualVr};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::StandardDataDictionary;

/// The tag of a keyword such as `PatientAge`; `None` where the dictionary has no such keyword.
pub fn tag_of(keyword: &str) -> Option<Tag> {
    StandardDataDictionary.by_name(keyword).map(DataDictionaryEntry::tag)
}

/// The keyword nearest to one that the dictionary does not have, of those whose values are text or numbers. `distance`
/// counts what differs between two words; a nearest one at more than `most` is none.
pub fn keyword_like(
    keyword: &str,
    distance: impl Fn(&str, &str) -> usize,
    most: usize,
) -> Option<&'static str> {
    // The dictionary does not list its entries; groups of images and patients lie here.
    let groups = (0x0008_u16..=0x0040).step_by(2);
    let tags = groups.flat_map(|group| (0_u16..=u16::MAX).map(move |element| Tag(group, element)));
    let known =
        tags.filter_map(|tag| StandardDataDictionary.by_tag(tag)).filter(|entry| is_textual(entry.tag()));
    let measured = known.map(|entry| (distance(keyword, entry.alias()), entry.alias()));
    measured.min().filter(|(apart, _)| *apart <= most).map(|(_, alias)| alias)
}

/// Whether the values of a tag can be written as text: not pixels, bytes or sequences.
pub fn is_textual(tag: Tag) -> bool {
    !matches!(&value_representation(tag), b"SQ" | b"OB" | b"OD" | b"OF" | b"OL" | b"OV" | b"OW" | b"UN")
}

/// The value representation of a tag; `UN` for private and unlisted ones.
pub(super) fn value_representation(tag: Tag) -> [u8; 2] {
    let Some(entry) = StandardDataDictionary.by_tag(tag) else { return *b"UN" };
    let vr = match entry.vr() {
        VirtualVr::Exact(vr) => vr,
        // Whether it is signed says `PixelRepresentation`; see `values.rs`.
        VirtualVr::Xs => VR::US,
        _ => VR::OW,
    };
    let name = vr.to_string().as_bytes();
    [name[0], name[1]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_have_tags_and_tags_representations() {
        assert_eq!(tag_of("PatientAge"), Some(Tag(0x0010, 0x1010)));
        assert_eq!(tag_of("PatientAgee"), None);
        assert_eq!(&value_representation(Tag(0x0028, 0x0030)), b"DS");
        assert_eq!(&value_representation(Tag(0x0009, 0x1001)), b"UN");
        assert!(is_textual(Tag(0x0010, 0x1010)) && !is_textual(Tag(0x7fe0, 0x0010)));
    }
}
