//! Operators that bring reports in.

pub mod decode;
pub mod fhir;
pub mod folder;
pub mod hl7;
pub(crate) mod intake;
pub mod layout;
pub mod table;
mod version;
