//! Operators that make, read and shape labels: long tables with one row per subject and finding.

pub mod llm;
pub mod map;
pub mod merge;
pub mod policy;
pub mod review;
pub mod rules;
pub mod table;
pub mod targets;

use arrow::datatypes::Field;

use argent_engine::column;

/// The states of a label: what a report says of a finding.
pub const STATES: [&str; 5] = ["present", "absent", "uncertain", "not_mentioned", "failed"];

/// The columns that every table of labels has behind its ids.
pub fn label_fields() -> Vec<Field> {
    vec![column::text("finding"), column::text("state")]
}
