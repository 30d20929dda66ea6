//! `embed.images`: vectors of volumes or images, as a trained network sees them.

use std::sync::Arc;

use argent_engine::{Inputs, Io, Kind, Operator, Port, Problem, Signature, column};
use arrow::array::{ArrayRef, Float32Builder, ListBuilder};
use arrow::datatypes::{DataType, Field};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::predict::{each_sample, ports};
use crate::sights::{self, Sight};

/// The network's features of a volume or an image, before its last layer: one vector for each.
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
        // The length of the vectors is the weights' and not known before they are trained.
        let item = Arc::new(Field::new_list_field(DataType::Float32, true));
        let own = column::schema([Field::new("vector", DataType::List(item), true)]);
        let sight = Sight::of(inputs).map_err(|problem| vec![problem])?;
        Ok(Signature::new(own, &["id"])
            .reads("weights", ["weights"])
            .reads(sight.port(), [sight.column()])
            .carries(inputs.ids(sight.port())))
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        each_sample(io, |model, voxels, shape| {
            let vector = model.embed(voxels, shape).map_err(|e| e.to_string())?;
            let mut builder = ListBuilder::new(Float32Builder::new());
            builder.append_value(vector.into_iter().map(Some));
            Ok(vec![Arc::new(builder.finish()) as ArrayRef])
        })
    }
}
