//! `reports.table`: reports from tabular files.

use std::collections::BTreeMap;
use std::collections::hash_map::Entry;

use argent_cache::{Digest, DigestMap};
use argent_engine::operator::FILES;
use argent_engine::{Inputs, Io, Operator, Port, Problem, Signature, column};
use arrow::datatypes::Field;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{IdReader, Ids};
use crate::one_or_many::OneOrMany;
use crate::tabular::{self, File, Place, RowsBuilder};

/// Reads reports from CSV, TSV, JSON Lines and Parquet files, one report per row.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportsTable {
    /// Glob patterns of the files, relative to the spec.
    #[schemars(extend("x-not-in-key" = "files enter the key by their content"))]
    pub path: OneOrMany,
    /// The column that names a report.
    pub id: String,
    /// How ids are normalised, and which further ids follow from them.
    #[serde(default)]
    pub ids: Option<Ids>,
    /// The report's sections: the name that they get, and the column that they stand in.
    #[serde(default)]
    pub sections: BTreeMap<String, String>,
    /// The column of the whole report, where there are no sections; the section is named `text`.
    #[serde(default)]
    pub text: Option<String>,
    /// Cell texts that mean "nothing was written", such as `Not given.`
    #[serde(default)]
    pub empty: Vec<String>,
    /// Further columns to keep, as text.
    #[serde(default)]
    pub keep: Vec<String>,
}

impl ReportsTable {
    /// Section names and their columns.
    fn all_sections(&self) -> Vec<(&str, &str)> {
        let whole = self.text.as_deref().map(|column| ("text", column));
        self.sections.iter().map(|(name, column)| (name.as_str(), column.as_str())).chain(whole).collect()
    }

    fn fields(&self, ids: &IdReader) -> Vec<Field> {
        let sections = self.all_sections().into_iter();
        let sections = sections.map(|(name, _)| column::with_roles(column::phi(name), &["section"]));
        ids.fields()
            .into_iter()
            .chain(sections)
            .chain(self.keep.iter().map(|name| column::phi(name)))
            .collect()
    }

    fn named_columns(&self) -> Vec<(Vec<String>, String)> {
        let at = |path: &[&str]| path.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>();
        let mut named = vec![(at(&["with", "id"]), self.id.clone())];
        named.extend(self.sections.iter().map(|(n, c)| (at(&["with", "sections", n]), c.clone())));
        named.extend(self.text.iter().map(|c| (at(&["with", "text"]), c.clone())));
        named.extend(
            self.keep.iter().enumerate().map(|(i, c)| (at(&["with", "keep", &i.to_string()]), c.clone())),
        );
        named
    }
}

impl Operator for ReportsTable {
    fn ports(&self) -> Vec<Port> {
        vec![Port::files()]
    }

    fn patterns(&self) -> Vec<String> {
        self.path.to_vec()
    }

