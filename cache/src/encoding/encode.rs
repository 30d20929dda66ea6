//! Values to bytes.

use std::ops::Range;

use anyhow::{Result, bail, ensure};
use arrow::array::{
    Array, ArrowPrimitiveType, AsArray, BooleanArray, DictionaryArray, PrimitiveArray, RecordBatch,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    ArrowDictionaryKeyType, DataType, Date32Type, Date64Type, DurationMicrosecondType,
    DurationMillisecondType, DurationNanosecondType, DurationSecondType, Float32Type, Float64Type, Int8Type,
    Int16Type, Int32Type, Int64Type, Time32MillisecondType, Time32SecondType, Time64MicrosecondType,
    Time64NanosecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use serde_json::Value;

use super::{
    BOOLEAN, BYTES, FLOAT, INTEGER, LIST, MAP, NULL, PACKED, PackedNumber, TEXT, TIME, canonical_f64, time,
};

/// The rows `start..start + len` of `batch` as one payload, which
/// [`decode_rows`](super::decode_rows) reads.
///
/// It is an error if the batch has fewer rows or a column of a type that has no encoding.
pub fn encode_rows(batch: &RecordBatch, start: usize, len: usize) -> Result<Vec<u8>> {
    ensure!(
        start.checked_add(len).is_some_and(|end| end <= batch.num_rows()),
        "rows {start} to {start}+{len} of a batch of {} rows",
        batch.num_rows()
    );
    Ok(RowEncoder::new(batch)?.encode(start, len))
}

/// Encodes rows of one batch, as [`encode_rows`] does, many times over.
pub struct RowEncoder<'a>(Vec<Encoder<'a>>);

impl<'a> RowEncoder<'a> {
    /// An encoder of this batch's rows.
    ///
    /// # Errors
    /// When a column is of a type that has no encoding.
    pub fn new(batch: &'a RecordBatch) -> Result<RowEncoder<'a>> {
        let columns = batch.columns().iter().map(|column| Encoder::new(column));
        Ok(RowEncoder(columns.collect::<Result<_>>()?))
    }

    /// `len` rows from `start` on.
    ///
    /// # Panics
    /// When the batch has fewer rows.
    pub fn encode(&self, start: usize, len: usize) -> Vec<u8> {
        let mut out = Vec::new();
        write_length(len, &mut out);
        write_length(self.0.len(), &mut out);
        for row in start..start + len {
            self.0.iter().for_each(|column| column.encode(row, &mut out));
        }
        out
    }
}

/// Appends one cell.
///
/// It is an error if the array's type has no encoding, or the array has no such row.
pub fn encode_cell(array: &dyn Array, row: usize, out: &mut Vec<u8>) -> Result<()> {
    ensure!(row < array.len(), "row {row} of a column of {} rows", array.len());
    Encoder::new(array)?.encode(row, out);
    Ok(())
}

/// Appends a JSON value.
pub fn encode_json(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => write_value(NULL, &[], out),
        Value::Bool(truth) => write_value(BOOLEAN, &[u8::from(*truth)], out),
        Value::Number(number) => encode_number(number, out),
        Value::String(text) => write_value(TEXT, text.as_bytes(), out),
        Value::Array(items) => {
            write_nested(LIST, out, |out| items.iter().for_each(|item| encode_json(item, out)));
        }
        Value::Object(entries) => {
            let mut sorted: Vec<_> = entries.iter().collect();
            sorted.sort_by_key(|(name, _)| *name);
            write_nested(MAP, out, |out| {
                for (name, value) in sorted {
                    write_value(TEXT, name.as_bytes(), out);
                    encode_json(value, out);
                }
            });
        }
    }
}

/// Appends a JSON object that has, beside these entries, one whose value was encoded before.
pub(crate) fn encode_json_object(
    entries: &serde_json::Map<String, Value>,
    (name, encoded): (&str, &[u8]),
    out: &mut Vec<u8>,
) {
    let mut sorted: Vec<(&str, Option<&Value>)> =
        entries.iter().map(|(name, value)| (name.as_str(), Some(value))).collect();
    sorted.push((name, None));
    sorted.sort_by_key(|(name, _)| *name);
    write_nested(MAP, out, |out| {
        for (name, value) in sorted {
            write_value(TEXT, name.as_bytes(), out);
            match value {
                Some(value) => encode_json(value, out),
                None => out.extend_from_slice(encoded),
            }
        }
    });
}

fn encode_number(number: &serde_json::Number, out: &mut Vec<u8>) {
    const TWO_TO_63: f64 = 9_223_372_036_854_775_808.0;
    if let Some(integer) = number.as_i64() {
        return write_integer(integer.into(), out);
    }
    if let Some(integer) = number.as_u64() {
        return write_integer(integer.into(), out);
    }
    let float = number.as_f64().expect("a JSON number that is no integer is an f64");
    if float.fract() == 0.0 && (-TWO_TO_63..2.0 * TWO_TO_63).contains(&float) {
        // Exact: the number is an integer, and i128 holds it.
        write_integer(float as i128, out);
    } else {
        write_value(FLOAT, &canonical_f64(float).to_le_bytes(), out);
    }
}

