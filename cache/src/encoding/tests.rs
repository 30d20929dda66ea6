//! What the encoding promises: goldens of an independent encoder, and properties.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, DictionaryArray, DurationSecondArray,
    FixedSizeBinaryArray, FixedSizeListArray, Float32Array, Float64Array, Int8Array, Int16Array, Int32Array,
    Int64Array, LargeListArray, LargeStringArray, ListArray, NullArray, RecordBatch, StringArray,
    StringViewArray, StructArray, Time64MicrosecondArray, TimestampMillisecondArray, UInt64Array,
};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Field, Float32Type, Int16Type, Int32Type, Schema, SchemaRef, TimeUnit, UInt64Type,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

// The expected bytes were made by a program of 40 lines of Python (struct.pack for numbers, int.to_bytes with
// the fewest bytes that pass) written from the specification in encoding.rs alone.

#[track_caller]
fn assert_json(value: Value, expected: &str) {
    let mut out = Vec::new();
    encode_json(&value, &mut out);
    assert_eq!(hex(&out), expected, "{value}");
}

#[track_caller]
fn assert_cell(array: &dyn Array, expected: &str) {
    let mut out = Vec::new();
    encode_cell(array, 0, &mut out).unwrap();
    assert_eq!(hex(&out), expected, "{:?}", array.data_type());
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn json_has_the_specified_bytes() {
    assert_json(json!(null), "0000");
    assert_json(json!(true), "010101");
    assert_json(json!(0), "0200");
    assert_json(json!(1), "020101");
    assert_json(json!(-1), "0201ff");
    assert_json(json!(127), "02017f");
    assert_json(json!(128), "02028000");
    assert_json(json!(-128), "020180");
    assert_json(json!(-129), "02027fff");
    assert_json(json!(9_223_372_036_854_775_808_u64), "0209000000000000008000");
    assert_json(json!(u64::MAX), "0209ffffffffffffffff00");
    assert_json(json!(1.0), "020101");
    assert_json(json!(-0.0), "0200");
    assert_json(json!(-0.5), "0308000000000000e0bf");
    assert_json(json!(1e300), "03089c7500883ce4377e");
    assert_json(json!(""), "0400");
    assert_json(json!("é"), "0402c3a9");
    assert_json(json!([]), "0700");
    assert_json(json!([1, "a", null]), "07080201010401610000");
    assert_json(json!({}), "0900");
    let nested = "091304016109080401630703010101040162020101";
    assert_json(json!({"b": 1, "a": {"c": [true]}}), nested);
    assert_json(json!({"a": {"c": [true]}, "b": 1}), nested);
    assert_json(json!("x".repeat(200)), &format!("04c801{}", "78".repeat(200)));
}

#[test]
fn cells_have_the_specified_bytes() {
    assert_cell(&Int8Array::from(vec![-1]), "0201ff");
    assert_cell(&UInt64Array::from(vec![u64::MAX]), "0209ffffffffffffffff00");
    assert_cell(&Float32Array::from(vec![0.1]), "0308000000a09999b93f");
    assert_cell(&Float64Array::from(vec![-0.0]), "03080000000000000000");
    assert_cell(&Float64Array::from(vec![-f64::NAN]), "0308000000000000f87f");
    assert_cell(&StringArray::from(vec!["é"]), "0402c3a9");
    assert_cell(&StringArray::from(vec![None::<&str>]), "0000");
    assert_cell(&BinaryArray::from(vec![&[0u8, 255][..]]), "050200ff");
    assert_cell(&FixedSizeBinaryArray::try_from_iter([[0u8, 255]].iter()).unwrap(), "050200ff");
    assert_cell(&NullArray::new(1), "0000");
    let instant = TimestampMillisecondArray::from(vec![1000]).with_timezone("UTC");
    assert_cell(&instant, "060c01e803000000000000555443");
    assert_cell(&Date32Array::from(vec![1]), "06090c0100000000000000");
    assert_cell(&Time64MicrosecondArray::from(vec![5]), "0609060500000000000000");
    assert_cell(&DurationSecondArray::from(vec![-1]), "060908ffffffffffffffff");
    let packed = ListArray::from_iter_primitive::<Int16Type, _, _>([Some([Some(1), Some(-2)])]);
    assert_cell(&packed, "0805010100feff");
    let floats = [Some([Some(-0.0), Some(-f32::NAN), Some(1.5)])];
    assert_cell(
        &ListArray::from_iter_primitive::<Float32Type, _, _>(floats),
        "080d08000000000000c07f0000c03f",
    );
    let with_null = ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1), None])]);
    assert_cell(&with_null, "07050201010000");
    let fields = vec![Field::new("b", DataType::Utf8, true), Field::new("a", DataType::Int64, true)];
    let columns: Vec<ArrayRef> =
        vec![Arc::new(StringArray::from(vec!["z"])), Arc::new(Int64Array::from(vec![7]))];
    assert_cell(&StructArray::new(fields.into(), columns, None), "090c04016102010704016204017a");
}

