//! What is asked.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The dialect spoken, part of every request's identity.
const DIALECT: &str = "openai-chat";

/// One question to a model. It is its own key: equal requests have equal answers as far as anyone can ask for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Name of the model as the endpoint knows it.
    pub model: String,
    /// Tells apart models of the same name on different endpoints, such as a digest of the weights; never sent.
    pub identity: Option<String>,
    /// The conversation, in order.
    pub messages: Vec<Message>,
    /// JSON Schema of the answer. OpenAI's strict mode wants every property required and no others allowed.
    pub schema: Value,
    /// How tokens are chosen.
    pub decoding: Decoding,
    /// Number of the repetition, from 0: asking again with another number is another question. It is added to the
    /// seed, so that a seeded server does not repeat itself.
    pub sample: u32,
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

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// How tokens are chosen. What is `None` is not sent, and the server's default holds (1.0 for the temperature of
/// most servers; some models accept no temperature at all).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// What decides the answer: dialect, model, identity, decoding, schema, messages and sample. Hash this to name
    /// the answer. Where the endpoint is, its key, prices and concurrency are not in it.
    pub fn canonical(&self) -> Value {
        json!({
            "dialect": DIALECT,
            "model": self.model,
            "identity": self.identity,
            "decoding": {
                "temperature": self.decoding.temperature,
                "max_tokens": self.decoding.max_tokens,
                "seed": self.decoding.seed,
                "top_p": self.decoding.top_p,
            },
            "schema": self.schema,
            "messages": self.messages_json(),
            "sample": self.sample,
        })
    }

    /// The body to send. `token_limit_field` is the server's name for the most tokens of the answer.
    pub(crate) fn body(&self, token_limit_field: &str) -> Value {
        let mut body = Map::new();
        body.insert("model".into(), json!(self.model));
        body.insert("messages".into(), self.messages_json());
        let schema = json!({ "name": "answer", "strict": true, "schema": self.schema });
        body.insert("response_format".into(), json!({ "type": "json_schema", "json_schema": schema }));
        body.insert(token_limit_field.into(), json!(self.decoding.max_tokens));
        if let Some(temperature) = self.decoding.temperature {
            body.insert("temperature".into(), json!(temperature));
        }
        if let Some(top_p) = self.decoding.top_p {
            body.insert("top_p".into(), json!(top_p));
        }
        if let Some(seed) = self.decoding.seed {
            body.insert("seed".into(), json!(seed.wrapping_add(u64::from(self.sample))));
        }
        Value::Object(body)
    }

    fn messages_json(&self) -> Value {
        let message =
            |message: &Message| json!({ "role": message.role.as_str(), "content": message.content });
        self.messages.iter().map(message).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        Request {
            model: "m".into(),
            identity: None,
            messages: vec![Message { role: Role::User, content: "text".into() }],
            schema: json!({ "type": "object" }),
            decoding: Decoding { temperature: Some(0.0), max_tokens: 100, seed: Some(7), top_p: None },
            sample: 0,
        }
    }

    #[test]
    fn every_field_decides_the_answer() {
        let mutations: [fn(&mut Request); 9] = [
            |r| r.model.push('x'),
            |r| r.identity = Some("other weights".into()),
            |r| r.messages[0].content.push('x'),
            |r| r.messages[0].role = Role::System,
            |r| r.schema = json!({}),
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
    fn the_body_is_an_openai_chat_request() {
        let request = Request { sample: 2, ..request() };
        let body = request.body("max_tokens");
        let expected = json!({
            "model": "m",
            "messages": [{ "role": "user", "content": "text" }],
            "response_format": {
                "type": "json_schema",
                "json_schema": { "name": "answer", "strict": true, "schema": { "type": "object" } }
            },
            "max_tokens": 100,
            "temperature": 0.0,
            "seed": 9
        });
        assert_eq!(body, expected);
    }
}
