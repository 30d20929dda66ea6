//! A spec in several files: what is put together, what paths mean, and where mistakes are told.

use expect_test::expect;

use crate::sandbox::Sandbox;

const SPEC: &str = "argent: 1
name: parts
include: [shared/params.yaml, shared/labels.yaml]
steps:
  size: { use: sql, from: labels, with: { query: select count(*) as n from labels } }
";

/// Paths of steps are relative to the spec, those under `include` to the file that they stand in.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox
        .write("pipelines/p.yaml", SPEC)
        .write("pipelines/shared/params.yaml", "params:\n  reports: { type: path, default: reports.csv, doc: a table }\n")
        .write(
            "pipelines/shared/labels.yaml",
            "argent: 1\nname: alone\ninclude: reports.yaml\nsteps:\n  labels: { use: label.rules, from: reports, with: { findings: pack.yaml } }\n",
        )
        .write(
            "pipelines/shared/reports.yaml",
            "include: params.yaml\nsteps:\n  reports: { use: reports.table, with: { path: \"${params.reports}\", id: id, sections: { findings: text } } }\n",
        )
        .write("pipelines/reports.csv", "id,text\na,Effusion.\nb,No effusion.\n")
        .write("pipelines/other.csv", "id,text\na,Effusion.\n")
        .write("pipelines/pack.yaml", "name: one\nfindings:\n  - { id: effusion, name: Effusion, synonyms: [effusion] }\n");
    sandbox
}

