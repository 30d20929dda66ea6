//! Wrong specs fail before anything runs, all mistakes at once; right ones pass.

use expect_test::expect;

use crate::sandbox::{Sandbox, root};

/// Five mistakes of five kinds.
const WRONG: &str = r#"argent: 1
name: wrong
steps:
  reports:
    use: reports.table
    with:
      path: reports.csv
      id: VolumeName
      sections: { findings: Findings_EN }
  labels:
    use: label.rulez
    from: reports
  volumes:
    use: volumes.scan
    with: { path: "*.nii.gz", ids: 3 }
  grid:
    use: volumes.resample
    from: volumes
    with: { spacng_mm: [1, 1, 1] }
  split:
    use: split.groups
    from: reports
    with: { by: patiant, parts: { train: 0.9, test: 0.1 } }
  first: { use: sql, from: { second: second }, with: { query: select * from second } }
  second: { use: sql, from: { first: first }, with: { query: select * from first } }
"#;

#[test]
fn every_mistake_is_shown_at_once_with_its_place_and_nothing_runs() {
    let sandbox = Sandbox::new();
    sandbox.write("reports.csv", "VolumeName,Findings_EN\n1,No effusion.\n").write("wrong.yaml", WRONG);
    let said = sandbox.argent(&["run", "wrong.yaml"]);
    assert_eq!(said.code, 2);
    assert_eq!(said.out, "");
    expect![[r#"
        error: there is no operator `label.rulez`
          --> wrong.yaml:11:10
           |
        11 |     use: label.rulez
           |          ^^^^^^^^^^^ not an operator
           |
        help: did you mean `label.rules`?

        error: expected `ct-rate` or `{pattern: …}` for `ids`, found a whole number
          --> wrong.yaml:15:36
           |
        15 |     with: { path: "*.nii.gz", ids: 3 }
           |                                    ^

        error: `spacng_mm` is not a parameter of volumes.resample
          --> wrong.yaml:19:13
           |
        19 |     with: { spacng_mm: [1, 1, 1] }
           |             ^^^^^^^^^
           |
        help: did you mean `spacing_mm`?

        error: the table has no column `patiant`
          --> wrong.yaml:23:17
           |
        23 |     with: { by: patiant, parts: { train: 0.9, test: 0.1 } }
           |                 ^^^^^^^
           |
        help: there are id, findings

        error: steps read each other in a circle: first -> second -> first
          --> wrong.yaml:24:38
           |
        24 |   first: { use: sql, from: { second: second }, with: { query: select * from second } }
           |                                      ^^^^^^ `first` reads `second`
        25 |   second: { use: sql, from: { first: first }, with: { query: select * from first } }
           |                                      ----- `second` reads `first`
           |
        help: take one of these inputs away

        5 mistakes in wrong.yaml

    "#]]
    .assert_eq(&said.err);
    assert!(!sandbox.path(".argent").exists(), "a wrong spec makes no store");
}

#[test]
fn mistakes_come_as_json_for_editors() {
    let sandbox = Sandbox::new();
    sandbox.write("reports.csv", "VolumeName,Findings_EN\n1,No effusion.\n").write("wrong.yaml", WRONG);
    let said = sandbox.argent(&["check", "wrong.yaml", "--json"]);
    assert_eq!(said.code, 2);
    let found: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let places: Vec<String> = found["diagnostics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| format!("{}:{}", d["labels"][0]["start"]["line"], d["labels"][0]["start"]["column"]))
        .collect();
    assert_eq!(places.len(), 5, "{places:?}");
    assert!(places.contains(&"11:10".to_owned()), "{places:?}");
}

/// The files that [`DESIGN`] names, as small as they can be.
fn design_sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    let pack = std::fs::read_to_string(root().join("pipelines/findings/ct-rate-18.yaml")).unwrap();
    sandbox
        .write("chest-ct.yaml", DESIGN)
        .write("findings/ct-rate-18.yaml", &pack)
        .write(
            "prompts/chest-ct.md",
            "{{ report.findings }}\n{% for f in findings %}{{ f.name }}\n{% endfor %}",
        )
        .write("data/ct-rate/reports/a.csv", "VolumeName,Findings_EN,Impressions_EN\n")
        .write("data/ct-rate/labels/a.csv", "VolumeName,Cardiomegaly\n")
        .write("data/ct-rate/volumes/valid_1/valid_1_a/valid_1_a_1.nii.gz", "");
    sandbox
}

/// The pipeline that the spec language was designed around.
const DESIGN: &str = r##"argent: 1
name: chest-ct
description: Silver labels from reports, a supervised 3D encoder, CLIP, zero-shot diagnosis and retrieval.
params:
  data: { type: path, default: data/ct-rate, doc: folder of the data set }
  llm: { type: url, env: LLM_URL, default: "http://127.0.0.1:8000/v1" }   # may come from the environment
  model: qwen3-8b                      # the type is the default's
  seed: 7
steps:
  reports:
    use: reports.table
    with:
      path: ${params.data}/reports/*.csv
      id: VolumeName
      ids: ct-rate                     # normalises the id and derives patient, scan, reconstruction (also: a regex with named groups, DICOM tags, a joined table)
      sections: { findings: Findings_EN, impression: Impressions_EN }
      empty: ["Not given."]
  labels:
    use: label.llm
    from: reports                      # one port: its name may be left out
    with:
      findings: findings/ct-rate-18.yaml
      prompt: prompts/chest-ct.md
      endpoint: { base_url: "${params.llm}", model: "${params.model}", api_key: { env: LLM_API_KEY } }
      price: { input: 0.05, cached: 0.005, output: 0.4 }   # USD per million tokens; absent: cost is unknown, never 0
      budget: { usd: 5 }
    expect:                            # contracts on the result, each a SQL predicate over the step's table
      - count(*) > 0
      - avg(case when state = 'failed' then 1 else 0 end) < 0.01
  gold:
    use: labels.table
    with: { path: "${params.data}/labels/*.csv", id: VolumeName, ids: ct-rate, findings: findings/ct-rate-18.yaml, values: { "1": present, "0": absent } }
  targets: { use: label.policy, from: labels, with: { uncertain: pack, not_mentioned: zero, failed: mask } }
  volumes:
    use: volumes.scan
    with: { path: "${params.data}/volumes/**/*.nii.gz", ids: ct-rate, hounsfield: header }
  grid: { use: volumes.resample, from: volumes, with: { spacing_mm: [1.5, 1.5, 3.0], orientation: RAS } }
  split:
    use: split.groups
    from: volumes
    with: { by: patient, fixed: { test: "id like 'valid%'" }, parts: { train: 0.9, val: 0.1 }, seed: "${params.seed}" }
  encoder:
    use: train.classifier
    from: { volumes: grid, labels: targets, split: split }
    match: { labels: scan, split: patient }      # ports join on id unless match names an id column
    with:
      model: resnet3d-18
      epochs: 5
      batch: 10
      view: { window_hu: [-1000, 200], scale: [-1, 1], pad_hu: -1000, canvas: [240, 240, 120], crop: [192, 192, 96] }
    needs: { gpu: 1 }
    rerun: { if: "changed_rows > 0.005" }        # materiality: smaller drift is accepted, and recorded as accepted
  predictions: { use: predict, from: { weights: encoder, volumes: grid } }
  scores:
    use: eval.classification
    from: { predictions: predictions, labels: gold, split: split }
    match: { labels: scan, split: patient }
    with: { part: test, threshold: { rule: youden, part: val } }
"##;

#[test]
fn the_pipeline_that_the_language_was_designed_around_passes() {
    let sandbox = design_sandbox();
    let said = sandbox.argent(&["check", "chest-ct.yaml"]);
    expect![[r#"
        chest-ct: 10 steps, nothing wrong
    "#]]
    .assert_eq(&said.err);
    assert_eq!(said.code, 0);
}

#[test]
fn check_types_tells_the_columns_of_every_step() {
    let said = design_sandbox().succeeds(&["check", "chest-ct.yaml", "--types"]);
    let grid = said.out.split("grid (volumes.resample)").nth(1).unwrap();
    let columns: Vec<&str> = grid.lines().skip(1).map_while(|line| line.strip_prefix("  ")).collect();
    expect![[r#"
        column          type                  key  role     null      unit
        id              text                  key  id, phi  not null
        scan            text                       id, phi  not null
        patient         text                       id, phi  not null
        reconstruction  text                       id, phi  not null
        voxels          text                       file
        shape           list of whole number
        spacing_mm      list of number                                mm
        orientation     text
        affine          list of number"#]]
    .assert_eq(&columns.join("\n"));
    let said = design_sandbox().succeeds(&["check", "chest-ct.yaml", "--types", "--json"]);
    let found: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let tables = found["types"].as_array().unwrap();
    let scores = tables.iter().find(|t| t["step"] == "scores" && t["output"] == "").unwrap();
    expect![[r#"{"name":"finding","type":"text","key":true,"roles":[],"nullable":true,"unit":null}"#]]
        .assert_eq(&scores["columns"][0].to_string());
    assert_eq!(scores["keys"], serde_json::json!(["finding"]));
}

#[test]
fn a_param_takes_its_value_from_the_command_line_the_environment_or_its_default() {
    let spec = |body: &str| format!("argent: 1\nname: p\nparams:\n{body}");
    let steps = "steps:\n  demo: { use: demo.chest_ct, with: { patients: \"${params.n}\" } }\n";
    let sandbox = Sandbox::new().with_variable("HOW_MANY", "three");
    sandbox.write("p.yaml", &spec(&format!("  n: {{ type: int, env: HOW_MANY, default: 2 }}\n{steps}")));
    let said = sandbox.argent(&["check", "p.yaml"]);
    assert_eq!(said.code, 2);
    expect![[r#"
        error: the environment variable HOW_MANY gives `n` a value of another type: expected a whole number
         --> environment:1:1
          |
        1 | HOW_MANY
          | ^^^^^^^^
          |
         ::: p.yaml:4:3
          |
        4 |   n: { type: int, env: HOW_MANY, default: 2 }
          |   - declared here

        1 mistake in environment

    "#]]
    .assert_eq(&said.err);
    sandbox.succeeds(&["check", "p.yaml", "--set", "n=3"]);
    let said = sandbox.argent(&["check", "p.yaml", "--set", "n=3", "--set", "m=4"]);
    assert!(said.err.contains("--set names `m`, which is not a param of this pipeline"), "{}", said.err);
}

#[test]
fn a_missing_file_is_found_before_anything_runs() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "p.yaml",
        "argent: 1\nname: p\nsteps:\n  r: { use: reports.table, with: { path: no/*.csv, id: a, text: b } }\n",
    );
    let said = sandbox.argent(&["run", "p.yaml"]);
    assert_eq!(said.code, 2);
    expect![[r#"
        error: no file matches no/*.csv
         --> p.yaml:4:42
          |
        4 |   r: { use: reports.table, with: { path: no/*.csv, id: a, text: b } }
          |                                          ^^^^^^^^
          |
        help: paths are relative to the spec, here .

        1 mistake in p.yaml

    "#]]
    .assert_eq(&said.err);
}

#[test]
fn a_file_on_disk_says_nothing_about_one_of_the_same_name_that_a_step_makes() {
    let sandbox = Sandbox::new();
    let spec = "argent: 1
name: p
steps:
  demo: { use: demo.chest_ct, with: { patients: 2 } }
  reports: { use: reports.table, from: demo, with: { path: reports.csv, id: VolumeName, ids: ct-rate, sections: { findings: Findings_EN } } }
";
    sandbox.write("p.yaml", spec).write("reports.csv", "another,file\n1,2\n");
    sandbox.succeeds(&["check", "p.yaml"]);
    sandbox.write("p.yaml", &spec.replace("from: demo, ", ""));
    let said = sandbox.argent(&["check", "p.yaml"]);
    assert!(said.err.contains("`reports.csv` has no column `VolumeName`"), "{}", said.err);
}
