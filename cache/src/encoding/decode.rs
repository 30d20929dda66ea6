//! Bytes to values of a known schema. Whatever the bytes are, the answer is a batch or an error.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, BinaryBuilder, BooleanBuilder, FixedSizeBinaryBuilder,
    FixedSizeListArray, GenericListArray, LargeBinaryBuilder, LargeStringBuilder, NullArray,
    NullBufferBuilder, OffsetSizeTrait, PrimitiveBuilder, RecordBatch, RecordBatchOptions, StringBuilder,
    StringViewBuilder, StructArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, DurationMicrosecondType, DurationMillisecondType,
    DurationNanosecondType, DurationSecondType, FieldRef, Fields, Float32Type, Float64Type, Int8Type,
    Int16Type, Int32Type, Int64Type, SchemaRef, Time32MillisecondType, Time32SecondType,
    Time64MicrosecondType, Time64NanosecondType, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};

use super::encode::integer_width_bytes;
use super::{BOOLEAN, BYTES, FLOAT, INTEGER, LIST, MAP, NULL, PACKED, PackedNumber, TEXT, TIME, time};

/// Reads payloads of [`encode_rows`](super::encode_rows) back into one batch of this schema, and the number
/// of rows of each payload.
///
/// It is an error if a payload is damaged, was written for other columns, or breaks the schema (a null
/// where none may be). The error never repeats a cell.
pub fn decode_rows<'a>(
    schema: &SchemaRef,
    payloads: impl IntoIterator<Item = &'a [u8]>,
) -> Result<(RecordBatch, Vec<usize>)> {
    let mut columns = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        columns.push(sink_of(field.data_type()).with_context(|| format!("column {}", field.name()))?);
    }
    let mut counts = Vec::new();
    for payload in payloads {
        counts.push(decode_payload(schema, &mut columns, payload).context("a stored row is damaged")?);
    }
    let rows =
        counts.iter().try_fold(0usize, |sum, count| sum.checked_add(*count)).context("too many rows")?;
    let arrays = columns.iter_mut().map(|column| column.finish()).collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok((RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options)?, counts))
}

fn decode_payload(schema: &SchemaRef, columns: &mut [Box<dyn Sink>], payload: &[u8]) -> Result<usize> {
    let mut rest = payload;
    let rows = read_length(&mut rest)?;
    let width = read_length(&mut rest)?;
    ensure!(width == columns.len(), "it has {width} columns, expected {}", columns.len());
    ensure!(width > 0 || rows <= MAX_ROWS_WITHOUT_COLUMNS, "it claims {rows} rows without a column");
    for _ in 0..if width == 0 { 0 } else { rows } {
        for (column, field) in columns.iter_mut().zip(schema.fields()) {
            let cell = read_value(&mut rest).with_context(|| format!("column {}", field.name()))?;
            column.push(cell).with_context(|| format!("column {}", field.name()))?;
        }
    }
    ensure!(rest.is_empty(), "{} bytes follow its last row", rest.len());
    Ok(rows)
}

/// Rows without columns take no bytes, so their number is bounded by nothing else.
const MAX_ROWS_WITHOUT_COLUMNS: usize = 1 << 32;

/// A value that was read: its tag and body.
#[derive(Clone, Copy)]
struct Value<'a> {
    tag: u8,
    body: &'a [u8],
}

impl<'a> Value<'a> {
    fn body_if(self, tag: u8, expected: &str) -> Result<&'a [u8]> {
        ensure!(self.tag == tag, "a value with tag {}, expected {expected} (tag {tag})", self.tag);
        Ok(self.body)
    }
}

fn read_value<'a>(rest: &mut &'a [u8]) -> Result<Value<'a>> {
    let Some((&tag, after_tag)) = rest.split_first() else { bail!("the bytes end before a value") };
    *rest = after_tag;
    let length = read_length(rest)?;
    let Some((body, after)) = rest.split_at_checked(length) else {
        bail!("a value of {length} bytes, but {} are left", rest.len());
    };
    *rest = after;
    ensure!(tag != NULL || body.is_empty(), "a null with a body");
    Ok(Value { tag, body })
}

