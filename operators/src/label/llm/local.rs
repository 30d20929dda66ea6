//! A language model in process: which one it is, how findings are asked of it, and how its answers are worded.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, absolute};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fmt, fs};

use anyhow::{Context, bail};
use argent_decoder::{Device, Model, ModelFiles, Outline, Sheet, hub_cache};
use argent_engine::operator::ConfigFiles;
use argent_engine::{Io, Problem};
use argent_llm::{Answer, Finish, Message, Options, Request, Role, Usage};
use serde_json::{Map, Value, json};

use super::parameters::EndpointParameters;
use super::question::ASKED;

/// The letters that stand for the states, in their order: with most tokenizers a letter behind a blank is one token,
/// and a state is several.
const LETTERS: [&str; ASKED.len()] = ["A", "B", "C", "D"];

/// A prompt with what its letters mean at its end.
pub(super) fn with_legend(prompt: &str) -> String {
    let meaning = |(letter, state): (&str, &str)| format!("{letter} {}", state.replace('_', " "));
    let meanings: Vec<String> = LETTERS.into_iter().zip(ASKED).map(meaning).collect();
    format!("{}\n\nAnswer with one letter: {}.", prompt.trim_end(), meanings.join(", "))
}

/// What the model has said of its answer about a finding when a letter comes next.
pub(super) fn question(finding: &str) -> String {
    format!("{finding}:")
}

/// What may come next.
pub(super) fn options() -> Vec<String> {
    LETTERS.map(|letter| format!(" {letter}")).to_vec()
}

/// The questions of a request, as the model is asked them.
///
/// # Errors
/// Where one cannot be asked of this model.
pub(super) fn sheet(model: &Model, request: &Request) -> anyhow::Result<Sheet> {
    let questions: Vec<String> = request.questions().iter().map(|q| q.instructions.clone()).collect();
    Ok(model.sheet(&questions, &options())?)
}

/// The conversation of a request.
pub(super) fn conversation(request: &Request) -> Vec<argent_decoder::Message> {
    let role = |role| match role {
        Role::System => argent_decoder::Role::System,
        Role::User => argent_decoder::Role::User,
        Role::Assistant => argent_decoder::Role::Assistant,
    };
    let message =
        |said: &Message| argent_decoder::Message { role: role(said.role), content: said.content.clone() };
    request.messages.iter().map(message).collect()
}

/// What the model says to a request, worded as decisions.
///
/// # Errors
/// Where a question is none of a state.
pub(super) fn answer(
    request: &Request,
    said: &argent_decoder::Answer,
    model: &str,
    seconds: f64,
) -> anyhow::Result<Answer> {
    let decided = request.questions().iter().zip(&said.decisions).map(|(question, decision)| {
        let Options::Choice(choices) = &question.options else { bail!("a model in process chooses a state") };
        let each = choices.iter().zip(&decision.probabilities);
        let each: Vec<Value> = each
            .map(|((value, _), probability)| json!({ "value": value, "probability": rounded(*probability) }))
            .collect();
        let label_mass = rounded(decision.label_mass);
        Ok(json!({ "type": "choice", "name": question.name, "probabilities": each, "label_mass": label_mass }))
    });
    let decided = decided.collect::<anyhow::Result<Vec<Value>>>()?;
    let usage =
        Usage { tokens_in: said.tokens as u64, tokens_cached: said.tokens_cached as u64, tokens_out: 0 };
    Ok(Answer {
        text: Value::Array(decided).to_string(),
        usage: Some(usage),
        finish: Finish::Stop,
        model: model.to_owned(),
        // There is no response beyond the decisions.
        raw: Value::Null,
        attempts: 1,
        seconds,
    })
}

/// A probability as it is kept: floats of another batch, or of another processor, differ behind these digits.
fn rounded(probability: f64) -> f64 {
    (probability * 1e6).round() / 1e6
}

/// A model in process, as its files tell.
#[derive(Debug, Clone)]
pub(crate) struct LocalModel {
    pub(super) files: ModelFiles,
    pub(super) outline: Outline,
}

