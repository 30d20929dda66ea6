//! Where to ask, and with whose key.

use std::fmt;
use std::net::IpAddr;

use reqwest::Url;

use crate::dialect::Dialect;
use crate::rate::Rate;

/// A server and a model.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The dialect that it speaks.
    pub dialect: Dialect,
    /// Address of the API up to and without the path of its dialect: `http://127.0.0.1:8000/v1` of
    /// `…/v1/chat/completions`, `http://127.0.0.1:11434` of Ollama's `…/api/chat`.
    pub base_url: String,
    /// Name of the model to ask. A [`crate::Request`] that names another one is not sent.
    pub model: String,
    /// The key, where the server wants one; sent in the header of the dialect.
    pub api_key: Option<ApiKey>,
    /// The context window in tokens that the server is told to use, where its dialect can tell it.
    pub context_tokens: Option<u32>,
    /// What the account behind the key may send in a minute.
    pub rate: Rate,
}

/// A secret. It is not shown, compared or stored; only the request carries it.
#[derive(Clone)]
pub struct ApiKey(String);

impl ApiKey {
    /// Takes a key, without the white space around it that files and variables tend to have.
    pub fn new(secret: impl AsRef<str>) -> Self {
        Self(secret.as_ref().trim().to_owned())
    }

    /// The secret itself, for the one header that carries it.
    pub(crate) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

/// Why an endpoint cannot be used at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointError {
    /// `base_url` is not an address of the form `http(s)://host[:port]/path`.
    BaseUrl {
        /// What is wrong with it, without any part of it that may be secret.
        reason: String,
    },
    /// The dialect is that of a model in process, which has no address.
    InProcess,
    /// The key has characters that a header cannot carry, or none at all.
    ApiKey,
    /// The host's name has no address.
    Resolve {
        /// The host's name.
        host: String,
        /// What the resolver said.
        reason: String,
    },
    /// The host has an address that is neither loopback nor private.
    PublicAddress {
        /// The host's name or address as given.
        host: String,
        /// The first such address.
        address: IpAddr,
    },
    /// The transport could not be set up.
    Transport {
        /// What it said, such as that the system has no certificates.
        reason: String,
    },
}

impl Endpoint {
    /// The address to which requests go.
    pub(crate) fn request_url(&self) -> Result<Url, EndpointError> {
        self.url(self.dialect.path())
    }

    /// The address of the list of models.
    pub(crate) fn models_url(&self) -> Result<Url, EndpointError> {
        self.url(self.dialect.models_path())
    }

    fn url(&self, last: Option<&str>) -> Result<Url, EndpointError> {
        let last = last.ok_or(EndpointError::InProcess)?;
        let mut url = self.base()?;
        let path = format!("{}/{last}", url.path().trim_end_matches('/'));
        url.set_path(&path);
        Ok(url)
    }

    /// The base address, if it is one.
    pub(crate) fn base(&self) -> Result<Url, EndpointError> {
        let wrong = |reason: &str| EndpointError::BaseUrl { reason: reason.to_owned() };
        let url = Url::parse(self.base_url.trim()).map_err(|error| wrong(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
            return Err(wrong("it does not begin with http:// or https:// and a host"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("it holds a user name or password; give a key as `api_key`"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("it has a part after ? or #"));
        }
        if self.dialect == Dialect::OllamaChat && url.path().trim_end_matches('/').ends_with("/v1") {
            return Err(wrong("Ollama's own chat is beside `/v1`, not under it; leave `/v1` out"));
        }
        Ok(url)
    }
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BaseUrl { reason } => {
                write!(f, "`base_url`: {reason}; expected an address such as http://127.0.0.1:8000/v1")
            }
            Self::InProcess => f.write_str(
                "the dialect `local` is that of a model in process, expected one that a server speaks",
            ),
            Self::ApiKey => f.write_str(
                "`api_key` is empty or has characters that a header cannot carry; expected printable ASCII",
            ),
            Self::Resolve { host, reason } => {
                write!(f, "the host `{host}` has no address ({reason}); check `base_url`")
            }
            Self::PublicAddress { host, address } => write!(
                f,
                "`{host}` has the address {address}, expected only loopback and private addresses; if report text \
                 may leave for it, say `egress: allow`"
            ),
            Self::Transport { reason } => {
                write!(f, "the connection to the endpoint cannot be set up: {reason}")
            }
        }
    }
}

impl std::error::Error for EndpointError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(dialect: Dialect, base_url: &str) -> Endpoint {
        let base_url = base_url.into();
        let rate = Rate::default();
        Endpoint { dialect, base_url, model: "m".into(), api_key: None, context_tokens: None, rate }
    }

    fn url_in(dialect: Dialect, base_url: &str) -> Result<String, EndpointError> {
        endpoint(dialect, base_url).request_url().map(String::from)
    }

    fn chat_url(base_url: &str) -> Result<String, EndpointError> {
        url_in(Dialect::OpenaiChat, base_url)
    }

    #[test]
    fn requests_go_to_the_dialects_path_under_the_base_url() {
        for base_url in ["http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1/"] {
            assert_eq!(chat_url(base_url).unwrap(), "http://127.0.0.1:8000/v1/chat/completions");
        }
        let decisions = url_in(Dialect::OpenaiDecisions, "http://127.0.0.1:8000/v1");
        assert_eq!(decisions.unwrap(), "http://127.0.0.1:8000/v1/decisions");
        let messages = url_in(Dialect::AnthropicMessages, "https://api.example/v1");
        assert_eq!(messages.unwrap(), "https://api.example/v1/messages");
        let ollama = url_in(Dialect::OllamaChat, "http://127.0.0.1:11434");
        assert_eq!(ollama.unwrap(), "http://127.0.0.1:11434/api/chat");
        let error = url_in(Dialect::OllamaChat, "http://127.0.0.1:11434/v1").unwrap_err();
        assert!(error.to_string().contains("leave `/v1` out"), "{error}");
        assert_eq!(url_in(Dialect::Local, "http://127.0.0.1:8000/v1"), Err(EndpointError::InProcess));
    }

    #[test]
    fn a_base_url_that_is_none_is_an_error_that_shows_no_secret() {
        for base_url in ["", "localhost:8000", "ftp://host/v1", "http://", "http://h/v1?key=hunter2"] {
            assert!(chat_url(base_url).is_err(), "{base_url}");
        }
        let message = chat_url("https://me:hunter2@host/v1").unwrap_err().to_string();
        assert!(!message.contains("hunter2"), "{message}");
    }

    #[test]
    fn a_key_is_not_shown() {
        let endpoint =
            Endpoint { api_key: Some(ApiKey::new("hunter2")), ..endpoint(Dialect::OpenaiChat, "") };
        assert!(!format!("{endpoint:?}").contains("hunter2"));
    }
}
