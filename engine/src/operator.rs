//! Operators: what a step can do.
//!
//! The type is its parameters: one struct gives the YAML keys (serde), the reference page and the JSON
//! Schema (doc comments, schemars) and the key (its serialised form with defaults filled in, less the fields
//! that are marked as not in the key).

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use arrow::datatypes::{DataType, Field, SchemaRef};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::column;
use crate::diagnostic::{Diagnostic, Sources};
use crate::io::Io;
use crate::spec::text;
use crate::table::{Rows, matching_paths};
use crate::yaml;

/// The schema extension that keeps a parameter out of the key; its value is the reason.
pub const NOT_IN_KEY: &str = "x-not-in-key";

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

    /// Makes further outputs of a row operator from its finished main table. Default: there are none.
    ///
    /// # Errors
    /// As [`Operator::run`].
    fn finish(&self, _main: &Rows, _io: &mut Io) -> anyhow::Result<()> {
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
    fn failed_rows(&self, _schema: &SchemaRef) -> anyhow::Result<Option<arrow::array::RecordBatch>> {
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

    /// The money and requests that `rows` (pending rows, perhaps not all of them) would cost, for the plan; a
    /// whole-table operator is asked with no rows, and looks at its inputs. Default: it is free.
    ///
    /// # Errors
    /// When an estimate needs something that is not there.
    fn price(&self, _rows: &arrow::array::RecordBatch, _io: &Io) -> anyhow::Result<Option<Price>> {
        Ok(None)
    }
}

/// How an operator's output rows depend on its input rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Each output row depends on one row of the named port (and on the other ports as a whole).
    Row(&'static str),
    /// Any output row may depend on any input row.
    Table,
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

/// A table that an operator reads.
#[derive(Debug, Clone, PartialEq)]
pub struct Port {
    /// The name under `from`; empty for a port that takes any name (see [`Port::any`]).
    pub name: &'static str,
    /// One sentence: what the table must hold.
    pub doc: &'static str,
    /// Whether a step may leave it out.
    pub optional: bool,
    /// Columns that the table must have.
    pub columns: Vec<Needed>,
}

/// A column that a port needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needed {
    /// Its name.
    pub name: &'static str,
    /// What it must hold.
    pub holds: Holds,
}

/// What a needed column must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// Text.
    Text,
    /// Numbers, whole or not.
    Number,
    /// Lists of numbers.
    Lists,
    /// Digests of side files: text in a column of the role `file` or `source`.
    Files,
}

impl Needed {
    /// A column of text.
    pub const fn text(name: &'static str) -> Needed {
        Needed { name, holds: Holds::Text }
    }

    /// A column of numbers.
    pub const fn number(name: &'static str) -> Needed {
        Needed { name, holds: Holds::Number }
    }

    /// A column of lists of numbers.
    pub const fn lists(name: &'static str) -> Needed {
        Needed { name, holds: Holds::Lists }
    }

    /// A column that names side files.
    pub const fn files(name: &'static str) -> Needed {
        Needed { name, holds: Holds::Files }
    }

    /// What it must hold, in words: `numbers`.
    pub fn phrase(self) -> &'static str {
        match self.holds {
            Holds::Text => "text",
            Holds::Number => "numbers",
            Holds::Lists => "lists of numbers",
            Holds::Files => "digests of side files",
        }
    }

    /// Whether a column holds what is needed.
    pub fn fits(self, field: &Field) -> bool {
        let is_text = matches!(field.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        match self.holds {
            Holds::Text => is_text,
            Holds::Number => field.data_type().is_numeric(),
            Holds::Lists => match field.data_type() {
                DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                    item.data_type().is_numeric()
                }
                _ => false,
            },
            Holds::Files => is_text && (column::has_role(field, "file") || column::has_role(field, "source")),
        }
    }
}

impl Port {
    /// A port that a step must fill, with the columns that its table must have.
    pub fn new(name: &'static str, doc: &'static str, columns: &[Needed]) -> Port {
        Port { name, doc, optional: false, columns: columns.to_vec() }
    }

    /// The files port: a table whose rows name side files. Left out, files are found on disk.
    pub fn files() -> Port {
        Port {
            name: FILES,
            doc: "A table of files (`path`, `digest`); left out, `path` is looked up on disk.",
            optional: true,
            columns: vec![Needed::text("path"), Needed::files("digest")],
        }
    }

    /// Any number of tables, under names of the user's choice.
    pub fn any(doc: &'static str) -> Port {
        Port { name: "", doc, optional: true, columns: Vec::new() }
    }
}

/// The name of the port through which source operators read files.
pub const FILES: &str = "files";

/// The schemas that fill an operator's ports.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// By port name.
    pub ports: BTreeMap<String, Input>,
    /// The folder that relative paths of the spec start from.
    pub folder: PathBuf,
    /// Whether the operator's files lie on disk: false where another step makes them.
    pub files_on_disk: bool,
}

