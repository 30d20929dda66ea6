//! How a conversation becomes the text that a model was trained to read.

use std::fmt::Write;

use chrono::NaiveDate;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{Environment, ErrorKind, UndefinedBehavior, context};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::files::{ModelFiles, read_json, unreadable};

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said.
    pub content: String,
}

/// Who says a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The instructions.
    System,
    /// The one who asks.
    User,
    /// The model, in an example of an answer.
    Assistant,
}

/// The chat template of a model.
pub(crate) struct Chat {
    environment: Environment<'static>,
    /// The names of the special tokens, such as `bos_token`.
    special: serde_json::Map<String, serde_json::Value>,
}

/// The one template.
const NAME: &str = "chat_template";
/// The day that templates are told: that which Llama's names where none is given. With today's, an answer would
/// depend on the day.
const TODAY: (i32, u32, u32) = (2024, 7, 26);

/// `tokenizer_config.json`, as far as it is needed.
#[derive(Default, Deserialize)]
struct TokenizerConfig {
    chat_template: Option<Templates>,
    #[serde(flatten)]
    others: serde_json::Map<String, serde_json::Value>,
}

/// One template, or several by name.
#[derive(Deserialize)]
#[serde(untagged)]
enum Templates {
    One(String),
    Several(Vec<NamedTemplate>),
}

#[derive(Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

impl Chat {
    /// Reads the chat template of a model; a base model has none.
    ///
    /// # Errors
    /// If there is one and it does not render a conversation of one question.
    pub(crate) fn open(files: &ModelFiles) -> Result<Option<Self>, Error> {
        let config: TokenizerConfig = match &files.tokenizer_config {
            Some(path) => read_json(path)?,
            None => TokenizerConfig::default(),
        };
        let template = match &files.chat_template {
            Some(path) => Some(std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?),
            None => config.chat_template.and_then(Templates::default_one),
        };
        let Some(template) = template else {
            return Ok(None);
        };
        let special = config.others.into_iter().filter_map(special_token).collect();
        let chat = Self { environment: environment(template)?, special };
        // No patient is in this one, so its errors may be shown as they are.
        let trial = Message { role: Role::User, content: "a question".into() };
        chat.rendered(&[trial]).map_err(|error| {
            Error::Template(format!("the model's chat template does not render: {error:#}"))
        })?;
        Ok(Some(chat))
    }

    /// The conversation as text, up to where the model's answer begins, without its thoughts where it has any.
    ///
    /// # Errors
    /// If the template refuses the conversation; the message says where, and nothing of the conversation.
    pub(crate) fn render(&self, messages: &[Message]) -> Result<String, Error> {
        self.rendered(messages).map_err(|error| {
            let line = error.line().map(|line| format!(" at line {line}")).unwrap_or_default();
            let roles: Vec<String> = messages.iter().map(|message| format!("{:?}", message.role)).collect();
            Error::Template(format!(
                "the model's chat template refuses a conversation of {} ({}{line}); \
                 not every model takes a message of the system",
                roles.join(", ").to_lowercase(),
                error.kind()
            ))
        })
    }

    fn rendered(&self, messages: &[Message]) -> Result<String, minijinja::Error> {
        // Templates ask whether these are none, which what is not defined would not be.
        let context = context! {
            messages => Value::from(Serde(messages)),
            add_generation_prompt => true,
            enable_thinking => false,
            tools => (),
            documents => (),
            ..Value::from(Serde(&self.special))
        };
        self.environment.get_template(NAME)?.render(context)
    }
}

impl Templates {
    /// The only one, or the one that is called `default`.
    fn default_one(self) -> Option<String> {
        match self {
            Self::One(template) => Some(template),
            Self::Several(all) => {
                all.into_iter().find(|named| named.name == "default").map(|named| named.template)
            }
        }
    }
}

/// What transformers gives its templates: Jinja's blocks without their line ends, Python's methods of strings, and
/// two functions.
fn environment(template: String) -> Result<Environment<'static>, Error> {
    let not_understood = |error: minijinja::Error| {
        Error::Template(format!("the model's chat template is not understood: {error:#}"))
    };
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    let mut environment = Environment::new();
    environment.set_syntax(syntax.map_err(not_understood)?);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_unknown_method_callback(unknown_method_callback);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    environment.add_template_owned(NAME, template).map_err(not_understood)?;
    Ok(environment)
}

fn raise_exception(message: String) -> Result<String, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
}

fn strftime_now(format: String) -> Result<String, minijinja::Error> {
    let (year, month, day) = TODAY;
    let today = NaiveDate::from_ymd_opt(year, month, day).unwrap_or_default();
    let mut text = String::new();
    write!(text, "{}", today.format(&format))
        .map_err(|_| minijinja::Error::new(ErrorKind::InvalidOperation, "no format of a date"))?;
    Ok(text)
}

/// A special token by its key, such as `bos_token`: its text, which may stand in an object.
fn special_token((key, value): (String, serde_json::Value)) -> Option<(String, serde_json::Value)> {
    let text = value.get("content").cloned().unwrap_or(value);
    (key.ends_with("_token") && text.is_string()).then_some((key, text))
}