fn read_length(rest: &mut &[u8]) -> Result<usize> {
    let mut length = 0usize;
    for shift in (0..usize::BITS).step_by(7) {
        let Some((&byte, after)) = rest.split_first() else { bail!("the bytes end within a length") };
        *rest = after;
        let bits = usize::from(byte & 0x7f);
        ensure!(bits << shift >> shift == bits, "a length over 64 bits");
        length |= bits << shift;
        if byte & 0x80 == 0 {
            ensure!(byte != 0 || shift == 0, "a length that is not in its shortest form");
            return Ok(length);
        }
    }
    bail!("a length over 64 bits")
}

/// A column being read.
trait Sink {
    fn push_null(&mut self);

    fn push_value(&mut self, value: Value) -> Result<()>;

    fn finish(&mut self) -> Result<ArrayRef>;

    /// Appends the elements of a packed list and returns their number.
    fn push_packed(&mut self, _body: &[u8]) -> Result<usize> {
        bail!("a packed list of elements that are never packed")
    }

    fn push(&mut self, value: Value) -> Result<()> {
        if value.tag == NULL {
            self.push_null();
            return Ok(());
        }
        self.push_value(value)
    }
}

fn sink_of(data_type: &DataType) -> Result<Box<dyn Sink>> {
    use DataType as T;
    Ok(match data_type {
        T::Null => Box::new(Nulls(0)),
        T::Boolean => Box::new(BooleanBuilder::new()),
        T::Int8 => integers::<Int8Type>(),
        T::Int16 => integers::<Int16Type>(),
        T::Int32 => integers::<Int32Type>(),
        T::Int64 => integers::<Int64Type>(),
        T::UInt8 => integers::<UInt8Type>(),
        T::UInt16 => integers::<UInt16Type>(),
        T::UInt32 => integers::<UInt32Type>(),
        T::UInt64 => integers::<UInt64Type>(),
        T::Float32 => Box::new(Numbers::<Float32Type> { builder: PrimitiveBuilder::new(), read: read_f32 }),
        T::Float64 => Box::new(Numbers::<Float64Type> { builder: PrimitiveBuilder::new(), read: read_f64 }),
        T::Utf8 => Box::new(StringBuilder::new()),
        T::LargeUtf8 => Box::new(LargeStringBuilder::new()),
        T::Utf8View => Box::new(StringViewBuilder::new()),
        T::Binary => Box::new(BinaryBuilder::new()),
        T::LargeBinary => Box::new(LargeBinaryBuilder::new()),
        T::FixedSizeBinary(width) => {
            ensure!(*width >= 0, "binary of {width} bytes, expected at least 0");
            Box::new(FixedSizeBinaryBuilder::new(*width))
        }
        T::Timestamp(..) | T::Date32 | T::Date64 | T::Time32(_) | T::Time64(_) | T::Duration(_) => {
            time_sink_of(data_type)?
        }
        T::List(field) => Box::new(Lists::<i32>::new(field)?),
        T::LargeList(field) => Box::new(Lists::<i64>::new(field)?),
        T::FixedSizeList(field, length) => Box::new(FixedLists {
            field: Arc::clone(field),
            length: usize::try_from(*length).context("a list of negative length")?,
            items: sink_of(field.data_type())?,
            valid: NullBufferBuilder::new(0),
        }),
        T::Struct(fields) => Box::new(Members::new(fields)?),
        T::Dictionary(_, value) => {
            Box::new(Dictionaries { data_type: data_type.clone(), values: sink_of(value)? })
        }
        other => bail!(
            "a column of type {other} cannot be stored; cast it to a number, text, time, list or struct"
        ),
    })
}

struct Nulls(usize);

impl Sink for Nulls {
    fn push_null(&mut self) {
        self.0 += 1;
    }

    fn push_value(&mut self, _value: Value) -> Result<()> {
        bail!("a value in a column of nulls")
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        Ok(Arc::new(NullArray::new(std::mem::take(&mut self.0))))
    }
}

impl Sink for BooleanBuilder {
    fn push_null(&mut self) {
        self.append_null();
    }

