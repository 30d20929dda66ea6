//! Operators that divide subjects into parts.

pub mod groups;
