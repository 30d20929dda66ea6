//! `predict`: a trained network's scores for volumes or images.

use std::sync::Arc;

use argent_engine::joining::texts;
use argent_engine::{Inputs, Io, Kind, Needed, Operator, Port, Problem, RowError, Signature, column};
use argent_learn::batches::Voxels;
use argent_learn::device::Device;
use argent_learn::infer::Model;
use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::gpus::device_of;
use crate::sights::{self, Sight};

/// Scores volumes or images with a trained network: for each finding, how likely it is there.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Predict {}

/// The operator's kind in the registry: each row's scores depend on that row and the weights.
pub const KIND: Kind = Kind::OneOf(&sights::PORTS);

/// The ports of operators that apply weights to volumes or images.
pub(crate) fn ports() -> Vec<Port> {
    let weights = Port::new(
        "weights",
        "One row of weights, as a `train` operator makes it.",
        &[Needed::files("weights")],
    );
    std::iter::once(weights).chain(sights::ports()).collect()
}

impl Operator for Predict {
    fn ports(&self) -> Vec<Port> {
        ports()
    }

    fn signature(&self, inputs: &Inputs) -> Result<Signature, Vec<Problem>> {
        let sight = Sight::of(inputs).map_err(|problem| vec![problem])?;
        let own = column::schema([column::text("finding"), column::number("score")]);
        Ok(Signature::new(own, &["id", "finding"])
            .reads("weights", ["weights"])
            .reads(sight.port(), [sight.column()])
            .carries(inputs.ids(sight.port())))
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        each_sample(io, Model::load, |model, voxels, shape| {
            let scores = model.predict(voxels, shape).map_err(|e| e.to_string())?;
            let finding = StringArray::from_iter_values(model.classes());
            let score: Float64Array = scores.iter().map(|s| Some(f64::from(*s))).collect();
            Ok(vec![Arc::new(finding) as ArrayRef, Arc::new(score)])
        })
    }
}

/// Loads the weights once, by `load`, and answers for each pending volume or image with the columns that `apply` makes.
pub(crate) fn each_sample<M>(
    io: &mut Io,
    load: impl Fn(&[u8], Device) -> Result<M, argent_learn::Error>,
    apply: impl Fn(&M, &Voxels, [usize; 3]) -> Result<Vec<ArrayRef>, String>,
) -> anyhow::Result<()> {
    let weights = io.input("weights")?;
    anyhow::ensure!(weights.num_rows() == 1, "`weights` has {} rows, expected one", weights.num_rows());
    let path = io.side_file(texts(weights, "weights")?.value(0))?;
    let model = load(&std::fs::read(path)?, device_of(io))?;
    let rows = io.rows().clone();
    let sight = match rows.column_by_name(Sight::Images.column()) {
        Some(_) => Sight::Images,
        None => Sight::Volumes,
    };
    let files = sight.files(&rows)?;
    let (find, schema) = (io.side_finder(), io.schema("")?);
    for row in 0..rows.num_rows() {
        let columns = sight.read(&find, files.value(row)).and_then(|(voxels, shape)| {
            apply(&model, &voxels, shape).map_err(|e| RowError::lasting("model", e))
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
