//! OpenAI's decisions: `POST /v1/decisions`, typed questions about one text.

use serde_json::{Map, Value, json};

use super::{Completion, paid};
use crate::answer::{Finish, Usage};
use crate::failure::{Failure, FailureKind};
use crate::request::{AnswerForm, Options, Question, Request};

/// The text of all messages is the input; nothing is decoded, so nothing says how.
pub(super) fn body(request: &Request) -> Value {
    let texts: Vec<&str> = request.messages.iter().map(|message| &*message.content).collect();
    let questions: Vec<Value> = match &request.answer {
        AnswerForm::Decisions(questions) => questions.iter().map(question).collect(),
        AnswerForm::Json(_) => Vec::new(),
    };
    json!({ "model": request.model, "input": texts.join("\n\n"), "questions": questions })
}

pub(crate) fn question(question: &Question) -> Value {
    let mut json = Map::new();
    let kind = match question.options {
        Options::Choice(_) => "choice",
        Options::Predicate => "predicate",
    };
    json.insert("type".into(), json!(kind));
    json.insert("name".into(), json!(question.name));
    json.insert("instructions".into(), json!(question.instructions));
    if let Options::Choice(choices) = &question.options {
        let choice =
            |(value, description): &(String, String)| json!({ "value": value, "description": description });
        json.insert("choices".into(), choices.iter().map(choice).collect());
    }
    Value::Object(json)
}

/// The text is the list of answers as it came.
pub(super) fn read(raw: Value) -> Result<Completion, Failure> {
    let usage = read_usage(&raw["usage"]);
    let Some(answers) = raw["answers"].as_array() else {
        let what = "status 200 without `answers`, expected decisions";
        return Err(paid(usage, FailureKind::Malformed, what));
    };
    // Gateways that cut the input to the model's window say so here.
    if raw["usage"]["truncated"] == json!(true) {
        let what =
            "the endpoint answered about a part of the prompt only, because it is too long for the model";
        return Err(paid(usage, FailureKind::TruncatedInput, what));
    }
    if answers.is_empty() {
        return Err(paid(usage, FailureKind::Empty, "there is no answer, expected one for each question"));
    }
    if answers.iter().all(|answer| answer["type"] == "refusal") {
        return Err(paid(usage, FailureKind::Refusal, "the model refused to answer every question"));
    }
    let text = raw["answers"].to_string();
    let model = raw["model"].as_str().unwrap_or_default().to_owned();
    Ok(Completion { text, usage, finish: Finish::Stop, model, raw })
}

/// The counts of a response; nothing is written, so that output tokens may be missing.
fn read_usage(usage: &Value) -> Option<Usage> {
    Some(Usage {
        tokens_in: usage["input_tokens"].as_u64()?,
        tokens_cached: usage["input_tokens_details"]["cached_tokens"].as_u64().unwrap_or(0),
        tokens_out: usage["output_tokens"].as_u64().unwrap_or(0),
    })
}
