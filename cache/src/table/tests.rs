//! What stored tables promise: order, keys, equal bytes for equal tables.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Date32Array, DictionaryArray, DurationSecondArray, FixedSizeListArray,
    Float32Array, Float64Array, Int32Array, Int64Array, LargeStringArray, ListArray, NullArray, StringArray,
    StringViewArray, StructArray, TimestampMillisecondArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Float32Type, Int8Type, Int32Type, Schema};

use super::*;
use crate::digest::Secret;
use crate::store::BlobError;

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open_with_secret(folder.path(), Secret::from_bytes([1; 32])).unwrap();
    (folder, store)
}

fn table(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let fields: Vec<_> =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, array)| array).collect())
        .unwrap()
}

fn labels(ids: &[&str], values: &[i32]) -> RecordBatch {
    table(vec![
        ("id", Arc::new(StringArray::from(ids.to_vec()))),
        ("value", Arc::new(Int32Array::from(values.to_vec()))),
    ])
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// The same table with roles and descriptions on the field `name`.
fn with_role(batch: &RecordBatch, name: &str, role: &str) -> RecordBatch {
    let metadata: HashMap<String, String> =
        [("role", role), ("unit", "mm"), ("doc", "a column"), ("source", "header")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
    let fields: Vec<Field> = batch
        .schema_ref()
        .fields()
        .iter()
        .map(|field| match field.name() == name {
            true => field.as_ref().clone().with_metadata(metadata.clone()),
            false => field.as_ref().clone(),
        })
        .collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), batch.columns().to_vec()).unwrap()
}

#[test]
fn rows_are_sorted_by_key_and_order_is_no_value() {
    let (_folder, store) = store();
    let one = store.put_table(&labels(&["b", "a", "c"], &[2, 1, 3]), &names(&["id"])).unwrap();
    let two = store.put_table(&labels(&["c", "b", "a"], &[3, 2, 1]), &names(&["id"])).unwrap();
    assert_eq!(one, two);
    assert_eq!(one.rows, 3);
    assert_eq!(one.columns[0].data_type, "Utf8");
    assert_eq!(store.read_table(&one, None).unwrap(), labels(&["a", "b", "c"], &[1, 2, 3]));
    let only = store.read_table(&one, Some(&["value"])).unwrap();
    assert_eq!(only, labels(&["a", "b", "c"], &[1, 2, 3]).project(&[1]).unwrap());
    let swapped = store.read_table(&one, Some(&["value", "id"])).unwrap();
    assert_eq!(swapped, labels(&["a", "b", "c"], &[1, 2, 3]).project(&[1, 0]).unwrap());
    assert_eq!(store.read_table(&one, Some(&[])).unwrap().num_rows(), 3);
    let error = format!("{:#}", store.read_table(&one, Some(&["age"])).unwrap_err());
    assert!(error.ends_with("no column `age`, expected one of id, value"), "{error}");

    let changed = store.put_table(&labels(&["a", "b", "c"], &[1, 2, 4]), &names(&["id"])).unwrap();
    assert_eq!(changed.columns[0], one.columns[0], "a column that did not change has the digest it had");
    assert_ne!(changed.columns[1].digest, one.columns[1].digest);
}

#[test]
fn a_bad_key_is_an_error_without_cell_text() {
    let (_folder, store) = store();
    let error =
        |batch: &RecordBatch, keys: &[&str]| store.put_table(batch, &names(keys)).unwrap_err().to_string();
    let twice = labels(&["secret", "b", "secret"], &[1, 2, 1]);
    let said = error(&twice, &["id", "value"]);
    assert!(
        said.starts_with("1 rows repeat the key (id, value) of another row, expected each key once"),
        "{said}"
    );
    assert!(!said.contains("secret"));
    let null = table(vec![("id", Arc::new(StringArray::from(vec![Some("a"), None])))]);
    assert_eq!(error(&null, &["id"]), "key column `id` is null in 1 rows, expected a value in each");
    assert_eq!(error(&twice, &["scan"]), "no column `scan`, expected one of id, value");
    let zeros = table(vec![
        ("x", Arc::new(Float64Array::from(vec![-0.0, -0.0, 0.0, 0.0]))),
        ("y", Arc::new(Int32Array::from(vec![1, 2, 1, 3]))),
    ]);
    assert!(error(&zeros, &["x", "y"]).starts_with("1 rows repeat the key (x, y)"), "-0 is 0");
    let same_names =
        table(vec![("a", Arc::new(Int32Array::from(vec![1]))), ("a", Arc::new(Int32Array::from(vec![1])))]);
    assert_eq!(error(&same_names, &[]), "two columns are named `a`; rename one of them");
}

