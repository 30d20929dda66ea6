//! `label.llm` with a language model in process: no server, and a probability of each state.

use expect_test::expect;
use regex::Regex;
use serde_json::{Value, json};

use crate::sandbox::Sandbox;
use crate::tiny_model::{self, CONTEXT};

const PACK: &str = "
name: two
findings:
  - { id: effusion, name: pleural effusion, definition: Fluid in the pleural space. }
  - { id: nodule, name: lung nodule, definition: A rounded opacity. }
";

const PROMPT: &str = "Say what the report says.
{% for finding in findings %}- {{ finding.name }}: {{ finding.definition }}
{% endfor %}Report: {{ report.text }}
";

const REPORTS: &str = "id,text
a,There is a nodule.
b,No nodule. Possible effusion.
c,There is a nodule.
";

/// A pipeline whose endpoint has these parameters beside its kind and model, and whose step has more.
fn spec(endpoint: &str, more: &str) -> String {
    format!(
        "argent: 1
name: silver
steps:
  reports: {{ use: reports.table, with: {{ path: reports.csv, id: id, text: text }} }}
  labels:
    use: label.llm
    from: reports
    with:
      findings: pack.yaml
      prompt: prompt.md
      endpoint: {{ kind: local, model: models/tiny{endpoint} }}
{more}
"
    )
}

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new().with_variable("HF_HUB_CACHE", "hub");
    sandbox.write("pack.yaml", PACK).write("prompt.md", PROMPT).write("reports.csv", REPORTS);
    sandbox.write("silver.yaml", &spec("", ""));
    tiny_model::write(&sandbox.path("models/tiny"), 1);
    sandbox
}

/// The line about `labels` of a run with these words, without its seconds: what was made, and how many prompts the model
/// read for it.
fn labels(sandbox: &Sandbox, words: &[&str]) -> String {
    line(&sandbox.succeeds(&[&["run", "silver.yaml"], words].concat()).err)
}

fn line(said: &str) -> String {
    let line = said.lines().find(|line| line.starts_with("labels ")).unwrap();
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    Regex::new(r", [0-9.]+ s\b").unwrap().replace(&line, "").into_owned()
}

#[test]
fn each_state_has_a_probability_and_each_report_is_read_once() {
    let sandbox = sandbox();
    assert_eq!(labels(&sandbox, &[]), "labels made 6 rows, 2 requests");
    let sums = "select count(*), max(abs(p_present + p_absent + p_uncertain + p_not_mentioned - 1)) < 1e-9,
                min(label_mass) > 0 and max(label_mass) < 1, bool_and(score = p_present) from labels";
    assert_eq!(sandbox.sql(sums), ["6,true,true,true"]);
    let likeliest = "select count(*) from labels where case state
                     when 'present' then p_present when 'absent' then p_absent
                     when 'uncertain' then p_uncertain else p_not_mentioned end
                     < greatest(p_present, p_absent, p_uncertain, p_not_mentioned)";
    assert_eq!(sandbox.sql(likeliest), ["0"]);
    let alike = "select count(distinct p_present) from labels where finding = 'nodule' and id in ('a', 'c')";
    assert_eq!(sandbox.sql(alike), ["1"]);
    // What costs nothing and what is not known are two things.
    let calls = "select model, tokens_in > 200, tokens_cached > 100, tokens_out, usd from labels.calls";
    assert_eq!(sandbox.sql(calls), ["models/tiny,true,true,0,", "models/tiny,true,true,0,"]);
    assert_eq!(labels(&sandbox, &[]), "labels reused 6 rows");
}

