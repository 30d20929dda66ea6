//! A provider's batches: many requests handed over at once, answered within a day for half the price.
//!
//! ```text
//! submit_batch -> id ... batch_state(id): Working -> Ended ... batch_answers(id): by custom id, in any order
//! ```
//!
//! OpenAI takes a file of lines and gives one or two files back (answers, errors); Anthropic takes a list and gives a
//! stream of lines. What a batch did not come to within its time has no line, and has to be asked again.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::time::sleep;

use crate::answer::Answer;
use crate::client::Client;
use crate::dialect::{Completion, Dialect};
use crate::failure::{Failure, FailureKind};
use crate::outcome::{read_failure, read_response};
use crate::request::Request;
use crate::transport::{Response, Transport};

/// The most requests of one batch: OpenAI's bound, which is the lower one.
pub const BATCH_MAX_REQUESTS: usize = 50_000;

/// The most bytes of one batch's requests, below OpenAI's 200 MB.
pub const BATCH_MAX_BYTES: u64 = 150 << 20;

/// Longest body of results that is read: 50,000 answers of some kilobytes.
const MAX_RESULT_BYTES: usize = 1 << 30;

/// What a batch has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchState {
    /// The provider works on it.
    Working {
        /// Requests that have come to an end.
        done: u64,
        /// All requests.
        total: u64,
    },
    /// Nothing more will come of it; what it came to can be fetched.
    Ended,
}

/// By custom id: what a batch came to. Requests that are not among them were not asked.
pub type BatchAnswers = Vec<(String, Result<Answer, Failure>)>;

/// One line of OpenAI's file of requests.
#[derive(Serialize)]
struct Line<'a> {
    custom_id: &'a str,
    method: &'a str,
    url: &'a str,
    body: &'a RawValue,
}

/// One of Anthropic's list of requests.
#[derive(Serialize)]
struct Entry<'a> {
    custom_id: &'a str,
    params: &'a RawValue,
}

#[derive(Serialize)]
struct Entries<'a> {
    requests: Vec<Entry<'a>>,
}

impl Dialect {
    /// Whether servers of the dialect take batches.
    pub fn has_batches(self) -> bool {
        matches!(self, Self::OpenaiChat | Self::AnthropicMessages)
    }
}

impl Client {
    /// Hands over requests, each with an id of at most 64 letters, digits, `_` and `-`; tells the batch's id. `mark` is
    /// kept with the batch where the provider can, for [`Client::find_batch`].
    ///
    /// This and the other methods on batches block the calling thread, which must not be one of `runtime`.
    ///
    /// # Errors
    /// Why the batch was not taken. Where the connection broke before there was an answer, it may have been.
    pub fn submit_batch(
        &self,
        runtime: &Handle,
        mark: &str,
        requests: &[(String, Request)],
    ) -> Result<String, Failure> {
        let bodies: Vec<(&str, Box<RawValue>)> = requests
            .iter()
            .map(|(id, request)| Ok((id.as_str(), self.raw_body(request)?)))
            .collect::<Result<_, Failure>>()?;
        let transport = self.transport();
        let created = match self.dialect() {
            Dialect::AnthropicMessages => {
                let requests =
                    bodies.iter().map(|(id, body)| Entry { custom_id: id, params: body }).collect();
                let body = written(&Entries { requests })?;
                self.block(runtime, async move { transport.post_to("messages/batches", JSON, body).await })?
            }
            _ => {
                let file = self.upload(runtime, &bodies)?;
                let body = written(&json!({
                    "input_file_id": file,
                    "endpoint": "/v1/chat/completions",
                    "completion_window": "24h",
                    "metadata": { "argent": mark },
                }))?;
                self.block(runtime, async move { transport.post_to("batches", JSON, body).await })?
            }
        };
        text(&created, "id")
    }

    /// The batch that was handed over with a mark, where the provider keeps marks and has one: of a program that was
    /// killed before it could note the batch's id.
    ///
    /// # Errors
    /// Why the provider does not tell.
    pub fn find_batch(&self, runtime: &Handle, mark: &str) -> Result<Option<String>, Failure> {
        if self.dialect() != Dialect::OpenaiChat {
            return Ok(None);
        }
        let listed = self.get(runtime, "batches?limit=100".to_owned())?;
        let batches = listed["data"].as_array().into_iter().flatten();
        let mut marked = batches.filter(|batch| batch["metadata"]["argent"] == mark);
        marked.next().map(|batch| text(batch, "id")).transpose()
    }

