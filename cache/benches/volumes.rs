//! What keeping volumes as values of a Parquet column costs, beside the side files that `storage_cost` of the imaging kernel
//! measures: bytes, and CPU time for reading one row. Prints Markdown. Linux only: the time comes from `/proc`.
//!
//! `cargo bench --workspace --locked --bench volumes -- voxels.raw` takes the little-endian 16-bit voxels of one volume, as
//! `storage_cost` writes them.

use std::fs::File;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use arrow::array::{Array, ArrayRef, AsArray, LargeBinaryArray, RecordBatch};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

/// Volumes in the file, of which one is read.
const ROWS: usize = 8;

/// How often it is read.
const ROUNDS: usize = 20;

fn main() -> Result<()> {
    let given = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let path = given.context("expected a file of plain voxels")?;
    let voxels = std::fs::read(path)?;
    println!("| | of plain bytes | write MB/s | read MB/s |\n|---|---:|---:|---:|");
    for (name, compression) in [
        ("Parquet, one value a row, not compressed", Compression::UNCOMPRESSED),
        ("Parquet, one value a row, zstd 1", Compression::ZSTD(ZstdLevel::try_new(1)?)),
    ] {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("volumes.parquet");
        let (mut spent, start) = (0.0, cpu_seconds()?);
        write(&file, &voxels, compression)?;
        let written = cpu_seconds()? - start;
        for round in 0..ROUNDS {
            let start = cpu_seconds()?;
            let length = black_box(read(&file, round % ROWS)?);
            spent += cpu_seconds()? - start;
            ensure!(length == voxels.len(), "a row of {length} bytes; expected {}", voxels.len());
        }
        let bytes = std::fs::metadata(&file)?.len() as f64;
        let (rows, megabytes) = (ROWS as f64, voxels.len() as f64 / 1e6);
        println!(
            "| {name} | {:.3} | {:.0} | {:.0} |",
            bytes / (rows * voxels.len() as f64),
            rows * megabytes / written,
            ROUNDS as f64 * megabytes / spent
        );
    }
    Ok(())
}

/// A row group for each volume, so that one is one range of the file.
fn write(file: &Path, voxels: &[u8], compression: Compression) -> Result<()> {
    let column: ArrayRef = Arc::new(LargeBinaryArray::from_vec(vec![voxels; ROWS]));
    let batch = RecordBatch::try_from_iter([("voxels", column)])?;
    // Every volume is another: a dictionary would only be tried and given up.
    let properties =
        WriterProperties::builder().set_compression(compression).set_dictionary_enabled(false).build();
    let mut writer = ArrowWriter::try_new(File::create(file)?, batch.schema(), Some(properties))?;
    for row in 0..ROWS {
        writer.write(&batch.slice(row, 1))?;
        writer.flush()?;
    }
    writer.close()?;
    Ok(())
}

/// Reads one row as a reader of one volume would: footer, row group, value.
fn read(file: &Path, row: usize) -> Result<usize> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(file)?)?.with_row_groups(vec![row]);
    let batch = reader.build()?.next().context("a row group has a batch")??;
    let values = batch.column(0).as_binary_opt::<i64>().context("the values are bytes")?;
    ensure!(values.len() == 1, "{} rows; expected one", values.len());
    Ok(values.value(0).len())
}

/// Time that this process has run, in seconds.
fn cpu_seconds() -> Result<f64> {
    let mut nanoseconds = 0.0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let stat = std::fs::read_to_string(task?.path().join("schedstat"))?;
        nanoseconds += stat.split(' ').next().context("a first field")?.parse::<f64>()?;
    }
    Ok(nanoseconds / 1e9)
}
