//! Which token stands where, and which sees which.
//!
//! ```text
//! shared prefix        body, right-padded         sheet
//! p p p p p p p p p    b b b b b b b b . . .      q q q   q q   q q q q     row 0
//!                      b b b b b b b b b b b      q q q   q q   q q q q     row 1
//! ```
//!
//! The tokens of the prefix are the same for all rows and not among those of a batch: only their keys and values
//! are. A token of a body sees the prefix and the body up to itself. A token of a question sees the prefix, the
//! whole body without its padding, and its own question up to itself. Positions go on at the body's end, for each
//! question anew, as if it alone stood there: so one pass answers each question as a pass of its own would.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};

/// How the tokens of a batch are laid out.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// Tokens of the shared prefix.
    pub(crate) prefix: usize,
    /// By row, the tokens of its body.
    pub(crate) bodies: Vec<usize>,
    /// By question, its tokens; empty if only a prefix is read.
    pub(crate) questions: Vec<usize>,
}

/// What a token of the sheet belongs to.
#[derive(Clone, Copy)]
struct Asked {
    question: usize,
    /// Tokens of the question before this one.
    before: usize,
}

impl Layout {
    /// Tokens of each row behind the prefix: the longest body and the sheet.
    pub(crate) fn length(&self) -> usize {
        self.body() + self.questions.iter().sum::<usize>()
    }

    /// Tokens of the longest body.
    pub(crate) fn body(&self) -> usize {
        self.bodies.iter().copied().max().unwrap_or(0)
    }

    pub(crate) fn rows(&self) -> usize {
        self.bodies.len()
    }

    /// The position of every token, row by row.
    pub(crate) fn positions(&self) -> Vec<usize> {
        let sheet = self.sheet();
        let row = |body: &usize| {
            let start = self.prefix + body;
            let questions: Vec<usize> = sheet.iter().map(|asked| start + asked.before).collect();
            (self.prefix..self.prefix + self.body()).chain(questions).collect::<Vec<usize>>()
        };
        self.bodies.iter().flat_map(row).collect()
    }

    /// Where the last token of every question lies in all rows put one behind another: row by row, question by
    /// question.
    pub(crate) fn ends(&self) -> Vec<u32> {
        let ends = self.questions.iter().scan(self.body(), |end, question| {
            *end += question;
            Some(*end - 1)
        });
        let ends: Vec<usize> = ends.collect();
        let length = self.length();
        (0..self.rows()).flat_map(|row| ends.iter().map(move |end| (row * length + end) as u32)).collect()
    }

    /// The queries of all rows in blocks of at most `most`, none of them both of body and sheet, each with the
    /// number of tokens that some of its queries see: bodies see nothing behind themselves.
    pub(crate) fn blocks(&self, most: usize) -> Vec<Block> {
        let (body, length) = (self.body(), self.length());
        let cut = |range: Range<usize>| {
            let (end, starts) = (range.end, range.step_by(most.max(1)));
            starts.map(move |start| start..(start + most.max(1)).min(end))
        };
        let bodies = cut(0..body).map(|queries| Block { keys: queries.end, queries });
        let sheets = cut(body..length).map(|queries| Block { keys: length, queries });
        bodies.chain(sheets).collect()
    }

    /// What the queries of a block see of the batch's own tokens: shape (rows, queries, keys), 0 where one sees and
    /// negative infinity where not.
    pub(crate) fn own_mask(
        &self,
        block: &Block,
        window: Option<usize>,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        let body = self.body();
        let sheet = self.sheet();
        let sees = |row: usize, query: usize, key: usize| match query.checked_sub(body) {
            // What pads a body sees itself too: a query without a key would be no number.
            None => key <= query && within(window, query - key),
            Some(query) if key < body => {
                let end = self.bodies[row];
                key < end && within(window, end + sheet[query].before - key)
            }
            Some(query) => {
                let (query, key) = (sheet[query], sheet[key - body]);
                let own = query.question == key.question && key.before <= query.before;
                own && within(window, query.before - key.before)
            }
        };
        let mut mask = Vec::with_capacity(self.rows() * block.queries.len() * block.keys);
        for row in 0..self.rows() {
            for query in block.queries.clone() {
                mask.extend((0..block.keys).map(|key| value(sees(row, query, key))));
            }
        }
        Tensor::from_vec(mask, (self.rows(), block.queries.len(), block.keys), device)?.to_dtype(dtype)
    }

    /// What the queries of a block see of the prefix: shape (rows, queries, prefix), or `None` if that is all.
    pub(crate) fn prefix_mask(
        &self,
        block: &Block,
        window: Option<usize>,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Option<Tensor>> {
        let longest = self.questions.iter().copied().max().unwrap_or(0);
        let Some(window) = window.filter(|window| *window < self.prefix + self.body() + longest) else {
            return Ok(None);
        };
        let positions = self.positions();
        let mut mask = Vec::with_capacity(self.rows() * block.queries.len() * self.prefix);
        for row in positions.chunks(self.length()) {
            for query in block.queries.clone() {
                mask.extend((0..self.prefix).map(|key| value(row[query] - key < window)));
            }
        }
        let shape = (self.rows(), block.queries.len(), self.prefix);
        Tensor::from_vec(mask, shape, device)?.to_dtype(dtype).map(Some)
    }

    /// By token of the sheet, what it belongs to.
    fn sheet(&self) -> Vec<Asked> {
        let questions = self.questions.iter().enumerate();
        questions
            .flat_map(|(question, length)| (0..*length).map(move |before| Asked { question, before }))
            .collect()
    }
}

/// Some queries of all rows, and how many of the rows' tokens they may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) queries: Range<usize>,
    pub(crate) keys: usize,
}

/// Whether a key that lies `back` tokens before a query is within its window; one of 1 sees only itself.
fn within(window: Option<usize>, back: usize) -> bool {
    window.is_none_or(|window| back < window)
}

fn value(sees: bool) -> f32 {
    if sees { 0.0 } else { f32::NEG_INFINITY }
}
