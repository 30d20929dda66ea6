//! Volumes whose files do not say everything: slopes, spacings and orientations from tables and by assumption.

use std::io::Write;

use argent_imaging::{Geometry, Orientation, Volume, nifti, side_file};
use expect_test::expect;

use crate::sandbox::{Sandbox, root};

/// A chest of few voxels: air around, lung and tissue within, in Hounsfield units.
fn chest(seed: usize) -> Vec<i16> {
    let hounsfield = |place: usize| match (place + seed) % 10 {
        0..4 => -1000 + (place % 7) as i16,
        4..6 => -850,
        _ => 40 + (place % 5) as i16,
    };
    (0..8 * 6 * 10).map(hounsfield).collect()
}

/// A file whose header says 1 mm along RAS, as `numpy.eye(4)` does, and no scaling.
fn blank(sandbox: &Sandbox, name: &str, stored: Vec<i16>) {
    let geometry = Geometry::from_spacing([8, 6, 10], [1.0; 3], Orientation::RAS);
    std::fs::create_dir_all(sandbox.path("volumes")).unwrap();
    std::fs::write(sandbox.path(name), nifti::write(&Volume { geometry, hounsfield: stored }, true)).unwrap();
}

/// An archive with these arrays of `(10, 6, 8)` int16, as numpy writes it.
fn npz(sandbox: &Sandbox, name: &str, arrays: &[(&str, Vec<i16>)]) {
    let mut archive = zip::ZipWriter::new(std::fs::File::create(sandbox.path(name)).unwrap());
    for (array, voxels) in arrays {
        let header = "{'descr': '<i2', 'fortran_order': False, 'shape': (10, 6, 8), }\n";
        archive.start_file(format!("{array}.npy"), zip::write::SimpleFileOptions::default()).unwrap();
        archive.write_all(b"\x93NUMPY\x01\x00").unwrap();
        archive.write_all(&u16::try_from(header.len()).unwrap().to_le_bytes()).unwrap();
        archive.write_all(header.as_bytes()).unwrap();
        archive.write_all(&voxels.iter().flat_map(|voxel| voxel.to_le_bytes()).collect::<Vec<_>>()).unwrap();
    }
    archive.finish().unwrap();
}

