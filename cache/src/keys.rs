//! Digests of rows, columns and recipes: what the row and step keys are made of.

use anyhow::{Context, Result, ensure};
use arrow::array::{Array, ArrayRef};
use arrow::datatypes::DataType;
use rayon::prelude::*;
use serde_json::Value;

use crate::digest::{Digest, Secret};
use crate::encoding::{Encoder, encode_json, encode_json_object};

/// Rows that one task hashes; enough to make its start cheap, few enough to share among cores.
const CHUNK_ROWS: usize = 1024;

/// Cells are gathered to this many bytes before they are hashed: BLAKE3 is at its best from 16 KiB.
const HASH_PIECE_BYTES: usize = 64 << 10;

/// The row keys of `rows` rows: the keyed digest of `op` (the digest of everything but the data that can
/// change an output row) and the row's cells in the columns that the operator reads.
///
/// Rows with equal values have equal keys. It is an error if a column has another number of rows, or a type
/// that has no encoding.
pub fn row_keys(secret: &Secret, op: &Digest, columns: &[ArrayRef], rows: usize) -> Result<Vec<Digest>> {
    let encoders = encoders_of(columns, rows)?;
    let mut start = secret.hasher("argent row key v1");
    start.update(&op.0);
    let mut keys = vec![Digest([0; 32]); rows];
    keys.par_chunks_mut(CHUNK_ROWS).enumerate().for_each(|(chunk, keys)| {
        let mut cells = Vec::new();
        for (row, key) in (chunk * CHUNK_ROWS..).zip(keys) {
            cells.clear();
            encoders.iter().for_each(|encoder| encoder.encode(row, &mut cells));
            *key = Digest::from(start.clone().update(&cells).finalize());
        }
    });
    Ok(keys)
}

/// The memo key of a row's lasting failure. It is not the row's own key, so that an answer found on a later
/// try can take its place.
pub fn row_error_key(secret: &Secret, key: &Digest) -> Digest {
    secret.digest("argent row error", &key.0)
}

/// The keyed digest of a column: of its type's name and the sequence of its cells.
///
/// The type is part of it because a whole-table operator can see it (SQL divides integers and
/// floating-point numbers differently). Dictionaries, views and large types are the type they stand for.
/// It is an error if the type has no encoding.
pub fn column_digest(secret: &Secret, column: &dyn Array) -> Result<Digest> {
    let mut hasher = ColumnHasher::new(secret, column.data_type());
    hasher.update(column)?;
    Ok(hasher.finish())
}

/// Makes a [`column_digest`] of cells that come piece by piece.
pub struct ColumnHasher {
    hasher: blake3::Hasher,
    piece: Vec<u8>,
}

impl ColumnHasher {
    /// The digest of a column of this type, of which no cell has come yet.
    pub fn new(secret: &Secret, data_type: &DataType) -> ColumnHasher {
        let mut piece = Vec::with_capacity(HASH_PIECE_BYTES);
        encode_json(&Value::String(logical_type(data_type)), &mut piece);
        ColumnHasher { hasher: secret.hasher("argent column v1"), piece }
    }

    /// Adds cells.
    ///
    /// It is an error if their type has no encoding.
    pub fn update(&mut self, cells: &dyn Array) -> Result<()> {
        let encoder = Encoder::new(cells)?;
        for row in 0..cells.len() {
            encoder.encode(row, &mut self.piece);
            if self.piece.len() >= HASH_PIECE_BYTES {
                self.hasher.update(&self.piece);
                self.piece.clear();
            }
        }
        Ok(())
    }

    /// The digest of all cells that came.
    pub fn finish(mut self) -> Digest {
        self.hasher.update(&self.piece);
        Digest::from(self.hasher.finalize())
    }
}

/// The keyed digest of a JSON value in `domain`; the order of an object's names does not matter.
pub fn json_digest(secret: &Secret, domain: &str, value: &Value) -> Digest {
    let mut bytes = Vec::new();
    encode_json(value, &mut bytes);
    secret.digest(domain, &bytes)
}

/// The digest that [`json_digest`] gives of an object with these entries and one more, whose value was encoded before by
/// [`encode_json`]: a large value that many objects have is encoded once.
pub fn json_object_digest(
    secret: &Secret,
    domain: &str,
    entries: &serde_json::Map<String, Value>,
    encoded: (&str, &[u8]),
) -> Digest {
    let mut bytes = Vec::new();
    encode_json_object(entries, encoded, &mut bytes);
    secret.digest(domain, &bytes)
}

fn encoders_of(columns: &[ArrayRef], rows: usize) -> Result<Vec<Encoder<'_>>> {
    columns
        .iter()
        .enumerate()
        .map(|(position, column)| {
            ensure!(column.len() == rows, "column {position} has {} rows, expected {rows}", column.len());
            Encoder::new(column).with_context(|| format!("column {position}"))
        })
        .collect()
}

