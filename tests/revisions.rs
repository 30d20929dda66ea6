//! A changed output comes with a new revision: what each operator makes of a small fixed input is compared with
//! `revisions.txt`, so that nothing made by an older program is taken for what this one would make.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use argent_cache::{Secret, Store};
use argent_engine::StaticAnswers;
use argent_engine::check::check;
use argent_engine::diagnostic::Sources;
use argent_engine::spec::{self, Given};
use expect_test::expect_file;
use serde_json::Value;

use crate::chat_server::ChatServer;
use crate::sandbox::{Sandbox, root};

/// Operators that multiply matrices, whose sums differ in the last digits between processors, and the columns
/// that show it: their numbers are compared with a tolerance, and the digest is of the rest.
const LEARNED: [(&str, &[&str]); 6] = [
    ("embed.images", &["vector"]),
    ("embed.text", &["vector"]),
    ("eval.zero_shot", &["auc", "auc_low", "auc_high"]),
    ("predict", &["score"]),
    ("train.classifier", &["train_loss", "val_loss", WEIGHTS]),
    ("train.clip", &["train_loss", "gradient_norm", WEIGHTS]),
];

/// A digest of such numbers, which says nothing more than they do.
const WEIGHTS: &str = "weights";

/// How far a number of those may be from what it was. When the input of the training differs by a part in a million,
/// as sums in another order do, they differ by less than 1e-6.
const TOLERANCE: f64 = 2e-5;

/// Digits in which other numbers are compared: logarithms and exponentials differ in the last between systems.
const DIGITS: usize = 9;

#[test]
fn an_output_that_changes_comes_with_a_new_revision() {
    let registry = argent_operators::registry();
    let made = made();
    let operators: BTreeSet<&str> = registry.entries().iter().map(|entry| entry.name).collect();
    assert_eq!(made.keys().map(String::as_str).collect::<BTreeSet<_>>(), operators, "each has a step here");
    let kept = read(include_str!("revisions.txt"));
    let forgotten = forgotten(&kept, &made);
    assert!(forgotten.is_empty(), "{}", forgotten.join("\n"));
    expect_file!["revisions.txt"].assert_eq(&table(&kept, &made));
}

#[test]
fn a_forgotten_revision_is_told_of_the_operator_that_changed_and_of_none_below_it() {
    let step = |revision: u32, digest: &str, numbers: &[f64], inputs: &[&str]| Made {
        revision,
        digest: digest.to_owned(),
        numbers: numbers.to_vec(),
        inputs: inputs.iter().map(|input| (*input).to_owned()).collect(),
    };
    let kept = read("a 1 x\nb 1 y\nc 1 z 0.500000 1.000000\n");
    let with = |a: Made, b: Made, c: Made| {
        let made = BTreeMap::from([("a".to_owned(), a), ("b".to_owned(), b), ("c".to_owned(), c)]);
        let names = forgotten(&kept, &made).into_iter().map(|line| line.chars().take(20).collect::<String>());
        (names.collect::<Vec<_>>().join("|"), table(&kept, &made))
    };
    let (a, b, c) =
        (step(1, "x", &[], &[]), step(1, "y", &[], &["a"]), step(1, "z", &[0.50001, 1.0], &["b"]));
    let unchanged = with(a.clone(), b.clone(), c.clone());
    assert_eq!(unchanged, (String::new(), "a 1 x\nb 1 y\nc 1 z 0.500000 1.000000\n".to_owned()));
    assert_eq!(with(a.clone(), step(1, "q", &[], &["a"]), c.clone()).0, "the output of b chan");
    let all_changed = with(step(1, "q", &[], &[]), step(1, "q", &[], &["a"]), step(1, "q", &[], &["b"]));
    assert_eq!(all_changed.0, "the output of a chan");
    assert_eq!(with(a.clone(), b.clone(), step(1, "z", &[0.5001, 1.0], &["b"])).0, "the output of c chan");
    let raised = with(step(2, "q", &[], &[]), step(1, "q", &[], &["a"]), c);
    assert_eq!(raised, (String::new(), "a 2 q\nb 1 q\nc 1 z 0.500000 1.000000\n".to_owned()));
}

