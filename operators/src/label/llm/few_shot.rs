//! Labelled examples in the prompt: which ones, and that none of them gives away what is measured.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{bail, ensure};
use argent_engine::joining::texts;
use argent_engine::{Inputs, Io, Needed, Port, Problem, column};
use arrow::array::{Array, RecordBatch, StringArray};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::question::ASKED;
use super::{LabelLlm, Mode};
use crate::train::classifier::part_by_id;

/// Labelled examples that a prompt shows.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FewShot {
    /// How many.
    #[schemars(range(min = 1, max = 64))]
    pub shots: usize,
    /// The part that they are taken from. One whose text, or whose patient, is in another part too fails the step.
    #[serde(default = "train")]
    pub part: String,
    /// The seed of the order in which equally good examples are taken.
    #[serde(default)]
    pub seed: u64,
}

fn train() -> String {
    "train".into()
}

/// The ports that examples come from.
const PORTS: [&str; 3] = ["examples", "truth", "split"];

/// The ports of labelled examples.
pub(super) fn ports() -> Vec<Port> {
    let port = |name, doc, columns: &[Needed]| Port { optional: true, ..Port::new(name, doc, columns) };
    vec![
        port("examples", "Reports that `few_shot` may show.", &[Needed::text("id")]),
        port(
            "truth",
            "The states that `few_shot` shows for them.",
            &[Needed::text("id"), Needed::text("finding"), Needed::text("state")],
        ),
        port(
            "split",
            "Their parts, as `split.groups` makes them.",
            &[Needed::text("id"), Needed::text("part")],
        ),
    ]
}

/// The examples of a step, in the order in which they are shown.
#[derive(Default)]
pub(crate) struct Examples {
    shots: usize,
    all: Vec<Example>,
    /// By finding, or for all together: places among all, one more than is shown.
    chosen: BTreeMap<Option<String>, Vec<usize>>,
}

struct Example {
    id: String,
    /// By section: its text.
    report: BTreeMap<String, String>,
    /// By finding: its state.
    states: BTreeMap<String, String>,
}

impl Example {
    fn text(&self) -> Vec<(&str, &str)> {
        self.report.iter().map(|(section, text)| (section.as_str(), text.as_str())).collect()
    }
}

impl Examples {
    /// The examples for one report, as a prompt sees them: `report`, `states` and `answer`, the object that a model
    /// would answer. A report that is an example itself is not shown its own answer.
    pub(super) fn shown(&self, report: &[(&str, &str)], finding: Option<&str>) -> Value {
        let mut own = report.to_vec();
        own.sort_unstable();
        let chosen = self.chosen.get(&finding.map(str::to_owned)).into_iter().flatten();
        let shown = chosen.map(|place| &self.all[*place]).filter(|example| example.text() != own);
        let example = |example: &Example| {
            let states: BTreeMap<&String, &String> = example
                .states
                .iter()
                .filter(|(id, _)| finding.is_none_or(|finding| finding == *id))
                .collect();
            json!({ "report": example.report, "states": states, "answer": json!(states).to_string() })
        };
        shown.take(self.shots).map(example).collect()
    }
}

