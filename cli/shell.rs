//! `argent completions` and `argent man`: what shells and readers of manuals need, made from the arguments.

use std::io::Write;
use std::process::ExitCode;

use argent_engine::operator::nearest;
use clap::{Command, CommandFactory};

use crate::args::{Arguments, CompletionsArguments, ManArguments};
use crate::markdown;
use crate::session::WRONG;

/// Prints a shell's completion script.
pub(crate) fn completions(wanted: &CompletionsArguments) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(wanted.shell, &mut Arguments::command(), "argent", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints a manual page.
pub(crate) fn man(wanted: &ManArguments) -> anyhow::Result<ExitCode> {
    let mut program = Arguments::command();
    if wanted.markdown {
        print!("{}", markdown::command_line(&mut program));
        return Ok(ExitCode::SUCCESS);
    }
    program.build();
    let page = match &wanted.name {
        None => program,
        Some(name) => match program.find_subcommand(name) {
            Some(found) => found.clone(),
            None => {
                let names: Vec<&str> = program.get_subcommands().map(Command::get_name).collect();
                eprintln!("error: there is no command `{name}`; {}", nearest(name, &names, "commands"));
                return Ok(ExitCode::from(WRONG));
            }
        },
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page).render(&mut text)?;
    std::io::stdout().write_all(&text)?;
    Ok(ExitCode::SUCCESS)
}