/// What an operator makes in the pipeline of this test.
#[derive(Clone)]
struct Made {
    revision: u32,
    /// Of all that must be equal.
    digest: String,
    /// What may differ by [`TOLERANCE`].
    numbers: Vec<f64>,
    /// The operators whose tables it reads.
    inputs: BTreeSet<String>,
}

/// A line of `revisions.txt`.
struct Kept {
    revision: u32,
    digest: String,
    numbers: Vec<f64>,
}

impl Kept {
    fn is_of(&self, made: &Made) -> bool {
        let near = |(a, b): (&f64, &f64)| (a - b).abs() <= TOLERANCE;
        self.digest == made.digest
            && self.numbers.len() == made.numbers.len()
            && self.numbers.iter().zip(&made.numbers).all(near)
    }
}

/// Says of each operator whose output is another one, with the same revision and the same inputs, what to do.
fn forgotten(kept: &BTreeMap<String, Kept>, made: &BTreeMap<String, Made>) -> Vec<String> {
    let differs = |name: &str| kept.get(name).is_none_or(|kept| !kept.is_of(&made[name]));
    let is_forgotten = |name: &str, now: &Made| {
        let has_its_revision = kept.get(name).is_some_and(|kept| kept.revision == now.revision);
        has_its_revision && differs(name) && !now.inputs.iter().any(|input| input != name && differs(input))
    };
    made.iter()
        .filter(|(name, now)| is_forgotten(name, now))
        .map(|(name, now)| {
            format!(
                "the output of {name} changed and its revision is {} as before: raise the revision of {name} in \
                 operators/src/lib.rs and run this test with UPDATE_EXPECT=1; only where this test's own input \
                 was changed, take the line of {name} out of tests/revisions.txt first",
                now.revision
            )
        })
        .collect()
}

/// The lines of `revisions.txt` as they should be. Numbers stay as they are within their tolerance.
fn table(kept: &BTreeMap<String, Kept>, made: &BTreeMap<String, Made>) -> String {
    let mut text = String::new();
    for (name, now) in made {
        let numbers =
            kept.get(name).filter(|kept| kept.is_of(now)).map_or(&now.numbers, |kept| &kept.numbers);
        let numbers: String = numbers.iter().map(|number| format!(" {number:.6}")).collect();
        writeln!(text, "{name} {} {}{numbers}", now.revision, now.digest).unwrap();
    }
    text
}

fn read(text: &str) -> BTreeMap<String, Kept> {
    let line = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let numbers = words[3..].iter().map(|number| number.parse().unwrap()).collect();
        let kept = Kept { revision: words[1].parse().unwrap(), digest: words[2].to_owned(), numbers };
        (words[0].to_owned(), kept)
    };
    text.lines().map(line).collect()
}

/// Runs the pipeline of this test in a store with a fixed secret; by operator, what its steps made.
fn made() -> BTreeMap<String, Made> {
    let server = ChatServer::start();
    let sandbox = sandbox(&server);
    let secret = Secret::from_bytes([7; 32]);
    Store::open_with_secret(&sandbox.path("store"), secret.clone()).unwrap();
    sandbox.succeeds(&["run", "p.yaml", "--store", "store"]);

    let registry = argent_operators::registry();
    let (spec, _) = spec::read(&sandbox.path("p.yaml"), &Given::default(), &mut Sources::default());
    let (pipeline, _) = check(&spec.unwrap(), &registry, StaticAnswers::default(), &mut Sources::default());
    let pipeline = pipeline.unwrap();
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    let mut made: BTreeMap<String, Made> = BTreeMap::new();
    for node in &pipeline.nodes {
        let operator = node.operator_name.to_owned();
        let mut rows = Rows::of(node.operator_name);
        for output in node.signature.outputs.keys() {
            let table = if output.is_empty() { node.name.clone() } else { format!("{}.{output}", node.name) };
            rows.add(&table, &json_rows(&sandbox, &table));
        }
        let text = texts.entry(operator.clone()).or_default();
        *text += &rows.text;
        let digest = secret.digest("argent test of revisions", text.as_bytes()).to_string();
        let inputs = node.inputs.iter().map(|input| pipeline.nodes[input.node].operator_name.to_owned());
        let revision = node.revision;
        let entry = made.entry(operator).or_insert_with(|| Made {
            revision,
            digest: String::new(),
            numbers: Vec::new(),
            inputs: BTreeSet::new(),
        });
        entry.digest = digest[..16].to_owned();
        entry.numbers.extend(rows.numbers);
        entry.inputs.extend(inputs);
    }
    made
}

