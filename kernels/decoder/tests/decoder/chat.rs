//! How conversations become text.

use argent_decoder::{Message, Role};
use expect_test::expect;

use crate::golden::{assert_close, golden, numbers};
use crate::tiny::{Tiny, asked, strings};

/// A base model reads text as it stands, so what a template makes of a conversation can be given to it.
#[test]
fn conversations_are_rendered_as_by_transformers() {
    let golden = golden();
    let mut instructed = Tiny::of("llama").open();
    let mut base = Tiny { template: Some("{{ messages[0].content }}".into()), ..Tiny::of("llama") }.open();
    let sheet = base.sheet(&golden.questions, &golden.options).unwrap();
    for rendered in &golden.rendered {
        let messages: Vec<Message> = rendered.messages.iter().map(Message::from).collect();
        let found = instructed.decide(&[messages], &sheet).unwrap().remove(0).unwrap();
        let expected = base.decide(&[asked(&*rendered.text)], &sheet).unwrap().remove(0).unwrap();
        assert_eq!(found.tokens, expected.tokens);
        assert_close("rendered", &numbers(&found), &numbers(&expected), 1e-6);
    }
}

/// The day does not enter an answer.
#[test]
fn a_template_that_asks_for_the_date_is_told_a_fixed_one() {
    let dated = Tiny {
        template: Some("{{ strftime_now('%d %b %Y') }} {{ messages[0].content }}".into()),
        ..Tiny::of("llama")
    };
    let plain = Tiny { template: Some("{{ messages[0].content }}".into()), ..Tiny::of("llama") };
    let (mut dated, mut plain) = (dated.open(), plain.open());
    let sheet = plain.sheet(&strings(&["x:"]), &strings(&[" A", " B"])).unwrap();
    let found = dated.decide(&[asked("a question")], &sheet).unwrap();
    let expected = plain.decide(&[asked("26 Jul 2024 a question")], &sheet).unwrap();
    assert_eq!(found, expected);
}

#[test]
fn a_template_may_stand_in_its_own_file_or_under_a_name() {
    let several = serde_json::json!([
        { "name": "tool_use", "template": "{{ raise_exception('not this one') }}" },
        { "name": "default", "template": "<|turn|>{{ messages[0].content }}" }
    ]);
    let folder = tempfile::TempDir::new().unwrap();
    let tiny = Tiny::of("llama");
    tiny.write(folder.path());
    let config = serde_json::json!({ "chat_template": several });
    std::fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    let open = || {
        let files = crate::tiny::find(folder.path()).unwrap();
        argent_decoder::Model::open(&files, argent_decoder::Device::Cpu).unwrap()
    };
    let tokens = |model: &mut argent_decoder::Model| {
        let sheet = model.sheet(&strings(&["x:"]), &strings(&[" A", " B"])).unwrap();
        model.decide(&[asked("abc")], &sheet).unwrap().remove(0).unwrap().tokens
    };
    assert_eq!(tokens(&mut open()), 1 + 3 + 2);
    std::fs::write(folder.path().join("chat_template.jinja"), "<|turn|><|turn|>{{ messages[0].content }}")
        .unwrap();
    assert_eq!(tokens(&mut open()), 2 + 3 + 2);
}

#[test]
fn a_refused_conversation_is_told_without_its_text() {
    let mut model = Tiny::of("llama").open();
    let sheet = model.sheet(&strings(&["x:"]), &strings(&[" A", " B"])).unwrap();
    let mut prompt = asked("a secret report");
    prompt.push(Message { role: Role::System, content: "a secret instruction".into() });
    expect!["the model's chat template refuses a conversation of user, system (invalid operation at line 22); not every model takes a message of the system"].assert_eq(&model.decide(&[prompt], &sheet).unwrap_err().to_string());
}

#[test]
fn a_template_that_does_not_render_is_told_with_its_reason() {
    let refusal = |template: &str| Tiny { template: Some(template.into()), ..Tiny::of("llama") }.refusal();
    expect![[r#"
        the model's chat template does not render: invalid operation: no users (in chat_template:1)
        -------------------------------- chat_template --------------------------------
           1 > {{ raise_exception('no users') }}
             i    ^^^^^^^^^^^^^^^^^^^^^^^^^^^ invalid operation
        ~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
        Referenced variables: {
            raise_exception: argent_decoder::chat::raise_exception,
        }
        -------------------------------------------------------------------------------"#]]
    .assert_eq(&refusal("{{ raise_exception('no users') }}"));
    expect![[r#"
        the model's chat template is not understood: syntax error: unknown statement generation (in chat_template:1)
        -------------------------------- chat_template --------------------------------
           1 > {% generation %}
             i    ^^^^^^^^^^ syntax error
        ~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
        No referenced variables
        -------------------------------------------------------------------------------"#]].assert_eq(&refusal("{% generation %}"));
}
