//! Reports come in from tables, folders, FHIR and HL7: split, normalised, the latest version of each, and nothing lost.

use expect_test::expect;

use crate::sandbox::{Sandbox, root};

fn spec(steps: &str) -> String {
    format!("argent: 1\nname: p\nsteps:\n{steps}")
}

fn table(sandbox: &Sandbox, with: &str) -> Vec<String> {
    let step = format!("  reports: {{ use: reports.table, with: {{ path: '*.csv', id: id, {with} }} }}\n");
    sandbox.write("p.yaml", &spec(&step));
    sandbox.run(&["p.yaml"])
}

fn ran(name: &str) -> (Sandbox, Vec<String>) {
    let sandbox = Sandbox::new();
    let path = root().join("pipelines/examples").join(format!("{name}.yaml"));
    let steps = sandbox.run(&[path.to_str().unwrap(), "--store", ".argent"]);
    (sandbox, steps)
}

#[test]
fn of_an_amended_report_the_latest_version_counts() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "a.csv",
        "id,text,signed_at\n1,Nodule.,2024-05-01\n2,Clear.,20240501\n3,Old.,2024-05-01\n3,One.,2024-05-02\n\
         3,Another.,2024-05-02\n4,Clear.,soon\n",
    );
    // A later file amends the first report, and has an old version of the second.
    sandbox.write("b.csv", "id,text,signed_at\n1,No nodule.,2024-05-01T12:00:00Z\n2,Draft.,202404301200\n");
    let steps = table(&sandbox, "text: text, versions: { latest: signed_at }");
    assert_eq!(steps, ["reports made 2 0 2"]);
    assert_eq!(sandbox.sql("select id, text from reports order by id"), ["1,No nodule.", "2,Clear."]);
    let said = sandbox.argent(&["errors", "p.yaml"]);
    expect![[r#"
        reports
        +-------+----+----------+---------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------+
        | port  | id | kind     | message                                                                                                                                                                                           |
        +-------+----+----------+---------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------+
        | files | 3  | conflict | the latest rows of this id have different cells (file 1 line 5, file 1 line 6), so none is kept; take the wrong ones away, say with `versions` which one counts, or name a column of distinct ids |
        | files | 4  | version  | file 1 line 7: the version is neither a time (such as 2024-05-01T10:30:00 or 20240501) nor a number                                                                                               |
        +-------+----+----------+---------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------+
    "#]]
    .assert_eq(&said.out);
}

#[test]
fn texts_that_differ_in_blanks_alone_are_one_question_and_the_originals_stay() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "a.csv",
        "id,text\n1,No  pleural effusion. \n2,No pleural\u{a0}effusion.\n3,No pleural effusion.\n",
    );
    sandbox.write(
        "pack.yaml",
        "name: one\nfindings:\n  - { id: effusion, name: Pleural effusion, synonyms: [pleural effusion] }\n",
    );
    sandbox.write(
        "p.yaml",
        &spec(
            "  reports: { use: reports.table, with: { path: a.csv, id: id, text: text } }
  labels: { use: label.rules, from: reports, with: { findings: pack.yaml } }\n",
        ),
    );
    sandbox.run(&["p.yaml"]);
    assert_eq!(sandbox.sql("select distinct text from reports"), ["No pleural effusion."]);
    let originals = "select id, section, length(text) from \"reports.originals\" order by id";
    assert_eq!(sandbox.sql(originals), ["1,text,22", "2,text,20"]);
    // The third text, asked for alone, has its answer already: it is the first one's.
    sandbox.write("a.csv", "id,text\n9,No pleural effusion.\n");
    assert_eq!(sandbox.run(&["p.yaml"])[1], "labels made 0 1 0");
}

#[test]
fn a_whole_report_in_one_column_is_split_by_its_headings() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "a.csv",
        "id,text\n1,\"CLINICAL HISTORY: cough\nFINDINGS: Clear.\nIMPRESSION: Normal.\"\n2,\"Kein Erguss.\nErgebnis: gut\"\n",
    );
    table(&sandbox, "text: text, split: true, headings: { impression: [Ergebnis] }");
    let rows = sandbox.sql("select id, indication, findings, impression from reports order by id");
    assert_eq!(rows, ["1,cough,Clear.,Normal.", "2,,Kein Erguss.,gut"]);
    let wrong = "  reports: { use: reports.table, with: { path: a.csv, id: id, sections: { findings: text }, split: true } }\n";
    sandbox.write("p.yaml", &spec(wrong));
    let said = sandbox.argent(&["check", "p.yaml"]);
    assert_eq!(said.code, 2);
    assert!(said.err.contains("`split` is for a report that stands in one column"), "{}", said.err);
}

