//! Text as token numbers.

use std::path::Path;

use tokenizers::Tokenizer;

use crate::error::Error;

/// A tokenizer of a model.
pub(crate) struct Tokens {
    tokenizer: Tokenizer,
    /// How many tokens the model knows.
    vocabulary: usize,
}

impl Tokens {
    /// Reads the `tokenizer.json` of a model that knows `vocabulary` tokens. What it says about cutting off and
    /// padding does not hold: a prompt is read whole or not at all.
    pub(crate) fn open(path: &Path, vocabulary: usize) -> Result<Self, Error> {
        let failed = |what: String| Error::Format(format!("{} {what}", path.display()));
        let mut tokenizer = Tokenizer::from_file(path)
            .map_err(|error| failed(format!("is no tokenizer that is known here: {error}")))?;
        tokenizer.with_truncation(None).map_err(|error| failed(format!("cannot be used: {error}")))?;
        tokenizer.with_padding(None);
        Ok(Self { tokenizer, vocabulary })
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
        let tokens = self.tokenizer.encode_fast(text, special).map_err(refused)?.get_ids().to_vec();
        // Tokenizers may have more tokens than the model, such as one for padding, which no text has.
        match tokens.iter().find(|token| **token as usize >= self.vocabulary) {
            Some(token) => Err(Error::Tokens(format!(
                "a text has the token number {token}, and the model knows {} from 0 on; \
                 are its tokenizer.json and its config.json of one model?",
                self.vocabulary
            ))),
            None => Ok(tokens),
        }
    }
}
