//! The labels of one report: what answers say, put together and written as rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use argent_llm::{Label, Probabilities};
use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, SchemaRef};

use argent_engine::{Io, column};

use super::LabelLlm;
use super::question::ASKED;
use crate::label::{STATES, label_fields};

/// The columns of probabilities, in the order of the states.
const PROBABILITIES: [&str; 4] = ["p_present", "p_absent", "p_uncertain", "p_not_mentioned"];

/// The label of one finding of one report.
#[derive(Clone, Debug)]
pub(crate) struct RowLabel {
    pub(crate) finding: String,
    pub(crate) state: &'static str,
    /// The call that answered; none for a failed label.
    pub(crate) call: Option<String>,
    score: Option<f64>,
    evidence: Option<String>,
    probabilities: Option<(Vec<f64>, Option<f64>)>,
    /// The share of samples that say the state.
    agreement: Option<f64>,
}

/// The labels of one report, in the order of the pack.
pub(crate) type RowLabels = Vec<RowLabel>;

impl RowLabel {
    pub(super) fn failed(finding: String) -> RowLabel {
        let state = STATES[4];
        RowLabel {
            finding,
            state,
            call: None,
            score: None,
            evidence: None,
            probabilities: None,
            agreement: None,
        }
    }

    /// What an answer says of a finding. A quote counts as evidence only where the report has it.
    pub(super) fn of(finding: String, label: &Label, call: &str, report: Option<&str>) -> RowLabel {
        let (score, probabilities) = match label.probabilities.clone() {
            Some(Probabilities::True(likely)) => (Some(likely), None),
            Some(Probabilities::States { each, mass }) => (each.first().copied(), Some((each, mass))),
            None => (None, None),
        };
        let evidence = label.evidence.clone().filter(|quote| report.is_some_and(|report| has(report, quote)));
        RowLabel {
            finding,
            state: ASKED.into_iter().find(|state| **state == label.state).unwrap_or(STATES[4]),
            call: Some(call.to_owned()),
            score,
            evidence,
            probabilities,
            agreement: None,
        }
    }
}

/// Whether a report has the words of a quote, however its lines are broken.
fn has(report: &str, quote: &str) -> bool {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    words(report).contains(&words(quote))
}

/// One label from those of several samples: the state that most of them say, of equally many the one that was said
/// first; how likely the finding is there is the mean over all of them.
pub(super) fn voted(samples: Vec<RowLabel>) -> Option<RowLabel> {
    let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
    for sample in &samples {
        *votes.entry(sample.state).or_default() += 1;
    }
    let most = votes.values().copied().max()?;
    let count = samples.len() as f64;
    let mean = |of: &dyn Fn(&RowLabel) -> Option<f64>| {
        let all: Option<Vec<f64>> = samples.iter().map(of).collect();
        all.map(|all| all.iter().sum::<f64>() / count)
    };
    let says = |sample: &RowLabel| Some(f64::from(u8::from(sample.state == STATES[0])));
    let score = mean(&|sample| sample.score).or_else(|| mean(&says));
    let probabilities = mean_probabilities(&samples);
    let first = samples.into_iter().find(|sample| votes[sample.state] == most)?;
    Some(RowLabel { score, probabilities, agreement: Some(most as f64 / count), ..first })
}

fn mean_probabilities(samples: &[RowLabel]) -> Option<(Vec<f64>, Option<f64>)> {
    let all: Vec<&(Vec<f64>, Option<f64>)> =
        samples.iter().map(|sample| sample.probabilities.as_ref()).collect::<Option<_>>()?;
    let count = all.len() as f64;
    let width = all.first()?.0.len();
    let each = (0..width).map(|place| all.iter().map(|(each, _)| each[place]).sum::<f64>() / count).collect();
    let masses: Option<Vec<f64>> = all.iter().map(|(_, mass)| *mass).collect();
    Some((each, masses.map(|masses| masses.iter().sum::<f64>() / count)))
}

impl LabelLlm {
    /// The columns of the labels.
    pub(super) fn label_columns(&self) -> Vec<Field> {
        let mut fields = label_fields();
        fields.extend([column::number("score"), column::phi("evidence"), column::text("call")]);
        if self.endpoint.gives_probabilities() {
            fields.extend(PROBABILITIES.map(column::number));
            fields.push(column::number("label_mass"));
        }
        if self.samples > 1 {
            fields.push(column::number("agreement"));
        }
        fields
    }

