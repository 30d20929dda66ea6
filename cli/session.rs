//! What commands share: reading a pipeline, finding the store, the runtime, interruption, exit codes.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use argent_cache::Store;
use argent_engine::diagnostic::{Diagnostic, Sources};
use argent_engine::spec::{Given, has_errors};
use argent_engine::{Options, Pipeline, StaticAnswers, check, spec};

use crate::args::{Arguments, SpecArguments, WorkArguments};
use crate::render::render;

/// The exit code of a wrong spec or command line.
pub(crate) const WRONG: u8 = 2;

/// A pipeline that can run, or what is wrong with it.
pub(crate) struct Checked {
    pub(crate) pipeline: Option<Pipeline>,
    pub(crate) diagnostics: Vec<Diagnostic>,
    pub(crate) sources: Sources,
}

/// Reads and checks a pipeline; a store that is there lends what it remembers of earlier checks.
pub(crate) fn checked(arguments: &SpecArguments, store: Option<&Store>) -> Checked {
    let mut sources = Sources::default();
    let given = Given {
        set: arguments.set.clone(),
        with: arguments.with.clone(),
        environment: std::env::vars().collect(),
    };
    let (spec, mut diagnostics) = spec::read(&arguments.spec, &given, &mut sources);
    let registry = argent_operators::registry();
    let mut pipeline = None;
    if let Some(spec) = spec {
        let statics = store.map(|store| StaticAnswers::read(store, &spec.name)).unwrap_or_default();
        let (checked, more) = check::check(&spec, &registry, statics, &mut sources);
        diagnostics.extend(more);
        pipeline = checked.filter(|_| !has_errors(&diagnostics));
    }
    Checked { pipeline, diagnostics, sources }
}

/// The pipeline; where it is wrong, its mistakes are shown and the exit code is given instead.
pub(crate) fn pipeline(arguments: &Arguments, spec: &SpecArguments) -> Result<Pipeline, ExitCode> {
    let (pipeline, mistakes) = told(arguments, spec);
    if let Some(mistakes) = mistakes {
        eprintln!("{mistakes}");
    }
    pipeline.ok_or(ExitCode::from(WRONG))
}

/// The pipeline if it can run, and what there is to say of it.
pub(crate) fn told(arguments: &Arguments, spec: &SpecArguments) -> (Option<Pipeline>, Option<String>) {
    // A store that does not open is told of by those who need it.
    let store = existing_store(arguments, Some(&spec.spec)).ok();
    let checked = checked(spec, store.as_ref());
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let mistakes =
        (!checked.diagnostics.is_empty()).then(|| render(&checked.diagnostics, &checked.sources, colour));
    (checked.pipeline, mistakes)
}

/// Opens the store that belongs to a spec, or to the current folder.
pub(crate) fn store(arguments: &Arguments, spec: Option<&Path>) -> anyhow::Result<Store> {
    let root = store_root(arguments, spec)?;
    Store::open(&root).with_context(|| format!("the store {} does not open", root.display()))
}

/// Opens a store that must be there already.
pub(crate) fn existing_store(arguments: &Arguments, spec: Option<&Path>) -> anyhow::Result<Store> {
    let root = store_root(arguments, spec)?;
    anyhow::ensure!(
        root.is_dir(),
        "there is no store at {}; run a pipeline first, or name one with --store",
        root.display()
    );
    Store::open(&root).with_context(|| format!("the store {} does not open", root.display()))
}

/// Where the store lies that belongs to a spec, or to the current folder, whether it is there or not.
pub(crate) fn store_root(arguments: &Arguments, spec: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(store) = &arguments.store {
        return Ok(store.clone());
    }
    let here = std::env::current_dir().context("the current folder is gone")?;
    let folder = spec.and_then(Path::parent).map_or(here.clone(), |parent| here.join(parent));
    let folder = folder.canonicalize().unwrap_or(folder);
    let nearest = |name: &str| folder.ancestors().find(|a| a.join(name).exists()).map(Path::to_path_buf);
    let beside = nearest(".argent").or_else(|| nearest(".git")).unwrap_or(folder.clone());
    let root = beside.join(".argent");
    // A short path is easier to read and to type.
    Ok(root.strip_prefix(&here).map(Path::to_path_buf).unwrap_or(root))
}

/// What the user asked of a plan or a run.
pub(crate) fn options(work: &WorkArguments) -> Options {
    let mut resources = argent_operators::gpus::resources();
    resources.jobs = work.jobs.unwrap_or(resources.jobs);
    Options {
        max_usd: work.max_usd,
        retry_errors: work.retry_errors,
        strict: work.strict,
        name: None,
        resources,
        select: work.select.clone(),
    }
}

/// The one runtime of the program: requests and SQL run on it, work does not.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("the runtime does not start")
}

/// A flag that the first SIGINT or SIGTERM sets; the second ends the program at once.
pub(crate) fn interruption() -> anyhow::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&flag))?;
        signal_hook::flag::register(signal, Arc::clone(&flag))?;
    }
    Ok(flag)
}