/// The rows of a table as JSON lines, in an order that is a function of the rows.
fn json_rows(sandbox: &Sandbox, table: &str) -> Vec<String> {
    let question = format!("select * from {table}");
    let words = ["sql", &question, "--store", "store", "-p", "p.yaml", "--format", "json", "--phi"];
    let mut rows: Vec<String> = sandbox.succeeds(&words).out.lines().map(str::to_owned).collect();
    assert!(!rows.is_empty(), "{table} has no rows: nothing would be compared");
    rows.sort();
    rows
}

/// Rows as text to take a digest of, and learned numbers apart from it.
#[derive(Default)]
struct Rows {
    /// The columns of learned numbers.
    learned: &'static [&'static str],
    text: String,
    numbers: Vec<f64>,
}

impl Rows {
    fn of(operator: &str) -> Rows {
        let learned =
            LEARNED.iter().find(|(name, _)| *name == operator).map_or(&[][..], |(_, columns)| columns);
        Rows { learned, ..Rows::default() }
    }

    fn add(&mut self, table: &str, rows: &[String]) {
        writeln!(self.text, "{table}").unwrap();
        for row in rows {
            let row: serde_json::Map<String, Value> = serde_json::from_str(row).unwrap();
            for (column, cell) in &row {
                write!(self.text, "{column}=").unwrap();
                match (self.learned.contains(&column.as_str()), cell) {
                    (true, Value::String(_)) => assert_eq!(column, WEIGHTS),
                    (true, Value::Array(items)) => self.vector(items),
                    (true, Value::Number(number)) => self.numbers.push(number.as_f64().unwrap()),
                    (_, cell) => self.cell(cell),
                }
            }
            self.text.push('\n');
        }
    }

    fn cell(&mut self, cell: &Value) {
        match cell {
            Value::Number(number) if number.is_f64() => {
                write!(self.text, "{:.*e} ", DIGITS - 1, number.as_f64().unwrap()).unwrap();
            }
            Value::Array(items) => items.iter().for_each(|item| self.cell(item)),
            other => write!(self.text, "{other} ").unwrap(),
        }
    }

    /// A long vector counts by its length, its mean and the mean of its squares.
    fn vector(&mut self, items: &[Value]) {
        let count = items.len() as f64;
        let mean =
            |of: fn(f64) -> f64| items.iter().map(|item| of(item.as_f64().unwrap())).sum::<f64>() / count;
        write!(self.text, "{} numbers ", items.len()).unwrap();
        self.numbers.extend([mean(|number| number), mean(|number| number * number)]);
    }
}

/// A folder with the pipeline `p.yaml`, a step of every operator, and its files.
fn sandbox(server: &ChatServer) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("p.yaml", &SPEC.replace("@URL", &server.base_url));
    sandbox.write("pack.yaml", PACK).write("prompt.md", PROMPT);
    sandbox.write("reports.csv", REPORTS).write("by-hand.csv", LABELS).write("long.tsv", LONG);
    sandbox.write("scores.csv", &scores());
    sandbox.write("amended.csv", AMENDED).write("letter.txt", LETTER);
    sandbox.write("reports.ndjson", RESOURCES).write("reports.hl7", MESSAGES);
    sandbox.write("short.md", "Report:\n{{ report.impression }}");
    sandbox.write("reviewed.json", REVIEWED).write("reviewed.csv", REVIEWED_TABLE);
    std::fs::write(sandbox.path("x-ray.png"), XRAY).unwrap();
    std::fs::create_dir(sandbox.path("dicom")).unwrap();
    for number in 1..=6 {
        let shipped = root().join(format!("pipelines/examples/data/dicom/IM{number}"));
        std::fs::copy(shipped, sandbox.path(&format!("dicom/IM{number}"))).unwrap();
    }
    sandbox
}

