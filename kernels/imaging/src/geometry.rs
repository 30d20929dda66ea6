//! Where voxels lie in the world.

use crate::orientation::{AxisDirection, Orientation};

/// Shape of a volume and the map from its voxel indices to world millimetres (NIfTI RAS+).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Geometry {
    /// Voxels along each stored axis; the first axis is the fastest in memory.
    pub shape: [usize; 3],
    /// Rows of the homogeneous matrix that takes a voxel centre's index `(i, j, k, 1)` to `(x, y, z, 1)` in
    /// mm, with x to Right, y to Anterior and z to Superior.
    pub affine: [[f64; 4]; 4],
}

/// Largest off-diagonal cosine between two axes that still counts as a right angle (about 0.06 degrees).
const SHEAR_COSINE: f64 = 1e-3;

impl Geometry {
    /// An axis-aligned geometry with the first voxel's centre at the world's origin: for volumes whose file
    /// says nothing of orientation and whose reader has been told what to assume.
    pub fn from_spacing(shape: [usize; 3], spacing_mm: [f64; 3], orientation: Orientation) -> Geometry {
        let mut affine = [[0.0; 4]; 4];
        affine[3][3] = 1.0;
        for (axis, direction) in orientation.axes().iter().enumerate() {
            affine[direction.world_axis][axis] = direction.sign() * spacing_mm[axis];
        }
        Geometry { shape, affine }
    }

    /// Number of voxels.
    pub fn voxel_count(&self) -> usize {
        self.shape.iter().product()
    }

    /// Distance in mm between neighbouring voxel centres along each stored axis: the affine's column norms.
    pub fn spacing_mm(&self) -> [f64; 3] {
        std::array::from_fn(|axis| {
            let column = self.column(axis);
            (column[0] * column[0] + column[1] * column[1] + column[2] * column[2]).sqrt()
        })
    }

    /// Where each stored axis points, most nearly: three letters of R/L, A/P and S/I, such as `LPS`.
    ///
    /// The letter names the direction in which the index increases, as nibabel's `aff2axcodes`.
    pub fn orientation(&self) -> String {
        self.closest_orientation().to_string()
    }

    /// As [`Geometry::orientation`], to compute with.
    ///
    /// Follows nibabel's `io_orientation`: the nearest rotation to the affine's direction matrix (its polar
    /// factor) decides, so a sheared affine is not misread; axes are given out from the most to the least
    /// certain.
    pub fn closest_orientation(&self) -> Orientation {
        let directions = nearest_rotation(self.directions());
        let strength = |axis: usize| (0..3).map(|world| directions[world][axis].abs()).fold(0.0, f64::max);
        let mut order = [0, 1, 2];
        order.sort_by(|&a, &b| strength(b).total_cmp(&strength(a)));
        let mut axes = [AxisDirection { world_axis: 0, positive: true }; 3];
        let mut taken = [false; 3];
        for axis in order {
            let free = (0..3).filter(|&world| !taken[world]);
            let world_axis = free
                .max_by(|&a, &b| directions[a][axis].abs().total_cmp(&directions[b][axis].abs()))
                .expect("each of three axes takes one of three world axes");
            taken[world_axis] = true;
            axes[axis] = AxisDirection { world_axis, positive: directions[world_axis][axis] >= 0.0 };
        }
        Orientation::from_axes(axes)
    }

    /// Whether two axes are not at right angles (gantry tilt): a cosine between them above 1e-3.
    pub fn sheared(&self) -> bool {
        let directions = self.directions();
        let cosine =
            |a: usize, b: usize| (0..3).map(|world| directions[world][a] * directions[world][b]).sum();
        [(0, 1), (0, 2), (1, 2)].iter().any(|&(a, b)| f64::abs(cosine(a, b)) > SHEAR_COSINE)
    }

    /// World position in mm of a voxel index; whole numbers are voxel centres.
    pub fn index_to_world(&self, index: [f64; 3]) -> [f64; 3] {
        transform(&self.affine, index)
    }

    /// Voxel index of a world position in mm; `None` where the affine cannot be inverted, which no volume
    /// that [`crate::nifti::read`] accepts has.
    pub fn world_to_index(&self, world_mm: [f64; 3]) -> Option<[f64; 3]> {
        Some(transform(&inverse(&self.affine)?, world_mm))
    }

    /// Column `axis` of the affine: the step in mm from one voxel to the next along that axis; 3 is the
    /// origin.
    pub(crate) fn column(&self, axis: usize) -> [f64; 3] {
        std::array::from_fn(|world| self.affine[world][axis])
    }

    /// Sets what [`Geometry::column`] reads.
    pub(crate) fn set_column(&mut self, axis: usize, column: [f64; 3]) {
        for (world, value) in column.into_iter().enumerate() {
            self.affine[world][axis] = value;
        }
    }

    /// The affine's 3 by 3 part with columns of length one.
    fn directions(&self) -> [[f64; 3]; 3] {
        let spacing = self.spacing_mm();
        std::array::from_fn(|world| std::array::from_fn(|axis| self.affine[world][axis] / spacing[axis]))
    }
}

/// Applies an affine to a point.
pub(crate) fn transform(affine: &[[f64; 4]; 4], point: [f64; 3]) -> [f64; 3] {
    std::array::from_fn(|row| {
        let [x, y, z, offset] = affine[row];
        x * point[0] + y * point[1] + z * point[2] + offset
    })
}

