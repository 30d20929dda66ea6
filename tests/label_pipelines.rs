//! The shipped pipelines of labels run from end to end on data in the form in which it is distributed.

use argent_cache::{Secret, Store};
use expect_test::expect;
use serde_json::Value;

use crate::chat_server::{ChatServer, Heard, Reply};
use crate::forget::store_texts;
use crate::sandbox::{Sandbox, root};

/// A model that reads the report by single words: a finding is what is said right before the first of its words.
fn reads(heard: &Heard, words_of: &dyn Fn(&str) -> Vec<String>) -> Reply {
    let content = heard.content();
    let report =
        ["\n# Report\n", "\n# Befund\n"].iter().find_map(|heading| Some(content.split_once(heading)?.1));
    let report = report.unwrap().to_lowercase();
    let schema = &heard.body["response_format"]["json_schema"]["schema"]["required"];
    let state = |id: &str| {
        let words = words_of(id);
        let found = words.iter().filter_map(|word| report.find(word.as_str())).min();
        let before = found.map(|at| &report[..at]);
        match before {
            None => "not_mentioned",
            Some(before) if before.ends_with("no ") || before.ends_with("keine ") => "absent",
            Some(before) if before.ends_with("v.a. ") => "uncertain",
            Some(_) => "present",
        }
    };
    let ids = schema.as_array().unwrap().iter().map(|id| id.as_str().unwrap());
    let states = ids.map(|id| (id.to_owned(), Value::from(state(id)))).collect();
    Reply::Text(Value::Object(states).to_string())
}

/// The path of a shipped pipeline.
fn shipped(name: &str) -> String {
    root().join("pipelines").join(name).to_str().unwrap().to_owned()
}

/// Runs a shipped pipeline over the sandbox's folder with a store of its own.
fn run(sandbox: &Sandbox, pipeline: &str, server: &ChatServer, more: &[&str]) -> Vec<String> {
    let data = format!("data={}", sandbox.path("data").display());
    let url = format!("llm={}", server.base_url);
    let path = shipped(pipeline);
    let mut words = vec![path.as_str(), "--store", ".argent", "--set", &data, "--set", &url];
    words.extend(more);
    sandbox.run(&words)
}

const FINDINGS: &str = "Medical material,Arterial wall calcification,Cardiomegaly,Pericardial effusion,\
Coronary artery wall calcification,Hiatal hernia,Lymphadenopathy,Emphysema,Atelectasis,Lung nodule,Lung opacity,\
Pulmonary fibrotic sequela,Pleural effusion,Mosaic attenuation pattern,Peribronchial thickening,Consolidation,\
Bronchiectasis,Interlobular septal thickening";

/// A row of the 18 labels, of which these are 1.
fn labels(id: &str, ones: &[&str]) -> String {
    let cells: Vec<&str> =
        FINDINGS.split(',').map(|name| if ones.contains(&name) { "1" } else { "0" }).collect();
    format!("{id},{}\n", cells.join(","))
}

/// CT-RATE's tables, tiny and made up: two reconstructions share a report, one report is said to be nothing.
fn ct_rate(sandbox: &Sandbox) {
    let header = "VolumeName,ClinicalInformation_EN,Technique_EN,Findings_EN,Impressions_EN\n";
    let train = [
        "train_1_a_1.nii.gz,Cough.,Without contrast.,There is a pleural effusion. Pneumonia? Possible consolidation.,Not given.\n",
        "train_1_a_2.nii.gz,Cough.,Without contrast.,There is a pleural effusion. Pneumonia? Possible consolidation.,Not given.\n",
        "train_2_a_1.nii.gz,Nodule?,Not given.,No nodule was detected. Emphysema is seen.,Emphysema.\n",
        "train_3_a_1.nii.gz,Not given.,Not given.,Not given.,Not given.\n",
    ];
    let valid =
        "valid_1_a_1.nii.gz,Fever.,Not given.,A nodule may be present in the right lung.,Not given.\n";
    sandbox
        .write("data/radiology_text_reports/train_reports.csv", &format!("{header}{}", train.concat()))
        .write("data/radiology_text_reports/validation_reports.csv", &format!("{header}{valid}"));
    let train = [
        labels("train_1_a_1.nii.gz", &["Pleural effusion", "Consolidation"]),
        labels("train_1_a_2.nii.gz", &["Pleural effusion", "Consolidation"]),
        labels("train_2_a_1.nii.gz", &["Emphysema", "Lung nodule"]),
        labels("train_3_a_1.nii.gz", &[]),
    ];
    let folder = "data/multi_abnormality_labels";
    let header = format!("VolumeName,{FINDINGS}\n");
    sandbox
        .write(&format!("{folder}/train_predicted_labels.csv"), &format!("{header}{}", train.concat()))
        .write(
            &format!("{folder}/valid_predicted_labels.csv"),
            &format!("{header}{}", labels("valid_1_a_1.nii.gz", &["Lung nodule"])),
        );
    let gold = [
        labels("train_1_a", &["Pleural effusion"]),
        labels("train_2_a", &["Emphysema"]),
        labels("valid_1_a", &["Lung nodule"]),
    ];
    sandbox.write("gold.csv", &format!("scan,{FINDINGS}\n{}", gold.concat()));
}