const SPEC: &str = r#"argent: 1
name: revisions
steps:
  reports:
    use: reports.table
    with: { path: reports.csv, id: id, sections: { findings: findings, impression: impression }, empty: ["Not given."], keep: [patient] }
  amended:
    use: reports.table
    with: { path: amended.csv, id: id, text: text, split: true, versions: { latest: at }, headings: { impression: [Ergebnis] } }
  letters: { use: reports.folder, with: { path: "letter.txt" } }
  resources: { use: reports.fhir, with: { path: reports.ndjson } }
  messages: { use: reports.hl7, with: { path: reports.hl7 } }
  wide:
    use: labels.table
    with: { path: by-hand.csv, id: id, findings: pack.yaml, values: { "1": present, "0": absent, "?": uncertain }, where: { reader: chest } }
  long:
    use: labels.table
    with: { path: long.tsv, id: id, findings: pack.yaml, long: { finding: finding, value: value }, values: { "yes": present, "no": absent } }
  rules: { use: label.rules, from: reports, with: { findings: pack.yaml } }
  asked_at_once:
    use: label.llm
    from: reports
    with: { findings: pack.yaml, prompt: prompt.md, endpoint: { base_url: "@URL", model: m }, price: { input: 1, output: 4 } }
  asked_one_by_one:
    use: label.llm
    from: reports
    with: { findings: pack.yaml, prompt: prompt.md, endpoint: { base_url: "@URL", model: m }, mode: per_finding }
  targets: { use: label.policy, from: rules, with: { uncertain: pack, findings: pack.yaml } }
  soft: { use: label.policy, from: rules, with: { uncertain: 0.25, not_mentioned: mask, per_finding: { nodule: { uncertain: one } } } }
  voted: { use: label.merge, from: { wide: wide, rules: rules, asked: asked_at_once }, with: { rule: vote } }
  corrected: { use: label.merge, from: { wide: wide, rules: rules }, with: { rule: precedence, order: [wide, rules] } }
  mapped: { use: label.map, from: rules, with: { map: { any: { any_of: [effusion, nodule] } } } }
  mapped_by_pack: { use: label.map, from: rules, with: { findings: pack.yaml, mapping: swapped } }
  agreement:
    use: eval.agreement
    from: { labels: rules, truth: wide, other: asked_at_once }
    with: { findings: pack.yaml, group: id, bootstrap: { draws: 50, interval: bca } }
  review: { use: review.export, from: { labels: rules, reports: reports, other: asked_at_once }, with: { findings: pack.yaml, choose: { sample: 1 } } }
  reviewed: { use: review.import, from: { reports: reports }, with: { path: [reviewed.json, reviewed.csv], findings: pack.yaml } }
  sweep_parts: { use: split.groups, from: reports, with: { by: id, parts: { dev: 0.5, test: 0.5 }, fixed: { dev: "id in ('r1', 'r2')", test: "id = 'r3'" } } }
  sweep:
    use: prompt.sweep
    from: { reports: reports, truth: wide, split: sweep_parts }
    with: { prompts: "*.md", findings: pack.yaml, endpoint: { base_url: "@URL", model: m }, bootstrap: { draws: 50 } }
  counts:
    use: sql
    from: { rules: rules }
    with: { keys: [finding, state], query: "select finding, state, count(*) as n, avg(n_letters) as letters from (select *, length(evidence) as n_letters from rules) group by finding, state" }
  through_csv:
    use: command
    from: rules
    with: { run: "cp {in} {out}", format: csv, outputs: { main: { columns: { id: id, finding: text, state: text, score: number, evidence: phi }, keys: [id, finding] } } }
  through_parquet:
    use: command
    from: rules
    with: { run: "cp {in} {out}", outputs: { main: { columns: { id: id, finding: text, state: text, score: number, evidence: phi }, keys: [id, finding] } } }

  scored: { use: reports.table, with: { path: scores.csv, id: id, text: note, keep: [patient, score, state] } }
  predictions_read: { use: sql, from: { scored: scored }, with: { keys: [id, finding], query: "select id, 'nodule' as finding, cast(score as double) as score from scored" } }
  truth_read: { use: sql, from: { scored: scored }, with: { keys: [id, finding], query: "select id, 'nodule' as finding, state from scored" } }
  halves: { use: split.groups, from: scored, with: { by: patient, parts: { val: 0.4, test: 0.6 }, fixed: { test: "patient = 'p01'" }, seed: 3 } }
  fitted:
    use: eval.classification
    from: { predictions: predictions_read, labels: truth_read, split: halves }
    match: { split: id }
    with: { threshold: { rule: youden, part: val }, bootstrap: { draws: 50, seed: 1 } }
  fixed:
    use: eval.classification
    from: { predictions: predictions_read, labels: truth_read, split: halves }
    with: { threshold: 0.4, bootstrap: { draws: 50 } }
  compared:
    use: eval.classification
    from: { predictions: predictions_read, labels: truth_read, split: halves }
    with: { threshold: { rule: closest, part: test, compat: true }, bootstrap: { draws: 50 } }
  points: { use: sql, from: { scored: scored }, with: { keys: [id], query: "select id, patient, make_array(1.0, cast(score as double)) as vector from scored" } }
  retrieved:
    use: eval.retrieval
    from: { embeddings: points, texts: points, labels: truth_read, split: halves }
    with: { variant: [recall_pair, map_clean, map_ct_clip_cumulative, ap_radfinder], k: [1, 2], bootstrap: { draws: 50 } }

  demo: { use: demo.chest_ct, with: { patients: 4, seed: 1 } }
  volumes: { use: volumes.scan, from: demo, with: { path: "volumes/*.nii.gz", ids: ct-rate } }
  images: { use: images.scan, with: { path: "*.png" } }
  prepared: { use: images.prepare, from: images, with: { size: [24, 20] } }
  stretched: { use: images.prepare, from: images, with: { size: [24, 20], fit: stretch, bits: 16, window: { percentiles: [0, 100] }, crop: { from: 0.3, to: 0.7, margin: 2 } } }
  grid: { use: volumes.resample, from: volumes, with: { spacing_mm: [16, 16, 16] } }
  near: { use: volumes.resample, from: volumes, with: { spacing_mm: [20, 18, 16], orientation: LPS, grid: stretch, interpolation: nearest, antialias: never } }
  headers: { use: dicom.headers, with: { path: "dicom/*", keep: [PatientAge] } }
  series: { use: dicom.series, from: headers }
  stacked: { use: volumes.scan, from: series }
  parts: { use: split.groups, from: volumes, with: { by: patient, parts: { train: 0.6, val: 0.4 }, seed: 2 } }
  drawn:
    use: labels.table
    from: demo
    with: { path: labels.csv, id: VolumeName, ids: ct-rate, findings: pack.yaml, values: { "1": present, "0": absent } }
  wanted: { use: label.policy, from: drawn }
  encoder:
    use: train.classifier
    from: { volumes: grid, labels: wanted, split: parts }
    match: { split: patient }
    with: { model: resnet3d-tiny, epochs: 1, batch: 2, augment: { flip: [x] }, view: { window_hu: [-1000, 600], canvas: [20, 20, 16], crop: [18, 18, 14] } }
  predictions: { use: predict, from: { weights: encoder, volumes: grid } }
  vectors: { use: embed.images, from: { weights: encoder, volumes: grid } }
  notes: { use: sql, from: { drawn: drawn }, with: { keys: [id], query: "select id, 'Volume ' || id || ', effusion ' || state || '.' as findings from drawn where finding = 'effusion'" } }
  pair:
    use: train.clip
    from: { volumes: grid, reports: notes, split: parts, image_init: encoder }
    match: { split: patient }
    with: { model: resnet3d-tiny, sections: [findings], text_encoder: { small: { values: 16, layers: 1 } }, similarity: cosine, dim: 8, steps: 2, batch: 3, lr: 0.001, view: { window_hu: [-1000, 600], canvas: [20, 20, 16] } }
  told: { use: embed.text, from: { weights: pair, reports: notes }, with: { sections: [findings] } }
  prompted:
    use: eval.zero_shot
    from: { weights: pair, volumes: grid, labels: drawn, split: parts }
    match: { split: patient }
    with: { part: train, prompts: [{ id: effusion, positive: There is an effusion., negative: There is no effusion. }], bootstrap: { draws: 20 } }