#[test]
fn layout_does_not_matter() {
    let plain: ArrayRef = Arc::new(StringArray::from(vec![Some("left"), None, Some("right"), Some("left")]));
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), Some(2)]), None]);
    let lists: ArrayRef = Arc::new(lists);
    let item = Arc::new(Field::new("element", DataType::Int32, true));
    let dictionary = DataType::Dictionary(Box::new(DataType::UInt16), Box::new(DataType::Utf8));
    for (array, other) in [
        (&plain, DataType::LargeUtf8),
        (&plain, DataType::Utf8View),
        (&plain, dictionary),
        (&lists, DataType::LargeList(item)),
    ] {
        let relaid = cast(array, &other).unwrap();
        for row in 0..array.len() {
            let (mut one, mut two) = (Vec::new(), Vec::new());
            encode_cell(array, row, &mut one).unwrap();
            encode_cell(&relaid, row, &mut two).unwrap();
            assert_eq!(one, two, "{other}, row {row}");
        }
        // A slice is its rows and not those of the array that it was cut from.
        let (mut one, mut two) = (Vec::new(), Vec::new());
        encode_cell(&array.slice(1, 1), 0, &mut one).unwrap();
        encode_cell(array, 1, &mut two).unwrap();
        assert_eq!(one, two);
    }
}

#[test]
fn a_type_without_encoding_is_named() {
    let decimals = cast(&Int32Array::from(vec![1]), &DataType::Decimal128(10, 2)).unwrap();
    let error = encode_cell(&decimals, 0, &mut Vec::new()).unwrap_err();
    assert!(error.to_string().starts_with("a column of type Decimal128(10, 2) cannot be stored"), "{error}");
    assert!(encode_cell(&Int32Array::from(vec![1]), 1, &mut Vec::new()).is_err());
}

#[test]
fn damage_is_an_error_that_repeats_no_cell() {
    let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("text", DataType::Utf8, false)]));
    let batch =
        RecordBatch::try_new(schema.clone(), vec![Arc::new(StringArray::from(vec!["secret"]))]).unwrap();
    let good = encode_rows(&batch, 0, 1).unwrap();
    let error_of = |payload: &[u8]| format!("{:#}", decode_rows(&schema, [payload]).unwrap_err());
    assert_eq!(error_of(&[]), "a stored row is damaged: the bytes end within a length");
    assert_eq!(
        error_of(&good[..good.len() - 1]),
        "a stored row is damaged: column text: a value of 6 bytes, but 5 are left"
    );
    assert_eq!(error_of(&[&good[..], &[0]].concat()), "a stored row is damaged: 1 bytes follow its last row");
    assert_eq!(error_of(&[1, 1, 4, 1, 0xff]).split(": ").nth(2), Some("text that is not UTF-8"));
    assert_eq!(error_of(&[1, 2, 4, 0, 4, 0]), "a stored row is damaged: it has 2 columns, expected 1");
    assert!(error_of(&[1, 1, 0, 0]).contains("non-nullable"), "{}", error_of(&[1, 1, 0, 0]));
    assert!(error_of(&[0xff; 12]).ends_with("a length over 64 bits"));
    assert!(error_of(&[0x81, 0x80, 0x00]).ends_with("not in its shortest form"));
}

