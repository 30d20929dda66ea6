//! `argent show`: a step's volumes and images as a picture that can be opened and looked at.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use argent_imaging::image::{self, Image, png};
use argent_imaging::{Geometry, Orientation, Volume, nifti};
use expect_test::expect;

use crate::sandbox::{Said, Sandbox};

const SPEC: &str = "argent: 1
name: looking
steps:
  volumes: { use: volumes.scan, with: { path: volumes/*.nii, hounsfield_check: warn } }
  grid: { use: volumes.resample, from: volumes, with: { spacing_mm: [2, 2, 2], orientation: RAS } }
  images: { use: images.scan, with: { path: xrays/*.png } }
  prepared: { use: images.prepare, from: images, with: { size: [40, 20], crop: none } }
  later: { use: images.prepare, from: images, with: { size: [9, 9] } }
  split: { use: split.groups, from: volumes, with: { by: id, parts: { train: 1.0 } } }
";

/// Air but for the patient's right, front and upper eighth, which is bone.
fn octant() -> Volume {
    let geometry = Geometry::from_spacing([12, 10, 8], [2.0, 3.0, 4.0], Orientation::LPS);
    let is_bone = |place: usize| place % 12 < 6 && place / 12 % 10 < 5 && place / 120 >= 4;
    Volume { geometry, hounsfield: (0..960).map(|place| if is_bone(place) { 1000 } else { -1000 }).collect() }
}

/// Two volumes and three X-rays, made; `later` is not.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("p.yaml", SPEC);
    std::fs::create_dir_all(sandbox.path("volumes")).unwrap();
    std::fs::create_dir_all(sandbox.path("xrays")).unwrap();
    for name in ["a1", "a2"] {
        std::fs::write(sandbox.path(&format!("volumes/{name}.nii")), nifti::write(&octant(), false)).unwrap();
    }
    for (place, name) in ["x1", "x2", "x3"].into_iter().enumerate() {
        // Light where the patient's left is.
        let pixels: Vec<u16> = (0..800).map(|pixel| 6 * (pixel % 40) + place as u16).collect();
        std::fs::write(sandbox.path(&format!("xrays/{name}.png")), png::encode_grey(40, 20, &pixels, 8))
            .unwrap();
    }
    sandbox.run(&["p.yaml", "--select", "grid", "--select", "+prepared", "--select", "+split"]);
    sandbox
}

fn picture(sandbox: &Sandbox, name: &str) -> Image {
    image::read(&std::fs::read(sandbox.path(name)).unwrap(), name).unwrap()
}

/// The mean shade of a box of a picture: column, row, columns, rows.
fn shade(image: &Image, [x, y, width, height]: [usize; 4]) -> f64 {
    let rows = (y..y + height).map(|row| &image.pixels[image.width * row + x..][..width]);
    rows.flatten().map(|pixel| f64::from(*pixel)).sum::<f64>() / (width * height) as f64
}

fn refused(said: &Said) -> &str {
    assert_eq!((said.code, said.out.as_str()), (2, ""), "{}", said.err);
    &said.err
}

#[test]
fn a_volume_is_drawn_in_three_planes_with_the_patients_right_at_the_left() {
    let sandbox = sandbox();
    for step in ["volumes", "grid"] {
        let said = sandbox.succeeds(&["show", "p.yaml", step, "a1", "--window", "0,2000"]);
        assert_eq!((said.out, said.err), (format!("{step}.png\n"), String::new()));
        let sheet = picture(&sandbox, &format!("{step}.png"));
        // Six slices of 173 x 216, 173 x 230 and 216 x 230 pixels, and three lines of text above, within a frame of 6.
        assert_eq!(
            (sheet.width, sheet.height),
            (6 * 216 + 5 * 6 + 12, 3 * 22 + 216 + 230 + 230 + 12 + 12),
            "{step}"
        );
        // The first axial slice is near the head, and bone is at the patient's right and front.
        let (left, top) = (6, 6 + 66);
        assert!(shade(&sheet, [left + 20, top + 30, 50, 40]) > 230.0, "{step}");
        assert!(shade(&sheet, [left + 110, top + 30, 40, 40]) < 20.0, "{step}");
        assert!(shade(&sheet, [left + 20, top + 130, 50, 40]) < 20.0, "{step}");
        // The last one is near the feet.
        assert!(shade(&sheet, [left + 5 * 179 + 20, top + 30, 50, 40]) < 20.0, "{step}");
    }
}

#[test]
fn the_first_rows_stand_below_each_other() {
    let sandbox = sandbox();
    let said = sandbox.succeeds(&["show", "p.yaml", "grid", "-o", "both.png"]);
    assert_eq!((said.out.as_str(), said.err.as_str()), ("both.png\n", ""));
    let sheet = picture(&sandbox, "both.png");
    // Three planes in two windows, and two lines of text above each volume.
    assert_eq!((sheet.width, sheet.height), (2 * (173 + 173 + 216) + 5 * 6 + 12, 2 * (44 + 230) + 6 + 12));
    let said = sandbox.succeeds(&["show", "p.yaml", "grid", "--rows", "1", "-o", "one.png"]);
    assert_eq!(said.err, "the first 1 of 2 ids; name others, or ask for more with --rows\n");
}

#[test]
fn images_are_drawn_as_they_came_and_as_they_were_prepared() {
    let sandbox = sandbox();
    for step in ["images", "prepared"] {
        sandbox.succeeds(&["show", "p.yaml", step, "x2"]);
        let sheet = picture(&sandbox, &format!("{step}.png"));
        assert_eq!((sheet.width, sheet.height), (1024 + 12, 44 + 512 + 12), "{step}");
        assert!(
            shade(&sheet, [6, 200, 60, 300]) < 20.0 && shade(&sheet, [960, 200, 60, 300]) > 235.0,
            "{step}"
        );
    }
    sandbox.succeeds(&["show", "p.yaml", "prepared"]);
    let sheet = picture(&sandbox, "prepared.png");
    assert_eq!((sheet.width, sheet.height), (2 * 320 + 6 + 12, 2 * (44 + 160) + 6 + 12));
}

/// The program's standard output is a terminal here, which `script` makes.
#[test]
fn a_terminal_that_shows_pictures_is_given_it() {
    let sandbox = sandbox();
    let program = sandbox.command(&[]).get_program().to_str().unwrap().to_owned();
    let typed = |variables: &[(&str, &str)]| {
        let mut command = Command::new("script");
        command.args(["-qec", &format!("{program} show p.yaml images"), "/dev/null"]).env_clear();
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path))).envs(variables.iter().copied());
        let said = command.stdin(Stdio::null()).current_dir(sandbox.path("")).output();
        said.ok().map(|said| String::from_utf8(said.stdout).unwrap())
    };
    let Some(plain) = typed(&[("TERM", "xterm-256color")]) else {
        println!("skipped: there is no `script`");
        return;
    };
    assert_eq!(plain, "images.png\r\n");
    let drawn = typed(&[("TERM", "xterm-kitty")]).unwrap();
    assert!(
        drawn.starts_with("\x1b_Ga=T,f=100,q=2,m=1;iVBORw0KGgo") && drawn.ends_with("\r\nimages.png\r\n")
    );
    let drawn = typed(&[("TERM_PROGRAM", "iTerm.app")]).unwrap();
    assert!(drawn.starts_with("\x1b]1337;File=inline=1;size="));
    assert_eq!(typed(&[("TERM", "xterm-kitty"), ("TMUX", "/tmp/tmux")]).unwrap(), "images.png\r\n");
}

#[test]
fn a_picture_of_patients_is_for_the_users_eyes() {
    let sandbox = sandbox();
    sandbox.succeeds(&["show", "p.yaml", "images"]);
    let mode = std::fs::metadata(sandbox.path("images.png")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn what_cannot_be_drawn_is_said() {
    let sandbox = sandbox();
    let show = |words: &[&str]| sandbox.argent(&[&["show", "p.yaml"], words].concat());
    expect![[r#"
        error: there is no step `gird`; did you mean `grid`?
    "#]]
    .assert_eq(refused(&show(&["gird"])));
    expect![[r#"
        error: no run has a result of `later` yet; `argent run` makes one
    "#]]
    .assert_eq(refused(&show(&["later"])));
    expect![[r#"
        error: the table of `split` names no pictures: it has the columns id, part; expected `id`, and `voxels` (as of volumes.resample), `pixels` (as of images.prepare), or `path` and `digest` (as of volumes.scan and images.scan)
    "#]].assert_eq(refused(&show(&["split"])));
    expect![[r#"
        error: no row of `grid` has the id `a3`; `argent sql "select id from grid" --phi` lists those that there are
    "#]]
    .assert_eq(refused(&show(&["grid", "a3"])));
    expect![[r#"
        error: no row of `grid` has the id `somebody-else`; `argent sql "select id from grid" --phi` lists those that there are
    "#]].assert_eq(refused(&show(&["grid", "somebody-else"])));
    expect![[r#"
        error: invalid value '40' for '--window <CENTER,WIDTH>': expected the middle and the width of the window, such as 40,400

        For more information, try '--help'.
    "#]].assert_eq(refused(&show(&["grid", "--window", "40"])));
}

#[test]
fn a_file_that_changed_since_it_was_scanned_is_not_drawn() {
    let sandbox = sandbox();
    std::fs::write(sandbox.path("xrays/x1.png"), png::encode_grey(2, 2, &[0, 1, 2, 3], 8)).unwrap();
    let said = sandbox.argent(&["show", "p.yaml", "images", "x1"]);
    assert_eq!((said.code, said.out.as_str()), (1, ""));
    expect![[r#"
        error: a source file changed since it was listed; run again
    "#]]
    .assert_eq(&said.err);
}
