//! Static answers: signatures that a store remembers, so that a run with nothing to do plans no query and
//! compiles no rule.
//!
//! A signature of a remembered operator ([`Entry::remembered`](crate::Entry::remembered)) is a function of
//! its parameters, its configuration files and the schemas of its inputs. Those, and the program itself, are
//! what an answer is kept by; mistakes are never kept.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::UNIX_EPOCH;

use anyhow::Context;
use argent_cache::keys::json_digest;
use argent_cache::{Secret, Store};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::ipc::convert::{IpcSchemaEncoder, fb_to_schema};
use arrow::ipc::root_as_schema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::operator::{Inputs, Operator, Output, Problem, Signature};

/// The signatures that one pipeline needed when it was checked last, and those that it needs now.
#[derive(Debug, Default)]
pub struct StaticAnswers {
    known: BTreeMap<String, StoredSignature>,
    used: Mutex<BTreeMap<String, StoredSignature>>,
}

impl StaticAnswers {
    /// What the store remembers of a pipeline; nothing where it has no such record or cannot read it, since
    /// every answer can be worked out again.
    pub fn read(store: &Store, pipeline: &str) -> StaticAnswers {
        let known = store.statics(pipeline).and_then(|bytes| serde_json::from_slice(&bytes).ok());
        StaticAnswers { known: known.unwrap_or_default(), used: Mutex::default() }
    }

    /// Keeps the answers that this check used, if they differ from those that were known.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn keep(&self, store: &Store, pipeline: &str) -> anyhow::Result<()> {
        let used = self.used();
        if used.keys().eq(self.known.keys()) {
            return Ok(());
        }
        store.set_statics(pipeline, &serde_json::to_vec(&*used)?)
    }

    /// The operator's signature: the one known by `key`, else the one that it works out.
    ///
    /// # Errors
    /// The operator's problems.
    pub(crate) fn signature(
        &self,
        key: &Value,
        operator: &dyn Operator,
        inputs: &Inputs,
    ) -> Result<Signature, Vec<Problem>> {
        let name = json_digest(&Secret::from_bytes([0; 32]), "argent static answer", key).to_string();
        let known = self.known.get(&name);
        if let Some((stored, Ok(signature))) = known.map(|stored| (stored, stored.signature())) {
            self.used().insert(name, stored.clone());
            return Ok(signature);
        }
        let signature = operator.signature(inputs)?;
        self.used().insert(name, StoredSignature::new(&signature));
        Ok(signature)
    }

    fn used(&self) -> MutexGuard<'_, BTreeMap<String, StoredSignature>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All that a signature of a remembered operator depends on.
pub(crate) fn static_key(
    operator: &str,
    params: &Value,
    files: &BTreeMap<String, Value>,
    inputs: &Inputs,
) -> Value {
    let ports: BTreeMap<&String, Value> = inputs
        .ports
        .iter()
        .map(|(port, input)| {
            (port, json!({ "schema": encoded(&input.schema), "keys": input.keys, "on": input.on }))
        })
        .collect();
    json!({ "program": program(), "operator": operator, "params": params, "files": files, "ports": ports })
}

