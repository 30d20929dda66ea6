//! DICOM files become volumes: what each file says, which are the slices of one volume, and what is none.

use std::path::Path;

use argent_imaging::image;
use expect_test::expect;

use crate::sandbox::{Sandbox, root, shared_data};

const PIPELINE: &str = r#"argent: 1
name: ct
steps:
  headers: { use: dicom.headers, with: { path: "dicom/**/*", keep: [PatientAge] } }
  series: { use: dicom.series, from: headers, with: { id: "{patient_id}_{series_number}" } }
  volumes: { use: volumes.scan, from: series }
  grid: { use: volumes.resample, from: volumes, with: { spacing_mm: [30, 30, 10] } }
"#;

/// A file of a made-up CT: a body of 40 HU around a lung of -860 HU, in air.
#[derive(Clone, Copy)]
struct Slice<'a> {
    patient: &'a str,
    series: u32,
    z: f64,
    image_type: &'a str,
    sop_class: &'a str,
}

impl<'a> Slice<'a> {
    fn of(patient: &'a str, series: u32, z: f64) -> Slice<'a> {
        let (image_type, sop_class) = ("ORIGINAL\\PRIMARY\\AXIAL", "1.2.840.10008.5.1.4.1.1.2");
        Slice { patient, series, z, image_type, sop_class }
    }

    fn bytes(&self) -> Vec<u8> {
        let uid =
            |part: &str| format!("1.2.3.{}.{}{part}", self.patient.trim_start_matches('p'), self.series);
        let hounsfield = |x: i32, y: i32| match x * x + y * y {
            ..6 => -860,
            6..50 => 40,
            _ => -1000,
        };
        let places = (0..256).map(|place| (place % 16 - 8, place / 16 - 8));
        let pixels = places.flat_map(|(x, y)| (hounsfield(x, y) as i16 + 1024).to_le_bytes());
        let text = |tag: u32, vr: &'static str, text: &str| (tag, vr, text.as_bytes().to_vec());
        let short = |tag: u32, number: u16| (tag, "US", number.to_le_bytes().to_vec());
        let elements = [
            text(0x0008_0008, "CS", self.image_type),
            text(0x0008_0016, "UI", self.sop_class),
            text(0x0008_0018, "UI", &uid(&format!(".{}", self.z.abs() * 10.0))),
            text(0x0008_0060, "CS", "CT"),
            text(0x0010_0010, "PN", "Doe^Jane"),
            text(0x0010_0020, "LO", self.patient),
            text(0x0010_1010, "AS", "061Y"),
            text(0x0020_000d, "UI", "1.2.3"),
            text(0x0020_000e, "UI", &uid("")),
            text(0x0020_0011, "IS", &self.series.to_string()),
            text(0x0020_0032, "DS", &format!("-120\\-120\\{}", self.z)),
            text(0x0020_0037, "DS", "1\\0\\0\\0\\1\\0"),
            short(0x0028_0002, 1),
            text(0x0028_0004, "CS", "MONOCHROME2"),
            short(0x0028_0010, 16),
            short(0x0028_0011, 16),
            text(0x0028_0030, "DS", "15\\15"),
            short(0x0028_0100, 16),
            short(0x0028_0101, 12),
            short(0x0028_0102, 11),
            short(0x0028_0103, 0),
            text(0x0028_1052, "DS", "-1024"),
            text(0x0028_1053, "DS", "1"),
            (0x7fe0_0010, "OW", pixels.collect()),
        ];
        let mut bytes = [&[0; 128][..], b"DICM"].concat();
        let meta = text(0x0002_0010, "UI", "1.2.840.10008.1.2.1");
        for (tag, vr, mut value) in std::iter::once(meta).chain(elements) {
            if value.len() % 2 == 1 {
                value.push(if vr == "UI" { 0 } else { b' ' });
            }
            bytes.extend(((tag >> 16) as u16).to_le_bytes());
            bytes.extend((tag as u16).to_le_bytes());
            bytes.extend(vr.as_bytes());
            match vr {
                "OW" => bytes.extend([&[0, 0][..], &(value.len() as u32).to_le_bytes()].concat()),
                _ => bytes.extend((value.len() as u16).to_le_bytes()),
            }
            bytes.extend(value);
        }
        bytes
    }
}

fn put(sandbox: &Sandbox, name: &str, bytes: &[u8]) {
    let path = sandbox.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// Writes slices at these positions, whose names tell nothing of their order.
fn series(sandbox: &Sandbox, folder: &str, patient: &str, number: u32, positions: &[f64]) {
    for (place, z) in positions.iter().enumerate() {
        put(sandbox, &format!("{folder}/I{place}"), &Slice::of(patient, number, *z).bytes());
    }
}

/// A folder with the pipeline and a series of four slices.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("p.yaml", PIPELINE);
    series(&sandbox, "dicom/a/ct", "p1", 2, &[20.0, 5.0, 10.0, 15.0]);
    sandbox
}

fn ask(sandbox: &Sandbox, question: &str) -> String {
    let said = sandbox.succeeds(&["sql", question, "-p", "p.yaml", "--format", "csv", "--phi"]);
    said.out
}

#[test]
fn a_series_becomes_a_volume_on_a_grid() {
    let sandbox = sandbox();
    let ran = sandbox.run(&["p.yaml"]);
    assert_eq!(ran, ["headers made 4 0 0", "series made 1 0 0", "volumes made 1 0 0", "grid made 1 0 0"]);
    expect![[r#"
        path,patient_id,series_number,image_type,position_mm,pixel_spacing_mm,bits_stored,patient_age
        dicom/a/ct/I0,p1,2,ORIGINAL\PRIMARY\AXIAL,"[-120.0, -120.0, 20.0]","[15.0, 15.0]",12,061Y
        dicom/a/ct/I1,p1,2,ORIGINAL\PRIMARY\AXIAL,"[-120.0, -120.0, 5.0]","[15.0, 15.0]",12,061Y
        dicom/a/ct/I2,p1,2,ORIGINAL\PRIMARY\AXIAL,"[-120.0, -120.0, 10.0]","[15.0, 15.0]",12,061Y
        dicom/a/ct/I3,p1,2,ORIGINAL\PRIMARY\AXIAL,"[-120.0, -120.0, 15.0]","[15.0, 15.0]",12,061Y
    "#]]
    .assert_eq(&ask(
        &sandbox,
        "select path, patient_id, series_number, image_type, position_mm, pixel_spacing_mm, bits_stored, patient_age from headers order by path",
    ));
    expect![[r#"
        id,patient,path,shape,spacing_mm,orientation,affine
        p1_2,p1,dicom/a/ct,"[16, 16, 4]","[15.0, 15.0, 5.0]",LPS,"[-15.0, 0.0, 0.0, 120.0, 0.0, -15.0, 0.0, 120.0, 0.0, 0.0, 5.0, 5.0, 0.0, 0.0, 0.0, 1.0]"
    "#]]
    .assert_eq(&ask(&sandbox, "select id, patient, path, shape, spacing_mm, orientation, affine from series"));
    let in_order = "select slices[1]['path'] as first, slices[4]['path'] as last from volumes";
    assert_eq!(ask(&sandbox, in_order), "first,last\ndicom/a/ct/I1,dicom/a/ct/I0\n");
    expect![[r#"
        id,patient,dtype,affine_source,hounsfield_min,hounsfield_max,air_peak_hu,saturated_voxels,warnings
        p1_2,p1,uint16,slices,-1000.0,40.0,-996.0,0,
    "#]]
    .assert_eq(&ask(
        &sandbox,
        "select id, patient, dtype, affine_source, hounsfield_min, hounsfield_max, air_peak_hu, saturated_voxels, warnings from volumes",
    ));
    expect![[r#"
        id,patient,shape,spacing_mm,orientation
        p1_2,p1,"[8, 8, 2]","[30.0, 30.0, 10.0]",RAS
    "#]]
    .assert_eq(&ask(&sandbox, "select id, patient, shape, spacing_mm, orientation from grid"));
}

#[test]
fn what_is_no_volume_is_an_error_row_with_its_reason() {
    let sandbox = sandbox();
    let scout = Slice { image_type: "ORIGINAL\\PRIMARY\\LOCALIZER", ..Slice::of("p1", 2, 100.0) };
    put(&sandbox, "dicom/a/ct/scout", &scout.bytes());
    series(&sandbox, "dicom/b/gap", "p2", 1, &[0.0, 5.0, 15.0, 20.0]);
    series(&sandbox, "dicom/b/twice", "p2", 2, &[0.0, 5.0, 5.0, 10.0]);
    series(&sandbox, "dicom/b/uneven", "p2", 3, &[0.0, 5.0, 12.0, 17.0]);
    let capture = Slice { sop_class: "1.2.840.10008.5.1.4.1.1.7", ..Slice::of("p2", 4, 0.0) };
    put(&sandbox, "dicom/b/capture", &capture.bytes());
    let directory = Slice { sop_class: "1.2.840.10008.1.3.10", ..Slice::of("p2", 5, 0.0) };
    put(&sandbox, "dicom/DICOMDIR", &directory.bytes());
    put(&sandbox, "dicom/README.TXT", b"Images of a CT\n");
    put(&sandbox, "dicom/cut", &Slice::of("p3", 1, 0.0).bytes()[..300]);
    let ran = sandbox.run(&["p.yaml"]);
    assert_eq!(ran, ["headers made 21 0 2", "series made 1 0 5", "volumes made 1 0 0", "grid made 1 0 0"]);
    expect![[r#"
        path,kind,message
        dicom/README.TXT,unreadable,not a DICOM file: it is a text file
        dicom/cut,unreadable,truncated: the value of an element needs 6 bytes and 0 are there; copy the file again from its source
    "#]]
    .assert_eq(&ask(&sandbox, "select path, kind, message from headers.errors order by path"));
    expect![[r#"
        id,kind,message
        1.2.3.1.2,not_a_volume,1 file: a localizer; expected slices of a volume
        1.2.3.2.1,missing_slices,"4 files: 1 slice is missing: behind slice 2, in the order of positions, is a gap of 10.000 mm where others are 5.000 mm; copy the series again from its source"
        1.2.3.2.2,duplicate_slices,4 files: 2 slices lie at 5.000 mm along the normal; expected one at each position: they are the same image; leave all but one of its files out
        1.2.3.2.3,uneven_slices,"4 files: the gaps between slices are 5.000 to 7.000 mm, the first odd one behind slice 2 in the order of positions; expected equal ones: take the parts of equal gaps; or let `uneven: resample` interpolate between them"
        1.2.3.2.4,not_a_volume,1 file: a secondary capture; expected slices of a volume
    "#]]
    .assert_eq(&ask(&sandbox, "select id, kind, message from series.errors order by id, kind"));
    assert_eq!(ask(&sandbox, "select count(*) as n from headers where path like '%DICOMDIR'"), "n\n0\n");
}

#[test]
fn a_new_series_reads_only_its_files() {
    let sandbox = sandbox();
    sandbox.run(&["p.yaml"]);
    series(&sandbox, "dicom/b/ct", "p2", 1, &[0.0, 5.0, 10.0]);
    let ran = sandbox.run(&["p.yaml"]);
    assert_eq!(ran, ["headers made 3 4 0", "series made 2 0 0", "volumes made 1 1 0", "grid made 1 1 0"]);
    assert_eq!(sandbox.run(&["p.yaml"]).len(), 4);
    // Files that moved say the same, and lie elsewhere.
    std::fs::rename(sandbox.path("dicom/a"), sandbox.path("dicom/c")).unwrap();
    let ran = sandbox.run(&["p.yaml"]);
    assert_eq!(ran, ["headers made 0 7 0", "series made 2 0 0", "volumes made 1 1 0", "grid reused 0 2 0"]);
}

#[test]
fn ids_come_in_as_pseudonyms_and_names_not_at_all() {
    let sandbox = sandbox();
    let pipeline = PIPELINE.replace("keep: [PatientAge]", "pseudonymise: [patient_id]");
    sandbox.write("p.yaml", &pipeline);
    sandbox.run(&["p.yaml"]);
    assert_eq!(
        ask(&sandbox, "select count(*) as n from volumes where patient = 'p1' or id like 'p1%'"),
        "n\n0\n"
    );
    assert_eq!(
        ask(&sandbox, "select count(*) as n from grid where length(patient) = 32 and id = patient || '_2'"),
        "n\n1\n"
    );
    let columns = ask(&sandbox, "select * from headers limit 0");
    assert!(!columns.contains("name") && !columns.contains("birth"), "{columns}");
}

#[test]
fn a_cohort_of_series_is_a_query() {
    let sandbox = sandbox();
    series(&sandbox, "dicom/b/ct", "p2", 1, &[0.0, 5.0, 10.0]);
    let query = "  many: { use: sql, from: { series: series }, with: { keys: [id], query: \"select * from series where cardinality(slices) > 3\" } }\n";
    let pipeline = PIPELINE.replace("volumes.scan, from: series", "volumes.scan, from: many");
    sandbox.write("p.yaml", &format!("{pipeline}{query}"));
    sandbox.run(&["p.yaml"]);
    assert_eq!(ask(&sandbox, "select id, cardinality(slices) as n from volumes"), "id,n\np1_2,4\n");
    assert_eq!(ask(&sandbox, "select count(*) as n from grid"), "n\n1\n");
}

#[test]
fn a_lone_slice_is_refused_with_the_steps_that_read_it() {
    let sandbox = sandbox();
    sandbox.write(
        "p.yaml",
        "argent: 1\nname: ct\nsteps:\n  volumes: { use: volumes.scan, with: { path: dicom/a/ct/I0 } }\n",
    );
    assert_eq!(sandbox.run(&["p.yaml"]), ["volumes made 1 0 1"]);
    expect![[r#"
        message
        "not a NIfTI file: it is a DICOM file, a slice of a series: read the files with `dicom.headers` and `dicom.series`, and that table here"
    "#]]
    .assert_eq(&ask(&sandbox, "select message from volumes.errors"));
}

#[test]
fn mistakes_are_told_before_anything_is_read() {
    let sandbox = sandbox();
    let pipeline = PIPELINE.replace("[PatientAge]", "[PatientAgee, IconImageSequence]");
    sandbox.write("p.yaml", &pipeline);
    let said = sandbox.argent(&["check", "p.yaml"]);
    assert_eq!(said.code, 2);
    expect![[r#"
        error: DICOM has no attribute `PatientAgee`
         --> p.yaml:4:69
          |
        4 |   headers: { use: dicom.headers, with: { path: "dicom/**/*", keep: [PatientAgee, IconImageSequence] } }
          |                                                                     ^^^^^^^^^^^
          |
        help: did you mean `PatientAge`?

        error: `IconImageSequence` holds bytes or a sequence, expected text or numbers
         --> p.yaml:4:82
          |
        4 |   headers: { use: dicom.headers, with: { path: "dicom/**/*", keep: [PatientAgee, IconImageSequence] } }
          |                                                                                  ^^^^^^^^^^^^^^^^^
          |
        help: leave it out

        2 mistakes in p.yaml

    "#]].assert_eq(&said.err);
    let pipeline = PIPELINE
        .replace("{patient_id}_{series_number}", "{patient}_{series_number}")
        .replace("volumes.scan, from: series", "volumes.scan, from: series, with: { ids: ct-rate }");
    sandbox.write("p.yaml", &format!("{pipeline}  lost: {{ use: volumes.scan }}\n"));
    let said = sandbox.argent(&["check", "p.yaml"]);
    assert_eq!(said.code, 2);
    expect![[r#"
        error: the headers have no column `patient`
         --> p.yaml:5:59
          |
        5 |   series: { use: dicom.series, from: headers, with: { id: "{patient}_{series_number}" } }
          |                                                           ^^^^^^^^^^^^^^^^^^^^^^^^^^^
          |
        help: there are path, digest, patient_id, study_instance_uid, series_instance_uid, series_number, series_description, sop_instance_uid, sop_class_uid, transfer_syntax_uid, modality, image_type, instance_number, frames, rows, columns, stack_ids, photometric_interpretation, presentation_lut_shape, samples_per_pixel, bits_allocated, bits_stored, high_bit, rescale_type, patient_age

        error: nothing says which files: `path` is left out, and no table is read
         --> p.yaml:8:16
          |
        8 |   lost: { use: volumes.scan }
          |                ^^^^^^^^^^^^
          |
        help: add path: volumes/**/*.nii.gz, or read a step of `dicom.series`

        2 mistakes in p.yaml

    "#]]
    .assert_eq(&said.err);
}

#[test]
fn what_makes_ids_of_names_has_nothing_to_do_where_the_table_has_them() {
    let sandbox = sandbox();
    let pipeline =
        PIPELINE.replace("from: series }", "from: series, with: { ids: ct-rate, pseudonymise: [id] } }");
    sandbox.write("p.yaml", &pipeline);
    let said = sandbox.argent(&["check", "p.yaml"]);
    assert_eq!(said.code, 2);
    expect![[r#"
        error: the table of volumes has its ids, so `ids` has nothing to do
         --> p.yaml:6:60
          |
        6 |   volumes: { use: volumes.scan, from: series, with: { ids: ct-rate, pseudonymise: [id] } }
          |                                                            ^^^^^^^
          |
        help: leave it out; say how ids are made in the step that makes the table

        error: the table of volumes has its ids, so `pseudonymise` has nothing to do
         --> p.yaml:6:83
          |
        6 |   volumes: { use: volumes.scan, from: series, with: { ids: ct-rate, pseudonymise: [id] } }
          |                                                                                   ^^^^
          |
        help: leave it out; say how ids are made in the step that makes the table

        2 mistakes in p.yaml

    "#]]
    .assert_eq(&said.err);
}

#[test]
fn uneven_gaps_are_interpolated_on_demand() {
    let sandbox = Sandbox::new();
    let pipeline = PIPELINE.replace("{series_number}\" }", "{series_number}\", uneven: resample }");
    sandbox.write("p.yaml", &pipeline);
    series(&sandbox, "dicom/uneven", "p2", 3, &[0.0, 5.0, 12.0, 17.0]);
    series(&sandbox, "dicom/gap", "p2", 1, &[0.0, 5.0, 15.0, 20.0]);
    let ran = sandbox.run(&["p.yaml"]);
    assert_eq!(ran, ["headers made 8 0 0", "series made 1 0 1", "volumes made 1 0 0", "grid made 1 0 0"]);
    expect![[r#"
        id,shape,step,files,warnings
        p2_3,"[16, 16, 4]",5.666666666666667,4,the gaps between the 4 slices are uneven; 4 slices at even steps of 5.667 mm were interpolated between them
    "#]]
    .assert_eq(&ask(
        &sandbox,
        "select id, shape, spacing_mm[3] as step, cardinality(slices) as files, warnings from volumes",
    ));
    assert_eq!(ask(&sandbox, "select kind from series.errors"), "kind\nmissing_slices\n");
    assert_eq!(ask(&sandbox, "select shape from grid"), "shape\n\"[8, 8, 2]\"\n");
}

/// `kernels/imaging/goldens/make_enhanced.py` wrote the file by pydicom; the kernel's tests compare every voxel.
#[test]
fn an_enhanced_ct_is_a_volume_of_one_file() {
    let sandbox = Sandbox::new();
    sandbox.write("p.yaml", PIPELINE);
    let file = root().join("kernels/imaging/goldens/enhanced_ct.dcm");
    put(&sandbox, "dicom/enhanced", &std::fs::read(file).unwrap());
    let ran = sandbox.run(&["p.yaml"]);
    assert_eq!(ran, ["headers made 1 0 0", "series made 1 0 0", "volumes made 1 0 0", "grid made 1 0 0"]);
    expect![[r#"
        frames,positions,stack_ids,position_mm,pixel_spacing_mm,rescale_slope
        6,18,1,,"[15.0, 14.0]",
    "#]]
    .assert_eq(&ask(
        &sandbox,
        "select frames, cardinality(frame_positions_mm) as positions, stack_ids, position_mm, pixel_spacing_mm, rescale_slope from headers",
    ));
    expect![[r#"
        id,path,shape,spacing_mm,hounsfield_min,hounsfield_max,files
        p1_7,dicom,"[16, 16, 6]","[14.0, 15.000003185759663, 5.000000019069008]",-1000.0,54.0,1
    "#]]
    .assert_eq(&ask(
        &sandbox,
        "select id, path, shape, spacing_mm, hounsfield_min, hounsfield_max, cardinality(slices) as files from volumes",
    ));
}

#[test]
fn a_series_is_drawn_from_its_files() {
    let sandbox = sandbox();
    sandbox.run(&["p.yaml"]);
    for step in ["volumes", "grid"] {
        let said = sandbox.succeeds(&["show", "p.yaml", step, "p1_2", "--window", "-500,1000"]);
        assert_eq!((said.out, said.err), (format!("{step}.png\n"), String::new()));
        let name = format!("{step}.png");
        let sheet = image::read(&std::fs::read(sandbox.path(&name)).unwrap(), &name).unwrap();
        // The body is white around the lung, and the air around it black.
        let white = sheet.pixels.iter().filter(|&&shade| shade > 230).count();
        let black = sheet.pixels.iter().filter(|&&shade| shade < 20).count();
        let share = |count: usize| 100 * count / sheet.pixels.len();
        assert!(share(white) > 5 && share(black) > 20, "{step}: {white} white, {black} black pixels");
    }
    // Without its files there is nothing to draw.
    std::fs::remove_dir_all(sandbox.path("dicom/a")).unwrap();
    let said = sandbox.argent(&["show", "p.yaml", "volumes", "p1_2"]);
    assert_eq!(said.code, 2, "{}", said.err);
}

/// Links a folder of the reference files into the sandbox.
fn link(sandbox: &Sandbox, folder: &Path) {
    std::fs::create_dir_all(sandbox.path("dicom")).unwrap();
    let name = folder.file_name().unwrap().to_str().unwrap();
    std::os::unix::fs::symlink(folder, sandbox.path("dicom").join(name)).unwrap();
}

#[test]
fn real_series_become_volumes_or_say_why_not() {
    let Some(data) = shared_data("imaging") else { return };
    let sandbox = Sandbox::new();
    let pipeline = PIPELINE
        .replace("dicom/**/*", "dicom/*/*")
        .replace(", with: { id: \"{patient_id}_{series_number}\" }", "")
        .replace("from: series }", "from: series, with: { hounsfield_check: warn } }")
        .replace("[30, 30, 10]", "[8, 8, 8]");
    sandbox.write("p.yaml", &pipeline);
    let folders = [
        "totalseg_j2k_series",
        "philips_tilt_regular",
        "philips_scout",
        "ge_tilt_variable_spacing",
        "monai_CT_DICOM_tiny",
        "pydicom_CT5N_tiny",
    ];
    for folder in folders {
        link(&sandbox, &data.join("dicom_ct").join(folder));
    }
    let ran = sandbox.run(&["p.yaml"]);
    assert_eq!(ran[0], "headers made 69 0 0");
    let volumes = ask(
        &sandbox,
        "select path, shape, orientation, hounsfield_min, hounsfield_max, dtype, warnings from volumes order by path",
    );
    expect![[r#"
        path,shape,orientation,hounsfield_min,hounsfield_max,dtype,warnings
        dicom/philips_tilt_regular,"[512, 512, 10]",LPS,-1024.0,793.0,uint16,the slices are tilted by 18.5 degrees; the volume is sheared until it is resampled
        dicom/pydicom_CT5N_tiny,"[16, 16, 5]",LPS,-888.0,85.0,int16,
        dicom/totalseg_j2k_series,"[512, 512, 20]",LPS,-1024.0,1839.0,uint16,
    "#]]
    .assert_eq(&volumes);
    let spacing =
        ask(&sandbox, "select path, spacing_mm[3] as step, affine[12] as z from volumes order by path");
    expect![[r#"
        path,step,z
        dicom/philips_tilt_regular,2.5,742.345191756896
        dicom/pydicom_CT5N_tiny,2.5,-1.2375
        dicom/totalseg_j2k_series,2.0,-804.5
    "#]]
    .assert_eq(&spacing);
    let refused = ask(&sandbox, "select kind, message from series.errors order by kind, message");
    expect![[r#"
        kind,message
        missing_slices,"4 files: 161 slices are missing: behind slice 1, in the order of positions, is a gap of 202.500 mm where others are 1.250 mm; copy the series again from its source"
        not_a_volume,1 file: a localizer; expected slices of a volume
        not_a_volume,1 file: a secondary capture; expected slices of a volume
        uneven_slices,"28 files: the gaps between slices are 1.081 to 6.999 mm, the first odd one behind slice 14 in the order of positions; expected equal ones: take the parts of equal gaps; or let `uneven: resample` interpolate between them"
    "#]]
    .assert_eq(&refused);
    // The tilted series comes onto an upright grid.
    let grid = ask(&sandbox, "select shape, spacing_mm, orientation from grid order by shape");
    expect![[r#"
        shape,spacing_mm,orientation
        "[1, 1, 2]","[8.0, 8.0, 8.0]",RAS
        "[31, 30, 13]","[8.0, 8.0, 8.0]",RAS
        "[62, 62, 5]","[8.0, 8.0, 8.0]",RAS
    "#]]
    .assert_eq(&grid);
    // The series of uneven gaps, on demand: gaps of 2.5 mm and less below, of 7 mm above.
    sandbox
        .write("p.yaml", &pipeline.replace("from: headers }", "from: headers, with: { uneven: resample } }"));
    sandbox.run(&["p.yaml"]);
    let uneven = "select shape, warnings from volumes where path like '%ge_tilt_variable_spacing'";
    expect![[r#"
        shape,warnings
        "[512, 512, 109]",the slices are tilted by 18.5 degrees; the volume is sheared until it is resampled; the gaps between the 28 slices are uneven; 109 slices at even steps of 1.407 mm were interpolated between them
    "#]].assert_eq(&ask(&sandbox, uneven));
}
