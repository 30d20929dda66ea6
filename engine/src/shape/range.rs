//! The bounds of a number, written in a schema or held by its Rust type.

use serde_json::Value;

use super::Object;

/// The bounds of a number.
pub(super) struct Range {
    low: Option<Bound>,
    high: Option<Bound>,
}

struct Bound {
    value: f64,
    is_exclusive: bool,
    /// Not written in the schema: it is what the Rust type holds, and told only to who breaks it.
    is_of_type: bool,
}

impl Range {
    pub(super) fn of(schema: &Object) -> Range {
        let bound = |keyword: &str, is_exclusive| {
            let value = schema.get(keyword)?.as_f64()?;
            Some(Bound { value, is_exclusive, is_of_type: false })
        };
        let (low_of_type, high_of_type) = limits_of_format(schema);
        let limit = |value| Bound { value, is_exclusive: false, is_of_type: true };
        Range {
            low: bound("exclusiveMinimum", true)
                .or_else(|| bound("minimum", false))
                .or_else(|| low_of_type.map(limit)),
            high: bound("exclusiveMaximum", true)
                .or_else(|| bound("maximum", false))
                .or_else(|| high_of_type.map(limit)),
        }
    }

    pub(super) fn contains(&self, value: f64) -> bool {
        self.low.as_ref().is_none_or(|low| low.is_below(value))
            && self.high.as_ref().is_none_or(|high| high.is_above(value))
    }

    /// What `value` should have been.
    pub(super) fn phrase(&self, value: f64) -> String {
        let low = self.low.as_ref().filter(|low| !low.is_of_type || !low.is_below(value));
        let high = self.high.as_ref().filter(|high| !high.is_of_type || !high.is_above(value));
        if let (
            Some(Bound { value: low, is_exclusive: false, .. }),
            Some(Bound { value: high, is_exclusive: false, .. }),
        ) = (low, high)
        {
            return format!("{low} to {high}");
        }
        let low = low
            .map(|low| format!("{} {}", if low.is_exclusive { "more than" } else { "at least" }, low.value));
        let high = high.map(|high| {
            format!("{} {}", if high.is_exclusive { "less than" } else { "at most" }, high.value)
        });
        low.into_iter().chain(high).collect::<Vec<_>>().join(" and ")
    }
}

impl Bound {
    fn is_below(&self, value: f64) -> bool {
        if self.is_exclusive { self.value < value } else { self.value <= value }
    }

    fn is_above(&self, value: f64) -> bool {
        if self.is_exclusive { self.value > value } else { self.value >= value }
    }
}

/// The smallest and largest number of 32-bit integers; schemars writes those of 8 and 16 bits into the schema, and
/// no YAML number exceeds 64 bits.
fn limits_of_format(schema: &Object) -> (Option<f64>, Option<f64>) {
    match schema.get("format").and_then(Value::as_str) {
        Some("int32") => (Some(f64::from(i32::MIN)), Some(f64::from(i32::MAX))),
        Some("uint32") => (Some(0.0), Some(f64::from(u32::MAX))),
        _ => (None, None),
    }
}
