//! X-ray images through the program: what their files say from SQL, pixels from the side files that the rows name, and
//! refused files as rows with a reason.

use argent_imaging::image::{self, png};
use expect_test::expect;

use crate::sandbox::{Sandbox, shared_data};

const SPEC: &str = "argent: 1
name: xrays
steps:
  images: { use: images.scan, with: { path: \"xrays/*\", ids: { pattern: '^(?<id>(?<patient>[a-z]+)-\\d+)\\.' } } }
  prepared: { use: images.prepare, from: images, with: { size: [4, 4] } }
";

/// A picture of 8 x 6 pixels, light to the right and below, with a black border of one pixel.
fn ramp(bits: u8) -> Vec<u8> {
    let unit = if bits == 8 { 1 } else { 257 };
    let inside = |x: u16, y: u16| (1..7).contains(&x) && (1..5).contains(&y);
    let pixel = |place: u16| (place % 8, place / 8);
    let pixels: Vec<u16> = (0..48)
        .map(pixel)
        .map(|(x, y)| if inside(x, y) { (20 * x + 15 * y + 40) * unit } else { 0 })
        .collect();
    png::encode_grey(8, 6, &pixels, bits)
}

fn put(sandbox: &Sandbox, name: &str, bytes: &[u8]) {
    let path = sandbox.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("p.yaml", SPEC);
    put(&sandbox, "xrays/mueller-1.png", &ramp(8));
    put(&sandbox, "xrays/mueller-2.png", &ramp(16));
    put(&sandbox, "xrays/schmidt-1.png", &ramp(8)[..60]);
    put(&sandbox, "xrays/schmidt-2.png", &png::encode_grey(3, 3, &[9; 9], 8));
    sandbox.write("xrays/schmidt-3.txt", "no image");
    sandbox
}

#[test]
fn files_are_rows_and_what_was_cut_is_an_error_row() {
    let sandbox = sandbox();
    assert_eq!(sandbox.run(&["p.yaml"]), ["images made 5 0 2", "prepared made 3 0 1"]);
    let question = "select id, patient, width, height, bits, format, photometric, spacing_mm, exif_orientation, p1, p50, \
                    p99, warnings from images order by id";
    expect![[r#"
        mueller-1,mueller,8,6,8,png,grey,,,0.0,37.5,212.95000000000002,
        mueller-2,mueller,8,6,16,png,grey,,,0.0,9637.5,54728.15,
        schmidt-2,schmidt,3,3,8,png,grey,,,9.0,9.0,9.0,"#]]
    .assert_eq(&sandbox.sql(question).join("\n"));
    let errors = sandbox.sql("select path, kind, message, retryable from images.errors order by path");
    expect![[r#"
        xrays/schmidt-1.png,unreadable,damaged png file: unexpected end of file; copy the file again from its source,false
        xrays/schmidt-3.txt,unreadable,"not an image: its first bytes are unknown; expected PNG, JPEG or DICOM",false"#]].assert_eq(&errors.join("\n"));
    let blank = sandbox.sql("select id, kind, message from prepared.errors");
    expect![[r#"schmidt-2,blank,"the window runs from 9 to 9 and the values of the image from 9 to 9; expected its upper end above the lower one: choose other percentiles, or leave the image out""#]].assert_eq(&blank.join("\n"));
}

#[test]
fn what_was_prepared_lies_in_png_files_that_any_program_opens() {
    let sandbox = sandbox();
    sandbox.run(&["p.yaml"]);
    let question = "select id, width, height, bits, \"window\", crop, content from prepared order by id";
    expect![[r#"
        mueller-1,4,4,8,"[0.0, 212.95000000000002]","[1, 1, 6, 4]","[0, 0, 4, 3]"
        mueller-2,4,4,8,"[0.0, 54728.15]","[1, 1, 6, 4]","[0, 0, 4, 3]""#]]
    .assert_eq(&sandbox.sql(question).join("\n"));
    let [eight, sixteen] = ["mueller-1", "mueller-2"].map(|id| pixels(&sandbox, "prepared", id));
    assert_eq!((eight.width, eight.height, eight.bits), (4, 4, 8));
    // One content in two depths is one image once it is prepared.
    assert_eq!(eight.pixels, sixteen.pixels);
    expect![[r#"
        102 134 174 206
        125 157 197 229
        147 179 219 247
        0 0 0 0"#]]
    .assert_eq(&rows(&eight));
}

#[test]
fn a_new_image_is_the_only_one_that_is_read() {
    let sandbox = sandbox();
    sandbox.run(&["p.yaml"]);
    put(&sandbox, "xrays/schmidt-4.png", &png::encode_grey(2, 2, &[0, 80, 160, 255], 8));
    assert_eq!(sandbox.run(&["p.yaml"]), ["images made 1 5 2", "prepared made 1 3 1"]);
    // Another name is another row of the scan; its pixels are prepared already.
    std::fs::copy(sandbox.path("xrays/mueller-1.png"), sandbox.path("xrays/huber-1.png")).unwrap();
    assert_eq!(sandbox.run(&["p.yaml"]), ["images made 1 6 2", "prepared made 0 5 1"]);
}

#[test]
fn another_size_reads_the_scan_and_prepares_again() {
    let sandbox = sandbox();
    sandbox.run(&["p.yaml"]);
    sandbox.write("p.yaml", &SPEC.replace("[4, 4]", "[6, 4], fit: stretch, bits: 16, crop: none"));
    assert_eq!(sandbox.run(&["p.yaml"]), ["images reused 0 3 2", "prepared made 3 0 1"]);
    let image = pixels(&sandbox, "prepared", "mueller-1");
    assert_eq!((image.width, image.height, image.bits), (6, 4, 16));
}

#[test]
fn parameters_that_make_no_sense_are_underlined() {
    let sandbox = sandbox();
    let wrong = "[0, 4], window: { percentiles: [99, 1] }, bits: 12";
    sandbox.write("p.yaml", &SPEC.replace("[4, 4]", wrong));
    let said = sandbox.argent(&["check", "p.yaml"]);
    assert_eq!(said.code, 2);
    expect![[r#"
        error: expected one of `8` or `16` for `bits`, found a whole number
         --> p.yaml:5:112
          |
        5 |   prepared: { use: images.prepare, from: images, with: { size: [0, 4], window: { percentiles: [99, 1] }, bits: 12 } }
          |                                                                                                                ^^

        1 mistake in p.yaml

    "#]].assert_eq(&said.err);
    sandbox.write("p.yaml", &SPEC.replace("[4, 4]", "[0, 4]"));
    expect![[r#"
        error: 0 pixels; expected 1 to 8192
         --> p.yaml:5:65
          |
        5 |   prepared: { use: images.prepare, from: images, with: { size: [0, 4] } }
          |                                                                 ^

        1 mistake in p.yaml

    "#]]
    .assert_eq(&sandbox.argent(&["check", "p.yaml"]).err);
    sandbox.write("p.yaml", &SPEC.replace("[4, 4]", "[4, 4], window: { percentiles: [99, 1] }"));
    expect![[r#"
        error: 99 and 1; expected two percentiles from 0 to 100, the lower one first
         --> p.yaml:5:95
          |
        5 |   prepared: { use: images.prepare, from: images, with: { size: [4, 4], window: { percentiles: [99, 1] } } }
          |                                                                                               ^^^^^^^

        1 mistake in p.yaml

    "#]].assert_eq(&sandbox.argent(&["check", "p.yaml"]).err);
}

#[test]
fn patients_come_in_as_pseudonyms() {
    let sandbox = sandbox();
    sandbox.write("p.yaml", &SPEC.replace("ids:", "pseudonymise: [patient, id], ids:"));
    sandbox.run(&["p.yaml"]);
    let ids = sandbox.sql("select id, patient from prepared");
    assert_eq!(ids.len(), 2);
    assert!(ids.iter().all(|row| !row.contains("mueller") && row.len() == 65), "{ids:?}");
}

#[test]
fn the_chest_x_rays_of_nih_are_what_pillow_reads() {
    let Some(data) = shared_data("imaging") else { return };
    let reference = std::fs::read_to_string(data.join("reference/reference.json")).unwrap();
    let reference: serde_json::Value = serde_json::from_str(&reference).unwrap();
    let sandbox = Sandbox::new();
    let path = data.join("xray/*.png");
    let spec = "argent: 1\nname: nih\nsteps:\n  images: { use: images.scan, with: { path: \"@\" } }\n  prepared: { use: \
                images.prepare, from: images }\n";
    sandbox.write("p.yaml", &spec.replace('@', path.to_str().unwrap()));
    assert_eq!(sandbox.run(&["p.yaml"]), ["images made 2 0 0", "prepared made 2 0 0"]);
    for id in ["txrv_nih_00000001_000", "txrv_nih_00027426_000"] {
        let golden = &reference["xray"][format!("{id}.png")];
        let image = image::read_named(&data.join(format!("xray/{id}.png")), id).unwrap();
        let mean =
            image.pixels.iter().map(|pixel| f64::from(*pixel)).sum::<f64>() / image.pixels.len() as f64;
        assert!((mean - golden["mean"].as_f64().unwrap()).abs() < 1e-9, "{id}: {mean}");
        let prepared = pixels(&sandbox, "prepared", id);
        assert_eq!((prepared.width, prepared.height), (640, 640));
    }
}

/// The image whose side file a row names.
fn pixels(sandbox: &Sandbox, step: &str, id: &str) -> image::Image {
    let digest = sandbox.sql(&format!("select pixels from {step} where id = '{id}'")).remove(0);
    let file = std::fs::read(sandbox.path(".argent/cas").join(&digest[..2]).join(&digest[2..])).unwrap();
    image::read(&file, id).unwrap()
}

fn rows(image: &image::Image) -> String {
    let row = |pixels: &[u16]| pixels.iter().map(u16::to_string).collect::<Vec<_>>().join(" ");
    image.pixels.chunks(image.width).map(row).collect::<Vec<_>>().join("\n")
}

/// A DICOM X-ray of 3 x 2 pixels of 8 bits, the values 0, 40 to 200, with further elements of text.
fn dicom(texts: &[(u32, &'static str, &str)]) -> Vec<u8> {
    let mut elements = vec![
        (0x0008_0016, "UI", b"1.2.840.10008.5.1.4.1.1.1.1\0".to_vec()),
        (0x0008_0060, "CS", b"DX".to_vec()),
        (0x7fe0_0010, "OB", (0..6).map(|place| 40 * place).collect()),
    ];
    let shorts =
        [(0x0002, 1), (0x0010, 2), (0x0011, 3), (0x0100, 8), (0x0101, 8), (0x0102, 7), (0x0103, 0_u16)];
    elements.extend(shorts.map(|(tag, number)| (0x0028_0000 + tag, "US", number.to_le_bytes().to_vec())));
    elements.extend(texts.iter().map(|(tag, vr, text)| {
        let padding = if text.len().is_multiple_of(2) { "" } else { " " };
        (*tag, *vr, format!("{text}{padding}").into_bytes())
    }));
    elements.sort_by_key(|element| element.0);
    let mut file = [&[0; 128][..], b"DICM\x02\0\x10\0UI\x14\x001.2.840.10008.1.2.1\0"].concat();
    for (tag, vr, content) in elements {
        file.extend(((tag >> 16) as u16).to_le_bytes());
        file.extend((tag as u16).to_le_bytes());
        file.extend(vr.as_bytes());
        match vr {
            "OB" => file.extend([&[0, 0][..], &(content.len() as u32).to_le_bytes()].concat()),
            _ => file.extend((content.len() as u16).to_le_bytes()),
        }
        file.extend(content);
    }
    file
}

#[test]
fn dicom_x_rays_are_light_on_dark_and_say_their_window() {
    let (photometric, spacing) = (0x0028_0004, (0x0028_0030, "DS", "0.2\\0.1"));
    let window = [(0x0028_1050, "DS", "100"), (0x0028_1051, "DS", "121")];
    let sandbox = Sandbox::new();
    sandbox.write("p.yaml", &SPEC.replace("[4, 4]", "[3, 2], crop: none, fit: stretch, window: voi"));
    let dark = [&window[..], &[(photometric, "CS", "MONOCHROME1"), spacing]].concat();
    put(&sandbox, "xrays/mueller-1.dcm", &dicom(&dark));
    put(&sandbox, "xrays/mueller-2.dcm", &dicom(&[(photometric, "CS", "MONOCHROME2")]));
    assert_eq!(sandbox.run(&["p.yaml"]), ["images made 2 0 0", "prepared made 2 0 1"]);
    let question = "select id, format, photometric, inverted, modality, bits, spacing_mm, voi_window, p50 from images order by id";
    expect![[r#"
        mueller-1,dicom,MONOCHROME1,true,DX,8,"[0.1, 0.2]","[95.5, 215.5]",155.0
        mueller-2,dicom,MONOCHROME2,false,DX,8,,,100.0"#]]
    .assert_eq(&sandbox.sql(question).join("\n"));
    expect![[r#"mueller-2,window,"the file has no VOI window, expected its center and width, or a table; choose percentiles, or leave the image out""#]].assert_eq(&sandbox.sql("select id, kind, message from prepared.errors").join("\n"));
    expect![[r#"
        255 254 169
        84 0 0"#]]
    .assert_eq(&rows(&pixels(&sandbox, "prepared", "mueller-1")));
    sandbox.succeeds(&["show", "p.yaml", "images"]);
    let sheet = image::read(&std::fs::read(sandbox.path("images.png")).unwrap(), "sheet").unwrap();
    // Pixels of 0.1 x 0.2 mm are twice as high as they are wide: 240 x 320, below text of three lines, beside 320 x 213.
    assert_eq!((sheet.width, sheet.height), (6 + 240 + 6 + 320 + 6, 6 + 44 + 16 + 320 + 6));
}

#[test]
fn odd_dicom_files_are_rows_or_error_rows() {
    let Some(data) = shared_data("imaging") else { return };
    let sandbox = Sandbox::new();
    let spec = SPEC.replace("xrays/*", data.join("dicom_odd/*").to_str().unwrap());
    let spec = spec.replace(", ids: { pattern: '^(?<id>(?<patient>[a-z]+)-\\d+)\\.' }", "");
    sandbox.write("p.yaml", &spec);
    assert_eq!(sandbox.run(&["p.yaml"])[0], "images made 17 0 5");
    let rows = sandbox.sql("select id, width, height, bits, modality from images order by id");
    expect![[r#"
        pydicom_693_J2KI,512,512,16,CT
        pydicom_CT_small,128,128,16,CT
        pydicom_J2K_pixelrep_mismatch,512,512,13,CT
        pydicom_JPEG2000,256,1024,16,NM
        pydicom_JPGExtended,256,1024,12,NM
        pydicom_MR_small_RLE,64,64,16,MR
        pydicom_MR_small_bigendian,64,64,16,MR
        pydicom_MR_small_jp2klossless,64,64,16,MR
        pydicom_MR_small_jpeg_ls_lossless,64,64,16,MR
        pydicom_MR_small_padded,64,64,16,MR
        pydicom_image_dfl,512,512,8,OT
        pydicom_no_meta,128,128,16,CT"#]]
    .assert_eq(&rows.join("\n"));
}