    /// What a batch has come to.
    ///
    /// # Errors
    /// Why the provider does not tell, and what is wrong with a batch that it refused as a whole.
    pub fn batch_state(&self, runtime: &Handle, id: &str) -> Result<BatchState, Failure> {
        let batch = self.get(runtime, self.batch_path(id))?;
        let counts = &batch["request_counts"];
        let count = |name: &str| counts[name].as_u64().unwrap_or(0);
        if self.dialect() == Dialect::AnthropicMessages {
            let done = ["succeeded", "errored", "canceled", "expired"].into_iter().map(count).sum();
            let total = done + count("processing");
            return Ok(match batch["processing_status"].as_str() {
                Some("ended") => BatchState::Ended,
                _ => BatchState::Working { done, total },
            });
        }
        match batch["status"].as_str() {
            Some("completed" | "expired" | "cancelled") => Ok(BatchState::Ended),
            Some("failed") => {
                let code = batch["errors"]["data"][0]["code"].as_str().unwrap_or("no reason given");
                let message = format!("the provider refused the batch as a whole: {code}");
                Err(Failure::new(FailureKind::BadRequest, message))
            }
            _ => {
                Ok(BatchState::Working { done: count("completed") + count("failed"), total: count("total") })
            }
        }
    }

    /// What a batch that has ended came to, in no order. `requests` are those that were handed over, by custom id; lines
    /// of other ids are left out.
    ///
    /// # Errors
    /// Why the provider does not give the results.
    pub fn batch_answers(
        &self,
        runtime: &Handle,
        id: &str,
        requests: &HashMap<String, Request>,
    ) -> Result<BatchAnswers, Failure> {
        let mut paths = Vec::new();
        if self.dialect() == Dialect::AnthropicMessages {
            paths.push(format!("messages/batches/{id}/results"));
        } else {
            let batch = self.get(runtime, self.batch_path(id))?;
            let files = ["output_file_id", "error_file_id"].map(|name| batch[name].as_str());
            paths.extend(files.into_iter().flatten().map(|file| format!("files/{file}/content")));
        }
        let mut all = Vec::new();
        for path in paths {
            let response = self.get_patiently(runtime, path, MAX_RESULT_BYTES)?;
            for line in response.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let malformed =
                    || Failure::new(FailureKind::Malformed, "a line of a batch's results is no JSON");
                let line: Value = serde_json::from_slice(line).map_err(|_| malformed())?;
                let Some(id) = line["custom_id"].as_str() else { continue };
                let Some(request) = requests.get(id) else { continue };
                all.extend(outcome(&line, request).map(|outcome| (id.to_owned(), outcome)));
            }
        }
        Ok(all)
    }

    fn batch_path(&self, id: &str) -> String {
        match self.dialect() {
            Dialect::AnthropicMessages => format!("messages/batches/{id}"),
            _ => format!("batches/{id}"),
        }
    }

    fn raw_body(&self, request: &Request) -> Result<Box<RawValue>, Failure> {
        let body = String::from_utf8(self.dialect().body(request, self.habits()));
        let raw = body.ok().and_then(|body| RawValue::from_string(body).ok());
        raw.ok_or_else(|| Failure::new(FailureKind::BadRequest, "a request that is no JSON was made"))
    }

    /// Uploads the lines of a batch; tells the file's id.
    fn upload(&self, runtime: &Handle, bodies: &[(&str, Box<RawValue>)]) -> Result<String, Failure> {
        // Lines of JSON have no line ends inside, so that no line can be taken for the end of the part.
        const BOUNDARY: &str = "argent-batch";
        let mut form = format!(
            "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--{BOUNDARY}\r\n\
             content-disposition: form-data; name=\"file\"; filename=\"requests.jsonl\"\r\n\
             content-type: application/jsonl\r\n\r\n"
        )
        .into_bytes();
        for (id, body) in bodies {
            let line = Line { custom_id: id, method: "POST", url: "/v1/chat/completions", body };
            form.extend(written(&line)?);
            form.push(b'\n');
        }
        form.extend(format!("\r\n--{BOUNDARY}--\r\n").into_bytes());
        let transport = self.transport();
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        let file = self.block(runtime, async move { transport.post_to("files", &kind, form).await })?;
        text(&file, "id")
    }

    fn get(&self, runtime: &Handle, path: String) -> Result<Value, Failure> {
        body(&self.get_patiently(runtime, path, Transport::MAX_BODY_BYTES)?)
    }

    /// Sends once and waits for the response; what was sent may have been heard even where no response came.
    fn block(
        &self,
        runtime: &Handle,
        send: impl Future<Output = Result<Response, Failure>> + Send + 'static,
    ) -> Result<Value, Failure> {
        let response = self.wait_for(runtime, send)?;
        body(&response)
    }

    /// Gets what is at a path, again while what goes wrong may pass.
    fn get_patiently(&self, runtime: &Handle, path: String, max_bytes: usize) -> Result<Response, Failure> {
        let (policy, transport) = (self.policy(), self.transport());
        self.wait_for(runtime, async move {
            let mut attempts = 1;
            loop {
                let (failure, asked) = match transport.get_at(&path, max_bytes).await {
                    Ok(response) if response.status == 200 => return Ok(response),
                    Ok(response) => (read_failure(response.status, &response.body), response.retry_after),
                    Err(failure) => (failure, None),
                };
                if !failure.kind.is_worth_another_attempt() || attempts >= policy.max_attempts {
                    return Err(Failure { attempts, ..failure });
                }
                let wait = asked.map(|asked| asked.min(policy.longest_asked_wait()));
                sleep(wait.unwrap_or_else(|| policy.wait(attempts))).await;
                attempts += 1;
            }
        })
    }
}

