//! What a model answers, and on what that does not depend.

#[cfg(feature = "cuda")]
use argent_decoder::Device;
use argent_decoder::{Answer, Message, Model};
use serde_json::json;
use tokenizers::Tokenizer;

use crate::golden::{StoredDecision, TOKENIZER, assert_close, golden, numbers};
use crate::reference::{logits, softmax};
use crate::tiny::{Tiny, asked, strings};

/// f32 beside f64.
const TOLERANCE: f64 = 2e-4;
/// f32 beside f32 in another order.
const REPEATED: f64 = 2e-5;

#[test]
fn every_architecture_answers_as_in_transformers() {
    let golden = golden();
    for (name, case) in &golden.cases {
        let mut model = Tiny::of(name).open();
        let sheet = model.sheet(&golden.questions, &golden.options).unwrap();
        let answers = decided(&mut model, &golden.prompts(name != "mistral"), &sheet);
        for (answer, expected) in answers.iter().zip(&case.answers) {
            let expected: Vec<f64> = expected.iter().flat_map(StoredDecision::numbers).collect();
            assert_close(name, &numbers(answer), &expected, TOLERANCE);
        }
    }
}

/// Prompts that are longer than a block of queries and than a chunk of the prefix, of different lengths, with windows
/// that end in the prefix and in the body.
#[test]
fn long_prompts_answer_as_in_one_pass_per_question() {
    let windowed = json!(300);
    for (case, window) in [("llama", json!(null)), ("mistral", windowed.clone()), ("qwen2", windowed)] {
        let tiny = Tiny::of(case).with("sliding_window", window);
        let mut model = tiny.open();
        let (questions, options) = (strings(&["lung nodule:", "heart:"]), strings(&[" A", " B", "C"]));
        let sheet = model.sheet(&questions, &options).unwrap();
        let prompts = [asked(report(600, 3)), asked(report(600, 290)), asked(report(600, 40))];
        let answers = decided(&mut model, &prompts, &sheet);
        for (prompt, answer) in prompts.iter().zip(&answers) {
            assert!(answer.tokens_cached > 512, "{} tokens are shared", answer.tokens_cached);
            let expected = by_reference(&tiny, &prompt[0].content, &questions, &options);
            assert_close(case, &numbers(answer), &expected, TOLERANCE);
        }
    }
}

#[test]
fn an_answer_does_not_depend_on_other_prompts_of_this_call_or_an_earlier_one() {
    for case in ["llama", "mistral", "qwen3"] {
        let golden = golden();
        let prompts = golden.prompts(case != "mistral");
        let mut model = Tiny::of(case).open();
        let sheet = model.sheet(&golden.questions, &golden.options).unwrap();
        let alone: Vec<Answer> = prompts
            .iter()
            .map(|prompt| decided(&mut Tiny::of(case).open(), std::slice::from_ref(prompt), &sheet).remove(0))
            .collect();
        let mut backwards = prompts.clone();
        backwards.reverse();
        let together = decided(&mut model, &prompts, &sheet);
        let mut again = decided(&mut model, &backwards, &sheet);
        again.reverse();
        // The prefix of this call is all of one prompt, and the next one has only its beginning.
        let one_by_one: Vec<Answer> = prompts
            .iter()
            .map(|prompt| decided(&mut model, std::slice::from_ref(prompt), &sheet).remove(0))
            .collect();
        for others in [together, again, one_by_one] {
            for (alone, other) in alone.iter().zip(&others) {
                assert_close(case, &numbers(other), &numbers(alone), REPEATED);
            }
        }
    }
}

#[test]
fn what_prompts_begin_with_is_counted_as_read_once() {
    let mut model = Tiny { template: None, ..Tiny::of("llama") }.open();
    let sheet = model.sheet(&strings(&["x:"]), &strings(&["A", "B"])).unwrap();
    let counted = |model: &mut Model, prompts: &[&str]| {
        let prompts: Vec<Vec<Message>> = prompts.iter().map(|prompt| asked(*prompt)).collect();
        let answers = decided(model, &prompts, &sheet);
        answers.iter().map(|answer| (answer.tokens, answer.tokens_cached)).collect::<Vec<_>>()
    };
    // Bytes are tokens; two line ends and the question follow each prompt.
    assert_eq!(counted(&mut model, &["same b", "same cc", "same"]), [(10, 4), (11, 4), (8, 4)]);
    assert_eq!(counted(&mut model, &["same", "same"]), [(8, 6), (8, 6)]);
    assert_eq!(counted(&mut model, &["one", "two"]), [(7, 0), (7, 0)]);
    assert_eq!(counted(&mut model, &[]), []);
}