    fn signature(&self, inputs: &Inputs) -> Result<Signature, Vec<Problem>> {
        let ids = IdReader::new(self.ids.as_ref()).map_err(|e| vec![Problem::at(["with", "ids"], e)])?;
        let mut problems = tabular::missing_columns(inputs, &self.patterns(), &self.named_columns());
        if self.all_sections().is_empty() {
            problems.push(
                Problem::at(["with"], "no text is read: neither `sections` nor `text` is given")
                    .help("add sections: { findings: <column> }, or text: <column>"),
            );
        }
        let fields = self.fields(&ids);
        for (place, field) in fields.iter().enumerate() {
            if fields[..place].iter().any(|f| f.name() == field.name()) {
                problems.push(Problem::at(["with"], format!("two columns are named `{}`", field.name())));
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        // The path is seen only to open a file: a file that moves is the same file.
        Ok(Signature::new(column::schema(fields), &["id"]).reads(FILES, ["digest"]).sees(FILES, ["path"]))
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        let ids = IdReader::new(self.ids.as_ref()).map_err(anyhow::Error::msg)?;
        let mut claims = Claims::default();
        tabular::each_file(io, |io, file| self.collect(io, &ids, file, &mut claims))?;
        if claims.disputed.is_empty() {
            return Ok(());
        }
        // Rows were handed on as they came, so all are taken back, and handed on once more without those that turned
        // out to be contradicted.
        io.discard("");
        let mut again = Claims { disputed: claims.disputed, ..Claims::default() };
        tabular::each_file(io, |io, file| self.collect(io, &ids, file, &mut again))?;
        again.tell(io);
        Ok(())
    }
}

/// What the files say of the reports: of each the digest of its cells, so that a file may be larger than memory.
#[derive(Default)]
struct Claims {
    /// By digest of an id: the cells of its first row.
    first: DigestMap<Digest>,
    /// By digest of an id whose rows contradict each other: the id, and where its rows stand.
    disputed: DigestMap<(String, Vec<Place>)>,
}

/// What a row adds to what the files said before.
enum Said {
    New,
    /// The same again, or something that contradicts it; nothing to hand on.
    Known,
}

impl Claims {
    fn claim(&mut self, id: &str, cells: &[Option<&str>], place: Place) -> Said {
        let key = digest_of(&[Some(id)]);
        let cells = digest_of(cells);
        if let Some((_, places)) = self.disputed.get_mut(&key) {
            places.push(place);
            return Said::Known;
        }
        match self.first.entry(key) {
            Entry::Vacant(free) => {
                free.insert(cells);
                Said::New
            }
            Entry::Occupied(first) if *first.get() == cells => Said::Known,
            Entry::Occupied(_) => {
                self.disputed.insert(key, (id.to_owned(), Vec::new()));
                Said::Known
            }
        }
    }

    /// Of rows that contradict each other none is kept, because nothing tells which one is right; they are one
    /// error row.
    fn tell(self, io: &mut Io) {
        for (id, places) in self.disputed.into_values() {
            let places: Vec<String> = places.iter().map(Place::to_string).collect();
            let places = places.join(", ");
            let message = format!(
                "rows of this id have different cells ({places}), so none is kept; take the wrong ones away, or name \
                 a column of distinct ids"
            );
            io.fault(FILES, &id, "conflict", message);
        }
    }
}

/// The digest of some cells; it is compared within one run and kept nowhere.
fn digest_of(cells: &[Option<&str>]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for cell in cells {
        let length = cell.map_or(u64::MAX, |cell| cell.len() as u64);
        hasher.update(&length.to_le_bytes()).update(cell.unwrap_or("").as_bytes());
    }
    Digest::from(hasher.finalize())
}

/// Rows are handed on in pieces of about this many bytes of text.
const PIECE_BYTES: usize = 16 << 20;

impl ReportsTable {
    /// Hands on one file's reports.
    fn collect(
        &self,
        io: &mut Io,
        ids: &IdReader,
        file: &mut File,
        claims: &mut Claims,
    ) -> anyhow::Result<()> {
        let id_column = file.column(&self.id)?;
        let places = |columns: &mut dyn Iterator<Item = &str>| -> anyhow::Result<Vec<usize>> {
            columns.map(|name| file.column(name)).collect()
        };
        let texts = places(&mut self.all_sections().into_iter().map(|(_, column)| column))?;
        let kept = places(&mut self.keep.iter().map(String::as_str))?;
        let schema = column::schema(self.fields(ids));
        let mut rows = RowsBuilder::new(schema);
        while file.next(io)? {
            let Some(row) = file.ids(io, ids, id_column) else { continue };
            let record = file.record();
            let mut cells: Vec<Option<&str>> = Vec::with_capacity(row.len() + texts.len() + kept.len());
            cells.extend(row.iter().map(|id| Some(id.as_str())));
            cells.extend(texts.iter().map(|c| self.written(record.cell(*c))));
            cells.extend(kept.iter().map(|c| record.cell(*c)));
            if let Said::New = claims.claim(&row[0], &cells, file.place()) {
                rows.push(&cells);
            }
            if rows.bytes() >= PIECE_BYTES {
                io.emit("", rows.take()?)?;
            }
        }
        io.emit("", rows.take()?)
    }

    /// A section's text; null where the cell is empty or says that nothing was written.
    fn written<'c>(&self, cell: Option<&'c str>) -> Option<&'c str> {
        let text = cell?.trim();
        let nothing = text.is_empty() || self.empty.iter().any(|e| e.trim().eq_ignore_ascii_case(text));
        (!nothing).then_some(text)
    }
}
