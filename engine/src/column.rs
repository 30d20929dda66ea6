//! Columns and their roles: what a column means, beyond its type.
//!
//! A role is written in the Arrow field's metadata under `role`, several separated by commas:
//! `id` (names the row's subject, carried along by row operators), `phi` (may hold patient text; never
//! printed by the engine), `file` (the digest of a side file in the store), `source` (the digest of a file
//! that stays where the user keeps it).

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};

/// The metadata key that holds a column's roles.
pub const ROLE: &str = "role";

/// A text column.
pub fn text(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true)
}

/// A text column that names the row's subject (`id`, `patient`, `scan`); never null.
pub fn id(name: &str) -> Field {
    with_roles(Field::new(name, DataType::Utf8, false), &["id", "phi"])
}

/// A text column that may hold patient text.
pub fn phi(name: &str) -> Field {
    with_roles(text(name), &["phi"])
}

/// A column of digests, as 64 hexadecimal digits, of side files in the store.
pub fn file(name: &str) -> Field {
    with_roles(Field::new(name, DataType::Utf8, true), &["file"])
}

/// A column of digests of files that stay where the user keeps them.
pub fn source(name: &str) -> Field {
    with_roles(Field::new(name, DataType::Utf8, true), &["source"])
}

/// The name of the column by which a row of the files port is several files, the slices of a volume.
pub const SLICES: &str = "slices";

/// A column of lists of files, each with its `path` and its `digest`; null where a row is one file.
pub fn slices(name: &str) -> Field {
    let file = Fields::from(vec![text("path"), text("digest")]);
    let list = DataType::List(Arc::new(Field::new_list_field(DataType::Struct(file), true)));
    with_roles(Field::new(name, list, true), &["phi"])
}

/// A column of 64-bit floating-point numbers.
pub fn number(name: &str) -> Field {
    Field::new(name, DataType::Float64, true)
}

/// A column of 64-bit whole numbers.
pub fn whole(name: &str) -> Field {
    Field::new(name, DataType::Int64, true)
}

/// The same field with these roles added to those that it has.
pub fn with_roles(field: Field, roles: &[&str]) -> Field {
    let mut all: Vec<String> = roles_of(&field).map(str::to_owned).collect();
    all.extend(roles.iter().filter(|r| !has_role(&field, r)).map(|r| (*r).to_owned()));
    let mut metadata: HashMap<String, String> = field.metadata().clone();
    metadata.insert(ROLE.to_owned(), all.join(","));
    field.with_metadata(metadata)
}

/// Whether the field has a role.
pub fn has_role(field: &Field, role: &str) -> bool {
    roles_of(field).any(|r| r == role)
}

/// The names of the columns that have a role, in the schema's order.
pub fn names_with_role(schema: &Schema, role: &str) -> Vec<String> {
    schema.fields().iter().filter(|f| has_role(f, role)).map(|f| f.name().clone()).collect()
}

/// A schema of these fields.
pub fn schema(fields: impl IntoIterator<Item = Field>) -> SchemaRef {
    SchemaRef::new(Schema::new(fields.into_iter().collect::<Vec<_>>()))
}

/// A column's type in the words of the documentation (`text`, `number`, `list of number`).
pub fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".into(),
        DataType::Boolean => "true or false".into(),
        t if t.is_integer() => "whole number".into(),
        t if t.is_floating() => "number".into(),
        DataType::List(f) | DataType::LargeList(f) => format!("list of {}", type_name(f.data_type())),
        DataType::Struct(fields) => {
            let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
            format!("({})", names.join(", "))
        }
        DataType::FixedSizeList(f, n) => format!("list of {n} {}", type_name(f.data_type())),
        other => other.to_string(),
    }
}

/// The roles of a column, in the order in which they were given.
pub fn roles(field: &Field) -> Vec<String> {
    roles_of(field).map(str::to_owned).collect()
}

/// The unit of a column's numbers, which its name tells (`spacing_mm`, `usd`); none where it has none.
pub fn unit(name: &str) -> Option<&'static str> {
    let last = name.rsplit('_').next().unwrap_or(name);
    Some(match last {
        "mm" => "mm",
        "hu" => "HU",
        "usd" => "USD",
        "seconds" => "s",
        "bytes" => "bytes",
        _ => return None,
    })
}

fn roles_of(field: &Field) -> impl Iterator<Item = &str> {
    field.metadata().get(ROLE).map(String::as_str).unwrap_or("").split(',').filter(|r| !r.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_add_up() {
        let field = with_roles(id("scan"), &["phi", "file"]);
        assert!(has_role(&field, "id") && has_role(&field, "phi") && has_role(&field, "file"));
        assert_eq!(field.metadata()[ROLE], "id,phi,file");
        assert_eq!(roles(&field), ["id", "phi", "file"]);
    }

    #[test]
    fn a_name_tells_the_unit() {
        assert_eq!(
            ["spacing_mm", "window_hu", "usd", "id"].map(unit),
            [Some("mm"), Some("HU"), Some("USD"), None]
        );
    }
}
