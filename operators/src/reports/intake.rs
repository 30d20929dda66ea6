//! Reports on their way in, from wherever: one row per id, the latest version of it, and nothing contradicted.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::hash_map::Entry;

use argent_cache::{Digest, DigestMap};
use argent_engine::operator::FILES;
use argent_engine::{Io, column};
use argent_reports::normalised;
use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pseudonyms::Pseudonyms;
use crate::reports::version::Version;
use crate::tabular::{Place, RowsBuilder};

/// Which row of an id counts where there are several.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Versions {
    /// The column of a time (ISO 8601, or as DICOM and HL7 write it) or a number: the row with the latest counts.
    pub latest: String,
}

/// Rows are handed on in pieces of about this many bytes of text.
const PIECE_BYTES: usize = 16 << 20;

/// The output that keeps texts as they came, where they differ from what the main table has.
pub(crate) const ORIGINALS: &str = "originals";

/// The columns of [`ORIGINALS`].
pub(crate) fn originals_schema() -> SchemaRef {
    column::schema([column::id("id"), column::text("section"), column::phi("text")])
}

/// The key columns of [`ORIGINALS`].
pub(crate) const ORIGINALS_KEYS: [&str; 2] = ["id", "section"];

/// A report as it was read.
pub(crate) struct Draft<'d> {
    /// The cells in front of the text: the id first, then other ids and columns.
    pub(crate) cells: Vec<Option<&'d str>>,
    /// By section, in the order of the columns: its text; none where nothing was written.
    pub(crate) texts: Vec<(&'d str, Option<&'d str>)>,
    /// The cells behind the text.
    pub(crate) kept: Vec<Option<&'d str>>,
    /// What tells versions of one report apart, where they are told apart.
    pub(crate) version: Option<&'d str>,
    /// Whether it takes back what earlier versions said.
    pub(crate) withdrawn: bool,
    /// Where it stands.
    pub(crate) place: Place,
}

/// Takes reports in: `read` offers all of them, and does so once more where the first time showed that some of those
/// handed on are contradicted or amended. Files may be larger than memory: of each id only digests are held.
///
/// # Errors
/// What `read` says, and when the rows do not have the columns of the table.
pub(crate) fn take_in(
    io: &mut Io,
    has_versions: bool,
    pseudonyms: Pseudonyms,
    mut read: impl FnMut(&mut Io, &mut Gate) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut gate = Gate::new(io.schema("")?, has_versions, pseudonyms);
    read(io, &mut gate)?;
    if gate.is_stale {
        io.discard("");
        io.discard(ORIGINALS);
        gate.chosen = true;
        (gate.rows, gate.originals) =
            (RowsBuilder::new(io.schema("")?), RowsBuilder::new(originals_schema()));
        read(io, &mut gate)?;
    }
    gate.hand_on(io)?;
    gate.tell(io);
    Ok(())
}

/// Decides which of the reports that are offered are handed on.
pub(crate) struct Gate {
    has_versions: bool,
    pseudonyms: Pseudonyms,
    /// By digest of an id: what is known of it.
    claims: DigestMap<Claim>,
    /// Whether a row was handed on that does not count.
    is_stale: bool,
    /// Whether all claims are known, so that only rows that count are handed on.
    chosen: bool,
    rows: RowsBuilder,
    originals: RowsBuilder,
}

/// What is known of an id: its latest version so far.
struct Claim {
    version: Option<Version>,
    cells: Digest,
    place: Place,
    /// The id, and where its rows stand, if rows of this version contradict each other.
    dispute: Option<(String, Vec<Place>)>,
}

impl Gate {
    fn new(schema: SchemaRef, has_versions: bool, pseudonyms: Pseudonyms) -> Gate {
        Gate {
            has_versions,
            pseudonyms,
            claims: DigestMap::default(),
            is_stale: false,
            chosen: false,
            rows: RowsBuilder::new(schema),
            originals: RowsBuilder::new(originals_schema()),
        }
    }

