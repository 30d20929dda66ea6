//! `predict`: a trained network's scores for volumes.

use std::sync::Arc;

use argent_engine::{Inputs, Io, Kind, Needed, Operator, Port, Problem, RowError, Signature, column};
use argent_imaging::side_file;
use argent_learn::infer::Model;
use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use argent_engine::joining::texts;

use crate::gpus::device_of;

/// Scores volumes with a trained network: for each finding, how likely it is there.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Predict {}

/// The operator's kind in the registry: each volume's scores depend on that volume and the weights.
pub const KIND: Kind = Kind::Row("volumes");

/// The ports of operators that apply weights to volumes.
pub(crate) fn ports() -> Vec<Port> {
    vec![
        Port::new(
            "weights",
            "One row of weights, as a `train` operator makes it.",
            &[Needed::files("weights")],
        ),
        Port::new(
            "volumes",
            "Volumes on the grid that the weights were trained on.",
            &[Needed::text("id"), Needed::files("voxels")],
        ),
    ]
}

impl Operator for Predict {
    fn ports(&self) -> Vec<Port> {
        ports()
    }

    fn signature(&self, inputs: &Inputs) -> Result<Signature, Vec<Problem>> {
        let own = column::schema([column::text("finding"), column::number("score")]);
        let carries = inputs.ids("volumes");
        Ok(Signature::new(own, &["id", "finding"])
            .reads("weights", ["weights"])
            .reads("volumes", ["voxels"])
            .carries(carries))
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        each_volume(io, |model, hounsfield, shape| {
            let scores = model.predict(hounsfield, shape).map_err(|e| e.to_string())?;
            let finding = StringArray::from_iter_values(model.classes());
            let score: Float64Array = scores.iter().map(|s| Some(f64::from(*s))).collect();
            Ok(vec![Arc::new(finding) as ArrayRef, Arc::new(score)])
        })
    }
}

/// Loads the weights once and answers for each pending volume with the columns that `apply` makes of it.
pub(crate) fn each_volume(
    io: &mut Io,
    apply: impl Fn(&Model, &[i16], [usize; 3]) -> Result<Vec<ArrayRef>, String>,
) -> anyhow::Result<()> {
    let weights = io.input("weights")?;
    anyhow::ensure!(weights.num_rows() == 1, "`weights` has {} rows, expected one", weights.num_rows());
    let path = io.side_file(texts(weights, "weights")?.value(0))?;
    let model = Model::load(&std::fs::read(path)?, device_of(io))?;
    let rows = io.rows().clone();
    let voxels = texts(&rows, "voxels")?;
    let (find, schema) = (io.side_finder(), io.schema("")?);
    for row in 0..rows.num_rows() {
        let columns = find(voxels.value(row))
            .and_then(|path| Ok(std::fs::read(path)?))
            .map_err(|e| RowError { retryable: true, ..RowError::lasting("file", format!("{e:#}")) })
            .and_then(|bytes| {
                side_file::decode(&bytes).map_err(|e| RowError::lasting("unreadable", e.to_string()))
            })
            .and_then(|volume| {
                apply(&model, &volume.hounsfield, volume.geometry.shape)
                    .map_err(|e| RowError::lasting("model", e))
            });
        match columns {
            Ok(columns) => {
                let batch = RecordBatch::try_new(schema.clone(), columns)?;
                io.answer(&[row], &[batch.num_rows()], &batch)?;
            }
            Err(error) => io.refuse(row, error)?,
        }
        io.progress(row as u64 + 1, rows.num_rows() as u64, "");
        if io.cancelled() {
            break;
        }
    }
    Ok(())
}