/// The schema that fills one port.
#[derive(Debug, Clone)]
pub struct Input {
    /// The columns.
    pub schema: SchemaRef,
    /// The key columns of the table.
    pub keys: Vec<String>,
    /// The id column on which this port is joined to the others: `id`, or what `match` says.
    pub on: String,
}

impl Inputs {
    /// The input of a port that is not optional.
    ///
    /// # Panics
    /// When the port is not filled, which the engine has checked before.
    pub fn port(&self, name: &str) -> &Input {
        self.ports.get(name).expect("the engine fills every port that is not optional")
    }

    /// The id columns of a port: those that row operators carry along.
    pub fn ids(&self, port: &str) -> Vec<String> {
        let input = self.port(port);
        let mut names = column::names_with_role(&input.schema, "id");
        names.extend(input.keys.iter().filter(|k| !names.contains(k)).cloned().collect::<Vec<_>>());
        names
    }

    /// A problem at `from.<port>` for each column that the port's table lacks.
    pub fn missing(&self, port: &str, columns: &[&str]) -> Vec<Problem> {
        let schema = &self.port(port).schema;
        let absent = columns.iter().filter(|c| schema.field_with_name(c).is_err());
        absent.map(|c| missing_column(port, c, schema)).collect()
    }
}

/// The problem of a port's table that lacks a column.
pub fn missing_column(port: &str, column: &str, schema: &SchemaRef) -> Problem {
    let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    Problem::at(["from", port], format!("the table for `{port}` has no column `{column}`"))
        .help(nearest(column, &names, "columns"))
}

/// The problem of a port's table whose column holds something else than the port needs.
pub(crate) fn mistyped_column(port: &str, needed: Needed, field: &Field) -> Problem {
    let found = match (needed.holds, field.data_type()) {
        (Holds::Files, DataType::Utf8) => "text that names no side files".to_owned(),
        (_, DataType::Utf8) => "text".to_owned(),
        (_, DataType::Boolean) => "true or false".to_owned(),
        (_, data_type) => format!("{}s", column::type_name(data_type)),
    };
    let message = format!(
        "the column `{}` of the table for `{port}` holds {found}, expected {}",
        needed.name,
        needed.phrase()
    );
    let help = match needed.holds {
        Holds::Text => format!("cast it where the table is made: `cast({} as varchar)`", needed.name),
        Holds::Number => format!("cast it where the table is made: `cast({} as double)`", needed.name),
        Holds::Lists => "keep the column of the step that made it unchanged".to_owned(),
        Holds::Files => "read the step that makes the files, or keep its column unchanged".to_owned(),
    };
    Problem::at(["from", port], message).help(help)
}

