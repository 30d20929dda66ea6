//! Whether the program and its variables are there.

use std::path::Path;

use argent_engine::operator::Condition;

use crate::command::Command;
use crate::command::process::executable;

/// The conditions of a step: the program, then each variable.
pub(super) fn conditions(step: &Command, folder: &Path) -> Vec<Condition> {
    let words = step.run.words();
    let program = words.first().map_or("", String::as_str);
    let subject = format!("program {program}");
    let mut all = vec![match executable(program, folder) {
        Some(path) => Condition::met(subject, path.display().to_string()),
        None => Condition::unmet(subject, "on no folder of PATH", "install it, or name it by its path"),
    }];
    all.extend(step.env.iter().map(|name| {
        let subject = format!("variable {name}");
        match std::env::var_os(name) {
            Some(_) => Condition::met(subject, "set"),
            None => Condition::unmet(subject, "not set", "set it, or take it out of `env`"),
        }
    }));
    all
}
