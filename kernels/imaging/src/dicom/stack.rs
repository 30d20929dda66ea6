//! Which slices make a volume, in which order, and where it lies.

mod problem;

use std::collections::BTreeMap;

pub use problem::StackProblem;

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
    /// Of a file of several images: the centre of the first pixel of each, in mm.
    pub frame_positions_mm: Vec<[f64; 3]>,
    /// The stacks that its images belong to, each once.
    pub stack_ids: Vec<String>,
}

/// A volume made of slices, or slices that make none.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The places of the files in what was given; of a volume, in the order of their positions.
    pub slices: Vec<usize>,
    /// Where the volume lies, or why there is none.
    pub stack: Result<Stack, StackProblem>,
}

/// Where the voxels of a stack of slices lie.
#[derive(Debug, Clone, PartialEq)]
pub struct Stack {
    /// Shape (columns, rows, slices) and affine.
    pub geometry: Geometry,
    /// Its images in the order of their positions: the place of the file in what was given, and the frame in it, from 0.
    pub images: Vec<(usize, u32)>,
    /// Where the gaps are uneven: for each slice of the volume, its place among the images, between two of them where it is
    /// no whole number. Else each image is a slice.
    pub between: Option<Vec<f64>>,
}

/// What becomes of slices whose gaps are of several widths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uneven {
    /// They make no volume.
    Refuse,
    /// The volume has even steps, and its slices lie between those that there are. A step is the narrowest gap, but no less
    /// than a quarter of the mean one, and fits a whole number of times between the first slice and the last.
    Resample,
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
/// Each slice is in exactly one of the results, which come in the order of their series' UIDs. A file of several images is as
/// many slices.
pub fn stacks(slices: &[Slice], rule: Uneven) -> Vec<Found> {
    let mut series: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (place, slice) in slices.iter().enumerate() {
        series.entry(&slice.series_instance_uid).or_default().push(place);
    }
    series.into_values().flat_map(|places| of_series(slices, &places, rule)).collect()
}

/// Slices of one series that belong together.
struct Group<'a> {
    /// What the slices agree in, by the first of them.
    like: &'a Slice,
    slices: Vec<usize>,
    /// Images of all of them.
    images: usize,
}