/// The inverse affine; `None` if the matrix is singular or not finite.
pub(crate) fn inverse(affine: &[[f64; 4]; 4]) -> Option<[[f64; 4]; 4]> {
    let linear = std::array::from_fn(|row| std::array::from_fn(|column| affine[row][column]));
    let inverted = inverse_3x3(linear)?;
    let mut result = [[0.0; 4]; 4];
    for row in 0..3 {
        result[row][..3].copy_from_slice(&inverted[row]);
        result[row][3] = -(0..3).map(|k| inverted[row][k] * affine[k][3]).sum::<f64>();
    }
    result[3][3] = 1.0;
    result.iter().flatten().all(|value| value.is_finite()).then_some(result)
}

/// Inverse by cofactors. A matrix counts as singular when its determinant is below 1e-9 of its columns'
/// volume.
fn inverse_3x3(m: [[f64; 3]; 3]) -> Option<[[f64; 3]; 3]> {
    let cofactor = |row: usize, column: usize| {
        let (r1, r2) = ((row + 1) % 3, (row + 2) % 3);
        let (c1, c2) = ((column + 1) % 3, (column + 2) % 3);
        m[r1][c1] * m[r2][c2] - m[r1][c2] * m[r2][c1]
    };
    let determinant: f64 = (0..3).map(|column| m[0][column] * cofactor(0, column)).sum();
    let norm = |column: usize| (0..3).map(|row| m[row][column] * m[row][column]).sum::<f64>().sqrt();
    let box_volume = norm(0) * norm(1) * norm(2);
    let invertible = determinant.is_finite() && determinant.abs() > 1e-9 * box_volume;
    invertible
        .then(|| std::array::from_fn(|row| std::array::from_fn(|column| cofactor(column, row) / determinant)))
}

/// The orthogonal matrix nearest to `m`, by Higham's Newton iteration `Q <- (Q + Q^-T) / 2`, which converges
/// quadratically (Higham 1986, "Computing the polar decomposition"). A singular `m` comes back as it is.
fn nearest_rotation(m: [[f64; 3]; 3]) -> [[f64; 3]; 3] {
    let mut q = m;
    for _ in 0..32 {
        let Some(inverse) = inverse_3x3(q) else { return m };
        q = std::array::from_fn(|row| {
            std::array::from_fn(|column| 0.5 * (q[row][column] + inverse[column][row]))
        });
    }
    q
}

#[cfg(test)]
mod tests {
    use super::Geometry;

    /// `nibabel.aff2axcodes` of nibabel 5.4.2 for twelve random rotations with shear and spacing, rows of 3
    /// by 3.
    const NIBABEL: [([f64; 9], &str); 12] = [
        ([-0.399, -2.064, -5.08, 0.726, -1.484, -1.698, -0.822, -3.822, 0.967], "AIL"),
        ([-0.305, -1.426, 3.251, 0.198, -2.358, 0.189, 0.48, -0.052, 1.988], "SPR"),
        ([-2.549, 0.078, -1.341, -1.842, -1.832, 0.019, -3.679, 0.386, 0.919], "IPL"),
        ([-0.958, -0.473, -2.894, -0.858, -0.557, 1.461, -1.048, 0.77, 1.449], "PSL"),
        ([-0.903, -1.318, -0.02, 0.498, -0.264, -3.654, 3.725, 0.166, 0.484], "SLP"),
        ([-3.795, 2.373, -0.773, -1.963, -1.012, 3.966, 1.702, 0.637, 2.851], "SRA"),
        ([-0.112, -2.027, -1.401, 1.283, 0.282, 0.83, -0.301, -0.839, 4.052], "ALS"),
        ([-4.351, 3.086, -1.014, 1.21, -1.364, -3.677, 0.144, -3.79, 0.257], "LIP"),
        ([-1.161, 2.494, 1.51, -2.123, -0.208, -2.706, -2.486, -2.945, 1.605], "IRP"),
        ([-0.984, -1.357, -2.754, 0.381, 0.032, -3.944, 0.44, -1.969, -2.739], "LIP"),
        ([-0.944, 1.566, 2.804, -1.042, -2.736, 0.071, 2.138, -2.444, 1.273], "SPR"),
        ([-1.044, 1.502, -1.551, 0.33, -0.679, -3.339, -2.619, 0.291, 0.197], "IRP"),
    ];

    fn geometry(linear: [f64; 9]) -> Geometry {
        let [a, b, c, d, e, f, g, h, i] = linear;
        let affine = [[a, b, c, 10.0], [d, e, f, -20.0], [g, h, i, 30.0], [0.0, 0.0, 0.0, 1.0]];
        Geometry { shape: [4, 5, 6], affine }
    }

    #[test]
    fn orientation_agrees_with_nibabel() {
        for (linear, codes) in NIBABEL {
            assert_eq!(geometry(linear).orientation(), codes);
        }
    }

    #[test]
    fn world_and_index_are_inverse() {
        for (linear, _) in NIBABEL {
            let geometry = geometry(linear);
            let index = [1.5, -2.0, 3.25];
            let back = geometry.world_to_index(geometry.index_to_world(index)).unwrap();
            assert!(back.iter().zip(index).all(|(a, b)| (a - b).abs() < 1e-9), "{back:?}");
        }
        assert_eq!(geometry([1.0, 1.0, 0.0, 2.0, 2.0, 0.0, 0.0, 0.0, 1.0]).world_to_index([0.0; 3]), None);
    }

    #[test]
    fn spacing_is_the_column_norm_and_a_tilt_is_shear() {
        let tilted = geometry([0.5, 0.0, 0.0, 0.0, 0.5, 0.3, 0.0, 0.0, 0.4]);
        assert_eq!(tilted.spacing_mm(), [0.5, 0.5, 0.5]);
        assert!(tilted.sheared());
        let (sine, cosine) = (f64::sin(0.4), f64::cos(0.4));
        let rotated = geometry([cosine, -sine * 2.0, 0.0, sine, cosine * 2.0, 0.0, 0.0, 0.0, 3.0]);
        assert!(!rotated.sheared());
    }
}
