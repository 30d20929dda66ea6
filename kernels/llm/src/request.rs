//! What is asked.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};

use crate::dialect::Dialect;
use crate::schema::Schema;

/// One question to a model. It is its own key: equal requests have equal answers as far as anyone can ask for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// The dialect that it is asked in.
    pub dialect: Dialect,
    /// Name of the model as the endpoint knows it.
    pub model: String,
    /// Tells apart models of the same name on different endpoints, such as a digest of the weights; never sent.
    pub identity: Option<String>,
    /// The conversation, in order.
    pub messages: Vec<Message>,
    /// What an answer looks like.
    pub answer: AnswerForm,
    /// How tokens are chosen; decisions choose none.
    pub decoding: Decoding,
    /// Number of the repetition, from 0: asking again with another number is another question. It is added to the
    /// seed, so that a seeded server does not repeat itself.
    pub sample: u32,
}

/// What an answer looks like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerForm {
    /// One JSON value of this JSON Schema. OpenAI's strict mode wants every property required and no others allowed.
    Json(Schema),
    /// Probabilities for these questions, of [`Dialect::OpenaiDecisions`] and [`Dialect::Local`] alone.
    Decisions(Vec<Question>),
}

/// A question that is answered by probabilities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The name that the answer comes back under.
    pub name: String,
    /// What is asked.
    pub instructions: String,
    /// What may be answered.
    pub options: Options,
}

/// What may be answered to a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Options {
    /// One of several values, each with what it means.
    Choice(Vec<(String, String)>),
    /// Whether the instructions hold.
    Predicate,
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said.
    pub content: String,
}

/// Who says a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The instructions.
    System,
    /// The one who asks.
    User,
    /// The model, in an example of an answer.
    Assistant,
}

/// How tokens are chosen. What is `None` is not sent, and the server's default holds (1.0 for the temperature of
/// most servers; some models accept no temperature at all).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Decoding {
    /// Sampling temperature; 0 takes the likeliest token.
    pub temperature: Option<f64>,
    /// Most tokens of the answer. An answer that reaches it is a failure: about 1.5 times the longest legal answer
    /// is a good bound.
    pub max_tokens: u32,
    /// Seed of the server's sampling, where it has one.
    pub seed: Option<u64>,
    /// Fraction of probability mass to sample from.
    pub top_p: Option<f64>,
}

impl Request {
    /// What decides the answer: dialect, model, identity, decoding, schema or questions, messages and sample. Hash
    /// this to name the answer. Where the endpoint is, its key, prices and concurrency are not in it.
    pub fn canonical(&self) -> Value {
        let (mut canonical, (name, form)) = (self.canonical_parts(), self.answer.canonical());
        canonical.insert(name.into(), form.into_owned());
        Value::Object(canonical)
    }

    /// The entries of [`Request::canonical`] but for the [form of the answer](AnswerForm::canonical), which is large and
    /// the same for many requests.
    pub fn canonical_parts(&self) -> Map<String, Value> {
        let mut parts = Map::new();
        parts.insert("dialect".into(), json!(self.dialect.name()));
        parts.insert("model".into(), json!(self.model));
        parts.insert("identity".into(), json!(self.identity));
        if let AnswerForm::Json(_) = &self.answer {
            let Decoding { temperature, max_tokens, seed, top_p } = &self.decoding;
            let decoding = json!({
                "temperature": temperature, "max_tokens": max_tokens, "seed": seed, "top_p": top_p,
            });
            parts.insert("decoding".into(), decoding);
        }
        parts.insert("messages".into(), json!(self.messages));
        parts.insert("sample".into(), json!(self.sample));
        parts
    }

    /// The text of [`Request::canonical`].
    pub fn canonical_text(&self) -> Box<RawValue> {
        let text = match &self.answer {
            AnswerForm::Json(schema) => {
                to_raw_value(&WithSchema { parts: self.canonical_parts(), schema: schema.text() })
            }
            AnswerForm::Decisions(_) => to_raw_value(&self.canonical()),
        };
        text.expect("a JSON value can be written")
    }

    /// The request that a [canonical](Request::canonical) value is of; none where it is of none.
    pub fn of_canonical(canonical: &Value) -> Option<Request> {
        let part = |name: &str| canonical.get(name).cloned();
        fn read<T: serde::de::DeserializeOwned>(value: Option<Value>) -> Option<T> {
            serde_json::from_value(value?).ok()
        }
        let (answer, decoding) = match part("questions") {
            Some(questions) => (AnswerForm::Decisions(read(Some(questions))?), Decoding::default()),
            None => (AnswerForm::Json(Schema::new(part("schema")?)), read(part("decoding"))?),
        };
        Some(Request {
            dialect: read(part("dialect"))?,
            model: read(part("model"))?,
            identity: read(part("identity"))?,
            messages: read(part("messages"))?,
            answer,
            decoding,
            sample: read(part("sample"))?,
        })
    }