    /// Takes a report, unless another one of its id counts more.
    ///
    /// # Errors
    /// When the rows do not have the columns of the table.
    pub(crate) fn offer(&mut self, io: &mut Io, draft: &Draft) -> anyhow::Result<()> {
        let texts: Vec<Option<Cow<str>>> = draft
            .texts
            .iter()
            .map(|(_, text)| text.map(normalised).filter(|text| !text.is_empty()))
            .collect();
        let mut cells = draft.cells.clone();
        cells.extend(texts.iter().map(Option::as_deref));
        cells.extend(&draft.kept);
        // What is told of a row from here on, an error row among it, has its pseudonyms alone.
        let pseudonyms = self.pseudonyms.of_row(&cells);
        for (place, pseudonym) in &pseudonyms {
            cells[*place] = Some(pseudonym);
        }
        let id = cells[0].unwrap_or_default();
        if !self.counts(io, id, &cells, draft) {
            return Ok(());
        }
        self.rows.push(&cells);
        for ((section, original), text) in draft.texts.iter().zip(&texts) {
            if original.is_some() && *original != text.as_deref() {
                self.originals.push(&[Some(id), Some(*section), *original]);
            }
        }
        if self.rows.bytes() + self.originals.bytes() >= PIECE_BYTES { self.hand_on(io) } else { Ok(()) }
    }

    fn counts(&mut self, io: &mut Io, id: &str, cells: &[Option<&str>], draft: &Draft) -> bool {
        let key = digest_of(&[Some(id)]);
        if self.chosen {
            let claim = self.claims.get(&key).filter(|_| !draft.withdrawn);
            return claim.is_some_and(|claim| claim.dispute.is_none() && claim.place == draft.place);
        }
        let version = match self.version(draft) {
            Ok(version) => version,
            Err(reason) => {
                io.fault(FILES, id, "version", format!("{}: {reason}", draft.place));
                return false;
            }
        };
        let cells = digest_of(cells);
        match self.claims.entry(key) {
            Entry::Vacant(free) => {
                free.insert(Claim { version, cells, place: draft.place, dispute: None });
                !draft.withdrawn
            }
            Entry::Occupied(mut known) => {
                self.is_stale |= known.get_mut().meet(id, version, cells, draft.place);
                false
            }
        }
    }

    fn version(&self, draft: &Draft) -> Result<Option<Version>, String> {
        match draft.version.filter(|text| self.has_versions && !text.trim().is_empty()) {
            Some(text) => Version::parse(text).map(Some),
            None => Ok(None),
        }
    }

    fn hand_on(&mut self, io: &mut Io) -> anyhow::Result<()> {
        io.emit("", self.rows.take()?)?;
        io.emit(ORIGINALS, self.originals.take()?)
    }

    /// Of rows that contradict each other none is kept, because nothing tells which one is right; they are one
    /// error row.
    fn tell(self, io: &mut Io) {
        let advice = match self.has_versions {
            true => "the latest rows of this id have different cells",
            false => "rows of this id have different cells",
        };
        for (id, places) in self.claims.into_values().filter_map(|claim| claim.dispute) {
            let places: Vec<String> = places.iter().map(Place::to_string).collect();
            let places = places.join(", ");
            let message = format!(
                "{advice} ({places}), so none is kept; take the wrong ones away, say with `versions` which one counts, \
                 or name a column of distinct ids"
            );
            io.fault(FILES, &id, "conflict", message);
        }
    }
}

impl Claim {
    /// Meets another row of the same id; tells whether the row that was handed on counts no more.
    fn meet(&mut self, id: &str, version: Option<Version>, cells: Digest, place: Place) -> bool {
        match version.cmp(&self.version) {
            Ordering::Less => false,
            Ordering::Equal if self.cells == cells && self.dispute.is_none() => false,
            Ordering::Equal => {
                let first = self.place;
                self.dispute.get_or_insert_with(|| (id.to_owned(), vec![first])).1.push(place);
                true
            }
            Ordering::Greater => {
                *self = Claim { version, cells, place, dispute: None };
                true
            }
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
