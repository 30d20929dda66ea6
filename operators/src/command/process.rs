//! A program at work: started in its folder, watched, and stopped with all that it started.

use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use argent_engine::Io;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::command::workplace::Workplace;

/// How long a program may take to end by itself once it is asked to.
const GRACE: Duration = Duration::from_secs(5);

/// How often a working program is looked at.
const TICK: Duration = Duration::from_millis(20);

/// Runs a program to its end.
///
/// # Errors
/// When it does not start, takes longer than `limit`, is interrupted, or ends with anything but success. What it
/// printed is then kept in a file that the error names; it is not shown, because it may hold patient text.
pub(super) fn run(
    words: &[String],
    place: &Workplace,
    variables: &[String],
    limit: Option<Duration>,
    io: &Io,
) -> anyhow::Result<()> {
    let log = place.log_path();
    let mut child = start(words, place, variables, &File::create(&log)?, io)?;
    let started = Instant::now();
    while !has_ended(&child)? {
        if io.cancelled() {
            stop(&mut child)?;
            // Nobody wonders why: what it printed goes with its folder.
            bail!("`{}` was interrupted", words[0]);
        }
        if let Some(limit) = limit.filter(|limit| started.elapsed() > *limit) {
            stop(&mut child)?;
            let trouble = format!("took longer than {} s (`timeout_s`) and was stopped", limit.as_secs());
            return Err(failure(&words[0], &trouble, &log)?);
        }
        std::thread::sleep(TICK);
    }
    // What it left running in the background must not write into the next step.
    signal(&child, Signal::KILL);
    match child.wait()? {
        status if status.success() => Ok(()),
        status => Err(failure(&words[0], &ended(status), &log)?),
    }
}

/// The error of a program in trouble, which says where to read what it printed.
fn failure(program: &str, trouble: &str, log: &Path) -> anyhow::Result<anyhow::Error> {
    if log.metadata()?.len() == 0 {
        return Ok(anyhow!("`{program}` {trouble}; it printed nothing"));
    }
    let copy = kept(log)?;
    Ok(anyhow!("`{program}` {trouble}; what it printed is in {} and may hold patient text", copy.display()))
}

/// A copy of what a program printed that outlives the step, readable by the user alone. It lies where the system
/// keeps temporary files and not in the store, which promises to forget patients.
fn kept(log: &Path) -> anyhow::Result<PathBuf> {
    let mut copy = tempfile::Builder::new().prefix("argent-command-").suffix(".log").tempfile()?;
    std::io::copy(&mut File::open(log)?, copy.as_file_mut())?;
    Ok(copy.into_temp_path().keep()?)
}

fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended in no known way".to_owned(),
    }
}

fn start(
    words: &[String],
    place: &Workplace,
    variables: &[String],
    log: &File,
    io: &Io,
) -> anyhow::Result<Child> {
    let program = executable(&words[0], &place.folder)
        .with_context(|| format!("the program `{}` is not there: it is on no folder of PATH", words[0]))?;
    let mut command = Command::new(&program);
    command.args(&words[1..]).current_dir(&place.folder).env_clear().envs(fixed_variables(place));
    if !io.gpus().is_empty() {
        command.env("CUDA_VISIBLE_DEVICES", crate::gpus::visible_devices(io.gpus()));
    }
    for name in variables {
        let value = std::env::var_os(name);
        command.env(name, value.with_context(|| format!("the environment variable {name} is not set"))?);
    }
    // A group of its own, so that all that it starts can be stopped with it.
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?).process_group(0);
    command.spawn().with_context(|| format!("the program `{}` does not start", words[0]))
}

/// What every program sees: enough to find other programs, and what makes runs alike.
fn fixed_variables(place: &Workplace) -> Vec<(&'static str, std::ffi::OsString)> {
    let mut all: Vec<(&str, std::ffi::OsString)> =
        ["PATH", "HOME"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))).collect();
    all.push(("TMPDIR", place.temporary_folder().into()));
    all.extend(
        [
            ("LC_ALL", "C.UTF-8"),
            ("TZ", "UTC"),
            // Python's own: no cache beside the script, and one order of sets in every run.
            ("PYTHONDONTWRITEBYTECODE", "1"),
            ("PYTHONHASHSEED", "0"),
        ]
        .map(|(name, value)| (name, value.into())),
    );
    all
}

/// Where a program lies: a path as it is, below `folder`; a name in the first folder of PATH that has it.
pub(super) fn executable(program: &str, folder: &Path) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(folder.join(program)).filter(|path| path.is_file());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Whether the program has ended. It is left as it is, so that its group's number cannot be another's yet.
fn has_ended(child: &Child) -> anyhow::Result<bool> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    Ok(waitid(WaitId::Pid(Pid::from_child(child)), options)?.is_some())
}

/// Asks the program and all that it started to end, and makes them after a while.
fn stop(child: &mut Child) -> anyhow::Result<()> {
    signal(child, Signal::TERM);
    let asked = Instant::now();
    while !has_ended(child)? && asked.elapsed() < GRACE {
        std::thread::sleep(TICK);
    }
    signal(child, Signal::KILL);
    child.wait()?;
    Ok(())
}

fn signal(child: &Child, signal: Signal) {
    // The only failure is that nobody of the group is left, which is what is wanted.
    let _ = kill_process_group(Pid::from_child(child), signal);
}
