//! What is said of each mistake, and that deserialising agrees.

use std::collections::{BTreeMap, BTreeSet};

use expect_test::{Expect, expect};
use proptest::prelude::*;
use schemars::{JsonSchema, schema_for};
use serde::Deserialize;
use serde_json::json;

use super::*;
use crate::diagnostic::Sources;
use crate::yaml;

/// Parameters of an invented operator that have every shape serde knows.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
struct Resample {
    /// Grid spacing along x, y and z. In millimetres.
    spacing_mm: Option<[f64; 3]>,
    orientation: String,
    epochs: u32,
    seed: i64,
    offset: i32,
    level: u8,
    antialias: bool,
    interpolation: Interpolation,
    order: Option<Order>,
    #[schemars(range(min = 0.0, max = 1.0))]
    share: f64,
    #[schemars(length(min = 1))]
    name: String,
    #[schemars(extend("exclusiveMinimum" = 0))]
    rate: f64,
    window: (i64, String),
    #[schemars(length(min = 1))]
    paths: Vec<String>,
    tags: BTreeSet<String>,
    parts: BTreeMap<String, f64>,
    codes: BTreeMap<u32, String>,
    view: Option<View>,
    views: Vec<View>,
    path: OneOrMany,
    threshold: Option<Threshold>,
    rule: Option<Rule>,
    uncertain: Option<Uncertain>,
    nested: Option<Box<Resample>>,
    free: serde_json::Value,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Interpolation {
    #[default]
    Linear,
    Nearest,
    Cubic,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Order {
    /// With the smallest first.
    Ascending,
    /// With the largest first.
    Descending,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the fields exist to be described and deserialised into")]
struct View {
    /// The window's lower and upper edge in Hounsfield units.
    window_hu: [f64; 2],
    #[serde(default)]
    pad_hu: Option<i32>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "the fields exist to be described and deserialised into")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Default for OneOrMany {
    fn default() -> Self {
        OneOrMany::Many(Vec::new())
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[expect(dead_code, reason = "the fields exist to be described and deserialised into")]
enum Threshold {
    Youden,
    Fixed(f64),
    Cost { ratio: f64 },
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "rule", rename_all = "snake_case", deny_unknown_fields)]
#[expect(dead_code, reason = "the fields exist to be described and deserialised into")]
enum Rule {
    Youden { part: String },
    Fixed { value: f64 },
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "the fields exist to be described and deserialised into")]
enum Uncertain {
    Number(f64),
    Word(Order),
    View(View),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "the fields exist to be described")]
struct Scan {
    /// Globs of the volumes. Relative to the spec.
    path: String,
    ids: Interpolation,
    edges_mm: Vec<[f64; 2]>,
}

fn mistakes(text: &str, schema: &Value, what: &str) -> String {
    let mut sources = Sources::default();
    let file = sources.add("p.yaml", text);
    let node = yaml::parse(file, text).unwrap_or_else(|mistakes| panic!("{text:?}: {mistakes:?}"));
    let mut shown = String::new();
    for mistake in check(&node, schema, what) {
        let span = mistake.labels[0].0;
        let position = sources.get(file).position(span.start);
        let written = &text[span.start..span.end];
        shown += &format!("{}:{} «{written}» {}\n", position.line, position.column, mistake.message);
        if let Some(help) = &mistake.help {
            shown += &format!("  help: {help}\n");
        }
    }
    shown
}

/// The mistakes of parameters; that there are some is also what deserialisation says.
fn resample(text: &str, expected: Expect) {
    let shown = mistakes(text, &schema_for!(Resample).to_value(), "volumes.resample");
    let file = Sources::default().add("p.yaml", text);
    let json = yaml::parse(file, text).expect("it is well formed").to_json();
    let deserialised = serde_json::from_value::<Resample>(json);
    assert!(deserialised.is_err(), "serde takes {text:?}, so it has no mistake");
    expected.assert_eq(&shown);
}

fn scan(text: &str, expected: Expect) {
    expected.assert_eq(&mistakes(text, &schema_for!(Scan).to_value(), "volumes.scan"));
}

#[test]
fn what_is_right_has_no_mistakes() {
    let text = "
spacing_mm: [1, 1.5, 3]
orientation: RAS
epochs: 5
seed: -7
antialias: true
interpolation: nearest
order: ascending
share: 1
name: x
rate: 0.1
window: [1, a]
paths: [a]
tags: [a, b]
parts: {train: 0.9, val: 1}
codes: {1: a, 2: b}
view: {window_hu: [-1000, 200], pad_hu: ~}
views: [{window_hu: [0, 1], pad_hu: -1000}]
path: [a, b]
threshold: {cost: {ratio: 2}}
rule: {rule: fixed, value: 0.5}
uncertain: {window_hu: [0, 1]}
nested: {threshold: youden, rule: ~, uncertain: descending, path: a}
free: {anything: [goes, 1]}
";
    let file = Sources::default().add("p.yaml", text);
    let json = yaml::parse(file, text).expect("it is well formed").to_json();
    serde_json::from_value::<Resample>(json).expect("serde takes it");
    assert_eq!(mistakes(text, &schema_for!(Resample).to_value(), "volumes.resample"), "");
}

#[test]
fn unknown_keys() {
    resample(
        "spacng_mm: [1, 1, 1]\n",
        expect![[r#"
        1:1 «spacng_mm» `spacng_mm` is not a parameter of volumes.resample
          help: did you mean `spacing_mm`?
    "#]],
    );
    resample(
        "view: {window_hu: [0, 1], window: 3}\n",
        expect![[r#"
        1:27 «window» `window` is not a key of `view`
          help: there are `window_hu` and `pad_hu`
    "#]],
    );
    resample(
        "view: {window_hu: [0, 1], zoom: 3}\n",
        expect![[r#"
        1:27 «zoom» `zoom` is not a key of `view`
          help: there are `window_hu` and `pad_hu`
    "#]],
    );
    resample(
        "views: [{window_hu: [0, 1]}, {window_hu: [0, 1], padhu: 3}]\n",
        expect![[r#"
        1:50 «padhu» `padhu` is not a key of item 2 of `views`
          help: did you mean `pad_hu`?
    "#]],
    );
    let none = json!({"type": "object", "properties": {}, "additionalProperties": false});
    expect![[r#"
        1:1 «x» `x` is not a parameter of predict
          help: predict takes no parameters
    "#]]
    .assert_eq(&mistakes("x: 1\n", &none, "predict"));
}

#[test]
fn keys_of_a_file_are_no_parameters() {
    let schema = schema_for!(Scan).to_value();
    expect![[r#"
        1:1 «findngs» `findngs` is not a key of a finding pack
          help: there are `path`, `ids` and `edges_mm`
        1:1 «findngs» `path` is missing: a finding pack needs it
          help: add `path`, text: Globs of the volumes
        1:1 «findngs» `ids` is missing: a finding pack needs it
          help: add `ids`, one of `linear`, `nearest` or `cubic`
        1:1 «findngs» `edges_mm` is missing: a finding pack needs it
          help: add `edges_mm`, a list of lists of numbers
    "#]]
    .assert_eq(&mistakes("findngs: []\n", &schema, "a finding pack"));
}

#[test]
fn closest_names() {
    assert_eq!(closest("spacing", ["orientation", "spacing_mm"]), Some("spacing_mm"));
    assert_eq!(closest("lr_max", ["lr", "epochs"]), Some("lr"));
    assert_eq!(closest("id", ["ids", "path"]), Some("ids"));
    assert_eq!(closest("Épochs", ["epochs"]), Some("epochs"));
    assert_eq!(closest("a", ["b", "c"]), None);
    assert_eq!(closest("zoom", ["crop", "canvas"]), None);
    assert_eq!(closest("", ["crop"]), None);
}

#[test]
fn missing_keys() {
    scan(
        "ids: linear\n",
        expect![[r#"
        1:1 «ids» `path` is missing: volumes.scan needs it
          help: add `path`, text: Globs of the volumes
        1:1 «ids» `edges_mm` is missing: volumes.scan needs it
          help: add `edges_mm`, a list of lists of numbers
    "#]],
    );
    scan(
        "",
        expect![[r#"
        1:1 «» `path` is missing: volumes.scan needs it
          help: add `path`, text: Globs of the volumes
        1:1 «» `ids` is missing: volumes.scan needs it
          help: add `ids`, one of `linear`, `nearest` or `cubic`
        1:1 «» `edges_mm` is missing: volumes.scan needs it
          help: add `edges_mm`, a list of lists of numbers
    "#]],
    );
    resample(
        "epochs: 1\nview:\n  pad_hu: 1\n",
        expect![[r#"
        2:1 «view» `window_hu` is missing: `view` needs it
          help: add `window_hu`, a list of 2 numbers: The window's lower and upper edge in Hounsfield units
    "#]],
    );
    resample(
        "views:\n  - pad_hu: 1\n  - {}\n",
        expect![[r#"
        2:5 «pad_hu» `window_hu` is missing: item 1 of `views` needs it
          help: add `window_hu`, a list of 2 numbers: The window's lower and upper edge in Hounsfield units
        3:5 «{}» `window_hu` is missing: item 2 of `views` needs it
          help: add `window_hu`, a list of 2 numbers: The window's lower and upper edge in Hounsfield units
    "#]],
    );
}

#[test]
fn misspelt_required_key_is_one_mistake() {
    scan(
        "paht: a\nids: linear\nedges_mm: []\n",
        expect![[r#"
        1:1 «paht» `paht` is not a parameter of volumes.scan
          help: did you mean `path`?
    "#]],
    );
}

#[test]
fn wrong_types() {
    resample(
        "spacing_mm: fine\n",
        expect![[r#"
        1:13 «fine» expected a list of 3 numbers for `spacing_mm`, found text
    "#]],
    );
    resample(
        "spacing_mm: 1.5\n",
        expect![[r#"
        1:13 «1.5» expected a list of 3 numbers for `spacing_mm`, found a decimal number
    "#]],
    );
    resample(
        "spacing_mm: [1, two, [3]]\n",
        expect![[r#"
        1:17 «two» expected a number for item 2 of `spacing_mm`, found text
        1:22 «[3]» expected a number for item 3 of `spacing_mm`, found a list
    "#]],
    );
    resample(
        "epochs: five\n",
        expect![[r#"
        1:9 «five» expected a whole number for `epochs`, found text
    "#]],
    );
    resample(
        "epochs: '5'\n",
        expect![[r#"
        1:9 «'5'» expected a whole number for `epochs`, found text
          help: remove the quotes
    "#]],
    );
    resample(
        "epochs: 5.0\n",
        expect![[r#"
        1:9 «5.0» expected a whole number for `epochs`, found a decimal number
          help: write it without a point or an exponent
    "#]],
    );
    resample(
        "share: '0.5'\n",
        expect![[r#"
        1:8 «'0.5'» expected a number for `share`, found text
          help: remove the quotes
    "#]],
    );
    resample(
        "orientation: 7\n",
        expect![[r#"
        1:14 «7» expected text for `orientation`, found a whole number
          help: put it in quotes to make it text
    "#]],
    );
    resample(
        "orientation:\n",
        expect![[r#"
        1:12 «» expected text for `orientation`, found nothing
    "#]],
    );
    resample(
        "antialias: yes\n",
        expect![[r#"
        1:12 «yes» expected `true` or `false` for `antialias`, found text
          help: write `true`
    "#]],
    );
    resample(
        "antialias: 1\n",
        expect![[r#"
        1:12 «1» expected `true` or `false` for `antialias`, found a whole number
    "#]],
    );
    resample(
        "paths: a/*.csv\n",
        expect![[r#"
        1:8 «a/*.csv» expected a non-empty list of texts for `paths`, found text
          help: write it as a list, in `[ ]`
    "#]],
    );
    resample(
        "view: [0, 1]\n",
        expect![[r#"
        1:7 «[0, 1]» expected a mapping for `view`, found a list
    "#]],
    );
    resample(
        "parts: [train, val]\n",
        expect![[r#"
        1:8 «[train, val]» expected a mapping for `parts`, found a list
    "#]],
    );
    resample(
        "parts: {train: most}\n",
        expect![[r#"
        1:16 «most» expected a number for `parts.train`, found text
    "#]],
    );
    resample(
        "codes: {1: 2}\n",
        expect![[r#"
        1:12 «2» expected text for `codes.1`, found a whole number
          help: put it in quotes to make it text
    "#]],
    );
    resample(
        "tags: {a: 1}\n",
        expect![[r#"
        1:7 «{a: 1}» expected a list of texts for `tags`, found a mapping
    "#]],
    );
    resample(
        "[epochs, 5]\n",
        expect![[r#"
        1:1 «[epochs, 5]» expected a mapping for volumes.resample, found a list
    "#]],
    );
    resample(
        "5\n",
        expect![[r#"
        1:1 «5» expected a mapping for volumes.resample, found a whole number
    "#]],
    );
}

#[test]
fn list_lengths() {
    resample(
        "spacing_mm: [1, 1]\n",
        expect![[r#"
        1:13 «[1, 1]» expected a list of 3 numbers for `spacing_mm`, found a list of 2
    "#]],
    );
    resample(
        "window: [1, a, b]\n",
        expect![[r#"
        1:9 «[1, a, b]» expected a list of 2 items for `window`, found a list of 3
    "#]],
    );
    resample(
        "window: [a, 1]\n",
        expect![[r#"
        1:10 «a» expected a whole number for item 1 of `window`, found text
        1:13 «1» expected text for item 2 of `window`, found a whole number
          help: put it in quotes to make it text
    "#]],
    );
    scan(
        "{path: a, ids: linear, edges_mm: [[0, 1], [2]]}\n",
        expect![[r#"
        1:43 «[2]» expected a list of 2 numbers for item 2 of `edges_mm`, found a list of 1
    "#]],
    );
    let schema = schema_for!(Resample).to_value();
    expect![[r#"
        1:8 «[]» expected a non-empty list of texts for `paths`, found an empty list
        2:7 «''» expected text for `name`, found empty text
    "#]]
    .assert_eq(&mistakes("paths: []\nname: ''\n", &schema, "volumes.resample"));
}

#[test]
fn values_outside_an_enum() {
    resample(
        "interpolation: nearist\n",
        expect![[r#"
        1:16 «nearist» `nearist` is not a value of `interpolation`
          help: did you mean `nearest`?
    "#]],
    );
    resample(
        "interpolation: lanczos\n",
        expect![[r#"
        1:16 «lanczos» `lanczos` is not a value of `interpolation`
          help: there are `linear`, `nearest` and `cubic`
    "#]],
    );
    resample(
        "interpolation: 1\n",
        expect![[r#"
        1:16 «1» expected one of `linear`, `nearest` or `cubic` for `interpolation`, found a whole number
    "#]],
    );
    resample(
        "order: Ascending\n",
        expect![[r#"
        1:8 «Ascending» `Ascending` is not a value of `order`
          help: did you mean `ascending`?
    "#]],
    );
    resample(
        "order: up\n",
        expect![[r#"
        1:8 «up» `up` is not a value of `order`
          help: there are `ascending` and `descending`
    "#]],
    );
    resample(
        "order: [ascending]\n",
        expect![[r#"
        1:8 «[ascending]» expected `ascending` or `descending` for `order`, found a list
    "#]],
    );
}

#[test]
fn numbers_out_of_range() {
    resample(
        "epochs: -1\n",
        expect![[r#"
        1:9 «-1» expected at least 0 for `epochs`, found -1
    "#]],
    );
    resample(
        "epochs: 5000000000\n",
        expect![[r#"
        1:9 «5000000000» expected 0 to 4294967295 for `epochs`, found 5000000000
    "#]],
    );
    resample(
        "offset: -3000000000\n",
        expect![[r#"
        1:9 «-3000000000» expected at least -2147483648 for `offset`, found -3000000000
    "#]],
    );
    resample(
        "level: 256\n",
        expect![[r#"
        1:8 «256» expected 0 to 255 for `level`, found 256
    "#]],
    );
    let schema = schema_for!(Resample).to_value();
    expect![[r#"
        1:8 «1.5» expected 0 to 1 for `share`, found 1.5
        2:7 «0» expected more than 0 for `rate`, found 0
    "#]]
    .assert_eq(&mistakes("share: 1.5\nrate: 0\n", &schema, "volumes.resample"));
}

#[test]
fn options_and_one_or_many() {
    resample(
        "path: 7\n",
        expect![[r#"
        1:7 «7» expected text or a list of texts for `path`, found a whole number
    "#]],
    );
    resample(
        "path: [a, 7]\n",
        expect![[r#"
        1:11 «7» expected text for item 2 of `path`, found a whole number
          help: put it in quotes to make it text
    "#]],
    );
    resample(
        "path: {a: b}\n",
        expect![[r#"
        1:7 «{a: b}» expected text or a list of texts for `path`, found a mapping
    "#]],
    );
    resample(
        "uncertain: acsending\n",
        expect![[r#"
        1:12 «acsending» `acsending` is not a value of `uncertain`
          help: did you mean `ascending`?
    "#]],
    );
    resample(
        "uncertain: [1]\n",
        expect![[r#"
        1:12 «[1]» expected a number, `ascending`, `descending` or a mapping for `uncertain`, found a list
    "#]],
    );
    resample(
        "uncertain: {window_hu: [1]}\n",
        expect![[r#"
        1:24 «[1]» expected a list of 2 numbers for `uncertain.window_hu`, found a list of 1
    "#]],
    );
}

#[test]
fn enums_with_values() {
    resample(
        "threshold: yuoden\n",
        expect![[r#"
        1:12 «yuoden» `yuoden` is not a value of `threshold`
          help: did you mean `youden`?
    "#]],
    );
    resample(
        "threshold: fixed\n",
        expect![[r#"
        1:12 «fixed» `fixed` needs a value in `threshold`
          help: write `{fixed: …}`, with a number
    "#]],
    );
    resample(
        "threshold: {fixed: high}\n",
        expect![[r#"
        1:20 «high» expected a number for `threshold.fixed`, found text
    "#]],
    );
    resample(
        "threshold: {fxied: 1}\n",
        expect![[r#"
        1:13 «fxied» `fxied` is not a key of `threshold`
          help: did you mean `fixed`?
    "#]],
    );
    resample(
        "threshold: {cost: {}}\n",
        expect![[r#"
        1:13 «cost» `ratio` is missing: `threshold.cost` needs it
          help: add `ratio`, a number
    "#]],
    );
    resample(
        "threshold: {}\n",
        expect![[r#"
        1:1 «threshold» expected one of `fixed` or `cost` in `threshold`, found nothing
    "#]],
    );
    resample(
        "threshold: 0.5\n",
        expect![[r#"
        1:12 «0.5» expected `youden`, `{fixed: …}` or `{cost: …}` for `threshold`, found a decimal number
    "#]],
    );
}

#[test]
fn enums_with_a_tag() {
    resample(
        "rule: {rule: fixed, value: high}\n",
        expect![[r#"
        1:28 «high» expected a number for `rule.value`, found text
    "#]],
    );
    resample(
        "rule: {rule: fixd, value: 1}\n",
        expect![[r#"
        1:14 «fixd» `fixd` is not a value of `rule.rule`
          help: did you mean `fixed`?
    "#]],
    );
    resample(
        "rule: {value: 1}\n",
        expect![[r#"
        1:1 «rule» `rule` is missing: `rule` needs it
          help: add `rule`, one of `youden` or `fixed`
    "#]],
    );
    resample(
        "rule: {rule: youden, value: 1}\n",
        expect![[r#"
        1:22 «value» `value` is not a key of `rule`
          help: there are `rule` and `part`
        1:1 «rule» `part` is missing: `rule` needs it
          help: add `part`, text
    "#]],
    );
    resample(
        "rule: {rule: 1}\n",
        expect![[r#"
        1:14 «1» expected one of `youden` or `fixed` for `rule.rule`, found a whole number
    "#]],
    );
    resample(
        "rule: fixed\n",
        expect![[r#"
        1:7 «fixed» expected a mapping for `rule`, found text
    "#]],
    );
}

#[test]
fn all_mistakes_are_found_at_any_depth() {
    resample(
        "nested:\n  nested: {epochs: x, spacing_mm: [1]}\n  nope: 1\nviews: [{window_hu: 1}, 2]\norder: up\n",
        expect![[r#"
            2:20 «x» expected a whole number for `nested.nested.epochs`, found text
            2:35 «[1]» expected a list of 3 numbers for `nested.nested.spacing_mm`, found a list of 1
            3:3 «nope» `nope` is not a key of `nested`
              help: there are `spacing_mm`, `orientation`, `epochs`, `seed`, `offset`, `level`, `antialias`, `interpolation`, `order`, `share`, `name`, `rate`, `window`, `paths`, `tags`, `parts`, `codes`, `view`, `views`, `path`, `threshold`, `rule`, `uncertain`, `nested` and `free`
            4:21 «1» expected a list of 2 numbers for `window_hu` in item 1 of `views`, found a whole number
            4:25 «2» expected a mapping for item 2 of `views`, found a whole number
            5:8 «up» `up` is not a value of `order`
              help: there are `ascending` and `descending`
        "#]],
    );
}

#[test]
fn flattened_enums_bring_their_keys() {
    let schema = json!({
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "required": ["a"],
        "unevaluatedProperties": false,
        "oneOf": [
            {"type": "object", "properties": {"kind": {"const": "x"}, "b": {"type": "string"}}, "required": ["kind"]},
            {"type": "object", "properties": {"kind": {"const": "y"}, "c": {"type": "string"}}, "required": ["kind"]},
        ],
    });
    assert_eq!(mistakes("{a: 1, kind: x, b: z}\n", &schema, "a file"), "");
    expect![[r#"
        1:11 «b» `b` is not a key of a file
          help: there are `kind`, `c` and `a`
        1:1 «{kind: y, b: z}» `a` is missing: a file needs it
          help: add `a`, a whole number
    "#]]
    .assert_eq(&mistakes("{kind: y, b: z}\n", &schema, "a file"));
}

#[test]
fn schemas_that_it_does_not_know_let_everything_pass() {
    for schema in [
        json!(true),
        json!({}),
        json!({"$ref": "#/$defs/gone"}),
        json!({"$ref": "#"}),
        json!({"allOf": [{"$ref": "#"}]}),
        json!({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}),
        json!({"type": 7, "items": 3, "required": "x", "enum": 5, "anyOf": 1}),
        json!({"not": {"type": "object"}, "if": true, "contains": {}, "multipleOf": 2}),
    ] {
        for text in ["a: 1\n", "[1, x]\n", "5\n", "", "x\n"] {
            assert_eq!(mistakes(text, &schema, "a file"), "", "{schema} {text:?}");
        }
    }
}

#[test]
fn schemas_that_go_in_a_circle_end() {
    let lists = json!({"type": "array", "items": {"$ref": "#"}});
    assert_eq!(mistakes("[[], [[]]]\n", &lists, "a tree"), "");
    expect![[r#"
        1:8 «x» expected a list of lists of lists for item 1 of item 1 of item 2 of a tree, found text
    "#]]
    .assert_eq(&mistakes("[[], [[x]]]\n", &lists, "a tree"));
}

#[test]
fn first_sentences() {
    assert_eq!(first_sentence("One\nline. Another.\n\nMore."), "One line");
    assert_eq!(first_sentence("A rate, e.g. 0.1, i.e. small."), "A rate, e.g. 0.1, i.e. small");
    assert_eq!(first_sentence(""), "");
}

#[test]
fn alias_is_wrong_where_it_is_used_and_its_insides_where_they_are_written() {
    resample(
        "free: &v {window: 1}\nview: *v\nspacing_mm: *v\n",
        expect![[r#"
        1:11 «window» `window` is not a key of `view`
          help: did you mean `window_hu`?
        3:13 «*v» expected a list of 3 numbers for `spacing_mm`, found a mapping
    "#]],
    );
}

/// Values that are right for some parameter and wrong for others.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop::sample::select(vec![-3_000_000_000_i64, -1, 0, 1, 2, 255, 256, 5_000_000_000])
            .prop_map(Value::from),
        prop::sample::select(vec![-1.5, 0.5, 2.0]).prop_map(Value::from),
        prop::sample::select(vec!["", "nearest", "ascending", "youden", "fixed", "x", "7", "true"])
            .prop_map(Value::from),
    ];
    let keys =
        vec!["window_hu", "pad_hu", "rule", "part", "value", "fixed", "cost", "ratio", "epochs", "view", "7"];
    leaf.prop_recursive(3, 12, 3, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(prop::sample::select(keys.clone()), inner, 0..3).prop_map(|map| {
                map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Value>()
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// A parameter has mistakes if and only if serde refuses it, but that serde also takes a list of a struct's
    /// fields for the struct. Left out are the parameters with a bound that only the schema knows, and keys
    /// that are numbers, which are left to serde.
    #[test]
    fn agrees_with_deserialisation(
        key in prop::sample::select(vec![
            "spacing_mm", "orientation", "epochs", "seed", "offset", "level", "antialias", "interpolation", "order",
            "window", "tags", "parts", "view", "views", "path", "threshold", "rule", "uncertain", "free", "else",
        ]),
        value in any_value(),
    ) {
        let text = json!({ key: value }).to_string();
        let file = Sources::default().add("p.yaml", text.as_str());
        let node = yaml::parse(file, &text).expect("JSON is YAML");
        let found = check(&node, &schema_for!(Resample).to_value(), "volumes.resample");
        let deserialised = serde_json::from_value::<Resample>(node.to_json());
        let has_structs = matches!(key, "view" | "views" | "threshold" | "rule" | "uncertain");
        if has_structs && text.contains('[') {
            prop_assert!(!found.is_empty() || deserialised.is_ok(), "{text} {deserialised:?}");
        } else {
            prop_assert_eq!(found.is_empty(), deserialised.is_ok(), "{} {:?} {:?}", text, found, deserialised);
        }
    }
}
