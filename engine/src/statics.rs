//! Static answers: signatures that a store remembers, so that a run with nothing to do plans no query and
//! compiles no rule.
//!
//! A signature of a remembered operator ([`Entry::remembered`](crate::Entry::remembered)) is a function of
//! its parameters, its configuration files and the schemas of its inputs. Those, and the program itself, are
//! what an answer is kept by; mistakes are never kept.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
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
    known: Stored,
    used: Mutex<Used>,
}

/// What the store keeps: schemas that many steps share, each once, and signatures that name them by place.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Stored {
    /// Arrow IPC schemas, in hexadecimal digits.
    schemas: Vec<String>,
    /// By digest of all that it depends on.
    signatures: BTreeMap<String, StoredSignature>,
    /// The schemas, read; by place.
    #[serde(skip)]
    read: Mutex<HashMap<usize, SchemaRef>>,
}

#[derive(Debug, Default)]
struct Used {
    signatures: BTreeMap<String, Signature>,
    /// Schemas that were encoded, by address; they are held, so that no other can come to lie there.
    encoded: HashMap<usize, (SchemaRef, String)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredSignature {
    reads: BTreeMap<String, Vec<String>>,
    sees: BTreeMap<String, Vec<String>>,
    carries: Vec<String>,
    /// By name: the place of the schema, and the key columns.
    outputs: BTreeMap<String, (usize, Vec<String>)>,
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
        let mut used = self.used();
        if used.signatures.keys().eq(self.known.signatures.keys()) {
            return Ok(());
        }
        let mut stored = Stored::default();
        let signatures = std::mem::take(&mut used.signatures);
        for (name, signature) in &signatures {
            let signature = stored.signature(signature, &mut used);
            stored.signatures.insert(name.clone(), signature);
        }
        used.signatures = signatures;
        store.set_statics(pipeline, &serde_json::to_vec(&stored)?)
    }

    /// The operator's signature: the one known by what it depends on, else the one that it works out.
    ///
    /// # Errors
    /// The operator's problems.
    pub(crate) fn signature(
        &self,
        operator: (&str, &dyn Operator),
        params: &Value,
        files: &BTreeMap<String, Value>,
        inputs: &Inputs,
    ) -> Result<Signature, Vec<Problem>> {
        let key = self.key(operator.0, params, files, inputs);
        let name = json_digest(&Secret::from_bytes([0; 32]), "argent static answer", &key).to_string();
        let signature = match self.known.find(&name) {
            Some(known) => known,
            None => operator.1.signature(inputs)?,
        };
        self.used().signatures.insert(name, signature.clone());
        Ok(signature)
    }

    /// All that a signature of a remembered operator depends on.
    fn key(&self, operator: &str, params: &Value, files: &BTreeMap<String, Value>, inputs: &Inputs) -> Value {
        let mut used = self.used();
        let ports: BTreeMap<&String, Value> = inputs
            .ports
            .iter()
            .map(|(port, input)| {
                let schema = used.encoded(&input.schema);
                (port, json!({ "schema": schema, "keys": input.keys, "on": input.on }))
            })
            .collect();
        json!({ "program": program(), "operator": operator, "params": params, "files": files, "ports": ports })
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        lock(&self.used)
    }
}

impl Used {
    fn encoded(&mut self, schema: &SchemaRef) -> &str {
        let address = Arc::as_ptr(schema).addr();
        let entry = self.encoded.entry(address).or_insert_with(|| (Arc::clone(schema), encoded(schema)));
        &entry.1
    }
}

impl Stored {
    /// The signature of this name, if it is known and reads.
    fn find(&self, name: &str) -> Option<Signature> {
        let stored = self.signatures.get(name)?;
        let output = |(name, (place, keys)): (&String, &(usize, Vec<String>))| {
            Some((name.clone(), Output { schema: self.schema(*place)?, keys: keys.clone() }))
        };
        Some(Signature {
            reads: stored.reads.clone(),
            sees: stored.sees.clone(),
            carries: stored.carries.clone(),
            outputs: stored.outputs.iter().map(output).collect::<Option<_>>()?,
        })
    }

    fn schema(&self, place: usize) -> Option<SchemaRef> {
        let mut read = lock(&self.read);
        if let Some(schema) = read.get(&place) {
            return Some(Arc::clone(schema));
        }
        let schema = decoded(self.schemas.get(place)?).ok()?;
        read.insert(place, Arc::clone(&schema));
        Some(schema)
    }

    fn signature(&mut self, signature: &Signature, used: &mut Used) -> StoredSignature {
        let outputs = signature.outputs.iter().map(|(name, output)| {
            let encoded = used.encoded(&output.schema);
            let place = self.schemas.iter().position(|known| known == encoded).unwrap_or_else(|| {
                self.schemas.push(encoded.to_owned());
                self.schemas.len() - 1
            });
            (name.clone(), (place, output.keys.clone()))
        });
        StoredSignature {
            outputs: outputs.collect(),
            reads: signature.reads.clone(),
            sees: signature.sees.clone(),
            carries: signature.carries.clone(),
        }
    }
}

/// What tells this program from one built of other code: the size and time of its file.
fn program() -> &'static Value {
    static PROGRAM: OnceLock<Value> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let stat = || -> Option<Value> {
            let stat = std::env::current_exe().ok()?.metadata().ok()?;
            let built = stat.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
            Some(json!([stat.len(), built.as_nanos().to_string()]))
        };
        stat().unwrap_or(Value::Null)
    })
}

fn encoded(schema: &Schema) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let buffer = IpcSchemaEncoder::new().schema_to_fb(schema);
    let digit = |half: u8| char::from(DIGITS[usize::from(half)]);
    buffer.finished_data().iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn decoded(hexadecimal: &str) -> anyhow::Result<SchemaRef> {
    let pair = |at: usize| hexadecimal.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let bytes: Option<Vec<u8>> = (0..hexadecimal.len()).step_by(2).map(pair).collect();
    let bytes = bytes.context("a stored schema is not hexadecimal")?;
    let schema = root_as_schema(&bytes).map_err(|error| anyhow::anyhow!("a stored schema: {error}"))?;
    Ok(fb_to_schema(schema).into())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
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
            let signature =
                answers.signature(("toy", &operator), &params, &BTreeMap::new(), &inputs).unwrap();
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
        assert!(StaticAnswers::read(&store, "p").known.signatures.is_empty());
    }
}
