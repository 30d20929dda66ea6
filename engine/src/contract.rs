//! What a contract's answer says of the result that it watches.

use argent_cache::{Manifest, Store};
use arrow::array::AsArray;

/// Whether a contract holds, by the result of its query: one row that is true. Null does not hold.
pub(crate) fn holds(store: &Store, answer: &Manifest) -> anyhow::Result<bool> {
    let answer = store.read_table(&answer.outputs[""], None)?;
    let truth = answer.column(0).as_boolean_opt();
    Ok(truth.is_some_and(|cells| cells.len() == 1 && cells.iter().all(|cell| cell == Some(true))))
}

/// The word about a contract that does not hold.
pub(crate) fn breach(sql: &str) -> String {
    format!("the contract does not hold: {sql}")
}