/// One column, its type resolved once for all its cells.
pub(crate) struct Encoder<'a> {
    nulls: Option<NullBuffer>,
    cells: Box<dyn Cells + 'a>,
}

impl<'a> Encoder<'a> {
    /// It is an error if the array's type has no encoding.
    pub(crate) fn new(array: &'a dyn Array) -> Result<Encoder<'a>> {
        Ok(Encoder { nulls: array.nulls().cloned(), cells: cells_of(array)? })
    }

    /// Appends the cell of a row that the array has.
    pub(crate) fn encode(&self, row: usize, out: &mut Vec<u8>) {
        if self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            write_value(NULL, &[], out);
        } else {
            self.cells.encode(row, out);
        }
    }

    fn has_null(&self, rows: &Range<usize>) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| rows.clone().any(|row| nulls.is_null(row)))
    }
}

/// The cells of an array of one type; rows whose cell is null are not asked for.
trait Cells: Send + Sync {
    fn encode(&self, row: usize, out: &mut Vec<u8>);

    /// Appends the cells of `rows`, none of them null, as the body of a packed list; false if this type is
    /// not packed.
    fn encode_packed(&self, _rows: Range<usize>, _out: &mut Vec<u8>) -> bool {
        false
    }
}

fn cells_of<'a>(array: &'a dyn Array) -> Result<Box<dyn Cells + 'a>> {
    use DataType as T;
    fn number<'a, T: ArrowPrimitiveType>(array: &'a dyn Array) -> Box<dyn Cells + 'a>
    where
        Number<'a, T>: Cells,
    {
        Box::new(Number(array.as_primitive::<T>()))
    }
    Ok(match array.data_type() {
        T::Null => Box::new(AllNull),
        T::Boolean => Box::new(Booleans(array.as_boolean())),
        T::Int8 => number::<Int8Type>(array),
        T::Int16 => number::<Int16Type>(array),
        T::Int32 => number::<Int32Type>(array),
        T::Int64 => number::<Int64Type>(array),
        T::UInt8 => number::<UInt8Type>(array),
        T::UInt16 => number::<UInt16Type>(array),
        T::UInt32 => number::<UInt32Type>(array),
        T::UInt64 => number::<UInt64Type>(array),
        T::Float32 => number::<Float32Type>(array),
        T::Float64 => number::<Float64Type>(array),
        T::Utf8 => text(array.as_string::<i32>(), |texts, row| texts.value(row).as_bytes()),
        T::LargeUtf8 => text(array.as_string::<i64>(), |texts, row| texts.value(row).as_bytes()),
        T::Utf8View => text(array.as_string_view(), |texts, row| texts.value(row).as_bytes()),
        T::Binary => bytes(array.as_binary::<i32>(), |blobs, row| blobs.value(row)),
        T::LargeBinary => bytes(array.as_binary::<i64>(), |blobs, row| blobs.value(row)),
        T::FixedSizeBinary(_) => bytes(array.as_fixed_size_binary(), |blobs, row| blobs.value(row)),
        T::Timestamp(..) | T::Date32 | T::Date64 | T::Time32(_) | T::Time64(_) | T::Duration(_) => {
            times_of(array)?
        }
        T::List(_) => {
            let list = array.as_list::<i32>();
            list_of(list.values(), move |row| {
                list.value_offsets()[row] as usize..list.value_offsets()[row + 1] as usize
            })?
        }
        T::LargeList(_) => {
            let list = array.as_list::<i64>();
            list_of(list.values(), move |row| {
                list.value_offsets()[row] as usize..list.value_offsets()[row + 1] as usize
            })?
        }
        T::FixedSizeList(..) => {
            let list = array.as_fixed_size_list();
            let length = list.value_length() as usize;
            list_of(list.values(), move |row| row * length..(row + 1) * length)?
        }
        T::Struct(fields) => {
            let columns = array.as_struct().columns();
            let mut members = Vec::with_capacity(fields.len());
            for (field, column) in fields.iter().zip(columns) {
                members.push((field.name().as_str(), Encoder::new(column)?));
            }
            members.sort_by_key(|(name, _)| *name);
            Box::new(Members(members))
        }
        T::Dictionary(key, _) => dictionary_of(key, array)?,
        other => bail!(
            "a column of type {other} cannot be stored; cast it to a number, text, time, list or struct"
        ),
    })
}

struct AllNull;

impl Cells for AllNull {
    fn encode(&self, _row: usize, out: &mut Vec<u8>) {
        write_value(NULL, &[], out);
    }
}

