//! `demo.chest_ct`: a small synthetic chest CT data set, for trying argent out with nothing downloaded.

mod cohort;
mod narrative;
mod phantom;

use std::collections::BTreeSet;
use std::sync::Arc;

use argent_engine::{Inputs, Io, Operator, Port, Problem, Signature, column};
use argent_imaging::{Geometry, Volume, nifti};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use cohort::{Finding, Reconstruction, Scan};

/// A demo: draws chest CT volumes (NIfTI, Hounsfield units, different spacings) with findings in their voxels,
/// writes free-text reports with negation, uncertainty and synonyms, and the labels that were drawn. The
/// result is a folder of files, as a data set would be: `volumes/<id>.nii.gz`, `reports.csv`, `labels.csv`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DemoChestCt {
    /// How many patients; each has one to three scans, some of them reconstructed twice.
    #[schemars(range(min = 1, max = 10000))]
    pub patients: usize,
    /// The seed: the same seed draws the same data set on any machine.
    #[serde(default)]
    pub seed: u64,
}

/// One file of the data set.
struct DemoFile {
    path: String,
    digest: String,
    bytes: i64,
}

impl Operator for DemoChestCt {
    fn ports(&self) -> Vec<Port> {
        Vec::new()
    }

    fn signature(&self, _inputs: &Inputs) -> Result<Signature, Vec<Problem>> {
        let schema = column::schema([column::id("path"), column::file("digest"), column::whole("bytes")]);
        Ok(Signature::new(schema, &["path"]))
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        let scans = cohort::scans(self.patients, self.seed);
        let volumes: Vec<(&Scan, &Reconstruction)> =
            scans.iter().flat_map(|scan| scan.reconstructions.iter().map(move |r| (scan, r))).collect();
        let keep = io.keeper();
        let mut files = Vec::with_capacity(volumes.len() + 2);
        for chunk in volumes.chunks(16) {
            let drawn: Vec<DemoFile> = chunk
                .par_iter()
                .map(|(scan, reconstruction)| {
                    let bytes = nifti::write(&volume(scan, reconstruction, self.seed), true);
                    kept(&keep, &format!("volumes/{}.nii.gz", reconstruction.id), &bytes)
                })
                .collect::<anyhow::Result<_>>()?;
            files.extend(drawn);
            io.progress(files.len() as u64, volumes.len() as u64, "");
            if io.cancelled() {
                return Ok(());
            }
        }
        files.push(kept(&keep, "reports.csv", &reports(&scans, self.seed)?)?);
        files.push(kept(&keep, "labels.csv", &labels(&scans)?)?);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(files.iter().map(|f| f.path.as_str()))),
            Arc::new(StringArray::from_iter_values(files.iter().map(|f| f.digest.as_str()))),
            Arc::new(Int64Array::from_iter_values(files.iter().map(|f| f.bytes))),
        ];
        io.emit("", RecordBatch::try_new(io.schema("")?, columns)?)
    }
}

fn kept(
    keep: &(dyn Fn(&[u8]) -> anyhow::Result<argent_cache::Digest> + Sync),
    path: &str,
    bytes: &[u8],
) -> anyhow::Result<DemoFile> {
    let digest = keep(bytes)?.to_string();
    Ok(DemoFile { path: path.to_owned(), digest, bytes: i64::try_from(bytes.len())? })
}

fn volume(scan: &Scan, reconstruction: &Reconstruction, seed: u64) -> Volume {
    let phantom = phantom::draw(scan, reconstruction, seed);
    Volume {
        geometry: Geometry { shape: phantom.shape, affine: phantom.affine },
        hounsfield: phantom.hounsfield,
    }
}

/// The reports as a table in the columns of CT-RATE: one row per reconstruction, the text that of its scan.
fn reports(scans: &[Scan], seed: u64) -> anyhow::Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record([
        "VolumeName",
        "ClinicalInformation_EN",
        "Technique_EN",
        "Findings_EN",
        "Impressions_EN",
    ])?;
    for scan in scans {
        let report = narrative::write(scan, seed);
        for reconstruction in &scan.reconstructions {
            let name = format!("{}.nii.gz", reconstruction.id);
            let text =
                [&report.clinical_information, &report.technique, &report.findings, &report.impression];
            writer.write_record(std::iter::once(name.as_str()).chain(text.map(String::as_str)))?;
        }
    }
    Ok(writer.into_inner()?)
}

/// What was drawn, as a wide table: a column per finding, 1 or 0.
fn labels(scans: &[Scan]) -> anyhow::Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(std::iter::once("VolumeName").chain(Finding::ALL.iter().map(|f| f.name())))?;
    for scan in scans {
        let drawn: BTreeSet<&Finding> = scan.findings.iter().collect();
        let cells: Vec<&str> =
            Finding::ALL.iter().map(|f| if drawn.contains(f) { "1" } else { "0" }).collect();
        for reconstruction in &scan.reconstructions {
            let name = format!("{}.nii.gz", reconstruction.id);
            writer.write_record(std::iter::once(name.as_str()).chain(cells.iter().copied()))?;
        }
    }
    Ok(writer.into_inner()?)
}