/// The model in process that an endpoint names, where it names one. Its files decide the step's result: they enter the
/// key by their names, sizes and times, because reading them at every command would take longer than the command. A
/// model that was only touched is asked nothing again, since requests name it by its [content](LocalModel::identity).
///
/// # Errors
/// A problem at the model's name where it is not there, lacks a file or is of a kind that is not computed.
pub(crate) fn find(
    files: &mut ConfigFiles,
    endpoint: &EndpointParameters,
) -> Result<Option<LocalModel>, Problem> {
    if !endpoint.is_local() {
        return Ok(None);
    }
    let problem = |error: String| {
        let (message, help) =
            error.split_once("; ").unwrap_or((&error, "name a folder with a model, or one in the hub cache"));
        Problem::at(["with", "endpoint", "model"], message).help(help)
    };
    let found = ModelFiles::find(&endpoint.model, files.folder(), &hub_cache());
    let model = found.and_then(|files| Ok(LocalModel { outline: files.outline()?, files }));
    let model = model.map_err(|error| problem(error.to_string()))?;
    let stamps = model.stamps().map_err(|error| problem(format!("{error:#}")))?;
    let sizes = stamps.iter().map(|stamp| {
        let name = stamp.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        (name, json!({ "bytes": stamp.bytes, "modified_ns": stamp.modified_ns }))
    });
    files.uses_folder("endpoint.model", &endpoint.model, Value::Object(sizes.collect::<Map<_, _>>()));
    Ok(Some(model))
}

/// The name of the memo that has the identities of models by what `stat` says of their files.
const IDENTITIES: &str = "model identities";

/// A file changed this soon before it was read may be changed again within one tick of its file system's clock, without
/// any sign in its times.
const RACY_NS: i64 = 2_000_000_000;

impl LocalModel {
    /// The digest of the model's files, which tells models apart wherever they lie. It is remembered by their paths,
    /// sizes and times: they may be many gigabytes.
    ///
    /// # Errors
    /// When a file cannot be read, or the memo does not open.
    pub(super) fn identity(&self, io: &Io) -> anyhow::Result<String> {
        let stamps = self.stamps()?;
        let memo = io.memo(IDENTITIES)?;
        let key = io.question_keys().key(&stamps.iter().map(Stamp::to_json).collect());
        if let Some(known) = memo.get(&key)? {
            return Ok(String::from_utf8(known)?);
        }
        let began_ns = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?;
        let identity = self.files.identity()?;
        let is_settled = stamps.iter().all(|stamp| stamp.newest_ns() + RACY_NS <= began_ns);
        if is_settled && self.stamps()? == stamps {
            memo.put(key, identity.as_bytes())?;
        }
        Ok(identity)
    }

    fn stamps(&self) -> anyhow::Result<Vec<Stamp<'_>>> {
        self.files.paths().into_iter().map(Stamp::of).collect()
    }
}

/// What changes whenever a file does.
#[derive(Debug, PartialEq, Eq)]
struct Stamp<'a> {
    path: &'a Path,
    bytes: u64,
    modified_ns: i64,
    changed_ns: i64,
    inode: u64,
}

impl Stamp<'_> {
    fn of(path: &Path) -> anyhow::Result<Stamp<'_>> {
        let metadata: Metadata =
            fs::metadata(path).with_context(|| format!("{} cannot be read", path.display()))?;
        let ns = |seconds: i64, ns: i64| seconds.saturating_mul(1_000_000_000).saturating_add(ns);
        Ok(Stamp {
            path,
            bytes: metadata.len(),
            modified_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
        })
    }

    fn newest_ns(&self) -> i64 {
        self.modified_ns.max(self.changed_ns)
    }

    fn to_json(&self) -> Value {
        let path = absolute(self.path).unwrap_or_else(|_| self.path.to_owned());
        let Stamp { bytes, modified_ns, changed_ns, inode, .. } = self;
        json!([path.to_string_lossy(), bytes, modified_ns, changed_ns, inode])
    }
}

/// The model of a step once it is read, kept between the chunks of rows of a run: reading it takes as long as answering
/// many of them.
#[derive(Clone, Default)]
pub(crate) struct OpenModel(Arc<Mutex<Option<Model>>>);

impl OpenModel {
    /// Where the model is; nobody else has it meanwhile.
    pub(super) fn lock(&self) -> MutexGuard<'_, Option<Model>> {
        self.0.lock().unwrap_or_else(|poisoned| {
            // A panic may have left it halfway through a prompt.
            let mut model = poisoned.into_inner();
            *model = None;
            model
        })
    }

    /// Lets the model go.
    pub(crate) fn release(&self) {
        *self.lock() = None;
    }
}

impl fmt::Debug for OpenModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OpenModel(…)")
    }
}

/// The model, read where that has not been done yet.
///
/// # Errors
/// Where it does not open.
pub(super) fn opened<'a>(
    held: &'a mut Option<Model>,
    local: &LocalModel,
    device: Device,
) -> anyhow::Result<&'a mut Model> {
    match held {
        Some(model) => Ok(model),
        none => Ok(none.insert(Model::open(&local.files, device)?)),
    }
}
