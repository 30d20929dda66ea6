//! Operators on images of one plane, such as X-rays: one row per image.

pub mod prepare;
pub mod scan;
