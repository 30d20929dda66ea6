//! What DataFusion says of a query, in the words of its writer and at its place in the query.

use std::ops::Range;

use argent_engine::column;
use argent_engine::operator::nearest;
use argent_engine::shape::closest;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;

use crate::sql::session::{message, placing_session, table_name};

/// Something wrong with a query.
pub(crate) struct Mistake {
    /// What is there and what was expected.
    pub(crate) message: String,
    /// Where, in bytes of the query; none where DataFusion does not tell.
    pub(crate) part: Option<Range<usize>>,
    /// What to do.
    pub(crate) help: Option<String>,
}

impl Mistake {
    /// The mistake and the name that is probably meant, for places that show one text and list the names.
    pub(crate) fn sentence(self) -> String {
        let near = self.help.iter().filter(|help| help.starts_with("did you mean"));
        near.fold(self.message, |message, help| format!("{message}; {help}"))
    }

    fn new(message: impl Into<String>, part: Option<Range<usize>>) -> Mistake {
        Mistake { message: message.into(), part, help: None }
    }

    /// A mistake at the first place where a name stands alone.
    pub(crate) fn at_word(query: &str, name: &str, message: impl Into<String>) -> Mistake {
        Mistake::new(message, word(query, name))
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Mistake {
        self.help = Some(help.into());
        self
    }
}

/// What is wrong with a query over these tables. `error` knows the place if it was planned with places collected.
pub(crate) fn mistake(error: &DataFusionError, query: &str, tables: &[(String, SchemaRef)]) -> Mistake {
    let place = error.diagnostic().and_then(|diagnostic| diagnostic.span).map(|span| {
        let start = offset(query, span.start.line, span.start.column);
        start..offset(query, span.end.line, span.end.column).max(start)
    });
    match error.find_root() {
        DataFusionError::SQL(..) => syntax(&error.strip_backtrace(), query),
        DataFusionError::SchemaError(kind, _) => match kind.as_ref() {
            SchemaError::FieldNotFound { field, .. } => {
                let relation = field.relation.as_ref().map(|relation| relation.table());
                unknown_column(&field.name, relation, place, query, tables)
            }
            SchemaError::AmbiguousReference { field } => {
                let part = place.or_else(|| word(query, &field.name));
                Mistake::new(format!("several tables have a column `{}`", field.name), part)
                    .help(format!("say which one: `table.{}`", field.name))
            }
            _ => Mistake::new(message(error), place),
        },
        _ => planned(error, place, query, tables),
    }
}

/// A query that does not read.
fn syntax(text: &str, query: &str) -> Mistake {
    let (said, place) = text.split_once(" at Line: ").unwrap_or((text, ""));
    let numbers: Vec<u64> = place
        .split(|c: char| !c.is_ascii_digit())
        .filter(|digits| !digits.is_empty())
        .filter_map(|digits| digits.parse().ok())
        .collect();
    let part = match numbers[..] {
        [line, column, ..] => {
            let start = offset(query, line, column);
            let rest = &query[start..];
            let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let one = rest.chars().next().map_or(0, char::len_utf8);
            Some(start..start + length.max(one))
        }
        _ => None,
    };
    let said = said.rsplit("ParserError(\"").next().unwrap_or(said).trim_start_matches("SQL error: ");
    let said = said.strip_suffix("\")").unwrap_or(said).replace("Expected: ", "expected ");
    let said = match said.split_once("found: ") {
        Some((expected, found)) => format!("{expected}found `{found}`"),
        None => said,
    };
    Mistake::new(format!("the query does not read: {said}"), part.filter(|part| !part.is_empty()))
}

/// A column that no table has, or not the one that is named.
fn unknown_column(
    name: &str,
    relation: Option<&str>,
    place: Option<Range<usize>>,
    query: &str,
    tables: &[(String, SchemaRef)],
) -> Mistake {
    // A name that stands somewhere else than before a dot is one that the query gives to a table.
    let is_alias = |relation: &str| {
        let ends = |at: usize| !query[at + relation.len()..].starts_with('.');
        query
            .match_indices(relation)
            .any(|(at, _)| ends(at) && word(&query[at..], relation) == Some(0..relation.len()))
    };
    let is_table = |relation: &str| tables.iter().any(|table| table.0 == relation);
    let aliased = relation.is_some_and(|relation| !is_table(relation) && is_alias(relation));
    let meant = |table: &&(String, SchemaRef)| relation.is_none_or(|relation| aliased || table.0 == relation);
    let names: Vec<&str> = tables
        .iter()
        .filter(meant)
        .flat_map(|(_, schema)| schema.fields().iter().map(|field| field.name().as_str()))
        .collect();
    let message = match relation {
        Some(relation) if names.is_empty() => {
            format!("there is no table `{relation}`, whose `{name}` is asked for")
        }
        Some(relation) => format!("the table `{relation}` has no column `{name}`"),
        None => format!("there is no column `{name}`"),
    };
    let help = match relation.filter(|_| names.is_empty()) {
        Some(relation) => nearest(relation, &table_names(tables), "tables"),
        None if names.iter().any(|column| column.to_lowercase() == name.to_lowercase()) => {
            let exact = names.iter().find(|column| column.to_lowercase() == name.to_lowercase());
            let exact = exact.copied().unwrap_or_default();
            format!("write \"{exact}\", in quotes: upper and lower case are told apart")
        }
        None => nearest(name, &names, "columns"),
    };
    Mistake::new(message, place.or_else(|| word(query, name))).help(help)
}

/// What else planning finds wrong.
fn planned(
    error: &DataFusionError,
    place: Option<Range<usize>>,
    query: &str,
    tables: &[(String, SchemaRef)],
) -> Mistake {
    let text = message(error);
    let quoted = |from: &str| from.split('\'').nth(1).map(str::to_owned);
    if let Some(name) = quoted(&text).filter(|_| text.contains("table '") && text.ends_with("not found")) {
        let name = name.rsplit('.').next().unwrap_or_default().to_owned();
        let help = match tables {
            [] => "a step's tables are those under `from`".to_owned(),
            _ => nearest(&name, &table_names(tables), "tables"),
        };
        let part = place.or_else(|| word(query, &name));
        return Mistake::new(format!("there is no table `{name}`"), part).help(help);
    }
    if let Some(name) = quoted(&text).filter(|_| text.contains("Invalid function '")) {
        let part = place.or_else(|| word(query, &name));
        let mistake = Mistake::new(format!("there is no function `{name}`"), part);
        return match near_function(&name) {
            Some(near) => mistake.help(format!("did you mean `{near}`?")),
            None => mistake,
        };
    }
    if text.contains("must appear in the GROUP BY clause") {
        let column =
            text.split("column \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
        let bare = column.rsplit('.').next().unwrap_or_default();
        let part = place.or_else(|| word(query, bare));
        return Mistake::new(format!("`{column}` is neither grouped by nor aggregated"), part)
            .help(format!("add it to `group by`, or take one of its values, as in `max({column})`"));
    }
    let operation = ["Cannot coerce arithmetic expression ", "Cannot infer common argument type for "];
    if let Some(rest) = operation.iter().find_map(|head| text.split(head).nth(1)) {
        let rest = rest.split_once("operation ").map_or(rest, |(_, rest)| rest);
        let types = in_words(rest.trim_end_matches(" to valid types"));
        let operator = rest.split(' ').nth(1).unwrap_or_default();
        let alone = query.matches(operator).count() == 1 && !operator.is_empty();
        let at_operator = || query.find(operator).map(|at| at..at + operator.len()).filter(|_| alone);
        return Mistake::new(format!("the types do not go together: {types}"), place.or_else(at_operator))
            .help("cast one of them, as in `cast(x as double)`");
    }
    if text.contains("function") && text.contains("argument") {
        let name = quoted(&text).unwrap_or_default();
        return Mistake::new(in_words(&text), place.or_else(|| word(query, &name)));
    }
    Mistake::new(in_words(&text), place)
}

fn table_names(tables: &[(String, SchemaRef)]) -> Vec<&str> {
    tables.iter().map(|(name, _)| name.as_str()).collect()
}

/// The function that is probably meant.
fn near_function(name: &str) -> Option<String> {
    let session = placing_session();
    let state = session.state();
    let names = state.scalar_functions().keys().chain(state.aggregate_functions().keys());
    closest(name, names.chain(state.window_functions().keys()).map(String::as_str)).map(str::to_owned)
}

/// Arrow's names of types in the words of the documentation.
fn in_words(text: &str) -> String {
    let types = [DataType::Utf8, DataType::Int64, DataType::Float64, DataType::Boolean];
    types.iter().fold(text.to_owned(), |text, data_type| {
        text.replace(&data_type.to_string(), &column::type_name(data_type))
    })
}

/// The first place where a name stands alone.
fn word(query: &str, name: &str) -> Option<Range<usize>> {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let lower = query.to_ascii_lowercase();
    let name = name.to_ascii_lowercase();
    let places = lower.match_indices(&name).map(|(at, _)| at..at + name.len());
    let alone = |part: &Range<usize>| {
        let (before, after) = (&lower[..part.start], &lower[part.end..]);
        !is_part(before.chars().next_back()) && !is_part(after.chars().next())
    };
    places.into_iter().find(alone).filter(|part| !part.is_empty())
}

/// The byte at a line and a column, both counted from 1, the column in characters.
fn offset(query: &str, line: u64, column: u64) -> usize {
    let lines = usize::try_from(line.saturating_sub(1)).unwrap_or(usize::MAX);
    let start: usize = query.split_inclusive('\n').take(lines).map(str::len).sum();
    let characters = usize::try_from(column.saturating_sub(1)).unwrap_or(usize::MAX);
    let line = &query[start..];
    start + line.char_indices().nth(characters).map_or(line.len(), |(at, _)| at)
}

/// The name that a query knows a step's table by, with its columns.
pub(crate) fn table(name: &str, schema: &SchemaRef) -> (String, SchemaRef) {
    (table_name(name), schema.clone())
}