impl LabelLlm {
    /// What is amiss between `few_shot`, its ports and the prompt.
    pub(super) fn few_shot_problems(&self, inputs: &Inputs, shown: bool) -> Vec<Problem> {
        let wired: Vec<&str> = PORTS.into_iter().filter(|port| inputs.ports.contains_key(*port)).collect();
        let mut problems = Vec::new();
        if self.few_shot.is_none() {
            if let Some(port) = wired.first() {
                let problem = Problem::at(["from", port], format!("`{port}` is read for `few_shot` alone"));
                problems.push(problem.help("add `few_shot: { shots: 3 }`, or take the port away"));
            }
            return problems;
        }
        for port in PORTS.iter().filter(|port| !wired.contains(port)) {
            let message = format!("`few_shot` needs the port `{port}`, and nothing fills it");
            let help = "it reads `examples` (reports), `truth` (their labels) and `split` (their parts)";
            problems.push(Problem::at(["with", "few_shot"], message).help(help));
        }
        if !shown {
            let problem =
                self.loaded().prompt.problem(0..0, "`few_shot` is set, and the prompt shows no `examples`");
            let help =
                "{% for example in examples %}{{ example.report.findings }} {{ example.answer }}{% endfor %}";
            problems.push(problem.help(format!("show them, as in `{help}`")));
        }
        if self.evidence {
            let message = "examples have no evidence to show, so they would teach to quote nothing";
            problems
                .push(Problem::at(["with", "evidence"], message).help("take `evidence` or `few_shot` away"));
        }
        if problems.is_empty() {
            for port in ["truth", "split"] {
                let on = inputs.port(port).on.as_str();
                problems.extend(inputs.missing("examples", &[on]));
            }
        }
        problems
    }

    /// The columns that are read of each port of examples.
    pub(super) fn few_shot_columns(
        &self,
        inputs: &Inputs,
        sections: &[String],
    ) -> Vec<(&'static str, BTreeSet<String>)> {
        if self.few_shot.is_none() {
            return Vec::new();
        }
        let on = |port: &str| inputs.port(port).on.clone();
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let patient = inputs.port("examples").schema.field_with_name("patient").is_ok();
        let examples = sections
            .iter()
            .cloned()
            .chain(own(&["id"]))
            .chain([on("truth"), on("split")])
            .chain(patient.then(|| "patient".to_owned()));
        let truth = own(&["finding", "state"]).into_iter().chain([on("truth")]);
        let split = own(&["part"]).into_iter().chain([on("split")]);
        vec![("examples", examples.collect()), ("truth", truth.collect()), ("split", split.collect())]
    }

    /// The examples of this step; none without `few_shot`.
    ///
    /// # Errors
    /// When there are too few, or one of them stands in another part too.
    pub(crate) fn examples(&self, io: &Io) -> anyhow::Result<Examples> {
        let Some(few_shot) = &self.few_shot else { return Ok(Examples::default()) };
        let (table, truth) = (io.input("examples")?, io.input("truth")?);
        let parts = part_by_id(io.input("split")?, io.on("split"))?;
        let all = Table::new(self, io, table)?;
        let states = states_by_id(truth, io.on("truth"))?;
        let ids = &self.loaded().ids;
        let mut candidates = all.candidates(&parts, &few_shot.part, &states, ids)?;
        candidates.sort_by_cached_key(|example| order(few_shot.seed, &example.id));
        let mut seen = BTreeSet::new();
        candidates.retain(|example| seen.insert(example.report.clone()));
        let needed = few_shot.shots;
        ensure!(
            candidates.len() >= needed,
            "the part `{}` has {} different reports with a truth for every finding, expected at least {needed} \
             examples; ask for fewer `shots`, or label more",
            few_shot.part,
            candidates.len(),
        );
        let chosen = chosen(&candidates, self.mode, ids, needed + 1);
        let shown: BTreeSet<usize> = chosen.values().flatten().copied().collect();
        all.refuse_leaks(&parts, &few_shot.part, shown.iter().map(|place| &candidates[*place]))?;
        Ok(Examples { shots: needed, all: candidates, chosen })
    }
}

/// The reports that examples are taken from.
struct Table<'a> {
    ids: &'a StringArray,
    by_truth: &'a StringArray,
    by_split: &'a StringArray,
    patients: Option<&'a StringArray>,
    sections: Vec<(String, &'a StringArray)>,
}

