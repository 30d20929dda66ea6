//! Operators: what a step can do.
//!
//! The type is its parameters: one struct gives the YAML keys (serde), the reference page and the JSON
//! Schema (doc comments, schemars) and the key (its serialised form with defaults filled in, less the fields
//! that are marked as not in the key).

mod config;
mod exchange;
mod ports;
mod problem;
mod registry;
mod truth;

use std::collections::BTreeMap;
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use serde::Serialize;

use crate::io::Io;
use crate::table::Rows;
pub use config::{ConfigFile, ConfigFiles};
pub use exchange::{Exchange, Projection, Said, Usage};
pub(crate) use ports::mistyped_column;
pub use ports::{FILES, Holds, Input, Inputs, Needed, Port, missing_column, one_of};
pub use problem::{FilePlace, Problem, nearest};
pub use registry::{Entry, NOT_IN_KEY, Registry};
pub use truth::{Change, Truth, Versions};

/// What a step can do. A value of the type is one step's parameters, decoded and checked.
pub trait Operator: Send + Sync {
    /// The tables that it reads, in the order of its documentation. May depend on the parameters.
    fn ports(&self) -> Vec<Port>;

    /// Reads the configuration files that parameters name (prompts, finding packs) and tells, through
    /// [`ConfigFiles::uses`], which parsed part of them decides the result. Default: there are none.
    ///
    /// # Errors
    /// One problem per file that is absent or does not read.
    fn load(&mut self, _files: &mut ConfigFiles) -> Result<(), Vec<Problem>> {
        Ok(())
    }

    /// The glob patterns of the files that it reads from disk, or from the side files of a `files` port when
    /// the step has one. Default: it reads none.
    fn patterns(&self) -> Vec<String> {
        Vec::new()
    }

    /// Adds columns to the list of its files: what another file, which a parameter names, says of each. They count as read
    /// from the file, so that a change there does again what it is about and nothing else. Default: there are none.
    ///
    /// # Errors
    /// When what is to be added does not read.
    fn annotate(&self, files: RecordBatch) -> anyhow::Result<RecordBatch> {
        Ok(files)
    }

    /// What it reads and makes, given the schemas of its inputs. Never looks at data.
    ///
    /// # Errors
    /// Every problem of the parameters against the inputs, not only the first.
    fn signature(&self, inputs: &Inputs) -> Result<Signature, Vec<Problem>>;

    /// Does the work. A row operator answers for each of [`Io::rows`], and is called again with the next of them
    /// where they do not fit into memory together; any other emits whole tables.
    ///
    /// # Errors
    /// Only what stops the whole step; what concerns one row is an error row ([`Io::refuse`]).
    fn run(&self, io: &mut Io) -> anyhow::Result<()>;

    /// Makes further outputs of a row operator from its finished main table and its table of errors. Default: there are
    /// none.
    ///
    /// # Errors
    /// As [`Operator::run`].
    fn finish(&self, _main: &Rows, _errors: &Rows, _io: &mut Io) -> anyhow::Result<()> {
        Ok(())
    }

    /// Of a row operator: the column of its own that holds keys in a shared memo, and that memo's name (see
    /// [`Io::memo`]). A remembered row whose keys are gone from there is done again. Default: there is none.
    fn shared_keys(&self) -> Option<(&'static str, &'static str)> {
        None
    }

    /// Of a row operator: the output rows that stand in the main table for an input row that failed, so that
    /// it is seen and counted there (a label's state `failed`). Default: a failed row is only in `errors`.
    ///
    /// # Errors
    /// When the rows cannot be built.
    fn failed_rows(&self, _schema: &SchemaRef) -> anyhow::Result<Option<RecordBatch>> {
        Ok(None)
    }

    /// The endpoints that it sends requests to, one step at a time each: two steps would send more than an
    /// endpoint's limit together, and ask equal questions twice. Default: it sends none.
    fn endpoints(&self) -> Vec<String> {
        Vec::new()
    }

    /// What it needs of the machine beside processors, memory and GPUs (a server, a variable, a program), looked
    /// at now, for `argent doctor`. Sends no cell and shows no secret. Default: it needs nothing.
    fn surroundings(&self, _folder: &Path) -> Vec<Condition> {
        Vec::new()
    }

    /// What its servers do beyond what they say, found out by a few requests of the operator's own words, for
    /// `argent doctor --probe`. It may cost a little money. Default: it asks no server.
    fn probes(&self) -> Vec<Condition> {
        Vec::new()
    }

    /// The money and requests that `rows` (pending rows, perhaps not all of them) would cost, for the plan; a
    /// whole-table operator is asked with no rows, and looks at its inputs. Default: it is free.
    ///
    /// # Errors
    /// When an estimate needs something that is not there.
    fn price(&self, _rows: &RecordBatch, _io: &Io) -> anyhow::Result<Option<Price>> {
        Ok(None)
    }

    /// Of a row operator that asks a server: by row, what it asks about these rows and every call that came of it so far.
    /// Nothing is sent. Default: it asks nothing.
    ///
    /// # Errors
    /// When what is kept does not read. A row whose request cannot be made has none.
    fn exchanges(&self, rows: &RecordBatch, _io: &Io) -> anyhow::Result<Vec<Vec<Exchange>>> {
        Ok(vec![Vec::new(); rows.num_rows()])
    }

    /// What `rest` will take, by what these exchanges took. Default: nothing is known.
    ///
    /// # Errors
    /// When a measurement is no number.
    fn project(&self, _measured: &[Exchange], _rest: &Price) -> anyhow::Result<Option<Projection>> {
        Ok(None)
    }

