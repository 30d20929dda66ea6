//! Why slices make no volume.

use std::fmt;

/// Why slices make no volume.
#[derive(Debug, Clone, PartialEq)]
pub enum StackProblem {
    /// An image of another kind: what it is.
    NotASlice(&'static str),
    /// One file holds several images, and does not say where each lies.
    MultiFrame {
        /// How many.
        frames: u32,
    },
    /// One file holds several stacks of images.
    Stacks {
        /// What they are called.
        ids: Vec<String>,
    },
    /// Something that a place needs is not said, or means nothing.
    Unplaced(&'static str),
    /// There is one slice only.
    Single,
    /// Slices at equal positions.
    Duplicate {
        /// How many positions are taken more than once.
        positions: usize,
        /// How many slices lie at the first of them.
        slices: usize,
        /// Where that is, in mm along the normal.
        at_mm: f64,
        /// Whether they are one image twice, by its UID.
        same_image: bool,
    },
    /// A gap as wide as several, where slices are missing.
    Missing {
        /// How many slices are missing in all.
        missing: usize,
        /// Places of the first gap, counted from 1 in the order of positions: behind which slice it is.
        behind: usize,
        /// Its width in mm.
        gap_mm: f64,
        /// The width of the others in mm.
        usual_mm: f64,
    },
    /// Gaps of several widths.
    Uneven {
        /// The widest gap in mm.
        widest_mm: f64,
        /// The narrowest gap in mm.
        narrowest_mm: f64,
        /// Behind which slice the first odd one is, counted from 1.
        behind: usize,
    },
    /// A slice that lies beside the line of the others.
    Shifted {
        /// Which, counted from 1 in the order of positions.
        slice: usize,
        /// How far, in mm.
        by_mm: f64,
    },
    /// Another part of the same series makes a larger volume.
    Smaller {
        /// How many slices this part has.
        slices: usize,
        /// How many the larger one has.
        largest: usize,
    },
}

impl StackProblem {
    /// A word for the kind of problem.
    pub fn kind(&self) -> &'static str {
        match self {
            StackProblem::NotASlice(_) | StackProblem::Smaller { .. } => "not_a_volume",
            StackProblem::MultiFrame { .. } | StackProblem::Stacks { .. } => "multi_frame",
            StackProblem::Unplaced(_) => "geometry",
            StackProblem::Single => "single_slice",
            StackProblem::Duplicate { .. } => "duplicate_slices",
            StackProblem::Missing { .. } => "missing_slices",
            StackProblem::Uneven { .. } | StackProblem::Shifted { .. } => "uneven_slices",
        }
    }
}

impl fmt::Display for StackProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StackProblem::NotASlice(what) => write!(f, "{what}; expected slices of a volume"),
            StackProblem::MultiFrame { frames } => write!(
                f,
                "a multi-frame object of {frames} frames in one file, which does not say where each lies; expected a position \
                 for every frame, or a file for each slice"
            ),
            StackProblem::Stacks { ids } => write!(
                f,
                "a multi-frame object of {} stacks in one file ({}); expected one: write a file for each of them",
                ids.len(),
                ids.iter().map(|id| format!("`{id}`")).collect::<Vec<_>>().join(", ")
            ),
            StackProblem::Unplaced(what) => {
                write!(
                    f,
                    "the header does not give {what}, so the slices have no place; repair it at its source"
                )
            }
            StackProblem::Single => {
                write!(f, "one slice; expected at least two, whose distance is the voxel's depth")
            }
            StackProblem::Duplicate { positions, slices, at_mm, same_image } => {
                let (what, advice) = match same_image {
                    true => ("the same image", "leave all but one of its files out"),
                    false => (
                        "different images",
                        "series over time and several reconstructions under one UID must be taken apart first",
                    ),
                };
                let more = match positions - 1 {
                    0 => String::new(),
                    others => format!(", and {others} more positions are taken more than once"),
                };
                write!(
                    f,
                    "{slices} slices lie at {at_mm:.3} mm along the normal{more}; expected one at each position: they are \
                     {what}; {advice}"
                )
            }
            StackProblem::Missing { missing, behind, gap_mm, usual_mm } => write!(
                f,
                "{missing} {} missing: behind slice {behind}, in the order of positions, is a gap of {gap_mm:.3} mm where others \
                 are {usual_mm:.3} mm; copy the series again from its source",
                if *missing == 1 { "slice is" } else { "slices are" }
            ),
            StackProblem::Uneven { widest_mm, narrowest_mm, behind } => write!(
                f,
                "the gaps between slices are {narrowest_mm:.3} to {widest_mm:.3} mm, the first odd one behind slice {behind} in the \
                 order of positions; expected equal ones: take the parts of equal gaps"
            ),
            StackProblem::Shifted { slice, by_mm } => write!(
                f,
                "slice {slice}, in the order of positions, lies {by_mm:.3} mm beside the line of the others; expected them on one"
            ),
            StackProblem::Smaller { slices, largest } => write!(
                f,
                "{slices} {} of another orientation, shape, spacing or kind than the {largest} that make the volume of the series",
                if *slices == 1 { "slice is" } else { "slices are" }
            ),
        }
    }
}
