//! What a model's files tell before its weights are read.

use crate::chat::Chat;
use crate::config::Config;
use crate::error::Error;
use crate::files::ModelFiles;
use crate::sheet::Sheet;
use crate::tokens::Tokens;
use crate::weights::Weights;

/// What a model is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    /// The architecture as `config.json` names it, such as `Qwen3ForCausalLM`.
    pub architecture: String,
    /// How many numbers its weights are.
    pub parameters: u64,
    /// The most tokens of a prompt.
    pub context: usize,
}

impl ModelFiles {
    /// What the model is, by its configuration alone.
    ///
    /// # Errors
    /// If it is of a kind that is not computed here.
    pub fn outline(&self) -> Result<Outline, Error> {
        let config = Config::open(&self.config)?;
        let size = |(_, shape): &(String, Vec<usize>)| shape.iter().product::<usize>() as u64;
        let parameters = config.weights().iter().map(size).sum();
        let architecture = config.architecture.name().to_owned();
        Ok(Outline { architecture, parameters, context: config.context })
    }

    /// Looks whether the model opens and can be asked these questions, as far as that shows without reading its
    /// weights: whether they are all there, whether the tokenizer and the chat template are understood, and what
    /// [`Model::sheet`](crate::Model::sheet) looks at.
    ///
    /// # Errors
    /// Those that [`Model::open`](crate::Model::open) and [`Model::sheet`](crate::Model::sheet) would give.
    pub fn check(&self, questions: &[String], options: &[String]) -> Result<(), Error> {
        let config = Config::open(&self.config)?;
        let tokens = Tokens::open(&self.tokenizer, config.vocabulary)?;
        Chat::open(self)?;
        Weights::check_headers(&self.weights, &config)?;
        Sheet::new(&tokens, questions, options).map(drop)
    }
}
