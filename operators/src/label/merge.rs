//! `label.merge`: several labelings of the same reports to one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context, ensure};
use argent_engine::joining::texts;
use argent_engine::operator::nearest;
use argent_engine::{Inputs, Io, Operator, Port, Problem, Signature, column};
use argent_stats::{fleiss_kappa, krippendorff_alpha};
use arrow::array::{Array, ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Field;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::label::{STATES, label_fields};

/// Merges labelings, joined by id and finding: by vote, by a cascade (rules, then a model for what they leave
/// open), or by precedence (people before models). Each label says which labelings it came from and how many said
/// so. A failed label has no say: it is merged to `failed` only where nothing else is there.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LabelMerge {
    /// How one label comes of several.
    pub rule: Rule,
    /// By vote: what a state needs to win.
    #[serde(default)]
    pub votes: Votes,
    /// By cascade and by precedence: the names of all labelings under `from`, the first one first.
    #[serde(default)]
    pub order: Vec<String>,
    /// By cascade: the states that leave a label open for the next labeling.
    #[serde(default = "undecided")]
    pub undecided: Vec<AnyState>,
    /// What becomes of a label that some labelings have and others have not.
    #[serde(default)]
    pub missing: Missing,
}

/// How one label comes of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Each labeling has a vote.
    Vote,
    /// The first labeling that is decided; where none is, the last one that has not failed.
    Cascade,
    /// The first labeling that has the label and has not failed.
    Precedence,
}

/// What a state needs to win a vote. A vote without a winner gives `uncertain`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Votes {
    /// More votes than any other state.
    #[default]
    Majority,
    /// `present` wins with one vote; without one, as by majority.
    Any,
    /// All votes.
    Unanimous,
}

/// What becomes of a label that not every labeling has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// The labelings that have it decide.
    #[default]
    Skip,
    /// It is left out, and is an error row.
    Exclude,
}

/// A label's state, `failed` included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AnyState {
    /// The finding is there.
    Present,
    /// The finding is not there.
    Absent,
    /// The writer was not sure.
    Uncertain,
    /// Nothing is said of it.
    NotMentioned,
    /// There is no label.
    Failed,
}

fn undecided() -> Vec<AnyState> {
    vec![AnyState::Uncertain, AnyState::Failed]
}

const UNCERTAIN: usize = AnyState::Uncertain as usize;
const FAILED: usize = AnyState::Failed as usize;

/// One label of the result.
#[derive(Debug, PartialEq)]
struct Merged {
    /// Its place in [`STATES`].
    state: usize,
    /// The places of the labelings that it came from.
    sources: Vec<usize>,
}

