//! The JSON Schema says of pipelines what `argent check` says, as far as a text can be judged by itself.

use expect_test::{expect, expect_file};
use jsonschema::Validator;
use serde_json::{Value, json};

use crate::sandbox::{Sandbox, root};

fn schema() -> Value {
    serde_json::from_str(&Sandbox::new().succeeds(&["schema"]).out).unwrap()
}

fn validator() -> Validator {
    jsonschema::validator_for(&schema()).unwrap()
}

fn parsed(yaml: &str) -> Value {
    serde_yaml::from_str(yaml).unwrap()
}

/// What is wrong with a pipeline: where, and the keyword of the schema that says so.
fn mistakes(validator: &Validator, pipeline: &Value) -> Vec<String> {
    let mistake = |error: jsonschema::ValidationError| {
        let path = error.schema_path().to_string();
        format!("{} {}", error.instance_path(), path.rsplit('/').next().unwrap_or_default())
    };
    let mut all: Vec<String> = validator.iter_errors(pipeline).map(mistake).collect();
    all.sort();
    all.dedup();
    all
}

/// The shipped pipelines, examples included, and the project that `init` makes.
fn shipped() -> Vec<(String, Value)> {
    let folders = ["pipelines", "pipelines/examples", "cli/init/project"].map(|folder| root().join(folder));
    let files = folders.into_iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
    let paths =
        files.map(|file| file.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "yaml"));
    let texts = paths.map(|path| (path.display().to_string(), std::fs::read_to_string(path).unwrap()));
    // A finding pack is no pipeline.
    let pipelines = texts.filter(|(_, text)| text.contains("\nargent: 1\n"));
    pipelines.map(|(path, text)| (path, parsed(&text.replace("@NAME", "name")))).collect()
}

#[test]
fn the_schema_in_the_docs_is_the_one_that_the_program_prints() {
    let text = Sandbox::new().succeeds(&["schema"]).out;
    expect_file![root().join("docs/argent.schema.json")].assert_eq(&text);
}

#[test]
fn every_shipped_pipeline_is_right() {
    let validator = validator();
    let shipped = shipped();
    assert!(shipped.len() >= 20, "{}", shipped.len());
    for (path, pipeline) in shipped {
        assert_eq!(mistakes(&validator, &pipeline), Vec::<String>::new(), "{path}");
    }
}

#[test]
fn every_operator_is_known_and_every_reference_leads_somewhere() {
    let schema = schema();
    let operators: Value = serde_json::from_str(&Sandbox::new().succeeds(&["ops", "--json"]).out).unwrap();
    let names: Vec<&str> =
        operators.as_array().unwrap().iter().map(|o| o["name"].as_str().unwrap()).collect();
    assert_eq!(schema["$defs"]["StepShape"]["properties"]["use"]["enum"], json!(names));
    for name in names {
        assert_eq!(schema["$defs"][name]["type"], "object", "{name}");
    }
    let text = schema.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(schema.pointer(reference).is_some(), "{reference}");
    }
}

/// Puts `${params.x}` in the place of every value below `with` that is no text, one at a time.
fn with_a_reference(value: &Value, variants: &mut Vec<Value>) {
    let places: Vec<(Value, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(key, inner)| (json!(key), inner)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(place, inner)| (json!(place), inner)).collect(),
        _ => return,
    };
    let with = |place: &Value, inner: Value| {
        let mut whole = value.clone();
        match place.as_str() {
            Some(key) => whole[key] = inner,
            None => whole[place.as_u64().unwrap() as usize] = inner,
        }
        whole
    };
    for (place, inner) in places {
        if !inner.is_string() {
            variants.push(with(&place, json!("${params.x}")));
        }
        let mut inside = Vec::new();
        with_a_reference(inner, &mut inside);
        variants.extend(inside.into_iter().map(|inner| with(&place, inner)));
    }
}

#[test]
fn a_param_may_stand_for_any_value_of_a_parameter() {
    let validator = validator();
    let mut tried = 0;
    for (path, pipeline) in shipped() {
        for (name, step) in pipeline["steps"].as_object().unwrap() {
            let mut variants = Vec::new();
            with_a_reference(&step["with"], &mut variants);
            for with in variants {
                let mut changed = pipeline.clone();
                changed["steps"][name]["with"] = with;
                assert_eq!(mistakes(&validator, &changed), Vec::<String>::new(), "{path}: {name}: {changed}");
                tried += 1;
            }
        }
    }
    assert!(tried > 150, "{tried}");
}

