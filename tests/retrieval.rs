//! Retrieval: reports that look for their image, and images that look for their like.

use expect_test::expect;

use crate::sandbox::{Sandbox, shared_data};

/// Two patients; the first has a scan with two reconstructions, the second two scans with one. Vectors are points of a
/// plane, and so are those of the reports.
const VECTORS: &str = "id,x,y,text
valid_1_a_1,1,0,volume
valid_1_a_2,1,0.01,volume
valid_2_a_1,0,1,volume
valid_2_b_1,-1,0,volume
";

const REPORTS: &str = "id,x,y,text
valid_1_a_1,1,0.1,report
valid_1_a_2,1,0.1,report
valid_2_a_1,0.1,1,report
valid_2_b_1,0.2,1,report
";

const LABELS: &str = "id,effusion,nodule
valid_1_a_1,1,1
valid_1_a_2,1,1
valid_2_a_1,1,0
valid_2_b_1,0,0
";

const SPEC: &str = "argent: 1
name: retrieval
steps:
  points: { use: reports.table, with: { path: vectors.csv, id: id, ids: ct-rate, text: text, keep: [x, y] } }
  words: { use: reports.table, with: { path: reports.csv, id: id, ids: ct-rate, text: text, keep: [x, y] } }
  volumes:
    use: sql
    from: { points: points }
    with: { keys: [id], query: \"select id, patient, scan, make_array(cast(x as double), cast(y as double)) as vector from points\" }
  reports:
    use: sql
    from: { words: words }
    with: { keys: [id], query: \"select id, patient, scan, make_array(cast(x as double), cast(y as double)) as vector from words\" }
  truth: { use: labels.table, with: { path: labels.csv, id: id, findings: pack.yaml, values: { \"1\": present, \"0\": absent } } }
  found:
    use: eval.retrieval
    from: { embeddings: volumes, texts: reports, labels: truth }
    with: { WITH }
";

const PACK: &str = "name: two
findings:
  - { id: effusion, name: Pleural effusion, synonyms: [effusion] }
  - { id: nodule, name: Lung nodule, synonyms: [nodule] }
";

fn sandbox(with: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("vectors.csv", VECTORS).write("reports.csv", REPORTS).write("labels.csv", LABELS);
    sandbox.write("p.yaml", &SPEC.replace("WITH", with)).write("pack.yaml", PACK);
    sandbox
}

fn measured(sandbox: &Sandbox) -> String {
    sandbox.run(&["p.yaml"]);
    let columns = "variant, k, value, chance, queries, gallery_size, groups, gallery, similarity, quirk";
    sandbox.sql(&format!("select {columns} from found order by variant, k")).join("\n")
}

#[test]
fn without_a_variant_what_the_ports_allow_is_measured() {
    expect![[r#"
        map_clean,1,0.625,0.5,4,3,2,all,cosine,
        map_clean,2,0.5,0.5,4,3,2,all,cosine,
        recall_pair,1,0.5,0.25,4,4,2,all,cosine,other reconstructions of the same scan count as misses
        recall_pair,2,0.75,0.5,4,4,2,all,cosine,other reconstructions of the same scan count as misses"#]]
    .assert_eq(&measured(&sandbox("k: [1, 2]")));
}

#[test]
fn every_published_variant_is_measured_by_name_and_its_quirk_is_told() {
    let variants = "variant: [recall_pair, recall_scan, map_clean, map_self_included, map_ct_clip_cumulative, \
                    ap_radfinder], k: [1, 2]";
    expect![[r#"
        ap_radfinder,1,1.0,1.0,3,3,2,all,cosine,"queries without a finding are left out, and any shared finding counts"
        ap_radfinder,2,1.0,1.0,3,3,2,all,cosine,"queries without a finding are left out, and any shared finding counts"
        map_clean,1,0.625,0.5,4,3,2,all,cosine,
        map_clean,2,0.5,0.5,4,3,2,all,cosine,
        map_ct_clip_cumulative,1,0.75,0.75,4,3,2,all,cosine,"the query finds itself, and the value is the mean over this k and all smaller ones"
        map_ct_clip_cumulative,2,0.71875,0.6875,4,3,2,all,cosine,"the query finds itself, and the value is the mean over this k and all smaller ones"
        map_self_included,1,0.75,0.75,4,3,2,all,cosine,the query is in the gallery and finds itself
        map_self_included,2,0.6875,0.625,4,3,2,all,cosine,the query is in the gallery and finds itself
        recall_pair,1,0.5,0.25,4,4,2,all,cosine,other reconstructions of the same scan count as misses
        recall_pair,2,0.75,0.5,4,4,2,all,cosine,other reconstructions of the same scan count as misses
        recall_scan,1,0.75,0.375,4,4,2,all,cosine,
        recall_scan,2,0.75,0.6666666666666667,4,4,2,all,cosine,"#]].assert_eq(&measured(&sandbox(variants)));
}

#[test]
fn the_first_reconstructions_are_a_gallery_of_their_own() {
    let with = "variant: [recall_pair, map_clean], k: 1, gallery: first_reconstruction";
    expect![[r#"
        map_clean,1,0.3333333333333333,0.3333333333333333,3,2,2,first_reconstruction,cosine,
        recall_pair,1,0.6666666666666666,0.3333333333333333,3,3,2,first_reconstruction,cosine,"#]]
    .assert_eq(&measured(&sandbox(with)));
}

#[test]
fn vectors_of_different_length_are_told_apart_by_the_dot_product() {
    let sandbox = sandbox("variant: recall_pair, k: 1, similarity: dot");
    sandbox.write("vectors.csv", &VECTORS.replace("valid_1_a_2,1,0.01", "valid_1_a_2,9,9"));
    expect!["recall_pair,1,0.25,0.25,4,4,2,all,dot,other reconstructions of the same scan count as misses"]
        .assert_eq(&measured(&sandbox));
}

#[test]
fn intervals_are_drawn_by_patient() {
    let sandbox = sandbox("variant: recall_pair, k: 2");
    sandbox.run(&["p.yaml"]);
    // With two patients, a draw has the one, the other, or both.
    expect!["0.75,0.5,1.0"].assert_eq(&sandbox.sql("select value, low, high from found").join("\n"));
}

#[test]
fn a_row_without_a_vector_is_left_out_and_told() {
    let sandbox = sandbox("variant: recall_pair, k: 1");
    sandbox.write("vectors.csv", &VECTORS.replace("valid_2_b_1,-1,0", "valid_2_b_1,0,0"));
    expect!["recall_pair,1,0.6666666666666666,0.3333333333333333,3,3,2,all,cosine,other reconstructions of the same scan count as misses"].assert_eq(&measured(&sandbox));
    expect![[r#"embeddings,no_vector,"there is no vector of finite numbers, not all zero""#]]
        .assert_eq(&sandbox.sql("select port, kind, message from found.errors").join("\n"));
}

#[test]
fn what_cannot_be_measured_is_said_before_anything_runs() {
    let refused = |spec: String| {
        let sandbox = sandbox("");
        sandbox.write("p.yaml", &spec);
        let said = sandbox.argent(&["check", "p.yaml"]);
        assert_eq!(said.code, 2);
        said.err
    };
    let spec = |with: &str| SPEC.replace("WITH", with);
    let without = |port: &str, with: &str| spec(with).replace(port, "");
    expect![[r#"
        error: `recall_scan` needs `texts`, which the step does not read
          --> p.yaml:18:22
           |
        18 |     with: { variant: recall_scan }
           |                      ^^^^^^^^^^^
           |
        help: add `texts` under `from`

        1 mistake in p.yaml

    "#]]
    .assert_eq(&refused(without(", texts: reports", "variant: recall_scan")));
    expect![[r#"
        error: the step has neither `texts` nor `labels`, so that nothing says what is to be found
          --> p.yaml:17:11
           |
        17 |     from: { embeddings: volumes }
           |           ^^^^^^^^^^^^^^^^^^^^^^^
           |
        help: add `texts`, `labels` or both

        1 mistake in p.yaml

    "#]]
    .assert_eq(&refused(without(", texts: reports, labels: truth", "k: 5")));
    expect![[r#"
        error: expected numbers from 1 on, one at least
          --> p.yaml:18:16
           |
        18 |     with: { k: [0, 5], group: hospital }
           |                ^^^^^^

        error: the embeddings have no column `hospital`
          --> p.yaml:18:31
           |
        18 |     with: { k: [0, 5], group: hospital }
           |                               ^^^^^^^^
           |
        help: there are id, patient, scan, vector

        2 mistakes in p.yaml

    "#]]
    .assert_eq(&refused(spec("k: [0, 5], group: hospital")));
    let no_scans =
        spec("variant: recall_scan").replace("select id, patient, scan, make_array", "select id, make_array");
    expect![[r#"
        error: the embeddings have no column `scan`, which tells reconstructions of one scan
          --> p.yaml:17:25
           |
        17 |     from: { embeddings: volumes, texts: reports, labels: truth }
           |                         ^^^^^^^
           |
        help: derive ids where the images are read, as by `ids: ct-rate`

        1 mistake in p.yaml

    "#]]
    .assert_eq(&refused(no_scans));
}

#[test]
fn a_text_of_several_images_has_no_pair() {
    let sandbox = sandbox("variant: recall_pair");
    let by_scan = SPEC
        .replace("WITH", "variant: recall_pair")
        .replace("    with: { variant", "    match: { texts: scan }\n    with: { variant");
    sandbox.write("p.yaml", &by_scan);
    let said = sandbox.argent(&["run", "p.yaml"]);
    assert_eq!(said.code, 1);
    expect!["found                failed    2 texts belong to several images, expected one each for `recall_pair`; measure `recall_scan`, or write `gallery: first_reconstruction`"].assert_eq(said.err.lines().find(|line| line.contains("several")).unwrap_or(&said.err));
}

/// With the labels themselves as vectors, the dot product is the number of findings in common. The values are those of
/// `kernels/stats/tests/retrieval.py` for the same labels.
#[test]
fn real_labels_as_vectors_give_what_numpy_gives() {
    let Some(folder) = shared_data("reports/ct") else { return };
    let sandbox = Sandbox::new();
    std::fs::copy(folder.join("labels.csv"), sandbox.path("labels.csv")).unwrap();
    let header = std::fs::read_to_string(folder.join("labels.csv")).unwrap();
    let names: Vec<&str> = header.lines().next().unwrap().split(',').skip(1).collect();
    assert_eq!(names.len(), 18);
    let pack: String =
        names.iter().enumerate().map(|(at, name)| format!("  - {{ id: f{at}, name: {name} }}\n")).collect();
    sandbox.write("pack.yaml", &format!("name: real\nfindings:\n{pack}"));
    let cells: Vec<String> = (0..18)
        .map(|at| format!("max(case when finding = 'f{at}' and state = 'present' then 1.0 else 0.0 end)"))
        .collect();
    sandbox.write(
        "p.yaml",
        &format!(
            "argent: 1
name: real
steps:
  truth: {{ use: labels.table, with: {{ path: labels.csv, id: id, findings: pack.yaml, values: {{ \"1\": present, \"0\": absent }} }} }}
  vectors:
    use: sql
    from: {{ truth: truth }}
    with:
      keys: [id]
      query: \"select id, make_array(1.0, {}) as vector from truth group by id\"
  found:
    use: eval.retrieval
    from: {{ embeddings: vectors, labels: truth }}
    with: {{ variant: [map_clean, map_self_included, map_ct_clip_cumulative, ap_radfinder], k: [1, 5, 10], similarity: dot }}
",
            cells.join(", ")
        ),
    );
    sandbox.run(&["p.yaml"]);
    expect![[r#"
        ap_radfinder,1,1.0,138,138
        ap_radfinder,5,1.0,138,138
        ap_radfinder,10,1.0,138,138
        map_clean,1,0.426554691,145,138
        map_clean,5,0.395628965,145,138
        map_clean,10,0.397673278,145,138
        map_ct_clip_cumulative,1,0.602627641,145,138
        map_ct_clip_cumulative,5,0.533548779,145,138
        map_ct_clip_cumulative,10,0.5032716,145,138
        map_self_included,1,0.602627641,145,138
        map_self_included,5,0.464469917,145,138
        map_self_included,10,0.442717242,145,138"#]]
    .assert_eq(
        &sandbox
            .sql("select variant, k, round(value, 9), queries, gallery_size from found order by 1, 2")
            .join("\n"),
    );
}
