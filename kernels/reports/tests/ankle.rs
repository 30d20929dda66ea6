//! The pack of the ankle fracture question, sentence by sentence. All sentences are our own: none is from a report.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use argent_reports::State::{self, Absent, NotMentioned, Present, Uncertain};
use argent_reports::{Labeller, Pack};
use std::path::Path;

fn labeller() -> Labeller {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines/findings/ankle-fracture.yaml");
    let pack: Pack = serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    Labeller::new(&pack).unwrap_or_else(|error| panic!("{error}"))
}

/// Checks texts and the states that are expected, and reports all that fail at once.
fn check(rows: &[(&str, State)]) {
    let labeller = labeller();
    let failures: Vec<String> = rows
        .iter()
        .filter_map(|(text, expected)| {
            let label = labeller.label(&[("findings", text)]).swap_remove(0);
            (label.state != *expected).then(|| format!("{text:?} is {label:?}, expected {expected:?}"))
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn german_fractures() {
    check(&[
        ("Fraktur des Malleolus lateralis.", Present),
        ("Mehrfragmentäre Fraktur der distalen Fibula mit Dislokation.", Present),
        ("Weber-B-Fraktur rechts.", Present),
        ("Verletzung Typ Weber C.", Present),
        ("Bimalleoläre Luxationsfraktur des oberen Sprunggelenks.", Present),
        ("Trimalleolarfraktur links.", Present),
        ("Außenknöchelfraktur in regelrechter Stellung.", Present),
        ("Pilon-tibiale-Fraktur mit Gelenkbeteiligung.", Present),
        ("Nicht dislozierte Fraktur des Malleolus medialis.", Present),
        ("Fraktur der distalen Tibia ohne Dislokation.", Present),
        ("Ohne Dislokation einliegende Talusfraktur.", Present),
        ("Keine Dislokation der Innenknöchelfraktur.", Present),
        ("Knöcherner Bandausriss an der Fibulaspitze.", Present),
        ("Kleines Volkmann-Dreieck.", Present),
        ("Fraktur der distalen Fibula, keine weitere Fraktur.", Present),
        ("Frakturspalt im Bereich der Fibulaspitze.", Present),
        ("Epiphysiolyse Typ Salter-Harris II der distalen Tibia.", Present),
    ]);
}

#[test]
fn german_denials() {
    check(&[
        ("Kein Nachweis einer Fraktur.", Absent),
        ("Keine Fraktur.", Absent),
        ("Fraktur nicht abgrenzbar.", Absent),
        ("Eine Fraktur ist nicht nachweisbar.", Absent),
        ("Kein Hinweis auf eine frische Fraktur.", Absent),
        ("Kein Anhalt für Fraktur oder Luxation.", Absent),
        ("Ausschluss einer knöchernen Verletzung, Frakturausschluss.", Absent),
        ("Keine knöcherne Verletzung.", Absent),
        ("Kein Frakturnachweis.", Absent),
        ("Weder Fraktur noch Luxation.", Absent),
        ("Fraktur: keine.", Absent),
        ("Eine Fraktur konnte ausgeschlossen werden, die Fraktur ist ausgeschlossen.", Absent),
        ("Weichteilschwellung über dem Außenknöchel, keine ossäre Läsion.", Absent),
        ("Regelrechte Stellung im oberen Sprunggelenk. Weichteilschwellung lateral.", NotMentioned),
    ]);
}

#[test]
fn german_doubts() {
    check(&[
        ("V.a. nicht dislozierte Fraktur des Malleolus lateralis.", Uncertain),
        ("V. a. Fraktur der Fibulaspitze.", Uncertain),
        ("Verdacht auf Fraktur der distalen Tibia.", Uncertain),
        ("Eine Fraktur ist nicht sicher auszuschließen.", Uncertain),
        ("Eine Fraktur kann nicht ausgeschlossen werden.", Uncertain),
        ("Fragliche Infraktion des Talus.", Uncertain),
        ("Möglicherweise Fissur, am ehesten Fraktur der Fibulaspitze.", Uncertain),
        ("Frakturverdächtige Aufhellungslinie am Innenknöchel.", Uncertain),
        ("Fraktur?", Uncertain),
        ("DD alte Fraktur.", Uncertain),
    ]);
}

#[test]
fn german_fractures_that_were_operated() {
    check(&[
        ("Z.n. osteosynthetisch versorgter Weber-B-Fraktur, Frakturspalt noch einsehbar.", Present),
        ("Z.n. osteosynthetisch versorgter Weber-B-Fraktur, Frakturspalt nicht mehr abgrenzbar.", Absent),
        ("Z.n. osteosynthetisch versorgter Weber-B-Fraktur.", Present),
        (
            "Zustand nach Plattenosteosynthese einer distalen Fibulafraktur. Einliegendes Material ohne Lockerung.",
            Present,
        ),
        (
            "Zustand nach Plattenosteosynthese einer distalen Fibulafraktur. Kein Lockerungssaum. Kein Frakturspalt \
             mehr abgrenzbar.",
            Absent,
        ),
        (
            "Mit Zugschrauben versorgte Innenknöchelfraktur. Die Frakturlinie ist nicht mehr erkennbar.",
            Absent,
        ),
        ("Bekannte Fraktur der distalen Tibia, knöchern konsolidiert.", NotMentioned),
        (
            "Z.n. Osteosynthese einer Weber-C-Fraktur, Frakturlinie nicht mehr sichtbar. Neu Nachweis einer Fraktur des \
             Talus.",
            Present,
        ),
    ]);
}

#[test]
fn german_fractures_of_other_bones() {
    check(&[
        ("Fraktur der Basis des Os metatarsale V.", NotMentioned),
        ("Fraktur des Metatarsale V.", NotMentioned),
        ("Kalkaneusfraktur.", NotMentioned),
        ("Metatarsale-V-Fraktur.", NotMentioned),
        ("Zehenfraktur Dig. V.", NotMentioned),
        ("Fraktur des Fibulaköpfchens, am oberen Sprunggelenk kein Frakturnachweis.", Absent),
        ("Fraktur des Os naviculare. Fraktur des Malleolus medialis.", Present),
        ("Keine Fraktur des Kalkaneus. Fraktur der Fibulaspitze.", Present),
    ]);
}

#[test]
fn english_fractures() {
    check(&[
        ("Fracture of the lateral malleolus.", Present),
        ("Non-displaced fracture of the distal fibula.", Present),
        ("Nondisplaced fracture of the medial malleolus.", Present),
        ("Bimalleolar fracture.", Present),
        ("Weber B injury.", Present),
        ("Avulsion at the tip of the fibula.", Present),
        ("Talar dome fracture without displacement.", Present),
        ("No fracture.", Absent),
        ("No evidence of acute fracture or dislocation.", Absent),
        ("A fracture was not identified.", Absent),
        ("No acute osseous abnormality.", Absent),
        ("Soft tissue swelling laterally.", NotMentioned),
        ("Possible fracture of the posterior malleolus.", Uncertain),
        ("A fracture cannot be excluded.", Uncertain),
        ("Status post ORIF of a bimalleolar fracture, fracture line still visible.", Present),
        (
            "Status post ORIF of a bimalleolar fracture. Hardware is intact. No residual fracture line.",
            Absent,
        ),
        ("Fracture of the base of the fifth metatarsal.", NotMentioned),
        ("Calcaneal fracture.", NotMentioned),
        ("Old fracture of the distal tibia, completely healed.", NotMentioned),
    ]);
}

#[test]
fn what_was_asked_for_is_no_finding() {
    let labeller = labeller();
    let state = |sections: &[(&str, &str)]| labeller.label(sections)[0].state;
    assert_eq!(state(&[("indication", "Fraktur?"), ("findings", "Regelrechte Stellung.")]), NotMentioned);
    assert_eq!(state(&[("klinische_angaben", "Sturz. Fraktur?"), ("befund", "Keine Fraktur.")]), Absent);
    assert_eq!(state(&[("findings", "Fraktur des Talus."), ("impression", "Keine Luxation.")]), Present);
}