    /// The JSON Schema of the answer, where it is JSON.
    pub fn schema(&self) -> Option<&Schema> {
        match &self.answer {
            AnswerForm::Json(schema) => Some(schema),
            AnswerForm::Decisions(_) => None,
        }
    }

    /// The questions that are answered by probabilities; none where the answer is JSON.
    pub fn questions(&self) -> &[Question] {
        match &self.answer {
            AnswerForm::Json(_) => &[],
            AnswerForm::Decisions(questions) => questions,
        }
    }

    /// The bytes of everything that the model reads: messages, and the schema or the questions, which servers put
    /// into the prompt or count all the same.
    pub fn bytes_in(&self) -> u64 {
        let messages: usize = self.messages.iter().map(|message| message.content.len()).sum();
        let form = match &self.answer {
            AnswerForm::Json(schema) => schema.text().get().len(),
            AnswerForm::Decisions(questions) => json!(questions).to_string().len(),
        };
        (messages + form) as u64
    }

    /// The seed to send: samples of one request have seeds of their own.
    pub(crate) fn seed_of_sample(&self) -> Option<u64> {
        Some(self.decoding.seed?.wrapping_add(u64::from(self.sample)))
    }
}

impl AnswerForm {
    /// The entry of [`Request::canonical`] that tells the form: its name and its value.
    pub fn canonical(&self) -> (&'static str, Cow<'_, Value>) {
        match self {
            AnswerForm::Json(schema) => ("schema", Cow::Borrowed(schema.value())),
            AnswerForm::Decisions(questions) => ("questions", Cow::Owned(json!(questions))),
        }
    }
}

/// A request whose schema is written as it stands.
#[derive(Serialize)]
struct WithSchema<'a> {
    #[serde(flatten)]
    parts: Map<String, Value>,
    schema: &'a RawValue,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        Request {
            dialect: Dialect::OpenaiChat,
            model: "m".into(),
            identity: None,
            messages: vec![Message { role: Role::User, content: "text".into() }],
            answer: AnswerForm::Json(Schema::new(json!({ "type": "object" }))),
            decoding: Decoding { temperature: Some(0.0), max_tokens: 100, seed: Some(7), top_p: None },
            sample: 0,
        }
    }

    #[test]
    fn every_field_decides_the_answer() {
        let mutations: [fn(&mut Request); 11] = [
            |r| r.dialect = Dialect::OllamaChat,
            |r| r.model.push('x'),
            |r| r.identity = Some("other weights".into()),
            |r| r.messages[0].content.push('x'),
            |r| r.messages[0].role = Role::System,
            |r| r.answer = AnswerForm::Json(Schema::new(json!({}))),
            |r| r.answer = AnswerForm::Decisions(Vec::new()),
            |r| r.decoding.temperature = None,
            |r| r.decoding.max_tokens = 101,
            |r| r.decoding.seed = Some(8),
            |r| r.decoding.top_p = Some(0.9),
        ];
        for (index, mutate) in mutations.into_iter().enumerate() {
            let mut changed = request();
            mutate(&mut changed);
            assert_ne!(changed.canonical(), request().canonical(), "mutation {index}");
        }
        let again = Request { sample: 1, ..request() };
        assert_ne!(again.canonical(), request().canonical());
    }

    #[test]
    fn a_request_is_read_back_from_its_canonical_value() {
        assert_eq!(Request::of_canonical(&request().canonical()), Some(request()));
        let options = Options::Choice(vec![("present".into(), "it is there".into())]);
        let question = Question { name: "nodule".into(), instructions: "?".into(), options };
        let decisions = Request {
            dialect: Dialect::OpenaiDecisions,
            answer: AnswerForm::Decisions(vec![question]),
            decoding: Decoding::default(),
            ..request()
        };
        assert_eq!(Request::of_canonical(&decisions.canonical()), Some(decisions));
        assert_eq!(Request::of_canonical(&json!({ "model": "m" })), None);
    }

    /// Answers that are paid for are found by this value: it must not change.
    #[test]
    fn the_identity_of_a_chat_request_stands() {
        let expected = json!({
            "dialect": "openai-chat",
            "model": "m",
            "identity": null,
            "decoding": { "temperature": 0.0, "max_tokens": 100, "seed": 7, "top_p": null },
            "schema": { "type": "object" },
            "messages": [{ "role": "user", "content": "text" }],
            "sample": 0
        });
        assert_eq!(request().canonical(), expected);
        let read: Value = serde_json::from_str(request().canonical_text().get()).unwrap();
        assert_eq!(read, expected);
    }
}
