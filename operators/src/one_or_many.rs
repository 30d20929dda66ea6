//! A parameter that is one text or a list of texts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One text or a list of texts. It is written as a list, so that both spellings are one in a key.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, into = "Vec<String>")]
pub enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl OneOrMany {
    /// The texts.
    pub fn to_vec(&self) -> Vec<String> {
        match self {
            OneOrMany::One(text) => vec![text.clone()],
            OneOrMany::Many(texts) => texts.clone(),
        }
    }
}

impl From<OneOrMany> for Vec<String> {
    fn from(texts: OneOrMany) -> Vec<String> {
        texts.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_and_a_list_of_it_are_written_alike() {
        let written = |text: &str| {
            let texts: OneOrMany = serde_json::from_str(text).expect("reads");
            serde_json::to_string(&texts).expect("writes")
        };
        assert_eq!(written("\"a\""), "[\"a\"]");
        assert_eq!(written("[\"a\"]"), "[\"a\"]");
    }
}
