//! What an operator reads: its ports, the columns that they need, and the tables that fill them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use arrow::datatypes::{DataType, Field, SchemaRef};

use super::problem::{Problem, nearest};
use crate::column;

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

    /// The files port: a table whose rows name side files, or the `slices` that make one volume. Left out, files are
    /// found on disk.
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

/// The problem of a step that fills none, or several, of ports of which it reads one.
pub fn one_of(ports: &[&str], inputs: &Inputs) -> Problem {
    let names = |names: Vec<&str>, word: &str| {
        names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(word)
    };
    let filled: Vec<&str> = ports.iter().copied().filter(|port| inputs.ports.contains_key(*port)).collect();
    let found = if filled.is_empty() { "neither".to_owned() } else { names(filled, " and ") };
    Problem::at(["from"], format!("it reads {}, found {found}", names(ports.to_vec(), " or ")))
        .help("fill one of them")
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
