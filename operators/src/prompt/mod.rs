//! Operators on prompts.

pub mod sweep;
