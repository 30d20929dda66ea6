//! The 48 ways to lay an array along the body's axes, and changing from one to another without interpolation.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use rayon::prelude::*;

use crate::geometry::Geometry;
use crate::volume::Volume;

/// Where each array axis increases to: one letter each of R/L, A/P and S/I, in axis order, such as `RAS` or
/// `LPS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Orientation {
    axes: [AxisDirection; 3],
}

/// The world direction of one array axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct AxisDirection {
    /// 0 for left-right, 1 for posterior-anterior, 2 for inferior-superior.
    pub(crate) world_axis: usize,
    /// Whether the index increases to Right, Anterior or Superior.
    pub(crate) positive: bool,
}

/// A copy of `volume` whose axes run along `orientation`: axes exchanged and flipped, no voxel changed.
///
/// The affine follows, so every voxel keeps its world position. A rotated (oblique) volume keeps its
/// rotation: the result is the orientation nearest to the one asked for.
pub fn orient(volume: &Volume, orientation: Orientation) -> Volume {
    let reordering = Reordering::between(volume.geometry.closest_orientation(), orientation);
    let hounsfield = reordering.voxels(Cow::from(&volume.hounsfield), volume.geometry.shape);
    Volume { geometry: reordering.geometry(&volume.geometry), hounsfield }
}

/// How to go from one orientation to another: output axis `a` is source axis `source_axis[a]`, backwards if
/// `flipped[a]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reordering {
    pub(crate) source_axis: [usize; 3],
    pub(crate) flipped: [bool; 3],
}

impl Reordering {
    /// The reordering from `source` to `target`.
    pub(crate) fn between(source: Orientation, target: Orientation) -> Reordering {
        let source_axis = target.axes.map(|wanted| {
            let same_line = |found: &AxisDirection| found.world_axis == wanted.world_axis;
            source.axes.iter().position(same_line).expect("an orientation names every world axis once")
        });
        let flipped =
            std::array::from_fn(|axis| source.axes[source_axis[axis]].positive != target.axes[axis].positive);
        Reordering { source_axis, flipped }
    }

    /// The geometry after the reordering.
    pub(crate) fn geometry(&self, source: &Geometry) -> Geometry {
        let mut result = Geometry { shape: self.source_axis.map(|axis| source.shape[axis]), ..*source };
        let mut first = [0.0; 3];
        for (axis, &from) in self.source_axis.iter().enumerate() {
            let step = source.column(from);
            result.set_column(axis, if self.flipped[axis] { step.map(|mm| -mm) } else { step });
            first[from] = if self.flipped[axis] { (source.shape[from] - 1) as f64 } else { 0.0 };
        }
        result.set_column(3, source.index_to_world(first));
        result
    }

    /// The voxels after the reordering; `shape` is the source's.
    pub(crate) fn voxels<T: Copy + Default + Send + Sync>(
        &self,
        source: Cow<'_, [T]>,
        shape: [usize; 3],
    ) -> Vec<T> {
        if self.source_axis == [0, 1, 2] && self.flipped == [false; 3] {
            return source.into_owned();
        }
        let source_stride = [1, shape[0], shape[0] * shape[1]];
        let out_shape = self.source_axis.map(|axis| shape[axis]);
        let stride = self.source_axis.map(|axis| source_stride[axis]);
        // The source offset of output index i along an axis is `i * stride`, counted from the end when
        // flipped.
        let offset = |axis: usize, index: usize| {
            let from = if self.flipped[axis] { out_shape[axis] - 1 - index } else { index };
            from * stride[axis]
        };
        let mut out = vec![T::default(); source.len()];
        let slice = (out_shape[0] * out_shape[1]).max(1);
        out.par_chunks_mut(slice).enumerate().for_each(|(k, plane)| {
            for (j, row) in plane.chunks_mut(out_shape[0].max(1)).enumerate() {
                let base = offset(2, k) + offset(1, j);
                for (i, voxel) in row.iter_mut().enumerate() {
                    *voxel = source[base + offset(0, i)];
                }
            }
        });
        out
    }
}

impl Orientation {
    /// Right, Anterior, Superior: NIfTI's own world axes.
    pub const RAS: Orientation = Orientation {
        axes: [
            AxisDirection { world_axis: 0, positive: true },
            AxisDirection { world_axis: 1, positive: true },
            AxisDirection { world_axis: 2, positive: true },
        ],
    };

    /// Left, Posterior, Superior: DICOM's world axes, and how most CT is stored.
    pub const LPS: Orientation = Orientation {
        axes: [
            AxisDirection { world_axis: 0, positive: false },
            AxisDirection { world_axis: 1, positive: false },
            AxisDirection { world_axis: 2, positive: true },
        ],
    };

    /// An orientation of these directions; the caller sees to it that each world axis occurs once.
    pub(crate) fn from_axes(axes: [AxisDirection; 3]) -> Orientation {
        Orientation { axes }
    }

    /// The direction of each array axis.
    pub(crate) fn axes(&self) -> &[AxisDirection; 3] {
        &self.axes
    }
}

