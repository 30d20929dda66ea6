//! `label.map`: labels or predictions on one set of findings to another.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use argent_engine::joining::texts;
use argent_engine::operator::{ConfigFiles, nearest};
use argent_engine::{Inputs, Io, Needed, Operator, Port, Problem, Signature, column};
use argent_reports::Mapping;
use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch, StringArray};
use arrow::datatypes::Float64Type;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::findings;
use crate::label::STATES;

/// Makes labels or predictions on one set of findings from those on another. A finding that is made from several is
/// the strongest of them: of scores the highest, of states `present` before `uncertain` before `absent` before
/// `not_mentioned`; one that failed makes it `failed` unless another is `present`. Findings that nothing is made from
/// keep their ids unless they are dropped.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LabelMap {
    /// By finding of the new set: what it is made from.
    #[serde(default)]
    pub map: BTreeMap<String, Source>,
    /// Findings that are left out; `*` is all that nothing is made from.
    #[serde(default)]
    pub drop: Vec<String>,
    /// The finding pack of the new set, which holds mappings.
    #[serde(default)]
    #[schemars(extend("x-not-in-key" = "the pack enters the key by the mapping"))]
    pub findings: Option<String>,
    /// The name of one of the pack's mappings, in place of `map` and `drop`.
    #[serde(default)]
    pub mapping: Option<String>,
    #[serde(skip)]
    loaded: Option<Mapping>,
}

/// What a finding is made from.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The findings of the old set.
    pub any_of: Vec<String>,
    /// How several become one.
    #[serde(default)]
    pub merge: Merge,
}

/// How several become one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Merge {
    /// The strongest.
    #[default]
    Max,
}

/// All findings that nothing is made from, under `drop`.
const OTHERS: &str = "*";

/// The states from the strongest to the weakest.
const STRENGTH: [&str; 5] = ["present", "failed", "uncertain", "absent", "not_mentioned"];

impl Operator for LabelMap {
    fn ports(&self) -> Vec<Port> {
        vec![Port::new("labels", "Labels, or predictions.", &[Needed::text("id"), Needed::text("finding")])]
    }

    fn load(&mut self, files: &mut ConfigFiles) -> Result<(), Vec<Problem>> {
        let Some(path) = &self.findings else { return Ok(()) };
        let pack = findings::load(files, "findings", path)?.pack;
        let Some(name) = &self.mapping else { return Ok(()) };
        let Some(mapping) = pack.maps.get(name) else {
            let names: Vec<&str> = pack.maps.keys().map(String::as_str).collect();
            let problem = Problem::at(["with", "mapping"], format!("`{path}` has no mapping `{name}`"));
            return Err(vec![problem.help(nearest(name, &names, "mappings"))]);
        };
        files.uses("findings", json!(mapping));
        self.loaded = Some(mapping.clone());
        Ok(())
    }

    fn signature(&self, inputs: &Inputs) -> Result<Signature, Vec<Problem>> {
        let kept = kept_columns(inputs);
        let problems: Vec<Problem> =
            self.problems().into_iter().chain(kept.as_ref().err().cloned()).collect();
        let Ok(kept) = kept else { return Err(problems) };
        if !problems.is_empty() {
            return Err(problems);
        }
        let schema = &inputs.port("labels").schema;
        let ids = ids(inputs);
        let own = kept.iter().filter_map(|name| schema.field_with_name(name).ok().cloned());
        let fields = ids.iter().map(|name| column::id(name)).chain([column::text("finding")]).chain(own);
        let read = ids.iter().map(String::as_str).chain(["finding"]).chain(kept.iter().copied());
        Ok(Signature::new(column::schema(fields), &["id", "finding"])
            .reads("labels", read.collect::<Vec<_>>()))
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        let table = io.input("labels")?.clone();
        let rows = Rows::new(&table)?;
        let mapping = self.mapping();
        let plan = plan(&mapping, &rows.findings)?;
        let schema = io.schema("")?;
        let ids = column::names_with_role(&schema, "id");
        let mut out = Out::new(&table, &ids)?;
        for (id, of_id) in &rows.by_id {
            for (target, sources) in &plan {
                let found: Vec<usize> = sources.iter().filter_map(|s| of_id.get(*s).copied()).collect();
                let made = rows.merged(&found, found.len() < sources.len());
                match made {
                    Some(made) => out.push(target, found[0], made),
                    None if found.is_empty() && sources == &[*target] => {}
                    None => {
                        let lacking = sources.len() - found.len();
                        let message = format!(
                            "{lacking} of the {} findings that make a finding are not there",
                            sources.len()
                        );
                        io.fault("labels", id, "missing", message);
                    }
                }
            }
        }
        io.emit("", out.batch(schema)?)
    }
}

