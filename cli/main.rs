//! The `argent` command: arguments in, progress and tables out.

mod args;
mod canary;
mod check;
mod diff;
mod doctor;
mod errors;
mod forget;
mod gc;
mod init;
mod inline;
mod markdown;
mod metrics;
mod ops;
mod parameters;
mod plan;
mod progress;
mod reference;
mod render;
mod run;
mod runs;
mod schema;
mod session;
mod shell;
mod shipped;
mod show;
#[cfg(feature = "sql")]
mod sql;
mod table;
mod trial;
mod verify;
mod why;
mod with;

use std::process::ExitCode;

use argent_engine::select::WrongSelection;
use argent_engine::trial::WrongTrial;
use argent_operators::pictures::WrongLook;
use clap::Parser;

use crate::args::{Arguments, Command};

/// Tables of millions of cells are read, joined and let go: the system's allocator spent a sixth of such a run,
/// and held a fifth more memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.command {
        Command::Run(run) => run::run(&arguments, run),
        Command::Plan(plan) => plan::plan(&arguments, plan),
        Command::Check(check) => check::check(&arguments, check),
        Command::Try(wanted) => trial::attempt(&arguments, wanted),
        Command::Why(why) => why::why(&arguments, why),
        Command::Diff(diff) => diff::diff(&arguments, diff),
        Command::Show(wanted) => show::show(&arguments, wanted),
        #[cfg(feature = "sql")]
        Command::Sql(sql) => sql::sql(&arguments, sql),
        Command::Runs(runs) => runs::runs(&arguments, runs),
        Command::Errors(errors) => errors::errors(&arguments, errors),
        Command::Ops(ops) => ops::ops(ops),
        Command::Schema => schema::schema(),
        Command::Init(init) => init::init(init),
        Command::Doctor(doctor) => doctor::doctor(&arguments, doctor),
        Command::Completions(shell) => shell::completions(shell),
        Command::Man(man) => shell::man(man),
        Command::Forget(forget) => forget::forget(&arguments, forget),
        Command::Gc(gc) => gc::gc(&arguments, gc),
        Command::Verify(verify) => verify::verify(&arguments, verify),
    };
    done.unwrap_or_else(|error| {
        if let Some(WrongSelection(mistakes)) = error.downcast_ref() {
            mistakes.iter().for_each(|mistake| eprintln!("error: {mistake}"));
            return ExitCode::from(session::WRONG);
        }
        eprintln!("error: {error:#}");
        let is_wrong = error.is::<WrongTrial>() || error.is::<WrongLook>();
        ExitCode::from(if is_wrong { session::WRONG } else { 1 })
    })
}
