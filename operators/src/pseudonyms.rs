//! Pseudonyms: ids that say nothing of whom they name, and are equal wherever one secret makes them.

use std::collections::BTreeSet;

use argent_cache::Secret;
use argent_engine::operator::{ConfigFiles, nearest};
use argent_engine::{Io, Problem, column};
use arrow::datatypes::{DataType, Field};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::ids::IdReader;
use crate::label::llm::parameters;

/// The columns of ids that hold pseudonyms, and the secret that makes these.
///
/// A pseudonym is the first 16 bytes, as hexadecimal digits, of the BLAKE3 hash of the id's UTF-8 bytes, keyed with
/// BLAKE3's `derive_key("argent pseudonym", secret)`: whoever lacks the secret can neither read it nor try names.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Pseudonymise {
    /// The columns; the secret is that of the store, so that pseudonyms are equal within one store.
    Columns(Vec<String>),
    /// The columns, with a secret of your own, so that pseudonyms are equal in all stores that are given it.
    Keyed(Keyed),
}

/// Columns of ids, with a secret for them.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Keyed {
    /// The columns.
    pub columns: Vec<String>,
    /// The secret: 64 hexadecimal digits, such as `openssl rand -hex 32` writes, by the name of the environment variable
    /// that holds them.
    #[schemars(extend("x-not-in-key" = "the secret enters the key by a digest of it"))]
    pub key: parameters::Secret,
    #[serde(skip)]
    secret: Option<Secret>,
}

/// What a digest of ids is for; the name of the hash's domain.
const DOMAIN: &str = "argent pseudonym";

/// How many bytes of the hash a pseudonym has: of 10¹² ids, two are equal with a probability of 10⁻¹⁵.
const BYTES: usize = 16;

impl Pseudonymise {
    fn columns(&self) -> &[String] {
        match self {
            Pseudonymise::Columns(columns) | Pseudonymise::Keyed(Keyed { columns, .. }) => columns,
        }
    }

    /// Where a column's name stands in the step.
    fn place(&self, number: usize) -> Vec<String> {
        let keys: &[&str] = match self {
            Pseudonymise::Columns(_) => &["with", "pseudonymise"],
            Pseudonymise::Keyed(_) => &["with", "pseudonymise", "columns"],
        };
        keys.iter().map(|key| (*key).to_owned()).chain([number.to_string()]).collect()
    }
}

/// Reads the secret that a parameter names. A digest of it enters the key: the secret is 32 random bytes, so that the
/// digest cannot be told by guessing.
///
/// # Errors
/// A problem when the variable is not set, or does not hold such a secret.
pub(crate) fn load(
    files: &mut ConfigFiles,
    pseudonymise: Option<&mut Pseudonymise>,
) -> Result<(), Vec<Problem>> {
    let Some(Pseudonymise::Keyed(Keyed { key, secret, .. })) = pseudonymise else { return Ok(()) };
    let problem = |message: String| {
        let problem = Problem::at(["with", "pseudonymise", "key", "env"], message);
        vec![problem.help(format!(
            "make one, keep it safe and give it to argent: {}=$(openssl rand -hex 32)",
            key.env
        ))]
    };
    let value = std::env::var(&key.env)
        .map_err(|_| problem(format!("the environment variable {} is not set", key.env)))?;
    let bytes = blake3::Hash::from_hex(value.trim()).map_err(|_| {
        problem(format!(
            "the environment variable {} holds {} characters, expected 64 hexadecimal digits",
            key.env,
            value.trim().chars().count()
        ))
    })?;
    let read = Secret::from_bytes(*bytes.as_bytes());
    let digest = read.digest("argent pseudonym secret", b"");
    files.uses_variable("pseudonymise", &key.env, json!({ "secret": digest }));
    *secret = Some(read);
    Ok(())
}

