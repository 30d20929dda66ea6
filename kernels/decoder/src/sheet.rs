//! The questions behind a prompt, and the options of their answers.

use std::collections::HashSet;

use crate::error::Error;
use crate::tokens::Tokens;

/// Questions and options as tokens of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sheet {
    /// By question, its tokens.
    pub(crate) questions: Vec<Vec<u32>>,
    /// By question, the token of each option behind it.
    pub(crate) options: Vec<Vec<u32>>,
}

impl Sheet {
    pub(crate) fn new(tokens: &Tokens, questions: &[String], options: &[String]) -> Result<Self, Error> {
        if questions.is_empty() || options.len() < 2 {
            return Err(Error::Sheet(format!(
                "there are {} questions and {} options, expected at least 1 and 2",
                questions.len(),
                options.len()
            )));
        }
        let mut sheet = Self { questions: Vec::new(), options: Vec::new() };
        for question in questions {
            let asked = tokens.plain(question)?;
            if asked.is_empty() {
                return Err(Error::Sheet(format!("the question `{question}` has no token, expected some")));
            }
            let option = |option: &String| option_token(tokens, question, &asked, option);
            let answers = options.iter().map(option).collect::<Result<Vec<u32>, Error>>()?;
            if answers.iter().collect::<HashSet<_>>().len() < answers.len() {
                return Err(Error::Sheet(format!(
                    "two options behind the question `{question}` are the same token, expected one token each"
                )));
            }
            sheet.questions.push(asked);
            sheet.options.push(answers);
        }
        Ok(sheet)
    }

    /// The tokens of all questions, one behind another.
    pub(crate) fn tokens(&self) -> Vec<u32> {
        self.questions.concat()
    }

    /// By question, how many tokens it has.
    pub(crate) fn lengths(&self) -> Vec<usize> {
        self.questions.iter().map(Vec::len).collect()
    }
}

/// The one token that an option adds to a question. A tokenizer joins letters as it was trained to, so that this is
/// looked at where it matters: an option that were two tokens would be given the probability of its first.
fn option_token(tokens: &Tokens, question: &str, asked: &[u32], option: &str) -> Result<u32, Error> {
    let answered = tokens.plain(&format!("{question}{option}"))?;
    match answered.strip_prefix(asked) {
        Some([token]) => Ok(*token),
        Some(added) => Err(Error::Sheet(format!(
            "the option `{option}` is {} tokens of this model behind the question `{question}`, expected 1; \
             a single letter is one with most models",
            added.len()
        ))),
        None => Err(Error::Sheet(format!(
            "the option `{option}` changes the tokens of the question `{question}` before it, expected to add one; \
             where words are joined with the blank before them, let the option begin with it and not the question \
             end with it"
        ))),
    }
}
