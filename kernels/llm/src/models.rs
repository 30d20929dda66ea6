//! The list of models that an endpoint has.

use serde::Deserialize;

use crate::failure::{Failure, FailureKind};
use crate::transport::Response;

/// A list as OpenAI, Anthropic and most others word it (`data`), or as Ollama does (`models`); llama.cpp does both.
#[derive(Deserialize)]
struct List {
    data: Option<Vec<Model>>,
    models: Option<Vec<Model>>,
}

#[derive(Deserialize)]
struct Model {
    id: Option<String>,
    name: Option<String>,
}

impl List {
    fn names(self) -> Option<Vec<String>> {
        self.data.or(self.models)?.into_iter().map(|model| model.id.or(model.name)).collect()
    }
}

/// The names of the models in a response.
pub(crate) fn read_models(response: &Response) -> Result<Vec<String>, Failure> {
    let failed = |kind, message: String| Err(Failure::new(kind, message));
    match response.status {
        200 => match serde_json::from_slice::<List>(&response.body).ok().and_then(List::names) {
            Some(names) => Ok(names),
            None => {
                failed(FailureKind::Malformed, "the endpoint answers, and not with a list of models".into())
            }
        },
        status @ (401 | 403) => {
            failed(FailureKind::Unauthorised, format!("the endpoint refuses the key (status {status})"))
        }
        404 => failed(FailureKind::NotFound, "the endpoint has no list of models (status 404)".into()),
        status @ 500.. => failed(FailureKind::ServerError, format!("the server fails (status {status})")),
        status => failed(
            FailureKind::BadRequest,
            format!("the endpoint does not tell its models (status {status})"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, body: &str) -> Result<Vec<String>, FailureKind> {
        let response = Response { status, body: body.into(), retry_after: None, forbids_retry: false };
        read_models(&response).map_err(|failure| failure.kind)
    }

    #[test]
    fn a_list_gives_names_and_anything_else_a_reason() {
        let ollama = r#"{"models": [{"name": "qwen3:8b", "size": 1}]}"#;
        assert_eq!(read(200, ollama), Ok(vec!["qwen3:8b".to_owned()]));
        let both = r#"{"models": [{"name": "m"}], "data": [{"id": "m", "name": "M"}]}"#;
        assert_eq!(read(200, both), Ok(vec!["m".to_owned()]));
        let list = r#"{"object": "list", "data": [{"id": "qwen3-8b", "object": "model"}, {"id": "m"}]}"#;
        assert_eq!(read(200, list), Ok(vec!["qwen3-8b".to_owned(), "m".to_owned()]));
        assert_eq!(read(200, "<html>"), Err(FailureKind::Malformed));
        assert_eq!(read(403, "{}"), Err(FailureKind::Unauthorised));
        assert_eq!(read(404, ""), Err(FailureKind::NotFound));
        assert_eq!(read(503, ""), Err(FailureKind::ServerError));
    }
}
