//! A table larger than what is held of it at a time goes through row operators piece by piece.

use std::fmt::Write as _;

use crate::sandbox::Sandbox;

const SPEC: &str = "argent: 1
name: p
steps:
  reports: { use: reports.table, with: { path: '*.csv', id: id, sections: { findings: text } } }
  labels: { use: label.rules, from: reports, with: { findings: pack.yaml } }
";

const PACK: &str = "name: two
findings:
  - { id: effusion, name: Pleural effusion, synonyms: [pleural effusion] }
  - { id: nodule, name: Lung nodule, synonyms: [nodule] }
";

/// Reports of a megabyte each, together more than is sorted in memory or read at a time. Their ids come in no order.
const REPORTS: usize = 210;
const FILLER_BYTES: usize = 1 << 20;

fn write_reports(sandbox: &Sandbox, changed: Option<usize>) {
    let filler = "-".repeat(FILLER_BYTES);
    let mut text = String::from("id,text\n");
    for number in 0..REPORTS {
        let sentence = match number % 3 {
            _ if changed == Some(number) => "A nodule. No pleural effusion.",
            0 => "Pleural effusion.",
            1 => "No nodule.",
            _ => "Unremarkable.",
        };
        writeln!(text, "r{:03},{sentence} Case {number}. {filler}", (number * 101) % REPORTS).unwrap();
    }
    sandbox.write("a.csv", &text);
}

#[test]
fn a_table_of_many_pieces_is_labelled_as_one_of_few_rows_is() {
    let sandbox = Sandbox::new();
    sandbox.write("p.yaml", SPEC).write("pack.yaml", PACK);
    write_reports(&sandbox, None);
    // Another file contradicts one of the reports, and says another one again.
    sandbox.write("b.csv", "id,text\nr202,Something else.\nextra,No nodule.\nextra,No nodule.\n");
    assert_eq!(sandbox.run(&["p.yaml"]), ["reports made 210 0 1", "labels made 210 0 0"]);

    let states = "select finding, state, count(*) from labels group by 1, 2 order by 1, 2";
    let expected =
        ["effusion,not_mentioned,140", "effusion,present,70", "nodule,absent,71", "nodule,not_mentioned,139"];
    assert_eq!(sandbox.sql(states), expected);
    let errors = sandbox.sql("select id, kind, message from \"reports.errors\"");
    assert_eq!(errors.len(), 1);
    assert!(errors[0].starts_with("r202,conflict,") && errors[0].contains("file 2 line 2"), "{errors:?}");
    assert_eq!(sandbox.sql("select count(*) from reports where id = 'r202'"), ["0"]);
    assert_eq!(sandbox.sql("select count(*) from reports where id = 'extra'"), ["1"]);

    write_reports(&sandbox, Some(50));
    assert_eq!(sandbox.run(&["p.yaml"]), ["reports made 210 0 1", "labels made 1 209 0"]);
    let changed = sandbox.sql("select finding, state from labels where id = 'r010' order by 1");
    assert_eq!(changed, ["effusion,absent", "nodule,present"]);
}
