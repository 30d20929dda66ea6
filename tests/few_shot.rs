//! Labelled examples in the prompt: which ones are shown, and that none gives away what is measured.

use crate::chat_server::ChatServer;
use crate::sandbox::Sandbox;

const PACK: &str = "name: one\nfindings: [{ id: effusion, name: effusion, definition: Fluid. }]\n";

const PROMPT: &str =
    "{% for example in examples %}Example: {{ example.report.findings }} -> {{ example.answer }}
{% endfor %}Report:
{{ report.findings }}
";

const REPORTS: &str = "id,patient,text
a,p1,Large effusion.
b,p2,No effusion at all.
c,p3,Possible effusion.
d,p4,Heart is normal.
e,p5,Left effusion.
t,p9,Test effusion.
u,p9,No effusion in the test.
";

const TRUTH: &str = "id,effusion
a,1
b,0
c,u
e,1
t,1
";

const PARTS: &str = "id,part
a,train
b,train
c,train
d,train
e,train
t,test
u,test
";

fn spec(server: &ChatServer, labels: &str) -> String {
    format!(
        "argent: 1
name: shots
steps:
  reports:
    use: reports.table
    with: {{ path: reports.csv, id: id, keep: [patient], sections: {{ findings: text }} }}
  truth:
    use: labels.table
    with: {{ path: truth.csv, id: id, findings: pack.yaml, values: {{ \"1\": present, \"0\": absent, u: uncertain }} }}
  parts:
    use: sql
    from: reports
    with: {{ query: \"select id, case when id in ('t', 'u') then 'test' else 'train' end as part from reports\" }}
  labels:
    use: label.llm
    {labels}
      findings: pack.yaml
      prompt: prompt.md
      endpoint: {{ base_url: \"{}\", model: m }}
",
        server.base_url
    )
}

const WIRED: &str = "from: { reports: reports, examples: reports, truth: truth, split: parts }
    with:
      few_shot: { shots: 2 }";

fn sandbox(server: &ChatServer, labels: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox
        .write("reports.csv", REPORTS)
        .write("truth.csv", TRUTH)
        .write("parts.csv", PARTS)
        .write("pack.yaml", PACK)
        .write("prompt.md", PROMPT)
        .write("shots.yaml", &spec(server, labels));
    sandbox
}

/// The examples that the prompt of each report showed, by report.
fn shown(server: &ChatServer) -> Vec<(String, Vec<String>)> {
    let mut all: Vec<(String, Vec<String>)> = server
        .heard()
        .iter()
        .map(|heard| {
            let lines = heard.content().lines().filter_map(|line| line.strip_prefix("Example: "));
            (heard.report(), lines.map(str::to_owned).collect())
        })
        .collect();
    all.sort();
    all
}

#[test]
fn a_prompt_shows_different_answers_of_the_training_part_and_never_its_own() {
    let server = ChatServer::start();
    let sandbox = sandbox(&server, WIRED);
    assert_eq!(sandbox.run(&["shots.yaml"]).last().unwrap(), "labels made 7 0 0");
    let shown = shown(&server);
    let of = |report: &str| &shown.iter().find(|(asked, _)| asked == report).unwrap().1;
    let test = of("Test effusion.");
    assert_eq!(test.len(), 2);
    assert_eq!(of("No effusion in the test."), test, "all reports that are no example share a prompt");
    let answers: Vec<&str> = test.iter().map(|line| line.split(" -> ").nth(1).unwrap()).collect();
    assert_ne!(answers[0], answers[1], "two examples of two states: {answers:?}");
    for (report, examples) in &shown {
        assert_eq!(examples.len(), 2);
        for example in examples {
            assert!(!example.starts_with(report.as_str()), "{report} is shown its own answer");
            for never in ["Test effusion.", "No effusion in the test.", "Heart is normal."] {
                assert!(!example.starts_with(never), "{never} has no truth or is measured");
            }
        }
    }
    assert_eq!(sandbox.run(&["shots.yaml"]).last().unwrap(), "labels reused 0 7 0");
    // Another seed shows others, or the same in another order; a truth of the test part changes nothing.
    sandbox.write("truth.csv", &TRUTH.replace("t,1", "t,0"));
    let before = server.heard().len();
    sandbox.run(&["shots.yaml"]);
    assert_eq!(server.heard().len(), before);
}

#[test]
fn an_example_that_stands_in_another_part_fails_the_step() {
    let server = ChatServer::start();
    let sandbox = sandbox(&server, &WIRED.replace("shots: 2", "shots: 4"));
    // The same text under another id of the test part.
    sandbox.write("reports.csv", &REPORTS.replace("Test effusion.", "Large effusion."));
    let failed = sandbox.argent(&["run", "shots.yaml"]);
    assert_eq!(failed.code, 1);
    assert!(
        failed.err.contains(
            "the 4 examples of the part `train` leak: 1 reports of `test` have the text of one, and 0 are of the same \
             patient; split by patient and by text, or give another `seed`"
        ),
        "{}",
        failed.err
    );
    sandbox.write("reports.csv", &REPORTS.replace("t,p9", "t,p1"));
    let failed = sandbox.argent(&["run", "shots.yaml"]);
    assert!(failed.err.contains("0 reports of `test` have the text of one, and 1 are of the same patient"));
    assert!(server.heard().is_empty());
}

#[test]
fn too_few_examples_fail_the_step_and_say_how_many_there_are() {
    let server = ChatServer::start();
    let sandbox = sandbox(&server, &WIRED.replace("shots: 2", "shots: 5"));
    let failed = sandbox.argent(&["run", "shots.yaml"]);
    assert_eq!(failed.code, 1);
    assert!(
        failed.err.contains(
            "the part `train` has 4 different reports with a truth for every finding, expected at least 5"
        ),
        "{}",
        failed.err
    );
}

#[test]
fn examples_need_their_ports_and_a_prompt_that_shows_them() {
    let server = ChatServer::start();
    let sandbox = sandbox(&server, "from: reports\n    with:\n      few_shot: { shots: 2 }");
    let told = |sandbox: &Sandbox| sandbox.argent(&["check", "shots.yaml"]).err;
    let said = told(&sandbox);
    for port in ["examples", "truth", "split"] {
        assert!(
            said.contains(&format!("`few_shot` needs the port `{port}`, and nothing fills it")),
            "{said}"
        );
    }
    sandbox.write("shots.yaml", &spec(&server, WIRED)).write("prompt.md", "Report:\n{{ report.findings }}\n");
    assert!(told(&sandbox).contains("`few_shot` is set, and the prompt shows no `examples`"));
    sandbox.write("prompt.md", PROMPT).write("shots.yaml", &spec(&server, "from: reports\n    with:"));
    assert!(told(&sandbox).contains("`examples` is there only with `few_shot`"));
    let unused = WIRED.replace("      few_shot: { shots: 2 }", "      temperature: 0");
    sandbox.write("prompt.md", "{{ report.findings }}").write("shots.yaml", &spec(&server, &unused));
    assert!(told(&sandbox).contains("`examples` is read for `few_shot` alone"));
}

#[test]
fn who_is_forgotten_is_no_longer_an_example() {
    let server = ChatServer::start();
    let sandbox = sandbox(&server, &WIRED.replace("shots: 2", "shots: 3"));
    sandbox.write("truth.csv", TRUTH.split("e,1").next().unwrap());
    sandbox.run(&["shots.yaml"]);
    let calls = "select count(*) from labels.calls where request like '%Large effusion%'";
    assert_ne!(sandbox.sql(calls), ["0"], "`a` is an example of the others");
    sandbox.succeeds(&["forget", "--where", "id = 'a'"]);
    assert_eq!(sandbox.sql(calls), ["0"]);
    // Two labelled reports are left, and the source still has the third, which is not taken in again.
    let failed = sandbox.argent(&["run", "shots.yaml"]);
    assert!(failed.err.contains("has 2 different reports with a truth"), "{}", failed.err);
    sandbox.write("shots.yaml", &spec(&server, WIRED));
    sandbox.run(&["shots.yaml"]);
    assert_eq!(sandbox.sql(calls), ["0"]);
}
