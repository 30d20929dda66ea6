//! Nothing paid for is lost or paid for twice: `label.llm` against a chat endpoint on loopback.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use expect_test::expect;
use serde_json::Value;

use crate::chat_server::{ChatServer, Heard, Reply, Tokens};
use crate::sandbox::{Said, Sandbox, steps};

const PACK: &str = "name: small
findings:
  - { id: effusion, name: Pleural effusion, definition: Fluid in the pleural space., synonyms: [effusion], rules: { any: [effusions?] } }
  - { id: nodule, name: Lung nodule, definition: A nodule of any size., synonyms: [nodule], rules: { any: [nodules?] } }
";

const PROMPT: &str = "Label the report.
{% for f in findings %}{{ f.id }} is {{ f.name }}: {{ f.definition }}
{% endfor %}Report:
{{ report.text }}";

const SPEC: &str = "argent: 1
name: silver
params:
  llm: { type: url, default: \"@URL\" }
steps:
  reports: { use: reports.table, with: { path: reports.csv, id: id, text: text } }
  labels:
    use: label.llm
    from: reports
    with:
      findings: pack.yaml
      prompt: prompt.md
      endpoint: { base_url: \"${params.llm}\", model: m }
      price: { input: 1, cached: 0.1, output: 4 }
";

/// A downstream step of [`SPEC`].
const TARGETS: &str = "  targets: { use: label.policy, from: labels, with: { uncertain: one } }\n";

/// A folder with the pipeline `silver.yaml`, its files and these reports.
fn sandbox(server: &ChatServer, reports: &[(&str, &str)]) -> Sandbox {
    with_files(Sandbox::new(), server, reports)
}

fn with_files(sandbox: Sandbox, server: &ChatServer, reports: &[(&str, &str)]) -> Sandbox {
    write_reports(&sandbox, reports);
    sandbox.write("pack.yaml", PACK).write("prompt.md", PROMPT).write("silver.yaml", &spec(server));
    sandbox
}

fn spec(server: &ChatServer) -> String {
    SPEC.replace("@URL", &server.base_url)
}

fn write_reports(sandbox: &Sandbox, reports: &[(&str, &str)]) {
    let rows: String = reports.iter().map(|(id, text)| format!("{id},\"{text}\"\n")).collect();
    sandbox.write("reports.csv", &format!("id,text\n{rows}"));
}

/// Different reports, as many as wanted, in the order of their ids.
fn many(count: usize) -> Vec<(String, String)> {
    let word = |n: usize| ["effusion", "possible nodule", "no effusion"][n % 3];
    (0..count).map(|n| (format!("r{n:02}"), format!("Case {n:02} with {}.", word(n)))).collect()
}

fn borrowed(reports: &[(String, String)]) -> Vec<(&str, &str)> {
    reports.iter().map(|(id, text)| (id.as_str(), text.as_str())).collect()
}

fn labels(sandbox: &Sandbox) -> Vec<String> {
    sandbox.sql("select id, finding, state from silver.labels order by id, finding")
}

fn usd(tokens: Tokens) -> f64 {
    ((tokens.input - tokens.cached) as f64 + 0.1 * tokens.cached as f64 + 4.0 * tokens.output as f64) / 1e6
}

fn spent(heard: &[Heard]) -> f64 {
    heard.iter().map(|h| usd(h.tokens())).sum()
}

fn number(sandbox: &Sandbox, question: &str) -> f64 {
    sandbox.sql(question)[0].parse().unwrap()
}

fn close(left: f64, right: f64) -> bool {
    (left - right).abs() < 1e-12
}

#[test]
fn reports_are_labelled_and_charged_and_a_second_run_asks_nothing() {
    let server = ChatServer::start();
    let reports = [("r1", "Small effusion, no nodule."), ("r2", "A possible nodule.")];
    let sandbox = sandbox(&server, &reports);
    assert_eq!(sandbox.run(&["silver.yaml"]), ["reports made 2 0 0", "labels made 2 0 0"]);
    assert_eq!(
        labels(&sandbox),
        ["r1,effusion,present", "r1,nodule,absent", "r2,effusion,not_mentioned", "r2,nodule,uncertain"]
    );

    let heard = server.heard();
    assert_eq!(heard.len(), 2);
    let format = &heard[0].body["response_format"];
    assert_eq!((&format["type"], &format["json_schema"]["strict"]), (&"json_schema".into(), &true.into()));
    let columns = "model, tokens_in, tokens_cached, tokens_out";
    let mut expected: Vec<String> = heard
        .iter()
        .map(|h| h.tokens())
        .map(|t| format!("m-2026-10-01,{},{},{}", t.input, t.cached, t.output))
        .collect();
    expected.sort();
    let mut calls = sandbox.sql(&format!("select {columns} from labels.calls"));
    calls.sort();
    assert_eq!(calls, expected);
    assert_eq!(sandbox.sql("select count(*) from labels l join labels.calls c on l.call = c.call"), ["4"]);
    assert!(close(number(&sandbox, "select sum(usd) from labels.calls"), spent(&heard)));
    let costs = "from argent.costs where step = 'labels'";
    assert_eq!(sandbox.sql(&format!("select model, requests {costs}")), ["m,2"]);
    let tokens_in: u64 = heard.iter().map(|h| h.tokens().input).sum();
    assert_eq!(sandbox.sql(&format!("select tokens_in {costs}")), [tokens_in.to_string()]);
    assert!(close(number(&sandbox, &format!("select usd {costs}")), spent(&heard)));

    server.take_reports();
    assert_eq!(sandbox.run(&["silver.yaml"]), ["reports reused 0 2 0", "labels reused 0 4 0"]);
    assert!(server.heard().is_empty());
    assert!(close(number(&sandbox, &format!("select sum(usd) {costs}")), spent(&heard)), "reuse is free");
}

#[test]
fn only_what_an_edit_can_change_is_asked_again() {
    let server = ChatServer::start();
    let mut reports = vec![("r1", "Small effusion."), ("r2", "A nodule."), ("r3", "Small effusion.")];
    let sandbox = sandbox(&server, &reports);
    sandbox.run(&["silver.yaml"]);
    assert_eq!(server.take_reports(), ["A nodule.", "Small effusion."], "equal texts are asked once");
    assert_eq!(labels(&sandbox).len(), 6);

    reports.push(("r4", "No nodule."));
    write_reports(&sandbox, &reports);
    assert_eq!(sandbox.run(&["silver.yaml"])[1], "labels made 1 3 0");
    assert_eq!(server.take_reports(), ["No nodule."]);

    let rules = PACK.replace("rules: { any: [nodules?] }", "rules: { any: [nodules?, lumps?] }");
    sandbox.write("pack.yaml", &format!("# For people.\n{rules}"));
    assert_eq!(sandbox.run(&["silver.yaml"])[1], "labels reused 0 8 0");
    sandbox.write("prompt.md", &format!("{{# The second version. #}}{PROMPT}"));
    sandbox.run(&["silver.yaml"]);
    assert!(server.heard().is_empty(), "neither rules nor comments are sent, so nothing is asked");

    sandbox.write("prompt.md", &PROMPT.replace("the report", "this report"));
    assert_eq!(sandbox.run(&["silver.yaml"])[1], "labels made 4 0 0");
    assert_eq!(server.take_reports().len(), 3, "each distinct text is asked again");

    sandbox.write("prompt.md", PROMPT).write("pack.yaml", PACK);
    sandbox.run(&["silver.yaml"]);
    assert!(server.heard().is_empty(), "the answers to the first prompt are still there");
}

#[test]
fn asked_one_by_one_an_edited_definition_asks_its_finding_alone() {
    let server = ChatServer::start();
    let sandbox = sandbox(&server, &[("r1", "Small effusion."), ("r2", "No nodule.")]);
    let prompt = "{{ finding.name }}: {{ finding.definition }}\nReport:\n{{ report.text }}";
    let one_by_one = spec(&server) + "      mode: per_finding\n";
    sandbox.write("silver.yaml", &one_by_one).write("prompt.md", prompt);
    sandbox.run(&["silver.yaml"]);
    assert_eq!(server.take_reports().len(), 4);
    assert_eq!(
        labels(&sandbox),
        ["r1,effusion,present", "r1,nodule,not_mentioned", "r2,effusion,not_mentioned", "r2,nodule,absent"]
    );
    sandbox.write("pack.yaml", &PACK.replace("of any size", "of at least 3 mm"));
    sandbox.run(&["silver.yaml"]);
    assert!(server.heard().iter().all(|heard| heard.content().contains("of at least 3 mm")));
    assert_eq!(server.take_reports(), ["No nodule.", "Small effusion."]);
}

#[test]
fn steps_and_pipelines_with_equal_requests_share_answers() {
    let server = ChatServer::start();
    let reports = [("r1", "Small effusion."), ("r2", "No nodule.")];
    let sandbox = sandbox(&server, &reports);
    let spec = spec(&server);
    // Another parameter that is part of the step's key and of no request.
    let again = spec.split("  labels:\n").nth(1).unwrap().to_owned() + "      sections: [text]\n";
    sandbox.write("silver.yaml", &format!("{spec}  again:\n{again}"));
    sandbox.write(
        "other.yaml",
        &spec
            .replace("name: silver", "name: other")
            .replace("    with:\n", "    with:\n      sections: [text]\n"),
    );
    assert_eq!(
        sandbox.run(&["silver.yaml"]),
        ["reports made 2 0 0", "labels made 2 0 0", "again made 2 0 0"]
    );
    sandbox.run(&["other.yaml"]);
    assert_eq!(server.take_reports(), ["No nodule.", "Small effusion."]);
    let question =
        |table: &str| sandbox.sql(&format!("select id, finding, state, call from {table} order by 1, 2"));
    assert_eq!(question("silver.labels").len(), 4);
    assert_eq!(question("silver.labels"), question("silver.again"));
    assert_eq!(question("silver.labels"), question("other.labels"));
    assert_eq!(sandbox.sql("select pipeline, step, requests from argent.costs"), ["silver,labels,2"]);
}

/// What the server does with each report of the test of faults the first time it is asked about it.
fn fault(heard: &Heard) -> Reply {
    let again = heard.earlier > 0;
    match heard.report().split(' ').next().unwrap() {
        "limited" if !again => Reply::error(429, "retry-after: 1", "slow down"),
        "restarting" if !again => Reply::error(500, "", "restarting"),
        "cut" if !again => Reply::Cut,
        "garbled" if !again => Reply::Status(200, "", "{\"choices\": [".to_owned()),
        "hidden" if !again => {
            Reply::Status(200, "", "{\"error\": {\"message\": \"worker died\", \"code\": 500}}".to_owned())
        }
        // A server that says not to send again: the client gives up after one attempt.
        "busy" => Reply::error(429, "x-should-retry: false", "slow down"),
        "down" => Reply::error(500, "x-should-retry: false", "restarting"),
        "broken" => Reply::Status(200, "x-should-retry: false", "not json".to_owned()),
        "incomplete" => Reply::Text("{\"effusion\": \"present\"}".to_owned()),
        "chatty" => Reply::Text("There is a small effusion.".to_owned()),
        "refused" => Reply::Refusal,
        _ => Reply::Good,
    }
}

#[test]
fn every_fault_ends_as_a_label_or_as_an_error_row_and_never_as_a_negative() {
    let server = ChatServer::start();
    server.behave(fault);
    let first_words = [
        "good",
        "limited",
        "restarting",
        "cut",
        "garbled",
        "hidden",
        "busy",
        "down",
        "broken",
        "incomplete",
        "chatty",
        "refused",
    ];
    let reports: Vec<(String, String)> =
        first_words.iter().map(|word| ((*word).to_owned(), format!("{word} effusion, no nodule"))).collect();
    let sandbox = sandbox(&server, &borrowed(&reports));
    assert_eq!(
        sandbox.run(&["silver.yaml"])[1],
        "labels made 12 0 6",
        "failed rows alone do not fail the run"
    );
    let states = "select string_agg(id, ' ' order by id) from labels where finding = 'nodule' and state =";
    assert_eq!(sandbox.sql(&format!("{states} 'absent'")), ["cut garbled good hidden limited restarting"]);
    assert_eq!(sandbox.sql(&format!("{states} 'failed'")), ["broken busy chatty down incomplete refused"]);
    assert_eq!(sandbox.sql("select count(*) from labels"), ["24"]);
    let errors = sandbox.sql("select id, kind, attempts, retryable from labels.errors order by id");
    assert_eq!(
        errors,
        [
            "broken,malformed,1,true",
            "busy,rate_limited,1,true",
            "chatty,unparseable,1,false",
            "down,server_error,1,true",
            "incomplete,unparseable,1,false",
            "refused,refusal,1,false",
        ]
    );
    let message = "select message from labels.errors where id = 'chatty'";
    assert_eq!(sandbox.sql(message), ["\"the answer has no JSON object, expected one state per finding\""]);
    // What a failed report cost is told with what was answered.
    let said =
        "select e.id, c.answer, c.usd > 0 from labels.errors e join labels.calls c using (call) order by 1";
    assert_eq!(
        sandbox.sql(said),
        [
            "chatty,There is a small effusion.,true",
            "incomplete,\"{\"\"effusion\"\": \"\"present\"\"}\",true",
            "refused,,true"
        ]
    );
    let refused = server.heard().into_iter().find(|h| h.report().starts_with("refused")).unwrap();
    let paid = server.heard().into_iter().filter(|h| {
        let word = h.report().split(' ').next().unwrap().to_owned();
        // A probe shows no report.
        h.earlier > 0 || ["good", "incomplete", "chatty", "refused", ""].contains(&word.as_str())
    });
    let paid: Vec<Heard> = paid.collect();
    assert!(paid.iter().any(|h| h.report() == refused.report()));
    let charged = number(&sandbox, "select sum(usd) from argent.costs");
    assert!(close(charged, spent(&paid)), "a refusal and an unreadable answer are paid for too");

    server.take_reports();
    server.behave(|_| Reply::Good);
    assert_eq!(sandbox.run(&["silver.yaml"])[1], "labels made 3 9 3");
    let asked = server.take_reports();
    assert_eq!(asked, ["broken effusion, no nodule", "busy effusion, no nodule", "down effusion, no nodule"]);
    assert_eq!(
        sandbox.run(&["silver.yaml"])[1],
        "labels reused 0 24 3",
        "lasting failures are not asked again"
    );
    assert!(server.heard().is_empty());

    assert_eq!(sandbox.run(&["silver.yaml", "--retry-errors"])[1], "labels made 3 9 0");
    let asked = server.take_reports();
    assert_eq!(
        asked,
        ["chatty effusion, no nodule", "incomplete effusion, no nodule", "refused effusion, no nodule"]
    );
    assert_eq!(sandbox.sql("select count(*) from labels where state = 'failed'"), ["0"]);
    assert_eq!(sandbox.run(&["silver.yaml", "--retry-errors"])[1], "labels reused 0 24 0");
    assert!(server.heard().is_empty());
}

/// What the server does at this attempt at a report: nearly a third of all attempts meet a fault, of all kinds in turn,
/// and answers come in another order than questions.
fn rough(heard: &Heard) -> Reply {
    let mut hasher = DefaultHasher::new();
    (heard.content(), heard.earlier).hash(&mut hasher);
    let [draw, kind, ..] = hasher.finish().to_le_bytes();
    let mends = heard.content().starts_with("An earlier answer");
    match draw {
        0..80 => match kind % 10 {
            0 => Reply::error(429, "retry-after: 1", "slow down"),
            1 => Reply::error(429, "retry-after-ms: 20", "slow down"),
            2 => Reply::error(429, "retry-after: Wed, 21 Oct 2015 07:28:00 GMT", "slow down"),
            3 => Reply::error(500, "", "restarting"),
            4 => Reply::error(529, "", "overloaded"),
            5 => Reply::Closed,
            6 => Reply::Cut,
            7 => Reply::Status(200, "", "{\"choices\": [".to_owned()),
            8 => Reply::Status(
                200,
                "",
                "{\"error\": {\"message\": \"worker died\", \"code\": 500}}".to_owned(),
            ),
            // An answer of another form, which is paid for: the next request mends it.
            _ if mends => Reply::Cut,
            _ => Reply::Text("{\"effusion\": \"maybe\"}".to_owned()),
        },
        80..110 => Reply::Slow(Duration::from_millis(u64::from(kind) / 4)),
        _ => Reply::Good,
    }
}

#[test]
fn where_a_third_of_all_attempts_fail_nothing_is_lost_mistaken_or_paid_for_twice() {
    let server = ChatServer::start();
    server.behave(rough);
    let reports = many(240);
    let sandbox = sandbox(&server, &borrowed(&reports));
    sandbox.write("silver.yaml", &(spec(&server) + "      concurrency: 16\n"));
    let mut killed = sandbox.command(&["run", "silver.yaml"]).stderr(Stdio::null()).spawn().unwrap();
    server.wait_for_answers(100);
    killed.kill().unwrap();
    killed.wait().unwrap();
    let all_there = |_: &usize| sandbox.run(&["silver.yaml"])[1] == "labels reused 0 480 0";
    assert!((0..10).find(all_there).is_some(), "labels are missing after ten runs");

    let mut expected: Vec<String> = (0..240)
        .flat_map(|n| {
            let (effusion, nodule) =
                [("present", "not_mentioned"), ("not_mentioned", "uncertain"), ("absent", "not_mentioned")]
                    [n % 3];
            [format!("r{n:02},effusion,{effusion}"), format!("r{n:02},nodule,{nodule}")]
        })
        .collect();
    expected.sort();
    assert_eq!(labels(&sandbox), expected);
    let heard = server.heard();
    let good: Vec<&Heard> =
        heard.iter().filter(|heard| matches!(rough(heard), Reply::Good | Reply::Slow(_))).collect();
    let faults = heard.len() - good.len();
    assert!(faults as f64 > 0.25 * heard.len() as f64, "only {faults} faults in {} attempts", heard.len());
    let mut answered: BTreeMap<String, usize> = BTreeMap::new();
    for report in good.iter().map(|heard| heard.report()).filter(|report| report.starts_with("Case")) {
        *answered.entry(report).or_default() += 1;
    }
    assert_eq!(answered.len(), 240);
    // Answers under way when the run was killed are all that may have been paid for and not kept.
    let twice = answered.values().filter(|count| **count > 1).count();
    assert!(twice <= 16, "{twice} reports were answered twice");
    let calls = "select count(*), count(distinct call), count(*) filter (where answer not like '%maybe%') from labels.calls";
    let paid = sandbox.sql(calls).remove(0);
    let paid: Vec<usize> = paid.split(',').map(|count| count.parse().unwrap()).collect();
    assert!(paid[0] > 240 && paid[0] == paid[1] && paid[2] == 240, "{paid:?}");
}

#[test]
fn a_refused_key_stops_the_step_and_keeps_what_was_answered() {
    let server = ChatServer::start();
    let answered = AtomicUsize::new(0);
    server.behave(move |_| match answered.fetch_add(1, Ordering::Relaxed) {
        0 | 1 => Reply::Good,
        _ => Reply::error(401, "", "no such key"),
    });
    let reports = many(6);
    let sandbox = sandbox(&server, &borrowed(&reports));
    sandbox.write("silver.yaml", &(spec(&server) + "      concurrency: 1\n" + TARGETS));
    let said = sandbox.argent(&["run", "silver.yaml"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("status 401"), "{}", said.err);
    assert!(said.err.contains("check the endpoint's `api_key`"), "{}", said.err);
    assert!(said.err.contains("targets              blocked   waits for labels"), "{}", said.err);
    assert_eq!(server.take_reports().len(), 3, "nothing is sent after a refusal of the key");

    server.behave(|_| Reply::Good);
    assert_eq!(sandbox.run(&["silver.yaml"])[1], "labels made 4 2 0");
    let expected: Vec<String> = reports[2..].iter().map(|(_, text)| text.clone()).collect();
    assert_eq!(server.take_reports(), expected);
}

#[test]
fn where_nothing_listens_the_step_fails_and_its_rows_wait() {
    let server = ChatServer::start();
    let sandbox = sandbox(&server, &[("r1", "Small effusion.")]);
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nowhere = format!("llm=http://{free}/v1");
    let said = sandbox.argent(&["run", "silver.yaml", "--set", &nowhere]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("nothing listens at the endpoint's address"), "{}", said.err);
    assert!(sandbox.succeeds(&["errors", "silver.yaml"]).err.contains("no row failed"));
    assert_eq!(sandbox.run(&["silver.yaml"])[1], "labels made 1 0 0");
    assert_eq!(server.take_reports(), ["Small effusion."]);
    let elsewhere = sandbox.run(&["silver.yaml", "--set", &nowhere]);
    assert_eq!(elsewhere[1], "labels reused 0 2 0", "the address of the server is in no key");
}

/// Labels 8 reports under a limit of 60 % of what they cost; `limited` turns dollars into the spec's last lines and
/// further words of the command line.
fn stops_within(limited: impl Fn(f64) -> (String, Vec<String>)) {
    let server = ChatServer::start();
    let reports = many(8);
    let undisturbed = sandbox(&server, &borrowed(&reports));
    undisturbed.run(&["silver.yaml"]);
    let total = spent(&server.heard());
    server.take_reports();

    let sandbox = sandbox(&server, &borrowed(&reports));
    let (lines, words) = limited(total * 0.6);
    sandbox.write("silver.yaml", &(spec(&server) + &lines + TARGETS));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let all = [&["run", "silver.yaml", "--json"], &words[..]].concat();
    let said = sandbox.argent(&all);
    assert_eq!(said.code, 3, "{}\n{}", said.out, said.err);
    let answered = server.heard();
    assert!((3..=5).contains(&answered.len()), "{} were asked", answered.len());
    assert!(spent(&answered) <= total * 0.6);
    assert_eq!(
        steps(&said.out)[1..],
        [format!("labels partial {} 0 0", answered.len()), "targets blocked 0 0 0".to_owned()]
    );
    assert_eq!(labels(&sandbox).len(), answered.len() * 2, "the partial result is there to be asked");
    assert!(close(number(&sandbox, "select sum(usd) from argent.costs"), spent(&answered)));

    server.take_reports();
    let done = sandbox.run(&all[1..].iter().copied().filter(|word| *word != "--json").collect::<Vec<_>>());
    assert_eq!(done[1], format!("labels made {} {} 0", 8 - answered.len(), answered.len()));
    assert_eq!(server.take_reports().len(), 8 - answered.len(), "only what is left is asked");
    assert_eq!(labels(&sandbox), labels(&undisturbed));
}

#[test]
fn a_budget_of_the_step_is_kept_and_the_next_run_goes_on() {
    stops_within(|usd| (format!("      budget: {{ usd: {usd:.9} }}\n"), Vec::new()));
}

#[test]
fn a_limit_of_the_command_line_is_kept_and_the_next_run_goes_on() {
    stops_within(|usd| (String::new(), vec!["--max-usd".to_owned(), format!("{usd:.9}")]));
}

#[test]
fn a_limit_without_a_price_is_refused_because_it_could_not_be_kept() {
    let server = ChatServer::start();
    let sandbox = sandbox(&server, &[("r1", "Small effusion.")]);
    let unpriced = spec(&server).replace("      price: { input: 1, cached: 0.1, output: 4 }\n", "");
    sandbox.write("silver.yaml", &(unpriced.clone() + "      budget: { usd: 1 }\n"));
    let said = sandbox.argent(&["run", "silver.yaml"]);
    assert_eq!(said.code, 2);
    assert!(said.err.contains("`budget` is set and `price` is not"), "{}", said.err);
    sandbox.write("silver.yaml", &unpriced);
    let said = sandbox.argent(&["run", "silver.yaml", "--max-usd", "1"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("a limit of dollars is set and the step has no `price`"), "{}", said.err);
    assert!(server.heard().is_empty());
    sandbox.run(&["silver.yaml"]);
    assert_eq!(sandbox.sql("select count(*) from labels.calls where usd is null"), ["1"], "unknown is not 0");
}

#[test]
fn a_prompt_that_names_what_it_would_not_see_is_a_mistake() {
    let server = ChatServer::start();
    let sandbox = sandbox(&server, &[("r1", "Small effusion.")]);
    sandbox.write("prompt.md", "{{ finding.name }}\n{{ report.txt }}");
    let said = sandbox.argent(&["run", "silver.yaml"]);
    assert_eq!(said.code, 2);
    expect![[r#"
        error: `finding` is there only when findings are asked one by one
          --> prompt.md:1:4
           |
         1 | {{ finding.name }}
           |    ^^^^^^^
           |
          ::: silver.yaml:12:15
           |
        12 |       prompt: prompt.md
           |               --------- read from here
           |
        help: say `mode: per_finding`, or use `findings`

        error: the reports have no section `txt`
          --> prompt.md:2:4
           |
         2 | {{ report.txt }}
           |    ^^^^^^^^^^
           |
          ::: silver.yaml:12:15
           |
        12 |       prompt: prompt.md
           |               --------- read from here
           |
        help: did you mean `text`?

        2 mistakes in prompt.md

    "#]]
    .assert_eq(&said.err);
    assert!(server.heard().is_empty());
}

fn start(sandbox: &Sandbox, words: &[&str]) -> Child {
    sandbox.command(words).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_killed_run_goes_on_without_asking_again_what_had_arrived() {
    let server = ChatServer::start();
    let reports = many(24);
    let sandbox = sandbox(&server, &borrowed(&reports));
    sandbox.write("silver.yaml", &(spec(&server) + "      concurrency: 4\n"));
    server.behave(|_| Reply::Slow(Duration::from_millis(120)));
    let mut run = start(&sandbox, &["run", "silver.yaml"]);
    server.wait_for_answers(8);
    std::thread::sleep(Duration::from_millis(110));
    run.kill().unwrap();
    let killed_at = Instant::now();
    run.wait().unwrap();
    let is_settled =
        |h: &&Heard| h.answered_at.is_some_and(|at| killed_at - at >= Duration::from_millis(100));
    let heard = server.heard();
    let settled: Vec<String> = heard.iter().filter(is_settled).map(Heard::report).collect();
    assert!((8..24).contains(&settled.len()), "{} answers had arrived", settled.len());

    // What was under way when the run was killed is still being answered.
    std::thread::sleep(Duration::from_millis(150));
    server.take_reports();
    server.behave(|_| Reply::Good);
    sandbox.run(&["silver.yaml"]);
    let again = server.take_reports();
    assert!(again.iter().all(|report| !settled.contains(report)), "asked again: {again:?}");
    assert!(!again.is_empty());
    let undisturbed = self::sandbox(&server, &borrowed(&reports));
    undisturbed.run(&["silver.yaml"]);
    assert_eq!(labels(&sandbox), labels(&undisturbed));
    assert_eq!(labels(&sandbox).len(), 48);
}

#[test]
fn an_interrupted_run_finishes_what_is_under_way_and_the_next_one_goes_on() {
    let server = ChatServer::start();
    let reports = many(12);
    let sandbox = sandbox(&server, &borrowed(&reports));
    sandbox.write("silver.yaml", &(spec(&server) + "      concurrency: 3\n" + TARGETS));
    server.behave(|_| Reply::Slow(Duration::from_millis(150)));
    let mut run = start(&sandbox, &["run", "silver.yaml"]);
    server.wait_for_answers(3);
    signal("INT", &run);
    let mut talk = String::new();
    run.stderr.take().unwrap().read_to_string(&mut talk).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(130), "{talk}");
    let asked = server.take_reports();
    assert!((3..12).contains(&asked.len()), "{} were asked", asked.len());
    assert!(talk.contains(&format!("{} pending: interrupted", 12 - asked.len())), "{talk}");
    assert_eq!(labels(&sandbox).len(), asked.len() * 2, "every answer that was asked for is kept");

    server.behave(|_| Reply::Good);
    assert_eq!(
        sandbox.run(&["silver.yaml"])[1],
        format!("labels made {} {} 0", 12 - asked.len(), asked.len())
    );
    let rest = server.take_reports();
    assert_eq!(rest.len(), 12 - asked.len());
    assert!(rest.iter().all(|report| !asked.contains(report)));
}

fn signal(name: &str, child: &Child) {
    let sent =
        std::process::Command::new("sh").args(["-c", &format!("kill -{name} {}", child.id())]).status();
    assert!(sent.unwrap().success());
}

/// Every file below a folder whose bytes hold one of the words.
fn files_with(folder: &Path, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, words));
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let holds = |word: &str| bytes.windows(word.len()).any(|part| part == word.as_bytes());
        found
            .extend(words.iter().filter(|w| holds(w)).map(|word| format!("{} holds {word}", path.display())));
    }
    found
}

/// What every command that talks about the pipeline says, all together.
fn everything_said(sandbox: &Sandbox) -> String {
    let commands: [&[&str]; 8] = [
        &["plan", "silver.yaml"],
        &["plan", "silver.yaml", "--json"],
        &["run", "silver.yaml"],
        &["run", "silver.yaml", "--json"],
        &["errors", "silver.yaml"],
        &["why", "silver.yaml", "labels"],
        &["runs", "--json"],
        &["sql", "select * from argent.errors"],
    ];
    let said = commands.iter().map(|words| sandbox.argent(words));
    said.map(|Said { out, err, .. }| out + &err).collect()
}

#[test]
fn the_key_reaches_the_server_and_stands_nowhere_else() {
    let key = "sk-Quagga-4711/x";
    let server = ChatServer::start();
    let keyed = |folder: Sandbox| {
        let sandbox = with_files(folder, &server, &[("r1", "Small effusion.")]);
        sandbox
            .write("silver.yaml", &spec(&server).replace("model: m", "model: m, api_key: { env: LLM_KEY }"));
        sandbox
    };
    let without = keyed(Sandbox::new());
    let said = without.argent(&["run", "silver.yaml"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("the environment variable LLM_KEY is not set"), "{}", said.err);
    assert!(server.heard().is_empty());

    let sandbox = keyed(Sandbox::new().with_variable("LLM_KEY", key));
    // Some servers quote the key that they refuse.
    server.behave(move |_| Reply::error(401, "", &format!("the key {key} is not known")));
    let refused = sandbox.argent(&["run", "silver.yaml"]);
    assert_eq!(refused.code, 1);
    let mut all = everything_said(&sandbox) + &refused.err;
    server.behave(|_| Reply::Good);
    all += &everything_said(&sandbox);
    assert!(server.heard().iter().all(|h| h.headers.contains(&format!("authorization: Bearer {key}\r\n"))));
    assert_eq!(labels(&sandbox).len(), 2);
    assert!(!all.contains(key) && !all.contains("Quagga"), "{all}");
    assert_eq!(files_with(&sandbox.path(""), &[key, "Quagga"]), Vec::<String>::new());
}

#[test]
fn no_talk_shows_a_report() {
    let server = ChatServer::start();
    let text = "Quagga effusion with mulberry border";
    let sandbox =
        sandbox(&server, &[("r1", text), ("r2", "unreadable Quagga mulberry"), ("r3", "Good nodule.")]);
    // Servers like to quote what they do not accept, and models what they were shown.
    server.behave(|heard| match heard.report() {
        report if report.starts_with("Quagga") => Reply::error(400, "", &format!("cannot read: {report}")),
        report if report.starts_with("unreadable") => Reply::Text(format!("{{\"{report}\": \"present\"}}")),
        _ => Reply::Good,
    });
    let first = sandbox.argent(&["run", "silver.yaml", "--json"]);
    let all = first.out + &first.err + &everything_said(&sandbox);
    assert!(all.contains("bad_request") && all.contains("unparseable"), "{all}");
    for word in ["Quagga", "quagga", "mulberry", "Good nodule"] {
        assert!(!all.contains(word), "`{word}` is shown:\n{all}");
    }
    let calls = sandbox.succeeds(&["sql", "select * from labels.calls", "--format", "csv"]);
    assert!(calls.err.starts_with("not shown, because they hold patient text: "), "{}", calls.err);
    assert!(calls.err.contains("request, answer"), "{}", calls.err);
    assert!(!calls.out.contains("Good nodule"));
}

#[test]
fn text_leaves_for_no_public_address_and_by_no_detour() {
    let (server, elsewhere) = (ChatServer::start(), ChatServer::start());
    // A proxy that the environment names would carry the text away.
    let proxied = Sandbox::new()
        .with_variable("http_proxy", elsewhere.base_url.trim_end_matches("/v1"))
        .with_variable("ALL_PROXY", elsewhere.base_url.trim_end_matches("/v1"));
    let sandbox = with_files(proxied, &server, &[("r1", "Small effusion.")]);
    // An address that documentation alone uses (RFC 5737).
    let public = "llm=http://203.0.113.9/v1";
    let said = sandbox.argent(&["run", "silver.yaml", "--set", public]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("`203.0.113.9` has the address 203.0.113.9"), "{}", said.err);
    assert!(said.err.contains("say `egress: allow`"), "{}", said.err);

    let target = elsewhere.base_url.clone();
    let header: &'static str = Box::leak(format!("location: {target}/chat/completions").into_boxed_str());
    server.behave(move |_| Reply::Status(307, header, String::new()));
    let said = sandbox.argent(&["run", "silver.yaml"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("which is not followed"), "{}", said.err);
    assert_eq!(server.take_reports().len(), 1);

    server.behave(|_| Reply::Good);
    sandbox.run(&["silver.yaml"]);
    assert_eq!(server.take_reports(), ["Small effusion."]);
    assert!(elsewhere.heard().is_empty());
}

fn planned(sandbox: &Sandbox, words: &[&str]) -> BTreeMap<String, Value> {
    let plan: Value = serde_json::from_str(&sandbox.succeeds(words).out).unwrap();
    let steps = plan["steps"].as_array().unwrap().iter();
    steps.map(|step| (step["step"].as_str().unwrap().to_owned(), step.clone())).collect()
}

#[test]
fn a_plan_tells_the_price_before_it_is_paid() {
    let server = ChatServer::start();
    let mut reports = many(5);
    reports.push(("r99".to_owned(), reports[0].1.clone()));
    let sandbox = sandbox(&server, &borrowed(&reports));
    let plan = &planned(&sandbox, &["plan", "silver.yaml", "--json"])["labels"];
    assert!(server.heard().is_empty(), "a plan asks nothing");
    assert_eq!(plan["action"], "run");
    assert_eq!(plan["rows"], serde_json::json!({ "total": 6, "reuse": 0, "run_min": 6, "run": 6 }));
    assert_eq!(plan["cost"]["requests"], 5);
    sandbox.run(&["silver.yaml"]);
    let heard = server.heard();
    assert_eq!(heard.len(), 5);
    let (low, high) = (plan["cost"]["usd_min"].as_f64().unwrap(), plan["cost"]["usd"].as_f64().unwrap());
    assert!(low <= spent(&heard) && spent(&heard) <= high, "${low}-{high} for ${}", spent(&heard));
    assert!(0.25 * high <= spent(&heard), "a high bound that says something: ${high} for ${}", spent(&heard));
    let within = |name: &str, real: u64| {
        let told = plan["cost"][name].as_u64().unwrap();
        assert!((real / 2..=real * 2).contains(&told), "{name}: {told} for {real}");
    };
    within("tokens_in", heard.iter().map(|h| h.tokens().input).sum());
    within("tokens_out", heard.iter().map(|h| h.tokens().output).sum());

    let after = planned(&sandbox, &["plan", "silver.yaml", "--json"]);
    assert!(
        after.values().all(|step| step["action"] == "reuse" && step["cost"]["requests"] == 0),
        "{after:?}"
    );
    reports.push(("r98".to_owned(), "One more nodule.".to_owned()));
    write_reports(&sandbox, &borrowed(&reports));
    let plan = &planned(&sandbox, &["plan", "silver.yaml", "--json"])["labels"];
    assert_eq!(plan["rows"], serde_json::json!({ "total": 7, "reuse": 6, "run_min": 1, "run": 1 }));
    assert_eq!(plan["cost"]["requests"], 1);
}

/// The shipped prompt and pack, as the example names them.
#[test]
fn the_shipped_prompt_shows_every_finding_and_section_and_no_format() {
    let server = ChatServer::start();
    let root = crate::sandbox::root().join("pipelines");
    let sandbox = Sandbox::new();
    for name in ["findings/ct-rate-18.yaml", "prompts/chest-ct.md", "examples/label.llm.yaml"] {
        sandbox.write(name, &std::fs::read_to_string(root.join(name)).unwrap());
    }
    let example = sandbox.read("examples/label.llm.yaml");
    let (demo, rest) = (example.find("  demo:").unwrap(), example.find("  reports:").unwrap());
    // The demo's volumes take a while to draw; its reports are all that is read here.
    let own = example.replace(&example[demo..rest], "").replace("    from: demo\n", "");
    sandbox.write("examples/label.llm.yaml", &own).write(
        "examples/reports.csv",
        "VolumeName,Findings_EN,Impressions_EN\nvalid_1_a_1.nii.gz,Small effusion.,Not given.\n",
    );
    server.behave(|heard| {
        let required = heard.body["response_format"]["json_schema"]["schema"]["required"].as_array().unwrap();
        let states = required.iter().map(|id| (id.as_str().unwrap().to_owned(), "absent".into()));
        Reply::Text(Value::Object(states.collect()).to_string())
    });
    sandbox.succeeds(&[
        "run",
        "examples/label.llm.yaml",
        "--store",
        ".argent",
        "--set",
        &format!("llm={}", server.base_url),
    ]);
    let heard = server.heard();
    assert_eq!(heard.len(), 1);
    let prompt = heard[0].content();
    let pack: Value = serde_yaml::from_str(&sandbox.read("findings/ct-rate-18.yaml")).unwrap();
    for finding in pack["findings"].as_array().unwrap() {
        assert!(prompt.contains(&format!("- `{}` (", finding["id"].as_str().unwrap())), "{prompt}");
        assert!(prompt.contains(finding["definition"].as_str().unwrap()), "{prompt}");
    }
    assert!(prompt.ends_with("# Report\n\n## findings\n\nSmall effusion.\n"), "{prompt}");
    assert!(!prompt.to_lowercase().contains("json"), "the schema is sent with the request");
    assert_eq!(sandbox.sql("select count(*), sum(target) from targets"), ["18,0.0"]);
}
