//! A model that decides.

use candle_core::{D, Tensor};

use crate::batches::batches;
use crate::chat::{Chat, Message};
use crate::config::Config;
use crate::error::{Error, TooLong};
use crate::files::ModelFiles;
use crate::layout::Layout;
use crate::network::{Device, Network};
use crate::prefix::{Prefix, common};
use crate::sheet::Sheet;
use crate::tokens::Tokens;

/// How many tokens a processor reads at a time; more would gain nothing.
const BATCH_TOKENS: usize = 2048;
/// How many tokens a GPU reads at a time: enough to fill it.
const GPU_BATCH_TOKENS: usize = 16_384;
/// Of how many questions the logits of the whole vocabulary are held at a time: 128 MB where it has 128,000 tokens.
const LOGIT_ROWS: usize = 256;

/// A language model, ready to decide.
pub struct Model {
    network: Network,
    tokens: Tokens,
    /// Base models have none.
    chat: Option<Chat>,
    /// What the prompts of the last call began with.
    prefix: Prefix,
}

/// What a model says to one prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// By question, in the order of the sheet.
    pub decisions: Vec<Decision>,
    /// Tokens of the prompt and of all questions.
    pub tokens: usize,
    /// How many of them were shared with other prompts and not read for this one.
    pub tokens_cached: usize,
}

/// What a model says to one question.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// How likely each option is, in the order of the sheet, if it is one of them; the sum is 1.
    pub probabilities: Vec<f64>,
    /// How likely it is that the next token is one of the options at all, from 0 to 1. A low one says that the model
    /// would rather answer something else, and that the probabilities mean little.
    pub label_mass: f64,
}

impl Model {
    /// Reads a model.
    ///
    /// # Errors
    /// If it is of a kind that is not computed here, if its weights do not fit its configuration, if its chat
    /// template does not render, or if the device is not there.
    pub fn open(files: &ModelFiles, device: Device) -> Result<Self, Error> {
        let config = Config::open(&files.config)?;
        let tokens = Tokens::open(&files.tokenizer, config.vocabulary)?;
        let chat = Chat::open(files)?;
        let network = Network::open(config, &files.weights, device)?;
        Ok(Self { network, tokens, chat, prefix: Prefix::default() })
    }

    /// The questions that are to follow prompts, and the options of their answers. A question is what the model has
    /// said of its answer so far, such as `lung nodule:`, and an option what may come next, such as ` A`.
    ///
    /// # Errors
    /// If an option is not exactly one token behind each of the questions, or not another one than the others: its
    /// probability could not be read from the next token.
    pub fn sheet(&self, questions: &[String], options: &[String]) -> Result<Sheet, Error> {
        Sheet::new(&self.tokens, questions, options)
    }

    /// What the model says to each of `prompts`, in their order, for a sheet that this model made.
    ///
    /// A prompt is a conversation, put into the form that the model was trained to read; for a model without a chat
    /// template it is the messages with blank lines between. What all prompts begin with is read once, and kept for
    /// the next call. An answer does not depend on the other prompts, except for the last digits of its floats.
    ///
    /// # Errors
    /// If the chat template refuses a conversation, if a logit is no finite number, or if memory runs out. A prompt
    /// that is longer than the model's context is no error of the call but its own.
    pub fn decide(
        &mut self,
        prompts: &[Vec<Message>],
        sheet: &Sheet,
    ) -> Result<Vec<Result<Answer, TooLong>>, Error> {
        let prompts = prompts.iter().map(|prompt| self.encode(prompt));
        let prompts = prompts.collect::<Result<Vec<Vec<u32>>, Error>>()?;
        let longest = sheet.lengths().into_iter().max().unwrap_or(0);
        let limit = self.network.config().context;
        let readable: Vec<usize> =
            (0..prompts.len()).filter(|index| prompts[*index].len() + longest <= limit).collect();
        let shared = common(&readable.iter().map(|index| prompts[*index].as_slice()).collect::<Vec<_>>());
        if let Some(first) = readable.first() {
            self.prefix.become_tokens(&prompts[*first][..shared], &self.network)?;
        }
        let bodies: Vec<&[u32]> = readable.iter().map(|index| &prompts[*index][shared..]).collect();
        let lengths: Vec<usize> = bodies.iter().map(|body| body.len()).collect();
        let most = if self.network.on_gpu() { GPU_BATCH_TOKENS } else { BATCH_TOKENS };
        let too_long = |prompt: &Vec<u32>| Err(TooLong { tokens: prompt.len() + longest, limit });
        let mut answers: Vec<Result<Answer, TooLong>> = prompts.iter().map(too_long).collect();
        for batch in batches(&lengths, sheet.tokens().len(), most) {
            let rows: Vec<&[u32]> = batch.iter().map(|row| bodies[*row]).collect();
            let decisions = self.read(&rows, sheet)?;
            for (row, decisions) in batch.into_iter().zip(decisions) {
                let prompt = readable[row];
                let decisions = decisions.ok_or(Error::NotFinite { prompt })?;
                let tokens = prompts[prompt].len() + sheet.tokens().len();
                answers[prompt] = Ok(Answer { decisions, tokens, tokens_cached: shared });
            }
        }
        Ok(answers)
    }