impl LabelMap {
    fn mapping(&self) -> Mapping {
        self.loaded.clone().unwrap_or_else(|| Mapping {
            from: self.map.iter().map(|(target, source)| (target.clone(), source.any_of.clone())).collect(),
            drop: self.drop.clone(),
        })
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let own = !self.map.is_empty() || !self.drop.is_empty();
        match (&self.findings, &self.mapping) {
            (None, Some(_)) => {
                let problem = Problem::at(["with", "mapping"], "`mapping` is named and no pack that has it");
                problems.push(problem.help("name the pack with `findings`"));
            }
            (Some(_), None) => {
                let problem = Problem::at(["with", "findings"], "a pack is named and none of its mappings");
                problems.push(problem.help("name one with `mapping`"));
            }
            (Some(_), Some(_)) if own => {
                let problem = Problem::at(
                    ["with", "mapping"],
                    "`mapping` is named beside `map` or `drop`; one of them is enough",
                );
                problems.push(problem.help("take `map` and `drop` away"));
            }
            (None, None) if !own => {
                let problem = Problem::at(["with"], "nothing says what becomes of the findings");
                problems.push(
                    problem.help("add map: { target: { any_of: [source, …] } }, or a pack's `mapping`"),
                );
            }
            _ => {}
        }
        for target in self.map.iter().filter(|(_, source)| source.any_of.is_empty()).map(|(target, _)| target)
        {
            problems.push(Problem::at(
                ["with", "map", target],
                "`any_of` is empty: the finding is made from nothing",
            ));
        }
        problems
    }
}

/// The id columns of the labels, `id` first. A column that is mapped is none, whatever it was upstream.
fn ids(inputs: &Inputs) -> Vec<String> {
    let names = column::names_with_role(&inputs.port("labels").schema, "id").into_iter();
    let others =
        names.filter(|name| !["id", "finding", "state", "score", "evidence"].contains(&name.as_str()));
    std::iter::once("id".to_owned()).chain(others).collect()
}

/// The columns that are mapped: the state with its score and evidence, or the score of predictions.
fn kept_columns(inputs: &Inputs) -> Result<Vec<&'static str>, Problem> {
    let schema = &inputs.port("labels").schema;
    let has = |name: &&str| schema.field_with_name(name).is_ok();
    let kept: Vec<&str> = ["state", "score", "evidence"].into_iter().filter(has).collect();
    match kept.first() {
        Some(&("state" | "score")) => {
            Ok(kept.into_iter().filter(|n| *n != "evidence" || has(&"state")).collect())
        }
        _ => Err(Problem::at(["from", "labels"], "the table has neither `state` nor `score`")),
    }
}

/// By finding of the new set, in order: the findings of the old set that it is made from.
fn plan<'a>(
    mapping: &'a Mapping,
    findings: &BTreeSet<&'a str>,
) -> anyhow::Result<BTreeMap<&'a str, Vec<&'a str>>> {
    let used: BTreeSet<&str> = mapping.from.values().flatten().map(String::as_str).collect();
    let names: Vec<&str> = findings.iter().copied().collect();
    for name in used.iter().copied().chain(mapping.drop.iter().map(String::as_str)) {
        ensure!(
            findings.contains(name) || name == OTHERS,
            "the labels have no finding `{name}`; {}",
            nearest(name, &names, "findings")
        );
    }
    let drops_others = mapping.drop.iter().any(|name| name == OTHERS);
    let dropped = |name: &str| drops_others || mapping.drop.iter().any(|drop| drop == name);
    let mut plan: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (target, sources) in &mapping.from {
        plan.insert(target, sources.iter().map(String::as_str).collect());
    }
    for finding in findings.iter().filter(|finding| !used.contains(**finding) && !dropped(finding)) {
        if plan.insert(finding, vec![finding]).is_some() {
            bail!("`{finding}` is made from others and is there itself: name it among them, or under `drop`");
        }
    }
    Ok(plan)
}

/// The rows of a table of labels or predictions.
struct Rows<'a> {
    findings: BTreeSet<&'a str>,
    /// By id and finding: the row.
    by_id: BTreeMap<&'a str, BTreeMap<&'a str, usize>>,
    states: Option<&'a StringArray>,
    scores: Option<&'a Float64Array>,
}

