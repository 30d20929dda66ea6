//! The solids that organs and findings are made of.

/// A shape filled with one material.
pub(super) struct Solid {
    pub(super) shape: Shape,
    /// Attenuation of the material.
    pub(super) hounsfield: f64,
    /// The one region where it is drawn; everywhere for `None`.
    pub(super) only_in: Option<Region>,
}

impl Solid {
    /// A solid that replaces whatever was there.
    pub(super) fn new(shape: Shape, hounsfield: f64) -> Self {
        Solid { shape, hounsfield, only_in: None }
    }

    /// A solid that replaces lung only: a vessel does not go on into the heart, nor a consolidation into a rib.
    pub(super) fn in_lung(shape: Shape, hounsfield: f64) -> Self {
        Solid { shape, hounsfield, only_in: Some(Region::Lung) }
    }

    /// A solid that replaces the air around the body only.
    pub(super) fn in_room(shape: Shape, hounsfield: f64) -> Self {
        Solid { shape, hounsfield, only_in: Some(Region::Room) }
    }
}

/// Where a voxel is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Region {
    /// In the air around the body.
    Room,
    /// In aerated lung.
    Lung,
    /// In anything else.
    Tissue,
}

/// A shape in world coordinates, in mm.
pub(super) enum Shape {
    /// An ellipsoid whose axes are the world's.
    Ellipsoid { centre: [f64; 3], semi_axes: [f64; 3] },
    /// All that is nearer to a segment than a radius, which changes evenly from one end to the other.
    Capsule { from: [f64; 3], to: [f64; 3], radii: [f64; 2] },
    /// A box whose axes are the world's.
    Cuboid { centre: [f64; 3], half_edges: [f64; 3] },
}

impl Shape {
    /// A sphere.
    pub(super) fn sphere(centre: [f64; 3], radius: f64) -> Self {
        Shape::Ellipsoid { centre, semi_axes: [radius; 3] }
    }

    /// The distance of `point` to the surface in mm, negative inside. It is exact for spheres and boxes and close
    /// to the surface; for other ellipsoids it is measured towards the centre, for tapering capsules across.
    pub(super) fn distance_mm(&self, point: [f64; 3]) -> f64 {
        match self {
            Shape::Ellipsoid { centre, semi_axes } => {
                let offset = minus(point, *centre);
                let scaled = [0, 1, 2].map(|axis| offset[axis] / semi_axes[axis]);
                let relative = dot(scaled, scaled).sqrt();
                if relative < 1e-9 {
                    // At the centre every direction leads out; the shortest is the smallest semi-axis.
                    return -semi_axes.iter().copied().fold(f64::INFINITY, f64::min);
                }
                dot(offset, offset).sqrt() * (1.0 - 1.0 / relative)
            }
            Shape::Capsule { from, to, radii } => {
                let (along, offset) = (minus(*to, *from), minus(point, *from));
                let share = (dot(offset, along) / dot(along, along)).clamp(0.0, 1.0);
                let across = [0, 1, 2].map(|axis| offset[axis] - share * along[axis]);
                dot(across, across).sqrt() - (radii[0] + share * (radii[1] - radii[0]))
            }
            Shape::Cuboid { centre, half_edges } => {
                let beyond = [0, 1, 2].map(|axis| (point[axis] - centre[axis]).abs() - half_edges[axis]);
                let outside = beyond.map(|mm| mm.max(0.0));
                let inside = beyond.iter().copied().fold(f64::NEG_INFINITY, f64::max).min(0.0);
                dot(outside, outside).sqrt() + inside
            }
        }
    }

    /// The lowest and the highest corner of a box around the shape.
    pub(super) fn bounds_mm(&self) -> [[f64; 3]; 2] {
        let around = |centre: &[f64; 3], half: &[f64; 3]| {
            [[0, 1, 2].map(|axis| centre[axis] - half[axis]), [0, 1, 2].map(|axis| centre[axis] + half[axis])]
        };
        match self {
            Shape::Ellipsoid { centre, semi_axes } => around(centre, semi_axes),
            Shape::Cuboid { centre, half_edges } => around(centre, half_edges),
            Shape::Capsule { from, to, radii } => {
                let radius = radii[0].max(radii[1]);
                [
                    [0, 1, 2].map(|axis| from[axis].min(to[axis]) - radius),
                    [0, 1, 2].map(|axis| from[axis].max(to[axis]) + radius),
                ]
            }
        }
    }
}

fn minus(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-9, "{found} instead of {expected}");
    }

    #[test]
    fn distances_are_those_of_geometry() {
        let sphere = Shape::sphere([1.0, 2.0, 3.0], 5.0);
        assert_near(sphere.distance_mm([1.0, 2.0, 11.0]), 3.0);
        assert_near(sphere.distance_mm([1.0, 4.0, 3.0]), -3.0);
        assert_near(sphere.distance_mm([1.0, 2.0, 3.0]), -5.0);

        let capsule = Shape::Capsule { from: [0.0; 3], to: [10.0, 0.0, 0.0], radii: [2.0, 4.0] };
        assert_near(capsule.distance_mm([5.0, 7.0, 0.0]), 4.0);
        assert_near(capsule.distance_mm([13.0, 4.0, 0.0]), 1.0);

        let cuboid = Shape::Cuboid { centre: [0.0; 3], half_edges: [1.0, 2.0, 3.0] };
        assert_near(cuboid.distance_mm([4.0, 6.0, 0.0]), 5.0);
        assert_near(cuboid.distance_mm([0.0, 0.0, 2.5]), -0.5);
    }

    #[test]
    fn an_ellipsoid_ends_at_its_semi_axes() {
        let ellipsoid = Shape::Ellipsoid { centre: [0.0; 3], semi_axes: [3.0, 4.0, 12.0] };
        for (point, expected) in [([3.0, 0.0, 0.0], 0.0), ([0.0, 5.0, 0.0], 1.0), ([0.0, 0.0, 10.0], -2.0)] {
            assert_near(ellipsoid.distance_mm(point), expected);
        }
    }

    #[test]
    fn nothing_of_a_shape_is_outside_its_bounds() {
        let shapes = [
            Shape::Ellipsoid { centre: [1.0, 0.0, -2.0], semi_axes: [3.0, 5.0, 2.0] },
            Shape::Capsule { from: [-4.0, 3.0, 0.0], to: [2.0, -1.0, 5.0], radii: [1.0, 2.0] },
            Shape::Cuboid { centre: [0.0, 1.0, 0.0], half_edges: [4.0, 1.0, 2.0] },
        ];
        for shape in &shapes {
            let [low_mm, high_mm] = shape.bounds_mm();
            for step in 0..21 * 21 * 21 {
                let point = [step % 21 - 10, step / 21 % 21 - 10, step / 441 - 10].map(f64::from);
                let within = (0..3).all(|axis| (low_mm[axis]..=high_mm[axis]).contains(&point[axis]));
                assert!(within || shape.distance_mm(point) > 0.0, "{point:?}");
            }
        }
    }
}