impl<'a> Table<'a> {
    fn new(step: &LabelLlm, io: &Io, table: &'a RecordBatch) -> anyhow::Result<Table<'a>> {
        let schema = table.schema();
        let names = step.sections.clone().unwrap_or_else(|| column::names_with_role(&schema, "section"));
        let sections = names.into_iter().map(|name| Ok((name.clone(), texts(table, &name)?)));
        Ok(Table {
            ids: texts(table, "id")?,
            by_truth: texts(table, io.on("truth"))?,
            by_split: texts(table, io.on("split"))?,
            patients: texts(table, "patient").ok(),
            sections: sections.collect::<anyhow::Result<_>>()?,
        })
    }

    fn report(&self, row: usize) -> BTreeMap<String, String> {
        let written = self.sections.iter().filter(|(_, cells)| cells.is_valid(row));
        written.map(|(name, cells)| (name.clone(), cells.value(row).to_owned())).collect()
    }

    /// The reports of a part that have a text, and a state for every finding.
    fn candidates(
        &self,
        parts: &HashMap<String, String>,
        part: &str,
        states: &HashMap<&str, BTreeMap<&str, &str>>,
        findings: &[String],
    ) -> anyhow::Result<Vec<Example>> {
        let mut all = Vec::new();
        for row in 0..self.ids.len() {
            if parts.get(self.by_split.value(row)).is_none_or(|of| of != part) {
                continue;
            }
            let Some(known) = states.get(self.by_truth.value(row)) else { continue };
            let state = |id: &String| Some((id.clone(), (*known.get(id.as_str())?).to_owned()));
            let Some(states) = findings.iter().map(state).collect::<Option<BTreeMap<_, _>>>() else {
                continue;
            };
            let report = self.report(row);
            if !report.is_empty() {
                all.push(Example { id: self.ids.value(row).to_owned(), report, states });
            }
        }
        ensure!(!all.is_empty(), "no report of the part `{part}` has a truth for every finding");
        Ok(all)
    }

    /// Refuses examples whose text or patient is in another part than theirs.
    fn refuse_leaks<'e>(
        &self,
        parts: &HashMap<String, String>,
        part: &str,
        examples: impl Iterator<Item = &'e Example>,
    ) -> anyhow::Result<()> {
        let rows: HashMap<&str, usize> = (0..self.ids.len()).map(|row| (self.ids.value(row), row)).collect();
        let (mut texts, mut patients) = (BTreeSet::new(), BTreeSet::new());
        let mut count = 0;
        for example in examples {
            count += 1;
            texts.insert(example.report.clone());
            let patient = self.patients.zip(rows.get(example.id.as_str()));
            patients.extend(patient.map(|(patients, row)| patients.value(*row)));
        }
        let (mut by_text, mut by_patient, mut elsewhere) = (0, 0, BTreeSet::new());
        for row in 0..self.ids.len() {
            let Some(other) = parts.get(self.by_split.value(row)).filter(|other| *other != part) else {
                continue;
            };
            let same_text = texts.contains(&self.report(row));
            let same_patient =
                self.patients.is_some_and(|all| all.is_valid(row) && patients.contains(all.value(row)));
            by_text += usize::from(same_text);
            by_patient += usize::from(same_patient && !same_text);
            if same_text || same_patient {
                elsewhere.insert(other.as_str());
            }
        }
        if by_text + by_patient > 0 {
            let elsewhere: Vec<&str> = elsewhere.into_iter().collect();
            bail!(
                "the {count} examples of the part `{part}` leak: {by_text} reports of `{}` have the text of one, and \
                 {by_patient} are of the same patient; split by patient and by text, or give another `seed`",
                elsewhere.join("`, `")
            );
        }
        Ok(())
    }
}

/// By id: the states of findings that a model may be shown.
fn states_by_id<'a>(
    truth: &'a RecordBatch,
    on: &str,
) -> anyhow::Result<HashMap<&'a str, BTreeMap<&'a str, &'a str>>> {
    let (ids, findings, states) = (texts(truth, on)?, texts(truth, "finding")?, texts(truth, "state")?);
    let mut all: HashMap<&str, BTreeMap<&str, &str>> = HashMap::new();
    for row in (0..truth.num_rows()).filter(|row| states.is_valid(*row)) {
        if ASKED.contains(&states.value(row)) {
            all.entry(ids.value(row)).or_default().insert(findings.value(row), states.value(row));
        }
    }
    Ok(all)
}

