//! Where what is in a volume lands on a sheet.

use super::{CenterWidth, Sheet, image, slices, strip};
use crate::geometry::Geometry;
use crate::image::prepare::WindowRule;
use crate::image::{Format, Image, Photometric};
use crate::orientation::{Orientation, orient};
use crate::volume::Volume;

const WINDOW: [CenterWidth; 1] = [CenterWidth { center: 0.0, width: 1000.0 }];

/// Black but for the eighth that is the patient's right, front and upper one, which is white.
fn octant() -> Volume {
    let geometry = Geometry::from_spacing([12, 10, 8], [2.0, 3.0, 4.0], Orientation::RAS);
    let is_white = |place: usize| place % 12 >= 6 && place / 12 % 10 >= 5 && place / 120 >= 4;
    let hounsfield = (0..960).map(|place| if is_white(place) { 1000 } else { -1000 }).collect();
    Volume { geometry, hounsfield }
}

/// The mean shade of each quarter of a part of a sheet that is one picture: upper left, upper right, lower left, lower
/// right. Letters take less than a quarter of each.
fn quarters(sheet: &Sheet, [x, y, width, height]: [usize; 4]) -> [bool; 4] {
    let is_light = |left: usize, top: usize| {
        let rows =
            (top..top + height / 2).map(|row| &sheet.shades()[sheet.width() * row + left..][..width / 2]);
        let sum: usize = rows.flatten().map(|shade| usize::from(*shade)).sum();
        sum > 128 * (width / 2) * (height / 2)
    };
    let (middle_x, middle_y) = (x + width.div_ceil(2), y + height.div_ceil(2));
    [is_light(x, y), is_light(middle_x, y), is_light(x, middle_y), is_light(middle_x, middle_y)]
}

const NOWHERE: [bool; 4] = [false; 4];
const UPPER_LEFT: [bool; 4] = [true, false, false, false];

/// The box of 24 x 30 x 32 mm is drawn at 230 pixels for 32 mm; captions of two lines and a title stand above.
#[test]
fn the_patients_right_front_and_head_are_at_the_upper_left() {
    let sheet = slices(&octant(), "octant", &WINDOW, 2);
    let (x, y, z) = (173, 216, 230);
    let top = 3 * (16 + 6);
    assert_eq!((sheet.width(), sheet.height()), (2 * y + 6, top + y + 6 + z + 6 + z));
    // Axial slices begin at the head, coronal ones at the front, sagittal ones at the right.
    assert_eq!(quarters(&sheet, [0, top, x, y]), UPPER_LEFT);
    assert_eq!(quarters(&sheet, [x + 6, top, x, y]), NOWHERE);
    assert_eq!(quarters(&sheet, [0, top + y + 6, x, z]), UPPER_LEFT);
    assert_eq!(quarters(&sheet, [x + 6, top + y + 6, x, z]), NOWHERE);
    assert_eq!(quarters(&sheet, [0, top + y + 6 + z + 6, y, z]), UPPER_LEFT);
    assert_eq!(quarters(&sheet, [y + 6, top + y + 6 + z + 6, y, z]), NOWHERE);
}

#[test]
fn a_volume_looks_alike_however_it_is_stored() {
    let below_caption = |sheet: Sheet| sheet.shades()[sheet.width() * 44..].to_vec();
    let expected = below_caption(slices(&octant(), "x", &WINDOW, 3));
    for stored in ["LPS", "SRA", "PIR", "IPL"] {
        let volume = orient(&octant(), stored.parse().unwrap());
        assert!(below_caption(slices(&volume, "x", &WINDOW, 3)) == expected, "{stored}");
    }
}

#[test]
fn a_strip_shows_each_plane_in_each_window() {
    let windows = [CenterWidth::LUNG, CenterWidth::SOFT_TISSUE];
    let sheet = strip(&octant(), "octant", &windows);
    assert_eq!((sheet.width(), sheet.height()), (2 * (173 + 173 + 216) + 5 * 6, 44 + 230));
}

/// Thin volumes leave no room for letters, which must not matter.
#[test]
fn a_volume_of_any_shape_is_drawn() {
    for shape in [[1, 1, 1], [300, 1, 1], [1, 200, 2], [2, 2, 90]] {
        let geometry = Geometry::from_spacing(shape, [0.5, 1.0, 5.0], Orientation::LPS);
        let volume = Volume { geometry, hounsfield: vec![0; geometry.voxel_count()] };
        assert!(slices(&volume, "thin", &WINDOW, 4).width() > 0);
        assert!(strip(&volume, "thin", &WINDOW).width() > 0);
    }
}

fn ramp(spacing_mm: Option<[f64; 2]>) -> Image {
    Image {
        width: 8,
        height: 4,
        pixels: (0..32).map(|place| 8 * place).collect(),
        bits: 8,
        spacing_mm,
        format: Format::Png,
        photometric: Photometric::Grey,
        inverted: false,
        orientation: None,
        voi_window: None,
        voi_shades: None,
        modality: None,
        warnings: Vec::new(),
    }
}

#[test]
fn an_image_keeps_its_proportions_on_the_patient() {
    let window = WindowRule::Range(0.0, 255.0);
    let square = image(&ramp(None), "x", window, 320).unwrap();
    assert_eq!((square.width(), square.height()), (320, 44 + 160));
    let tall = image(&ramp(Some([0.1, 0.4])), "x", window, 640).unwrap();
    assert_eq!((tall.width(), tall.height()), (320, 44 + 640));
    // Row 0 is at the top and dark.
    assert!(square.shades()[320 * 50 + 40] < square.shades()[320 * 200 + 40]);
}

#[test]
fn letters_that_the_font_lacks_are_question_marks() {
    assert_eq!(Sheet::text("Müller"), Sheet::text("M?ller"));
    assert_ne!(Sheet::text("R"), Sheet::text("L"));
}

#[test]
fn a_long_id_is_broken_and_not_cut() {
    let window = WindowRule::Range(0.0, 255.0);
    let uid = "1.2.840.113619.2.55.3.604688119.971.1415955061.783";
    let sheets = [uid, &uid.replace("783", "784")].map(|id| image(&ramp(None), id, window, 240).unwrap());
    assert_eq!(
        sheets.each_ref().map(|sheet| (sheet.width(), sheet.height())),
        [(240, 32 + 6 + 16 + 6 + 120); 2]
    );
    assert_ne!(sheets[0], sheets[1]);
}
