//! Text as token numbers.

use std::path::Path;

use tokenizers::Tokenizer;

use crate::error::Error;

/// A tokenizer of a model.
pub(crate) struct Tokens(Tokenizer);

impl Tokens {
    /// Reads a `tokenizer.json` whose tokens are all below `vocabulary`. What it says about cutting off and padding
    /// does not hold: a prompt is read whole or not at all.
    pub(crate) fn open(path: &Path, vocabulary: usize) -> Result<Self, Error> {
        let failed = |what: String| Error::Format(format!("{} {what}", path.display()));
        let mut tokenizer = Tokenizer::from_file(path)
            .map_err(|error| failed(format!("is no tokenizer that is known here: {error}")))?;
        tokenizer.with_truncation(None).map_err(|error| failed(format!("cannot be used: {error}")))?;
        tokenizer.with_padding(None);
        let largest = tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
        if largest as usize >= vocabulary {
            return Err(failed(format!(
                "has the token number {largest}, and the model knows {vocabulary} from 0 on; they belong to two models"
            )));
        }
        Ok(Self(tokenizer))
    }

    /// The tokens of a text as it stands; names of special tokens in it are those tokens.
    pub(crate) fn plain(&self, text: &str) -> Result<Vec<u32>, Error> {
        self.encode(text, false)
    }

    /// The tokens of a text that begins a document, with what the model expects in front of one.
    pub(crate) fn document(&self, text: &str) -> Result<Vec<u32>, Error> {
        self.encode(text, true)
    }

    fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, Error> {
        // The tokenizer's own words may repeat the text.
        let refused = |_| Error::Tokens("the tokenizer refuses a text; is its tokenizer.json whole?".into());
        Ok(self.0.encode_fast(text, special).map_err(refused)?.get_ids().to_vec())
    }
}
