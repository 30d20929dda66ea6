//! Steps that do not wait for each other run at the same time, with what each needs to itself.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use expect_test::expect;

use crate::chat_server::{ChatServer, Reply};
use crate::sandbox::{Sandbox, steps};

const PACK: &str = "name: small
findings:
  - { id: effusion, name: Pleural effusion, definition: Fluid in the pleural space., synonyms: [effusion], rules: { any: [effusions?] } }
";

/// Two labelling steps that read the same reports and nothing of each other.
fn spec(first: &str, second: &str) -> String {
    let label = |name: &str, url: &str, model: &str| {
        format!(
            "  {name}:
    use: label.llm
    from: reports
    with:
      findings: pack.yaml
      prompt: prompt.md
      endpoint: {{ base_url: \"{url}\", model: {model} }}
      concurrency: 1
      price: {{ input: 1, output: 4 }}
"
        )
    };
    let reports = "  reports: { use: reports.table, with: { path: reports.csv, id: id, text: text } }\n";
    format!(
        "argent: 1\nname: two\nsteps:\n{reports}{}{}",
        label("one", first, "a"),
        label("two", second, "b")
    )
}

fn sandbox(spec: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("two.yaml", spec).write("pack.yaml", PACK);
    sandbox.write("prompt.md", "Label the report.\nReport:\n{{ report.text }}");
    sandbox.write("reports.csv", "id,text\nr1,Small effusion.\nr2,No effusion.\n");
    sandbox
}

/// How many requests are under way at the same moment, at most.
#[derive(Default)]
struct Crowd {
    state: Mutex<(usize, usize)>,
    changed: Condvar,
}

impl Crowd {
    fn most(&self) -> usize {
        self.state.lock().unwrap().1
    }

    /// Is there until `others` are there too, or for a while.
    fn visit(&self, others: usize) {
        let mut state = self.state.lock().unwrap();
        state.0 += 1;
        state.1 = state.1.max(state.0);
        self.changed.notify_all();
        let patience = Duration::from_secs(if others > 1 { 20 } else { 0 });
        drop(self.changed.wait_timeout_while(state, patience, |(_, most)| *most < others).unwrap());
        std::thread::sleep(Duration::from_millis(30));
        self.state.lock().unwrap().0 -= 1;
    }
}

/// Two servers whose requests meet: each is answered once `others` have been under way at the same moment.
fn crowded(others: usize) -> (Arc<Crowd>, [ChatServer; 2]) {
    let crowd = Arc::new(Crowd::default());
    let servers = [ChatServer::start(), ChatServer::start()];
    for server in &servers {
        let crowd = Arc::clone(&crowd);
        server.behave(move |_| {
            crowd.visit(others);
            Reply::Good
        });
    }
    (crowd, servers)
}

#[test]
fn two_steps_work_at_the_same_time_unless_one_job_is_asked_for() {
    // Each server answers its first question only when the other has been asked as well.
    let (crowd, servers) = crowded(2);
    let together = sandbox(&spec(&servers[0].base_url, &servers[1].base_url));
    let said = together.run(&["two.yaml", "--jobs", "2"]);
    assert_eq!(said, ["reports made 2 0 0", "one made 2 0 0", "two made 2 0 0"]);
    assert_eq!(crowd.most(), 2);
    let (crowd, servers) = crowded(0);
    sandbox(&spec(&servers[0].base_url, &servers[1].base_url)).run(&["two.yaml", "--jobs", "1"]);
    assert_eq!(crowd.most(), 1);
}

#[test]
fn an_endpoint_and_a_spending_limit_serve_one_step_at_a_time() {
    let (crowd, servers) = crowded(0);
    sandbox(&spec(&servers[0].base_url, &servers[0].base_url)).run(&["two.yaml", "--jobs", "2"]);
    assert_eq!(crowd.most(), 1, "one endpoint");
    let limited = ["two.yaml", "--jobs", "2", "--max-usd", "1"];
    sandbox(&spec(&servers[0].base_url, &servers[1].base_url)).run(&limited);
    assert_eq!(crowd.most(), 1, "one purse");
}

#[test]
fn two_runs_at_once_share_their_work() {
    let server = ChatServer::start();
    server.behave(|_| Reply::Slow(Duration::from_millis(50)));
    let sandbox = sandbox(&spec(&server.base_url, &server.base_url));
    let start = || {
        let mut command = sandbox.command(&["run", "two.yaml", "--json"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let runs = [start(), start()].map(|child| child.wait_with_output().unwrap());
    for run in &runs {
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    }
    assert_eq!(server.heard().len(), 4, "two reports, two models, each asked once");
    let made: usize = runs
        .iter()
        .flat_map(|run| steps(std::str::from_utf8(&run.stdout).unwrap()))
        .filter(|line| line.starts_with("one made 2") || line.starts_with("two made 2"))
        .count();
    assert_eq!(made, 2, "each step was made by one of the runs");
}

#[test]
fn a_run_says_that_it_waits_for_another_that_makes_the_same() {
    let server = ChatServer::start();
    let asked = Arc::new((Mutex::new(false), Condvar::new()));
    let release = Arc::clone(&asked);
    server.behave(move |_| {
        let (released, changed) = &*release;
        let patience = Duration::from_secs(60);
        drop(changed.wait_timeout_while(released.lock().unwrap(), patience, |released| !*released).unwrap());
        Reply::Good
    });
    let sandbox = sandbox(&spec(&server.base_url, &server.base_url));
    let mut first = sandbox.command(&["run", "two.yaml"]).stderr(Stdio::null()).spawn().unwrap();
    while server.heard().is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut second = sandbox.command(&["run", "two.yaml"]).stderr(Stdio::piped()).spawn().unwrap();
    let talk = BufReader::new(second.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut said = Vec::new();
    for line in talk {
        if line.contains("waiting") {
            *asked.0.lock().unwrap() = true;
            asked.1.notify_all();
        }
        said.push(line);
    }
    assert!(first.wait().unwrap().success() && second.wait().unwrap().success(), "{said:?}");
    let waiting = "one                  waiting   another run is making the same result";
    assert!(said.iter().any(|line| line == waiting), "{said:#?}");
    assert_eq!(server.heard().len(), 4, "two reports, two models, each asked once");
}

#[test]
fn what_a_step_needs_and_the_machine_lacks_fails_that_step_alone() {
    let sandbox = Sandbox::new();
    sandbox.write("r.csv", "id,text\na,x\n").write(
        "p.yaml",
        "argent: 1
name: needs
steps:
  reports: { use: reports.table, with: { path: r.csv, id: id, text: text } }
  gpu: { use: sql, from: reports, with: { query: select id from reports }, needs: { gpu: 1 } }
  below: { use: sql, from: gpu, with: { query: select id from gpu } }
  cpu: { use: sql, from: reports, with: { query: select id as i from reports }, needs: { cpu: 3 } }
  fine: { use: sql, from: reports, with: { query: select text from reports }, needs: { cpu: 1, memory_gb: 1 } }
",
    );
    let said = sandbox.argent(&["run", "p.yaml"]);
    assert_eq!(said.code, 1, "{}", said.err);
    let mut lines: Vec<&str> = said.err.lines().filter(|line| !line.contains(" made ")).collect();
    lines.sort_unstable();
    expect![[r#"
        2 steps made, 0 reused, 2 failed, 1 blocked
        below                blocked   waits for gpu
        cpu                  failed    the step needs 3 cpu, and there are 1 (--jobs)
        gpu                  failed    the step needs 1 gpu, and this argent was built without GPU support; it does not fall back to the CPU
        store .argent"#]]
    .assert_eq(&lines.join("\n"));
}

#[test]
fn an_unknown_need_is_a_mistake() {
    let sandbox = Sandbox::new();
    sandbox.write("r.csv", "id,text\na,x\n").write(
        "p.yaml",
        "argent: 1
name: needs
steps:
  reports: { use: reports.table, with: { path: r.csv, id: id, text: text }, needs: { gpus: 1 } }
",
    );
    let said = sandbox.argent(&["check", "p.yaml"]);
    assert_eq!(said.code, 2);
    expect![[r#"
        error: `needs` knows no `gpus`
         --> p.yaml:4:86
          |
        4 |   reports: { use: reports.table, with: { path: r.csv, id: id, text: text }, needs: { gpus: 1 } }
          |                                                                                      ^^^^
          |
        help: did you mean `gpu`?

        1 mistake in p.yaml

    "#]]
    .assert_eq(&said.err);
}

#[test]
fn training_that_is_interrupted_ends_the_run_with_130_and_moves_no_name() {
    let examples = crate::sandbox::root().join("pipelines/examples");
    let read = |name: &str| std::fs::read_to_string(examples.join(name)).unwrap();
    let sandbox = Sandbox::new();
    let spec = read("embed.images.yaml");
    sandbox.write("data/findings.yaml", &read("data/findings.yaml"));
    sandbox.write("p.yaml", &spec).write("long.yaml", &spec.replace("epochs: 1", "epochs: 100000"));
    sandbox.run(&["p.yaml"]);
    let before = sandbox.sql("select id, vector from vectors order by id");
    let mut command = sandbox.command(&["run", "long.yaml", "--json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    lines.find(|line| line.contains("\"running\"") && line.contains("\"encoder\"")).expect("training begins");
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let last = lines.last().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{last}");
    let wanted = |line: &String| line.starts_with("encoder") || line.starts_with("vectors");
    let ended: Vec<String> = steps(&last).into_iter().filter(wanted).collect();
    assert_eq!(ended, ["encoder pending 0 0 0", "vectors pending 0 0 0"]);
    assert_eq!(sandbox.sql("select id, vector from vectors order by id"), before);
}

#[test]
fn two_pipelines_at_once_ask_an_equal_request_once() {
    let server = ChatServer::start();
    server.behave(|_| Reply::Slow(Duration::from_millis(60)));
    let spec = |name: &str, findings: &str| {
        format!(
            "argent: 1
name: {name}
steps:
  reports: {{ use: reports.table, with: {{ path: reports.csv, id: id, text: text, keep: [{findings}] }} }}
  labels:
    use: label.llm
    from: reports
    with:
      findings: pack.yaml
      prompt: {name}.md
      endpoint: {{ base_url: \"{}\", model: m }}
      concurrency: 2
",
            server.base_url
        )
    };
    let sandbox = sandbox(&spec("one", "a"));
    let rows: String = (0..12).map(|n| format!("r{n:02},Case {n} with effusion.,x,y\n")).collect();
    sandbox.write("reports.csv", &format!("id,text,a,b\n{rows}"));
    // The prompts differ as files and are the same when they are filled in, so the steps differ and the
    // requests do not.
    let prompt = "Label the report.\nReport:\n{{ report.text }}";
    sandbox.write("one.md", prompt).write("two.md", &format!("{{# another comment #}}{prompt}"));
    sandbox.write("one.yaml", &spec("one", "a")).write("two.yaml", &spec("two", "b"));
    let start = |name: &str| {
        let mut command = sandbox.command(&["run", name, "--json"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let runs = [start("one.yaml"), start("two.yaml")].map(|child| child.wait_with_output().unwrap());
    for run in &runs {
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        assert_eq!(steps(std::str::from_utf8(&run.stdout).unwrap())[1], "labels made 12 0 0");
    }
    assert_eq!(server.heard().len(), 12, "each report was asked about once");
    for pipeline in ["one", "two"] {
        assert_eq!(sandbox.sql(&format!("select count(*) from {pipeline}.labels")), ["12"]);
    }
}