    fn push_value(&mut self, value: Value) -> Result<()> {
        match value.body_if(BOOLEAN, "a boolean")? {
            [0] => self.append_value(false),
            [1] => self.append_value(true),
            _ => bail!("a boolean that is neither 0 nor 1"),
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        Ok(Arc::new(BooleanBuilder::finish(self)))
    }
}

/// Integers and floating-point numbers, alone or packed.
struct Numbers<T: ArrowPrimitiveType> {
    builder: PrimitiveBuilder<T>,
    read: fn(Value) -> Result<T::Native>,
}

impl<T: ArrowPrimitiveType> Sink for Numbers<T>
where
    T::Native: PackedNumber,
{
    fn push_null(&mut self) {
        self.builder.append_null();
    }

    fn push_value(&mut self, value: Value) -> Result<()> {
        self.builder.append_value((self.read)(value)?);
        Ok(())
    }

    fn push_packed(&mut self, body: &[u8]) -> Result<usize> {
        let Some((&element, body)) = body.split_first() else {
            bail!("a packed list without an element type")
        };
        ensure!(
            element == T::Native::ELEMENT,
            "packed elements of type {element}, expected {}",
            T::Native::ELEMENT
        );
        let elements = body.chunks_exact(T::Native::WIDTH_BYTES);
        ensure!(elements.remainder().is_empty(), "a packed list that ends within an element");
        let count = elements.len();
        elements.for_each(|bytes| self.builder.append_value(T::Native::read(bytes)));
        Ok(count)
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        Ok(Arc::new(self.builder.finish()))
    }
}

fn integers<T: ArrowPrimitiveType>() -> Box<dyn Sink>
where
    T::Native: PackedNumber + TryFrom<i128>,
{
    fn read<N: TryFrom<i128>>(value: Value) -> Result<N> {
        let integer = read_integer(value)?;
        N::try_from(integer).ok().context("an integer outside the column's range")
    }
    Box::new(Numbers::<T> { builder: PrimitiveBuilder::new(), read: read::<T::Native> })
}

fn read_integer(value: Value) -> Result<i128> {
    let body = value.body_if(INTEGER, "an integer")?;
    ensure!(body.len() <= size_of::<i128>(), "an integer of {} bytes", body.len());
    let negative = body.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut bytes = [if negative { 0xff } else { 0 }; size_of::<i128>()];
    bytes[..body.len()].copy_from_slice(body);
    let integer = i128::from_le_bytes(bytes);
    ensure!(integer_width_bytes(integer) == body.len(), "an integer that is not in its shortest form");
    Ok(integer)
}

fn read_f64(value: Value) -> Result<f64> {
    let body = value.body_if(FLOAT, "a floating-point number")?;
    ensure!(body.len() == size_of::<f64>(), "a floating-point number of {} bytes", body.len());
    Ok(<f64 as PackedNumber>::read(body))
}

fn read_f32(value: Value) -> Result<f32> {
    let wide = read_f64(value)?;
    let narrow = wide as f32;
    ensure!(wide.is_nan() || f64::from(narrow) == wide, "a floating-point number that does not fit binary32");
    Ok(narrow)
}

macro_rules! slice_sink {
    ($builder:ty, $tag:expr, $expected:literal, $append:expr) => {
        impl Sink for $builder {
            fn push_null(&mut self) {
                self.append_null();
            }

            fn push_value(&mut self, value: Value) -> Result<()> {
                let append: fn(&mut $builder, &[u8]) -> Result<()> = $append;
                append(self, value.body_if($tag, $expected)?)
            }

            fn finish(&mut self) -> Result<ArrayRef> {
                Ok(Arc::new(<$builder>::finish(self)))
            }
        }
    };
}

slice_sink!(StringBuilder, TEXT, "text", |builder, body| {
    check_offset(builder.values_slice().len(), body)?;
    builder.append_value(utf8(body)?);
    Ok(())
});
slice_sink!(LargeStringBuilder, TEXT, "text", |builder, body| {
    builder.append_value(utf8(body)?);
    Ok(())
});
slice_sink!(StringViewBuilder, TEXT, "text", |builder, body| Ok(builder.try_append_value(utf8(body)?)?));
slice_sink!(BinaryBuilder, BYTES, "bytes", |builder, body| {
    check_offset(builder.values_slice().len(), body)?;
    builder.append_value(body);
    Ok(())
});
slice_sink!(LargeBinaryBuilder, BYTES, "bytes", |builder, body| {
    builder.append_value(body);
    Ok(())
});
slice_sink!(FixedSizeBinaryBuilder, BYTES, "bytes", |builder, body| Ok(builder.append_value(body)?));

fn utf8(body: &[u8]) -> Result<&str> {
    // The standard error says where, not what.
    std::str::from_utf8(body).context("text that is not UTF-8")
}

/// Arrow's builders panic where 32-bit offsets run over; this is an error instead.
fn check_offset(length_bytes: usize, body: &[u8]) -> Result<()> {
    ensure!(
        i32::try_from(length_bytes + body.len()).is_ok(),
        "a column of more than 2 GiB; read fewer rows at once"
    );
    Ok(())
}

struct Times<T: ArrowPrimitiveType> {
    kind: u8,
    zone: String,
    builder: PrimitiveBuilder<T>,
}

impl<T: ArrowPrimitiveType> Sink for Times<T>
where
    T::Native: TryFrom<i64>,
{
    fn push_null(&mut self) {
        self.builder.append_null();
    }

    fn push_value(&mut self, value: Value) -> Result<()> {
        let body = value.body_if(TIME, "a time")?;
        let Some((&kind, body)) = body.split_first() else { bail!("a time without a kind") };
        let Some((count, zone)) = body.split_first_chunk::<8>() else { bail!("a time without a count") };
        ensure!(kind == self.kind, "a time of kind and unit {kind}, expected {}", self.kind);
        ensure!(zone == self.zone.as_bytes(), "a time in another time zone than the column's");
        let count = T::Native::try_from(i64::from_le_bytes(*count)).ok();
        self.builder.append_value(count.context("a time outside the column's range")?);
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        Ok(Arc::new(self.builder.finish()))
    }
}

fn time_sink_of(data_type: &DataType) -> Result<Box<dyn Sink>> {
    use DataType as T;
    use TimeUnit as U;
    let (kind, zone) = match data_type {
        T::Timestamp(unit, zone) => (time::TIMESTAMP + time::unit(*unit), zone.as_deref().unwrap_or("")),
        T::Time32(unit) | T::Time64(unit) => (time::OF_DAY + time::unit(*unit), ""),
        T::Duration(unit) => (time::DURATION + time::unit(*unit), ""),
        T::Date32 => (time::DATE_DAYS, ""),
        _ => (time::DATE_MS, ""),
    };
    fn times<T: ArrowPrimitiveType>(data_type: &DataType, kind: u8, zone: &str) -> Box<dyn Sink>
    where
        T::Native: TryFrom<i64>,
    {
        let builder = PrimitiveBuilder::<T>::new().with_data_type(data_type.clone());
        Box::new(Times { kind, zone: zone.to_owned(), builder })
    }
    Ok(match data_type {
        T::Timestamp(U::Second, _) => times::<TimestampSecondType>(data_type, kind, zone),
        T::Timestamp(U::Millisecond, _) => times::<TimestampMillisecondType>(data_type, kind, zone),
        T::Timestamp(U::Microsecond, _) => times::<TimestampMicrosecondType>(data_type, kind, zone),
        T::Timestamp(U::Nanosecond, _) => times::<TimestampNanosecondType>(data_type, kind, zone),
        T::Duration(U::Second) => times::<DurationSecondType>(data_type, kind, zone),
        T::Duration(U::Millisecond) => times::<DurationMillisecondType>(data_type, kind, zone),
        T::Duration(U::Microsecond) => times::<DurationMicrosecondType>(data_type, kind, zone),
        T::Duration(U::Nanosecond) => times::<DurationNanosecondType>(data_type, kind, zone),
        T::Time32(U::Second) => times::<Time32SecondType>(data_type, kind, zone),
        T::Time32(U::Millisecond) => times::<Time32MillisecondType>(data_type, kind, zone),
        T::Time64(U::Microsecond) => times::<Time64MicrosecondType>(data_type, kind, zone),
        T::Time64(U::Nanosecond) => times::<Time64NanosecondType>(data_type, kind, zone),
        T::Date32 => times::<Date32Type>(data_type, kind, zone),
        T::Date64 => times::<Date64Type>(data_type, kind, zone),
        other => bail!("a column of type {other}, expected a time in a unit that Arrow allows for it"),
    })
}

/// Appends the items of a list value, packed or not, and returns their number.
fn push_items(items: &mut dyn Sink, value: Value) -> Result<usize> {
    if value.tag == PACKED {
        return items.push_packed(value.body);
    }
    let mut rest = value.body_if(LIST, "a list")?;
    let mut count = 0;
    while !rest.is_empty() {
        items.push(read_value(&mut rest)?)?;
        count += 1;
    }
    Ok(count)
}

struct Lists<O: OffsetSizeTrait> {
    field: FieldRef,
    items: Box<dyn Sink>,
    lengths: Vec<usize>,
    valid: NullBufferBuilder,
    offset_type: std::marker::PhantomData<O>,
}

impl<O: OffsetSizeTrait> Lists<O> {
    fn new(field: &FieldRef) -> Result<Lists<O>> {
        Ok(Lists {
            field: Arc::clone(field),
            items: sink_of(field.data_type())?,
            lengths: Vec::new(),
            valid: NullBufferBuilder::new(0),
            offset_type: std::marker::PhantomData,
        })
    }
}

impl<O: OffsetSizeTrait> Sink for Lists<O> {
    fn push_null(&mut self) {
        self.lengths.push(0);
        self.valid.append_null();
    }

