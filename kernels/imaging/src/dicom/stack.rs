//! Which slices make a volume, in which order, and where it lies.

use std::collections::BTreeMap;
use std::fmt;

use super::header::Header;
use crate::geometry::Geometry;

/// What is needed of a slice to find its place. Millimetres in DICOM's axes, as in [`Header`].
#[derive(Debug, Clone, PartialEq)]
pub struct Slice {
    /// The UID of the series.
    pub series_instance_uid: String,
    /// The object's own UID.
    pub sop_instance_uid: Option<String>,
    /// What kind of object it is, by UID.
    pub sop_class_uid: Option<String>,
    /// The values of the image type.
    pub image_type: Vec<String>,
    /// How samples make colours.
    pub photometric_interpretation: Option<String>,
    /// Whether there are pixel data.
    pub has_pixels: bool,
    /// Images in the file.
    pub frames: u32,
    /// Rows of the image.
    pub rows: Option<u32>,
    /// Columns of the image.
    pub columns: Option<u32>,
    /// Distance of rows and of columns in mm.
    pub pixel_spacing_mm: Option<[f64; 2]>,
    /// The centre of the first pixel in mm.
    pub position_mm: Option<[f64; 3]>,
    /// The direction in which columns count, then the one in which rows count.
    pub direction_cosines: Option<[f64; 6]>,
}

/// A volume made of slices, or slices that make none.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The places of the slices in what was given; of a volume, in the order of their positions.
    pub slices: Vec<usize>,
    /// Where the volume lies, or why there is none.
    pub stack: Result<Stack, StackProblem>,
}

/// Where the voxels of a stack of slices lie.
#[derive(Debug, Clone, PartialEq)]
pub struct Stack {
    /// Shape (columns, rows, slices) and affine.
    pub geometry: Geometry,
}

