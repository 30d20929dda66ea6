//! Reading DICOM: what a file says of its image, the stored values of a frame, and series of slices as volumes.
//!
//! Files come as scanners, archives and anonymisers leave them: without a preamble, a meta group or a transfer syntax, with
//! titles that are too long and slices that are missing. What is only written oddly is read; what would make a wrong image
//! (cut short, damaged, in colours, at unknown places) is refused with its reason, and never filled up.

mod codec;
mod dataset;
mod dictionary;
mod error;
mod file;
mod frames;
mod header;
mod image;
mod series;
mod stack;
mod transfer_syntax;
mod values;
mod voi;

#[cfg(test)]
mod tests;

pub use dicom_core::Tag;
pub use dictionary::{is_textual, keyword_like, tag_of};
pub use error::{DicomError, DicomProblem};
pub use file::is_dicom;
pub use header::{Header, header, read_header};
pub use image::{Image, image, read_image};
pub use series::{Rescale, Series, SeriesError, read_series};
pub use stack::{Found, Slice, Stack, StackProblem, Uneven, stacks};
pub use voi::{VoiTable, voi_table};

/// The SOP class of a `DICOMDIR`: an index of the files of a disc, which has no image of its own.
pub const DIRECTORY: &str = dicom_dictionary_std::uids::MEDIA_STORAGE_DIRECTORY_STORAGE;