struct Booleans<'a>(&'a BooleanArray);

impl Cells for Booleans<'_> {
    fn encode(&self, row: usize, out: &mut Vec<u8>) {
        write_value(BOOLEAN, &[u8::from(self.0.value(row))], out);
    }
}

struct Number<'a, T: ArrowPrimitiveType>(&'a PrimitiveArray<T>);

impl<T: ArrowPrimitiveType> Number<'_, T>
where
    T::Native: PackedNumber,
{
    fn pack(&self, rows: Range<usize>, out: &mut Vec<u8>) -> bool {
        out.reserve(1 + rows.len() * T::Native::WIDTH_BYTES);
        out.push(T::Native::ELEMENT);
        self.0.values()[rows].iter().for_each(|number| number.write(out));
        true
    }
}

macro_rules! integer_cells {
    ($($arrow:ty),*) => {$(
        impl Cells for Number<'_, $arrow> {
            fn encode(&self, row: usize, out: &mut Vec<u8>) {
                write_integer(self.0.value(row).into(), out);
            }

            fn encode_packed(&self, rows: Range<usize>, out: &mut Vec<u8>) -> bool {
                self.pack(rows, out)
            }
        }
    )*};
}

macro_rules! float_cells {
    ($($arrow:ty),*) => {$(
        impl Cells for Number<'_, $arrow> {
            fn encode(&self, row: usize, out: &mut Vec<u8>) {
                write_value(FLOAT, &canonical_f64(self.0.value(row).into()).to_le_bytes(), out);
            }

            fn encode_packed(&self, rows: Range<usize>, out: &mut Vec<u8>) -> bool {
                self.pack(rows, out)
            }
        }
    )*};
}

integer_cells!(Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type);
float_cells!(Float32Type, Float64Type);

/// Cells whose body lies in the array.
struct Slices<'a, A> {
    tag: u8,
    array: &'a A,
    slice: fn(&'a A, usize) -> &'a [u8],
}

impl<A: Sync> Cells for Slices<'_, A> {
    fn encode(&self, row: usize, out: &mut Vec<u8>) {
        write_value(self.tag, (self.slice)(self.array, row), out);
    }
}

fn text<'a, A: Sync>(array: &'a A, slice: fn(&'a A, usize) -> &'a [u8]) -> Box<dyn Cells + 'a> {
    Box::new(Slices { tag: TEXT, array, slice })
}

fn bytes<'a, A: Sync>(array: &'a A, slice: fn(&'a A, usize) -> &'a [u8]) -> Box<dyn Cells + 'a> {
    Box::new(Slices { tag: BYTES, array, slice })
}

struct Times<'a, T: ArrowPrimitiveType> {
    kind: u8,
    zone: &'a str,
    counts: &'a PrimitiveArray<T>,
}

impl<T: ArrowPrimitiveType> Cells for Times<'_, T>
where
    T::Native: Into<i64>,
{
    fn encode(&self, row: usize, out: &mut Vec<u8>) {
        out.push(TIME);
        write_length(1 + size_of::<i64>() + self.zone.len(), out);
        out.push(self.kind);
        out.extend_from_slice(&self.counts.value(row).into().to_le_bytes());
        out.extend_from_slice(self.zone.as_bytes());
    }
}

fn times_of<'a>(array: &'a dyn Array) -> Result<Box<dyn Cells + 'a>> {
    use DataType as T;
    use TimeUnit as U;
    fn times<'a, T: ArrowPrimitiveType>(kind: u8, zone: &'a str, array: &'a dyn Array) -> Box<dyn Cells + 'a>
    where
        T::Native: Into<i64>,
    {
        Box::new(Times { kind, zone, counts: array.as_primitive::<T>() })
    }
    Ok(match array.data_type() {
        T::Timestamp(unit, zone) => {
            let zone = zone.as_deref().unwrap_or("");
            let kind = time::TIMESTAMP + time::unit(*unit);
            match unit {
                U::Second => times::<TimestampSecondType>(kind, zone, array),
                U::Millisecond => times::<TimestampMillisecondType>(kind, zone, array),
                U::Microsecond => times::<TimestampMicrosecondType>(kind, zone, array),
                U::Nanosecond => times::<TimestampNanosecondType>(kind, zone, array),
            }
        }
        T::Duration(unit) => {
            let kind = time::DURATION + time::unit(*unit);
            match unit {
                U::Second => times::<DurationSecondType>(kind, "", array),
                U::Millisecond => times::<DurationMillisecondType>(kind, "", array),
                U::Microsecond => times::<DurationMicrosecondType>(kind, "", array),
                U::Nanosecond => times::<DurationNanosecondType>(kind, "", array),
            }
        }
        T::Time32(U::Second) => times::<Time32SecondType>(time::OF_DAY, "", array),
        T::Time32(U::Millisecond) => times::<Time32MillisecondType>(time::OF_DAY + 1, "", array),
        T::Time64(U::Microsecond) => times::<Time64MicrosecondType>(time::OF_DAY + 2, "", array),
        T::Time64(U::Nanosecond) => times::<Time64NanosecondType>(time::OF_DAY + 3, "", array),
        T::Date32 => times::<Date32Type>(time::DATE_DAYS, "", array),
        T::Date64 => times::<Date64Type>(time::DATE_MS, "", array),
        other => bail!("a column of type {other}, expected a time in a unit that Arrow allows for it"),
    })
}