    /// Of an operator that measures labels: where it finds their truth. Default: it measures none.
    fn truth(&self) -> Option<Truth> {
        None
    }

    /// Of an operator with a truth: what two versions of labels are worth by it, per finding and on average.
    ///
    /// # Errors
    /// When a table lacks a column, or a state is unknown.
    fn compare(&self, _versions: &Versions) -> anyhow::Result<Vec<Change>> {
        Ok(Vec::new())
    }
}

/// How an operator's output rows depend on its input rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Each output row depends on one row of the named port (and on the other ports as a whole).
    Row(&'static str),
    /// As [`Kind::Row`], of whichever one of these ports a step fills.
    OneOf(&'static [&'static str]),
    /// Any output row may depend on any input row.
    Table,
}

impl Kind {
    /// The kind of a step that fills these ports: never [`Kind::OneOf`], and none where it fills no port of those, or
    /// several.
    pub(crate) fn filled(self, is_filled: impl Fn(&str) -> bool) -> Option<Kind> {
        let Kind::OneOf(ports) = self else { return Some(self) };
        let mut filled = ports.iter().filter(|port| is_filled(port));
        filled.next().filter(|_| filled.next().is_none()).map(|port| Kind::Row(port))
    }
}

/// What a plan expects pending rows to cost.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Price {
    /// Distinct requests that would be sent.
    pub requests: u64,
    /// Input tokens, estimated.
    pub tokens_in: u64,
    /// Output tokens, estimated.
    pub tokens_out: u64,
    /// The least it may cost in US dollars; none where the price is not known.
    pub usd_min: Option<f64>,
    /// The most it may cost in US dollars; none where the price is not known.
    pub usd: Option<f64>,
}

impl Price {
    /// The price of both; unknown where one of them is.
    pub fn and(&self, other: &Price) -> Price {
        let sum = |one: Option<f64>, other: Option<f64>| Some(one? + other?);
        Price {
            requests: self.requests + other.requests,
            tokens_in: self.tokens_in + other.tokens_in,
            tokens_out: self.tokens_out + other.tokens_out,
            usd_min: sum(self.usd_min, other.usd_min),
            usd: sum(self.usd, other.usd),
        }
    }
}

/// Something that a step needs of the machine, and whether it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// What was looked at: `endpoint http://127.0.0.1:8000/v1`, `variable LLM_API_KEY`.
    pub subject: String,
    /// What was found.
    pub found: String,
    /// What to do; none where all is well.
    pub advice: Option<String>,
}

impl Condition {
    /// One that is met.
    pub fn met(subject: impl Into<String>, found: impl Into<String>) -> Condition {
        Condition { subject: subject.into(), found: found.into(), advice: None }
    }

    /// One that is not met, and what to do.
    pub fn unmet(
        subject: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Condition {
        Condition { subject: subject.into(), found: found.into(), advice: Some(advice.into()) }
    }
}

/// What an operator reads and makes.
#[derive(Debug, Clone, Default)]
pub struct Signature {
    /// By port: the columns whose values decide the result. They are all that enters the key.
    pub reads: BTreeMap<String, Vec<String>>,
    /// By port: columns that it sees to find things by (a path beside a digest), which decide nothing.
    pub sees: BTreeMap<String, Vec<String>>,
    /// Of a row operator: the columns of its row port that it carries along unread.
    pub carries: Vec<String>,
    /// The tables that it makes; the main one is named "".
    pub outputs: BTreeMap<String, Output>,
}

/// A table that an operator makes.
#[derive(Debug, Clone)]
pub struct Output {
    /// The columns that the operator itself makes; the main table of a row operator gets the carried ones
    /// in front of them.
    pub schema: SchemaRef,
    /// The columns that name a row; the table is sorted by them.
    pub keys: Vec<String>,
}

impl Signature {
    /// A signature with one output.
    pub fn new(schema: SchemaRef, keys: &[&str]) -> Signature {
        let keys = keys.iter().map(|k| (*k).to_owned()).collect();
        Signature {
            outputs: BTreeMap::from([(String::new(), Output { schema, keys })]),
            ..Signature::default()
        }
    }

    /// Adds the columns that are read from a port.
    pub fn reads<S: Into<String>>(mut self, port: &str, columns: impl IntoIterator<Item = S>) -> Signature {
        self.reads.entry(port.to_owned()).or_default().extend(columns.into_iter().map(Into::into));
        self
    }

    /// Adds columns that are seen but decide nothing.
    pub fn sees<S: Into<String>>(mut self, port: &str, columns: impl IntoIterator<Item = S>) -> Signature {
        self.sees.entry(port.to_owned()).or_default().extend(columns.into_iter().map(Into::into));
        self
    }

    /// Says which columns a row operator carries along.
    pub fn carries(mut self, columns: Vec<String>) -> Signature {
        self.carries = columns;
        self
    }

    /// Adds a further output.
    pub fn output(mut self, name: &str, schema: SchemaRef, keys: &[&str]) -> Signature {
        let keys = keys.iter().map(|k| (*k).to_owned()).collect();
        self.outputs.insert(name.to_owned(), Output { schema, keys });
        self
    }

    /// The main output.
    ///
    /// # Panics
    /// When the signature was built without one.
    pub fn main(&self) -> &Output {
        self.outputs.get("").expect("a signature has a main output")
    }
}