    /// Labels as rows.
    pub(super) fn label_batch(&self, schema: &SchemaRef, labels: &[RowLabel]) -> anyhow::Result<RecordBatch> {
        let numbers = |of: &dyn Fn(&RowLabel) -> Option<f64>| -> ArrayRef {
            Arc::new(labels.iter().map(of).collect::<Float64Array>())
        };
        fn texts(labels: &[RowLabel], of: fn(&RowLabel) -> Option<&str>) -> ArrayRef {
            Arc::new(labels.iter().map(of).collect::<StringArray>())
        }
        let mut columns: Vec<ArrayRef> = vec![
            texts(labels, |label| Some(&label.finding)),
            texts(labels, |label| Some(label.state)),
            numbers(&|label| label.score),
            texts(labels, |label| label.evidence.as_deref()),
            texts(labels, |label| label.call.as_deref()),
        ];
        if self.endpoint.gives_probabilities() {
            for place in 0..PROBABILITIES.len() {
                columns.push(numbers(&|label| label.probabilities.as_ref().map(|(each, _)| each[place])));
            }
            columns.push(numbers(&|label| label.probabilities.as_ref().and_then(|(_, mass)| *mass)));
        }
        if self.samples > 1 {
            columns.push(numbers(&|label| label.agreement));
        }
        Ok(RecordBatch::try_new(schema.clone(), columns)?)
    }
}

/// The labels of reports on their way into the table, many at a time: a batch for each report would cost more than its
/// labels.
#[derive(Default)]
pub(super) struct Outgoing {
    rows: Vec<usize>,
    lengths: Vec<usize>,
    labels: RowLabels,
}

/// So many reports are handed over together. Their answers are kept by then, and cost nothing to read again.
const REPORTS_AT_ONCE: usize = 256;

impl Outgoing {
    /// Takes the labels of a row, and hands over those that are many.
    ///
    /// # Errors
    /// Those of [`Io::answer`].
    pub(super) fn take(
        &mut self,
        step: &LabelLlm,
        io: &mut Io,
        row: usize,
        labels: RowLabels,
    ) -> anyhow::Result<()> {
        self.rows.push(row);
        self.lengths.push(labels.len());
        self.labels.extend(labels);
        if self.rows.len() < REPORTS_AT_ONCE { Ok(()) } else { self.hand_over(step, io) }
    }

    /// Hands over all that were taken.
    ///
    /// # Errors
    /// Those of [`Io::answer`].
    pub(super) fn hand_over(&mut self, step: &LabelLlm, io: &mut Io) -> anyhow::Result<()> {
        let Outgoing { rows, lengths, labels } = std::mem::take(self);
        if rows.is_empty() {
            Ok(())
        } else {
            io.answer(&rows, &lengths, &step.label_batch(&io.schema("")?, &labels)?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(state: &'static str) -> RowLabel {
        RowLabel { state, call: Some(state.to_owned()), ..RowLabel::failed("nodule".into()) }
    }

    #[test]
    fn most_samples_decide_and_of_equally_many_the_first() {
        let of = |states: &[&'static str]| {
            let label = voted(states.iter().map(|state| label(state)).collect()).unwrap();
            (label.state, label.score.unwrap(), label.agreement.unwrap())
        };
        assert_eq!(of(&["absent", "present", "present", "absent", "present"]), ("present", 0.6, 0.6));
        assert_eq!(of(&["uncertain", "absent", "absent", "uncertain"]), ("uncertain", 0.0, 0.5));
        assert!(voted(Vec::new()).is_none());
    }

    #[test]
    fn a_quote_is_evidence_where_the_report_has_it() {
        let report = Some("A small\n  effusion on the left.");
        let quoting = |quote: &str| {
            let label = Label { state: "present".into(), evidence: Some(quote.into()), probabilities: None };
            RowLabel::of("effusion".into(), &label, "call", report).evidence
        };
        assert_eq!(quoting("small effusion"), Some("small effusion".into()));
        assert_eq!(quoting("large effusion"), None);
    }
}
