//! Prompts are selected by one part of the reports and measured on another, and no answer is paid for twice.

use expect_test::expect;

use crate::chat_server::{ChatServer, Reply};
use crate::sandbox::Sandbox;

const PACK: &str = "name: small
findings:
  - { id: effusion, name: Pleural effusion, definition: Fluid., synonyms: [effusion] }
";

const SPEC: &str = "argent: 1
name: p
steps:
  reports: { use: reports.table, with: { path: reports.csv, id: id, text: text, keep: [part, truth] } }
  truth: { use: sql, from: { reports: reports }, with: { keys: [id, finding], query: \"select id, 'effusion' as finding, truth as state from reports\" } }
  split: { use: sql, from: { reports: reports }, with: { keys: [id], query: \"select id, part from reports\" } }
  sweep:
    use: prompt.sweep
    from: { reports: reports, truth: truth, split: split }
    with:
      prompts: prompts/*.md
      findings: pack.yaml
      endpoint: { base_url: \"@URL\", model: m }
      price: { input: 1, output: 4 }
      bootstrap: { draws: 50 }
";

/// Three prompts: a sloppy one calls nothing present, a long one and a short one read the report.
fn sandbox(server: &ChatServer) -> Sandbox {
    server.behave(|heard| {
        let sloppy = heard.content().starts_with("Sloppy");
        if sloppy { Reply::Text("{\"effusion\": \"absent\"}".to_owned()) } else { Reply::Good }
    });
    let sandbox = Sandbox::new();
    sandbox.write("pack.yaml", PACK).write("p.yaml", &SPEC.replace("@URL", &server.base_url));
    sandbox.write("prompts/long.md", "Read the whole of it with care.\nReport:\n{{ report.text }}");
    sandbox.write("prompts/short.md", "Read.\nReport:\n{{ report.text }}");
    sandbox.write("prompts/sloppy.md", "Sloppy.\nReport:\n{{ report.text }}");
    write_reports(&sandbox, "absent");
    sandbox
}

/// Reports of both parts; `t2` is true or not, as the test wants.
fn write_reports(sandbox: &Sandbox, truth_of_t2: &str) {
    let rows = format!(
        "id,part,truth,text
d1,dev,present,Small effusion.
d2,dev,absent,No effusion.
d3,dev,present,Large effusion.
t1,test,present,An effusion.
t2,test,{truth_of_t2},Another effusion.
t3,test,absent,There is no effusion.
"
    );
    sandbox.write("reports.csv", &rows);
}

#[test]
fn the_selected_prompt_alone_is_asked_of_the_part_that_measures() {
    let server = ChatServer::start();
    let sandbox = sandbox(&server);
    let plan = sandbox.succeeds(&["plan", "p.yaml", "--json"]).out;
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    let sweep = plan["steps"].as_array().unwrap().iter().find(|step| step["step"] == "sweep").unwrap();
    assert_eq!(
        sweep["cost"]["requests"], 12,
        "nine of the part that selects, three of the one that measures"
    );
    assert_eq!(sandbox.run(&["p.yaml"]).last().unwrap(), "sweep made 3 0 0");
    // Two prompts are equally good; the one with fewer tokens wins, and every prompt that was tried is told.
    expect![[r#"
        prompts/long.md,false,1.0,3,0
        prompts/short.md,true,1.0,3,0
        prompts/sloppy.md,false,0.0,3,0"#]]
    .assert_eq(&sandbox.sql("select prompt, selected, value, reports, failed from sweep").join("\n"));
    let asked = |text: &str| {
        let heard = server.heard();
        let prompts = heard.iter().filter(|heard| heard.report() == text);
        let mut first: Vec<String> =
            prompts.map(|heard| heard.content().lines().next().unwrap().to_owned()).collect();
        first.sort();
        first
    };
    assert_eq!(asked("Small effusion."), ["Read the whole of it with care.", "Read.", "Sloppy."]);
    for text in ["An effusion.", "Another effusion.", "There is no effusion."] {
        assert_eq!(asked(text), ["Read."]);
    }
    // On the part that measures one of two calls is right: precision 1/2, sensitivity 1.
    let test = "select prompt, measure, round(value, 6) from sweep.test where average = 'macro' and measure in ('f1', 'ppv', 'sensitivity') order by measure";
    expect![[r#"
        prompts/short.md,f1,0.666667
        prompts/short.md,ppv,0.5
        prompts/short.md,sensitivity,1.0"#]]
    .assert_eq(&sandbox.sql(test).join("\n"));
    assert_eq!(sandbox.sql("select count(*) from sweep.calls"), ["12"]);
    assert_eq!(
        sandbox.sql("select count(*) from sweep.labels l join sweep.calls c on l.call = c.call"),
        ["12"]
    );
    let parts = "select prompt, part, n from sweep.findings order by prompt, part";
    let expected = [
        "prompts/long.md,dev,3",
        "prompts/short.md,dev,3",
        "prompts/short.md,test,3",
        "prompts/sloppy.md,dev,3",
    ];
    assert_eq!(sandbox.sql(parts), expected);
}

#[test]
fn the_truth_of_the_part_that_measures_selects_nothing() {
    let server = ChatServer::start();
    let sandbox = sandbox(&server);
    sandbox.run(&["p.yaml"]);
    let selecting =
        "select prompt, prompt_digest, selected, value, tokens, macro_f1, macro_f1_low from sweep";
    let before = sandbox.sql(selecting);
    server.take_reports();
    // The other truth turns the figure around, and neither the choice nor any number behind it.
    write_reports(&sandbox, "present");
    assert_eq!(sandbox.run(&["p.yaml"]).last().unwrap(), "sweep made 3 0 0");
    assert_eq!(sandbox.sql(selecting), before);
    assert_eq!(
        sandbox.sql("select value from sweep.test where average = 'macro' and measure = 'f1'"),
        ["1.0"]
    );
    assert!(server.heard().is_empty(), "an answer is paid for once");
}

#[test]
fn what_a_sweep_has_asked_a_labelling_step_does_not_ask_again() {
    let server = ChatServer::start();
    let sandbox = sandbox(&server);
    sandbox.run(&["p.yaml"]);
    server.take_reports();
    let labels = "  labels:
    use: label.llm
    from: reports
    with: { findings: pack.yaml, prompt: prompts/short.md, endpoint: { base_url: \"@URL\", model: m } }
"
    .replace("@URL", &server.base_url);
    sandbox.write("p.yaml", &format!("{}{labels}", SPEC.replace("@URL", &server.base_url)));
    assert_eq!(sandbox.run(&["p.yaml"]).last().unwrap(), "labels made 6 0 0");
    assert!(server.heard().is_empty());

    // A further prompt is asked of the part that selects alone: the selected one stays.
    sandbox.write("prompts/worse.md", "Sloppy, too.\nReport:\n{{ report.text }}");
    sandbox.run(&["p.yaml"]);
    assert_eq!(server.take_reports(), ["Large effusion.", "No effusion.", "Small effusion."]);
    assert_eq!(sandbox.sql("select prompt from sweep where selected"), ["prompts/short.md"]);
    assert_eq!(sandbox.sql("select count(*) from sweep"), ["4"]);
}

#[test]
fn a_prompt_does_not_win_by_failing_and_chance_selects_nothing() {
    let server = ChatServer::start();
    let sandbox = sandbox(&server);
    // Under the short prompt the model refuses what is hard, and is right on the rest.
    server.behave(|heard| {
        match heard.content().starts_with("Read.") && heard.report().starts_with("Large") {
            true => Reply::Refusal,
            false => Reply::Good,
        }
    });
    assert_eq!(sandbox.run(&["p.yaml"]).last().unwrap(), "sweep made 3 0 1");
    let columns = "prompt, selected, round(value, 6), failed, macro_f1";
    expect![[r#"
        prompts/long.md,false,1.0,0,1.0
        prompts/short.md,false,0.666667,1,1.0
        prompts/sloppy.md,true,1.0,0,1.0"#]]
    .assert_eq(&sandbox.sql(&format!("select {columns} from sweep")).join("\n"));
    assert_eq!(sandbox.sql("select id, kind from sweep.errors"), ["d3,refusal"]);
    assert_eq!(
        sandbox.sql("select state from sweep.labels where prompt = 'prompts/short.md' and id = 'd3'"),
        ["failed"]
    );

    // What fails for now fails the step, and the next run goes on with what was answered.
    sandbox.write("prompts/new.md", "New.\nReport:\n{{ report.text }}");
    server.behave(|heard| match heard.content().starts_with("New.") && heard.report().starts_with("Large") {
        true => Reply::error(500, "x-should-retry: false", "restarting"),
        false => Reply::Good,
    });
    let said = sandbox.argent(&["run", "p.yaml"]);
    assert_eq!(said.code, 1);
    assert!(
        said.err.contains("1 of 3 reports failed for now under `prompts/new.md` (server_error"),
        "{}",
        said.err
    );
    server.take_reports();
    server.behave(|_| Reply::Good);
    sandbox.run(&["p.yaml"]);
    let again = server.take_reports();
    assert_eq!(again.iter().filter(|report| report.starts_with("Large")).count(), 1, "{again:?}");
    assert!(!again.contains(&"Small effusion.".to_owned()), "{again:?}");
}

#[test]
fn a_budget_stops_a_sweep_and_a_higher_one_goes_on() {
    let server = ChatServer::start();
    let sandbox = sandbox(&server);
    let spec = SPEC.replace("@URL", &server.base_url);
    sandbox.write("p.yaml", &format!("{spec}      budget: {{ usd: 0.0003 }}\n      concurrency: 1\n"));
    let said = sandbox.argent(&["run", "p.yaml"]);
    assert_eq!(said.code, 3, "{}", said.err);
    let first = server.take_reports().len();
    assert!((1..12).contains(&first), "{first} requests were sent");
    sandbox.write("p.yaml", &spec);
    sandbox.run(&["p.yaml"]);
    assert_eq!(first + server.take_reports().len(), 12, "nothing is asked twice");
    assert_eq!(sandbox.sql("select count(*) from sweep"), ["3"]);
}

#[test]
fn a_text_in_both_parts_selects_nothing_and_mistakes_are_told() {
    let server = ChatServer::start();
    let sandbox = sandbox(&server);
    let leaked = sandbox.read("reports.csv") + "d4,dev,present,An effusion.\n";
    sandbox.write("reports.csv", &leaked);
    sandbox.run(&["p.yaml"]);
    assert_eq!(sandbox.sql("select distinct reports from sweep"), ["3"]);
    assert_eq!(sandbox.sql("select id, kind from sweep.errors"), ["d4,leak"]);

    let spec = SPEC.replace("@URL", &server.base_url);
    sandbox.write("p.yaml", &format!("{spec}      dev: test\n"));
    let said = sandbox.argent(&["check", "p.yaml"]);
    assert_eq!(said.code, 2);
    assert!(said.err.contains("`test` is the part that selects"), "{}", said.err);
    sandbox.write("p.yaml", &spec).write("prompts/bad.md", "{{ report.findings }}");
    let said = sandbox.argent(&["check", "p.yaml"]);
    let told = "the reports have no section `findings`\n  --> prompts/bad.md:1:4";
    assert!(said.err.contains(told), "{}", said.err);
    sandbox.write("p.yaml", &spec.replace("prompts/*.md", "nothing/*.md"));
    let said = sandbox.argent(&["check", "p.yaml"]);
    assert!(said.err.contains("no file matches nothing/*.md"), "{}", said.err);
}

#[test]
fn who_is_forgotten_leaves_a_sweep_with_labels_and_answers() {
    let server = ChatServer::start();
    let sandbox = sandbox(&server);
    sandbox.run(&["p.yaml"]);
    assert_eq!(sandbox.sql("select count(*) from sweep.calls where request like '%Large%'"), ["3"]);
    sandbox.succeeds(&["forget", "--where", "id = 'd3'"]);
    assert_eq!(sandbox.sql("select count(*) from sweep.calls where request like '%Large%'"), ["0"]);
    assert_eq!(sandbox.sql("select count(*) from sweep.labels where id = 'd3'"), ["0"]);
    assert_eq!(sandbox.sql("select count(*) from sweep.calls"), ["9"]);
    server.take_reports();
    sandbox.run(&["p.yaml"]);
    assert!(
        server.heard().is_empty(),
        "the others' answers are still there, and nobody asks about the forgotten one"
    );
    assert_eq!(sandbox.sql("select distinct reports from sweep"), ["2"]);
}