/// A place in an order that depends on the seed and the id alone, so that a new report moves no other.
fn order(seed: u64, id: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("argent label.llm few_shot 1");
    hasher.update(&seed.to_le_bytes());
    hasher.update(id.as_bytes());
    *hasher.finalize().as_bytes()
}

/// Of candidates in their order: those that together show the most states of findings, each state of each finding
/// first once, then twice, and so on.
fn chosen(
    candidates: &[Example],
    mode: Mode,
    findings: &[String],
    count: usize,
) -> BTreeMap<Option<String>, Vec<usize>> {
    match mode {
        Mode::Joint => BTreeMap::from([(None, covering(candidates, findings, count))]),
        Mode::PerFinding => findings
            .iter()
            .map(|finding| {
                (Some(finding.clone()), covering(candidates, std::slice::from_ref(finding), count))
            })
            .collect(),
    }
}

fn covering(candidates: &[Example], findings: &[String], count: usize) -> Vec<usize> {
    let mut left: Vec<usize> = (0..candidates.len()).collect();
    let (mut taken, mut shown) = (Vec::new(), HashMap::new());
    while taken.len() < count && !left.is_empty() {
        let gain = |place: &usize| -> f64 {
            let states =
                findings.iter().filter_map(|finding| candidates[*place].states.get_key_value(finding));
            states.map(|cell| 1.0 / f64::from(1 + shown.get(&cell).copied().unwrap_or(0_u32)).exp2()).sum()
        };
        // Of equal gains the first in the order.
        let best =
            left.iter().enumerate().max_by(|(i, a), (j, b)| gain(a).total_cmp(&gain(b)).then(j.cmp(i)));
        let Some((position, _)) = best else { break };
        let place = left.remove(position);
        for finding in findings {
            if let Some(cell) = candidates[place].states.get_key_value(finding) {
                *shown.entry(cell).or_insert(0) += 1;
            }
        }
        taken.push(place);
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(id: &str, effusion: &str, nodule: &str) -> Example {
        let states = [("effusion", effusion), ("nodule", nodule)];
        Example {
            id: id.into(),
            report: BTreeMap::from([("findings".to_owned(), format!("text of {id}"))]),
            states: states.map(|(finding, state)| (finding.to_owned(), state.to_owned())).into(),
        }
    }

    #[test]
    fn examples_show_as_many_states_as_they_can() {
        let candidates = [
            example("a", "absent", "absent"),
            example("b", "absent", "absent"),
            example("c", "absent", "present"),
            example("d", "present", "absent"),
        ];
        let findings = ["effusion".to_owned(), "nodule".to_owned()];
        assert_eq!(covering(&candidates, &findings, 3), [0, 2, 3]);
        assert_eq!(covering(&candidates, &findings[1..], 2), [0, 2]);
        assert_eq!(covering(&candidates, &findings, 9), [0, 2, 3, 1]);
    }

    #[test]
    fn a_report_is_not_shown_its_own_answer() {
        let all = vec![example("a", "absent", "absent"), example("b", "present", "absent")];
        let examples = Examples { shots: 1, all, chosen: BTreeMap::from([(None, vec![0, 1])]) };
        let shown = |text: &str| examples.shown(&[("findings", text)], None)[0]["report"]["findings"].clone();
        assert_eq!(shown("another"), "text of a");
        assert_eq!(shown("text of a"), "text of b");
        assert_eq!(examples.shown(&[], None)[0]["answer"], r#"{"effusion":"absent","nodule":"absent"}"#);
    }
}
