//! Where values stand, and what is said of each mistake.

use std::time::{Duration, Instant};

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::diagnostic::Sources;

fn read(text: &str) -> Result<Node, Vec<Diagnostic>> {
    let file = Sources::default().add("p.yaml", text);
    parse(file, text)
}

fn parsed(text: &str) -> Node {
    read(text).unwrap_or_else(|mistakes| panic!("{text:?} is well formed: {mistakes:?}"))
}

/// Each mistake as `line:column «what is underlined» message`, then its other labels, notes and help.
fn check(text: &str, expected: Expect) {
    let mut sources = Sources::default();
    let file = sources.add("p.yaml", text);
    let mistakes = parse(file, text).expect_err("the text has a mistake");
    let mut shown = String::new();
    for mistake in mistakes {
        let at = |span: Span| {
            let position = sources.get(file).position(span.start);
            format!("{}:{} «{}»", position.line, position.column, &text[span.start..span.end])
        };
        shown += &format!("{} {}\n", at(mistake.labels[0].0), mistake.message);
        for (span, label) in &mistake.labels[1..] {
            shown += &format!("  {} {label}\n", at(*span));
        }
        for note in &mistake.notes {
            shown += &format!("  note: {note}\n");
        }
        if let Some(help) = &mistake.help {
            shown += &format!("  help: {help}\n");
        }
    }
    expected.assert_eq(&shown);
}

fn json(text: &str) -> String {
    parsed(text).to_json().to_string()
}

/// Every key and value with the text its span covers, one line each.
fn spans(text: &str) -> String {
    fn walk(text: &str, node: &Node, depth: usize, out: &mut String) {
        let indent = "  ".repeat(depth);
        *out += &format!("{indent}{} {:?}\n", node.describe(), &text[node.span.start..node.span.end]);
        match &node.kind {
            Kind::List(items) => items.iter().for_each(|item| walk(text, item, depth + 1, out)),
            Kind::Map(entries) => {
                for entry in entries {
                    let written = &text[entry.key_span.start..entry.key_span.end];
                    *out += &format!("{indent}  {}: key {written:?}\n", entry.key);
                    walk(text, &entry.value, depth + 2, out);
                }
            }
            _ => {}
        }
    }
    let mut out = String::new();
    walk(text, &parsed(text), 0, &mut out);
    out
}

