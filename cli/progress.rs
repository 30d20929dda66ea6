//! What a run shows while it works: live bars on a terminal, plain lines in a pipe, or events as JSON.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::sync::Mutex;

use argent_engine::Event;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::table::{count, seconds};

/// Draws events.
pub(crate) struct Progress {
    way: Way,
    /// How many characters the names of steps take.
    width: usize,
}

/// Names take at least so many characters, and longer ones at most so many.
const WIDTH: std::ops::RangeInclusive<usize> = 20..=48;

enum Way {
    /// Bars while a step works, a line when it ends.
    Terminal(MultiProgress, Mutex<HashMap<String, ProgressBar>>),
    /// A line when a step ends.
    Lines,
    /// Each event as a line of JSON on standard output.
    Json,
    /// Nothing: a plan is shown at its end.
    Quiet,
}

impl Progress {
    /// The way that suits the program's output, for steps of these names.
    pub(crate) fn new<'s>(json: bool, steps: impl Iterator<Item = &'s str>) -> Progress {
        let way = match (json, std::io::stderr().is_terminal()) {
            (true, _) => Way::Json,
            (false, true) => Way::Terminal(MultiProgress::new(), Mutex::default()),
            (false, false) => Way::Lines,
        };
        let longest = steps.map(|step| step.chars().count()).max().unwrap_or(0);
        Progress { way, width: longest.clamp(*WIDTH.start(), *WIDTH.end()) }
    }

    /// No drawing.
    pub(crate) fn quiet() -> Progress {
        Progress { way: Way::Quiet, width: *WIDTH.start() }
    }

    /// Draws one event.
    pub(crate) fn show(&self, event: &Event) {
        match &self.way {
            Way::Quiet => {}
            Way::Json => json(event),
            Way::Lines => {
                if let Some(line) = line(event, self.width) {
                    eprintln!("{line}");
                }
            }
            Way::Terminal(all, bars) => {
                terminal(all, &mut bars.lock().expect("no drawing panics"), event, self.width)
            }
        }
    }
}

/// Tells warnings alone, of commands that show the rest at their end.
pub(crate) fn warnings(event: Event) {
    if let Event::Warned { step, message } = event {
        eprintln!("warning: {step}: {message}");
    }
}

/// How far a long reading of files is; shown on a terminal only.
pub(crate) struct Meter(ProgressBar);

impl Meter {
    /// A bar of bytes, with the work's name in front.
    pub(crate) fn new(work: &'static str) -> Meter {
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{prefix:20} {bar:24} {bytes}/{total_bytes} {eta}");
        bar.set_style(style.expect("the template is fixed"));
        bar.set_prefix(work);
        Meter(bar)
    }

    /// Shows that `done` of `total` bytes have been read.
    pub(crate) fn at(&self, done: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(done);
    }

    /// Takes the bar away.
    pub(crate) fn clear(&self) {
        self.0.finish_and_clear();
    }
}

fn json(event: &Event) {
    if matches!(event, Event::Progress { .. }) {
        return;
    }
    let line = serde_json::to_string(event).expect("events are plain data");
    // A closed pipe ends the talk, not the work.
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn terminal(all: &MultiProgress, bars: &mut HashMap<String, ProgressBar>, event: &Event, width: usize) {
    match event {
        Event::Running { step, rows, .. } => {
            let bar = all.add(ProgressBar::new(rows.unwrap_or(0)));
            bar.set_style(if rows.is_some() { counted(width) } else { uncounted(width) });
            bar.set_prefix(step.clone());
            bar.tick();
            bars.insert(step.clone(), bar);
        }
        Event::Progress { step, done, total, note } => {
            if let Some(bar) = bars.get(step) {
                if bar.length() == Some(0) {
                    bar.set_style(counted(width));
                }
                bar.set_length(*total);
                bar.set_position(*done);
                bar.set_message(note.clone());
            }
        }
        Event::Made { step, .. }
        | Event::Failed { step, .. }
        | Event::Partial { step, .. }
        | Event::Interrupted { step, .. } => {
            if let Some(bar) = bars.remove(step) {
                bar.finish_and_clear();
            }
        }
        _ => {}
    }
    if let Some(line) = line(event, width) {
        // Above the bars of the steps that still work; a closed terminal ends the talk, not the work.
        let _ = all.println(line);
    }
}

/// How a step is drawn that tells how far it is.
fn counted(width: usize) -> ProgressStyle {
    let template = format!("{{prefix:{width}}} {{bar:24}} {{pos}}/{{len}} {{elapsed}} {{msg}}");
    ProgressStyle::with_template(&template).expect("the template is fixed")
}

/// How a step is drawn that has not told yet how much there is to do.
fn uncounted(width: usize) -> ProgressStyle {
    let template = format!("{{prefix:{width}}} {{spinner}} {{elapsed}} {{msg}}");
    ProgressStyle::with_template(&template).expect("the template is fixed")
}

/// One event as a line, the step's name `width` characters wide; none for those that only move a bar.
fn line(event: &Event, width: usize) -> Option<String> {
    let said = |step: &str, word: &str, rest: String| {
        Some(format!("{step:width$} {word:9} {rest}").trim_end().to_owned())
    };
    match event {
        Event::Started { .. } | Event::Running { .. } | Event::Progress { .. } => None,
        Event::Reused { step, rows } => said(step, "reused", count(*rows, "row")),
        Event::Accepted { step, rows, why, .. } => {
            said(step, "accepted", format!("{}, {why}", count(*rows, "row")))
        }
        Event::Waiting { step } => said(step, "waiting", "another run is making the same result".to_owned()),
        Event::Warned { step, message } => said(step, "warning", message.clone()),
        Event::Damaged { step } => said(
            step,
            "damaged",
            "a part of the stored result is gone or not what it was; made again".to_owned(),
        ),
        Event::Made { step, rows, stats } => {
            let mut rest = format!("{}, {}", count(*rows, "row"), seconds(stats.seconds));
            if stats.reused > 0 {
                rest.push_str(&format!(", {} made, {} reused", stats.made, stats.reused));
            }
            if stats.failed > 0 {
                rest.push_str(&format!(", {} failed", stats.failed));
            }
            if stats.requests > 0 {
                rest.push_str(&format!(", {}", count(stats.requests, "request")));
            }
            if let Some(usd) = stats.usd {
                rest.push_str(&format!(", ${usd:.4}"));
            }
            said(step, "made", rest)
        }
        Event::Failed { step, error } => said(step, "failed", error.clone()),
        Event::Partial { step, rows, pending, reason } => {
            said(step, "stopped", format!("{}, {pending} pending: {reason}", count(*rows, "row")))
        }
        Event::Interrupted { step, message } => said(step, "stopped", message.clone()),
        Event::Blocked { step, by } => said(step, "blocked", format!("waits for {by}")),
        Event::Stale { step, reader, why } => said(
            step,
            "stale",
            format!("not selected, and {reader} needs it: {}; --select +{reader} runs both", why.join("; ")),
        ),
        Event::Breached { step, contract, warn } => {
            said(step, if *warn { "warning" } else { "rejected" }, format!("does not hold: {contract}"))
        }
    }
}