"#;

const PACK: &str = "name: small
cues: { negation_before: [free of] }
findings:
  - { id: effusion, name: Pleural effusion, definition: Fluid., synonyms: [effusion], rules: { absent: [lungs are clear] }, uncertain: present }
  - { id: nodule, name: Lung nodule, definition: A nodule., synonyms: [nodule], rules: { any: [round opacit(y|ies)] }, uncertain: absent }
maps: { swapped: { from: { effusion: [nodule] }, drop: [effusion] } }
";

const PROMPT: &str = "{% for f in findings %}{{ f.id }} is {{ f.name }}: {{ f.definition }}
{% endfor %}Report:
{{ report.findings }} {{ report.impression }}";

const REPORTS: &str = "id,patient,findings,impression
r1,p1,There is a small right pleural effusion. No nodule.,Pleural effusion.
r2,p1,The lungs are clear.,Not given.
r3,p2,A round opacity in the left lobe. Possible effusion.,Nodule; follow-up.
r4,p3,Free of effusion.  The nodule is unchanged.,
";

const AMENDED: &str = "id,at,text
a1,2024-05-01,Befund: Erguss.
a1,20240502,\"Befund: Kein  Erguss.
Ergebnis: Gut.\"
";

const LETTER: &str = "HISTORY: cough\nFINDINGS: Small  effusion.\nCONCLUSION: Effusion.\n";