struct Lists<'a, R> {
    items: Encoder<'a>,
    rows_of: R,
}

impl<R: Fn(usize) -> Range<usize> + Send + Sync> Cells for Lists<'_, R> {
    fn encode(&self, row: usize, out: &mut Vec<u8>) {
        let rows = (self.rows_of)(row);
        let start = out.len();
        if !self.items.has_null(&rows) && self.items.cells.encode_packed(rows.clone(), out) {
            insert_header(PACKED, start, out);
        } else {
            rows.for_each(|item| self.items.encode(item, out));
            insert_header(LIST, start, out);
        }
    }
}

fn list_of<'a>(
    items: &'a dyn Array,
    rows_of: impl Fn(usize) -> Range<usize> + Send + Sync + 'a,
) -> Result<Box<dyn Cells + 'a>> {
    Ok(Box::new(Lists { items: Encoder::new(items)?, rows_of }))
}

/// The fields of a struct, sorted by name.
struct Members<'a>(Vec<(&'a str, Encoder<'a>)>);

impl Cells for Members<'_> {
    fn encode(&self, row: usize, out: &mut Vec<u8>) {
        write_nested(MAP, out, |out| {
            for (name, member) in &self.0 {
                write_value(TEXT, name.as_bytes(), out);
                member.encode(row, out);
            }
        });
    }
}

struct Dictionary<'a, K: ArrowDictionaryKeyType> {
    keys: &'a PrimitiveArray<K>,
    values: Encoder<'a>,
}

impl<K: ArrowDictionaryKeyType> Cells for Dictionary<'_, K> {
    fn encode(&self, row: usize, out: &mut Vec<u8>) {
        use arrow::datatypes::ArrowNativeType;
        self.values.encode(self.keys.value(row).as_usize(), out);
    }
}

fn dictionary_of<'a>(key: &DataType, array: &'a dyn Array) -> Result<Box<dyn Cells + 'a>> {
    fn dictionary<'a, K: ArrowDictionaryKeyType>(array: &'a dyn Array) -> Result<Box<dyn Cells + 'a>> {
        let dictionary: &DictionaryArray<K> = array.as_dictionary::<K>();
        Ok(Box::new(Dictionary { keys: dictionary.keys(), values: Encoder::new(dictionary.values())? }))
    }
    match key {
        DataType::Int8 => dictionary::<Int8Type>(array),
        DataType::Int16 => dictionary::<Int16Type>(array),
        DataType::Int32 => dictionary::<Int32Type>(array),
        DataType::Int64 => dictionary::<Int64Type>(array),
        DataType::UInt8 => dictionary::<UInt8Type>(array),
        DataType::UInt16 => dictionary::<UInt16Type>(array),
        DataType::UInt32 => dictionary::<UInt32Type>(array),
        DataType::UInt64 => dictionary::<UInt64Type>(array),
        other => bail!("a dictionary with keys of type {other}, expected integers"),
    }
}

fn write_integer(integer: i128, out: &mut Vec<u8>) {
    let bytes = integer.to_le_bytes();
    write_value(INTEGER, &bytes[..integer_width_bytes(integer)], out);
}

/// How many bytes of two's complement hold the integer: none for 0.
pub(super) fn integer_width_bytes(integer: i128) -> usize {
    if integer == 0 {
        return 0;
    }
    let magnitude = if integer < 0 { !integer } else { integer };
    let bits = i128::BITS - magnitude.leading_zeros() + 1;
    bits.div_ceil(8) as usize
}

fn write_value(tag: u8, body: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    write_length(body.len(), out);
    out.extend_from_slice(body);
}

fn write_nested(tag: u8, out: &mut Vec<u8>, write_body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    write_body(out);
    insert_header(tag, start, out);
}

/// Puts tag and length before the body that begins at `start`: its length is only known now.
fn insert_header(tag: u8, start: usize, out: &mut Vec<u8>) {
    let body_end = out.len();
    out.push(tag);
    write_length(body_end - start, out);
    let header_len = out.len() - body_end;
    out[start..].rotate_right(header_len);
}

fn write_length(mut length: usize, out: &mut Vec<u8>) {
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}