/// What a finding of the new set becomes: the place of the row that decides it, its state and its score.
struct Made {
    decided_by: usize,
    state: Option<&'static str>,
    score: Option<f64>,
}

impl<'a> Rows<'a> {
    fn new(table: &'a RecordBatch) -> anyhow::Result<Rows<'a>> {
        let (ids, findings) = (texts(table, "id")?, texts(table, "finding")?);
        let mut by_id: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
        for row in 0..table.num_rows() {
            let before = by_id.entry(ids.value(row)).or_default().insert(findings.value(row), row);
            ensure!(
                before.is_none(),
                "two rows of the labels have one id and finding; take one of them away"
            );
        }
        let states = table.column_by_name("state").map(|_| texts(table, "state")).transpose()?;
        let scores = table.column_by_name("score");
        let scores =
            scores.map(|s| s.as_primitive_opt::<Float64Type>().context("`score` does not hold numbers"));
        let findings = (0..table.num_rows()).map(|row| findings.value(row)).collect();
        Ok(Rows { findings, by_id, states, scores: scores.transpose()? })
    }

    /// The strongest of some rows; none where there is none, or where one that is not there could be stronger.
    fn merged(&self, rows: &[usize], some_lack: bool) -> Option<Made> {
        let strength = |row: usize| {
            let state = self.states?.is_valid(row).then(|| self.states.map_or("", |s| s.value(row)));
            STRENGTH.iter().position(|s| Some(*s) == state)
        };
        let score_of = |row: usize| self.scores.filter(|s| s.is_valid(row)).map(|s| s.value(row));
        let highest = || {
            let scores: Option<Vec<f64>> = rows.iter().map(|row| score_of(*row)).collect();
            scores.and_then(|scores| scores.into_iter().reduce(f64::max))
        };
        if self.states.is_none() {
            let score = highest()?;
            let decided_by = rows.iter().copied().find(|row| score_of(*row) == Some(score))?;
            return (!some_lack).then_some(Made { decided_by, state: None, score: Some(score) });
        }
        // A state that is none of the known ones is no state: what it could have been is not known.
        let ranked = rows.iter().map(|row| (strength(*row).unwrap_or(1), *row));
        let (rank, decided_by) = ranked.min_by_key(|(rank, _)| *rank)?;
        let state = STRENGTH[rank];
        if some_lack && state != STATES[0] {
            return None;
        }
        let score = if state == STATES[4] { None } else { highest() };
        Some(Made { decided_by, state: Some(state), score })
    }
}

/// The rows of the result.
struct Out<'a> {
    ids: Vec<&'a StringArray>,
    evidence: Option<&'a StringArray>,
    has_state: bool,
    has_score: bool,
    rows: Vec<(String, usize, Made)>,
}

impl<'a> Out<'a> {
    fn new(table: &'a RecordBatch, ids: &[String]) -> anyhow::Result<Out<'a>> {
        let has = |name: &str| table.column_by_name(name).is_some();
        Ok(Out {
            ids: ids.iter().map(|name| texts(table, name)).collect::<anyhow::Result<_>>()?,
            evidence: has("evidence").then(|| texts(table, "evidence")).transpose()?,
            has_state: has("state"),
            has_score: has("score"),
            rows: Vec::new(),
        })
    }

    fn push(&mut self, finding: &str, first: usize, made: Made) {
        self.rows.push((finding.to_owned(), first, made));
    }

    fn batch(self, schema: arrow::datatypes::SchemaRef) -> anyhow::Result<RecordBatch> {
        let mut columns: Vec<ArrayRef> = Vec::new();
        for ids in &self.ids {
            let cells = self.rows.iter().map(|(_, first, _)| ids.value(*first));
            columns.push(Arc::new(StringArray::from_iter_values(cells)));
        }
        columns.push(Arc::new(StringArray::from_iter_values(self.rows.iter().map(|(finding, ..)| finding))));
        if self.has_state {
            columns.push(Arc::new(self.rows.iter().map(|(.., made)| made.state).collect::<StringArray>()));
        }
        if self.has_score {
            columns.push(Arc::new(self.rows.iter().map(|(.., made)| made.score).collect::<Float64Array>()));
        }
        if let Some(evidence) = self.evidence {
            let cells = self.rows.iter().map(|(.., made)| {
                evidence.is_valid(made.decided_by).then(|| evidence.value(made.decided_by))
            });
            columns.push(Arc::new(cells.collect::<StringArray>()));
        }
        Ok(RecordBatch::try_new(schema, columns)?)
    }
}