const RESOURCES: &str = r#"{"resourceType":"DiagnosticReport","id":"d1","status":"final","issued":"2024-05-01","subject":{"reference":"Patient/p1"},"code":{"text":"CT"},"text":{"status":"generated","div":"<div><p>Small effusion.</p></div>"},"conclusion":"Effusion,  small."}
{"resourceType":"DiagnosticReport","id":"d2","presentedForm":[{"contentType":"text/plain","data":"RmluZGluZ3M6IENsZWFyLgo="}]}
"#;

const MESSAGES: &str = "MSH|^~\\&|||||||ORU^R01|1|P|2.5.1
PID|1||p1
OBR|1||F1|^CT|||20240501|||||||||||A1||||20240501|||F
OBX|1|TX|1&GDT||Small  effusion.||||||F
OBX|2|TX|1&IMP||Effusion.||||||F
";

const LABELS: &str = "id,reader,Pleural effusion,nodule
r1,chest,1,0
r2,chest,0,0
r3,chest,?,1
r3,student,0,0
";

const REVIEWED: &str = r#"[{ "id": 1, "data": { "text": "findings The lungs are clear." }, "annotations": [{ "was_cancelled": false, "result": [
  { "from_name": "effusion", "to_name": "text", "type": "choices", "value": { "choices": ["absent"] } }] }] }]"#;

const REVIEWED_TABLE: &str = "text,finding,review
findings Free of effusion. The nodule is unchanged.,nodule,present
";

const LONG: &str = "id\tfinding\tvalue
r4\teffusion\tno
r4\tLung nodule\tyes
";

const XRAY: &[u8] = include_bytes!("../pipelines/examples/data/xrays/p1_ap.png");

/// Forty scores of twenty patients, with a truth that mostly follows them.
fn scores() -> String {
    let row = |n: usize| {
        let score = (n * 37 % 40) as f64 / 40.0;
        let state = if (score > 0.55) != n.is_multiple_of(7) { "present" } else { "absent" };
        format!("s{n:02},p{:02},{score},{state},Nothing  is said.\n", n / 2)
    };
    std::iter::once("id,patient,score,state,note\n".to_owned()).chain((0..40).map(row)).collect()
}
