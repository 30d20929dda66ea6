//! The sections of a report that comes as one text, told by their headings in English and German.

use std::ops::Range;

use regex::Regex;

/// A section of a radiology report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// Why the examination was asked for, and what is known of the patient.
    Indication,
    /// How it was done.
    Technique,
    /// What it is compared with.
    Comparison,
    /// What is seen.
    Findings,
    /// What that means.
    Impression,
    /// What stands before the first heading, where the findings have a heading of their own.
    Other,
}

impl Section {
    /// All sections, in the order in which reports have them.
    pub const ALL: [Section; 6] = [
        Section::Indication,
        Section::Technique,
        Section::Comparison,
        Section::Findings,
        Section::Impression,
        Section::Other,
    ];

    /// The name of the section's column.
    pub fn name(self) -> &'static str {
        match self {
            Section::Indication => "indication",
            Section::Technique => "technique",
            Section::Comparison => "comparison",
            Section::Findings => "findings",
            Section::Impression => "impression",
            Section::Other => "other",
        }
    }

    /// The headings that begin it, in lower case: those of report templates in use, English and German.
    fn headings(self) -> &'static [&'static str] {
        match self {
            Section::Indication => &[
                "indication",
                "indications",
                "clinical indication",
                "clinical indications",
                "indication for exam",
                "reason for exam",
                "reason for examination",
                "reason for study",
                "reason for this examination",
                "history",
                "clinical history",
                "clinical information",
                "clinical data",
                "clinical details",
                "clinical question",
                "patient history",
                "symptoms",
                "indikation",
                "rechtfertigende indikation",
                "klinische angaben",
                "klinische angabe",
                "klinische angaben und fragestellung",
                "klinische angaben, fragestellung",
                "klinische angaben/fragestellung",
                "klinische information",
                "klinische informationen",
                "klinische fragestellung",
                "klinik",
                "klinik und fragestellung",
                "klinik/fragestellung",
                "anamnese",
                "vorgeschichte",
                "fragestellung",
            ],
            Section::Technique => &[
                "technique",
                "imaging technique",
                "scan technique",
                "procedure",
                "protocol",
                "exam",
                "examination",
                "type of examination",
                "technik",
                "untersuchungstechnik",
                "methode",
                "methodik",
                "untersuchung",
                "durchgeführte untersuchung",
                "art der untersuchung",
            ],
            Section::Comparison => &[
                "comparison",
                "comparisons",
                "comparison study",
                "prior study",
                "prior studies",
                "vergleich",
                "zum vergleich",
                "vergleichsuntersuchung",
                "voraufnahme",
                "voraufnahmen",
                "voruntersuchung",
                "voruntersuchungen",
            ],
            Section::Findings => &[
                "findings",
                "finding",
                "ct findings",
                "radiographic findings",
                "report",
                "befund",
                "befunde",
                "befundbericht",
                "ct-befund",
                "röntgenbefund",
            ],
            Section::Impression => &[
                "impression",
                "impressions",
                "final impression",
                "impression and recommendation",
                "impression/recommendation",
                "conclusion",
                "conclusions",
                "opinion",
                "summary",
                "interpretation",
                "beurteilung",
                "zusammenfassende beurteilung",
                "zusammenfassung",
                "zusammenfassung und beurteilung",
                "fazit",
                "wertung",
            ],
            Section::Other => &[],
        }
    }
}

/// Splits reports into their sections.
#[derive(Debug, Clone)]
pub struct Splitter {
    headings: Regex,
    sections: Vec<(String, Section)>,
}

