//! `split.groups`: parts for training, validation and test, by group.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context, bail};
use argent_engine::joining::texts;
use argent_engine::operator::nearest;
use argent_engine::{Inputs, Io, Needed, Operator, Port, Problem, Signature, column};
use arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::predicate;

/// Divides groups (patients) into parts. A group's part is a function of the seed and its name alone, so that
/// new patients move nobody; groups of a `fixed` part are chosen by an SQL predicate.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SplitGroups {
    /// The column whose equal values stay together.
    pub by: String,
    /// The parts and their expected shares, which add up to 1.
    pub parts: BTreeMap<String, f64>,
    /// Parts whose groups are chosen by an SQL predicate over the table, before the shares are dealt.
    #[serde(default)]
    pub fixed: BTreeMap<String, String>,
    /// The seed.
    #[serde(default)]
    pub seed: u64,
}

impl SplitGroups {
    /// The part of a group: its hash, as a number in [0, 1), against the cumulated shares in the order of the
    /// parts' names.
    fn part(&self, group: &str) -> &str {
        let mut hasher = blake3::Hasher::new_derive_key("argent split.groups 1");
        hasher.update(&self.seed.to_le_bytes());
        hasher.update(group.as_bytes());
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        // 53 bits fill an f64's mantissa, so that every value is exact.
        let mut left = (u64::from_le_bytes(bytes) >> 11) as f64 / (1u64 << 53) as f64;
        let mut last = "";
        for (name, share) in &self.parts {
            last = name;
            if left < *share {
                break;
            }
            left -= share;
        }
        last
    }

    fn problems(&self, inputs: &Inputs) -> Vec<Problem> {
        let schema = &inputs.port("rows").schema;
        let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        let mut problems = Vec::new();
        if !names.contains(&self.by.as_str()) {
            let problem = Problem::at(["with", "by"], format!("the table has no column `{}`", self.by));
            problems.push(problem.help(nearest(&self.by, &names, "columns")));
        }
        let sum: f64 = self.parts.values().sum();
        if (sum - 1.0).abs() > 1e-9 || self.parts.values().any(|s| !(0.0..=1.0).contains(s)) {
            problems.push(Problem::at(["with", "parts"], format!("the shares add up to {sum}, expected 1")));
        }
        for (part, sql) in &self.fixed {
            if let Err(reason) = predicate::columns(sql, schema) {
                problems.push(Problem::at(["with", "fixed", part], reason));
            }
        }
        problems
    }
}

impl Operator for SplitGroups {
    fn ports(&self) -> Vec<Port> {
        vec![Port::new("rows", "Any table with ids and the group's column.", &[Needed::text("id")])]
    }

    fn signature(&self, inputs: &Inputs) -> Result<Signature, Vec<Problem>> {
        let problems = self.problems(inputs);
        if !problems.is_empty() {
            return Err(problems);
        }
        let schema = &inputs.port("rows").schema;
        let mut read = BTreeSet::from(["id".to_owned(), self.by.clone()]);
        for sql in self.fixed.values() {
            read.extend(
                predicate::columns(sql, schema).map_err(|e| vec![Problem::at(["with", "fixed"], e)])?,
            );
        }
        let group = Some(column::id(&self.by)).filter(|_| self.by != "id");
        let own = column::schema([column::id("id")].into_iter().chain(group).chain([column::text("part")]));
        Ok(Signature::new(own, &["id"]).reads("rows", read))
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        let rows = io.input("rows")?.clone();
        let groups = texts(&rows, &self.by)?;
        let mut parts: BTreeMap<&str, &str> = BTreeMap::new();
        for (part, sql) in &self.fixed {
            let chosen =
                predicate::evaluate(sql, &rows).with_context(|| format!("the predicate of `{part}`"))?;
            for row in (0..rows.num_rows()).filter(|row| chosen[*row] && groups.is_valid(*row)) {
                if parts.insert(groups.value(row), part).is_some_and(|p| p != part) {
                    bail!(
                        "a group belongs to two fixed parts, `{part}` and another; make the predicates exclude each other"
                    );
                }
            }
        }
        let ids = texts(&rows, "id")?;
        let mut dealt: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
        for row in 0..rows.num_rows() {
            if groups.is_null(row) {
                io.fault("rows", ids.value(row), "group", format!("`{}` is null", self.by));
                continue;
            }
            let group = groups.value(row);
            let part = *parts.entry(group).or_insert_with(|| self.part(group));
            if dealt.insert(ids.value(row), (group, part)).is_some_and(|(before, _)| before != group) {
                bail!(
                    "an id belongs to two groups of `{}`; every row of an id must name the same group",
                    self.by
                );
            }
        }
        io.emit("", self.table(io.schema("")?, &dealt)?)
    }
}

impl SplitGroups {
    fn table(&self, schema: SchemaRef, dealt: &BTreeMap<&str, (&str, &str)>) -> anyhow::Result<RecordBatch> {
        let column = |texts: Vec<&str>| Arc::new(StringArray::from(texts)) as ArrayRef;
        let mut columns = vec![column(dealt.keys().copied().collect())];
        if self.by != "id" {
            columns.push(column(dealt.values().map(|(group, _)| *group).collect()));
        }
        columns.push(column(dealt.values().map(|(_, part)| *part).collect()));
        Ok(RecordBatch::try_new(schema, columns)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(seed: u64) -> SplitGroups {
        let parts = BTreeMap::from([("test".to_owned(), 0.25), ("train".to_owned(), 0.75)]);
        SplitGroups { by: "patient".into(), parts, fixed: BTreeMap::new(), seed }
    }

    #[test]
    fn the_shares_come_out_and_the_seed_matters() {
        let groups: Vec<String> = (0..4000).map(|n| format!("patient {n}")).collect();
        let part = |seed| groups.iter().map(|g| split(seed).part(g).to_owned()).collect::<Vec<_>>();
        let tests = part(1).iter().filter(|p| *p == "test").count();
        assert!((900..1100).contains(&tests), "{tests}");
        assert_ne!(part(1), part(2));
        assert_eq!(part(1), part(1));
    }

    #[test]
    fn a_group_stays_where_it_is() {
        // Published splits must not move: these are values of the first release.
        let split = split(7);
        let names: Vec<String> = (1..=16).map(|n| format!("p{n}")).collect();
        let tests: Vec<&String> = names.iter().filter(|name| split.part(name) == "test").collect();
        assert_eq!(tests, ["p4", "p7", "p8", "p11", "p13", "p15"]);
    }
}
