//! `labels.table`: labels that people or other systems made, from tabular files.

use std::collections::{BTreeMap, BTreeSet};

use argent_engine::operator::{ConfigFiles, FILES};
use argent_engine::{Inputs, Io, Operator, Port, Problem, Signature, column};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::findings;
use crate::ids::{IdReader, Ids};
use crate::label::{STATES, label_fields};
use crate::one_or_many::OneOrMany;
use crate::pseudonyms::{self, Pseudonymise, Pseudonyms};
use crate::tabular::{self, File, RowsBuilder};

/// Reads labels from CSV, TSV, JSON Lines and Parquet files: wide (a column per finding) or long.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LabelsTable {
    /// Glob patterns of the files, relative to the spec.
    #[schemars(extend("x-not-in-key" = "files enter the key by their content"))]
    pub path: OneOrMany,
    /// The column that names a row.
    pub id: String,
    /// How ids are normalised, and which further ids follow from them.
    #[serde(default)]
    pub ids: Option<Ids>,
    /// Ids that come in as pseudonyms: `[patient, id]`, or `{ columns: [patient, id], key: { env: NAME } }` for pseudonyms
    /// that are equal in several stores. An id out of which one of them could be read gets one too. Words of a text, a
    /// name in a report among them, stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pseudonymise: Option<Pseudonymise>,
    /// The finding pack: its findings' ids or names are the columns of a wide file.
    #[schemars(extend("x-not-in-key" = "the pack enters the key by its ids and names"))]
    pub findings: String,
    /// Of a long file: the columns of the finding and of its value.
    #[serde(default)]
    pub long: Option<Long>,
    /// Of a wide file with a column for each finding and location, named such as `nodule*left_upper`: what stands between
    /// the two, `*`. A finding is what it is at the location where it is most: present, uncertain, absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locations: Option<String>,
    /// What the cells mean: a cell's text, and the state that it stands for.
    pub values: BTreeMap<String, State>,
    /// Only the rows whose cells are these, by column.
    #[serde(default)]
    pub r#where: BTreeMap<String, OneOrMany>,
    #[serde(skip)]
    pack: Vec<(String, String)>,
}

/// The columns of a long file.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Long {
    /// The column of the finding's id or name.
    pub finding: String,
    /// The column of the value.
    pub value: String,
}

/// A label state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The finding is there.
    Present,
    /// The finding is not there.
    Absent,
    /// The writer was not sure.
    Uncertain,
    /// Nothing is said of it.
    NotMentioned,
}

impl State {
    fn name(self) -> &'static str {
        STATES[self as usize]
    }
}