/// One row of every type, as Rust values from small domains so that equal rows occur.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    truth: Option<bool>,
    small: Option<i8>,
    large: Option<u64>,
    single: Option<f32>,
    double: Option<f64>,
    text: Option<String>,
    blob: Option<Vec<u8>>,
    instant: Option<i64>,
    numbers: Option<Vec<Option<i32>>>,
    embedding: Option<[f32; 2]>,
    words: Option<Vec<Option<String>>>,
    member: Option<(Option<i32>, Option<String>)>,
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let word = || prop_oneof!["[a-b]{0,2}", "\\PC{0,3}"];
    let single =
        || prop_oneof![Just(0.0f32), Just(1.0), any::<f32>().prop_filter("ordered", |x| !x.is_nan())];
    let double = prop_oneof![Just(0.0f64), Just(1.0), any::<f64>().prop_filter("ordered", |x| !x.is_nan())];
    let scalars = (
        option::of(any::<bool>()),
        option::of(any::<i8>()),
        option::of(prop_oneof![0u64..3, any::<u64>()]),
        option::of(single()),
        option::of(double),
        option::of(word()),
        option::of(vec(any::<u8>(), 0..3)),
        option::of(prop_oneof![0i64..2, any::<i64>()]),
    );
    let nested = (
        option::of(vec(option::of(prop_oneof![0i32..2, any::<i32>()]), 0..3)),
        option::of([single(), single()]),
        option::of(vec(option::of(word()), 0..3)),
        option::of((option::of(0i32..2), option::of(word()))),
    );
    let row = (scalars, nested).prop_map(
        |(
            (truth, small, large, single, double, text, blob, instant),
            (numbers, embedding, words, member),
        )| Row {
            truth,
            small,
            large,
            // Positive and negative zero are one value by specification.
            single: single.map(|x| x + 0.0),
            double: double.map(|x| x + 0.0),
            text,
            blob,
            instant,
            numbers,
            embedding: embedding.map(|pair| pair.map(|x| x + 0.0)),
            words,
            member,
        },
    );
    vec(row, 0..6)
}

fn batch_of(rows: &[Row]) -> RecordBatch {
    let words: ListArray = {
        let mut builder = arrow::array::ListBuilder::new(arrow::array::StringBuilder::new());
        rows.iter().for_each(|row| builder.append_option(row.words.clone()));
        builder.finish()
    };
    let member_valid: arrow::buffer::NullBuffer = rows.iter().map(|row| row.member.is_some()).collect();
    let member_columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from_iter(
            rows.iter().map(|row| row.member.as_ref().and_then(|member| member.0)),
        )),
        Arc::new(StringArray::from_iter(
            rows.iter().map(|row| row.member.clone().and_then(|member| member.1)),
        )),
    ];
    // Not in the order of names, which is the order of bytes.
    let fields = vec![Field::new("z", DataType::Int32, true), Field::new("a", DataType::Utf8, true)];
    let member =
        StructArray::try_new_with_length(fields.into(), member_columns, Some(member_valid), rows.len());
    let embedding = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(
        rows.iter().map(|row| row.embedding.map(|pair| pair.map(Some))),
        2,
    );
    let numbers =
        LargeListArray::from_iter_primitive::<Int32Type, _, _>(rows.iter().map(|row| row.numbers.clone()));
    let texts = || rows.iter().map(|row| row.text.as_deref());
    let dictionary: DictionaryArray<UInt64Type> = texts().collect();
    let instant =
        TimestampMillisecondArray::from_iter(rows.iter().map(|row| row.instant)).with_timezone("UTC");
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("truth", Arc::new(BooleanArray::from_iter(rows.iter().map(|row| row.truth)))),
        ("small", Arc::new(Int8Array::from_iter(rows.iter().map(|row| row.small)))),
        ("medium", Arc::new(Int16Array::from_iter(rows.iter().map(|row| row.small.map(i16::from))))),
        ("large", Arc::new(UInt64Array::from_iter(rows.iter().map(|row| row.large)))),
        ("single", Arc::new(Float32Array::from_iter(rows.iter().map(|row| row.single)))),
        ("double", Arc::new(Float64Array::from_iter(rows.iter().map(|row| row.double)))),
        ("text", Arc::new(StringArray::from_iter(texts()))),
        ("large_text", Arc::new(LargeStringArray::from_iter(texts()))),
        ("text_view", Arc::new(StringViewArray::from_iter(texts()))),
        ("dictionary", Arc::new(dictionary)),
        ("blob", Arc::new(BinaryArray::from_iter(rows.iter().map(|row| row.blob.as_deref())))),
        ("instant", Arc::new(instant)),
        ("nothing", Arc::new(NullArray::new(rows.len()))),
        ("numbers", Arc::new(numbers)),
        ("embedding", Arc::new(embedding)),
        ("words", Arc::new(words)),
        ("member", Arc::new(member.unwrap())),
    ];
    let fields: Vec<_> =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