impl AxisDirection {
    /// +1 or -1.
    pub(crate) fn sign(self) -> f64 {
        if self.positive { 1.0 } else { -1.0 }
    }

    fn from_letter(letter: char) -> Option<AxisDirection> {
        let place = DIRECTION_LETTERS.iter().flatten().position(|&known| known == letter)?;
        Some(AxisDirection { world_axis: place / 2, positive: place % 2 == 1 })
    }
}

/// Per world axis, the letters of its negative and positive direction.
const DIRECTION_LETTERS: [[char; 2]; 3] = [['L', 'R'], ['P', 'A'], ['I', 'S']];

impl fmt::Display for Orientation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for axis in self.axes {
            write!(f, "{}", DIRECTION_LETTERS[axis.world_axis][usize::from(axis.positive)])?;
        }
        Ok(())
    }
}

impl FromStr for Orientation {
    type Err = OrientationError;

    /// Reads three capital letters such as `RAS`.
    fn from_str(text: &str) -> Result<Orientation, OrientationError> {
        let refuse = |problem: String| Err(OrientationError { text: text.to_owned(), problem });
        let letters: Vec<char> = text.chars().collect();
        let &[first, second, third] = letters.as_slice() else {
            return refuse(format!("has {} letters", letters.len()));
        };
        let mut axes = [AxisDirection { world_axis: 0, positive: true }; 3];
        for (axis, letter) in [first, second, third].into_iter().enumerate() {
            let Some(direction) = AxisDirection::from_letter(letter) else {
                return refuse(format!("holds `{letter}`"));
            };
            if let Some(earlier) = axes[..axis].iter().position(|set| set.world_axis == direction.world_axis)
            {
                return refuse(format!(
                    "names one line of the body twice: `{}` and `{letter}`",
                    letters[earlier]
                ));
            }
            axes[axis] = direction;
        }
        Ok(Orientation { axes })
    }
}

/// A text that names no orientation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrientationError {
    text: String,
    problem: String,
}

impl fmt::Display for OrientationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "orientation `{}` {}; expected three capital letters, one each of R or L, A or P, S or I, such as RAS or LPS",
            self.text, self.problem
        )
    }
}

impl std::error::Error for OrientationError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Orientation, orient};
    use crate::geometry::Geometry;
    use crate::volume::Volume;

    fn any_orientation() -> impl Strategy<Value = Orientation> {
        let letters = ("[LR]", "[AP]", "[IS]").prop_map(|(x, y, z)| vec![x, y, z]);
        letters.prop_shuffle().prop_map(|letters| letters.concat().parse().unwrap())
    }

    fn labelled(shape: [usize; 3], stored: Orientation) -> Volume {
        let mut geometry = Geometry::from_spacing(shape, [0.8, 1.1, 2.5], stored);
        geometry.set_column(3, [5.0, -60.0, 700.0]);
        Volume { geometry, hounsfield: (0..geometry.voxel_count() as i16).collect() }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

        #[test]
        fn there_and_back_is_the_same_volume(
            stored in any_orientation(), other in any_orientation(), shape in prop::array::uniform3(1..7_usize),
        ) {
            let volume = labelled(shape, stored);
            let there = orient(&volume, other);
            prop_assert_eq!(there.geometry.orientation(), other.to_string());
            let back = orient(&there, stored);
            prop_assert_eq!(&back.hounsfield, &volume.hounsfield);
            let apart = back.geometry.affine.as_flattened().iter().zip(volume.geometry.affine.as_flattened());
            prop_assert!(back.geometry.shape == shape && apart.into_iter().all(|(a, b)| (a - b).abs() < 1e-9));
        }

        #[test]
        fn every_voxel_keeps_its_world_position(
            stored in any_orientation(), other in any_orientation(), shape in prop::array::uniform3(1..7_usize),
        ) {
            let volume = labelled(shape, stored);
            let there = orient(&volume, other);
            for (place, value) in there.hounsfield.iter().enumerate() {
                let world = there.geometry.index_to_world(index(place, there.geometry.shape));
                let home = volume.geometry.index_to_world(index(*value as usize, shape));
                prop_assert!(world.iter().zip(home).all(|(a, b)| (a - b).abs() < 1e-9));
            }
        }

        #[test]
        fn text_there_and_back(orientation in any_orientation()) {
            prop_assert_eq!(orientation.to_string().parse::<Orientation>(), Ok(orientation));
        }
    }

    fn index(place: usize, [nx, ny, _]: [usize; 3]) -> [f64; 3] {
        [(place % nx) as f64, (place / nx % ny) as f64, (place / (nx * ny)) as f64]
    }

    #[test]
    fn a_mistaken_orientation_says_what_was_expected() {
        for (text, words) in [
            ("RA", "`RA` has 2 letters; expected three"),
            ("", "has 0 letters"),
            ("RAX", "holds `X`"),
            ("ras", "holds `r`; expected three capital letters"),
            ("RLS", "names one line of the body twice: `R` and `L`"),
        ] {
            let message = text.parse::<Orientation>().unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn named_orientations_are_what_they_say() {
        assert_eq!([Orientation::RAS.to_string(), Orientation::LPS.to_string()], ["RAS", "LPS"]);
    }
}