/// A finding's id, or why there is none, and its state, or why it has none.
type FindingState = (Result<String, String>, Result<&'static str, String>);

/// The columns of a file that tell of findings.
enum Columns {
    /// The columns of the finding's name and of its value.
    Long(usize, usize),
    /// By finding its columns: one, or one for each location.
    Wide(Vec<(String, Vec<usize>)>),
}

impl LabelsTable {
    /// The finding's id from its id or name in a file.
    fn finding(&self, text: &str) -> Option<&str> {
        self.pack.iter().find(|(id, name)| id == text || name == text).map(|(id, _)| id.as_str())
    }

    fn places(&self) -> Vec<(Vec<String>, String)> {
        let at = |path: &[&str]| path.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>();
        let mut named = vec![(at(&["with", "id"]), self.id.clone())];
        if let Some(long) = &self.long {
            named.push((at(&["with", "long", "finding"]), long.finding.clone()));
            named.push((at(&["with", "long", "value"]), long.value.clone()));
        }
        named.extend(self.r#where.keys().map(|c| (at(&["with", "where", c]), c.clone())));
        named
    }

    fn wanted(&self, file: &File) -> anyhow::Result<bool> {
        for (name, allowed) in &self.r#where {
            let cell = file.record().cell(file.column(name)?).unwrap_or("");
            if !allowed.to_vec().iter().any(|a| a == cell) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Which columns of a file tell of findings.
    fn columns(&self, file: &File) -> anyhow::Result<Columns> {
        if let Some(long) = &self.long {
            return Ok(Columns::Long(file.column(&long.finding)?, file.column(&long.value)?));
        }
        let mut by_finding: Vec<(String, Vec<usize>)> = Vec::new();
        for (place, name) in file.columns().iter().enumerate() {
            let name = match &self.locations {
                Some(between) => name.split_once(between.as_str()).map_or("", |(finding, _)| finding),
                None => name,
            };
            let Some(finding) = self.finding(name) else { continue };
            match by_finding.iter_mut().find(|(known, _)| self.locations.is_some() && known == finding) {
                Some((_, places)) => places.push(place),
                None => by_finding.push((finding.to_owned(), vec![place])),
            }
        }
        if by_finding.is_empty() {
            anyhow::bail!("{file} has no column named as a finding of the pack");
        }
        Ok(Columns::Wide(by_finding))
    }

    /// The findings and states of one record.
    fn findings_of(&self, file: &File, columns: &Columns) -> Vec<FindingState> {
        let cell = |column: usize| file.record().cell(column);
        match columns {
            Columns::Long(finding, value) => {
                let finding = self.finding(cell(*finding).unwrap_or_default()).map(str::to_owned);
                let finding = finding.ok_or_else(|| "the finding is not in the pack".to_owned());
                vec![(finding, self.state(cell(*value)))]
            }
            Columns::Wide(by_finding) => {
                let state = |places: &[usize]| strongest(places.iter().map(|place| self.state(cell(*place))));
                by_finding.iter().map(|(finding, places)| (Ok(finding.clone()), state(places))).collect()
            }
        }
    }

    fn state(&self, cell: Option<&str>) -> Result<&'static str, String> {
        let cell = cell.unwrap_or("").trim();
        if let Some(state) = self.values.get(cell) {
            return Ok(state.name());
        }
        // Spreadsheets and data frames write whole numbers as 1.0.
        let number = cell.parse::<f64>().ok();
        let same = |text: &str| number.is_some() && text.parse::<f64>().ok() == number;
        match self.values.iter().find(|(text, _)| same(text)) {
            Some((_, state)) => Ok(state.name()),
            None if cell.is_empty() => Err("the cell is empty".to_owned()),
            None => Err("the cell holds a value that `values` does not name".to_owned()),
        }
    }
}

impl Operator for LabelsTable {
    fn ports(&self) -> Vec<Port> {
        vec![Port::files()]
    }

    fn patterns(&self) -> Vec<String> {
        self.path.to_vec()
    }

    fn load(&mut self, files: &mut ConfigFiles) -> Result<(), Vec<Problem>> {
        let pack = findings::load(files, "findings", &self.findings)?.pack;
        self.pack = pack.findings.iter().map(|f| (f.id.clone(), f.name.clone())).collect();
        files.uses("findings", json!(self.pack));
        pseudonyms::load(files, self.pseudonymise.as_mut())
    }

    fn signature(&self, inputs: &Inputs) -> Result<Signature, Vec<Problem>> {
        let ids = IdReader::new(self.ids.as_ref()).map_err(|e| vec![Problem::at(["with", "ids"], e)])?;
        let mut problems = tabular::missing_columns(inputs, &self.patterns(), &self.places());
        if self.locations.is_some() && self.long.is_some() {
            let problem =
                Problem::at(["with", "locations"], "`locations` is for a wide file, and `long` is given too");
            problems.push(problem.help("take one of them away"));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let fields = pseudonyms::fields(ids.fields(), &ids, self.pseudonymise.as_ref())?;
        let schema = column::schema(fields.into_iter().chain(label_fields()));
        Ok(Signature::new(schema, &["id", "finding"]).reads(FILES, ["digest"]).sees(FILES, ["path"]))
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        let ids = IdReader::new(self.ids.as_ref()).map_err(anyhow::Error::msg)?;
        let pseudonyms = Pseudonyms::new(io, &ids, self.pseudonymise.as_ref())?;
        let mut found = Found::default();
        tabular::each_file(io, |io, file| self.collect(io, (&ids, &pseudonyms), file, &mut found))?;
        let mut rows = RowsBuilder::new(io.schema("")?);
        for cells in found.settle(io) {
            rows.push(&cells.iter().map(|cell| Some(cell.as_str())).collect::<Vec<_>>());
        }
        io.emit("", rows.take()?)
    }
}

impl LabelsTable {
    /// Adds one file's labels.
    fn collect(
        &self,
        io: &mut Io,
        (ids, pseudonyms): (&IdReader, &Pseudonyms),
        file: &mut File,
        found: &mut Found,
    ) -> anyhow::Result<()> {
        let id_column = file.column(&self.id)?;
        let columns = self.columns(file)?;
        while file.next(io)? {
            if !self.wanted(file)? {
                continue;
            }
            let Some(mut row) = file.ids(io, ids, id_column) else { continue };
            pseudonyms.put(&mut row);
            for (finding, state) in self.findings_of(file, &columns) {
                found.add(&row, finding, state);
            }
        }
        Ok(())
    }
}

/// The state of a finding at the location where it is most; one that has no state could be anything.
fn strongest(states: impl Iterator<Item = Result<&'static str, String>>) -> Result<&'static str, String> {
    let mut all = Vec::new();
    for state in states {
        if state == Ok(State::Present.name()) {
            return state;
        }
        all.push(state);
    }
    let mut known = all.into_iter().collect::<Result<Vec<_>, String>>()?;
    let rank =
        |state: &&str| [State::Uncertain, State::Absent].iter().position(|s| s.name() == *state).unwrap_or(2);
    known.sort_by_key(rank);
    known.first().copied().ok_or_else(|| "the finding has no column".to_owned())
}

/// The labels of all files, and what is wrong with some of them. An id has one error row of each kind, which
/// names all the findings that it is about.
#[derive(Default)]
struct Found {
    /// By id and finding; none where rows contradict each other.
    labels: BTreeMap<(String, String), Option<Vec<String>>>,
    /// By id and reason: the findings that have no state.
    without_state: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
}

impl Found {
    fn add(&mut self, row: &[String], finding: Result<String, String>, state: Result<&'static str, String>) {
        let (finding, state) = match (finding, state) {
            (Ok(finding), Ok(state)) => (finding, state),
            (Ok(finding), Err(reason)) => return self.lacks_state(&row[0], reason, Some(finding)),
            (Err(reason), _) => return self.lacks_state(&row[0], reason, None),
        };
        let mut cells = row.to_vec();
        cells.extend([finding.clone(), state.to_owned()]);
        let label = self.labels.entry((row[0].clone(), finding)).or_insert_with(|| Some(cells.clone()));
        // Nothing tells which of two rows is right, so that none of them is kept.
        if label.as_ref() != Some(&cells) {
            *label = None;
        }
    }

    fn lacks_state(&mut self, id: &str, reason: String, finding: Option<String>) {
        self.without_state.entry(id.to_owned()).or_default().entry(reason).or_default().extend(finding);
    }

    /// The labels that all rows agree on; the others become error rows.
    fn settle(self, io: &mut Io) -> Vec<Vec<String>> {
        for (id, reasons) in self.without_state {
            let reasons: Vec<String> =
                reasons.into_iter().map(|(reason, findings)| about(&findings, &reason)).collect();
            io.fault(FILES, &id, "value", reasons.join("; "));
        }
        let mut agreed = Vec::new();
        let mut disputed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for ((id, finding), cells) in self.labels {
            match cells {
                Some(cells) => agreed.push(cells),
                None => drop(disputed.entry(id).or_default().insert(finding)),
            }
        }
        for (id, findings) in disputed {
            let reason = "rows of this id disagree, so none is kept; take the wrong ones away";
            io.fault(FILES, &id, "conflict", about(&findings, reason));
        }
        agreed
    }
}

/// A reason with the findings in front that it is about.
fn about(findings: &BTreeSet<String>, reason: &str) -> String {
    if findings.is_empty() {
        return reason.to_owned();
    }
    format!("{}: {reason}", findings.iter().map(String::as_str).collect::<Vec<_>>().join(", "))
}