#[test]
fn a_table_without_keys_is_a_bag() {
    let (_folder, store) = store();
    let bag = |ids: Vec<Option<&str>>| {
        let record = store.put_table(&table(vec![("id", Arc::new(StringArray::from(ids)))]), &[]).unwrap();
        (store.read_table(&record, None).unwrap(), record)
    };
    let (rows, record) = bag(vec![Some("b"), None, Some("a"), Some("b")]);
    assert_eq!(
        rows,
        table(vec![("id", Arc::new(StringArray::from(vec![None, Some("a"), Some("b"), Some("b")])))])
    );
    assert_eq!(bag(vec![Some("b"), Some("b"), None, Some("a")]).1, record);
    assert_ne!(
        bag(vec![Some("b"), None, Some("a")]).1.columns,
        record.columns,
        "how often a row occurs counts"
    );
}

#[test]
fn every_type_comes_back_with_its_metadata_and_equal_tables_are_equal_bytes() {
    let (_folder, store) = store();
    let member_fields = vec![Field::new("z", DataType::Int32, true), Field::new("a", DataType::Utf8, true)];
    let member_columns: Vec<ArrayRef> =
        vec![Arc::new(Int32Array::from(vec![Some(1), None])), Arc::new(StringArray::from(vec!["x", "y"]))];
    let dictionary: DictionaryArray<Int8Type> = [Some("l"), None].into_iter().collect();
    let embedding =
        FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>([Some([Some(0.5), Some(1.5)]), None], 2);
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None]);
    let batch = table(vec![
        ("id", Arc::new(Int64Array::from(vec![1, 2]))),
        ("truth", Arc::new(BooleanArray::from(vec![Some(true), None]))),
        ("large", Arc::new(UInt64Array::from(vec![u64::MAX, 0]))),
        ("single", Arc::new(Float32Array::from(vec![0.1, f32::INFINITY]))),
        ("view", Arc::new(StringViewArray::from(vec![Some("a text that is too long to be inline"), None]))),
        ("large_text", Arc::new(LargeStringArray::from(vec!["", "é"]))),
        ("dictionary", Arc::new(dictionary)),
        ("instant", Arc::new(TimestampMillisecondArray::from(vec![1, -1]).with_timezone("Europe/Berlin"))),
        ("day", Arc::new(Date32Array::from(vec![1, 2]))),
        ("duration", Arc::new(DurationSecondArray::from(vec![1, 2]))),
        ("nothing", Arc::new(NullArray::new(2))),
        ("list", Arc::new(list)),
        ("embedding", Arc::new(embedding)),
        ("member", Arc::new(StructArray::new(member_fields.into(), member_columns, None))),
    ]);
    let record = store.put_table(&with_role(&batch, "single", "phi, measure"), &names(&["id"])).unwrap();
    let back = store.read_table(&record, None).unwrap();
    assert_eq!(back, with_role(&batch, "single", "phi, measure"));
    assert_eq!(back.schema_ref().field(3).metadata()["unit"], "mm");
    for _ in 0..10 {
        // Another map of the same metadata has another order within.
        let again = store.put_table(&with_role(&batch, "single", "phi, measure"), &names(&["id"])).unwrap();
        assert_eq!(again, record);
    }
    let empty = store.put_table(&batch.slice(0, 0), &names(&["id"])).unwrap();
    assert_eq!((empty.rows, empty.parts.len()), (0, 1));
    assert_eq!(store.read_table(&empty, None).unwrap(), batch.slice(0, 0));
    let json = serde_json::to_string(&record).unwrap();
    assert_eq!(serde_json::from_str::<TableRecord>(&json).unwrap(), record);
}

#[test]
fn a_changed_row_changes_one_part() {
    let (_folder, store) = store();
    let rows = 6_000;
    // About 8 KB a row, so that there are several parts of 16 MB.
    let body = "x".repeat(8000);
    let of = |changed: usize| {
        let ids: Vec<String> = (0..rows).map(|row| format!("{row:06}")).collect();
        let texts: Vec<String> =
            (0..rows).map(|row| if row == changed { "changed".into() } else { body.clone() }).collect();
        table(vec![("id", Arc::new(StringArray::from(ids))), ("text", Arc::new(StringArray::from(texts)))])
    };
    let before = store.put_table(&of(usize::MAX), &names(&["id"])).unwrap();
    let after = store.put_table(&of(2_500), &names(&["id"])).unwrap();
    assert!(before.parts.len() > 2, "{} parts", before.parts.len());
    assert_eq!(before.parts.len(), after.parts.len());
    let differing = before.parts.iter().zip(&after.parts).filter(|(one, two)| one != two).count();
    assert_eq!(differing, 1);
    assert_eq!(store.read_table(&after, None).unwrap(), of(2_500));
}