    /// The tokens of a prompt, up to where the model's answer begins.
    fn encode(&self, prompt: &[Message]) -> Result<Vec<u32>, Error> {
        match &self.chat {
            // The template writes the token that begins a document itself.
            Some(chat) => self.tokens.plain(&chat.render(prompt)?),
            None => {
                let contents = prompt.iter().map(|message| format!("{}\n\n", message.content));
                self.tokens.document(&contents.collect::<String>())
            }
        }
    }

    /// The decisions for each of `bodies`, which follow the prefix; `None` where a logit is no finite number.
    fn read(&self, bodies: &[&[u32]], sheet: &Sheet) -> Result<Vec<Option<Vec<Decision>>>, Error> {
        let layout = Layout {
            prefix: self.prefix.length(),
            bodies: bodies.iter().map(|body| body.len()).collect(),
            questions: sheet.lengths(),
        };
        let asked = sheet.tokens();
        let padded = layout.body();
        let row = |body: &&[u32]| {
            // Nothing sees what pads a body, so it may be any token.
            let padding = std::iter::repeat_n(0, padded - body.len());
            body.iter().copied().chain(padding).chain(asked.iter().copied()).collect::<Vec<u32>>()
        };
        let tokens: Vec<u32> = bodies.iter().flat_map(row).collect();
        let hidden = self.network.forward(&tokens, &layout, self.prefix.layers(), |_| ())?;
        let (ends, asked) = (layout.ends(), sheet.questions.len());
        let options: Vec<&[u32]> = (0..ends.len()).map(|end| sheet.options[end % asked].as_slice()).collect();
        let mut decisions = Vec::with_capacity(ends.len());
        for (ends, options) in ends.chunks(LOGIT_ROWS).zip(options.chunks(LOGIT_ROWS)) {
            decisions.extend(decided(&self.network.logits(&hidden, ends)?, options)?);
        }
        Ok(decisions.chunks(asked).map(|row| row.iter().cloned().collect()).collect())
    }
}

/// The decision that each row of logits, (questions, vocabulary), makes between the tokens of its options; `None`
/// where one is no finite number.
fn decided(logits: &Tensor, options: &[&[u32]]) -> Result<Vec<Option<Decision>>, Error> {
    let shape = (options.len(), options.first().map_or(0, |options| options.len()));
    let options = Tensor::from_vec(options.concat(), shape, logits.device())?;
    let options: Vec<Vec<f32>> = logits.gather(&options, D::Minus1)?.to_vec2()?;
    let all: Vec<f32> = logits.log_sum_exp(D::Minus1)?.to_vec1()?;
    Ok(options.iter().zip(all).map(|(options, all)| decision(options, f64::from(all))).collect())
}

/// The decision between options of these logits, where `all` is the log of the sum of the exponentials of the whole
/// vocabulary's.
fn decision(options: &[f32], all: f64) -> Option<Decision> {
    let likelihoods: Vec<f64> = options.iter().map(|logit| (f64::from(*logit) - all).exp()).collect();
    let largest = options.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shares: Vec<f64> = options.iter().map(|logit| f64::from(logit - largest).exp()).collect();
    let sum: f64 = shares.iter().sum();
    let probabilities: Vec<f64> = shares.iter().map(|share| share / sum).collect();
    // The logarithm was taken in f32, so that the sum may pass 1 by its last digit.
    let label_mass = likelihoods.iter().sum::<f64>().min(1.0);
    let finite = all.is_finite() && probabilities.iter().all(|probability| probability.is_finite());
    finite.then_some(Decision { probabilities, label_mass })
}