/// Steps that are wrong by themselves, each under the name of what is wrong with it.
const WRONG: &str = r#"
unknown_operator: { use: label.rulez, from: r, with: { findings: pack.yaml } }
unknown_parameter: { use: label.rules, from: r, with: { findings: pack.yaml, sectoins: [a] } }
unknown_key: { use: label.rules, from: r, wiht: { findings: pack.yaml } }
wrong_type: { use: demo.chest_ct, with: { patients: many } }
out_of_range: { use: demo.chest_ct, with: { patients: 0 } }
a_list_too_short: { use: volumes.resample, from: v, with: { spacing_mm: [1, 1] } }
missing_parameter: { use: label.rules, from: r, with: {} }
missing_with: { use: label.rules, from: r }
missing_inside: { use: label.llm, from: r, with: { findings: pack.yaml, prompt: prompt.md, endpoint: { base_url: "http://127.0.0.1:1/v1" } } }
unknown_inside: { use: label.llm, from: r, with: { findings: pack.yaml, prompt: prompt.md, endpoint: { base_url: "http://127.0.0.1:1/v1", model: m, key: k } } }
a_word_that_is_none: { use: volumes.scan, with: { path: "*.nii", hounsfield: heder } }
an_unknown_port: { use: label.rules, from: { report: r }, with: { findings: pack.yaml } }
a_missing_port: { use: train.classifier, from: { volumes: v }, with: { model: resnet3d-tiny, epochs: 1, view: { window_hu: [0, 1] } } }
no_port_at_all: { use: label.rules, with: { findings: pack.yaml } }
a_port_too_many: { use: demo.chest_ct, from: r, with: { patients: 1 } }
a_contract_without_sql: { use: demo.chest_ct, with: { patients: 1 }, expect: [{ level: warn }] }
unknown_needs: { use: demo.chest_ct, with: { patients: 1 }, needs: { gpus: 1 } }
a_rerun_of_nothing: { use: demo.chest_ct, with: { patients: 1 }, rerun: { if: "rows > 1" } }
"#;

#[test]
fn what_is_wrong_is_found_where_it_stands_and_check_finds_it_too() {
    let validator = validator();
    let mut found = String::new();
    let sandbox = Sandbox::new();
    sandbox.write("r.csv", "id,text\na,b\n").write("pack.yaml", "name: p\nfindings: [{ id: a, name: A }]\n");
    sandbox.write("prompt.md", "{{ report.text }}").write("a.nii", "");
    let before = "argent: 1\nname: p\nsteps:\n  r: { use: reports.table, with: { path: r.csv, id: id, text: text } }\n  v: { use: volumes.scan, with: { path: \"*.nii\" } }\n";
    for step in WRONG.lines().filter(|line| !line.is_empty()) {
        let text = format!("{before}  {step}\n");
        let pipeline = parsed(&text);
        let name = step.split(':').next().unwrap();
        let mistakes = mistakes(&validator, &pipeline);
        found += &format!("{}\n", mistakes.join("\n").replace("/steps/", ""));
        assert!(!mistakes.is_empty(), "{name}");
        sandbox.write("p.yaml", &text);
        assert_eq!(sandbox.argent(&["check", "p.yaml"]).code, 2, "{name}");
    }
    expect![[r#"
        unknown_operator/use enum
        unknown_parameter/with additionalProperties
        unknown_key additionalProperties
        unknown_key required
        wrong_type/with/patients anyOf
        out_of_range/with/patients anyOf
        a_list_too_short/with/spacing_mm anyOf
        missing_parameter/with required
        missing_with required
        missing_inside/with/endpoint anyOf
        unknown_inside/with/endpoint anyOf
        a_word_that_is_none/with/hounsfield anyOf
        an_unknown_port/from anyOf
        a_missing_port/from required
        a_missing_port/with/view anyOf
        no_port_at_all required
        a_port_too_many/from from
        a_contract_without_sql/expect/0 anyOf
        unknown_needs/needs additionalProperties
        a_rerun_of_nothing/rerun anyOf
    "#]]
    .assert_eq(&found);
}

#[test]
fn what_is_wrong_with_a_pipeline_itself_is_found() {
    let validator = validator();
    let of = |text: &str| mistakes(&validator, &parsed(text));
    let steps = "steps: { a: { use: demo.chest_ct, with: { patients: 1 } } }";
    assert_eq!(of(&format!("argent: 2\nname: p\n{steps}\n")), ["/argent const"]);
    assert_eq!(of(&format!("argent: 1\nname: 1p\n{steps}\n")), ["/name pattern"]);
    assert_eq!(of(&format!("argent: 1\nname: a b\n{steps}\n")), ["/name pattern"]);
    assert_eq!(of(&format!("argent: 1\n{steps}\n")), [" required"]);
    assert_eq!(of(&format!("argent: 1\nname: p\nextra: 1\n{steps}\n")), [" additionalProperties"]);
    let param = |param: &str| of(&format!("argent: 1\nname: p\nparams: {{ a: {param} }}\n{steps}\n"));
    assert_eq!(param("{ type: path, default: x, env: X, doc: y }"), Vec::<String>::new());
    assert_eq!(param("[1, 2]"), Vec::<String>::new());
    assert_eq!(param("{ defualt: 1 }"), ["/params/a anyOf"]);
}
