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
use super::tries::{Call, CallAnswer, CallOutcome, Tries};

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
        let families = Tries::open(self, io)?.families(calls)?;
        let all = families.into_iter().filter(|(call, _)| told.insert(*call)).collect();
        self.batch(io, &all)
    }

    fn batch(&self, io: &Io, calls: &BTreeMap<Digest, Call>) -> anyhow::Result<RecordBatch> {
        let prompt = io.question_keys().key(&json!(&*self.loaded().prompt.text)).to_string();
        let usages: Vec<Option<Usage>> = calls.values().map(|call| call.outcome.usage()).collect();
        let whole = |of: fn(&Usage) -> u64| {
            let counts = usages.iter().map(|usage| usage.as_ref().map(|usage| of(usage) as i64));
            Arc::new(counts.collect::<Int64Array>()) as ArrayRef
        };
        let usd = usages.iter().map(|usage| Some(self.price?.kernel().cost(usage.as_ref()?)));
        let texts = |of: &dyn Fn(&Call) -> Option<String>| -> ArrayRef {
            Arc::new(calls.values().map(of).collect::<StringArray>())
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(calls.keys().map(ToString::to_string))),
            texts(&|call| call.outcome.answer().map(|answer| answer.model.clone())),
            texts(&|_| Some(prompt.clone())),
            texts(&|call| Some(call.request.get().to_owned())),
            texts(&|call| call.outcome.answer().map(|answer| answer.text.clone())),
            whole(|usage| usage.tokens_in),
            whole(|usage| usage.tokens_cached),
            whole(|usage| usage.tokens_out),
            Arc::new(usd.collect::<Float64Array>()),
        ];
        Ok(RecordBatch::try_new(io.schema("calls")?, columns)?)
    }
}

impl CallOutcome {
    pub(super) fn usage(&self) -> Option<Usage> {
        match self {
            CallOutcome::Answered(answer) => answer.usage,
            CallOutcome::Failed(failure) => failure.usage,
        }
    }

    pub(super) fn answer(&self) -> Option<&CallAnswer> {
        match self {
            CallOutcome::Answered(answer) => Some(answer),
            CallOutcome::Failed(_) => None,
        }
    }
}