const JSON: &str = "application/json";

fn written(value: &impl Serialize) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(value)
        .map_err(|_| Failure::new(FailureKind::BadRequest, "a batch that is no JSON was made"))
}

/// The JSON of a response of status 200.
fn body(response: &Response) -> Result<Value, Failure> {
    if response.status != 200 {
        return Err(read_failure(response.status, &response.body));
    }
    let malformed = || Failure::new(FailureKind::Malformed, "status 200 without JSON, expected a batch");
    serde_json::from_slice(&response.body).map_err(|_| malformed())
}

fn text(value: &Value, name: &str) -> Result<String, Failure> {
    let missing = || Failure::new(FailureKind::Malformed, format!("the provider gives no `{name}`"));
    value[name].as_str().map(str::to_owned).ok_or_else(missing)
}

/// What a line of results says; none where the request was not asked: it expired or was cancelled.
fn outcome(line: &Value, request: &Request) -> Option<Result<Answer, Failure>> {
    let (status, body) = match request.dialect {
        Dialect::AnthropicMessages => match line["result"]["type"].as_str() {
            Some("succeeded") => (200, &line["result"]["message"]),
            Some("errored") => (status_of(&line["result"]["error"]), &line["result"]["error"]),
            _ => return None,
        },
        _ => {
            let code = line["error"]["code"].as_str();
            if matches!(code, Some("batch_expired" | "batch_cancelled")) {
                return None;
            }
            match line["response"]["status_code"].as_u64() {
                Some(status) => (u16::try_from(status).unwrap_or(500), &line["response"]["body"]),
                None => (500, &line["error"]),
            }
        }
    };
    let bytes = body.to_string().into_bytes();
    let answer = |completion| {
        let Completion { text, usage, finish, model, raw } = completion;
        // How long one request of a batch took is not told.
        Answer { text, usage, finish, model, raw, attempts: 1, seconds: 0.0 }
    };
    let outcome = read_response(status, &bytes, request).map(answer);
    Some(outcome.map_err(|failure| Failure { attempts: 1, ..failure }))
}

/// The status that an error of Anthropic's would have had by itself.
fn status_of(error: &Value) -> u16 {
    let kind = error["error"]["type"].as_str().or(error["type"].as_str());
    match kind {
        Some("invalid_request_error") => 400,
        Some("authentication_error") => 401,
        Some("billing_error") => 402,
        Some("permission_error") => 403,
        Some("not_found_error") => 404,
        Some("request_too_large") => 413,
        Some("rate_limit_error") => 429,
        Some("overloaded_error") => 529,
        _ => 500,
    }
}
