//! Which sections a table of reports has, and how a report's text comes into them.

use std::borrow::Cow;

use argent_engine::operator::FILES;
use argent_engine::{Problem, Signature, column};
use argent_reports::{Section, Splitter};
use arrow::datatypes::Field;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::IdReader;
use crate::one_or_many::OneOrMany;
use crate::pseudonyms::{self, Pseudonymise};
use crate::reports::intake::{ORIGINALS, ORIGINALS_KEYS, originals_schema};

/// By section, further headings that begin it.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Headings {
    /// Why the examination was asked for.
    pub indication: Option<OneOrMany>,
    /// How it was done.
    pub technique: Option<OneOrMany>,
    /// What it is compared with.
    pub comparison: Option<OneOrMany>,
    /// What is seen.
    pub findings: Option<OneOrMany>,
    /// What that means.
    pub impression: Option<OneOrMany>,
    /// What belongs to none of them.
    pub other: Option<OneOrMany>,
}

impl Headings {
    fn all(&self) -> Vec<(Section, String)> {
        let by_section = [
            (Section::Indication, &self.indication),
            (Section::Technique, &self.technique),
            (Section::Comparison, &self.comparison),
            (Section::Findings, &self.findings),
            (Section::Impression, &self.impression),
            (Section::Other, &self.other),
        ];
        let named =
            by_section.into_iter().filter_map(|(section, headings)| Some((section, headings.as_ref()?)));
        named
            .flat_map(|(section, headings)| headings.to_vec().into_iter().map(move |h| (section, h)))
            .collect()
    }
}

/// The sections of a table of reports.
pub(crate) struct Layout<'p> {
    names: Vec<&'p str>,
    splitter: Option<Splitter>,
    empty: &'p [String],
}

/// By section, in the order of the columns: its text; none where nothing was written.
pub(crate) type Texts<'p, 'c> = Vec<(&'p str, Option<Cow<'c, str>>)>;

impl<'p> Layout<'p> {
    /// Sections that come one by one, under these names. `empty`: texts that mean "nothing was written".
    pub(crate) fn as_named(names: impl IntoIterator<Item = &'p str>, empty: &'p [String]) -> Layout<'p> {
        Layout { names: names.into_iter().collect(), splitter: None, empty }
    }

    /// Sections of a report that is one text: those that its headings tell, the usual ones and `further`; or, where it
    /// is not `split`, the one section `text`.
    pub(crate) fn of_whole(split: bool, further: &Headings, empty: &'p [String]) -> Layout<'p> {
        if !split {
            return Layout::as_named(["text"], empty);
        }
        let further = further.all();
        let splitter = Splitter::new(further.iter().map(|(section, heading)| (*section, heading.as_str())));
        Layout { names: Section::ALL.map(Section::name).to_vec(), splitter: Some(splitter), empty }
    }

    /// The columns.
    pub(crate) fn fields(&self) -> Vec<Field> {
        self.names.iter().map(|name| column::with_roles(column::phi(name), &["section"])).collect()
    }

    /// By section its text, in the order of the columns: of texts that come one by one, or of one whole report.
    pub(crate) fn texts<'c>(&self, cells: &[Option<&'c str>]) -> Texts<'p, 'c> {
        let Some(splitter) = &self.splitter else {
            let written = cells.iter().map(|cell| self.written(*cell).map(Cow::Borrowed));
            return self.names.iter().copied().zip(written).collect();
        };
        let whole = cells.first().and_then(|cell| self.written(*cell)).unwrap_or_default();
        let mut found = splitter.split(whole);
        let mut text_of = |name: &str| {
            let place = found.iter().position(|(section, _)| section.name() == name)?;
            let text = found.swap_remove(place).1;
            self.written(Some(&text)).is_some().then_some(Cow::Owned(text))
        };
        self.names.iter().map(|name| (*name, text_of(name))).collect()
    }

    fn is_split(&self) -> bool {
        self.splitter.is_some()
    }

    /// A text; none where the cell is empty or says that nothing was written.
    fn written<'c>(&self, cell: Option<&'c str>) -> Option<&'c str> {
        let text = cell?;
        let bare = text.trim();
        let nothing = bare.is_empty() || self.empty.iter().any(|e| e.trim().eq_ignore_ascii_case(bare));
        (!nothing).then_some(text)
    }
}

/// The columns that FHIR and HL7 tell of a report beside its ids and sections.
pub(crate) fn message_fields() -> Vec<Field> {
    let ids = ["patient", "accession"].map(|name| column::with_roles(column::phi(name), &["id"]));
    ids.into_iter().chain(["status", "signed_at", "performed_at", "procedure"].map(column::text)).collect()
}

/// What an operator that reads reports from files makes: a table of these columns, and the texts as they came. The path
/// is seen only to open a file: a file that moves is the same file.
///
/// # Errors
/// When columns have equal names, or `pseudonymise` names other columns than those of ids.
pub(crate) fn signature(
    fields: Vec<Field>,
    ids: &IdReader,
    pseudonymise: Option<&Pseudonymise>,
) -> Result<Signature, Vec<Problem>> {
    let fields = pseudonyms::fields(fields, ids, pseudonymise)?;
    let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
    let twice = (1..names.len()).filter(|place| names[..*place].contains(&names[*place]));
    let problems: Vec<Problem> = twice
        .map(|place| {
            Problem::at(["with"], format!("two columns are named `{}`", names[place]))
                .help("name the section, the kept column or the group of `ids` otherwise")
        })
        .collect();
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Signature::new(column::schema(fields), &["id"])
        .output(ORIGINALS, originals_schema(), &ORIGINALS_KEYS)
        .reads(FILES, ["digest"])
        .sees(FILES, ["path"]))
}

/// The default of parameters that are on.
pub(crate) fn yes() -> bool {
    true
}

/// The sections of a report that comes with a conclusion of its own: the impression, where the text has none, and
/// behind the text where that is not split.
pub(crate) fn with_conclusion<'p>(
    layout: &Layout<'p>,
    text: Option<&str>,
    conclusion: Option<&str>,
) -> Texts<'p, 'static> {
    let owned = |texts: Texts<'p, '_>| -> Texts<'p, 'static> {
        let owned =
            texts.into_iter().map(|(name, text)| (name, text.map(|text| Cow::Owned(text.into_owned()))));
        owned.collect()
    };
    if !layout.is_split() {
        let whole: Vec<&str> = text.into_iter().chain(conclusion).collect();
        return owned(layout.texts(&[Some(&whole.join("\n\n"))]));
    }
    let mut texts = owned(layout.texts(&[text]));
    for (section, text) in &mut texts {
        if *section == Section::Impression.name() && text.is_none() {
            *text = conclusion.map(|text| Cow::Owned(text.to_owned()));
        }
    }
    texts
}