#[test]
fn spans_are_bytes_also_after_other_alphabets_and_with_carriage_returns() {
    expect![[r#"
        a mapping "é: [1, 2.5 , ü]\r\nb: \"q é\"\r\nc:\r\nd: {x: 'y', z: }"
          é: key "é"
            a list "[1, 2.5 , ü]"
              a whole number "1"
              a decimal number "2.5"
              text "ü"
          b: key "b"
            text "\"q é\""
          c: key "c"
            nothing ""
          d: key "d"
            a mapping "{x: 'y', z: }"
              x: key "x"
                text "'y'"
              z: key "z"
                nothing ""
    "#]]
    .assert_eq(&spans("é: [1, 2.5 , ü]\r\nb: \"q é\"\r\nc:\r\nd: {x: 'y', z: }  # }\r\n"));
}

#[test]
fn spans_of_blocks_end_with_their_text() {
    expect![[r#"
        a mapping "a: |\n  hello\n  you\n\nb:\n  - x  # c\n  -\n  - {k: [1, # ]\n 2]}\nc: d\n e"
          a: key "a"
            text "hello\n  you"
          b: key "b"
            a list "- x  # c\n  -\n  - {k: [1, # ]\n 2]}"
              text "x"
              nothing ""
              a mapping "{k: [1, # ]\n 2]}"
                k: key "k"
                  a list "[1, # ]\n 2]"
                    a whole number "1"
                    a whole number "2"
          c: key "c"
            text "d\n e"
    "#]]
    .assert_eq(&spans("a: |\n  hello\n  you\n\nb:\n  - x  # c\n  -\n  - {k: [1, # ]\n 2]}\nc: d\n e\n\n"));
}

#[test]
fn aliases_are_where_they_are_used_and_their_insides_where_they_are_defined() {
    expect![[r#"
        a mapping "c: &c {lr: 1, q: [2]}\nl: &l 7\ns:\n  <<: *c\n  b: *l\n  e: *c\n  f: [*l]"
          c: key "c"
            a mapping "{lr: 1, q: [2]}"
              lr: key "lr"
                a whole number "1"
              q: key "q"
                a list "[2]"
                  a whole number "2"
          l: key "l"
            a whole number "7"
          s: key "s"
            a mapping "<<: *c\n  b: *l\n  e: *c\n  f: [*l]"
              b: key "b"
                a whole number "*l"
              e: key "e"
                a mapping "*c"
                  lr: key "lr"
                    a whole number "1"
                  q: key "q"
                    a list "[2]"
                      a whole number "2"
              f: key "f"
                a list "[*l]"
                  a whole number "*l"
              lr: key "lr"
                a whole number "1"
              q: key "q"
                a list "[2]"
                  a whole number "2"
    "#]]
    .assert_eq(&spans("c: &c {lr: 1, q: [2]}\nl: &l 7\ns:\n  <<: *c\n  b: *l\n  e: *c\n  f: [*l]\n"));
}

#[test]
fn merge_keys_give_way_to_the_keys_beside_them() {
    expect![[r#"{"a":{"x":1,"y":2},"b":{"y":3,"z":4},"c":{"x":0,"y":2,"z":4}}"#]]
        .assert_eq(&json("a: &a {x: 1, y: 2}\nb: &b {y: 3, z: 4}\nc:\n  <<: [*a, *b]\n  x: 0\n"));
}

#[test]
fn scalars_are_of_yaml_1_2() {
    expect![[r#"["no","yes","on",null,null,true,7,-7,15,31,"1_000",5,12000.0,0.5,1.0,"1","12:30","2024-01-01",".5.6"]"#]].assert_eq(&json(
        "[no, yes, on, ~, null, true, 007, -007, 0o17, 0x1F, 1_000, +5, 12e3, .5, 1., '1', 12:30, 2024-01-01, .5.6]",
    ));
    expect!["[-9223372036854775808,9223372036854775807,1.0,100.0]"]
        .assert_eq(&json("[-9223372036854775808, 9223372036854775807, 1.0, 1e2]"));
}

#[test]
fn empty_files_are_nothing() {
    for text in ["", "\n\n", "# only a comment\n", "---\n"] {
        assert_eq!(parsed(text).kind, Kind::Null, "{text:?}");
    }
}

#[test]
fn byte_order_mark_is_skipped() {
    assert_eq!(spans("\u{feff}a: x\n"), "a mapping \"a: x\"\n  a: key \"a\"\n    text \"x\"\n");
    check(
        "\u{feff}a: @x\n",
        expect![[r#"
        1:4 «@x» a value cannot begin with `@`
          help: put the value in quotes
    "#]],
    );
}

#[test]
fn get_finds_keys_of_mappings_only() {
    let node = parsed("a: {b: 1}\n");
    assert_eq!(node.get("a").and_then(|a| a.get("b")).map(|b| &b.kind), Some(&Kind::Int(1)));
    assert_eq!(node.get("b"), None);
    assert_eq!(parsed("[a]").get("a"), None);
}

#[test]
fn all_duplicate_keys_are_found_with_both_places() {
    check(
        "a: 1\nb: {x: 1, \"x\": 2}\na: 3\na: 4\n",
        expect![[r#"
        2:11 «"x"» `x` is defined twice in one mapping
          2:5 «x» first defined here
          help: remove one of the two, or give it another name
        3:1 «a» `a` is defined twice in one mapping
          1:1 «a» first defined here
          help: remove one of the two, or give it another name
        4:1 «a» `a` is defined twice in one mapping
          1:1 «a» first defined here
          help: remove one of the two, or give it another name
    "#]],
    );
}

#[test]
fn duplicate_in_a_repeated_mapping_is_told_once() {
    check(
        "a: &a {x: 1, x: 2}\nb: *a\nc: {<<: *a}\n",
        expect![[r#"
        1:14 «x» `x` is defined twice in one mapping
          1:8 «x» first defined here
          help: remove one of the two, or give it another name
    "#]],
    );
}

#[test]
fn numbers_out_of_range_are_refused() {
    check(
        "a: 9223372036854775808\nb: 99999999999999999999\nc: 0xFFFFFFFFFFFFFFFF\n",
        expect![[r#"
        1:4 «9223372036854775808» this whole number is out of range: expected -9223372036854775808 to 9223372036854775807
          help: put it in quotes if it is a name, not a number
        2:4 «99999999999999999999» this whole number is out of range: expected -9223372036854775808 to 9223372036854775807
          help: put it in quotes if it is a name, not a number
        3:4 «0xFFFFFFFFFFFFFFFF» this whole number is out of range: expected -9223372036854775808 to 9223372036854775807
          help: put it in quotes if it is a name, not a number
    "#]],
    );
    check(
        "a: .nan\n",
        expect![[r#"
        1:4 «.nan» `.nan` is not a finite number
          help: write a finite number, or put it in quotes to make it text
    "#]],
    );
    check(
        "a: 1e999\n",
        expect![[r#"
        1:4 «1e999» `1e999` is not a finite number
          help: write a finite number, or put it in quotes to make it text
    "#]],
    );
}

#[test]
fn tabs() {
    check(
        "a:\n\t- b\n",
        expect![[r#"
        2:1 «	» a tab stands where spaces are expected
          help: indent with spaces
    "#]],
    );
    check(
        "é:\r\n  x: 1\r\n\ty: 2\r\n",
        expect![[r#"
        3:1 «	» a tab stands where spaces are expected
          help: indent with spaces
    "#]],
    );
}

#[test]
fn brackets() {
    check(
        "a: [1, 2\nb: 3\n",
        expect![[r#"
        2:2 «:» a `:` cannot stand here, inside `[ ]`
          help: close the `[` above, or put the value in quotes
    "#]],
    );
    check(
        "a: b\n# é\nc: [é, é\n",
        expect![[r#"
        3:4 «[» this `[` is never closed
          help: add `]`
    "#]],
    );
    check(
        "a: {b: 1]\n",
        expect![[r#"
        1:4 «{» this `{` is closed by `]`
          help: close it with `}`
    "#]],
    );
    check(
        "a: [1 2]]\n",
        expect![[r#"
        1:9 «]» this bracket closes nothing
          help: remove it, or open it before
    "#]],
    );
    check(
        "a: {b: 1 c: 2}\n",
        expect![[r#"
        1:11 «:» expected `,` or `}`
          help: separate the items by commas, and put a value that holds brackets in quotes
    "#]],
    );
    check(
        "a: {b: 'x' 'y'}\n",
        expect![[r#"
        1:12 «'y'» text stands after the closing quote
          help: inside single quotes write `'` as `''`
    "#]],
    );
}

#[test]
fn placeholders_in_brackets() {
    check(
        "a: {b: ${params.x}}\n",
        expect![[r#"
        1:8 «${params.x}» inside `[ ]` and `{ }` a `${…}` needs quotes
          help: write "${params.x}"
    "#]],
    );
    check(
        "a: [${params.x}, 1]\n",
        expect![[r#"
        1:5 «${params.x}» inside `[ ]` and `{ }` a `${…}` needs quotes
          help: write "${params.x}"
    "#]],
    );
    assert_eq!(json("a: ${params.x}/b\n"), r#"{"a":"${params.x}/b"}"#);
}

#[test]
fn quotes() {
    check(
        "a: \"x\nb: 1\n",
        expect![[r#"
        1:4 «"» this quote is never closed
          help: close it on the same line
    "#]],
    );
    check(
        "a: 'x\n",
        expect![[r#"
        1:4 «'» this quote is never closed
          help: close it on the same line
    "#]],
    );
    check(
        "a: 'it's'\n",
        expect![[r#"
        1:8 «s'» text stands after the closing quote
          help: inside single quotes write `'` as `''`
    "#]],
    );
    check(
        "a: \"x\" y\n",
        expect![[r#"
        1:8 «y» text stands after the closing quote
          help: inside double quotes write `"` as `\"`
    "#]],
    );
    check(
        "a: \"\\d+\"\n",
        expect![[r#"
        1:4 «"\d+"» a `\` in double quotes begins an escape that YAML does not know
          help: use single quotes, or write `\\`
    "#]],
    );
    check(
        "a: @x\n",
        expect![[r#"
        1:4 «@x» a value cannot begin with `@`
          help: put the value in quotes
    "#]],
    );
    check(
        "a: `x`\n",
        expect![[r#"
        1:4 «`x`» a value cannot begin with a backtick
          help: put the value in quotes
    "#]],
    );
    check(
        "a: \u{1}\n",
        expect![[r#"
        1:4 «» the control character U+0001 is not allowed
          help: remove it
    "#]],
    );
}

#[test]
fn colons_and_indentation() {
    check(
        "a: b: c\n",
        expect![[r#"
        1:5 «:» a `:` cannot stand here
          help: put a value that holds `: ` in quotes
    "#]],
    );
    check(
        "a: 1\n  b: 2\n",
        expect![[r#"
        2:4 «:» a `:` cannot stand here
          help: the value above goes on in this line: indent the line as the other keys are
    "#]],
    );
    check(
        "a:\n  - b\n c: 1\n",
        expect![[r#"
        3:2 «c» this line does not line up with the keys above
          help: indent it as the other keys are
    "#]],
    );
    check(
        "- a\nb: 1\n",
        expect![[r#"
        2:1 «b» expected another `-`, found a line that does not belong to the list above
          help: indent it as part of the last item, or less than the list
    "#]],
    );
    check(
        "a: 1\nfoo\nb: 2\n",
        expect![[r#"
        2:1 «foo» expected `key: value`, found text alone
          help: write `:` and a space after the key
    "#]],
    );
    check(
        "a: - b\n",
        expect![[r#"
        1:4 «-» a `-` item cannot stand here
          help: put the list on lines of its own below the key, or write it in `[ ]`
    "#]],
    );
    check(
        "a: |\n    x\n  y\nb: 1\n",
        expect![[r#"
        3:3 «y» this line does not line up with the keys above
          help: indent it as the other keys are
    "#]],
    );
}

#[test]
fn keys_that_are_no_text() {
    check(
        "~: c\n",
        expect![[r#"
        1:1 «~» expected text as a key, found nothing
    "#]],
    );
    check(
        "[1]: a\n",
        expect![[r#"
        1:1 «[1» expected text as a key, found a list or a mapping
          help: put the key in quotes
    "#]],
    );
    assert_eq!(json("{1: a, true: b, 0.5: c}"), r#"{"1":"a","true":"b","0.5":"c"}"#);
}

#[test]
fn anchors_and_tags() {
    check(
        "path: *.csv\n",
        expect![[r#"
        1:7 «*.csv» `*.csv` repeats a value named `&.csv`, and there is none above
          help: put a value that begins with `*` or `&` in quotes
    "#]],
    );
    check(
        "path: */*.csv\n",
        expect![[r#"
        1:7 «*/*.csv» `*/*.csv` repeats a value named `&/*.csv`, and there is none above
          help: put a value that begins with `*` or `&` in quotes
    "#]],
    );
    check(
        "a: &a [*a]\n",
        expect![[r#"
        1:8 «*a» this alias stands inside the value that it repeats
          help: write the inner value out
    "#]],
    );
    check(
        "é: !env HOME\n",
        expect![[r#"
        1:4 «!env» the tag `!env` is not known
          help: remove the tag, or put the whole value in quotes
    "#]],
    );
    check(
        "a: !!int x\n",
        expect![[r#"
        1:10 «x» this value does not fit its tag
          help: remove the tag
    "#]],
    );
    check(
        "<<: 3\n",
        expect![[r#"
        1:5 «3» `<<` takes a mapping, or a list of mappings
          help: write `<<: *name`
    "#]],
    );
}

#[test]
fn second_document() {
    check(
        "---\na: 1\n---\nb: 2\n",
        expect![[r#"
        3:1 «---» expected one document, found a second one
          help: remove the `---`, or move what follows to its own file
    "#]],
    );
}

/// Nine levels of ten aliases stand for 10^9 values. The time holds for a debug build on a busy machine.
#[test]
fn alias_bombs_end_quickly() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..10 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb += &format!("a{level}: &a{level} [{aliases}]\n");
    }
    let begun = Instant::now();
    check(
        &bomb,
        expect![[r#"
        5:45 «*a3» the file stands for more than 100000 values
          note: each alias (`*name`) counts as all that it repeats
          help: split the file, or use fewer aliases
    "#]],
    );
    assert!(begun.elapsed() < Duration::from_secs(10), "took {:?}", begun.elapsed());
}

#[test]
fn one_anchor_may_be_used_often() {
    let text = format!("a: &a {{x: 1}}\nb: [{}]\n", vec!["*a"; 1000].join(", "));
    assert!(
        matches!(&parsed(&text).get("b").expect("it is there").kind, Kind::List(items) if items.len() == 1000)
    );
}

#[test]
fn deep_and_large_files_are_refused() {
    check(
        &format!("a: {}1{}\n", "[".repeat(100), "]".repeat(100)),
        expect![[r#"
        1:27 «[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1» lists and mappings are nested more than 24 deep
          help: make the file flatter
    "#]],
    );
    check(
        &(0..100).map(|depth| " ".repeat(depth) + "a:\n").collect::<String>(),
        expect![[r#"
        25:25 «a» lists and mappings are nested more than 24 deep
          help: make the file flatter
    "#]],
    );
    let mistakes = read(&"[".repeat(1 << 20)).expect_err("far too deep");
    assert_eq!(mistakes.len(), 1);
    let mistakes = read(&format!("a: {}\n", "x".repeat(MAX_BYTES))).expect_err("far too large");
    assert_eq!(mistakes[0].message, "the file has 8388612 bytes, expected at most 8388608");
    let mistakes = read(&format!("[{}]", "1,".repeat(MAX_NODES))).expect_err("far too many");
    assert_eq!(mistakes[0].message, "the file stands for more than 100000 values");
    let begun = Instant::now();
    assert_eq!(read(&"k: 1\n".repeat(20_000)).expect_err("one key").len(), 19_999);
    assert!(begun.elapsed() < Duration::from_secs(10), "took {:?}", begun.elapsed());
}

proptest! {
    /// Whatever the text, the parser ends and every span lies in it on character boundaries.
    #[test]
    fn any_text_gives_spans_inside_it(text in "[a-cé:\\-\\[\\]{}'\"#&*,|> \\t\r\n~1.!\u{feff}😀]{0,60}") {
        match read(&text) {
            Ok(_) => { spans(&text); }
            Err(mistakes) => {
                prop_assert!(!mistakes.is_empty());
                for (span, _) in mistakes.iter().flat_map(|mistake| &mistake.labels) {
                    prop_assert!(text.get(span.start..span.end).is_some(), "{span:?}");
                }
            }
        }
    }

    /// A text value's span covers it whatever stands before.
    #[test]
    fn span_covers_the_value(
        before in "[a-zé😀 ]{0,12}",
        newline in prop::sample::select(vec!["\n", "\r\n"]),
        value in "[a-zéß]{1,8}x",
    ) {
        let text = format!("# {before}{newline}k: \"{before}\"{newline}v: {value}{newline}");
        let span = parsed(&text).get("v").expect("it is there").span;
        prop_assert_eq!(&text[span.start..span.end], value);
    }
}

#[test]
fn a_part_of_a_text_is_found_in_the_way_it_is_written() {
    let of = |source: &str, text: &str, part: std::ops::Range<usize>| {
        part_of(source, text, &part).map(|found| &source[found]).map(str::to_owned)
    };
    let folded = "|\n  select a,\n    auk\n  from b\n";
    let text = "select a,\n  auk\nfrom b\n";
    assert_eq!(of(folded, text, 12..15).as_deref(), Some("auk"));
    assert_eq!(part_of("\"a b a\"", "a b a", &(4..5)), Some(5..6), "the second of two");
    assert_eq!(part_of("${params.query}", "select a", &(7..8)), None, "it is put in from elsewhere");
}