impl LabelMerge {
    /// One label of several, which stand in the order of precedence; none where a labeling has no such row. The
    /// label is none where no labeling has one.
    fn merged(&self, states: &[Option<usize>]) -> Option<Merged> {
        let given = || states.iter().enumerate().filter_map(|(place, state)| Some((place, (*state)?)));
        let said = || given().filter(|(_, state)| *state != FAILED);
        let one = |(place, state): (usize, usize)| Merged { state, sources: vec![place] };
        let failed =
            || given().next().map(|_| Merged { state: FAILED, sources: given().map(|g| g.0).collect() });
        match self.rule {
            Rule::Precedence => said().next().map(one).or_else(failed),
            Rule::Cascade => {
                let open = |state: usize| self.undecided.iter().any(|s| *s as usize == state);
                let decided = said().find(|(_, state)| !open(*state));
                decided.or_else(|| said().next_back()).map(one).or_else(failed)
            }
            Rule::Vote => {
                let mut votes = [0; STATES.len()];
                said().for_each(|(_, state)| votes[state] += 1);
                let total: usize = votes.iter().sum();
                if total == 0 {
                    return failed();
                }
                let most = votes.iter().copied().max().unwrap_or(0);
                let winners: Vec<usize> = (0..FAILED).filter(|state| votes[*state] == most).collect();
                let state = match (self.votes, winners.as_slice()) {
                    (Votes::Any, _) if votes[0] > 0 => 0,
                    (Votes::Unanimous, _) if most < total => UNCERTAIN,
                    (_, [winner]) => *winner,
                    (_, _) => UNCERTAIN,
                };
                Some(Merged { state, sources: said().filter(|s| s.1 == state).map(|s| s.0).collect() })
            }
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<Problem> {
        let mut problems = Vec::new();
        let names: Vec<&str> = inputs.ports.keys().map(String::as_str).collect();
        if names.len() < 2 {
            problems.push(
                Problem::at(["from"], format!("{} labeling is there, expected two or more", names.len()))
                    .help("name them: from: { rules: rules, model: labels }"),
            );
        }
        for (name, input) in &inputs.ports {
            problems.extend(inputs.missing(name, &["id", "finding", "state"]));
            if input.on != "id" {
                let problem = Problem::at(["match", name], "labelings are joined by `id`");
                problems.push(problem.help("bring them to one id with `sql`"));
            }
        }
        let ordered = self.rule != Rule::Vote;
        if !ordered && !self.order.is_empty() {
            let problem = Problem::at(["with", "order"], "a vote has no order");
            problems.push(problem.help("take `order` away, or say `rule: precedence`"));
        }
        for (place, name) in
            self.order.iter().enumerate().filter(|(_, n)| ordered && !names.contains(&n.as_str()))
        {
            let path = ["with".to_owned(), "order".into(), place.to_string()];
            let problem = Problem::at(path, format!("`from` has no labeling `{name}`"));
            problems.push(problem.help(nearest(name, &names, "labelings")));
        }
        let named: BTreeSet<&str> = self.order.iter().map(String::as_str).collect();
        let unnamed: Vec<&str> = names.iter().copied().filter(|name| !named.contains(name)).collect();
        if ordered && !unnamed.is_empty() {
            let message = format!("`order` does not say where {} stands", unnamed.join(", "));
            problems.push(Problem::at(["with", "order"], message).help("list every labeling under `from`"));
        }
        problems
    }

    /// The names of the labelings, the first one first.
    fn names(&self, io: &Io) -> Vec<String> {
        if self.rule == Rule::Vote { io.ports() } else { self.order.clone() }
    }
}

impl Operator for LabelMerge {
    fn ports(&self) -> Vec<Port> {
        vec![Port::any("Labelings, by name: `id`, `finding`, `state`.")]
    }

    fn signature(&self, inputs: &Inputs) -> Result<Signature, Vec<Problem>> {
        let problems = self.problems(inputs);
        if !problems.is_empty() {
            return Err(problems);
        }
        let ids = common_ids(inputs);
        let own = label_fields().into_iter().chain([
            column::text("source"),
            column::whole("votes"),
            column::whole("labelings"),
        ]);
        let schema = column::schema(ids.iter().map(|name| column::id(name)).chain(own));
        let mut signature = Signature::new(schema, &["id", "finding"]).output(
            "agreement",
            column::schema(agreement_fields()),
            &["finding"],
        );
        let read: Vec<String> = ids.into_iter().chain(["finding", "state"].map(str::to_owned)).collect();
        for port in inputs.ports.keys() {
            signature = signature.reads(port, read.clone());
        }
        Ok(signature)
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        let names = self.names(io);
        let labels = Labels::read(io, &names)?;
        let ids: Vec<String> = labels.id_columns.clone();
        let mut columns: Vec<Vec<String>> = vec![Vec::new(); ids.len() + 3];
        let (mut votes, mut labelings) = (Vec::new(), Vec::new());
        for ((id, finding), states) in &labels.states {
            let lacking = states.iter().filter(|state| state.is_none()).count();
            if lacking > 0 && self.missing == Missing::Exclude {
                let message = format!("{lacking} of {} labelings have no label of a finding", names.len());
                io.fault("", id, "missing", message);
                continue;
            }
            let Some(merged) = self.merged(states) else { continue };
            let sources: Vec<&str> = merged.sources.iter().map(|place| names[*place].as_str()).collect();
            for (column, cell) in columns.iter_mut().zip(&labels.ids[id]) {
                column.push(cell.clone());
            }
            let own = [finding.clone(), STATES[merged.state].to_owned(), sources.join(" ")];
            for (column, cell) in columns[ids.len()..].iter_mut().zip(own) {
                column.push(cell);
            }
            let agreeing = states.iter().filter(|state| **state == Some(merged.state)).count();
            votes.push(agreeing as i64);
            labelings.push(states.iter().flatten().filter(|state| **state != FAILED).count() as i64);
        }
        let mut arrays: Vec<ArrayRef> =
            columns.into_iter().map(|cells| Arc::new(StringArray::from(cells)) as ArrayRef).collect();
        arrays.push(Arc::new(Int64Array::from(votes)));
        arrays.push(Arc::new(Int64Array::from(labelings)));
        io.emit("", RecordBatch::try_new(io.schema("")?, arrays)?)?;
        io.emit("agreement", agreement(io, &labels)?)
    }
}

/// The id columns that all labelings have, `id` first. A column that the merge makes is none, whatever it was upstream.
fn common_ids(inputs: &Inputs) -> Vec<String> {
    let of = |port: &str| column::names_with_role(&inputs.port(port).schema, "id");
    let mut ports = inputs.ports.keys();
    let first = ports.next().map(|port| of(port)).unwrap_or_default();
    let rest: Vec<Vec<String>> = ports.map(|port| of(port)).collect();
    let own = ["id", "finding", "state", "source", "votes", "labelings"];
    let common = first
        .into_iter()
        .filter(|name| !own.contains(&name.as_str()) && rest.iter().all(|ids| ids.contains(name)));
    std::iter::once("id".to_owned()).chain(common).collect()
}

/// The labels of all labelings.
struct Labels {
    id_columns: Vec<String>,
    /// By id: its cells in the id columns.
    ids: BTreeMap<String, Vec<String>>,
    /// By id and finding: the state that each labeling gives.
    states: BTreeMap<(String, String), Vec<Option<usize>>>,
}

impl Labels {
    fn read(io: &mut Io, names: &[String]) -> anyhow::Result<Labels> {
        let schema = io.schema("")?;
        let id_columns = column::names_with_role(&schema, "id");
        let mut labels = Labels { id_columns, ids: BTreeMap::new(), states: BTreeMap::new() };
        for (place, name) in names.iter().enumerate() {
            let table = io.input(name)?.clone();
            labels.add(io, name, &table, place, names.len())?;
        }
        let shared = labels.states.values().filter(|states| states.iter().flatten().count() > 1).count();
        ensure!(
            labels.states.is_empty() || shared > 0,
            "no label is in two labelings: their ids or findings have nothing in common"
        );
        Ok(labels)
    }

    fn add(
        &mut self,
        io: &mut Io,
        name: &str,
        table: &RecordBatch,
        place: usize,
        labelings: usize,
    ) -> anyhow::Result<()> {
        let (ids, findings, states) = (texts(table, "id")?, texts(table, "finding")?, texts(table, "state")?);
        let subjects: Vec<&StringArray> =
            self.id_columns.iter().map(|column| texts(table, column)).collect::<anyhow::Result<_>>()?;
        let mut disputed = BTreeSet::new();
        for row in 0..table.num_rows() {
            let state = states.is_valid(row).then(|| states.value(row));
            let state = STATES.iter().position(|s| Some(*s) == state).with_context(|| {
                format!("row {row} of `{name}` has a state that is not one of {}", STATES.join(", "))
            })?;
            let cells = || subjects.iter().map(|cells| cells.value(row).to_owned()).collect();
            self.ids.entry(ids.value(row).to_owned()).or_insert_with(cells);
            let key = (ids.value(row).to_owned(), findings.value(row).to_owned());
            let of_key = self.states.entry(key.clone()).or_insert_with(|| vec![None; labelings]);
            if of_key[place].is_some_and(|before| before != state) {
                disputed.insert(key);
            }
            of_key[place] = Some(state);
        }
        for key in disputed {
            io.fault(
                name,
                &key.0,
                "conflict",
                "rows of this id disagree on a finding; none of them has a say",
            );
            if let Some(of_key) = self.states.get_mut(&key) {
                of_key[place] = None;
            }
        }
        Ok(())
    }
}

fn agreement_fields() -> Vec<Field> {
    vec![
        column::text("finding"),
        column::whole("n"),
        column::number("observed"),
        column::number("fleiss_kappa"),
        column::number("krippendorff_alpha"),
    ]
}

/// Per finding, how far the labelings agree on the four states: `n` rows that two or more of them label, the share of
/// these on which all agree, Fleiss' kappa over the rows that all label, and Krippendorff's alpha.
fn agreement(io: &Io, labels: &Labels) -> anyhow::Result<RecordBatch> {
    let mut by_finding: BTreeMap<&str, Vec<Vec<u64>>> = BTreeMap::new();
    let mut labelings = 0;
    for ((_, finding), states) in &labels.states {
        labelings = states.len() as u64;
        let mut counts = vec![0; FAILED];
        states.iter().flatten().filter(|state| **state != FAILED).for_each(|state| counts[*state] += 1);
        by_finding.entry(finding).or_default().push(counts);
    }
    let (mut n, mut observed, mut fleiss, mut alpha) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for rows in by_finding.values() {
        let total = |counts: &Vec<u64>| counts.iter().sum::<u64>();
        let paired: Vec<&Vec<u64>> = rows.iter().filter(|counts| total(counts) > 1).collect();
        let equal = paired.iter().filter(|counts| counts.contains(&total(counts))).count();
        n.push(paired.len() as i64);
        observed.push((!paired.is_empty()).then(|| equal as f64 / paired.len() as f64));
        let whole: Vec<Vec<u64>> = rows.iter().filter(|counts| total(counts) == labelings).cloned().collect();
        fleiss.push(fleiss_kappa(&whole)?);
        alpha.push(krippendorff_alpha(rows)?);
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(by_finding.keys())),
        Arc::new(Int64Array::from(n)),
        Arc::new(Float64Array::from(observed)),
        Arc::new(Float64Array::from(fleiss)),
        Arc::new(Float64Array::from(alpha)),
    ];
    Ok(RecordBatch::try_new(io.schema("agreement")?, columns)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(parameters: serde_json::Value, states: &[&str]) -> (&'static str, Vec<usize>) {
        let operator: LabelMerge = serde_json::from_value(parameters).expect("reads");
        let places: Vec<Option<usize>> =
            states.iter().map(|state| STATES.iter().position(|s| s == state)).collect();
        let merged = operator.merged(&places).expect("some labeling has a label");
        (STATES[merged.state], merged.sources)
    }

    #[test]
    fn votes_are_counted_and_a_tie_is_uncertain() {
        let majority = |states: &[&str]| merged(json!({ "rule": "vote" }), states);
        assert_eq!(majority(&["present", "absent", "present"]), ("present", vec![0, 2]));
        assert_eq!(majority(&["present", "absent"]), ("uncertain", vec![]));
        assert_eq!(majority(&["present", "absent", "not_mentioned"]), ("uncertain", vec![]));
        assert_eq!(majority(&["failed", "failed", "present"]), ("present", vec![2]), "failures have no vote");
        assert_eq!(majority(&["failed", "failed", "-"]), ("failed", vec![0, 1]));
        let any = |states: &[&str]| merged(json!({ "rule": "vote", "votes": "any" }), states);
        assert_eq!(any(&["absent", "absent", "present"]), ("present", vec![2]));
        assert_eq!(any(&["absent", "absent", "uncertain"]), ("absent", vec![0, 1]));
        let unanimous = |states: &[&str]| merged(json!({ "rule": "vote", "votes": "unanimous" }), states);
        assert_eq!(unanimous(&["absent", "absent", "-"]), ("absent", vec![0, 1]));
        assert_eq!(unanimous(&["absent", "absent", "present"]), ("uncertain", vec![]));
    }

    #[test]
    fn a_cascade_takes_the_first_that_is_decided() {
        let cascade = |states: &[&str]| merged(json!({ "rule": "cascade" }), states);
        assert_eq!(cascade(&["absent", "present"]), ("absent", vec![0]));
        assert_eq!(cascade(&["uncertain", "present"]), ("present", vec![1]));
        assert_eq!(cascade(&["uncertain", "failed"]), ("uncertain", vec![0]), "a failure decides nothing");
        assert_eq!(cascade(&["uncertain", "uncertain"]), ("uncertain", vec![1]));
        assert_eq!(cascade(&["failed", "-"]), ("failed", vec![0]));
        let wide = json!({ "rule": "cascade", "undecided": ["not_mentioned", "uncertain", "failed"] });
        assert_eq!(merged(wide, &["not_mentioned", "present"]), ("present", vec![1]));
    }

    #[test]
    fn people_come_before_models() {
        let precedence = |states: &[&str]| merged(json!({ "rule": "precedence" }), states);
        assert_eq!(precedence(&["uncertain", "present"]), ("uncertain", vec![0]));
        assert_eq!(precedence(&["-", "present"]), ("present", vec![1]));
        assert_eq!(precedence(&["failed", "present"]), ("present", vec![1]));
    }
}
