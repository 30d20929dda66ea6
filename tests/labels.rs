//! Labelings are measured, compared, merged, mapped and corrected by people, and a failure is never a negative.

use expect_test::expect;

use crate::sandbox::Sandbox;

const PACK: &str = "name: small
findings:
  - { id: effusion, name: Pleural effusion, synonyms: [effusion], uncertain: present }
  - { id: nodule, name: Lung nodule, synonyms: [nodule], uncertain: mask }
maps:
  one: { from: { anything: [effusion, nodule] } }
";

/// The steps that read `cells.csv` (labels of four labellers as columns) as labelings.
const LABELINGS: &str = "argent: 1
name: p
steps:
  cells: { use: reports.table, with: { path: cells.csv, id: key, text: note, keep: [report, finding, truth, first, second, score] } }
  truth: { use: sql, from: { cells: cells }, with: { keys: [id, finding], query: \"select report as id, finding, truth as state from cells where truth is not null\" } }
  first: { use: sql, from: { cells: cells }, with: { keys: [id, finding], query: \"select report as id, finding, first as state, cast(score as double) as score from cells where first is not null\" } }
  second: { use: sql, from: { cells: cells }, with: { keys: [id, finding], query: \"select report as id, finding, second as state from cells where second is not null\" } }
";

/// Effusions of twelve reports, nodules of five: truth, the first labeling with its score, the second.
const CELLS: &str = "key,report,finding,truth,first,score,second,note
1,r01,effusion,present,present,0.9,present,-
2,r02,effusion,present,present,0.8,absent,-
3,r03,effusion,present,uncertain,0.6,absent,-
4,r04,effusion,present,absent,0.3,absent,-
5,r05,effusion,present,present,0.9,absent,-
6,r06,effusion,absent,absent,0.1,absent,-
7,r07,effusion,absent,not_mentioned,0.1,absent,-
8,r08,effusion,absent,present,0.7,absent,-
9,r09,effusion,absent,absent,0.2,absent,-
10,r10,effusion,absent,absent,0.1,absent,-
11,r11,effusion,present,failed,,present,-
12,r12,effusion,absent,failed,,absent,-
13,r01,nodule,absent,absent,0.1,absent,-
14,r02,nodule,absent,uncertain,0.5,absent,-
15,r03,nodule,absent,absent,0.1,absent,-
16,r04,nodule,uncertain,present,0.9,present,-
17,r05,nodule,absent,,,absent,-
";

fn sandbox(steps: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("pack.yaml", PACK).write("cells.csv", CELLS);
    sandbox.write("p.yaml", &format!("{LABELINGS}{steps}"));
    sandbox
}

const AGREEMENT: &str = "  agreement:
    use: eval.agreement
    from: { labels: first, truth: truth }
    with: { findings: pack.yaml, bootstrap: { draws: 200 } }
";

#[test]
fn a_failed_label_is_counted_beside_and_is_no_negative() {
    let sandbox = sandbox(AGREEMENT);
    assert_eq!(sandbox.run(&["p.yaml"]).last().unwrap(), "agreement made 2 0 1");
    // Of ten decided effusions 4 are true positives, 1 a false positive, 1 a false negative, 4 true negatives.
    let columns = "finding, n, positives, excluded, failed, missing";
    expect![[r#"
        effusion,10,5,0,2,0
        nodule,2,0,2,0,1"#]]
    .assert_eq(&sandbox.sql(&format!("select {columns} from agreement")).join("\n"));
    let measures = "round(f1, 6), round(sensitivity, 6), round(specificity, 6), round(ppv, 6), round(npv, 6), round(mcc, 6), round(kappa, 6), round(ac1, 6)";
    let effusion = format!("select {measures} from agreement where finding = 'effusion'");
    assert_eq!(sandbox.sql(&effusion), ["0.8,0.8,0.8,0.8,0.8,0.6,0.6,0.6"]);
    // Wilson's interval of 4 in 5 is what statsmodels says: proportion_confint(4, 5, method='wilson').
    let wilson = "select round(sensitivity_low, 9), round(sensitivity_high, 9) from agreement where finding = 'effusion'";
    assert_eq!(sandbox.sql(wilson), ["0.37553463,0.963775891"]);
    let auc = "select round(auc, 6), auc_low < auc and auc < auc_high, f1_low < 0.8 and 0.8 < f1_high from agreement where finding = 'effusion'";
    assert_eq!(sandbox.sql(auc), ["0.92,true,true"]);
    // Without positives neither F1 nor sensitivity nor AUC nor kappa is defined.
    let nodule = "select f1 is null, sensitivity is null, auc is null, kappa is null, f1_low is null, specificity from agreement where finding = 'nodule'";
    assert_eq!(sandbox.sql(nodule), ["true,true,true,true,true,1.0"]);
    let summary = "select average, measure, round(value, 6), findings, undefined from agreement.summary where measure in ('f1', 'specificity', 'auc') order by 1, 2";
    expect![[r#"
        macro,auc,0.92,1,1
        macro,f1,0.8,1,1
        macro,specificity,0.9,2,0
        micro,f1,0.8,2,0"#]]
    .assert_eq(&sandbox.sql(summary).join("\n"));
    let confusion =
        "select truth_state, state, n from agreement.confusion where finding = 'effusion' order by 1, 2";
    expect![[r#"
        absent,absent,3
        absent,failed,1
        absent,not_mentioned,1
        absent,present,1
        present,absent,1
        present,failed,1
        present,present,3
        present,uncertain,1"#]]
    .assert_eq(&sandbox.sql(confusion).join("\n"));
    let error = "select port, id, kind from agreement.errors";
    assert_eq!(sandbox.sql(error), ["truth,r05,unlabelled"]);
}

#[test]
fn the_policy_decides_what_uncertain_counts_as() {
    let masked = AGREEMENT
        .replace("findings: pack.yaml", "uncertain: mask, per_finding: { nodule: { uncertain: zero } }");
    let sandbox = sandbox(&masked);
    sandbox.run(&["p.yaml"]);
    let columns = "finding, n, positives, excluded, round(specificity, 6), round(f1, 6)";
    // r03's effusion is masked; r02's and r04's uncertain nodules are negatives, r04's on the side of the truth.
    expect![[r#"
        effusion,9,4,1,0.8,0.75
        nodule,4,0,0,0.75,"#]]
    .assert_eq(&sandbox.sql(&format!("select {columns} from agreement")).join("\n"));
    let wrong = AGREEMENT.replace(
        "findings: pack.yaml",
        "findings: pack.yaml, per_finding: { nodul: { uncertain: zero } }, group: patient",
    );
    sandbox.write("p.yaml", &format!("{LABELINGS}{wrong}"));
    let said = sandbox.argent(&["check", "p.yaml"]);
    assert_eq!(said.code, 2);
    assert!(said.err.contains("the pack has no finding `nodul`"), "{}", said.err);
    assert!(said.err.contains("did you mean `nodule`?"), "{}", said.err);
}

#[test]
fn two_labelings_are_compared_on_what_both_decided() {
    let compared = AGREEMENT.replace("truth: truth }", "truth: truth, other: second }");
    let sandbox = sandbox(&compared);
    sandbox.run(&["p.yaml"]);
    // Of ten effusions the first labeling alone is right on r02, r03, r05, the second alone on r08; by SciPy,
    // 2·binom.cdf(1, 4, 0.5) - binom.pmf(1, 4, 0.5) = 0.375, and by Holm the smaller of two is doubled.
    let columns = "finding, n, only_labels_right, only_other_right, round(f1, 6), round(f1_other, 6), round(difference, 6), round(p_value, 6), round(p_holm, 6)";
    expect![[r#"
        effusion,10,3,1,0.8,0.333333,0.466667,0.375,0.75
        nodule,2,0,0,,,,1.0,1.0"#]]
    .assert_eq(&sandbox.sql(&format!("select {columns} from agreement.comparison")).join("\n"));
    let summary = "select measure, round(value, 6), round(other, 6), round(difference, 6), low <= difference and difference <= high, p_value between 0 and 1, n from agreement.comparison_summary";
    expect![[r#"
        f1,0.8,0.333333,0.466667,true,true,12
        kappa,0.6,0.2,0.4,true,true,12"#]]
    .assert_eq(&sandbox.sql(summary).join("\n"));
}

#[test]
fn only_the_named_part_is_measured() {
    let split = "  split: { use: sql, from: { cells: cells }, with: { keys: [id], query: \"select distinct report as id, case when report < 'r06' then 'test' else 'dev' end as part from cells\" } }
  agreement:
    use: eval.agreement
    from: { labels: first, truth: truth, split: split }
    with: { part: test, bootstrap: { draws: 50 } }
";
    let sandbox = sandbox(split);
    sandbox.run(&["p.yaml"]);
    assert_eq!(sandbox.sql("select n, positives from agreement where finding = 'effusion'"), ["4,4"]);
    let nobody = "select count(*) from agreement.errors where kind = 'unmatched'";
    assert_eq!(sandbox.sql(nobody), ["0"], "the truth of the other part is not missed");
    sandbox.write("p.yaml", &format!("{LABELINGS}{}", split.replace("part: test", "part: tset")));
    let said = sandbox.argent(&["run", "p.yaml"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("none is in the part `tset`"), "{}", said.err);
}

#[test]
fn a_truth_of_scans_measures_the_labels_of_their_reconstructions() {
    let sandbox = Sandbox::new();
    sandbox.write("pack.yaml", PACK);
    sandbox.write(
        "reports.csv",
        "id,text\nvalid_1_a_1,An effusion.\nvalid_1_a_2,An effusion.\nvalid_2_a_1,No effusion.\nvalid_3_a_1,An effusion.\n",
    );
    sandbox.write("truth.csv", "scan,effusion\nvalid_1_a,1\nvalid_2_a,1\nvalid_3_a,0\n");
    let steps = "argent: 1
name: p
steps:
  reports: { use: reports.table, with: { path: reports.csv, id: id, ids: ct-rate, text: text } }
  rules: { use: label.rules, from: reports, with: { findings: pack.yaml } }
  truth: { use: labels.table, with: { path: truth.csv, id: scan, ids: { pattern: \"(?<scan>.+)\" }, findings: pack.yaml, values: { \"1\": present, \"0\": absent } } }
  agreement:
    use: eval.agreement
    from: { labels: rules, truth: truth }
    match: { truth: scan }
    with: { group: patient, bootstrap: { draws: 50 } }
";
    sandbox.write("p.yaml", steps);
    sandbox.run(&["p.yaml"]);
    let counts =
        "select n, positives, round(sensitivity, 6), specificity from agreement where finding = 'effusion'";
    assert_eq!(sandbox.sql(counts), ["4,3,0.666667,0.0"]);
    sandbox.write("p.yaml", &steps.replace("match: { truth: scan }", "match: { truth: id }"));
    let said = sandbox.argent(&["run", "p.yaml"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("none of the 3 rows of `truth` has a match in `labels`"), "{}", said.err);
}

#[test]
fn labelings_are_merged_and_each_label_says_where_it_came_from() {
    let merges = "  voted: { use: label.merge, from: { first: first, second: second, truth: truth }, with: { rule: vote } }
  complete: { use: label.merge, from: { first: first, second: second }, with: { rule: vote, missing: exclude } }
  cascade: { use: label.merge, from: { first: first, second: second }, with: { rule: cascade, order: [first, second] } }
";
    let sandbox = sandbox(merges);
    sandbox.run(&["p.yaml"]);
    let rows = |step: &str| {
        let question = "where finding = 'effusion' and id in ('r01', 'r02', 'r03', 'r11') order by id";
        sandbox.sql(&format!("select id, state, source, votes, labelings from {step} {question}")).join("\n")
    };
    expect![[r#"
        r01,present,first second truth,3,3
        r02,present,first truth,2,3
        r03,uncertain,first,1,3
        r11,present,second truth,2,2"#]]
    .assert_eq(&rows("voted"));
    expect![[r#"
        r01,present,first,2,2
        r02,present,first,1,2
        r03,absent,second,1,2
        r11,present,second,1,1"#]]
    .assert_eq(&rows("cascade"));
    let excluded = "select id, kind, message from complete.errors";
    assert_eq!(sandbox.sql(excluded), ["r05,missing,1 of 2 labelings have no label of a finding"]);
    assert_eq!(sandbox.sql("select count(*) from complete where id = 'r05' and finding = 'nodule'"), ["0"]);
    assert_eq!(
        sandbox.sql("select state, source from cascade where id = 'r05' and finding = 'nodule'"),
        ["absent,second"]
    );
    let agreement =
        "select finding, n, observed > 0, krippendorff_alpha between -1 and 1 from voted.agreement";
    assert_eq!(sandbox.sql(agreement), ["effusion,12,true,true", "nodule,5,true,true"]);

    let wrong = "  bad: { use: label.merge, from: { first: first, second: second }, with: { rule: precedence, order: [frist] } }\n";
    sandbox.write("p.yaml", &format!("{LABELINGS}{wrong}"));
    let said = sandbox.argent(&["check", "p.yaml"]);
    assert_eq!(said.code, 2);
    assert!(said.err.contains("`from` has no labeling `frist`"), "{}", said.err);
    assert!(said.err.contains("`order` does not say where first, second stands"), "{}", said.err);
}

#[test]
fn labels_and_scores_are_mapped_and_what_is_not_known_is_not_made_up() {
    let maps = "  any: { use: label.map, from: first, with: { map: { anything: { any_of: [effusion, nodule] } } } }
  by_pack: { use: label.map, from: second, with: { findings: pack.yaml, mapping: one } }
  scores: { use: sql, from: { cells: cells }, with: { keys: [id, finding], query: \"select report as id, finding, cast(score as double) as score from cells where score is not null\" } }
  higher: { use: label.map, from: scores, with: { map: { anything: { any_of: [effusion, nodule] } } } }
  kept: { use: label.map, from: scores, with: { map: { fluid: { any_of: [effusion] } }, drop: [nodule] } }
";
    let sandbox = sandbox(maps);
    sandbox.run(&["p.yaml"]);
    let some = "where id in ('r01', 'r02', 'r04', 'r05', 'r06', 'r11') order by id";
    // r05 has no nodule label and is present already; r06's nodule could be anything, so it has no row.
    expect![[r#"
        r01,anything,present,0.9
        r02,anything,present,0.8
        r04,anything,present,0.9
        r05,anything,present,0.9"#]]
    .assert_eq(&sandbox.sql(&format!("select id, finding, state, score from any {some}")).join("\n"));
    let errors = "select id, kind, message from any.errors where id = 'r06'";
    assert_eq!(sandbox.sql(errors), ["r06,missing,1 of the 2 findings that make a finding are not there"]);
    assert_eq!(
        sandbox.sql("select id, state from by_pack where id in ('r01', 'r02')"),
        ["r01,present", "r02,absent"]
    );
    assert_eq!(sandbox.sql("select id, score from higher where id = 'r04'"), ["r04,0.9"]);
    assert_eq!(sandbox.sql("select distinct finding from kept"), ["fluid"]);

    sandbox.write("p.yaml", &format!("{LABELINGS}  any: {{ use: label.map, from: first, with: {{ map: {{ x: {{ any_of: [efusion] }} }} }} }}\n"));
    let said = sandbox.argent(&["run", "p.yaml"]);
    assert!(
        said.err.contains("the labels have no finding `efusion`; did you mean `effusion`?"),
        "{}",
        said.err
    );
    sandbox.write("p.yaml", &format!("{LABELINGS}  any: {{ use: label.map, from: first, with: {{ findings: pack.yaml, mapping: won }} }}\n"));
    let said = sandbox.argent(&["check", "p.yaml"]);
    assert!(said.err.contains("`pack.yaml` has no mapping `won`"), "{}", said.err);
}

const REVIEW: &str = "argent: 1
name: p
steps:
  reports: { use: reports.table, with: { path: reports.csv, id: id, text: text } }
  rules: { use: label.rules, from: reports, with: { findings: pack.yaml } }
  review: { use: review.export, from: { labels: rules, reports: reports }, with: { findings: pack.yaml, choose: { sample: 1, seed: 3 } } }
";

const REVIEWED: &str = "  human: { use: review.import, from: { reports: reports }, with: { path: \"done/*\", findings: pack.yaml } }
  corrected: { use: label.merge, from: { human: human, rules: rules }, with: { rule: precedence, order: [human, rules] } }
";

#[test]
fn what_people_say_of_a_text_outlives_ids_and_rules() {
    let sandbox = Sandbox::new();
    sandbox.write("pack.yaml", PACK).write("p.yaml", REVIEW);
    sandbox.write(
        "reports.csv",
        "id,text\na,Possible effusion.\nb,Possible effusion.\nc,A nodule.\nd,No effusion.\n",
    );
    sandbox.run(&["p.yaml"]);
    // Two reports of one text are one task; the uncertain one comes first, then one at random.
    let tasks = "select rank, reason, uncertainty from review order by rank";
    let chosen = sandbox.sql(tasks);
    assert_eq!(chosen.len(), 2);
    assert_eq!(chosen[0], "1,uncertain,1.0");
    assert!(chosen[1].starts_with("2,sample,"), "{chosen:?}");

    let words = ["sql", "select task from review order by rank", "--format", "json", "--phi"];
    let lines = sandbox.succeeds(&words).out;
    let task = |line: &str| {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        serde_json::from_str::<serde_json::Value>(row["task"].as_str().unwrap()).unwrap()
    };
    let exported: Vec<serde_json::Value> = lines.lines().map(task).collect();
    assert_eq!(exported[0]["data"]["text"], "text\nPossible effusion.");
    expect![[r#"[{"from_name":"effusion","to_name":"text","type":"choices","value":{"choices":["uncertain"]}},{"from_name":"nodule","to_name":"text","type":"choices","value":{"choices":["not_mentioned"]}}]"#]]
    .assert_eq(&exported[0]["predictions"][0]["result"].to_string());
    assert_eq!(exported[0]["predictions"][0]["score"], 0.0);
    let config = sandbox.sql("select config like '%<Choices name=\"effusion\" toName=\"text\" choice=\"single\">%' from review.config");
    assert_eq!(config, ["true"]);
    expect![[r#"
        a,effusion,uncertain,uncertain,
        a,nodule,not_mentioned,uncertain,"#]]
    .assert_eq(
        &sandbox
            .sql(
                "select id, finding, state, reason, review from review.cells where rank = 1 order by finding",
            )
            .join("\n"),
    );

    // What Label Studio exports: the task with an annotation, and one that was skipped.
    let mut done = exported[0].clone();
    let said = |state: &str| serde_json::json!([{ "from_name": "effusion", "to_name": "text", "type": "choices", "value": { "choices": [state] } }]);
    done["annotations"] = serde_json::json!([
        { "was_cancelled": true, "result": said("absent") },
        { "was_cancelled": false, "result": said("present") },
    ]);
    sandbox.write("done/a.json", &serde_json::json!([done]).to_string());
    sandbox.write("p.yaml", &format!("{REVIEW}{REVIEWED}"));
    sandbox.run(&["p.yaml"]);
    let corrected = "select id, state, source from corrected where finding = 'effusion' order by id";
    expect![[r#"
        a,present,human
        b,present,human
        c,not_mentioned,rules
        d,absent,rules"#]]
    .assert_eq(&sandbox.sql(corrected).join("\n"));

    // Other ids, other white space, other rules: the word of people holds for the same text.
    sandbox.write("reports.csv", "id,text\nx7,\"Possible\n effusion.\"\ny,A nodule.\n");
    sandbox.write("pack.yaml", &PACK.replace("synonyms: [effusion]", "synonyms: [effusion, fluid]"));
    sandbox.run(&["p.yaml"]);
    assert_eq!(sandbox.sql(corrected), ["x7,present,human", "y,not_mentioned,rules"]);

    // A second opinion that differs: nobody's word is kept until one of them is taken away.
    sandbox.write(
        "done/b.csv",
        "text,finding,review\ntext Possible effusion.,effusion,absent\ntext A nodule.,nodule,absent\ntext Gone.,nodule,absent\ntext A nodule.,effusion,failed\n",
    );
    sandbox.run(&["p.yaml"]);
    assert_eq!(sandbox.sql(corrected), ["x7,uncertain,rules", "y,not_mentioned,rules"]);
    assert_eq!(sandbox.sql("select id, finding, state from human"), ["y,nodule,absent"]);
    expect![[r#"
        file 1 task 1,conflict
        file 2 line 4,unmatched
        file 2 line 5,state"#]]
    .assert_eq(&sandbox.sql("select id, kind from human.errors order by id, kind").join("\n"));
}

#[test]
fn who_is_forgotten_is_in_no_task() {
    let sandbox = Sandbox::new();
    sandbox.write("pack.yaml", PACK).write("p.yaml", REVIEW);
    sandbox.write("reports.csv", "id,text\nmueller,Possible effusion.\nother,Maybe an effusion.\n");
    sandbox.run(&["p.yaml"]);
    assert_eq!(sandbox.sql("select id from review order by id"), ["mueller", "other"]);
    let said = sandbox.succeeds(&["forget", "--where", "id = 'mueller'"]);
    assert!(!said.out.contains("still name them") && !said.err.contains("still name them"), "{said:?}");
    assert_eq!(sandbox.sql("select id from review"), ["other"]);
    assert_eq!(sandbox.sql("select distinct id from review.cells"), ["other"]);
}

/// RAD-ChestCT as it is distributed: a column for each abnormality and location, which become the 16 findings in each of
/// the published ways.
#[test]
fn the_tables_of_rad_chestct_become_the_findings_that_models_are_tested_on() {
    let root = crate::sandbox::root().join("pipelines/findings");
    let sandbox = Sandbox::new();
    for name in ["rad-chestct-16.yaml", "rad-chestct-84.yaml"] {
        sandbox.write(name, &std::fs::read_to_string(root.join(name)).unwrap());
    }
    let pack: serde_json::Value = serde_yaml::from_str(&sandbox.read("rad-chestct-84.yaml")).unwrap();
    let all: Vec<&str> =
        pack["findings"].as_array().unwrap().iter().map(|f| f["id"].as_str().unwrap()).collect();
    assert_eq!(all.len(), 84);
    let places = ["left_upper", "right_lower", "other_location"];
    let columns: Vec<String> = all.iter().flat_map(|f| places.map(|place| format!("{f}*{place}"))).collect();
    // By patient: the cells that are 1. A nodule of more than 1 cm alone, a scar, a fibrosis, a CABG, a broken cell.
    let row = |id: &str, ones: &[&str], broken: &str| {
        let cell = |column: &String| match column {
            column if column == broken => "?",
            column if ones.contains(&column.as_str()) => "1",
            _ => "0",
        };
        format!("{id},{}\n", columns.iter().map(cell).collect::<Vec<_>>().join(","))
    };
    let rows = [
        row("trn1", &["nodulegr1cm*right_lower", "scarring*left_upper"], ""),
        row("trn2", &["fibrosis*left_upper", "cabg*other_location"], ""),
        row("trn3", &["hernia*other_location"], "hernia*left_upper"),
        row("trn4", &[], "hernia*left_upper"),
    ];
    sandbox.write("labels.csv", &format!("NoteAcc_DEID,{}\n{}", columns.join(","), rows.concat()));
    let spec = "argent: 1
name: p
steps:
  abnormalities: { use: labels.table, with: { path: labels.csv, id: NoteAcc_DEID, findings: rad-chestct-84.yaml, locations: '*', values: { \"1\": present, \"0\": absent } } }
  standard: { use: label.map, from: abnormalities, with: { findings: rad-chestct-16.yaml, mapping: standard } }
  hlip: { use: label.map, from: abnormalities, with: { findings: rad-chestct-16.yaml, mapping: hlip } }
  extended: { use: label.map, from: abnormalities, with: { findings: rad-chestct-16.yaml, mapping: extended } }
";
    sandbox.write("p.yaml", spec);
    sandbox.run(&["p.yaml"]);
    let present = |step: &str| {
        sandbox
            .sql(&format!("select id, finding from {step} where state = 'present' order by id, finding"))
            .join("\n")
    };
    expect![[r#"
        trn1,lung_nodule
        trn1,pulmonary_fibrotic_sequela
        trn3,hiatal_hernia"#]]
    .assert_eq(&present("standard"));
    expect![[r#"
        trn2,pulmonary_fibrotic_sequela
        trn3,hiatal_hernia"#]]
    .assert_eq(&present("hlip"));
    expect![[r#"
        trn1,lung_nodule
        trn1,pulmonary_fibrotic_sequela
        trn2,medical_material
        trn2,pulmonary_fibrotic_sequela
        trn3,hiatal_hernia"#]]
    .assert_eq(&present("extended"));
    assert_eq!(
        sandbox.sql("select id, kind, message from abnormalities.errors"),
        ["trn4,value,hernia: the cell holds a value that `values` does not name"]
    );
    sandbox
        .write("p.yaml", &spec.replace("locations: '*'", "locations: '*', long: { finding: a, value: b }"));
    let said = sandbox.argent(&["check", "p.yaml"]).err;
    assert!(said.contains("`locations` is for a wide file, and `long` is given too"), "{said}");
}

/// The mappings that are published for RAD-ChestCT, and the findings that each of them makes.
#[test]
fn the_shipped_mappings_make_the_published_sets() {
    let root = crate::sandbox::root().join("pipelines/findings");
    let text = std::fs::read_to_string(root.join("rad-chestct-16.yaml")).unwrap();
    let pack: serde_json::Value = serde_yaml::from_str(&text).unwrap();
    let set: Vec<&str> =
        pack["findings"].as_array().unwrap().iter().map(|f| f["id"].as_str().unwrap()).collect();
    assert_eq!(set.len(), 16);
    let ct_rate = std::fs::read_to_string(root.join("ct-rate-18.yaml")).unwrap();
    let ct_rate: serde_json::Value = serde_yaml::from_str(&ct_rate).unwrap();
    let sandbox = Sandbox::new();
    sandbox.write("rad.yaml", &text);
    for (name, count) in [("ct-rate-18", 16), ("standard", 16), ("hlip", 15), ("extended", 18)] {
        let mut sources: Vec<String> = match name {
            "ct-rate-18" => ct_rate["findings"]
                .as_array()
                .unwrap()
                .iter()
                .map(|f| f["id"].as_str().unwrap().to_owned())
                .collect(),
            // What RAD-ChestCT has and nothing is made from is dropped.
            _ => vec!["cyst".to_owned()],
        };
        for made_from in pack["maps"][name]["from"].as_object().unwrap().values() {
            sources.extend(made_from.as_array().unwrap().iter().map(|s| s.as_str().unwrap().to_owned()));
        }
        sources.sort();
        sources.dedup();
        let rows: String = sources
            .iter()
            .map(|s| format!("{s},{},-\n", f64::from(u8::from(s.contains("calcification")))))
            .collect();
        sandbox.write("scores.csv", &format!("finding,score,note\n{rows}"));
        sandbox.write("p.yaml", &format!("argent: 1
name: p
steps:
  cells: {{ use: reports.table, with: {{ path: scores.csv, id: finding, text: note, keep: [score] }} }}
  scores: {{ use: sql, from: {{ cells: cells }}, with: {{ keys: [id, finding], query: \"select 'x' as id, id as finding, cast(score as double) as score from cells\" }} }}
  rad: {{ use: label.map, from: scores, with: {{ findings: rad.yaml, mapping: {name} }} }}
"));
        sandbox.run(&["p.yaml"]);
        let made = sandbox.sql("select finding from rad order by finding");
        assert_eq!(made.len(), count, "{name}: {made:?}");
        if count == 16 {
            let mut expected = set.clone();
            expected.sort_unstable();
            assert_eq!(made, expected, "{name}");
        }
        if name != "extended" {
            assert_eq!(
                sandbox.sql("select score from rad where finding = 'arterial_wall_calcification'"),
                ["1.0"]
            );
        }
    }
}
