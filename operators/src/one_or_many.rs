//! A parameter that is one value, mostly a text, or a list of such.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One value or a list of values. It is written as a list, so that both spellings are one in a key.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, into = "Vec<T>")]
pub enum OneOrMany<T: Clone = String> {
    /// One.
    One(T),
    /// Several.
    Many(Vec<T>),
}

impl<T: Clone> OneOrMany<T> {
    /// The values.
    pub fn to_vec(&self) -> Vec<T> {
        match self {
            OneOrMany::One(value) => vec![value.clone()],
            OneOrMany::Many(values) => values.clone(),
        }
    }
}

impl<T: Clone> From<OneOrMany<T>> for Vec<T> {
    fn from(values: OneOrMany<T>) -> Vec<T> {
        values.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_and_a_list_of_it_are_written_alike() {
        let written = |text: &str| {
            let texts: OneOrMany<String> = serde_json::from_str(text).expect("reads");
            serde_json::to_string(&texts).expect("writes")
        };
        assert_eq!(written("\"a\""), "[\"a\"]");
        assert_eq!(written("[\"a\"]"), "[\"a\"]");
    }
}