    fn push_value(&mut self, value: Value) -> Result<()> {
        self.lengths.push(push_items(&mut *self.items, value)?);
        self.valid.append_non_null();
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        let items = self.items.finish()?;
        ensure!(
            O::from_usize(items.len()).is_some(),
            "a column of too many list items; read fewer rows at once"
        );
        let offsets = OffsetBuffer::<O>::from_lengths(std::mem::take(&mut self.lengths));
        Ok(Arc::new(GenericListArray::try_new(Arc::clone(&self.field), offsets, items, self.valid.finish())?))
    }
}

struct FixedLists {
    field: FieldRef,
    length: usize,
    items: Box<dyn Sink>,
    valid: NullBufferBuilder,
}

impl Sink for FixedLists {
    fn push_null(&mut self) {
        (0..self.length).for_each(|_| self.items.push_null());
        self.valid.append_null();
    }

    fn push_value(&mut self, value: Value) -> Result<()> {
        let count = push_items(&mut *self.items, value)?;
        ensure!(count == self.length, "a list of {count} items, expected {}", self.length);
        self.valid.append_non_null();
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        let rows = self.valid.len();
        let items = self.items.finish()?;
        let valid = self.valid.finish();
        let length = i32::try_from(self.length)?;
        Ok(Arc::new(FixedSizeListArray::try_new_with_length(
            Arc::clone(&self.field),
            length,
            items,
            valid,
            rows,
        )?))
    }
}

struct Members {
    fields: Fields,
    /// Positions of the fields in the order in which they are encoded.
    order: Vec<usize>,
    columns: Vec<Box<dyn Sink>>,
    valid: NullBufferBuilder,
}

impl Members {
    fn new(fields: &Fields) -> Result<Members> {
        let mut order: Vec<usize> = (0..fields.len()).collect();
        order.sort_by_key(|&position| fields[position].name());
        let columns = fields.iter().map(|field| sink_of(field.data_type())).collect::<Result<_>>()?;
        Ok(Members { fields: fields.clone(), order, columns, valid: NullBufferBuilder::new(0) })
    }
}

impl Sink for Members {
    fn push_null(&mut self) {
        self.columns.iter_mut().for_each(|column| column.push_null());
        self.valid.append_null();
    }

    fn push_value(&mut self, value: Value) -> Result<()> {
        let mut rest = value.body_if(MAP, "a struct")?;
        for &position in &self.order {
            let name = read_value(&mut rest)?.body_if(TEXT, "a field's name")?;
            ensure!(
                name == self.fields[position].name().as_bytes(),
                "a struct with other fields than the column's"
            );
            self.columns[position].push(read_value(&mut rest)?)?;
        }
        ensure!(rest.is_empty(), "a struct with more fields than the column's");
        self.valid.append_non_null();
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        let rows = self.valid.len();
        let columns = self.columns.iter_mut().map(|column| column.finish()).collect::<Result<Vec<_>>>()?;
        let valid = self.valid.finish();
        Ok(Arc::new(StructArray::try_new_with_length(self.fields.clone(), columns, valid, rows)?))
    }
}

struct Dictionaries {
    data_type: DataType,
    values: Box<dyn Sink>,
}

impl Sink for Dictionaries {
    fn push_null(&mut self) {
        self.values.push_null();
    }

    fn push_value(&mut self, value: Value) -> Result<()> {
        self.values.push_value(value)
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        Ok(cast(&*self.values.finish()?, &self.data_type)?)
    }
}
