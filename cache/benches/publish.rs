//! What hashing and publishing a table costs, beside writing the same rows as a Parquet file with the same
//! compression. Prints Markdown.
//!
//! `cargo bench -p argent-cache --locked --bench publish -- 1024` measures a table of 1024 MiB in Arrow.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use argent_cache::table::write_parquet_file;
use argent_cache::{Secret, Store};
use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// How often each way is timed, in turn.
const ROUNDS: usize = 5;

const WORDS: [&str; 16] = [
    "no",
    "pleural",
    "effusion",
    "nodule",
    "in",
    "the",
    "left",
    "lower",
    "lobe",
    "of",
    "lung",
    "mm",
    "unchanged",
    "heart",
    "size",
    "normal",
];

fn main() -> Result<()> {
    let given = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let mib: usize = given.as_deref().unwrap_or("1024").parse().context("the size is whole MiB")?;
    let table = table(mib)?;
    let keys = ["id".to_owned()];
    let (mut plain, mut published, mut read) = (Vec::new(), Vec::new(), Vec::new());
    let mut bytes = (0, 0);
    for round in 0..ROUNDS {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("plain.parquet");
        plain.push(seconds(|| write_parquet_file(&file, &table))?);
        let root = folder.path().join("store");
        let store = Store::open_with_secret(&root, Secret::from_bytes([1; 32]))?;
        let mut record = None;
        published.push(seconds(|| {
            record = Some(store.put_table(&table, &keys)?);
            Ok(())
        })?);
        let record = record.context("the table was put")?;
        // Another process would have to check the bytes, so this one is not to remember that it wrote them.
        let other = Store::open(&root)?;
        read.push(seconds(|| {
            ensure!(other.read_table(&record, None)?.num_rows() == table.num_rows(), "rows are lost");
            Ok(())
        })?);
        let parts = record.parts.iter().map(|part| Ok(std::fs::metadata(store.path(part)?)?.len()));
        bytes = (std::fs::metadata(&file)?.len(), parts.sum::<Result<u64>>()?);
        eprintln!("round {} of {ROUNDS}", round + 1);
    }
    let base = median(&mut plain);
    println!("{} rows, {mib} MiB in Arrow; median of {ROUNDS} rounds\n", table.num_rows());
    println!("| | seconds | times the plain file | MiB on disk |\n|---|---:|---:|---:|");
    let line = |name: &str, time: f64, bytes: u64| {
        println!("| {name} | {time:.2} | {:.2} | {} |", time / base, bytes >> 20);
    };
    line("plain Parquet, synced", base, bytes.0);
    line("sorted, hashed, published, synced", median(&mut published), bytes.1);
    line("read back, every byte checked", median(&mut read), bytes.1);
    Ok(())
}

/// Reports of some 300 bytes with a number each, in the order of their ids, of about so many MiB.
fn table(mib: usize) -> Result<RecordBatch> {
    let mut random = StdRng::seed_from_u64(1);
    let rows = (mib << 20) / 330;
    let mut text = || -> String {
        (0..50).map(|_| WORDS[random.random_range(0..WORDS.len())].to_owned() + " ").collect()
    };
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..rows).map(|_| text())));
    let ids: ArrayRef =
        Arc::new(StringArray::from_iter_values((0..rows).map(|row| format!("report {row:09}"))));
    let scores: ArrayRef =
        Arc::new(Float64Array::from_iter_values((0..rows).map(|_| random.random::<f64>())));
    Ok(RecordBatch::try_from_iter([("id", ids), ("text", texts), ("score", scores)])?)
}

/// The wall-clock seconds that something takes.
fn seconds(act: impl FnOnce() -> Result<()>) -> Result<f64> {
    let started = Instant::now();
    act()?;
    Ok(started.elapsed().as_secs_f64())
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
