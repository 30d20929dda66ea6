//! What reading and resampling a `.nii.gz` costs, against inflating the same bytes: CPU seconds per volume.
//!
//! `cargo run --release -p argent-imaging --example read_cost -- scan.nii.gz 1.5 1.5 3.0`, with
//! `RAYON_NUM_THREADS=1` for figures that compare with single-threaded tools. Linux only: the CPU time comes
//! from `/proc`.

use std::error::Error;
use std::hint::black_box;
use std::path::Path;

use argent_imaging::nifti::SliceReader;
use argent_imaging::resample::{
    Antialias, Grid, GridRule, Interpolation, resample, resample_slices, resample_stored,
};
use argent_imaging::side_file::{self, Storage};
use argent_imaging::{Orientation, StoredVolume, nifti};
use libdeflater::Decompressor;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, spacing @ ..] = arguments.as_slice() else {
        return Err("expected a .nii.gz file and three spacings in mm".into());
    };
    let spacing: Vec<f64> = spacing.iter().map(|mm| mm.parse()).collect::<Result<_, _>>()?;
    let spacing_mm = spacing.try_into().map_err(|_| "expected three spacings in mm")?;
    let grid = |antialias| Grid {
        spacing_mm,
        orientation: Orientation::RAS,
        rule: GridRule::Extent,
        interpolation: Interpolation::Linear,
        antialias,
        pad_hu: -1024,
    };
    let bytes = std::fs::read(file)?;
    let read = || nifti::read_file(Path::new(file)).expect("the file was read once already");
    let nifti = nifti::read_file(Path::new(file))?;
    let size = nifti.voxels.len() * 2 + 4096;
    let volume = |nifti: StoredVolume| nifti.into_volume().0;
    let input = volume(nifti);
    let (plain, smooth) = (grid(Antialias::Never), grid(Antialias::Auto));
    let output = resample(&input, &smooth)?;
    println!("{:?} to {:?}, {} bytes", input.geometry.shape, output.geometry.shape, bytes.len());

    let inflate = measure("inflate alone, fresh buffer", || {
        let mut inflated = vec![0; size];
        Decompressor::new().gzip_decompress(&bytes, &mut inflated).expect("one member of int16 voxels")
    });
    let job = |grid: &Grid| resample_stored(read(), grid).expect("it was resampled once already");
    let streamed = |grid: &Grid| {
        let slices = SliceReader::open(Path::new(file), file).expect("the file was read once already");
        resample_slices(slices, grid).expect("it was resampled once already")
    };
    measure("read the file", read);
    measure("read to 16-bit HU", || volume(read()));
    measure("resample, no antialiasing", || resample(&input, &plain));
    measure("resample, antialiased", || resample(&input, &smooth));
    let whole = measure("read and resample, no antialiasing", || job(&plain));
    let antialiased = measure("read and resample, antialiased", || job(&smooth));
    measure("slice by slice, no antialiasing", || streamed(&plain));
    measure("slice by slice, antialiased", || streamed(&smooth));
    measure("statistics of the result", || output.statistics());
    println!("ratio to inflating: {:.2} plain, {:.2} antialiased", whole / inflate, antialiased / inflate);

    let encoded = side_file::encode(&output, Storage::Packed)?;
    measure("side file, encode", || side_file::encode(&output, Storage::Packed));
    measure("side file, decode", || side_file::decode(&encoded));
    Ok(())
}

/// CPU seconds (all threads) per call, the least of five series: other work on the machine only ever adds. A
/// series lasts long enough for the kernel's clock, which advances by milliseconds.
fn measure<T>(what: &str, mut call: impl FnMut() -> T) -> f64 {
    let mut least = f64::INFINITY;
    for _ in 0..5 {
        let (start, mut calls, mut spent) = (cpu_seconds(), 0.0, 0.0);
        while spent < 0.3 {
            black_box(call());
            calls += 1.0;
            spent = cpu_seconds() - start;
        }
        least = least.min(spent / calls);
    }
    println!("{what}: {least:.5} s");
    least
}

/// Time that this process's threads have run, from the first field of each `schedstat`, in nanoseconds.
fn cpu_seconds() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux lists a process's threads");
    let nanoseconds = tasks.map(|task| {
        let path = task.expect("a running thread").path().join("schedstat");
        let stat = std::fs::read_to_string(path).expect("Linux counts a thread's running time");
        stat.split(' ').next().and_then(|field| field.parse::<f64>().ok()).expect("a number of nanoseconds")
    });
    nanoseconds.sum::<f64>() / 1e9
}
