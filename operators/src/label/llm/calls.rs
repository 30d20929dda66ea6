//! The table of calls: a row per request that was paid for.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use argent_cache::Digest;
use argent_engine::{Io, column};
use argent_llm::Usage;
use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use serde_json::json;

use super::LabelLlm;
use super::tries::{ANSWERS, Kept, Outcome};

pub(crate) fn calls_schema() -> SchemaRef {
    column::schema([
        column::text("call"),
        column::text("model"),
        column::text("prompt_digest"),
        column::phi("request"),
        column::phi("answer"),
        column::whole("tokens_in"),
        column::whole("tokens_cached"),
        column::whole("tokens_out"),
        column::number("usd"),
    ])
}

impl LabelLlm {
    /// The rows of the table of calls for the labels of these calls: they themselves, those of other samples, and what
    /// was asked first where an answer had to be mended. Calls that were told before are left out.
    ///
    /// # Errors
    /// When the memo does not read, or no longer has a call.
    pub(crate) fn call_rows(
        &self,
        io: &Io,
        calls: &[Digest],
        told: &mut HashSet<Digest>,
    ) -> anyhow::Result<RecordBatch> {
        let answers = io.memo(ANSWERS)?;
        let mut all: BTreeMap<Digest, Kept> = BTreeMap::new();
        for call in calls {
            let family = self.family(io, &answers, *call)?;
            all.extend(family.into_iter().filter(|(call, _)| told.insert(*call)));
        }
        self.batch(io, &all)
    }

    fn batch(&self, io: &Io, calls: &BTreeMap<Digest, Kept>) -> anyhow::Result<RecordBatch> {
        let prompt = io.question_key(&json!(&*self.loaded().prompt.text)).to_string();
        let usages: Vec<Option<Usage>> = calls.values().map(|kept| kept.outcome.usage()).collect();
        let whole = |of: fn(&Usage) -> u64| {
            let counts = usages.iter().map(|usage| usage.as_ref().map(|usage| of(usage) as i64));
            Arc::new(counts.collect::<Int64Array>()) as ArrayRef
        };
        let usd = usages.iter().map(|usage| Some(self.price?.kernel().cost(usage.as_ref()?)));
        let texts = |of: &dyn Fn(&Kept) -> Option<String>| -> ArrayRef {
            Arc::new(calls.values().map(of).collect::<StringArray>())
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(calls.keys().map(ToString::to_string))),
            texts(&|kept| kept.outcome.answer().map(|answer| answer.model.clone())),
            texts(&|_| Some(prompt.clone())),
            texts(&|kept| Some(kept.request.to_string())),
            texts(&|kept| kept.outcome.answer().map(|answer| answer.text.clone())),
            whole(|usage| usage.tokens_in),
            whole(|usage| usage.tokens_cached),
            whole(|usage| usage.tokens_out),
            Arc::new(usd.collect::<Float64Array>()),
        ];
        Ok(RecordBatch::try_new(io.schema("calls")?, columns)?)
    }
}

impl Outcome {
    pub(super) fn usage(&self) -> Option<Usage> {
        match self {
            Outcome::Answered(answer) => answer.usage,
            Outcome::Failed(failure) => failure.usage,
        }
    }

    pub(super) fn answer(&self) -> Option<&argent_llm::Answer> {
        match self {
            Outcome::Answered(answer) => Some(answer),
            Outcome::Failed(_) => None,
        }
    }
}
