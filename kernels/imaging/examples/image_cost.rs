//! What reading, preparing and keeping an X-ray image costs: milliseconds and bytes per image.
//!
//! `cargo run --release -p argent-imaging --example image_cost -- image.png 640 640`.

use std::error::Error;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use argent_imaging::image::prepare::{Crop, Fit, Preparation, WindowRule, prepare};
use argent_imaging::image::{png, read, read_named};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, width, height] = arguments.as_slice() else {
        return Err("expected an image file, a width and a height".into());
    };
    let size = [width.parse()?, height.parse()?];
    let image = read_named(Path::new(file), file)?;
    println!("{file}: {} x {}, {} bits", image.width, image.height, image.bits);
    let bytes = std::fs::read(file)?;
    measure("read", || read(&bytes, file).map(|image| image.pixels.len()));
    for bits in [8, 16] {
        let preparation = Preparation {
            window: WindowRule::Percentiles(1.0, 99.0),
            crop: Some(Crop { from: 0.05, to: 1.0, margin: 0 }),
            size,
            fit: Fit::Pad,
            bits,
        };
        let pixels = prepare(&image, &preparation)?.pixels;
        let kept = png::encode_grey(size[0], size[1], &pixels, bits);
        let raw: Vec<u8> = pixels.iter().flat_map(|pixel| pixel.to_le_bytes()).collect();
        println!("{bits} bits: {} bytes as PNG, {} plain", kept.len(), pixels.len() * usize::from(bits / 8));
        measure("  prepare", || prepare(&image, &preparation).map(|prepared| prepared.pixels.len()));
        measure("  encode as PNG", || png::encode_grey(size[0], size[1], &pixels, bits).len());
        measure("  decode from PNG", || read(&kept, "kept").map(|image| image.pixels.len()));
        measure("  read plain values", || {
            let pairs = raw.as_chunks::<2>().0;
            pairs.iter().map(|&pair| u16::from_le_bytes(pair)).collect::<Vec<u16>>()
        });
    }
    Ok(())
}

/// Prints the median of 25 goes.
fn measure<T>(what: &str, work: impl Fn() -> T) {
    let mut seconds: Vec<f64> = (0..25)
        .map(|_| {
            let start = Instant::now();
            black_box(work());
            start.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    println!("{what:<28} {:8.3} ms", seconds[seconds.len() / 2] * 1e3);
}