/// A JSON value with every integral number that fits written as an integer: what the encoding tells apart.
fn normal(value: &Value) -> Value {
    match value {
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 1e15 => {
                json!(float as i64)
            }
            _ => value.clone(),
        },
        Value::Array(items) => items.iter().map(normal).collect(),
        Value::Object(entries) => {
            Value::Object(entries.iter().map(|(name, value)| (name.clone(), normal(value))).collect())
        }
        other => other.clone(),
    }
}

fn json_values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2i64..3).prop_map(Value::from),
        (-4i32..5).prop_map(|halves| Value::from(f64::from(halves) / 2.0)),
        any::<u64>().prop_map(Value::from),
        "[ab]{0,2}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::from),
            vec(("[ab]{0,1}", inner), 0..3).prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn rows_come_back_as_they_were(one in rows(), two in rows()) {
        let (first, second) = (batch_of(&one), batch_of(&two));
        let payloads = [encode_rows(&first, 0, one.len()).unwrap(), encode_rows(&second, 0, two.len()).unwrap()];
        let (back, counts) = decode_rows(&first.schema(), payloads.iter().map(Vec::as_slice)).unwrap();
        prop_assert_eq!(counts, vec![one.len(), two.len()]);
        prop_assert_eq!(back, batch_of(&[one, two].concat()));
    }

    #[test]
    fn rows_are_equal_where_their_bytes_are(rows in rows()) {
        let batch = batch_of(&rows);
        let mut seen: HashMap<Vec<u8>, &Row> = HashMap::new();
        for (position, row) in rows.iter().enumerate() {
            let bytes = encode_rows(&batch, position, 1).unwrap();
            let alone = encode_rows(&batch_of(std::slice::from_ref(row)), 0, 1).unwrap();
            prop_assert_eq!(&bytes, &alone, "a row's bytes depend on its neighbours");
            if let Some(other) = seen.insert(bytes, row) {
                prop_assert_eq!(other, row);
            }
        }
    }

    #[test]
    fn damaged_bytes_never_panic(rows in rows(), at in any::<prop::sample::Index>(), bit in 0u8..8, cut in any::<bool>()) {
        let batch = batch_of(&rows);
        let mut bytes = encode_rows(&batch, 0, rows.len()).unwrap();
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
            prop_assert!(decode_rows(&batch.schema(), [&bytes[..]]).is_err(), "a cut payload was accepted");
        } else {
            bytes[at] ^= 1 << bit;
            // A flipped bit in a text is another text; the checks of the journal find it.
            let _ = decode_rows(&batch.schema(), [&bytes[..]]);
        }
    }

    #[test]
    fn json_is_equal_where_its_bytes_are(one in json_values(), two in json_values()) {
        let encoded = |value: &Value| {
            let mut out = Vec::new();
            encode_json(value, &mut out);
            out
        };
        prop_assert_eq!(encoded(&one) == encoded(&two), normal(&one) == normal(&two), "{} and {}", one, two);
        // Values one after another can be told apart, too.
        let pair = [encoded(&one), encoded(&two)].concat();
        prop_assert_eq!(pair == [encoded(&two), encoded(&one)].concat(), normal(&one) == normal(&two));
    }
}

#[test]
fn a_column_whose_field_may_not_be_null_refuses_a_null_and_no_columns_keep_their_rows() {
    let schema: SchemaRef = Arc::new(Schema::empty());
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(3));
    let batch = RecordBatch::try_new_with_options(schema.clone(), vec![], &options).unwrap();
    let payload = encode_rows(&batch, 0, 3).unwrap();
    let (back, counts) = decode_rows(&schema, [&payload[..]]).unwrap();
    assert_eq!((back.num_rows(), counts), (3, vec![3]));
    let (none, counts) = decode_rows(&schema, std::iter::empty::<&[u8]>()).unwrap();
    assert_eq!((none.num_rows(), counts), (0, vec![]));
    assert!(encode_rows(&batch, 2, 2).is_err());
    assert!(encode_rows(&batch, usize::MAX, 2).is_err());
    let unit = DataType::Timestamp(TimeUnit::Second, None);
    let seconds: SchemaRef = Arc::new(Schema::new(vec![Field::new("t", unit, true)]));
    let millisecond = [1u8, 1, 6, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    assert!(decode_rows(&seconds, [&millisecond[..]]).is_err(), "a time in another unit");
}