impl Splitter {
    /// A splitter that knows further headings besides the built-in ones; a heading of the caller's goes before a
    /// built-in one. Case does not matter.
    pub fn new<'h>(further: impl IntoIterator<Item = (Section, &'h str)>) -> Splitter {
        let mut sections: Vec<(String, Section)> =
            further.into_iter().map(|(section, heading)| (heading.trim().to_lowercase(), section)).collect();
        for section in Section::ALL {
            sections.extend(section.headings().iter().map(|heading| ((*heading).to_owned(), section)));
        }
        let mut names: Vec<String> =
            sections.iter().map(|(name, _)| regex::escape(name).replace(' ', r"[ \t]+")).collect();
        // The longest of the headings that fit counts.
        names.sort_by_key(|name| std::cmp::Reverse(name.len()));
        let names = names.join("|");
        // At the start of a line, a heading ends with a colon or fills the line; behind a sentence it begins with a
        // capital and ends with a colon. Marks of emphasis may stand around it.
        let line = format!(r"^[ \t]*[*_#]*[ \t]*(?<line>(?i:{names}))[ \t]*[*_]*[ \t]*(?::[ \t]*[*_]*|$)");
        let inline = r"[.!?][ \t]+(?<inline>\p{Lu}[\p{L} ,/\-]{2,40}):";
        let headings = Regex::new(&format!("(?m)(?:{line}|{inline})"));
        Splitter { headings: headings.expect("escaped names make a pattern"), sections }
    }

    /// By section that the report has: its text, without the heading. A section that occurs twice is put together;
    /// a report without headings is all findings.
    pub fn split(&self, text: &str) -> Vec<(Section, String)> {
        let found: Vec<(Range<usize>, Section)> = self
            .headings
            .captures_iter(text)
            .filter_map(|found| {
                let name = found.name("line").or(found.name("inline"))?;
                let whole = found.get(0)?;
                // The full stop in front of a heading in a line belongs to the sentence before.
                let start = if found.name("inline").is_some() { whole.start() + 1 } else { whole.start() };
                Some((start..whole.end(), self.section(name.as_str())?))
            })
            .collect();
        let preamble = &text[..found.first().map_or(text.len(), |(range, _)| range.start)];
        let has_findings = found.iter().any(|(_, section)| *section == Section::Findings);
        let mut parts = vec![(if has_findings { Section::Other } else { Section::Findings }, preamble)];
        for (place, (range, section)) in found.iter().enumerate() {
            let end = found.get(place + 1).map_or(text.len(), |(next, _)| next.start);
            parts.push((*section, &text[range.end..end]));
        }
        let mut sections: Vec<(Section, String)> = Vec::new();
        for (section, part) in parts {
            let part = part.trim();
            if part.is_empty() {
                continue;
            }
            match sections.iter_mut().find(|(known, _)| *known == section) {
                Some((_, text)) => {
                    text.push('\n');
                    text.push_str(part);
                }
                None => sections.push((section, part.to_owned())),
            }
        }
        sections.sort_by_key(|(section, _)| *section);
        sections
    }

    fn section(&self, heading: &str) -> Option<Section> {
        let heading = heading.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
        self.sections.iter().find(|(name, _)| *name == heading).map(|(_, section)| *section)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<(Section, String)> {
        Splitter::new([]).split(text)
    }

    fn parts(parts: &[(Section, &str)]) -> Vec<(Section, String)> {
        parts.iter().map(|(section, text)| (*section, (*text).to_owned())).collect()
    }

    #[test]
    fn english_and_german_headings_begin_sections() {
        use Section::{Comparison, Findings, Impression, Indication, Technique};
        let english = "EXAM: CT chest\nClinical History: cough\nCOMPARISON: none.\n\nFINDINGS:\nNo effusion.\n\n\
                       IMPRESSION:\n1. Normal.";
        let expected = [
            (Indication, "cough"),
            (Technique, "CT chest"),
            (Comparison, "none."),
            (Findings, "No effusion."),
            (Impression, "1. Normal."),
        ];
        assert_eq!(split(english), parts(&expected));
        let german = "Klinische Angaben, Fragestellung: Sturz. Fraktur?\n**Befund**\nKein Erguss.\n\
                      Zusammenfassende  Beurteilung:\nKeine Fraktur.";
        let expected =
            [(Indication, "Sturz. Fraktur?"), (Findings, "Kein Erguss."), (Impression, "Keine Fraktur.")];
        assert_eq!(split(german), parts(&expected));
    }

    #[test]
    fn a_heading_may_stand_behind_a_sentence() {
        let expected = [(Section::Findings, "Clear lungs."), (Section::Impression, "Normal.")];
        assert_eq!(split("Findings: Clear lungs. Impression: Normal."), parts(&expected));
        let text = "Clear lungs. Heart: normal. No comparison: none was sent.";
        assert_eq!(split(text), parts(&[(Section::Findings, text)]), "words of the text are no headings");
    }

    #[test]
    fn without_a_heading_of_findings_what_stands_first_is_findings() {
        let expected = [(Section::Findings, "Kein Erguss."), (Section::Impression, "Regelrecht.")];
        assert_eq!(split("Kein Erguss.\nBeurteilung: Regelrecht."), parts(&expected));
        let expected = [(Section::Findings, "Clear."), (Section::Other, "Dr. A to Dr. B")];
        assert_eq!(split("Dr. A to Dr. B\nFINDINGS: Clear."), parts(&expected));
        assert_eq!(split(" \n"), []);
        assert_eq!(split("Clear."), parts(&[(Section::Findings, "Clear.")]));
    }

    #[test]
    fn a_section_that_comes_twice_is_one_and_headings_can_be_added() {
        let text = "Findings: a\nImpression: b\nFindings: c\nErgebnis: d";
        let splitter = Splitter::new([(Section::Impression, "Ergebnis")]);
        let expected = [(Section::Findings, "a\nc"), (Section::Impression, "b\nd")];
        assert_eq!(splitter.split(text), parts(&expected));
    }
}
