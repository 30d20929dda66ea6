//! Whether the server, the model and the key are there, and what the server does beyond what it says; of a model in
//! process, whether it can be asked. No report is sent or read.

use argent_decoder::Outline;
use argent_engine::operator::{Condition, nearest};
use argent_llm::{Failure, FailureKind, RetryPolicy, Window};
use tokio::runtime::Handle;

use crate::label::llm::LabelLlm;
use crate::label::llm::local::{LocalModel, options};
use crate::label::llm::parameters::DeviceParameter;

/// Patience with a server that only has to say which models it has.
const TIMEOUT_SECONDS: f64 = 10.0;

/// The conditions of a step: the key's variable, then the endpoint, which is not asked without its key.
pub(super) fn conditions(step: &LabelLlm) -> Vec<Condition> {
    if let Some(local) = &step.loaded().local {
        return in_process(step, local);
    }
    let mut all = Vec::new();
    if let Some(secret) = &step.endpoint.api_key {
        let subject = format!("variable {}", secret.env);
        let is_set = std::env::var(&secret.env).is_ok_and(|value| !value.trim().is_empty());
        if !is_set {
            let advice = format!("set it to the key of {}", step.endpoint.place());
            return vec![Condition::unmet(subject, "not set", advice)];
        }
        all.push(Condition::met(subject, "set"));
    }
    all.push(endpoint(step));
    all
}

/// The conditions of a model in process, whose files were found when the spec was read: that they are whole, that
/// findings can be asked of it, and that it can compute where it is to.
fn in_process(step: &LabelLlm, local: &LocalModel) -> Vec<Condition> {
    let subject = format!("model {}", step.endpoint.model);
    let model = match local.files.check(&step.sheet_questions(), &options()) {
        Ok(()) => Condition::met(subject, told(&local.outline)),
        Err(error) => unmet(subject, &error.to_string(), "choose another model, or another version of it"),
    };
    let wants_gpu = step.endpoint.device == DeviceParameter::Cuda;
    let gpu = (wants_gpu && !cfg!(feature = "cuda")).then(|| {
        let advice = "build it with the feature `cuda`, or say `device: cpu`";
        Condition::unmet("device cuda", "this argent was built without GPU support", advice)
    });
    std::iter::once(model).chain(gpu).collect()
}

fn told(outline: &Outline) -> String {
    let Outline { architecture, parameters, context } = outline;
    let parameters = match *parameters {
        few @ ..1_000_000 => few.to_string(),
        millions @ ..1_000_000_000 => format!("{:.1} million", millions as f64 / 1e6),
        billions => format!("{:.1} billion", billions as f64 / 1e9),
    };
    format!("{architecture} of {parameters} parameters; reads up to {context} tokens, and can be asked")
}

fn endpoint(step: &LabelLlm) -> Condition {
    let subject = format!("endpoint {}", step.endpoint.place());
    let policy = RetryPolicy { timeout_seconds: TIMEOUT_SECONDS, ..RetryPolicy::default() };
    let client = match step.client(policy) {
        Ok(client) => client,
        Err(error) => return unmet(subject, &format!("{error:#}"), "mend `endpoint` in the spec"),
    };
    let model = &step.endpoint.model;
    match client.models(&Handle::current()) {
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

/// How long the prompt of a probe is: longer than the windows that servers start with, about 4,600 tokens.
const PROBE_BYTES: u64 = 18_400;

/// Whether the server holds answers to their schema and reads a long prompt whole. Decisions have no schema to break, and
/// say themselves where they cut.
pub(super) fn probes(step: &LabelLlm) -> Vec<Condition> {
    if step.endpoint.decides() {
        return Vec::new();
    }
    let policy = RetryPolicy { max_attempts: 2, ..RetryPolicy::default() };
    let subject = |what: &str| format!("{what} {}", step.endpoint.place());
    let client = match step.client(policy) {
        Ok(client) => client,
        Err(error) => return vec![unmet(subject("probe"), &format!("{error:#}"), "mend `endpoint`")],
    };
    let (runtime, decoding) = (Handle::current(), step.decoding(step.max_tokens.unwrap_or(256)));
    let schema = match client.probe_schema(&runtime, &decoding) {
        Ok(probe) if probe.enforced => Condition::met(subject("schema"), "answers are held to their schema"),
        Ok(_) => Condition::unmet(
            subject("schema"),
            "a schema is taken, and answers are not held to it",
            "each answer is checked and malformed ones are asked for again, which costs; a server that enforces \
             `response_format` spares that",
        ),
        Err(failure) => unmet(subject("schema"), &failure.message, advice(&failure)),
    };
    let window = match client.probe_window(&runtime, PROBE_BYTES, &decoding).map(|probe| probe.window) {
        Ok(Window::Reads(tokens)) => {
            Condition::met(subject("window"), format!("a prompt of {tokens} tokens is read whole"))
        }
        Ok(Window::Refuses) => Condition::met(
            subject("window"),
            format!("a prompt of {PROBE_BYTES} bytes is refused, as one that does not fit should be"),
        ),
        Ok(Window::Cuts(tokens)) => Condition::unmet(
            subject("window"),
            format!("prompts are cut at about {tokens} tokens and answered all the same"),
            "give the model a longer context window",
        ),
        Ok(Window::Uncounted) => Condition::unmet(
            subject("window"),
            "the counts of tokens do not grow with the prompt",
            "costs and cut prompts cannot be told from them",
        ),
        Err(failure) => unmet(subject("window"), &failure.message, advice(&failure)),
    };
    vec![schema, window]
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
