//! Ids come in as pseudonyms: nothing in the store names a patient, and tables still join.

use expect_test::expect;

use crate::forget::store_texts;
use crate::sandbox::Sandbox;

const PACK: &str = "name: small
findings:
  - { id: effusion, name: Pleural effusion, synonyms: [effusion] }
  - { id: nodule, name: Lung nodule, synonyms: [nodule] }
";

/// Reports of two systems, and labels per patient that people made; all of them name patients.
const SPEC: &str = "argent: 1
name: clinic
steps:
  reports:
    use: reports.table
    with:
      path: reports.csv
      id: id
      ids: { pattern: '^(?<patient>[a-z]+)-(?<number>[0-9]+)$' }
      sections: { findings: text }
      keep: [insurance]
      pseudonymise: [patient, id, insurance]
  messages: { use: reports.hl7, with: { path: reports.hl7, pseudonymise: [id, patient, accession] } }
  gold:
    use: labels.table
    with: { path: gold.csv, id: who, findings: pack.yaml, values: { \"1\": present, \"0\": absent }, pseudonymise: [id] }
  rules: { use: label.rules, from: reports, with: { findings: pack.yaml } }
  right:
    use: sql
    from: { rules: rules, gold: gold }
    with:
      keys: [id, finding]
      query: select rules.id, rules.finding, rules.state = gold.state as is_right from rules join gold on gold.id = rules.patient and gold.finding = rules.finding
";

/// What names somebody. The texts do not.
const NAMES: [&str; 6] = ["mueller", "schmidt", "V-4711", "V-4712", "F-77", "A-99"];

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("p.yaml", SPEC).write("pack.yaml", PACK);
    // One report contradicts itself, one has no text of its own kind, one has an id that does not read.
    sandbox.write(
        "reports.csv",
        "id,text,insurance
mueller-1,A small  effusion.,V-4711
mueller-2,A nodule.,V-4711
schmidt-1,No nodule.,V-4712
schmidt-2,A nodule.,V-4712
schmidt-2,No nodule.,V-4712
Schmidt,A nodule.,V-4712
",
    );
    sandbox.write("gold.csv", "who,effusion,nodule\nmueller,1,1\nschmidt,0,0\nschmidt,1,?\n");
    sandbox.write(
        "reports.hl7",
        "MSH|^~\\&|RIS|H|||20240501||ORU^R01|1|P|2.5\rPID|||mueller^^^H\rOBR|1||F-77|CT chest||||||||||||||A-99||||20240501|||F\r\
         OBX|1|TX|||Small effusion.||||||F\r",
    );
    sandbox
}

/// The names that stand anywhere in the store, as it is or with Parquet decoded.
fn found(sandbox: &Sandbox, names: &[&str]) -> Vec<String> {
    let texts: Vec<String> =
        store_texts(&sandbox.path(".argent")).into_iter().map(|(_, text)| text.to_lowercase()).collect();
    let stands = |name: &&&str| texts.iter().any(|text| text.contains(&name.to_lowercase()));
    names.iter().filter(stands).map(|name| (*name).to_owned()).collect()
}

#[test]
fn nothing_in_the_store_names_a_patient_and_tables_still_join() {
    let sandbox = sandbox();
    expect![[r#"
        reports made 3 0 2
        messages made 1 0 0
        gold made 3 0 2
        rules made 3 0 0
        right made 5 0 0"#]]
    .assert_eq(&sandbox.run(&["p.yaml"]).join("\n"));
    assert_eq!(found(&sandbox, &NAMES), Vec::<String>::new());
    assert_eq!(found(&sandbox, &["small  effusion"]), ["small  effusion"], "the search finds what is there");

    // Reports of one patient share a pseudonym, in whatever system and file they stand.
    let patients =
        "select count(*), count(distinct r.patient), count(distinct r.id), count(distinct r.insurance)
                    from reports r left join messages m on m.patient = r.patient";
    assert_eq!(sandbox.sql(patients), ["3,2,3,2"]);
    let both = "select r.number from reports r join messages m on m.patient = r.patient order by 1";
    assert_eq!(sandbox.sql(both), ["1", "2"]);
    assert_eq!(sandbox.sql("select count(*) from messages where id <> accession and length(id) = 32"), ["1"]);
    assert_eq!(sandbox.sql("select finding, count(*), sum(case when is_right then 1 else 0 end) from right group by finding order by finding"), ["effusion,2,1", "nodule,3,2"]);

    // A pseudonym is no patient's text, so that it is shown; texts are not.
    let shown = sandbox
        .succeeds(&["sql", "select patient, findings from reports where number = '2'", "--format", "csv"])
        .out;
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!((lines[0], lines[1].len()), ("patient", 32));

    // Error rows know who they are about by the pseudonym too.
    let errors = sandbox.sql("select kind, length(id), message from reports.errors order by kind");
    assert!(
        errors[0]
            .starts_with("conflict,32,\"rows of this id have different cells (file 1 line 5, file 1 line 6)"),
        "{errors:?}"
    );
    assert_eq!(errors[1], "id,13,the id does not have the form that `ids` says");
    assert_eq!(
        sandbox.sql("select kind, length(id) from gold.errors order by kind"),
        ["conflict,32", "value,32"]
    );
    let originals = "select count(*) from reports.originals o join reports r on r.id = o.id";
    assert_eq!(sandbox.sql(originals), ["1"]);

    // The same again is no work; and a pseudonym names whom to forget.
    assert!(sandbox.run(&["p.yaml"]).iter().all(|step| step.contains(" reused ")));
    let who = sandbox.sql("select distinct patient from reports where number = '2'");
    sandbox.succeeds(&["forget", "--where", &format!("patient = '{}'", who[0])]);
    assert_eq!(sandbox.sql("select number from reports"), ["1"]);
    assert_eq!(found(&sandbox, &["small effusion", &who[0]]), Vec::<String>::new());
    let steps = sandbox.run(&["p.yaml"]);
    assert!(steps[0].starts_with("reports made 1 0 "), "who is forgotten does not come back: {steps:?}");
}

#[test]
fn an_id_that_holds_another_one_gets_a_pseudonym_with_it_and_volumes_join_reports() {
    let sandbox = Sandbox::new();
    let spec = |columns: &str| {
        format!("argent: 1
name: p
steps:
  demo: {{ use: demo.chest_ct, with: {{ patients: 2, seed: 1 }} }}
  reports:
    use: reports.table
    from: demo
    with: {{ path: reports.csv, id: VolumeName, ids: ct-rate, sections: {{ findings: Findings_EN }}, pseudonymise: {columns} }}
  volumes: {{ use: volumes.scan, from: demo, with: {{ path: 'volumes/*.nii.gz', ids: ct-rate, pseudonymise: {columns} }} }}
")
    };
    sandbox.write("p.yaml", &spec("[patient]"));
    sandbox.run(&["p.yaml"]);
    let volumes = sandbox.sql("select count(*) from volumes");
    for name in ["id", "scan", "patient"] {
        let plain = format!("select count(*) from reports where {name} like '%\\_%'");
        assert_eq!(sandbox.sql(&plain), ["0"], "{name}");
    }
    let joined = "select count(*) from reports r join volumes v on v.id = r.id and v.scan = r.scan and v.patient = r.patient";
    assert_eq!(sandbox.sql(joined), volumes);
    assert_eq!(sandbox.sql("select count(distinct reconstruction) < 5 from reports"), ["true"]);
    // The patient cannot be read out of the scan's letter or the number of the reconstruction.
    sandbox.write("p.yaml", &spec("[reconstruction]"));
    sandbox.run(&["p.yaml"]);
    assert_eq!(sandbox.sql("select count(*) from reports where patient not like '%\\_%'"), ["0"]);
}

const STUDY: &str = "argent: 1
name: p
steps:
  reports:
    use: reports.table
    with: { path: reports.csv, id: id, text: text, pseudonymise: { columns: [id], key: { env: STUDY_KEY } } }
";

#[test]
fn two_stores_with_one_secret_have_equal_pseudonyms() {
    let key = |digit: char| digit.to_string().repeat(64);
    let ids = |sandbox: &Sandbox| sandbox.sql("select id from reports");
    let with = |key: &str| {
        let sandbox = Sandbox::new().with_variable("STUDY_KEY", key);
        sandbox.write("reports.csv", "id,text\nmueller,Clear.\n").write("p.yaml", STUDY);
        sandbox
    };
    let (one, other, third) = (with(&key('a')), with(&key('A')), with(&key('b')));
    for sandbox in [&one, &other, &third] {
        sandbox.run(&["p.yaml"]);
    }
    assert_eq!(ids(&one), ids(&other));
    assert_ne!(ids(&one), ids(&third));
    assert_eq!(found(&one, &["mueller", &key('a')]), Vec::<String>::new());

    // Another secret is another result, and the explanation holds neither.
    let one = one.with_variable("STUDY_KEY", &key('b'));
    let why = one.succeeds(&["plan", "p.yaml"]).out;
    assert!(why.contains("$STUDY_KEY secret: ") && !why.contains(&key('b')[..8]), "{why}");
    one.run(&["p.yaml"]);
    assert_eq!(ids(&one), ids(&third));
}

#[test]
fn a_column_that_is_not_made_and_a_secret_that_is_none_are_mistakes() {
    let sandbox = Sandbox::new();
    sandbox.write("reports.csv", "id,text\nmueller,Clear.\n");
    let wrong = |with: &str| STUDY.replace("{ columns: [id], key: { env: STUDY_KEY } }", with);
    sandbox.write(
        "p.yaml",
        &wrong("[pateint, id, text]").replace("text: text", "text: text, ids: { pattern: '(?<patient>.+)' }"),
    );
    expect![[r#"
        error: there is no column `pateint`
         --> p.yaml:6:103
          |
        6 |     with: { path: reports.csv, id: id, text: text, ids: { pattern: '(?<patient>.+)' }, pseudonymise: [pateint, id, text] }
          |                                                                                                       ^^^^^^^
          |
        help: did you mean `patient`?

        error: the column `text` holds no ids
         --> p.yaml:6:116
          |
        6 |     with: { path: reports.csv, id: id, text: text, ids: { pattern: '(?<patient>.+)' }, pseudonymise: [pateint, id, text] }
          |                                                                                                                    ^^^^
          |
        help: there are id, patient

        2 mistakes in p.yaml

    "#]].assert_eq(&sandbox.argent(&["check", "p.yaml"]).err);
    sandbox.write("p.yaml", STUDY);
    expect![[r#"
        error: the environment variable STUDY_KEY is not set
         --> p.yaml:6:95
          |
        6 |     with: { path: reports.csv, id: id, text: text, pseudonymise: { columns: [id], key: { env: STUDY_KEY } } }
          |                                                                                               ^^^^^^^^^
          |
        help: make one, keep it safe and give it to argent: STUDY_KEY=$(openssl rand -hex 32)

        1 mistake in p.yaml

    "#]].assert_eq(&sandbox.argent(&["check", "p.yaml"]).err);
    let sandbox = sandbox.with_variable("STUDY_KEY", "summer2024");
    let said = sandbox.argent(&["check", "p.yaml"]);
    assert_eq!(said.code, 2);
    let expected = "the environment variable STUDY_KEY holds 10 characters, expected 64 hexadecimal digits";
    assert!(said.err.contains(expected) && !said.err.contains("summer"), "{}", said.err);
}

#[test]
fn a_file_name_that_is_an_id_is_in_no_table() {
    let sandbox = Sandbox::new();
    sandbox.write("letters/mueller.txt", "Small effusion.").write("letters/schmidt.txt", "");
    sandbox.write(
        "p.yaml",
        "argent: 1\nname: p\nsteps:\n  reports: { use: reports.folder, with: { path: 'letters/*.txt', pseudonymise: [id] } }\n",
    );
    assert_eq!(sandbox.run(&["p.yaml"]), ["reports made 1 0 1"]);
    assert_eq!(sandbox.sql("select length(id), findings from reports"), ["32,Small effusion."]);
    let naming =
        store_texts(&sandbox.path(".argent")).into_iter().filter(|(_, text)| text.contains("mueller"));
    let naming: Vec<_> = naming.map(|(path, _)| path.file_name().unwrap().to_owned()).collect();
    // What was learnt of the user's own files is kept by their names, beside them.
    assert_eq!(naming, ["stat-cache.json"]);
}
