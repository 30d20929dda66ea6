//! What keeping a volume costs in several ways: bytes, and CPU time for writing it, reading it whole and reading a part.
//!
//! `cargo run --release -p argent-imaging --example storage_cost -- scan.nii.gz voxels.raw` brings a scan to 1.5 x 1.5 x 3 mm and
//! also writes its voxels plainly, for the bench `volumes` of the store. Prints Markdown. Linux only: the time comes from `/proc`.

use std::error::Error;
use std::hint::black_box;
use std::path::Path;

use argent_imaging::resample::{Antialias, Grid, GridRule, Interpolation, resample_stored};
use argent_imaging::side_file::{self, Reader, Storage};
use argent_imaging::{Orientation, Volume, nifti};
use libdeflater::{CompressionLvl, Compressor, Decompressor};

/// What training cuts from a volume: four fifths of each axis, as 192 x 192 x 96 of 240 x 240 x 120 voxels, from a tenth on.
fn crop_of(shape: [usize; 3]) -> ([usize; 3], [usize; 3]) {
    (shape.map(|voxels| voxels / 10), shape.map(|voxels| voxels * 4 / 5))
}

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [scan, plain_file] = arguments.as_slice() else {
        return Err("expected a .nii.gz file, and where to write plain voxels".into());
    };
    let volume = chest(scan)?;
    let plain = little_endian(&volume.hounsfield);
    std::fs::write(plain_file, &plain)?;
    println!("{:?} voxels\n", volume.geometry.shape);
    println!("| | of plain bytes | write MB/s | read MB/s | MB/s of a crop |\n|---|---:|---:|---:|---:|");
    let way = (plain.as_slice(), volume.geometry.shape);
    print_way("plain", way, |plain| plain.to_vec(), voxels_of);
    print_way("libdeflate 1", way, deflate, |packed| voxels_of(&inflate(packed, plain.len())));
    print_way("lz4", way, lz4_flex::block::compress, |packed| {
        voxels_of(&lz4_flex::block::decompress(packed, plain.len()).expect("what was packed"))
    });
    let zstd =
        |level| move |plain: &[u8]| zstd::bulk::compress(plain, level).expect("memory for a compressor");
    let unzstd = |packed: &[u8]| zstd::bulk::decompress(packed, plain.len()).expect("what was packed");
    print_way("zstd 1", way, zstd(1), |packed| voxels_of(&unzstd(packed)));
    print_way("zstd 3", way, zstd(3), |packed| voxels_of(&unzstd(packed)));
    let split = |plain: &[u8]| zstd(1)(&planes(voxels_of(plain)));
    print_way("low bytes, then high bytes; zstd 1", way, split, |packed| {
        joined(&unzstd(packed), |joined| joined)
    });
    let differences = |plain: &[u8]| zstd(1)(&planes(along_x(voxels_of(plain))));
    print_way("differences along x, in the same way", way, differences, |packed| {
        let mut last = 0_i16;
        joined(&unzstd(packed), |folded| {
            last = last.wrapping_add(((folded as u16) >> 1) as i16 ^ -(folded & 1));
            last
        })
    });
    print_side_file(&volume)?;
    Ok(())
}

/// The scan on the grid.
fn chest(scan: &str) -> Result<Volume> {
    let grid = Grid {
        spacing_mm: [1.5, 1.5, 3.0],
        orientation: Orientation::RAS,
        rule: GridRule::Extent,
        interpolation: Interpolation::Linear,
        antialias: Antialias::Auto,
        pad_hu: -1024,
    };
    Ok(resample_stored(nifti::read_file(Path::new(scan))?, &grid)?)
}

/// A line for a way that keeps the voxels as one piece: a crop is read by reading all of it.
fn print_way(
    name: &str,
    (plain, shape): (&[u8], [usize; 3]),
    write: impl Fn(&[u8]) -> Vec<u8>,
    read: impl Fn(&[u8]) -> Vec<i16>,
) {
    let packed = write(plain);
    assert_eq!(little_endian(&read(&packed)), plain, "{name} keeps what it is given");
    let (writing, reading) = (cpu_time(|| write(plain)), cpu_time(|| read(&packed)));
    let cropping = match name {
        "plain" => cpu_time(|| plain_crop(&packed, shape)),
        _ => reading,
    };
    print_line(name, shape, packed.len(), [writing, reading, cropping]);
}

fn print_side_file(volume: &Volume) -> Result<()> {
    let bytes = side_file::encode(volume, Storage::Packed)?;
    let reader = Reader::new(&bytes)?;
    let shape = volume.geometry.shape;
    let (crop_start, crop_shape) = crop_of(shape);
    let mut crop = Vec::new();
    let writing = cpu_time(|| side_file::encode(volume, Storage::Packed));
    let reading = cpu_time(|| side_file::decode(&bytes));
    let cropping = cpu_time(|| reader.crop(crop_start, crop_shape, &mut crop));
    print_line("side file", shape, bytes.len(), [writing, reading, cropping]);
    Ok(())
}

fn print_line(name: &str, shape: [usize; 3], bytes: usize, [writing, reading, cropping]: [f64; 3]) {
    let megabytes = |shape: [usize; 3]| 2.0 * shape.iter().product::<usize>() as f64 / 1e6;
    let (whole, crop) = (megabytes(shape), megabytes(crop_of(shape).1));
    println!(
        "| {name} | {:.3} | {:.0} | {:.0} | {:.0} |",
        bytes as f64 / 1e6 / whole,
        whole / writing,
        whole / reading,
        crop / cropping
    );
}

fn plain_crop(plain: &[u8], shape: [usize; 3]) -> Vec<i16> {
    let (start, crop) = crop_of(shape);
    let mut voxels = Vec::with_capacity(crop.iter().product());
    for k in start[2]..start[2] + crop[2] {
        for j in start[1]..start[1] + crop[1] {
            let row = start[0] + shape[0] * (j + shape[1] * k);
            voxels.extend(voxels_of(&plain[2 * row..2 * (row + crop[0])]));
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
    let stat =
        std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux counts a thread's running time");
    let nanoseconds = stat.split(' ').next().and_then(|field| field.parse::<f64>().ok());
    nanoseconds.expect("a number of nanoseconds") / 1e9
}