#[test]
fn questions_do_not_see_each_other() {
    let golden = golden();
    let mut model = Tiny::of("qwen3").open();
    let prompts = golden.prompts(true);
    let sheet = model.sheet(&golden.questions, &golden.options).unwrap();
    let all = decided(&mut model, &prompts, &sheet);
    let order = [2, 0, 1];
    let permuted: Vec<String> = order.iter().map(|index| golden.questions[*index].clone()).collect();
    let sheet = model.sheet(&permuted, &golden.options).unwrap();
    for (answer, permuted) in all.iter().zip(decided(&mut model, &prompts, &sheet)) {
        for (place, index) in order.into_iter().enumerate() {
            let (found, expected) = (&permuted.decisions[place], &answer.decisions[index]);
            assert_close("permuted", &found.probabilities, &expected.probabilities, REPEATED);
        }
    }
    let sheet = model.sheet(&golden.questions[1..2], &golden.options).unwrap();
    for (answer, alone) in all.iter().zip(decided(&mut model, &prompts, &sheet)) {
        let (found, expected) = (&alone.decisions[0], &answer.decisions[1]);
        assert_close("alone", &found.probabilities, &expected.probabilities, REPEATED);
    }
}

#[test]
fn probabilities_add_up_and_the_mass_is_theirs_of_the_whole_vocabulary() {
    let golden = golden();
    let mut model = Tiny::of("llama_3").open();
    let sheet = model.sheet(&golden.questions, &golden.options).unwrap();
    for answer in decided(&mut model, &golden.prompts(true), &sheet) {
        for decision in answer.decisions {
            assert!((decision.probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            assert!(decision.label_mass > 0.0 && decision.label_mass < 0.1, "{}", decision.label_mass);
        }
    }
}

/// A GPU computes in bf16, of which two numbers differ by up to a share of 1/256.
#[cfg(feature = "cuda")]
#[test]
fn a_gpu_answers_as_the_processor() {
    let golden = golden();
    for case in golden.cases.keys() {
        let prompts = golden.prompts(case != "mistral");
        let (mut processor, mut gpu) = (Tiny::of(case).open(), Tiny::of(case).open_on(Device::Cuda(0)));
        let sheet = processor.sheet(&golden.questions, &golden.options).unwrap();
        let expected = decided(&mut processor, &prompts, &sheet);
        for (found, expected) in decided(&mut gpu, &prompts, &sheet).iter().zip(&expected) {
            let (found, expected) = (numbers(found), numbers(expected));
            let furthest = found.iter().zip(&expected).map(|(found, expected)| (found - expected).abs());
            assert!(furthest.fold(0.0, f64::max) < 0.05, "{case}: {found:?}, expected {expected:?}");
        }
    }
}

/// A text that begins with the same `shared` letters as all of them.
fn report(shared: usize, own: usize) -> String {
    let words = "the lungs are clear and the heart is of normal size without effusion ";
    let shared: String = words.chars().cycle().take(shared).collect();
    shared + &format!("{own} mm: ") + &words.chars().rev().cycle().take(own).collect::<String>()
}

fn decided(model: &mut Model, prompts: &[Vec<Message>], sheet: &argent_decoder::Sheet) -> Vec<Answer> {
    model.decide(prompts, sheet).unwrap().into_iter().map(Result::unwrap).collect()
}

/// The numbers of an answer, computed by the plain network from a text as the template of the goldens writes it.
fn by_reference(model: &Tiny, content: &str, questions: &[String], options: &[String]) -> Vec<f64> {
    let tokenizer: Tokenizer = TOKENIZER.parse().unwrap();
    let encode = |text: &str| tokenizer.encode(text, false).unwrap().get_ids().to_vec();
    let content = content.trim_end_matches('\n');
    let prompt = format!("<|begin|><|turn|>user\n{content}<|end|>\n<|turn|>assistant\n<think>\n\n</think>");
    let decision = |question: &String| {
        let asked = [encode(&prompt), encode(question)].concat();
        let likelihoods = softmax(&logits(model, &asked));
        let chosen = options.iter().map(|option| encode(&format!("{question}{option}")).pop().unwrap());
        let chosen: Vec<f64> = chosen.map(|token| likelihoods[token as usize]).collect();
        let mass: f64 = chosen.iter().sum();
        chosen.iter().map(|likelihood| likelihood / mass).chain([mass]).collect::<Vec<f64>>()
    };
    questions.iter().flat_map(decision).collect()
}
