//! `embed.images`: vectors of volumes or images, as a trained network sees them.

use std::sync::Arc;

use argent_engine::{Inputs, Io, Kind, Operator, Port, Problem, Signature};
use argent_learn::infer::AnyModel;
use arrow::array::ArrayRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::embed::{vector_column, vector_schema};
use crate::predict::{each_sample, ports};
use crate::sights::{self, Sight};

/// A network's vector of each volume or image: of a classifier its features before the last layer, of train.clip its
/// place in the space that it has in common with reports.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EmbedImages {}

/// The operator's kind in the registry: each row's vector depends on that row and the weights.
pub const KIND: Kind = Kind::OneOf(&sights::PORTS);

impl Operator for EmbedImages {
    fn ports(&self) -> Vec<Port> {
        ports()
    }

    fn signature(&self, inputs: &Inputs) -> Result<Signature, Vec<Problem>> {
        let sight = Sight::of(inputs).map_err(|problem| vec![problem])?;
        Ok(Signature::new(vector_schema(), &["id"])
            .reads("weights", ["weights"])
            .reads(sight.port(), [sight.column()])
            .carries(inputs.ids(sight.port())))
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        each_sample(io, AnyModel::load, |model, voxels, shape| {
            let vector = model.embed(voxels, shape).map_err(|e| e.to_string())?;
            Ok(vec![Arc::new(vector_column(&[vector])) as ArrayRef])
        })
    }
}
