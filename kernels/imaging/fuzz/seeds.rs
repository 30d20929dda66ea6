//! Writes small synthetic files of every format into `corpus/<target>/`, from which the fuzzer starts.

use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;

use argent_imaging::side_file::{self, Storage};
use argent_imaging::{Geometry, Orientation, Volume, nifti};

fn main() -> std::io::Result<()> {
    let geometry = Geometry::from_spacing([5, 4, 3], [0.7, 0.8, 2.5], Orientation::LPS);
    let hounsfield = (0..60).map(|place| place * 40 - 1024).collect();
    let volume = Volume { geometry, hounsfield };
    let plain = nifti::write(&volume, false);
    seed("nifti", "plain", &plain)?;
    seed("nifti", "packed", &nifti::write(&volume, true))?;
    seed("nifti", "two_members", &[nifti::write(&volume, true), nifti::write(&volume, true)].concat())?;
    seed("side_file", "packed", &side_file::encode(&volume, Storage::Packed)?)?;
    seed("side_file", "plain", &side_file::encode(&volume, Storage::Plain)?)?;
    seed("npz", "int16", &archive(&plain[352..], "<i2"))?;
    seed("npz", "float64", &archive(&[0; 480], "<f8"))?;
    // The shipped examples have a file of each kind.
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../pipelines/examples/data");
    for entry in fs::read_dir(examples.join("dicom"))? {
        let path = entry?.path();
        seed("dicom", &path.file_name().unwrap_or_default().to_string_lossy(), &fs::read(&path)?)?;
    }
    for entry in fs::read_dir(examples.join("xrays"))? {
        let path = entry?.path();
        seed("image", &path.file_name().unwrap_or_default().to_string_lossy(), &fs::read(&path)?)?;
    }
    Ok(())
}

/// An archive with one array of `(3, 4, 5)`, not compressed.
fn archive(voxels: &[u8], descr: &str) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (3, 4, 5), }}\n");
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let mut array = b"\x93NUMPY\x01\x00".to_vec();
    array.extend((header.len() as u16).to_le_bytes());
    array.extend(header.as_bytes());
    array.extend(voxels);
    archive.start_file("ct.npy", zip::write::SimpleFileOptions::default()).expect("a new name");
    archive.write_all(&array).expect("memory takes it");
    archive.finish().expect("memory takes it").into_inner()
}

fn seed(target: &str, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name), bytes)
}
