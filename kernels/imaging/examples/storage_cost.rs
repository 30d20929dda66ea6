//! What keeping a volume costs in several ways: bytes, and CPU time for writing it, reading it whole and reading a part.
//!
//! `cargo run --release -p argent-imaging --example storage_cost -- scan.nii.gz voxels.raw` brings a scan to 1.5 x 1.5 x 3 mm,
//! repeats it in mirrors to 240 x 240 x 120 voxels, the size of a whole chest, and writes these plainly for the bench `volumes`
//! of the store. Prints Markdown. Linux only: the time comes from `/proc`.

use std::error::Error;
use std::hint::black_box;
use std::path::Path;

use argent_imaging::resample::{Antialias, Grid, GridRule, Interpolation, resample_stored};
use argent_imaging::side_file::{self, Reader};
use argent_imaging::{Geometry, Orientation, Volume, nifti};
use libdeflater::{CompressionLvl, Compressor, Decompressor};

/// A whole chest, and what training cuts from it.
const SHAPE: [usize; 3] = [240, 240, 120];
const CROP: [usize; 3] = [192, 192, 96];
const CROP_START: [usize; 3] = [17, 30, 9];

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [scan, plain_file] = arguments.as_slice() else {
        return Err("expected a .nii.gz file, and where to write plain voxels".into());
    };
    for antialias in [Antialias::Never, Antialias::Auto] {
        let volume = chest(scan, antialias)?;
        let plain = little_endian(&volume.hounsfield);
        std::fs::write(plain_file, &plain)?;
        println!("\n{scan}, antialiasing {antialias:?}\n");
        println!("| | of plain bytes | write MB/s | read MB/s | MB/s of a crop |\n|---|---:|---:|---:|---:|");
        print_way("plain", &plain, |plain| plain.to_vec(), voxels_of);
        print_way("libdeflate 1", &plain, deflate, |packed| voxels_of(&inflate(packed, plain.len())));
        print_way(
            "lz4",
            &plain,
            lz4_flex::block::compress,
            |packed| voxels_of(&lz4_flex::block::decompress(packed, plain.len()).expect("what was packed")),
        );
        let zstd = |level| {
            move |plain: &[u8]| zstd::bulk::compress(plain, level).expect("memory for a compressor")
        };
        let unzstd = |packed: &[u8]| zstd::bulk::decompress(packed, plain.len()).expect("what was packed");
        print_way("zstd 1", &plain, zstd(1), |packed| voxels_of(&unzstd(packed)));
        print_way("zstd 3", &plain, zstd(3), |packed| voxels_of(&unzstd(packed)));
        let split = |plain: &[u8]| zstd(1)(&planes(voxels_of(plain)));
        print_way("low bytes, then high bytes; zstd 1", &plain, split, |packed| {
            joined(&unzstd(packed), |joined| joined)
        });
        let differences = |plain: &[u8]| zstd(1)(&planes(along_x(voxels_of(plain))));
        print_way("differences along x, in the same way", &plain, differences, |packed| {
            let mut last = 0_i16;
            joined(&unzstd(packed), |folded| {
                last = last.wrapping_add(((folded as u16) >> 1) as i16 ^ -(folded & 1));
                last
            })
        });
        print_side_file(&volume)?;
    }
    Ok(())
}

/// The scan on the grid, in mirrors of itself, so that textures and edges stay what they are.
fn chest(scan: &str, antialias: Antialias) -> Result<Volume> {
    let grid = Grid {
        spacing_mm: [1.5, 1.5, 3.0],
        orientation: Orientation::RAS,
        rule: GridRule::Extent,
        interpolation: Interpolation::Linear,
        antialias,
        pad_hu: -1024,
    };
    let small = resample_stored(nifti::read_file(Path::new(scan))?, &grid)?;
    let [columns, rows, slices] = small.geometry.shape;
    let mirrored = |place: usize, count: usize| match place % (2 * count) {
        place if place < count => place,
        place => 2 * count - 1 - place,
    };
    let mut hounsfield = Vec::new();
    for k in (0..SHAPE[2]).map(|k| mirrored(k, slices)) {
        for j in (0..SHAPE[1]).map(|j| mirrored(j, rows)) {
            let row = &small.hounsfield[columns * (j + rows * k)..][..columns];
            hounsfield.extend((0..SHAPE[0]).map(|i| row[mirrored(i, columns)]));
        }
    }
    Ok(Volume { geometry: Geometry { shape: SHAPE, ..small.geometry }, hounsfield })
}