/// The fields with those that hold pseudonyms in their place, which name a subject and hold no patient's text.
///
/// # Errors
/// A problem for each column that is not made, or is no id.
pub(crate) fn fields(
    fields: Vec<Field>,
    ids: &IdReader,
    pseudonymise: Option<&Pseudonymise>,
) -> Result<Vec<Field>, Vec<Problem>> {
    let Some(pseudonymise) = pseudonymise else { return Ok(fields) };
    let is_id = |field: &&Field| {
        column::has_role(field, "id")
            || (column::has_role(field, "phi") && !column::has_role(field, "section"))
    };
    let names: Vec<&str> = fields.iter().filter(is_id).map(|field| field.name().as_str()).collect();
    let absent =
        pseudonymise.columns().iter().enumerate().filter(|(_, name)| !names.contains(&name.as_str()));
    let problems: Vec<Problem> = absent
        .map(|(number, name)| {
            let message = match fields.iter().any(|field| field.name() == name) {
                true => format!("the column `{name}` holds no ids"),
                false => format!("there is no column `{name}`"),
            };
            Problem::at(pseudonymise.place(number), message).help(nearest(name, &names, "columns of ids"))
        })
        .collect();
    if !problems.is_empty() {
        return Err(problems);
    }
    let replaced = replaced(pseudonymise, ids);
    let field = |field: Field| match replaced.contains(field.name()) {
        true => {
            let bare = Field::new(field.name(), DataType::Utf8, field.is_nullable());
            column::with_roles(bare, &["id"])
        }
        false => field,
    };
    Ok(fields.into_iter().map(field).collect())
}

/// The columns that hold pseudonyms: those that are named, and those out of which a named one could be read.
fn replaced(pseudonymise: &Pseudonymise, ids: &IdReader) -> BTreeSet<String> {
    let named = pseudonymise.columns();
    let holders = named.iter().flat_map(|name| ids.holders(name));
    named.iter().cloned().chain(holders).collect()
}

/// Makes the pseudonyms of a table's rows.
pub(crate) struct Pseudonyms {
    secret: Secret,
    /// The places of the columns that hold pseudonyms.
    places: Vec<usize>,
}

impl Pseudonyms {
    /// Those of the main table of a step, whose parameter this is.
    ///
    /// # Errors
    /// When the secret was not read.
    pub(crate) fn new(
        io: &Io,
        ids: &IdReader,
        pseudonymise: Option<&Pseudonymise>,
    ) -> anyhow::Result<Pseudonyms> {
        let replaced = pseudonymise.map(|pseudonymise| replaced(pseudonymise, ids)).unwrap_or_default();
        let secret = match pseudonymise {
            Some(Pseudonymise::Keyed(Keyed { secret, key, .. })) => secret
                .clone()
                .ok_or_else(|| anyhow::anyhow!("the environment variable {} was not read", key.env))?,
            _ => io.secret().clone(),
        };
        let schema = io.schema("")?;
        let columns = schema.fields().iter().enumerate();
        let places = columns.filter(|(_, field)| replaced.contains(field.name())).map(|(place, _)| place);
        Ok(Pseudonyms { places: places.collect(), secret })
    }

    /// The place and the pseudonym of each cell that has one, in a row whose first cells these are. Blanks around an id
    /// do not count, and a cell without an id has no pseudonym.
    pub(crate) fn of_row(&self, cells: &[Option<&str>]) -> Vec<(usize, String)> {
        let of = |place: &usize| {
            let id = cells.get(*place).copied().flatten().map(str::trim).filter(|id| !id.is_empty())?;
            Some((*place, self.of(id)))
        };
        self.places.iter().filter_map(of).collect()
    }

    /// Puts pseudonyms in the place of ids that have been read.
    pub(crate) fn put(&self, ids: &mut [String]) {
        let cells: Vec<Option<&str>> = ids.iter().map(|id| Some(id.as_str())).collect();
        for (place, pseudonym) in self.of_row(&cells) {
            ids[place] = pseudonym;
        }
    }

    fn of(&self, id: &str) -> String {
        self.secret.digest(DOMAIN, id.as_bytes()).to_string()[..2 * BYTES].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A study that goes on for years must find its patients again. The values are those of the Python package blake3:
    /// `blake3(id, key=blake3(secret, derive_key_context="argent pseudonym").digest()).hexdigest()[:32]`.
    #[test]
    fn pseudonyms_do_not_move() {
        let of = |secret: u8, id: &str| {
            Pseudonyms { secret: Secret::from_bytes([secret; 32]), places: vec![0] }.of(id)
        };
        assert_eq!(of(7, "mueller-1"), "f7371c0283f5793b1e51598f9a31a92f");
        assert_ne!(of(7, "mueller-1"), of(7, "mueller-2"));
        assert_ne!(of(7, "mueller-1"), of(8, "mueller-1"));
    }

    #[test]
    fn a_row_without_an_id_has_no_pseudonym() {
        let pseudonyms = Pseudonyms { secret: Secret::from_bytes([7; 32]), places: vec![0, 2] };
        assert_eq!(pseudonyms.of_row(&[Some(" "), Some("x"), None]), []);
        assert_eq!(pseudonyms.of_row(&[Some(" a ")]), pseudonyms.of_row(&[Some("a"), Some("x")]));
    }
}
