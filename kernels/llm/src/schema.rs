//! The schema of an answer, with its text: it is the same for all requests of a step and large beside a short report.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

/// A JSON Schema; clones share it.
#[derive(Clone, Debug)]
pub struct Schema(Arc<(Value, Box<RawValue>)>);

impl Schema {
    /// Takes a JSON Schema.
    pub fn new(schema: Value) -> Schema {
        let text = to_raw_value(&schema).expect("a JSON value can be written");
        Schema(Arc::new((schema, text)))
    }

    /// The schema itself.
    pub fn value(&self) -> &Value {
        &self.0.0
    }

    /// The schema in one line.
    pub fn text(&self) -> &RawValue {
        &self.0.1
    }
}

impl PartialEq for Schema {
    fn eq(&self, other: &Schema) -> bool {
        self.value() == other.value()
    }
}

impl Serialize for Schema {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Schema {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Schema, D::Error> {
        Value::deserialize(deserializer).map(Schema::new)
    }
}