#[test]
fn side_files_are_collected_and_checked() {
    let (_folder, store) = store();
    let volume = store.put_bytes(b"voxels").unwrap();
    let of = |cells: Vec<Option<String>>, role: &str| {
        let ids: Int32Array = (0..cells.len() as i32).collect();
        let batch = table(vec![("id", Arc::new(ids)), ("volume", Arc::new(StringArray::from(cells)))]);
        store.put_table(&with_role(&batch, "volume", role), &names(&["id"]))
    };
    let named = || Some(volume.to_string());
    assert_eq!(of(vec![named(), None, named()], "phi,file").unwrap().files, [volume]);
    assert_eq!(of(vec![named()], "profile").unwrap().files, []);
    let error = format!("{:#}", of(vec![named(), Some("patient 7".into())], "file").unwrap_err());
    assert!(
        error.starts_with("column `volume` of role file, row 1: ") && !error.contains("patient"),
        "{error}"
    );
    let absent = of(vec![Some(Digest([3; 32]).to_string())], "file").unwrap_err();
    assert!(matches!(absent.downcast_ref(), Some(BlobError::Missing(_))), "{absent:#}");
    let numbers = with_role(&table(vec![("n", Arc::new(Int32Array::from(vec![1])))]), "n", "file");
    let error = store.put_table(&numbers, &[]).unwrap_err().to_string();
    assert_eq!(error, "column `n` of role file has type Int32, expected text");
}

#[test]
fn a_damaged_part_is_a_blob_error() {
    let (_folder, store) = store();
    let record = store.put_table(&labels(&["a"], &[1]), &names(&["id"])).unwrap();
    let path = store.path(&record.parts[0]).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[10] ^= 1;
    fs::write(&path, bytes).unwrap();
    let next = Store::open(store.root()).unwrap();
    let error = next.read_table(&record, None).unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(BlobError::Damaged(_))), "{error:#}");
    let error = next.read_table(&record, None).unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(BlobError::Missing(_))), "{error:#}");
}

#[test]
fn the_users_files_are_read_and_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("labels.parquet");
    let batch = with_role(&labels(&["a", "b"], &[1, 2]), "id", "phi");
    write_parquet_file(&path, &batch).unwrap();
    write_parquet_file(&path, &batch).unwrap();
    assert_eq!(read_parquet_file(&path).unwrap(), batch);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    fs::write(&path, b"id,value\n").unwrap();
    let error = read_parquet_file(&path).unwrap_err().to_string();
    assert_eq!(error, format!("cannot read {} as Parquet", path.display()));
    assert!(write_parquet_file(&folder.path().join("no/such/folder.parquet"), &batch).is_err());
}

#[test]
fn a_table_is_read_piece_by_piece() {
    let (_folder, store) = store();
    let rows = 20_000;
    let body = "x".repeat(16_000);
    let ids: Vec<String> = (0..rows).map(|row| format!("{row:06}")).collect();
    let text = Arc::new(StringArray::from_iter_values((0..rows).map(|_| &body)));
    let whole = table(vec![("id", Arc::new(StringArray::from(ids))), ("text", text)]);
    let record = store.put_table(&whole, &names(&["id"])).unwrap();
    let chunks: Vec<RecordBatch> = store.table_chunks(&record, &["id"]).map(Result::unwrap).collect();
    assert!(!record.is_one_chunk() && chunks.len() == record.parts.len().div_ceil(CHUNK_PARTS));
    assert_eq!(concat_batches(chunks[0].schema_ref(), &chunks).unwrap(), whole.project(&[0]).unwrap());

    fs::remove_file(store.path(&record.parts[CHUNK_PARTS]).unwrap()).unwrap();
    let next = Store::open(store.root()).unwrap();
    let mut chunks = next.table_chunks(&record, &["id"]);
    assert!(chunks.next().unwrap().is_ok());
    let error = chunks.next().unwrap().unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(BlobError::Missing(_))), "{error:#}");
    assert!(chunks.next().is_none());
}