#[test]
fn a_folder_of_text_files_in_any_encoding_is_read() {
    let (sandbox, steps) = ran("reports.folder");
    assert_eq!(steps, ["reports made 3 0 0"]);
    expect![[r#"
        a1,Sturz.,"Kein Erguss. Rundherd im linken Oberlappen, 8 mm.",Rundherd links.
        a2,cough,Small left pleural effusion.,Effusion.
        a3,,Erguß rechts.,"#]]
    .assert_eq(
        &sandbox.sql("select id, indication, findings, impression from reports order by id").join("\n"),
    );
}

#[test]
fn a_file_that_is_no_text_is_an_error_row() {
    let sandbox = Sandbox::new();
    sandbox.write("a.txt", "Clear.").write("b.txt", " \n").write("c.txt", "E\0r\0");
    std::fs::write(sandbox.path("d.txt"), b"Ergu\xdf").unwrap();
    let step = "  reports: { use: reports.folder, with: { path: '*.txt', encoding: utf-8, split: false } }\n";
    sandbox.write("p.yaml", &spec(step));
    assert_eq!(sandbox.run(&["p.yaml"]), ["reports made 1 0 3"]);
    let errors = sandbox.sql("select id, kind, message from \"reports.errors\" order by id");
    assert_eq!(errors[0], "file 2,empty,the file has no text");
    assert!(errors[1].starts_with("file 3,unreadable,\"the file holds zero bytes"), "{errors:?}");
    assert_eq!(errors[2], "file 4,unreadable,the bytes are not text in UTF-8");
    assert_eq!(sandbox.sql("select id, text from reports"), ["a,Clear."]);
}

#[test]
fn fhir_reports_come_in_with_their_patient_and_latest_version() {
    let (sandbox, steps) = ran("reports.fhir");
    assert_eq!(steps, ["reports made 2 0 1"]);
    let rows = sandbox.sql(
        "select id, patient, status, signed_at, procedure, findings, impression from reports order by id",
    );
    expect![[r#"
        d1,p1,amended,2024-05-02T08:00:00Z,CT chest,No nodule.,Normal.
        d2,p2,final,2024-05-01T10:00:00Z,X-ray chest,Small effusion.,Effusion."#]]
    .assert_eq(&rows.join("\n"));
    let errors = sandbox.sql("select id, kind, message from \"reports.errors\"");
    let expected = "file 1 line 4,unreadable,\"the report's form is `application/pdf`, expected text/plain or text/html\"";
    assert_eq!(errors, [expected]);
}

#[test]
fn a_bundle_names_its_patient_and_a_report_entered_in_error_is_gone() {
    let sandbox = Sandbox::new();
    let report = |id: &str, status: &str, issued: &str| {
        format!(
            r#"{{"resource":{{"resourceType":"DiagnosticReport","id":"{id}","status":"{status}","issued":"{issued}",
             "subject":{{"reference":"urn:uuid:1"}},"identifier":[{{"system":"urn:acc","value":"A-{id}","type":{{"coding":[{{"code":"ACSN"}}]}}}}],
             "conclusion":"Clear."}}}}"#
        )
    };
    let entries = [
        r#"{"fullUrl":"urn:uuid:1","resource":{"resourceType":"Patient","id":"p7"}}"#.to_owned(),
        report("r1", "final", "2024-05-01T08:00:00Z"),
        report("r2", "final", "2024-05-01T08:00:00Z"),
        report("r2", "entered-in-error", "2024-05-01T09:00:00Z"),
        r#"{"resource":{"id":"x"}}"#.to_owned(),
    ];
    let bundle =
        format!(r#"{{"resourceType":"Bundle","type":"collection","entry":[{}]}}"#, entries.join(","));
    sandbox.write("b.json", &bundle).write("broken.json", "{");
    let step =
        "  reports: { use: reports.fhir, with: { path: '*.json', identifier: 'urn:acc', split: false } }\n";
    sandbox.write("p.yaml", &spec(step));
    assert_eq!(sandbox.run(&["p.yaml"]), ["reports made 1 0 2"]);
    assert_eq!(sandbox.sql("select id, patient, accession, text from reports"), ["A-r1,p7,A-r1,Clear."]);
    let errors = sandbox.sql("select id, message from \"reports.errors\" order by id");
    let expected =
        ["file 1 entry 5,not a FHIR resource: it has no `resourceType`", "file 2,not JSON: line 1 column 1"];
    assert_eq!(errors, expected);
}

#[test]
fn hl7_messages_give_the_latest_report_of_each_order() {
    let (sandbox, steps) = ran("reports.hl7");
    assert_eq!(steps, ["reports made 1 0 1"]);
    let rows =
        sandbox.sql("select id, patient, accession, status, signed_at, procedure, impression from reports");
    assert_eq!(rows, ["F1,p1,A1,C,202405020930,CT chest,Effusion."]);
    assert_eq!(
        sandbox.sql("select replace(findings, chr(10), '|') from reports"),
        ["Small effusion.|No nodule."]
    );
    let errors = sandbox.sql("select id, message from \"reports.errors\"");
    assert_eq!(errors, ["file 1 message 3,\"the message is ADT^A01, expected ORU^R01\""]);
}

#[test]
fn a_field_that_no_message_has_is_a_mistake() {
    let sandbox = Sandbox::new();
    sandbox.write("a.hl7", "MSH|^~\\&|");
    sandbox.write("p.yaml", &spec("  r: { use: reports.hl7, with: { path: a.hl7, id: OBR.3 } }\n"));
    let said = sandbox.argent(&["check", "p.yaml"]);
    assert_eq!(said.code, 2);
    assert!(said.err.contains("`OBR.3` names no field; expected one such as OBR-3.1"), "{}", said.err);
}
