//! Whether the server, the model and the key are there. No report is sent.

use argent_engine::operator::{Condition, nearest};
use argent_llm::{Failure, FailureKind, RetryPolicy};

use crate::label::llm::LabelLlm;

/// Patience with a server that only has to say which models it has.
const TIMEOUT_SECONDS: f64 = 10.0;

/// The conditions of a step: the key's variable, then the endpoint, which is not asked without its key.
pub(super) fn conditions(step: &LabelLlm) -> Vec<Condition> {
    let mut all = Vec::new();
    if let Some(secret) = &step.endpoint.api_key {
        let subject = format!("variable {}", secret.env);
        let is_set = std::env::var(&secret.env).is_ok_and(|value| !value.trim().is_empty());
        if !is_set {
            let advice = format!("set it to the key of {}", step.endpoint.base_url);
            return vec![Condition::unmet(subject, "not set", advice)];
        }
        all.push(Condition::met(subject, "set"));
    }
    all.push(endpoint(step));
    all
}

fn endpoint(step: &LabelLlm) -> Condition {
    let subject = format!("endpoint {}", step.endpoint.base_url);
    let policy = RetryPolicy { timeout_seconds: TIMEOUT_SECONDS, ..RetryPolicy::default() };
    let client = match step.client(policy) {
        Ok(client) => client,
        Err(error) => return unmet(subject, &format!("{error:#}"), "mend `endpoint` in the spec"),
    };
    let model = &step.endpoint.model;
    match client.models(&tokio::runtime::Handle::current()) {
        Ok(models) if models.is_empty() => Condition::met(subject, "answers, and lists no model"),
        Ok(models) if models.contains(model) => {
            Condition::met(subject, format!("answers, and has `{model}`"))
        }
        Ok(models) => {
            let names: Vec<&str> = models.iter().map(String::as_str).collect();
            let found = format!("answers, and has no model `{model}`");
            Condition::unmet(subject, found, nearest(model, &names, "models"))
        }
        // A server that keeps no list may serve chat completions all the same.
        Err(Failure { kind: FailureKind::NotFound | FailureKind::Malformed, message, .. }) => {
            Condition::met(subject, format!("answers; {message}"))
        }
        Err(failure) => unmet(subject, &failure.message, advice(&failure)),
    }
}

/// The condition of a message, which may say itself what to do.
fn unmet(subject: String, message: &str, advice: &str) -> Condition {
    let (found, advice) = message.split_once("; ").unwrap_or((message, advice));
    Condition::unmet(subject, found, advice)
}

fn advice(failure: &Failure) -> &'static str {
    match failure.kind {
        FailureKind::Unauthorised => "give it a key that it takes, by `api_key: { env: NAME }`",
        _ => "look at the server, or change `base_url`",
    }
}
