//! `embed.text`: vectors of reports, in the space that they have in common with images.

use std::sync::Arc;

use argent_engine::joining::texts;
use argent_engine::{Inputs, Io, Kind, Needed, Operator, Port, Problem, RowError, Signature};
use argent_learn::clip::ClipModel;
use arrow::array::{ArrayRef, RecordBatch};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::embed::{vector_column, vector_schema};
use crate::gpus::device_of;
use crate::label::rules::sections;
use crate::train::text::joined;

/// The vector of each report, as a text encoder of train.clip sees it: those of images and of reports can be compared.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EmbedText {
    /// The sections to read, one behind the other; left out, all that the table has. The same as in training.
    #[serde(default)]
    pub sections: Option<Vec<String>>,
}

/// The operator's kind in the registry: each report's vector depends on that report and the weights.
pub const KIND: Kind = Kind::Row("reports");

impl Operator for EmbedText {
    fn ports(&self) -> Vec<Port> {
        vec![
            Port::new("weights", "One row of weights of train.clip.", &[Needed::files("weights")]),
            Port::new("reports", "A table of reports: `id` and text sections.", &[Needed::text("id")]),
        ]
    }

    fn signature(&self, inputs: &Inputs) -> Result<Signature, Vec<Problem>> {
        let sections = sections(inputs, "reports", self.sections.as_deref())?;
        Ok(Signature::new(vector_schema(), &["id"])
            .reads("weights", ["weights"])
            .reads("reports", sections)
            .carries(inputs.ids("reports")))
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        let weights = io.input("weights")?;
        anyhow::ensure!(weights.num_rows() == 1, "`weights` has {} rows, expected one", weights.num_rows());
        let path = io.side_file(texts(weights, "weights")?.value(0))?;
        let model = ClipModel::load(&std::fs::read(path)?, device_of(io))?;
        let rows = io.rows().clone();
        let rows = match &self.sections {
            Some(sections) => {
                let schema = rows.schema();
                let places: Vec<usize> =
                    sections.iter().map(|name| schema.index_of(name)).collect::<Result<_, _>>()?;
                rows.project(&places)?
            }
            None => rows,
        };
        let schema = io.schema("")?;
        for (row, text) in joined(&rows)?.into_iter().enumerate() {
            if text.is_empty() {
                io.refuse(row, RowError::lasting("empty", "the report has no word in these sections"))?;
                continue;
            }
            match model.embed_texts(&[&text]) {
                Ok(vectors) => {
                    let columns: Vec<ArrayRef> = vec![Arc::new(vector_column(&vectors))];
                    io.answer(&[row], &[1], &RecordBatch::try_new(schema.clone(), columns)?)?;
                }
                Err(error) => io.refuse(row, RowError::lasting("model", error.to_string()))?,
            }
            io.progress(row as u64 + 1, rows.num_rows() as u64, "");
            if io.cancelled() {
                break;
            }
        }
        Ok(())
    }
}
