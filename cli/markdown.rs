//! Reference pages as Markdown: `docs/operators/` and `docs/cli.md` are what these functions say.

use clap::{Arg, ArgAction, Command};

use crate::parameters::Parameter;
use crate::reference::{ColumnPage, OutputPage, PortPage, Reference};

/// What stands above the list of operators.
const OPERATORS: &str = "\
# Operators

What a step can `use`. Each has a page with its inputs, parameters, outputs and an example that runs; the same is shown
by `argent ops NAME`.

Columns may have roles beside their type: `id` names the subject of a row and is carried along by operators that work
row by row; `phi` may hold patient text, which `argent sql` shows only with `--phi`, ids apart; `section` is text of a
report; `file` is the digest of a side file in the store; `source` is the digest of a file that stays where you keep it.

Every step has a table `<step>.errors` too: the rows that have no result, with the reason.

";

/// The list of operators.
pub(crate) fn operators(all: &[Reference]) -> String {
    let rows = all.iter().map(|reference| {
        let link = format!("[{0}]({0}.md)", reference.name);
        let kind = if reference.row_port.is_some() { "row by row" } else { "as a whole" };
        vec![link, format!("{}.", reference.summary()), kind.to_owned()]
    });
    format!("{OPERATORS}{}", table(&["operator", "what it does", "made"], &rows.collect::<Vec<_>>()))
}

/// An operator's page.
pub(crate) fn operator(reference: &Reference) -> String {
    let made = match reference.row_port {
        Some(port) => {
            format!("It is made row by row: only rows of `{port}` that are new or changed are made again.")
        }
        None => "It is made as a whole, whenever something that enters its key changes.".to_owned(),
    };
    let mut text = format!("# {}\n\n{}\n\n{made}\n", reference.name, reference.doc);
    text.push_str("\n## Inputs\n\n");
    text.push_str(&inputs(&reference.ports));
    text.push_str("\n## Parameters\n\n");
    if reference.parameters.is_empty() {
        text.push_str("None.\n");
    } else {
        let rows: Vec<Vec<String>> = reference.parameters.iter().map(parameter_row).collect();
        text.push_str(&table(&["parameter", "type", "", "what it is"], &rows));
    }
    text.push_str("\n## Outputs\n\nAs the example below makes them.\n");
    reference.outputs.iter().for_each(|output| text.push_str(&output_section(output)));
    text.push_str("\n## What enters the key\n\n");
    reference.key.iter().for_each(|line| text.push_str(&format!("- {line}\n")));
    let file = format!("pipelines/examples/{}.yaml", reference.name);
    text.push_str(&format!("\n## Example\n\n[{file}](../../{file})\n\n```yaml\n{}```\n", reference.example));
    text
}

fn inputs(ports: &[PortPage]) -> String {
    if ports.is_empty() {
        return "None.\n".to_owned();
    }
    let columns = |port: &PortPage| {
        let all = port.columns.iter().map(|column| format!("`{}`: {}", column.name, column.kind));
        all.collect::<Vec<_>>().join("; ")
    };
    let rows = ports.iter().map(|port| {
        let name = if port.name.is_empty() { "any name".to_owned() } else { format!("`{}`", port.name) };
        let need = if port.optional { "optional" } else { "required" };
        vec![name, need.to_owned(), port.doc.to_owned(), columns(port)]
    });
    table(&["port", "", "what it holds", "columns that it must have"], &rows.collect::<Vec<_>>())
}

fn parameter_row(parameter: &Parameter) -> Vec<String> {
    let bounds = if parameter.bounds.is_empty() { String::new() } else { format!(", {}", parameter.bounds) };
    let mut doc = parameter.doc.clone();
    for (value, meaning) in parameter.values.iter().filter(|(_, meaning)| !meaning.is_empty()) {
        doc.push_str(&format!(" `{value}`: {meaning}"));
    }
    if let Some(reason) = &parameter.not_in_key {
        doc.push_str(&format!(" *Not in the key: {reason}.*"));
    }
    let path = format!("`{}`", parameter.path);
    vec![path, format!("{}{bounds}", parameter.kind), parameter.need(), doc.trim().to_owned()]
}

