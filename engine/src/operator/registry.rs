//! The readable list of operators, and how parameters become one.

use std::sync::OnceLock;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Kind, Operator};

/// An operator in the registry, its type forgotten.
pub struct Entry {
    /// `family.verb`.
    pub name: &'static str,
    /// Raised whenever the same parameters and inputs give another result.
    pub revision: u32,
    /// How output rows depend on input rows.
    pub kind: Kind,
    /// Whether it is local, free and quick, so that `plan` itself runs it to show exact rows after it.
    pub quick: bool,
    /// Whether its signature is worth remembering, and a function of its parameters, configuration files and
    /// input schemas alone: it looks at no file and no environment.
    pub remembered: bool,
    schema_of: fn() -> Value,
    /// The schema, once somebody has asked for it.
    schema: OnceLock<Value>,
    decode: Decode,
}

/// Parameters to the operator and its whole serialised form.
type Decode = fn(Value) -> Result<(Box<dyn Operator>, Value), serde_json::Error>;

impl Entry {
    /// The entry of an operator type.
    pub const fn new<T>(name: &'static str, revision: u32, kind: Kind) -> Entry
    where
        T: Operator + Serialize + DeserializeOwned + JsonSchema + 'static,
    {
        Entry {
            name,
            revision,
            kind,
            quick: false,
            remembered: false,
            schema_of: schema_of::<T>,
            schema: OnceLock::new(),
            decode: decode::<T>,
        }
    }

    /// The same entry, marked as local, free and quick.
    pub const fn quick(mut self) -> Entry {
        self.quick = true;
        self
    }

    /// The same entry, whose signature stores remember.
    pub const fn remembered(mut self) -> Entry {
        self.remembered = true;
        self
    }

    /// The JSON Schema of the parameters.
    pub fn schema(&self) -> &Value {
        self.schema.get_or_init(self.schema_of)
    }

    /// The operator with these parameters, and the part of them that enters the key, defaults filled in.
    ///
    /// # Errors
    /// When the parameters do not fit the type.
    pub fn decode(&self, parameters: Value) -> Result<(Box<dyn Operator>, Value), serde_json::Error> {
        let (operator, mut all) = (self.decode)(parameters)?;
        let schema = self.schema();
        keep_what_enters_the_key(&mut all, schema, schema);
        Ok((operator, all))
    }
}

/// The schema extension that keeps a parameter out of the key; its value is the reason.
pub const NOT_IN_KEY: &str = "x-not-in-key";

/// Takes out of serialised parameters, at any depth, the fields that their schema marks as not in the key.
fn keep_what_enters_the_key(value: &mut Value, schema: &Value, root: &Value) {
    let target =
        schema.get("$ref").and_then(Value::as_str).and_then(|r| root.pointer(r.trim_start_matches('#')));
    if let Some(target) = target {
        keep_what_enters_the_key(value, target, root);
    }
    for branch in ["anyOf", "oneOf", "allOf"].iter().filter_map(|k| schema.get(k)?.as_array()).flatten() {
        keep_what_enters_the_key(value, branch, root);
    }
    match value {
        Value::Object(fields) => {
            let properties = &schema["properties"];
            fields.retain(|name, _| properties[name].get(NOT_IN_KEY).is_none());
            for (name, field) in fields.iter_mut() {
                let inner = properties.get(name).or(schema.get("additionalProperties"));
                if let Some(inner) = inner {
                    keep_what_enters_the_key(field, inner, root);
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                keep_what_enters_the_key(item, &schema["items"], root);
            }
        }
        _ => {}
    }
}

fn schema_of<T: JsonSchema>() -> Value {
    schemars::generate::SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>().to_value()
}

fn decode<T>(parameters: Value) -> Result<(Box<dyn Operator>, Value), serde_json::Error>
where
    T: Operator + Serialize + DeserializeOwned + 'static,
{
    let operator: T = serde_json::from_value(parameters)?;
    let all = serde_json::to_value(&operator)?;
    Ok((Box::new(operator), all))
}

/// The readable list of operators.
pub struct Registry {
    entries: Vec<Entry>,
}

impl Registry {
    /// A registry of these entries, in the order of the documentation.
    pub fn new(entries: Vec<Entry>) -> Registry {
        Registry { entries }
    }

    /// The entry of that name.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|e| e.name == name)
    }

    /// All entries, in the order of the documentation.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Io;
    use crate::operator::{Inputs, Port, Problem, Signature};

    /// A toy with a field of each kind that may or may not enter the key.
    #[derive(Debug, Serialize, serde::Deserialize, JsonSchema)]
    struct Toy {
        #[schemars(extend("x-not-in-key" = "where is not what"))]
        path: String,
        #[serde(default)]
        threshold: Option<f64>,
        endpoint: Option<Endpoint>,
        servers: Vec<Endpoint>,
    }

    #[derive(Debug, Serialize, serde::Deserialize, JsonSchema)]
    struct Endpoint {
        #[schemars(extend("x-not-in-key" = "the same model answers the same anywhere"))]
        base_url: String,
        model: String,
    }

    impl Operator for Toy {
        fn ports(&self) -> Vec<Port> {
            Vec::new()
        }

        fn signature(&self, _inputs: &Inputs) -> Result<Signature, Vec<Problem>> {
            Ok(Signature::default())
        }

        fn run(&self, _io: &mut Io) -> anyhow::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_marked_stays_out_of_the_key_at_any_depth_and_defaults_are_written_out() {
        let entry = Entry::new::<Toy>("toy", 1, Kind::Table);
        let endpoint = serde_json::json!({"base_url": "http://a", "model": "m"});
        let given = serde_json::json!({"path": "here", "endpoint": endpoint, "servers": [endpoint]});
        let (_, key) = entry.decode(given).unwrap();
        let expected =
            serde_json::json!({"threshold": null, "endpoint": {"model": "m"}, "servers": [{"model": "m"}]});
        assert_eq!(key, expected);
    }
}
