//! Review by people: reports go out as tasks with their labels, and come back as a labeling. A report is known by its
//! text and by nothing else, so that what people said of it holds whatever prompts, models and ids become.

pub mod export;
pub mod import;

use arrow::array::StringArray;

use crate::label::rules::sections_of;

/// A report as people see it: its written sections, each under its name.
fn report_text(texts: &[(String, StringArray)], row: usize) -> String {
    let sections = sections_of(texts, row);
    sections.iter().map(|(name, text)| format!("{name}\n{text}")).collect::<Vec<_>>().join("\n\n")
}

/// What two copies of a text have in common: its words. Spreadsheets and labelling programs change white space.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_known_again_by_its_words() {
        let texts = [
            ("findings".to_owned(), StringArray::from(vec![Some("Small\neffusion."), None])),
            ("impression".to_owned(), StringArray::from(vec![Some("Effusion."), Some("Normal.")])),
        ];
        assert_eq!(report_text(&texts, 0), "findings\nSmall\neffusion.\n\nimpression\nEffusion.");
        assert_eq!(report_text(&texts, 1), "impression\nNormal.");
        assert_eq!(words("findings\r\nSmall  effusion.\n"), "findings Small effusion.");
    }
}
