//! Files that these tests write, and the reference files where they are.

mod files;
mod multi_frame;
mod reading;
mod real;
mod stacking;
