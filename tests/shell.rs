//! Completions and manual pages are made from the arguments, so that they know every command.

use std::process::Command;

use crate::sandbox::Sandbox;

/// The commands, as the help lists them.
fn commands() -> Vec<String> {
    let help = Sandbox::new().succeeds(&["--help"]).out;
    let listed = help.split("Commands:\n").nth(1).unwrap().lines().map_while(|line| line.strip_prefix("  "));
    let names = listed.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    names.map(str::to_owned).collect()
}

#[test]
fn every_shell_completes_every_command() {
    let commands = commands();
    assert!(commands.len() >= 15, "{commands:?}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = Sandbox::new().succeeds(&["completions", shell]).out;
        for command in &commands {
            assert!(script.contains(command.as_str()), "{shell} does not know {command}");
        }
    }
    let said = Sandbox::new().argent(&["completions", "csh"]);
    assert_eq!(said.code, 2);
    assert!(said.err.contains("[possible values: bash, elvish, fish, powershell, zsh]"), "{}", said.err);
}

#[test]
fn bash_reads_its_script_and_completes_by_it() {
    let sandbox = Sandbox::new();
    sandbox.write("argent.bash", &sandbox.succeeds(&["completions", "bash"]).out);
    let ask = "source argent.bash; COMP_WORDS=(argent do); COMP_CWORD=1; _argent argent do argent; echo \"${COMPREPLY[*]}\"";
    let Ok(said) = Command::new("bash").args(["-c", ask]).current_dir(sandbox.path("")).output() else {
        println!("skipped: there is no bash");
        return;
    };
    assert_eq!(String::from_utf8(said.stdout).unwrap(), "doctor\n", "{:?}", String::from_utf8(said.stderr));
}

#[test]
fn every_command_has_a_manual_page() {
    let sandbox = Sandbox::new();
    let page = sandbox.succeeds(&["man"]).out;
    assert!(page.contains(".TH argent 1"), "{page}");
    for command in commands() {
        assert!(page.contains(&format!("argent\\-{command}")), "argent(1) does not name {command}");
        let own = sandbox.succeeds(&["man", &command]).out;
        assert!(
            own.contains(&format!(".TH argent\\-{command} 1"))
                || own.contains(&format!(".TH argent-{command} 1")),
            "{own}"
        );
    }
    let said = sandbox.argent(&["man", "rnu"]);
    assert_eq!(
        (said.code, said.err.as_str()),
        (2, "error: there is no command `rnu`; did you mean `run`?\n")
    );
}