#[test]
fn ct_rate_is_labelled_by_rules_and_a_model_that_reads_what_they_leave_open() {
    let server = ChatServer::start();
    let words = |id: &str| vec![id.replace("lung_", "").replace('_', " ")];
    server.behave(move |heard| reads(heard, &words));
    let sandbox = Sandbox::new();
    ct_rate(&sandbox);
    let gold = format!("gold={}", sandbox.path("gold.csv").display());
    let more = ["--set", gold.as_str(), "--set", "seed=2"];
    let steps = run(&sandbox, "ct-rate-labels.yaml", &server, &more);
    expect![[r#"
        reports made 5 0 0
        distributed made 90 0 0
        gold made 54 0 0
        rules made 5 0 0
        asked made 3 0 0
        llm made 3 0 0
        merged made 90 0 0
        labels made 90 0 0
        targets made 90 0 0
        against_gold made 18 0 0
        distributed_against_gold made 18 0 0
        against_distributed made 18 0 0
        summary made 18 0 0
        spent made 1 0 0"#]]
    .assert_eq(&steps.join("\n"));
    // Two of five rows are one text, and two texts have something open.
    assert_eq!(server.take_reports().len(), 2);
    let pipeline = shipped("ct-rate-labels.yaml");
    let ask = |question: &str| {
        let said = sandbox
            .succeeds(&["sql", question, "-p", &pipeline, "--store", ".argent", "--format", "csv", "--phi"]);
        said.out.lines().skip(1).collect::<Vec<_>>().join("\n")
    };
    expect![[r#"
        train_1_a_1,consolidation,present,llm
        train_1_a_1,pleural_effusion,present,rules
        train_1_a_2,consolidation,present,llm
        train_1_a_2,pleural_effusion,present,rules
        train_2_a_1,emphysema,present,rules
        valid_1_a_1,lung_nodule,present,llm"#]].assert_eq(&ask("select id, finding, state, source from labels where state in ('present', 'uncertain') order by id, finding"));
    expect![[r#"
        consolidation,5,2,2,0,4,0,,
        lung_nodule,5,1,1,0,4,1,1.0,0.6666666666666666
        pleural_effusion,5,2,0,0,4,2,1.0,1.0"#]].assert_eq(&ask("select finding, reports, present, by_model, failed, gold, positives, f1, f1_of_distributed from summary where finding in ('consolidation', 'lung_nodule', 'pleural_effusion') order by finding"));
    assert_eq!(ask("select count(*) from targets where weight = 0"), "0");
    assert_eq!(ask("select reports, texts, requests, usd > 0 from spent"), "5,4,2,true");

    // Every report by the model: what is asked already is not asked again.
    let all = [&more[..], &["--set", "ask_all=true"]].concat();
    run(&sandbox, "ct-rate-labels.yaml", &server, &all);
    assert_eq!(server.take_reports().len(), 2, "the two texts that were not open");
    assert!(run(&sandbox, "ct-rate-labels.yaml", &server, &all).iter().all(|step| step.contains(" reused ")));
}

/// Reports of an ankle of our own making; two have one text, and the labels by hand are of most.
fn ankle(sandbox: &Sandbox) {
    let texts = [
        ("Fraktur der distalen Fibula.", "1"),
        ("Keine Fraktur.", "0"),
        ("V.a. Fraktur des Malleolus medialis.", "1"),
        ("V.a. Fraktur des Talus.", "1"),
        ("Keine Fraktur, Weichteilschwellung.", "0"),
        ("Regelrechte Stellung.", "0"),
    ];
    let (mut reports, mut gold, mut images) = (
        String::from("report,patient,text\n"),
        String::from("report,ankle_fracture\n"),
        String::from("image,report,projection\n"),
    );
    for number in 1..=24 {
        let (text, truth) = texts[number % texts.len()];
        reports += &format!(
            "acc-{number},mueller-{number},\"Klinische Angaben: Sturz. Fraktur?\nBefund: {text} Seite {}.\"\n",
            number % 10
        );
        if number <= 20 {
            gold += &format!("acc-{number},{truth}\n");
        }
        images += &format!("i{number}a.dcm,acc-{number},ap\ni{number}b.dcm,acc-{number},lateral\n");
    }
    // The same text once more, as of another examination.
    reports += "acc-25,mueller-25,\"Klinische Angaben: Sturz. Fraktur?\nBefund: Keine Fraktur. Seite 1.\"\n";
    images += "i25a.dcm,acc-25,ap\n";
    sandbox
        .write("data/reports.csv", &reports)
        .write("data/gold.csv", &gold)
        .write("data/images.csv", &images);
}

#[test]
fn ankle_prompts_compete_and_the_labels_of_reports_become_labels_of_images() {
    let server = ChatServer::start();
    server.behave(|heard| {
        // Without conventions the model takes a suspicion for nothing.
        let bare = heard.content().contains("Does it describe");
        match reads(heard, &|_| {
            vec![
                "fraktur der".to_owned(),
                "fraktur des".to_owned(),
                "fraktur, ".to_owned(),
                "fraktur. seite".to_owned(),
            ]
        }) {
            Reply::Text(text) if bare => Reply::Text(text.replace("uncertain", "absent")),
            reply => reply,
        }
    });
    let sandbox = Sandbox::new();
    ankle(&sandbox);
    // The split goes by the patients' pseudonyms, which go by the store's secret.
    Store::open_with_secret(&sandbox.path(".argent"), Secret::from_bytes([7; 32])).unwrap();
    let steps = run(&sandbox, "ankle-labels.yaml", &server, &[]);
    expect![[r#"
        reports made 25 0 0
        gold made 20 0 0
        images made 49 0 0
        split made 25 0 0
        sweep made 5 0 0
        selected made 1 0 0
        labels made 25 0 0
        rules made 25 0 0
        agreement made 1 0 0
        targets made 25 0 0
        training made 49 0 0
        counts made 1 0 0"#]]
    .assert_eq(&steps.join("\n"));
    let pipeline = shipped("ankle-labels.yaml");
    let ask = |question: &str| {
        let said = sandbox
            .succeeds(&["sql", question, "-p", &pipeline, "--store", ".argent", "--format", "csv", "--phi"]);
        said.out.lines().skip(1).collect::<Vec<_>>().join("\n")
    };
    expect![[r#"
        prompts/ankle-conventions.md,false,1.0
        prompts/ankle-definition.md,true,1.0
        prompts/ankle-german.md,false,1.0
        prompts/ankle-question.md,false,0.667
        prompts/ankle-sentences.md,false,1.0"#]]
    .assert_eq(&ask("select prompt, selected, round(value, 3) as value from sweep order by prompt"));
    expect!["ankle_fracture,14,8,0,1.0"]
        .assert_eq(&ask("select finding, n, positives, failed, round(f1, 3) as f1 from agreement"));
    expect!["25,24,0.000682,49,49,24.0"].assert_eq(&ask(
        "select reports, requests, round(usd, 6), images, labelled_images, fractures from counts",
    ));
    let images = "select t.id, t.target, t.by_hand from training t where t.id like 'i3%' or t.id like 'i25%' order by t.id";
    expect![[r#"
        i25a.dcm,0.0,false
        i3a.dcm,1.0,true
        i3b.dcm,1.0,true"#]]
    .assert_eq(&ask(images));
    // The model never saw what was asked for, and no name is in the store.
    assert!(server.heard().iter().all(|heard| !heard.content().contains("mueller")));
    let named: Vec<String> = store_texts(&sandbox.path(".argent"))
        .into_iter()
        .filter(|(_, text)| text.contains("mueller") || text.contains("acc-1"))
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert_eq!(named, Vec::<String>::new());
}