fn output_section(output: &OutputPage) -> String {
    let title = match output.name.as_str() {
        "" => "The step's table".to_owned(),
        name => format!("`<step>.{name}`"),
    };
    let keys: Vec<String> = output.keys.iter().map(|key| format!("`{key}`")).collect();
    let keys = if keys.is_empty() { String::new() } else { format!(", a row per {}", keys.join(" and ")) };
    let row = |column: &ColumnPage| {
        let doc = match (column.carried, column.doc) {
            (true, _) => "Carried along from the input.",
            (false, "") => "Named by the pipeline.",
            (false, doc) => doc,
        };
        let name = format!("`{}`", column.name);
        vec![name, column.kind.clone(), column.unit.to_owned(), column.roles.join(", "), doc.to_owned()]
    };
    let rows: Vec<Vec<String>> = output.columns.iter().map(row).collect();
    let columns = table(&["column", "type", "unit", "roles", "what it holds"], &rows);
    format!("\n### {title}{keys}\n\n{columns}")
}

/// The reference of the command line.
pub(crate) fn command_line(program: &mut Command) -> String {
    program.build();
    let mut text = "# The command line\n".to_owned();
    let about = program.get_long_about().or(program.get_about()).map(ToString::to_string);
    text.push_str(&format!("\n{}\n", about.unwrap_or_default()));
    let shared: Vec<&Arg> = program.get_arguments().filter(|arg| arg.is_global_set()).collect();
    text.push_str("\nstdout is data and stderr is talk. Every command takes these too:\n\n");
    text.push_str(&arguments(&shared));
    for command in program.get_subcommands().filter(|command| command.get_name() != "help") {
        text.push_str(&command_section(command));
    }
    if let Some(after) = program.get_after_long_help() {
        text.push_str(&format!("\n## Exit codes\n\n```text\n{}\n```\n", exit_codes(&after.to_string())));
    }
    text
}

/// The lines below the heading.
fn exit_codes(after: &str) -> String {
    after.lines().skip(1).map(|line| line.trim_start().to_owned()).collect::<Vec<_>>().join("\n")
}

fn command_section(command: &Command) -> String {
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    let own: Vec<&Arg> = command
        .get_arguments()
        .filter(|arg| !arg.is_global_set() && !arg.is_hide_set())
        .filter(|arg| !matches!(arg.get_action(), ArgAction::Help | ArgAction::HelpLong | ArgAction::Version))
        .filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version"))
        .collect();
    let mut text = format!("\n## argent {}\n\n{about}\n\n```text\n{usage}\n```\n", command.get_name());
    if !own.is_empty() {
        text.push_str(&format!("\n{}", arguments(&own)));
    }
    text
}

fn arguments(all: &[&Arg]) -> String {
    let rows: Vec<Vec<String>> = all.iter().map(|arg| argument_row(arg)).collect();
    table(&["argument", "what it is", "default", "environment"], &rows)
}

fn argument_row(arg: &Arg) -> Vec<String> {
    let values: Vec<String> =
        arg.get_value_names().into_iter().flatten().map(|name| name.to_string()).collect();
    let takes_value = arg.get_action().takes_values();
    let value = if takes_value { format!(" {}", values.join(" ")) } else { String::new() };
    let name = match (arg.get_short(), arg.get_long()) {
        (Some(short), Some(long)) => format!("`-{short}`, `--{long}{value}`"),
        (None, Some(long)) => format!("`--{long}{value}`"),
        (Some(short), None) => format!("`-{short}{value}`"),
        (None, None) => format!("`{}`", values.join(" ")),
    };
    let mut doc = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let words = arg.get_possible_values();
    if takes_value && !words.is_empty() {
        let words: Vec<String> = words.iter().map(|word| format!("`{}`", word.get_name())).collect();
        doc.push_str(&format!(": {}", words.join(", ")));
    }
    let default: Vec<String> =
        arg.get_default_values().iter().map(|v| v.to_string_lossy().into_owned()).collect();
    let default = if takes_value { default.join(" ") } else { String::new() };
    let variable = arg.get_env().map(|name| format!("`{}`", name.to_string_lossy())).unwrap_or_default();
    vec![name, doc, default, variable]
}

/// A table. Columns that are empty in every row are left out.
fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let used: Vec<usize> = (0..header.len()).filter(|c| rows.iter().any(|row| !row[*c].is_empty())).collect();
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(used.iter().map(|c| header[*c].to_owned()).collect());
    text.push_str(&line(used.iter().map(|_| "---".to_owned()).collect()));
    for row in rows {
        text.push_str(&line(used.iter().map(|c| row[*c].replace('|', "\\|").replace('\n', " ")).collect()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_leaves_out_columns_that_hold_nothing_and_keeps_bars_in_cells() {
        let rows = [vec!["a|b".to_owned(), String::new(), "c\nd".to_owned()]];
        assert_eq!(
            table(&["one", "two", "three"], &rows),
            "| one | three |\n| --- | --- |\n| a\\|b | c d |\n"
        );
    }
}