#[test]
fn params_and_steps_of_included_files_stand_beside_those_of_the_spec() {
    let sandbox = sandbox();
    expect![[r#"
        reports made 2 0 0
        labels made 2 0 0
        size made 1 0 0"#]]
    .assert_eq(&sandbox.run(&["pipelines/p.yaml"]).join("\n"));
    // Files that were put together differently are the same pipeline.
    let reports = sandbox.read("pipelines/shared/reports.yaml").replace("include: params.yaml\n", "");
    sandbox.write("pipelines/shared/reports.yaml", &reports);
    let whole =
        SPEC.replace("[shared/params.yaml, shared/labels.yaml]", "[shared/labels.yaml, shared/params.yaml]");
    sandbox.write("pipelines/p.yaml", &whole);
    expect![[r#"
        reports reused 0 2 0
        labels reused 0 2 0
        size reused 0 1 0"#]]
    .assert_eq(&sandbox.run(&["pipelines/p.yaml"]).join("\n"));
    expect![[r#"
        reports made 1 0 0
        labels made 0 1 0
        size made 1 0 0"#]]
    .assert_eq(&sandbox.run(&["pipelines/p.yaml", "--set", "reports=other.csv"]).join("\n"));
}

#[test]
fn a_mistake_in_an_included_file_is_told_there_with_the_way_to_it() {
    let sandbox = sandbox();
    let reports = sandbox.read("pipelines/shared/reports.yaml").replace("findings: text", "findings: txt");
    sandbox.write("pipelines/shared/reports.yaml", &reports);
    let said = sandbox.argent(&["check", "pipelines/p.yaml", "--json"]);
    assert_eq!(said.code, 2);
    let found: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    expect![[r#""pipelines/shared/reports.yaml""#]]
        .assert_eq(&found["diagnostics"][0]["labels"][0]["path"].to_string());
    expect![[r#"["included from pipelines/shared/labels.yaml:3:10","included from pipelines/p.yaml:3:31"]"#]]
        .assert_eq(&found["diagnostics"][0]["notes"].to_string());
    let said = sandbox.argent(&["run", "pipelines/p.yaml"]);
    expect![[r#"
        error: `reports.csv` has no column `txt`
         --> pipelines/shared/reports.yaml:3:99
          |
        3 |   reports: { use: reports.table, with: { path: "${params.reports}", id: id, sections: { findings: txt } } }
          |                                                                                                   ^^^
          |
          = note: included from pipelines/shared/labels.yaml:3:10
          = note: included from pipelines/p.yaml:3:31
        help: did you mean `text`?

        1 mistake in pipelines/shared/reports.yaml

    "#]].assert_eq(&said.err);
}

#[test]
fn a_value_tells_the_way_that_it_came() {
    let sandbox = sandbox();
    let said = sandbox.argent(&["check", "pipelines/p.yaml", "--set", "reports=nothing/*.csv"]);
    expect![[r#"
        error: no file matches nothing/*.csv
         --> pipelines/shared/reports.yaml:3:48
          |
        3 |   reports: { use: reports.table, with: { path: "${params.reports}", id: id, sections: { findings: text } } }
          |                                                ^^^^^^^^^^^^^^^^^^^
          |
         ::: command line:1:15
          |
        1 | --set reports=nothing/*.csv
          |               ------------- `${params.reports}` is set here
          |
          = note: included from pipelines/shared/labels.yaml:3:10
          = note: included from pipelines/p.yaml:3:31
        help: paths are relative to the spec, here pipelines

        1 mistake in pipelines/shared/reports.yaml

    "#]].assert_eq(&said.err);
}

#[test]
fn a_param_that_nothing_uses_is_told_of_and_stops_nothing() {
    let sandbox = sandbox();
    sandbox.write("pipelines/p.yaml", &SPEC.replace("steps:\n", "params: { seed: 7 }\nsteps:\n"));
    let said = sandbox.succeeds(&["check", "pipelines/p.yaml"]);
    expect![[r#"
        warning: the param `seed` is used nowhere
         --> pipelines/p.yaml:4:11
          |
        4 | params: { seed: 7 }
          |           ^^^^
          |
        help: put it in with `${params.seed}`, or take it away

        1 warning in pipelines/p.yaml

        parts: 3 steps, nothing wrong
    "#]]
    .assert_eq(&said.err);
}

#[test]
fn a_param_keeps_its_type_wherever_its_value_comes_from() {
    let spec = "argent: 1
name: p
params:
  seed: { type: int, env: SEED, default: 1 }
  seeds: [1, 2]
  share: 0.5
  fast: { type: bool, default: false }
steps:
  a:
    use: sql
    matrix: { n: \"${params.seeds}\" }
    with: { query: \"select ${matrix.n} as n, ${params.seed} as seed, ${params.share} as share, ${params.fast} as fast\" }
";
    let sandbox = Sandbox::new().with_variable("SEED", "7");
    sandbox.write("p.yaml", spec);
    sandbox.succeeds(&["run", "p.yaml", "--set", "seeds=[3, 4]", "--set", "share=2", "--set", "fast=true"]);
    expect![[r#"
        3,7,2,true
        4,7,2,true"#]]
    .assert_eq(&sandbox.sql("select n, seed, share, fast from a order by n").join("\n"));
    let said = sandbox.argent(&["check", "p.yaml", "--set", "seeds=3"]);
    expect![[r#"
        error: --set gives `seeds` a value of another type: expected a list
         --> command line:1:13
          |
        1 | --set seeds=3
          |             ^
          |
         ::: p.yaml:5:3
          |
        5 |   seeds: [1, 2]
          |   ----- declared here

        1 mistake in command line

    "#]]
    .assert_eq(&said.err);
}

#[test]
fn a_file_that_is_no_spec_is_refused_at_once() {
    let sandbox = Sandbox::new();
    let says = |bytes: &[u8]| {
        std::fs::write(sandbox.path("p.yaml"), bytes).unwrap();
        let said = sandbox.argent(&["check", "p.yaml"]);
        assert_eq!(said.code, 2);
        said.err.lines().next().unwrap().to_owned()
    };
    expect!["error: p.yaml cannot be read: it is not UTF-8: line 2 has a byte that is no character; save it as UTF-8"].assert_eq(&says(b"argent: 1\nname: caf\xe9\n"));
    expect!["error: p.yaml cannot be read: it is a binary file, expected text"]
        .assert_eq(&says(b"\x89PNG\r\n\x1a\n\x00\x00"));
    // A sparse file: nothing reads its 100 MB.
    let file = std::fs::File::create(sandbox.path("p.yaml")).unwrap();
    file.set_len(100_000_000).unwrap();
    let said = sandbox.argent(&["check", "p.yaml"]);
    expect!["error: p.yaml cannot be read: it has 100000000 bytes, expected at most 8388608"]
        .assert_eq(said.err.lines().next().unwrap());
    let said = sandbox.argent(&["check", "."]);
    expect!["error: . cannot be read: it is a folder, expected a file"]
        .assert_eq(said.err.lines().next().unwrap());
    let said = sandbox.argent(&["check", "absent.yaml"]);
    expect!["error: absent.yaml cannot be read: there is no such file"]
        .assert_eq(said.err.lines().next().unwrap());
}

/// A thousand steps, each reading one or two before it, in an order that helps nobody.
#[test]
fn a_thousand_steps_are_put_in_order() {
    let step = |n: usize| match n {
        0 => "  s0: { use: sql, with: { query: select 1 as n } }\n".to_owned(),
        _ => {
            format!("  s{n}: {{ use: sql, from: {{ t: s{} }}, with: {{ query: select n from t }} }}\n", n / 2)
        }
    };
    let steps: String = (0..1000).rev().map(step).collect();
    let sandbox = Sandbox::new();
    sandbox.write("p.yaml", &format!("argent: 1\nname: many\nsteps:\n{steps}"));
    assert_eq!(sandbox.succeeds(&["check", "p.yaml"]).err, "many: 1000 steps, nothing wrong\n");
    let circle = format!(
        "argent: 1\nname: many\nsteps:\n{}",
        steps.replace("  s0: { use: sql,", "  s0: { use: sql, from: { t: s999 },")
    );
    sandbox.write("p.yaml", &circle);
    let said = sandbox.argent(&["check", "p.yaml"]);
    expect!["error: steps read each other in a circle: s999 -> s499 -> s249 -> s124 -> s62 -> s31 -> s15 -> s7 -> s3 -> s1 -> s0 -> s999"].assert_eq(said.err.lines().next().unwrap());
}
