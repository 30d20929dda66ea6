//! Combinations of a matrix: how they are named, and how their axes become columns.
//!
//! A step with a matrix is one step per combination, named `encoder[truth=targets,seed=1]`. A table of all of
//! them has a column per axis in front of its own.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field};

/// The axes of one combination and their values as text, in the order of its name.
pub type Combination = Vec<(String, String)>;

/// The name of a combination of the step `base`; the step's own name where there are no axes.
pub fn name(base: &str, combination: &[(String, String)]) -> String {
    if combination.is_empty() {
        return base.to_owned();
    }
    let axes: Vec<String> = combination.iter().map(|(axis, value)| format!("{axis}={value}")).collect();
    format!("{base}[{}]", axes.join(","))
}

/// The step and the axes that a combination's name is made of; none where the brackets do not read.
pub fn parse(name: &str) -> Option<(&str, Combination)> {
    let Some((base, rest)) = name.split_once('[') else { return Some((name, Vec::new())) };
    let axes = rest.strip_suffix(']')?.split(',').map(|axis| {
        let (axis, value) = axis.split_once('=')?;
        Some((axis.trim().to_owned(), value.trim().to_owned()))
    });
    Some((base, axes.collect::<Option<_>>()?))
}

/// The step, or the combination of one, and the output of a table's name (`encoder[lr=0.1].history`); the output
/// is empty for the main table.
pub fn split_output(table: &str) -> (&str, &str) {
    let after_axes = table.rfind(']').map_or(0, |place| place + 1);
    match table[after_axes..].find('.') {
        Some(dot) => (&table[..after_axes + dot], &table[after_axes + dot + 1..]),
        None => (table, ""),
    }
}

/// What is between `matrix: { axis: [...] }` and a name: a value that can stand in one.
pub fn is_value(text: &str) -> bool {
    let stands = |c: char| !c.is_control() && !matches!(c, '[' | ']' | ',' | '=' | '"');
    !text.is_empty() && text.trim() == text && text.chars().all(stands)
}

/// The column of an axis that has these values: of whole numbers, numbers or truths where all of them are, else
/// of text.
pub fn field<'a>(axis: &str, values: impl IntoIterator<Item = &'a str> + Clone) -> Field {
    let all = |reads: fn(&str) -> bool| values.clone().into_iter().all(reads);
    let data_type = if all(|v| v.parse::<i64>().is_ok_and(|n| n.to_string() == v)) {
        DataType::Int64
    } else if all(is_number) {
        DataType::Float64
    } else if all(|v| v.parse::<bool>().is_ok()) {
        DataType::Boolean
    } else {
        DataType::Utf8
    };
    Field::new(axis, data_type, false)
}

/// Whether a text is a number, and not a name of digits such as `007`.
fn is_number(text: &str) -> bool {
    let digits = text.trim_start_matches('-').as_bytes();
    let padded = digits.first() == Some(&b'0') && digits.get(1).is_some_and(u8::is_ascii_digit);
    !padded && text.parse::<f64>().is_ok_and(f64::is_finite)
}

/// So many cells of one value of an axis, in the type of its column.
pub fn cells(data_type: &DataType, value: &str, rows: usize) -> ArrayRef {
    let whole = || value.parse().ok().map(|n| Int64Array::from_iter_values(std::iter::repeat_n(n, rows)));
    let number = || value.parse().ok().map(|n| Float64Array::from_iter_values(std::iter::repeat_n(n, rows)));
    let truth = || value.parse().ok().map(|truth: bool| BooleanArray::from(vec![truth; rows]));
    let cells: Option<ArrayRef> = match data_type {
        DataType::Int64 => whole().map(|cells| Arc::new(cells) as ArrayRef),
        DataType::Float64 => number().map(|cells| Arc::new(cells) as ArrayRef),
        DataType::Boolean => truth().map(|cells| Arc::new(cells) as ArrayRef),
        _ => None,
    };
    cells.unwrap_or_else(|| Arc::new(StringArray::from_iter_values(std::iter::repeat_n(value, rows))))
}

/// How two values of an axis are ordered in a table: numbers by size, all else as text.
pub fn compare(one: &str, other: &str) -> std::cmp::Ordering {
    match (one.parse::<f64>(), other.parse::<f64>()) {
        (Ok(a), Ok(b)) => a.total_cmp(&b).then_with(|| one.cmp(other)),
        (Ok(_), Err(_)) => std::cmp::Ordering::Less,
        (Err(_), Ok(_)) => std::cmp::Ordering::Greater,
        (Err(_), Err(_)) => one.cmp(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn combination(axes: &[(&str, &str)]) -> Combination {
        axes.iter().map(|(axis, value)| ((*axis).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_name_reads_back() {
        let axes = combination(&[("truth", "gold"), ("lr", "0.1")]);
        let named = name("encoder", &axes);
        assert_eq!(named, "encoder[truth=gold,lr=0.1]");
        assert_eq!(parse(&named), Some(("encoder", axes)));
        assert_eq!(parse("encoder"), Some(("encoder", Vec::new())));
        assert_eq!(parse("encoder[lr"), None);
        assert_eq!(parse("encoder[lr]"), None);
    }

    #[test]
    fn an_output_stands_behind_the_axes() {
        assert_eq!(split_output("encoder[lr=0.1].history"), ("encoder[lr=0.1]", "history"));
        assert_eq!(split_output("encoder[lr=0.1]"), ("encoder[lr=0.1]", ""));
        assert_eq!(split_output("encoder.history"), ("encoder", "history"));
        assert_eq!(split_output("encoder"), ("encoder", ""));
    }

    #[test]
    fn a_column_has_the_type_of_all_of_its_values() {
        let of = |values: &[&str]| field("x", values.iter().copied()).data_type().clone();
        assert_eq!(of(&["1", "2"]), DataType::Int64);
        assert_eq!(of(&["1", "0.5"]), DataType::Float64);
        assert_eq!(of(&["true", "false"]), DataType::Boolean);
        assert_eq!(of(&["1", "gold"]), DataType::Utf8);
        assert_eq!(of(&["007"]), DataType::Utf8, "a name of digits");
        assert_eq!(cells(&DataType::Int64, "2", 3).len(), 3);
    }

    #[test]
    fn values_are_ordered_as_people_count() {
        let mut values = ["10", "gold", "9", "0.5"];
        values.sort_by(|a, b| compare(a, b));
        assert_eq!(values, ["0.5", "9", "10", "gold"]);
    }
}
