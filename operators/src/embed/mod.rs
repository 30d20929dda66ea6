//! Operators that turn rows into vectors.

pub mod images;
pub mod text;

use std::sync::Arc;

use argent_engine::column;
use arrow::array::{Float32Builder, ListArray, ListBuilder};
use arrow::datatypes::{DataType, Field, SchemaRef};

/// The column of vectors. Their length is the weights' and not known before those are trained.
fn vector_schema() -> SchemaRef {
    let item = Arc::new(Field::new_list_field(DataType::Float32, true));
    column::schema([Field::new("vector", DataType::List(item), true)])
}

fn vector_column(vectors: &[Vec<f32>]) -> ListArray {
    let mut builder = ListBuilder::new(Float32Builder::new());
    for vector in vectors {
        builder.append_value(vector.iter().copied().map(Some));
    }
    builder.finish()
}
