//! Files that these tests write, and the reference files where they are.

mod files;
mod reading;
mod real;
mod stacking;
