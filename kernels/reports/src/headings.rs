//! Headings and section names whose text is not about the image.

use crate::cues::{Cues, Languages, skipped_headings};
use crate::pack::Mistake;
use crate::pattern::expand;
use crate::sentences::{Sentence, fold};
use regex::Regex;

/// What a heading looks like in general: a few words and a colon at the start of a sentence.
const ANY_HEADING: &str = r"^[a-z][a-z /&,()]{2,40}:";

/// Recognises headings such as `CLINICAL HISTORY:`.
#[derive(Debug, Clone)]
pub(crate) struct Headings {
    any: Regex,
    skipped: Regex,
    skipped_section: Regex,
}

impl Headings {
    /// Compiles the built-in headings of the languages and those of the pack; adds what does not
    /// compile to `mistakes`.
    pub(crate) fn new(languages: &Languages, cues: &Cues, mistakes: &mut Vec<Mistake>) -> Self {
        let built_in = languages.iter().flat_map(skipped_headings);
        let mut names: Vec<String> = built_in.map(|name| expand(name)).collect();
        for (index, name) in cues.skip_sections.iter().enumerate() {
            let expression = expand(&fold(name));
            match Regex::new(&expression) {
                Ok(_) => names.push(expression),
                Err(error) => mistakes.push(Mistake {
                    finding: None,
                    place: format!("cues.skip_sections[{index}]"),
                    pattern: name.clone(),
                    problem: format!("is no regular expression: {error}"),
                }),
            }
        }
        let names = names.join("|");
        let build = |expression: &str| {
            Regex::new(expression).expect("the alternatives compile one by one, so they do together")
        };
        Self {
            any: build(ANY_HEADING),
            skipped: build(&format!("^(?:{names}) *:")),
            skipped_section: build(&format!("^ *(?:{names}) *:? *$")),
        }
    }

    /// Whether a section of this name is left out; underscores count as spaces.
    pub(crate) fn skips_section(&self, name: &str) -> bool {
        self.skipped_section.is_match(&fold(name).replace('_', " "))
    }

    /// Indices of the sentences left when those under a skipped heading are taken out.
    ///
    /// The text of a heading ends at the next heading or paragraph. Where neither follows, only the
    /// heading's own sentence is skipped: the rest of a one-line report may well be its findings.
    pub(crate) fn about_the_image(&self, folded: &str, sentences: &[Sentence]) -> Vec<usize> {
        let text = |index: usize| &folded[sentences[index].range.clone()];
        let mut kept = Vec::with_capacity(sentences.len());
        let mut at = 0;
        while at < sentences.len() {
            if self.skipped.is_match(text(at)) {
                let next = (at + 1..sentences.len())
                    .find(|&later| sentences[later].starts_paragraph || self.any.is_match(text(later)));
                at = next.unwrap_or(at + 1);
            } else {
                kept.push(at);
                at += 1;
            }
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sentences::split;

    #[test]
    fn text_under_a_skipped_heading_is_left_out() {
        let headings = Headings::new(&Languages::default(), &Cues::default(), &mut Vec::new());
        for (text, expected) in [
            ("Indication: pneumonia. Cough. Findings: clear.", &["Findings: clear"][..]),
            ("History: emphysema\n\nNodule.", &["Nodule"]),
            ("History: emphysema. Nodule.", &["Nodule"]),
            ("CLINICAL HISTORY: a.\nTECHNIQUE: b.\nHEART: c.", &["HEART: c"]),
            ("Heart: large. Lungs: clear.", &["Heart: large", "Lungs: clear"]),
        ] {
            let folded = fold(text);
            let sentences = split(&folded, text);
            let kept = headings.about_the_image(&folded, &sentences);
            let kept: Vec<&str> =
                kept.into_iter().map(|index| &text[sentences[index].range.clone()]).collect();
            assert_eq!(kept, expected, "{text}");
        }
    }

    #[test]
    fn section_names_are_skipped_whole() {
        let headings = Headings::new(&Languages::default(), &Cues::default(), &mut Vec::new());
        for (name, skipped) in [
            ("indication", true),
            ("Clinical_Information", true),
            ("technique", true),
            ("findings", false),
            ("impression", false),
            ("report", false),
        ] {
            assert_eq!(headings.skips_section(name), skipped, "{name}");
        }
    }
}