/// "did you mean `x`?" where a name is near, else the list of all names.
pub fn nearest(wanted: &str, names: &[&str], what: &str) -> String {
    let near = names
        .iter()
        .map(|n| (strsim::damerau_levenshtein(wanted, n), *n))
        .min()
        .filter(|(distance, _)| *distance <= wanted.len().max(3) / 3);
    match near {
        Some((_, name)) => format!("did you mean `{name}`?"),
        None if names.is_empty() => format!("there are no {what}"),
        None => format!("there are {}", names.join(", ")),
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

/// Something that is wrong with a step, and where: a path into its YAML (`with`, `sections`, `findings`), or a
/// place in a configuration file that it names.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// Keys from the step downwards; the deepest that exists is underlined.
    pub path: Vec<String>,
    /// What is there and what was expected.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// The part of the text at `path` that it is about, in bytes of that text; none for all of it.
    pub part: Option<Range<usize>>,
    /// The place in the file that the parameter at `path` names.
    pub file: Option<Box<FilePlace>>,
}

/// A place in a configuration file.
#[derive(Debug, Clone, PartialEq)]
pub struct FilePlace {
    /// The file, as it was opened.
    pub path: PathBuf,
    /// Its text.
    pub text: Arc<str>,
    /// The place, in bytes of the text.
    pub part: Range<usize>,
}

impl Problem {
    /// A problem at a place in the step.
    pub fn at<S: Into<String>>(path: impl IntoIterator<Item = S>, message: impl Into<String>) -> Problem {
        let path = path.into_iter().map(Into::into).collect();
        Problem { path, message: message.into(), help: None, part: None, file: None }
    }

    /// The same problem with advice.
    pub fn help(mut self, help: impl Into<String>) -> Problem {
        self.help = Some(help.into());
        self
    }

    /// The same problem, about a part of the text at its path.
    pub fn part(mut self, part: Range<usize>) -> Problem {
        self.part = Some(part);
        self
    }
}

/// The configuration files of a step, and what of them decides its result.
#[derive(Debug, Default)]
pub struct ConfigFiles {
    folder: PathBuf,
    /// By parameter: the parsed part that enters the key.
    pub(crate) used: BTreeMap<String, Value>,
    /// By parameter: the file or variable that was read, for explanations.
    pub(crate) paths: BTreeMap<String, String>,
}

impl ConfigFiles {
    pub(crate) fn new(folder: &Path) -> ConfigFiles {
        ConfigFiles { folder: folder.to_owned(), ..ConfigFiles::default() }
    }

    /// The file that the parameter names, relative to the spec.
    ///
    /// # Errors
    /// A problem at `with.<parameter>` when the file is absent or is not UTF-8 text.
    pub fn read(&mut self, parameter: &str, path: &str) -> Result<ConfigFile, Problem> {
        self.paths.insert(parameter.to_owned(), path.to_owned());
        let full = self.folder.join(path);
        let text = text::read(&full).map_err(|reason| {
            let problem = Problem::at(["with", parameter], format!("`{path}` cannot be read: {reason}"));
            problem.help(format!("paths are relative to the spec; this one means {}", full.display()))
        })?;
        Ok(ConfigFile { parameter: parameter.to_owned(), path: full, text: Arc::from(text) })
    }

    /// The files that match any of the patterns that a parameter holds, as paths relative to the spec, sorted.
    ///
    /// # Errors
    /// A problem at `with.<parameter>` when a pattern is not one, or no file matches.
    pub fn matching(&self, parameter: &str, patterns: &[String]) -> Result<Vec<String>, Problem> {
        let problem = |message: String| Problem::at(["with", parameter], message);
        let paths = matching_paths(&self.folder, patterns).map_err(|error| problem(format!("{error:#}")))?;
        if paths.is_empty() {
            let problem = problem(format!("no file matches {}", patterns.join(", ")));
            return Err(
                problem.help(format!("paths are relative to the spec's folder {}", self.folder.display()))
            );
        }
        let shown =
            |path: &PathBuf| path.strip_prefix(&self.folder).unwrap_or(path).to_string_lossy().into_owned();
        Ok(paths.iter().map(shown).collect())
    }

    /// Says which part of the environment variable that a parameter names decides the result, such as a digest of it.
    pub fn uses_variable(&mut self, parameter: &str, variable: &str, part: Value) {
        self.paths.insert(parameter.to_owned(), format!("${variable}"));
        self.uses(parameter, part);
    }

    /// Says which parsed part of a parameter's file decides the result.
    pub fn uses(&mut self, parameter: &str, part: Value) {
        self.used.insert(parameter.to_owned(), part);
    }
}

/// A configuration file, as it was read.
#[derive(Debug, Clone)]
pub struct ConfigFile {
    /// The parameter that names it.
    parameter: String,
    /// Where it lies.
    path: PathBuf,
    /// Its text.
    pub text: Arc<str>,
}

impl ConfigFile {
    /// A problem at a place in the file, in bytes of its text.
    pub fn problem(&self, part: Range<usize>, message: impl Into<String>) -> Problem {
        let file = FilePlace { path: self.path.clone(), text: Arc::clone(&self.text), part };
        Problem { file: Some(Box::new(file)), ..Problem::at(["with", self.parameter.as_str()], message) }
    }

    /// A problem at a line of the file, counted from 1, without the space around it.
    pub fn problem_in_line(&self, line: usize, message: impl Into<String>) -> Problem {
        let start: usize = self.text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
        let text = self.text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
        let start = start + text.len() - text.trim_start().len();
        self.problem(start..start + text.trim().len(), message)
    }

    /// A problem at the first place of a word that stands alone; at its parameter where the file has none.
    pub fn problem_at_word(&self, word: &str, message: impl Into<String>) -> Problem {
        let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '.'));
        let alone = |at: &usize| {
            let (before, after) = (&self.text[..*at], &self.text[at + word.len()..]);
            !is_part(before.chars().next_back()) && !is_part(after.chars().next().filter(|c| *c != '.'))
        };
        match self.text.match_indices(word).map(|(at, _)| at).find(alone) {
            Some(at) => self.problem(at..at + word.len(), message),
            None => Problem::at(["with", self.parameter.as_str()], message),
        }
    }

    /// The file as YAML.
    ///
    /// # Errors
    /// Its mistakes of syntax, and keys that are defined twice.
    pub fn yaml(&self) -> Result<yaml::Node, Vec<Problem>> {
        let file = Sources::default().add("", "");
        yaml::parse(file, &self.text).map_err(|mistakes| {
            let problem = |mistake: Diagnostic| {
                let part = mistake.span().map_or(0..0, |span| span.start..span.end);
                let problem = self.problem(part, mistake.message);
                mistake.help.into_iter().fold(problem, Problem::help)
            };
            mistakes.into_iter().map(problem).collect()
        })
    }
}

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

    #[test]
    fn a_near_name_is_suggested_and_a_far_one_is_not() {
        assert_eq!(nearest("volums", &["volumes", "labels"], "steps"), "did you mean `volumes`?");
        assert_eq!(nearest("x", &["volumes", "labels"], "steps"), "there are volumes, labels");
        assert_eq!(nearest("x", &[], "steps"), "there are no steps");
    }
}