/// The name of the type that an operator sees, however Arrow lays it out.
fn logical_type(data_type: &DataType) -> String {
    use DataType as T;
    match data_type {
        T::Dictionary(_, value) => logical_type(value),
        T::LargeUtf8 | T::Utf8View => T::Utf8.to_string(),
        T::LargeBinary => T::Binary.to_string(),
        T::List(item) | T::LargeList(item) => format!("List({})", logical_type(item.data_type())),
        T::FixedSizeList(item, length) => format!("List({}; {length})", logical_type(item.data_type())),
        T::Struct(fields) => {
            let mut members: Vec<_> = fields
                .iter()
                .map(|field| format!("{:?}: {}", field.name(), logical_type(field.data_type())))
                .collect();
            members.sort();
            format!("Struct({})", members.join(", "))
        }
        plain => plain.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int32Array, Int64Array, StringArray};
    use arrow::compute::cast;
    use serde_json::json;

    use super::*;

    fn secret() -> Secret {
        Secret::from_bytes([1; 32])
    }

    fn op() -> Digest {
        Digest([2; 32])
    }

    // The digests were made with the Python package blake3 1.0 (`blake3(data, key=…)`, the key from
    // `derive_key_context`) over bytes made as in encoding/tests.rs.
    #[test]
    fn digests_are_those_of_the_reference_implementation() {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![Some("chest"), None])),
            Arc::new(Int64Array::from(vec![3, 0])),
        ];
        let keys = row_keys(&secret(), &op(), &columns, 2).unwrap();
        assert_eq!(keys[0].to_string(), "95b2066ddd1f80aa94a69cde82d9234d0bb100e6409babaaf435f3bc101e0a9f");
        assert_eq!(keys[1].to_string(), "93a92c8a17bf936645c9c9de6739a63cea343a07b9462faf98efee257498e030");
        let column = Int64Array::from(vec![Some(3), None, Some(-1)]);
        assert_eq!(
            column_digest(&secret(), &column).unwrap().to_string(),
            "b66461b93b3c9c6164fe3c287a08f1686a48feb915a06b3eb15a855a41d5bf39"
        );
        assert_eq!(
            json_digest(&secret(), "argent recipe v1", &json!({"b": 1.0, "a": [1.5, "x"]})).to_string(),
            "e179cdbe41ae6277616389379f3c31f87565e78539398e2cd21cd35e2bcabf7a"
        );
    }

    #[test]
    fn an_object_with_a_part_that_was_encoded_before_has_the_same_digest() {
        let whole = json!({"b": 1.5, "m": {"y": [1, null], "x": "text"}, "z": "last", "a": true});
        for name in ["a", "b", "m", "z"] {
            let mut rest = whole.as_object().unwrap().clone();
            let mut encoded = Vec::new();
            encode_json(&rest.remove(name).unwrap(), &mut encoded);
            let digest = json_object_digest(&secret(), "domain", &rest, (name, &encoded));
            assert_eq!(digest, json_digest(&secret(), "domain", &whole), "{name}");
        }
    }

    #[test]
    fn equal_rows_have_equal_keys_wherever_they_are() {
        let numbers: Vec<i32> = (0..5000).map(|row| row % 1000).collect();
        let columns: Vec<ArrayRef> = vec![Arc::new(Int32Array::from(numbers.clone()))];
        let keys = row_keys(&secret(), &op(), &columns, numbers.len()).unwrap();
        for (row, number) in numbers.iter().enumerate() {
            assert_eq!(keys[row], keys[*number as usize]);
        }
        let distinct: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), 1000);
        assert_ne!(row_keys(&secret(), &Digest([3; 32]), &columns, 5000).unwrap()[0], keys[0]);
        assert!(row_keys(&secret(), &op(), &columns, 4999).is_err());
    }

    #[test]
    fn a_column_is_its_type_and_values_and_not_its_layout() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "a"]));
        let digest = |column: &ArrayRef| column_digest(&secret(), column).unwrap();
        let dictionary = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
        for layout in [DataType::LargeUtf8, DataType::Utf8View, dictionary] {
            assert_eq!(digest(&cast(&texts, &layout).unwrap()), digest(&texts), "{layout}");
        }
        let narrow: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
        let wide: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let nothing: ArrayRef = Arc::new(Int32Array::from(vec![None, None]));
        let no_text: ArrayRef = Arc::new(StringArray::from(vec![None::<&str>, None]));
        assert_ne!(digest(&narrow), digest(&wide));
        assert_ne!(digest(&nothing), digest(&no_text));
        assert_ne!(digest(&narrow), digest(&narrow.slice(0, 1)));
        let zeros: [ArrayRef; 2] = [
            Arc::new(Float64Array::from(vec![0.0, f64::NAN])),
            Arc::new(Float64Array::from(vec![-0.0, -f64::NAN])),
        ];
        assert_eq!(digest(&zeros[0]), digest(&zeros[1]));
    }

    #[test]
    fn a_long_column_is_hashed_in_pieces_as_in_one() {
        let texts: Vec<String> = (0..20_000).map(|row| format!("row {row}")).collect();
        let column = StringArray::from(texts.clone());
        let mut bytes = Vec::new();
        encode_json(&json!("Utf8"), &mut bytes);
        texts.iter().for_each(|text| encode_json(&json!(text), &mut bytes));
        assert!(bytes.len() > 3 * HASH_PIECE_BYTES);
        assert_eq!(column_digest(&secret(), &column).unwrap(), secret().digest("argent column v1", &bytes));
    }
}
