//! Operators that bring reports in.

pub mod table;