fn of_series(slices: &[Slice], places: &[usize], rule: Uneven) -> Vec<Found> {
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
            Some(group) => {
                group.slices.push(place);
                group.images += slice.positions().len();
            }
            None => {
                groups.push(Group { like: slice, slices: vec![place], images: slice.positions().len() });
            }
        }
    }
    // The first of the largest, so that the result is the same each time.
    groups.sort_by_key(|group| std::cmp::Reverse(group.images));
    let largest = groups.first().map_or(0, |group| group.images);
    let stacked = groups.into_iter().enumerate().map(|(rank, group)| {
        if rank > 0 {
            let problem = StackProblem::Smaller { slices: group.images, largest };
            return Found { slices: group.slices, stack: Err(problem) };
        }
        stacked(slices, group, rule)
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
    if slice.frames > 1 && slice.frame_positions_mm.len() != slice.frames as usize {
        return Some(StackProblem::MultiFrame { frames: slice.frames });
    }
    if slice.stack_ids.len() > 1 {
        return Some(StackProblem::Stacks { ids: slice.stack_ids.clone() });
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
    if slice.positions().is_empty() {
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
fn stacked(slices: &[Slice], group: Group, rule: Uneven) -> Found {
    let cosines = group.like.direction_cosines.unwrap_or_default();
    let (row, column) = halves(&cosines);
    let normal = cross(row, column);
    let mut images: Vec<Placed> = Vec::with_capacity(group.images);
    for &file in &group.slices {
        let positions = slices[file].positions().iter().enumerate();
        images.extend(positions.map(|(frame, &position)| Placed {
            along_mm: dot(position, normal),
            position,
            image: (file, frame as u32),
        }));
    }
    images.sort_by(|one, other| one.along_mm.total_cmp(&other.along_mm).then(one.image.cmp(&other.image)));
    let mut files: Vec<usize> = Vec::with_capacity(group.slices.len());
    for place in images.iter().map(|image| image.image.0) {
        if files.last() != Some(&place) && (group.images == group.slices.len() || !files.contains(&place)) {
            files.push(place);
        }
    }
    let along: Vec<f64> = images.iter().map(|image| image.along_mm).collect();
    let same_image = |place: usize| {
        let [one, other] = [place, place + 1].map(|place| images[place].image.0);
        let uid = |file: usize| slices[file].sop_instance_uid.as_deref();
        one != other && uid(one).is_some() && uid(one) == uid(other)
    };
    let [row_spacing, column_spacing] = group.like.pixel_spacing_mm.unwrap_or_default();
    let between = match (uneven(&along, same_image), rule) {
        (None, _) => None,
        (Some(StackProblem::Uneven { .. }), Uneven::Resample) => Some(even_steps(&along)),
        (Some(problem), _) => return Found { slices: files, stack: Err(problem) },
    };
    if let Some(problem) = shifted(&images, row_spacing.min(column_spacing)) {
        return Found { slices: files, stack: Err(problem) };
    }
    let count = between.as_ref().map_or(images.len(), Vec::len);
    let mut geometry = Geometry {
        shape: [
            group.like.columns.unwrap_or_default() as usize,
            group.like.rows.unwrap_or_default() as usize,
            count,
        ],
        affine: [[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]],
    };
    let (first, last) = (images[0].position, images[images.len() - 1].position);
    geometry.set_column(0, to_ras(row.map(|cosine| cosine * column_spacing)));
    geometry.set_column(1, to_ras(column.map(|cosine| cosine * row_spacing)));
    geometry.set_column(2, to_ras(step(first, last, count)));
    geometry.set_column(3, to_ras(first));
    let images = images.into_iter().map(|image| image.image).collect();
    Found { slices: files, stack: Ok(Stack { geometry, images, between }) }
}

/// An image and where it lies.
struct Placed {
    /// Its place along the normal in mm.
    along_mm: f64,
    position: [f64; 3],
    /// Its file and the frame in it.
    image: (usize, u32),
}

/// Even steps from the first place to the last, each as its place among those that there are.
fn even_steps(along: &[f64]) -> Vec<f64> {
    let gaps = along.windows(2).map(|pair| pair[1] - pair[0]);
    let span = along[along.len() - 1] - along[0];
    let mean = span / (along.len() - 1) as f64;
    let step = gaps.fold(f64::INFINITY, f64::min).max(mean / 4.0);
    let count = (span / step).round() as usize + 1;
    let mut behind = 0;
    (0..count)
        .map(|number| {
            let at = along[0] + span * number as f64 / (count - 1) as f64;
            while behind + 2 < along.len() && along[behind + 1] <= at {
                behind += 1;
            }
            let share = (at - along[behind]) / (along[behind + 1] - along[behind]);
            // What rounding leaves beside a slice is that slice.
            let share = if (share - share.round()).abs() < 1e-6 { share.round() } else { share };
            behind as f64 + share.clamp(0.0, 1.0)
        })
        .collect()
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
fn shifted(images: &[Placed], pixel_mm: f64) -> Option<StackProblem> {
    let (first, last) = (&images[0], &images[images.len() - 1]);
    let beside = |(number, image): (usize, &Placed)| {
        let share = (image.along_mm - first.along_mm) / (last.along_mm - first.along_mm);
        let apart: [f64; 3] = std::array::from_fn(|axis| {
            let on_the_line = first.position[axis] + share * (last.position[axis] - first.position[axis]);
            image.position[axis] - on_the_line
        });
        (number, dot(apart, apart).sqrt())
    };
    let (number, by_mm) =
        images.iter().enumerate().map(beside).max_by(|one, other| one.1.total_cmp(&other.1))?;
    let step = step(first.position, last.position, images.len());
    // Along the line, rounded gaps add up.
    let tolerance = (0.1 * pixel_mm).max(GAP_TOLERANCE.1 * dot(step, step).sqrt() * images.len() as f64);
    (by_mm > tolerance).then_some(StackProblem::Shifted { slice: number + 1, by_mm })
}

/// The step from one of so many even positions to the next.
fn step(first: [f64; 3], last: [f64; 3], count: usize) -> [f64; 3] {
    let steps = (count - 1).max(1) as f64;
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

impl Slice {
    /// Where its images lie: one, or as many as the file has.
    fn positions(&self) -> &[[f64; 3]] {
        if self.frames > 1 { &self.frame_positions_mm } else { self.position_mm.as_slice() }
    }
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
            frame_positions_mm: header.frame_positions_mm.clone(),
            stack_ids: header.stack_ids.clone(),
        }
    }
}