#[test]
fn the_model_is_asked_the_prompt_and_what_its_letters_mean() {
    let sandbox = sandbox();
    sandbox.succeeds(&["run", "silver.yaml"]);
    let request = sandbox.sql("select request from labels.calls where request like '%Possible%'").remove(0);
    let request = request[1..request.len() - 1].replace("\"\"", "\"");
    let mut request: Value = serde_json::from_str(&request).unwrap();
    let identity = request["identity"].take();
    assert_eq!(identity.as_str().unwrap().len(), 64);
    expect![[r#"
        {
          "dialect": "local",
          "model": "LlamaForCausalLM",
          "identity": null,
          "messages": [
            {
              "role": "user",
              "content": "Say what the report says.\n- pleural effusion: Fluid in the pleural space.\n- lung nodule: A rounded opacity.\nReport: No nodule. Possible effusion.\n\nAnswer with one letter: A present, B absent, C uncertain, D not mentioned."
            }
          ],
          "sample": 0,
          "questions": [
            {
              "name": "effusion",
              "instructions": "pleural effusion:",
              "options": {
                "choice": [
                  [
                    "present",
                    "the report says that the finding is there"
                  ],
                  [
                    "absent",
                    "the report says that the finding is not there"
                  ],
                  [
                    "uncertain",
                    "the report leaves open whether the finding is there"
                  ],
                  [
                    "not_mentioned",
                    "the report says nothing about the finding"
                  ]
                ]
              }
            },
            {
              "name": "nodule",
              "instructions": "lung nodule:",
              "options": {
                "choice": [
                  [
                    "present",
                    "the report says that the finding is there"
                  ],
                  [
                    "absent",
                    "the report says that the finding is not there"
                  ],
                  [
                    "uncertain",
                    "the report leaves open whether the finding is there"
                  ],
                  [
                    "not_mentioned",
                    "the report says nothing about the finding"
                  ]
                ]
              }
            }
          ]
        }"#]].assert_eq(&serde_json::to_string_pretty(&request).unwrap());
}

#[test]
fn a_model_is_what_its_files_are_and_not_where_they_lie_or_when_they_changed() {
    let sandbox = sandbox();
    labels(&sandbox, &[]);
    let before = sandbox.sql("select id, finding, p_present from labels order by 1, 2");
    // The same model written again, and another time at another place: its answers are known.
    tiny_model::write(&sandbox.path("models/tiny"), 1);
    assert_eq!(labels(&sandbox, &[]), "labels made 6 rows");
    std::fs::rename(sandbox.path("models/tiny"), sandbox.path("models/moved")).unwrap();
    sandbox.write("silver.yaml", &spec("", "").replace("models/tiny", "models/moved"));
    assert_eq!(labels(&sandbox, &[]), "labels made 6 rows");
    tiny_model::write(&sandbox.path("models/moved"), 2);
    let why = sandbox.succeeds(&["why", "silver.yaml", "labels"]).out;
    assert!(why.contains("models/moved model.safetensors.modified_ns: "), "{why}");
    assert_eq!(labels(&sandbox, &[]), "labels made 6 rows, 2 requests");
    assert_ne!(sandbox.sql("select id, finding, p_present from labels order by 1, 2"), before);
}

#[test]
fn asked_one_by_one_an_edited_definition_asks_that_finding_again() {
    let sandbox = sandbox();
    let more = "      mode: per_finding\n      price: { input: 1, output: 0 }\n";
    sandbox.write("silver.yaml", &spec("", more));
    sandbox
        .write("prompt.md", "{{ finding.name }} is: {{ finding.definition }}\nReport: {{ report.text }}\n");
    assert_eq!(labels(&sandbox, &[]), "labels made 6 rows, 4 requests, $0.0007");
    assert_eq!(sandbox.sql("select count(*), count(usd), sum(tokens_out) from labels.calls"), ["4,4,0"]);
    sandbox.write("pack.yaml", &PACK.replace("A rounded opacity.", "A round opacity."));
    let plan = sandbox.succeeds(&["plan", "silver.yaml"]).out;
    assert!(plan.contains("2 requests"), "{plan}");
    assert_eq!(labels(&sandbox, &[]), "labels made 6 rows, 2 requests, $0.0003");
}

#[test]
fn a_report_that_is_too_long_is_an_error_row_and_never_cut() {
    let sandbox = sandbox();
    let long = "word ".repeat(CONTEXT);
    sandbox.write("reports.csv", &format!("{REPORTS}d,{long}\n"));
    assert_eq!(labels(&sandbox, &[]), "labels made 8 rows, 1 failed, 2 requests");
    let errors = sandbox.sql("select id, kind, message, retryable from labels.errors");
    expect![[r#"d,context_length,"the prompt has 2773 tokens, expected at most 512; the model cannot read it whole, and it was not cut",false"#]].assert_eq(&errors.join("\n"));
    assert_eq!(sandbox.sql("select state, count(*) from labels where id = 'd' group by 1"), ["failed,2"]);
    assert_eq!(labels(&sandbox, &[]), "labels reused 8 rows");
}

#[test]
fn prompts_are_swept_with_one_model() {
    let sandbox = sandbox();
    let reports =
        "id,part,truth,text\na,dev,present,An effusion.\nb,dev,absent,No effusion.\nc,test,absent,Clear.\n";
    sandbox.write("pack.yaml", PACK.split("  - { id: nodule").next().unwrap());
    sandbox.write("reports.csv", reports).write("prompts/other.md", "Read this.\n{{ report.text }}\n");
    std::fs::rename(sandbox.path("prompt.md"), sandbox.path("prompts/first.md")).unwrap();
    sandbox.write(
        "silver.yaml",
        "argent: 1
name: silver
steps:
  reports: { use: reports.table, with: { path: reports.csv, id: id, text: text, keep: [part, truth] } }
  truth: { use: sql, from: { reports: reports }, with: { keys: [id, finding], query: \"select id, 'effusion' as finding, truth as state from reports\" } }
  split: { use: sql, from: { reports: reports }, with: { keys: [id], query: \"select id, part from reports\" } }
  labels:
    use: prompt.sweep
    from: { reports: reports, truth: truth, split: split }
    with:
      prompts: prompts/*.md
      findings: pack.yaml
      endpoint: { kind: local, model: models/tiny }
      uncertain: zero
      bootstrap: { draws: 50 }
",
    );
    // Two prompts on two reports, and the better one on the third.
    assert_eq!(labels(&sandbox, &[]), "labels made 2 rows, 5 requests");
    assert_eq!(sandbox.sql("select count(*) from labels.calls where usd is null"), ["5"]);
}

#[test]
fn a_limit_of_dollars_needs_no_price_where_nothing_is_paid() {
    let sandbox = sandbox();
    assert_eq!(labels(&sandbox, &["--max-usd", "0.01"]), "labels made 6 rows, 2 requests");
}

#[test]
fn a_budget_stops_between_two_reports() {
    let sandbox = sandbox();
    let more = "      price: { input: 1000000, output: 0 }\n      budget: { usd: 300 }\n";
    sandbox.write("silver.yaml", &spec("", more));
    let said = sandbox.argent(&["run", "silver.yaml"]);
    assert_eq!(said.code, 3, "{}", said.err);
    assert_eq!(sandbox.sql("select count(*) from labels.calls"), ["1"]);
    sandbox.write("silver.yaml", &spec("", &more.replace("300", "3000")));
    assert_eq!(labels(&sandbox, &[]), "labels made 6 rows, 1 made, 2 reused, 1 request, $248.0000");
}

#[test]
fn what_is_no_model_is_told_before_anything_runs() {
    let refused = |endpoint: &str, more: &str, change: &dyn Fn(&Sandbox)| {
        let sandbox = sandbox();
        sandbox.write("silver.yaml", &spec(endpoint, more));
        change(&sandbox);
        let said = sandbox.argent(&["check", "silver.yaml"]);
        assert_eq!(said.code, 2, "{}", said.err);
        let kept = |line: &&str| line.starts_with("error: ") || line.starts_with("help: ");
        said.err.lines().filter(kept).map(|line| format!("{line}\n")).collect::<String>()
    };
    let gone = |sandbox: &Sandbox| std::fs::remove_dir_all(sandbox.path("models")).unwrap();
    expect![[r#"
        error: models/tiny is neither a folder nor a model in the hub cache hub
        help: `hf download models/tiny` puts one there, HF_HUB_CACHE names another cache
    "#]]
    .assert_eq(&refused("", "", &gone));
    let other = |sandbox: &Sandbox| {
        sandbox.write("models/tiny/config.json", "{\"architectures\": [\"GPT2LMHeadModel\"]}");
    };
    expect![[r#"
        error: the model's architecture is GPT2LMHeadModel, expected LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM or Qwen3ForCausalLM
        help: name a folder with a model, or one in the hub cache
    "#]]
    .assert_eq(&refused("", "", &other));
    let foreign = ", base_url: \"http://127.0.0.1:1/v1\", api_key: { env: KEY }, questions: predicate";
    expect![[r#"
        error: a model in process has no address
        help: take it away, or say which dialect the server speaks
        error: a model in process takes no key
        help: take it away, or say which dialect the server speaks
        error: a model in process is asked which state a report says, expected `choice`
        help: take it away, or say which dialect the server speaks
        error: a model in process gives the same answer each time
        help: take it away
        error: a model in process says how likely states are, and quotes nothing
        help: take it away
    "#]]
    .assert_eq(&refused(foreign, "      samples: 3\n      evidence: true", &|_| ()));
    let server = |sandbox: &Sandbox| {
        sandbox.write("silver.yaml", &spec(", device: cuda", "").replace("kind: local, ", ""));
    };
    expect![[r#"
        error: the endpoint has no `base_url`
        help: add the address of a server, such as `base_url: http://127.0.0.1:8000/v1`, or say `kind: local` for a model in process
        error: `device` is for a model in process; a server has its own
        help: take it away, or say `kind: local`
    "#]].assert_eq(&refused("", "", &server));
}

#[test]
fn doctor_looks_whether_the_model_can_be_asked() {
    let found = |endpoint: &str, change: &dyn Fn(&Sandbox)| {
        let sandbox = sandbox();
        sandbox.write("silver.yaml", &spec(endpoint, ""));
        change(&sandbox);
        let said = sandbox.argent(&["doctor", "silver.yaml", "--probe", "--json"]);
        let value: Value = serde_json::from_str(&said.out).unwrap();
        let line = |c: &Value| {
            let word = |name: &str| {
                c[name].as_str().unwrap_or("-").replace(&*sandbox.path("").to_string_lossy(), "@/")
            };
            format!("{} {}: {}: {}\n", c["ok"], word("subject"), word("found"), word("advice"))
        };
        let all = value["conditions"].as_array().unwrap().iter();
        all.filter(|c| c["step"] == "labels").map(line).collect::<String>()
    };
    expect![[r#"
        true model models/tiny: LlamaForCausalLM of 6320 parameters; reads up to 512 tokens, and can be asked: -
    "#]].assert_eq(&found("", &|_| ()));
    let cut = |sandbox: &Sandbox| {
        let path = sandbox.path("models/tiny/model.safetensors");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() - 4]).unwrap();
    };
    expect![[r#"
        false model models/tiny: ./models/tiny/model.safetensors is no safetensors file: model.layers.0.mlp.down_proj.weight lies at 23744 to 25280 of 25276 bytes, which does not fit its shape [16, 24]: was it downloaded fully?
    "#]].assert_eq(&found("", &cut));
    let letters = |sandbox: &Sandbox| {
        let mut tokenizer: Value = serde_json::from_str(&sandbox.read("models/tiny/tokenizer.json")).unwrap();
        tokenizer["model"]["merges"] = json!([]);
        sandbox.write("models/tiny/tokenizer.json", &tokenizer.to_string());
    };
    expect![[r#"
        false model models/tiny: the option ` A` is 2 tokens of this model behind the question `pleural effusion:`, expected 1: a single letter is one with most models
    "#]].assert_eq(&found("", &letters));
    expect![[r#"
        true model models/tiny: LlamaForCausalLM of 6320 parameters; reads up to 512 tokens, and can be asked: -
        false device cuda: this argent was built without GPU support: build it with the feature `cuda`, or say `device: cpu`
    "#]].assert_eq(&found(", device: cuda", &|_| ()));
}

#[test]
fn a_model_that_is_to_compute_on_a_gpu_never_falls_back() {
    let sandbox = sandbox();
    sandbox.write("silver.yaml", &spec(", device: cuda", ""));
    let said = sandbox.argent(&["run", "silver.yaml"]);
    assert_eq!(said.code, 1);
    expect!["labels failed the model is to compute on a GPU and the step has none to itself; add `needs: { gpu: 1 }`"].assert_eq(&line(&said.err));
    sandbox.write("silver.yaml", &spec(", device: cuda", "    needs: { gpu: 1 }"));
    let said = sandbox.argent(&["run", "silver.yaml"]);
    assert_eq!(said.code, 1);
    expect!["labels failed the step needs 1 gpu, and this argent was built without GPU support; it does not fall back to the CPU"].assert_eq(&line(&said.err));
}