/// The shipped pipelines for data sets without headers read files that are named and kept as theirs are.
#[test]
fn shipped_pipelines_read_volumes_without_headers() {
    let sandbox = Sandbox::new();
    blank(&sandbox, "volumes/train_1_a_1.nii.gz", chest(0).into_iter().map(|hu| hu + 8192).collect());
    std::fs::create_dir_all(sandbox.path("train/train_1/train_1_a")).unwrap();
    let name = "train/train_1/train_1_a/train_1_a_1.nii.gz";
    std::fs::rename(sandbox.path("volumes/train_1_a_1.nii.gz"), sandbox.path(name)).unwrap();
    let table = "VolumeName,RescaleSlope,RescaleIntercept,XYSpacing,ZSpacing\ntrain_1_a_1.nii.gz,1,-8192,\"[0.75, 0.75]\",1.5\n";
    std::fs::create_dir_all(sandbox.path("metadata")).unwrap();
    std::fs::write(sandbox.path("metadata/train_metadata.csv"), table).unwrap();
    npz(&sandbox, "volumes/trn00001.npz", &[("ct", chest(0))]);
    let columns =
        "v.id, v.spacing_mm, v.orientation, hounsfield_min, hounsfield_max, g.shape, g.orientation as onto";
    let mut said = String::new();
    for (pipeline, data) in [("ct-rate-v1-volumes.yaml", "."), ("rad-chestct-volumes.yaml", "volumes")] {
        let spec = root().join("pipelines").join(pipeline);
        let spec = spec.to_str().unwrap();
        let data = format!("data={}", sandbox.path(data).display());
        said += &sandbox.run(&[spec, "--store", "store", "--set", &data]).join("\n");
        let question = format!("select {columns} from volumes v join grid g using (id)");
        said += "\n";
        said += &sandbox
            .succeeds(&["sql", &question, "-p", spec, "--store", "store", "--format", "csv", "--phi"])
            .out;
    }
    expect![[r#"
        volumes made 1 0 0
        grid made 1 0 0
        refused made 0 0 0
        id,spacing_mm,orientation,hounsfield_min,hounsfield_max,shape,onto
        train_1_a_1,"[0.75, 0.75, 1.5]",LPS,-1000.0,44.0,"[4, 3, 5]",RAS
        volumes made 1 0 0
        grid made 1 0 0
        refused reused 0 0 0
        id,spacing_mm,orientation,hounsfield_min,hounsfield_max,shape,onto
        trn00001,"[0.8, 0.8, 0.8]",LPI,-1000.0,44.0,"[4, 3, 3]",RAS
    "#]]
    .assert_eq(&said);
}

/// A pipeline that looks at volumes with these parameters and brings them to 2 mm.
fn spec(parameters: &str) -> String {
    format!(
        "argent: 1
name: chests
steps:
  volumes:
    use: volumes.scan
    with:
      path: volumes/*
{parameters}
  grid: {{ use: volumes.resample, from: volumes, with: {{ spacing_mm: [2, 2, 2], antialias: never }} }}
"
    )
}

const TABLES: &str = "      hounsfield: { table: metadata.csv, id: VolumeName, slope: RescaleSlope, intercept: RescaleIntercept }
      geometry: { table: metadata.csv, id: VolumeName, spacing_mm: [XYSpacing, ZSpacing], orientation: LPS }";

const METADATA: &str = "VolumeName,RescaleSlope,RescaleIntercept,XYSpacing,ZSpacing
a.nii.gz,1,-1024,\"[0.7, 0.8]\",2.5
b.nii.gz,2,-1000,\"[0.7, 0.7]\",1
";

/// Two volumes with blank headers, and the table that says what is missing there.
fn tabled() -> Sandbox {
    let sandbox = Sandbox::new();
    blank(&sandbox, "volumes/a.nii.gz", chest(0).into_iter().map(|hu| hu + 1024).collect());
    blank(&sandbox, "volumes/b.nii.gz", chest(3).into_iter().map(|hu| (hu + 1000) / 2).collect());
    sandbox.write("metadata.csv", METADATA).write("p.yaml", &spec(TABLES));
    sandbox
}

fn run(sandbox: &Sandbox) -> String {
    sandbox.run(&["p.yaml"]).join("\n")
}

#[test]
fn slopes_and_spacings_come_from_the_columns_of_a_table() {
    let sandbox = tabled();
    run(&sandbox);
    let rows = sandbox.sql(
        "select id, spacing_mm, orientation, affine_source, hounsfield_source, rescale_slope, rescale_intercept,
         hounsfield_min, hounsfield_max from volumes order by id",
    );
    expect![[r#"
        a,"[0.7, 0.8, 2.5]",LPS,table,table,1.0,-1024.0,-1000.0,44.0
        b,"[0.7, 0.7, 1.0]",LPS,table,table,2.0,-1000.0,-1000.0,44.0"#]]
    .assert_eq(&rows.join("\n"));
    // The grid is made of the same numbers: 8 voxels of 0.7 mm are 3 of 2 mm, 10 of 2.5 mm are 12.
    expect![[r#"
        a,"[3, 2, 12]",RAS
        b,"[3, 2, 5]",RAS"#]]
    .assert_eq(&sandbox.sql("select id, shape, orientation from grid order by id").join("\n"));
    let voxels = sandbox.sql("select voxels from grid where id = 'a'").remove(0);
    let path = sandbox.path(&format!(".argent/cas/{}/{}", &voxels[..2], &voxels[2..]));
    let volume = side_file::decode(&std::fs::read(path).unwrap()).unwrap();
    assert!(volume.hounsfield.iter().all(|hu| (-1000..=44).contains(hu)), "{:?}", volume.hounsfield);
}

#[test]
fn a_row_that_changes_in_the_table_does_its_volume_again() {
    let sandbox = tabled();
    assert_eq!(run(&sandbox), "volumes made 2 0 0\ngrid made 2 0 0");
    assert_eq!(run(&sandbox), "volumes reused 0 2 0\ngrid reused 0 2 0");
    sandbox.write(
        "metadata.csv",
        &METADATA.replace("0.7, 0.8", "0.7, 0.7").replace("Spacing\na", "Spacing\nother.nii.gz,1,0,1,1\na"),
    );
    let said = run(&sandbox);
    expect![[r#"
        volumes made 1 1 0
        grid made 1 1 0"#]]
    .assert_eq(&said);
    sandbox.write(
        "metadata.csv",
        "VolumeName,RescaleSlope,RescaleIntercept,XYSpacing,ZSpacing
a.nii.gz,1,-1024,\"[0.7, 0.7]\",2.5
b.nii.gz,two,-1000,\"[0.7, 0.7]\",1
b.nii.gz,2,-1000,\"[0.7, 0.7]\",1
",
    );
    run(&sandbox);
    expect!["volumes/b.nii.gz,table,the table of `hounsfield` has rows for this volume that differ"]
        .assert_eq(&sandbox.sql("select path, kind, message from volumes.errors").join("\n"));
}

#[test]
fn a_volume_that_the_table_does_not_know_is_an_error_row() {
    let sandbox = tabled();
    sandbox.write(
        "metadata.csv",
        &METADATA.replace("b.nii.gz,2,-1000,\"[0.7, 0.7]\",1", "b.nii.gz,0,-1000,\"[0.7]\",1"),
    );
    blank(&sandbox, "volumes/c.nii.gz", chest(1));
    run(&sandbox);
    expect![[r#"
        volumes/b.nii.gz,table,"the table of `geometry` has 2 numbers for this volume, expected 3"
        volumes/c.nii.gz,table,the table of `hounsfield` has no row for this volume"#]]
    .assert_eq(&sandbox.sql("select path, kind, message from volumes.errors").join("\n"));
}

#[test]
fn where_hounsfield_units_come_from_is_part_of_what_a_volume_is() {
    let sandbox = Sandbox::new();
    blank(&sandbox, "volumes/a.nii.gz", chest(0));
    sandbox.write("p.yaml", &spec(""));
    run(&sandbox);
    sandbox.write("p.yaml", &spec("      hounsfield: already"));
    assert_eq!(run(&sandbox), "volumes made 1 0 0\ngrid made 1 0 0");
    assert_eq!(sandbox.sql("select hounsfield_source from volumes"), ["already"]);
    sandbox.write("p.yaml", &spec("      geometry: { assume: { spacing_mm: [1, 1, 1], orientation: LPS } }"));
    assert!(run(&sandbox).starts_with("volumes made 1 0 0"));
}

#[test]
fn a_double_rescale_does_not_pass() {
    let sandbox = tabled();
    // The voxels of this one are Hounsfield units already, and the table would rescale them once more.
    blank(&sandbox, "volumes/a.nii.gz", chest(0));
    run(&sandbox);
    let errors = sandbox.sql("select kind, message from volumes.errors");
    expect![[r#"hounsfield,"100.0 % of the voxels lie below -500 HU and 0.0 % at soft tissue (-150 to 250 HU); a chest has more than 10 % there: slope and intercept were probably applied twice, so read the voxels as already in HU; where that is right, keep such volumes with `hounsfield_check: warn`""#]].assert_eq(&errors.join("\n"));
}

#[test]
fn what_is_wrong_with_a_table_is_told_before_anything_runs() {
    let sandbox = tabled();
    let wrong = TABLES
        .replace("slope: RescaleSlope", "slope: Slope")
        .replace("LPS", "LPX")
        .replace("ZSpacing]", "Z]");
    sandbox.write("p.yaml", &spec(&wrong));
    let said = sandbox.argent(&["check", "p.yaml"]);
    assert_eq!(said.code, 2);
    expect![[r#"
        error: `metadata.csv` has no column `Slope`
         --> p.yaml:8:65
          |
        8 |       hounsfield: { table: metadata.csv, id: VolumeName, slope: Slope, intercept: RescaleIntercept }
          |                                                                 ^^^^^
          |
        help: there are VolumeName, RescaleSlope, RescaleIntercept, XYSpacing, ZSpacing

        error: `metadata.csv` has no column `Z`
         --> p.yaml:9:68
          |
        9 |       geometry: { table: metadata.csv, id: VolumeName, spacing_mm: [XYSpacing, Z], orientation: LPX }
          |                                                                    ^^^^^^^^^^^^^^
          |
        help: there are VolumeName, RescaleSlope, RescaleIntercept, XYSpacing, ZSpacing

        error: orientation `LPX` holds `X`; expected three capital letters, one each of R or L, A or P, S or I, such as RAS or LPS
         --> p.yaml:9:97
          |
        9 |       geometry: { table: metadata.csv, id: VolumeName, spacing_mm: [XYSpacing, Z], orientation: LPX }
          |                                                                                                 ^^^

        3 mistakes in p.yaml

    "#]].assert_eq(&said.err);
}

#[test]
fn archives_have_the_geometry_that_is_assumed_and_files_that_tell_theirs_keep_it() {
    let sandbox = Sandbox::new();
    blank(&sandbox, "volumes/told.nii.gz", chest(0));
    npz(&sandbox, "volumes/scan.npz", &[("ct", chest(0))]);
    npz(&sandbox, "volumes/two.npz", &[("ct", chest(1)), ("mask", chest(2))]);
    let assume = |array: &str| {
        spec(&format!(
            "      geometry: {{ assume: {{ spacing_mm: [0.8, 0.8, 0.8], orientation: LPI{array} }} }}"
        ))
    };
    sandbox.write("p.yaml", &spec(""));
    run(&sandbox);
    expect![[r#"
        volumes/scan.npz,geometry,"the file does not say where left and right are (a NIfTI header has neither sform nor qform, an archive says nothing), expected it to; tell spacing and orientation by `geometry`, or leave the volume out"
        volumes/two.npz,unreadable,"2 arrays in the archive, expected one, or the name of one; it has ct, mask""#]].assert_eq(&sandbox.sql("select path, kind, message from volumes.errors order by 1").join("\n"));
    sandbox.write("p.yaml", &assume(""));
    run(&sandbox);
    let rows = "select id, shape, spacing_mm, orientation, affine_source, dtype from volumes order by id";
    expect![[r#"
        scan,"[8, 6, 10]","[0.8, 0.8, 0.8]",LPI,assumed,int16
        told,"[8, 6, 10]","[1.0, 1.0, 1.0]",RAS,sform,int16"#]]
    .assert_eq(&sandbox.sql(rows).join("\n"));
    expect![[r#"volumes/two.npz,unreadable,"2 arrays in the archive, expected one, or the name of one; it has ct, mask""#]].assert_eq(&sandbox.sql("select path, kind, message from volumes.errors").join("\n"));
    sandbox.write("p.yaml", &assume(", array: ct"));
    run(&sandbox);
    expect![[r#"
        scan,ct,"[3, 2, 4]",RAS
        told,,"[4, 3, 5]",RAS
        two,ct,"[3, 2, 4]",RAS"#]].assert_eq(&sandbox.sql("select v.id, array, g.shape, g.orientation from volumes v join grid g using (id) order by v.id").join("\n"));
}

#[test]
fn a_volume_is_the_same_whatever_memory_it_may_take() {
    let sandbox = tabled();
    let large = Geometry::from_spacing([160, 160, 120], [0.75, 0.75, 1.0], Orientation::LPS);
    let hounsfield = (0..large.voxel_count()).map(|place| chest(0)[place % 480]).collect();
    std::fs::write(
        sandbox.path("volumes/c.nii.gz"),
        nifti::write(&Volume { geometry: large, hounsfield }, true),
    )
    .unwrap();
    let whole = spec("").replace("antialias: never", "antialias: always");
    sandbox.write("p.yaml", &whole);
    run(&sandbox);
    let before = sandbox.sql("select voxels from grid where id = 'c'");
    let little = whole
        .replace("antialias: always", "antialias: auto, memory_mb: 1")
        .replace("[2, 2, 2]", "[2.0, 2, 2]");
    sandbox.write("p.yaml", &little);
    assert_eq!(run(&sandbox).lines().last(), Some("grid made 1 0 0"));
    assert_eq!(sandbox.sql("select voxels from grid where id = 'c'"), before);
}