/// What tells this program from one built of other code: the size and time of its file.
fn program() -> Value {
    let stat = || -> Option<Value> {
        let stat = std::env::current_exe().ok()?.metadata().ok()?;
        let built = stat.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        Some(json!([stat.len(), built.as_nanos().to_string()]))
    };
    stat().unwrap_or(Value::Null)
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct StoredSignature {
    reads: BTreeMap<String, Vec<String>>,
    sees: BTreeMap<String, Vec<String>>,
    carries: Vec<String>,
    outputs: BTreeMap<String, StoredOutput>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct StoredOutput {
    /// An Arrow IPC schema, in hexadecimal digits.
    schema: String,
    keys: Vec<String>,
}

impl StoredSignature {
    fn new(signature: &Signature) -> StoredSignature {
        let output =
            |output: &Output| StoredOutput { schema: encoded(&output.schema), keys: output.keys.clone() };
        StoredSignature {
            reads: signature.reads.clone(),
            sees: signature.sees.clone(),
            carries: signature.carries.clone(),
            outputs: signature.outputs.iter().map(|(name, o)| (name.clone(), output(o))).collect(),
        }
    }

    fn signature(&self) -> anyhow::Result<Signature> {
        let output = |(name, output): (&String, &StoredOutput)| {
            let schema = decoded(&output.schema)?;
            Ok((name.clone(), Output { schema, keys: output.keys.clone() }))
        };
        Ok(Signature {
            reads: self.reads.clone(),
            sees: self.sees.clone(),
            carries: self.carries.clone(),
            outputs: self.outputs.iter().map(output).collect::<anyhow::Result<_>>()?,
        })
    }
}

fn encoded(schema: &Schema) -> String {
    let buffer = IpcSchemaEncoder::new().schema_to_fb(schema);
    buffer.finished_data().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn decoded(hexadecimal: &str) -> anyhow::Result<SchemaRef> {
    let pair = |at: usize| hexadecimal.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let bytes: Option<Vec<u8>> = (0..hexadecimal.len()).step_by(2).map(pair).collect();
    let bytes = bytes.context("a stored schema is not hexadecimal")?;
    let schema = root_as_schema(&bytes).map_err(|error| anyhow::anyhow!("a stored schema: {error}"))?;
    Ok(fb_to_schema(schema).into())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use arrow::datatypes::{DataType, Field};

    use super::*;
    use crate::column;
    use crate::io::Io;
    use crate::operator::{Input, Port};

    /// An operator that counts how often it is asked.
    struct Counting {
        asked: AtomicUsize,
    }

    impl Operator for Counting {
        fn ports(&self) -> Vec<Port> {
            vec![Port::new("in", "Any table.", &[])]
        }

        fn signature(&self, inputs: &Inputs) -> Result<Signature, Vec<Problem>> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let list =
                Field::new("vector", DataType::FixedSizeList(Arc::new(column::number("item")), 3), true);
            let own = column::schema([column::phi("evidence"), list]);
            let carried = inputs.ids("in");
            Ok(Signature::new(own, &["id"]).reads("in", ["id"]).sees("in", ["path"]).carries(carried))
        }

        fn run(&self, _io: &mut Io) -> anyhow::Result<()> {
            Ok(())
        }
    }

    fn inputs(columns: &[&str]) -> Inputs {
        let schema = column::schema(columns.iter().map(|name| column::id(name)));
        let input = Input { schema, keys: vec!["id".into()], on: "id".into() };
        Inputs { ports: BTreeMap::from([("in".to_owned(), input)]), ..Inputs::default() }
    }

    #[test]
    fn an_answer_is_remembered_until_something_that_it_depends_on_changes() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let operator = Counting { asked: AtomicUsize::new(0) };
        let ask = |columns: &[&str], params: Value| {
            let answers = StaticAnswers::read(&store, "p");
            let inputs = inputs(columns);
            let key = static_key("toy", &params, &BTreeMap::new(), &inputs);
            let signature = answers.signature(&key, &operator, &inputs).unwrap();
            answers.keep(&store, "p").unwrap();
            (format!("{signature:?}"), operator.asked.load(Ordering::Relaxed))
        };
        let (first, asked) = ask(&["id"], json!({"a": 1}));
        assert_eq!(asked, 1);
        assert_eq!(ask(&["id"], json!({"a": 1})), (first.clone(), 1), "remembered, roles and types included");
        assert_eq!(ask(&["id"], json!({"a": 2})).1, 2, "another parameter");
        assert_eq!(ask(&["id", "scan"], json!({"a": 2})).1, 3, "another schema");
        assert_eq!(ask(&["id"], json!({"a": 1})).1, 4, "only the last check is kept");
    }

    #[test]
    fn a_damaged_record_is_no_record() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        store.set_statics("p", b"{").unwrap();
        assert!(StaticAnswers::read(&store, "p").known.is_empty());
    }
}