/// Why slices make no volume.
#[derive(Debug, Clone, PartialEq)]
pub enum StackProblem {
    /// An image of another kind: what it is.
    NotASlice(&'static str),
    /// One file holds several slices.
    MultiFrame {
        /// How many.
        frames: u32,
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

/// Directions that differ less are one: what rounding to six digits does, and less than a hundredth of a degree.
const DIRECTION_TOLERANCE: f64 = 1e-4;

/// Largest deviation of a gap from the usual one, in mm and as a share of it.
const GAP_TOLERANCE: (f64, f64) = (0.01, 0.01);

/// Finds the volumes in slices: those of one series, orientation, shape, spacing and kind belong together. Of several in a
/// series, the one of most slices is kept.
///
/// Slices are sorted by their position along the normal, which numbers and file names only sometimes agree with. The third
/// column of the affine is the step from one position to the next, so that the tilt of a gantry is the volume's own shear.
/// Each slice is in exactly one of the results, which come in the order of their series' UIDs.
pub fn stacks(slices: &[Slice]) -> Vec<Found> {
    let mut series: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (place, slice) in slices.iter().enumerate() {
        series.entry(&slice.series_instance_uid).or_default().push(place);
    }
    series.into_values().flat_map(|places| of_series(slices, &places)).collect()
}

/// Slices of one series that belong together.
struct Group<'a> {
    /// What the slices agree in, by the first of them.
    like: &'a Slice,
    slices: Vec<usize>,
}

fn of_series(slices: &[Slice], places: &[usize]) -> Vec<Found> {
    let mut refused: Vec<(StackProblem, Vec<usize>)> = Vec::new();
    let mut groups: Vec<Group> = Vec::new();
    for &place in places {
        let slice = &slices[place];
        if let Some(problem) = unplaced(slice) {
            match refused.iter_mut().find(|(known, _)| *known == problem) {
                Some((_, places)) => places.push(place),
                None => refused.push((problem, vec![place])),
            }
            continue;
        }
        match groups.iter_mut().find(|group| alike(group.like, slice)) {
            Some(group) => group.slices.push(place),
            None => groups.push(Group { like: slice, slices: vec![place] }),
        }
    }
    // The first of the largest, so that the result is the same each time.
    groups.sort_by_key(|group| std::cmp::Reverse(group.slices.len()));
    let largest = groups.first().map_or(0, |group| group.slices.len());
    let stacked = groups.into_iter().enumerate().map(|(rank, group)| {
        if rank > 0 {
            let problem = StackProblem::Smaller { slices: group.slices.len(), largest };
            return Found { slices: group.slices, stack: Err(problem) };
        }
        stacked(slices, group)
    });
    stacked
        .chain(refused.into_iter().map(|(problem, slices)| Found { slices, stack: Err(problem) }))
        .collect()
}

/// Why a slice has no place in any volume.
fn unplaced(slice: &Slice) -> Option<StackProblem> {
    let sop_class = slice.sop_class_uid.as_deref().unwrap_or_default();
    if sop_class.starts_with(SECONDARY_CAPTURE) {
        return Some(StackProblem::NotASlice("a secondary capture"));
    }
    if slice.image_type.iter().any(|value| value.eq_ignore_ascii_case("LOCALIZER")) {
        return Some(StackProblem::NotASlice("a localizer"));
    }
    if !slice.has_pixels {
        return Some(StackProblem::NotASlice("an object without pixels"));
    }
    if slice.frames > 1 {
        return Some(StackProblem::MultiFrame { frames: slice.frames });
    }
    let photometric = slice.photometric_interpretation.as_deref().unwrap_or("MONOCHROME2");
    if !photometric.starts_with("MONOCHROME") {
        return Some(StackProblem::NotASlice("an image in colours"));
    }
    if slice.rows.is_none_or(|rows| rows == 0) || slice.columns.is_none_or(|columns| columns == 0) {
        return Some(StackProblem::Unplaced("the number of rows and columns"));
    }
    if slice.pixel_spacing_mm.is_none_or(|spacing| !spacing.iter().all(|mm| mm.is_finite() && *mm > 0.0)) {
        return Some(StackProblem::Unplaced("the pixel spacing"));
    }
    if slice.position_mm.is_none() {
        return Some(StackProblem::Unplaced("the position in the patient"));
    }
    if slice.direction_cosines.is_none_or(|cosines| !orthonormal(&cosines)) {
        return Some(StackProblem::Unplaced(
            "an orientation in the patient by two unit vectors at right angles",
        ));
    }
    None
}

/// UIDs of secondary captures, of one frame and of several, begin so (PS3.4, annex B.5).
const SECONDARY_CAPTURE: &str = "1.2.840.10008.5.1.4.1.1.7";

fn orthonormal(cosines: &[f64; 6]) -> bool {
    let (row, column) = halves(cosines);
    // Four digits are the least that is written.
    const TOLERANCE: f64 = 1e-3;
    let unit = |vector| (dot(vector, vector).sqrt() - 1.0).abs() < TOLERANCE;
    unit(row) && unit(column) && dot(row, column).abs() < TOLERANCE
}

/// Whether two slices may lie in one volume.
fn alike(one: &Slice, other: &Slice) -> bool {
    fn near<const N: usize>(one: Option<[f64; N]>, other: Option<[f64; N]>) -> bool {
        let (Some(one), Some(other)) = (one, other) else { return one.is_none() && other.is_none() };
        one.iter().zip(other).all(|(one, other)| (one - other).abs() <= DIRECTION_TOLERANCE)
    }
    (one.rows, one.columns, &one.sop_class_uid) == (other.rows, other.columns, &other.sop_class_uid)
        && near(one.direction_cosines, other.direction_cosines)
        && near(one.pixel_spacing_mm, other.pixel_spacing_mm)
}

/// The volume of slices that belong together.
fn stacked(slices: &[Slice], group: Group) -> Found {
    let cosines = group.like.direction_cosines.unwrap_or_default();
    let (row, column) = halves(&cosines);
    let normal = cross(row, column);
    let position = |place: usize| slices[place].position_mm.unwrap_or_default();
    let mut order: Vec<(f64, usize)> =
        group.slices.iter().map(|&place| (dot(position(place), normal), place)).collect();
    order.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
    let places: Vec<usize> = order.iter().map(|&(_, place)| place).collect();
    let along: Vec<f64> = order.iter().map(|&(mm, _)| mm).collect();
    let positions: Vec<[f64; 3]> = places.iter().map(|&place| position(place)).collect();
    let same_image = |place: usize| {
        let uid = |place: usize| slices[places[place]].sop_instance_uid.as_deref();
        uid(place).is_some() && uid(place) == uid(place + 1)
    };
    let [row_spacing, column_spacing] = group.like.pixel_spacing_mm.unwrap_or_default();
    let problem = uneven(&along, same_image).or_else(|| shifted(&positions, row_spacing.min(column_spacing)));
    if let Some(problem) = problem {
        return Found { slices: places, stack: Err(problem) };
    }
    let mut geometry = Geometry {
        shape: [
            group.like.columns.unwrap_or_default() as usize,
            group.like.rows.unwrap_or_default() as usize,
            places.len(),
        ],
        affine: [[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]],
    };
    geometry.set_column(0, to_ras(row.map(|cosine| cosine * column_spacing)));
    geometry.set_column(1, to_ras(column.map(|cosine| cosine * row_spacing)));
    geometry.set_column(2, to_ras(step(&positions)));
    geometry.set_column(3, to_ras(positions[0]));
    Found { slices: places, stack: Ok(Stack { geometry }) }
}

/// What is wrong with the distances of slices, by their places in mm along the normal.
fn uneven(along: &[f64], same_image: impl Fn(usize) -> bool) -> Option<StackProblem> {
    if along.len() < 2 {
        return Some(StackProblem::Single);
    }
    let gaps: Vec<f64> = along.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let (least_mm, share) = GAP_TOLERANCE;
    let equal: Vec<usize> = (0..gaps.len()).filter(|&place| gaps[place] <= least_mm).collect();
    if let Some(&first) = equal.first() {
        let run = equal.iter().enumerate().take_while(|&(number, &place)| place == first + number).count();
        // Runs of neighbours at one position are one position.
        let positions = equal.iter().filter(|&&place| place == 0 || !equal.contains(&(place - 1))).count();
        return Some(StackProblem::Duplicate {
            positions,
            slices: run + 1,
            at_mm: along[first],
            same_image: same_image(first),
        });
    }
    let mut sorted = gaps.clone();
    sorted.sort_by(f64::total_cmp);
    // The lower of the middle ones: where slices are missing, gaps are too wide and never too narrow.
    let usual_mm = sorted[(sorted.len() - 1) / 2];
    let tolerance = least_mm.max(share * usual_mm);
    let odd = |gap: f64| (gap - usual_mm).abs() > tolerance;
    let first = gaps.iter().position(|&gap| odd(gap))?;
    let multiple = |gap: f64| (gap / usual_mm).round();
    let as_if_missing = |gap: f64| (gap - multiple(gap) * usual_mm).abs() <= tolerance * multiple(gap);
    if gaps.iter().all(|&gap| multiple(gap) >= 1.0 && as_if_missing(gap)) {
        let missing = gaps.iter().map(|&gap| multiple(gap) as usize - 1).sum();
        return Some(StackProblem::Missing { missing, behind: first + 1, gap_mm: gaps[first], usual_mm });
    }
    Some(StackProblem::Uneven {
        widest_mm: sorted[sorted.len() - 1],
        narrowest_mm: sorted[0],
        behind: first + 1,
    })
}

/// A slice that lies beside the line through the first and the last by more than a tenth of a pixel.
fn shifted(positions: &[[f64; 3]], pixel_mm: f64) -> Option<StackProblem> {
    let step = step(positions);
    let beside = |(number, position): (usize, &[f64; 3])| {
        let apart: [f64; 3] =
            std::array::from_fn(|axis| position[axis] - positions[0][axis] - number as f64 * step[axis]);
        (number, dot(apart, apart).sqrt())
    };
    let (number, by_mm) =
        positions.iter().enumerate().map(beside).max_by(|one, other| one.1.total_cmp(&other.1))?;
    // Along the line, rounded gaps add up.
    let tolerance = (0.1 * pixel_mm).max(GAP_TOLERANCE.1 * dot(step, step).sqrt() * positions.len() as f64);
    (by_mm > tolerance).then_some(StackProblem::Shifted { slice: number + 1, by_mm })
}

/// The mean step from one position to the next.
fn step(positions: &[[f64; 3]]) -> [f64; 3] {
    let (first, last) = (positions[0], positions[positions.len() - 1]);
    let steps = (positions.len() - 1).max(1) as f64;
    std::array::from_fn(|axis| (last[axis] - first[axis]) / steps)
}

/// From DICOM's axes (Left, Posterior, Superior) to the world's (Right, Anterior, Superior).
fn to_ras([x, y, z]: [f64; 3]) -> [f64; 3] {
    // Not `-x`: a zero has no sign in a table.
    [0.0 - x, 0.0 - y, z]
}

fn halves(&[a, b, c, d, e, f]: &[f64; 6]) -> ([f64; 3], [f64; 3]) {
    ([a, b, c], [d, e, f])
}

pub(super) fn dot(one: [f64; 3], other: [f64; 3]) -> f64 {
    one.iter().zip(other).map(|(a, b)| a * b).sum()
}

pub(super) fn cross(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

impl From<&Header> for Slice {
    fn from(header: &Header) -> Slice {
        Slice {
            series_instance_uid: header.series_instance_uid.clone().unwrap_or_default(),
            sop_instance_uid: header.sop_instance_uid.clone(),
            sop_class_uid: header.sop_class_uid.clone(),
            image_type: header.image_type.clone(),
            photometric_interpretation: header.photometric_interpretation.clone(),
            has_pixels: header.has_pixels,
            frames: header.frames,
            rows: header.rows,
            columns: header.columns,
            pixel_spacing_mm: header.pixel_spacing_mm,
            position_mm: header.position_mm,
            direction_cosines: header.direction_cosines,
        }
    }
}

impl StackProblem {
    /// A word for the kind of problem.
    pub fn kind(&self) -> &'static str {
        match self {
            StackProblem::NotASlice(_) | StackProblem::Smaller { .. } => "not_a_volume",
            StackProblem::MultiFrame { .. } => "multi_frame",
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
                "a multi-frame object of {frames} frames in one file; expected a file for each slice: convert it to single \
                 frames, or to NIfTI, first"
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
                 order of positions; expected equal ones: take the parts of equal gaps, or resample the slices first"
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
