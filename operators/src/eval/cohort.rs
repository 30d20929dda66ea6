//! Who is measured, and what is true of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::Context;
use argent_engine::Io;
use argent_engine::joining::texts;
use argent_engine::operator::Input;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Float64Type;

/// The coverage of every interval.
pub(crate) const LEVEL: f64 = 0.95;

/// The columns of labels that say the truth: targets where there are some, else states; none where there are neither.
pub(super) fn truth_columns(labels: &Input) -> Vec<&'static str> {
    let has = |name: &str| labels.schema.field_with_name(name).is_ok();
    match (has("state"), has("target") && has("weight")) {
        (_, true) => vec!["target", "weight"],
        (true, false) => vec!["state"],
        (false, false) => Vec::new(),
    }
}

/// By id and finding: the truth; none where there is no yes or no (uncertain, masked, in conflict).
pub(super) fn truth_by_id<'a>(
    io: &mut Io,
    labels: &'a RecordBatch,
    on: &str,
) -> anyhow::Result<HashMap<(&'a str, &'a str), Option<bool>>> {
    let (ids, findings) = (texts(labels, on)?, texts(labels, "finding")?);
    let targets = targets(labels)?;
    let mut truth: HashMap<(&str, &str), Option<bool>> = HashMap::new();
    let mut conflicts = BTreeSet::new();
    for row in (0..labels.num_rows()).filter(|r| ids.is_valid(*r) && findings.is_valid(*r)) {
        let key = (ids.value(row), findings.value(row));
        if truth.insert(key, targets[row]).is_some_and(|before| before != targets[row]) {
            conflicts.insert(key);
        }
    }
    for key in conflicts {
        truth.insert(key, None);
        io.fault(
            "labels",
            key.0,
            "conflict",
            format!("rows of this `{on}` disagree on a finding; it is left out"),
        );
    }
    Ok(truth)
}

/// For each row of the labels: yes, no, or neither.
fn targets(labels: &RecordBatch) -> anyhow::Result<Vec<Option<bool>>> {
    if labels.column_by_name("target").is_none() {
        let states = texts(labels, "state")?;
        let target = |state: Option<&str>| match state {
            Some("present") => Some(true),
            Some("absent") => Some(false),
            _ => None,
        };
        return Ok(states.iter().map(target).collect());
    }
    let number = |name: &str| {
        let column = labels.column_by_name(name).with_context(|| format!("labels have no `{name}`"))?;
        column.as_primitive_opt::<Float64Type>().with_context(|| format!("`{name}` does not hold numbers"))
    };
    let (target, weight) = (number("target")?, number("weight")?);
    let known = |row: usize| target.is_valid(row) && weight.is_valid(row) && weight.value(row) > 0.0;
    // A soft target says how sure the label is; the truth to measure by is its nearer end.
    Ok((0..labels.num_rows()).map(|row| known(row).then(|| target.value(row) >= 0.5)).collect())
}

/// The number of each row's group, counted in the order in which groups first appear.
pub(super) fn clusters<'a>(groups: impl IntoIterator<Item = &'a str>) -> Vec<u32> {
    let mut numbers: BTreeMap<&str, u32> = BTreeMap::new();
    groups
        .into_iter()
        .map(|group| {
            let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
            *numbers.entry(group).or_insert(next)
        })
        .collect()
}

/// A digest of who was measured: equal digests mean the same rows, so that two tables may be compared.
pub(crate) fn cohort_digest<'a>(ids: impl IntoIterator<Item = &'a str>) -> String {
    let mut ids: Vec<&str> = ids.into_iter().collect();
    ids.sort_unstable();
    let mut hasher = blake3::Hasher::new_derive_key("argent eval cohort 1");
    for id in ids {
        hasher.update(&(id.len() as u64).to_le_bytes());
        hasher.update(id.as_bytes());
    }
    hasher.finalize().to_hex()[..16].to_owned()
}
