//! `embed.images`: vectors of volumes, as a trained network sees them.

use std::sync::Arc;

use argent_engine::{Inputs, Io, Kind, Operator, Port, Problem, Signature, column};
use arrow::array::{ArrayRef, Float32Builder, ListBuilder};
use arrow::datatypes::{DataType, Field};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::predict::{each_volume, ports};

/// The network's features of a volume, before its last layer: one vector per volume.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EmbedImages {}

/// The operator's kind in the registry: each volume's vector depends on that volume and the weights.
pub const KIND: Kind = Kind::Row("volumes");

impl Operator for EmbedImages {
    fn ports(&self) -> Vec<Port> {
        ports()
    }

    fn signature(&self, inputs: &Inputs) -> Result<Signature, Vec<Problem>> {
        // The length of the vectors is the weights' and not known before they are trained.
        let item = Arc::new(Field::new_list_field(DataType::Float32, true));
        let own = column::schema([Field::new("vector", DataType::List(item), true)]);
        let carries = inputs.ids("volumes");
        Ok(Signature::new(own, &["id"])
            .reads("weights", ["weights"])
            .reads("volumes", ["voxels"])
            .carries(carries))
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        each_volume(io, |model, hounsfield, shape| {
            let vector = model.embed(hounsfield, shape).map_err(|e| e.to_string())?;
            let mut builder = ListBuilder::new(Float32Builder::new());
            builder.append_value(vector.into_iter().map(Some));
            Ok(vec![Arc::new(builder.finish()) as ArrayRef])
        })
    }
}