/// A line for a way that keeps the voxels as one piece: a crop is read by reading all of it.
fn print_way(
    name: &str,
    plain: &[u8],
    write: impl Fn(&[u8]) -> Vec<u8>,
    read: impl Fn(&[u8]) -> Vec<i16>,
) {
    let packed = write(plain);
    assert_eq!(little_endian(&read(&packed)), plain, "{name} keeps what it is given");
    let (writing, reading) = (cpu_time(|| write(plain)), cpu_time(|| read(&packed)));
    let cropping = match name {
        "plain" => cpu_time(|| plain_crop(&packed)),
        _ => reading,
    };
    print_line(name, packed.len(), writing, reading, cropping);
}

fn print_side_file(volume: &Volume) -> Result<()> {
    let bytes = side_file::encode(volume)?;
    let reader = Reader::new(&bytes)?;
    let mut crop = Vec::new();
    let writing = cpu_time(|| side_file::encode(volume));
    let reading = cpu_time(|| side_file::decode(&bytes));
    let cropping = cpu_time(|| reader.crop(CROP_START, CROP, &mut crop));
    print_line("side file", bytes.len(), writing, reading, cropping);
    Ok(())
}

fn print_line(name: &str, bytes: usize, writing: f64, reading: f64, cropping: f64) {
    let megabytes = |shape: [usize; 3]| 2.0 * shape.iter().product::<usize>() as f64 / 1e6;
    println!(
        "| {name} | {:.3} | {:.0} | {:.0} | {:.0} |",
        bytes as f64 / 1e6 / megabytes(SHAPE),
        megabytes(SHAPE) / writing,
        megabytes(SHAPE) / reading,
        megabytes(CROP) / cropping
    );
}

fn plain_crop(plain: &[u8]) -> Vec<i16> {
    let mut voxels = Vec::with_capacity(CROP.iter().product());
    for k in 0..CROP[2] {
        for j in 0..CROP[1] {
            let row = CROP_START[0] + SHAPE[0] * (CROP_START[1] + j + SHAPE[1] * (CROP_START[2] + k));
            voxels.extend(voxels_of(&plain[2 * row..2 * (row + CROP[0])]));
        }
    }
    voxels
}

fn voxels_of(plain: &[u8]) -> Vec<i16> {
    plain.as_chunks().0.iter().map(|&bytes| i16::from_le_bytes(bytes)).collect()
}

fn little_endian(voxels: &[i16]) -> Vec<u8> {
    voxels.iter().flat_map(|voxel| voxel.to_le_bytes()).collect()
}

/// The low bytes of all voxels, then the high ones.
fn planes(voxels: Vec<i16>) -> Vec<u8> {
    let high = voxels.iter().map(|voxel| (voxel >> 8) as u8);
    voxels.iter().map(|&voxel| voxel as u8).chain(high).collect()
}

fn joined(planes: &[u8], mut make: impl FnMut(i16) -> i16) -> Vec<i16> {
    let (low, high) = planes.split_at(planes.len() / 2);
    low.iter().zip(high).map(|(&low, &high)| make(i16::from_le_bytes([low, high]))).collect()
}

/// Differences of neighbours along x, small ones of either sign made small.
fn along_x(voxels: Vec<i16>) -> Vec<i16> {
    let before = std::iter::once(&0).chain(&voxels);
    let differences = voxels.iter().zip(before).map(|(voxel, before)| voxel.wrapping_sub(*before));
    differences.map(|difference| (difference << 1) ^ (difference >> 15)).collect()
}

fn deflate(plain: &[u8]) -> Vec<u8> {
    let level = CompressionLvl::new(1).expect("level 1 is one of libdeflate's");
    let mut packed = vec![0; plain.len() + 4096];
    let length = Compressor::new(level).deflate_compress(plain, &mut packed).expect("room for it");
    packed.truncate(length);
    packed
}

fn inflate(packed: &[u8], length: usize) -> Vec<u8> {
    let mut plain = vec![0; length];
    Decompressor::new().deflate_decompress(packed, &mut plain).expect("what was packed");
    plain
}

/// CPU seconds per call, the least of five series: other work on the machine only ever adds. A series lasts long enough for
/// the kernel's clock, which advances by milliseconds.
fn cpu_time<T>(mut call: impl FnMut() -> T) -> f64 {
    let mut least = f64::INFINITY;
    for _ in 0..5 {
        let (start, mut calls, mut spent) = (cpu_seconds(), 0.0, 0.0);
        while spent < 0.2 {
            black_box(call());
            calls += 1.0;
            spent = cpu_seconds() - start;
        }
        least = least.min(spent / calls);
    }
    least
}

/// Time that this process's one thread has run, in seconds.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux counts a thread's running time");
    let nanoseconds = stat.split(' ').next().and_then(|field| field.parse::<f64>().ok());
    nanoseconds.expect("a number of nanoseconds") / 1e9
}
