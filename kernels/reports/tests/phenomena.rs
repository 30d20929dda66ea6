//! What one sentence says, phenomenon by phenomenon, with a small pack and with the shipped ones.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use argent_reports::{Labeller, Pack, State};
use std::path::Path;

const SMALL_PACK: &str = "
name: small
findings:
  - {id: effusion, name: Effusion, synonyms: [pleural effusion, effusion]}
  - {id: pneumothorax, name: Pneumothorax, synonyms: [pneumothorax]}
  - {id: consolidation, name: Consolidation, synonyms: [consolidation]}
  - {id: nodule, name: Nodule, synonyms: [nodule]}
  - {id: pneumonia, name: Pneumonia, synonyms: [pneumonia]}
  - {id: atelectasis, name: Atelectasis, synonyms: [atelectasis]}
  - {id: stent, name: Stent, synonyms: [stent]}
  - id: cardiomegaly
    name: Cardiomegaly
    synonyms: [cardiomegaly]
    rules:
      any: [heart ... enlarged]
      absent: [heart size is normal]
  - id: density
    name: Lung density
    rules:
      with: [{term: densit(y|ies), context: lungs?|lobes?}]
      without: [breasts?]
      except: [bone densit(y|ies)]
";

fn labeller(pack: &str) -> (Pack, Labeller) {
    let pack: Pack = serde_yaml::from_str(pack).unwrap();
    let labeller = Labeller::new(&pack).unwrap_or_else(|error| panic!("{error}"));
    (pack, labeller)
}

/// Checks rows of text, finding and expected state, and reports all that fail at once.
fn check(rows: &[(&str, &str, State)]) {
    check_with(SMALL_PACK, rows);
}

fn check_with(pack: &str, rows: &[(&str, &str, State)]) {
    let (pack, labeller) = labeller(pack);
    let failures: Vec<String> = rows
        .iter()
        .filter_map(|(text, finding, expected)| {
            let index = pack.findings.iter().position(|other| other.id == *finding).unwrap();
            let label = labeller.label(&[("findings", text)]).swap_remove(index);
            (label.state != *expected)
                .then(|| format!("{text:?}: {finding} is {label:?}, expected {expected:?}"))
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

use State::{Absent, NotMentioned, Present, Uncertain};

#[test]
fn negation_before_the_mention() {
    check(&[
        ("No pleural effusion.", "effusion", Absent),
        ("There is no evidence of pneumothorax.", "pneumothorax", Absent),
        ("Lungs are clear without consolidation.", "consolidation", Absent),
        ("The lungs are free of focal consolidation.", "consolidation", Absent),
        ("The lungs are clear of consolidation, pneumothorax, or effusion.", "effusion", Absent),
        ("Negative for pneumothorax.", "pneumothorax", Absent),
        ("The lungs do not demonstrate consolidation.", "consolidation", Absent),
        ("Interval resolution of the left effusion.", "effusion", Absent),
        ("NO PNEUMOTHORAX", "pneumothorax", Absent),
        ("No XXXX pneumothorax.", "pneumothorax", Absent),
        ("No evidence of\nconsolidation.", "consolidation", Absent),
        ("The heart is not enlarged.", "cardiomegaly", Absent),
        ("No findings to suggest pneumonia.", "pneumonia", Absent),
    ]);
}

#[test]
fn negation_after_the_mention() {
    check(&[
        ("Pleural effusion was not observed.", "effusion", Absent),
        ("Pneumothorax is not seen.", "pneumothorax", Absent),
        ("A nodule or consolidation was not detected in either lung.", "nodule", Absent),
        ("Pleural effusion-thickening was not detected.", "effusion", Absent),
        ("Bilateral pleural effusion - thickening was not detected.", "effusion", Absent),
        ("The effusion has resolved.", "effusion", Absent),
        ("The previously described nodule is no longer visible.", "nodule", Absent),
        ("Pneumothorax: none.", "pneumothorax", Absent),
        ("Pneumonia is excluded.", "pneumonia", Absent),
        ("Pneumothorax isn't seen.", "pneumothorax", Absent),
    ]);
}

#[test]
fn a_negated_list_is_negated_throughout() {
    let text = "No focal consolidation, pneumothorax, or pleural effusion is seen.";
    let after = "Pleural effusion, pneumothorax and consolidation were not observed.";
    for finding in ["consolidation", "pneumothorax", "effusion"] {
        check(&[(text, finding, Absent), (after, finding, Absent)]);
    }
}

#[test]
fn a_negation_ends_with_its_scope() {
    check(&[
        ("No pneumothorax but a small effusion.", "effusion", Present),
        ("No pneumothorax; small effusion.", "effusion", Present),
        ("No consolidation. Small effusion.", "effusion", Present),
        ("No acute abnormality except for a nodule.", "nodule", Present),
        ("Apart from a nodule, no abnormality was detected.", "nodule", Present),
        ("No pneumothorax is seen, a small effusion is noted.", "effusion", Present),
        ("Clear lungs without consolidation, there is an effusion.", "effusion", Present),
        ("Atelectasis is observed in both lungs and effusion was not detected.", "atelectasis", Present),
        ("Atelectasis is observed in both lungs and effusion was not detected.", "effusion", Absent),
        ("No mass with adjacent atelectasis.", "atelectasis", Present),
        ("The effusion is no longer small.", "effusion", Present),
    ]);
}

#[test]
fn pseudo_negations_negate_nothing() {
    check(&[
        ("No significant change in the nodule.", "nodule", Present),
        ("No interval change in bilateral pleural effusions.", "effusion", Present),
        ("No increase in the size of the nodule.", "nodule", Present),
        ("The nodule has not significantly changed.", "nodule", Present),
        ("The effusion has not resolved.", "effusion", Present),
        ("Not only a nodule, also atelectasis.", "nodule", Present),
        ("Nodules that do not reach pathological size.", "nodule", Present),
        ("Non-calcified nodule in the left lung.", "nodule", Present),
        ("Without IV contrast, atelectasis is seen.", "atelectasis", Present),
    ]);
}

#[test]
fn uncertainty() {
    check(&[
        ("Opacity may represent pneumonia.", "pneumonia", Uncertain),
        ("Possible small effusion.", "effusion", Uncertain),
        ("Probable atelectasis in the left base.", "atelectasis", Uncertain),
        ("Pneumonia cannot be excluded.", "pneumonia", Uncertain),
        ("Pneumonia could not be entirely excluded.", "pneumonia", Uncertain),
        ("Suspicious for pneumonia.", "pneumonia", Uncertain),
        ("Consolidation (pneumonia?) is observed.", "pneumonia", Uncertain),
        ("Consolidation (pneumonia?) is observed.", "consolidation", Present),
        ("Pneumonia? Consolidation is seen.", "pneumonia", Uncertain),
        ("Pneumonia? Consolidation is seen.", "consolidation", Present),
        ("Consolidation may be due to infection or atelectasis.", "atelectasis", Uncertain),
        ("Consolidation may be due to infection or atelectasis.", "consolidation", Present),
        ("Atelectasis versus pneumonia.", "pneumonia", Uncertain),
        ("Findings were evaluated in favor of pneumonia.", "pneumonia", Uncertain),
        ("No suspicious nodule.", "nodule", Absent),
        ("No possible nodule, mild atelectasis is seen.", "atelectasis", Present),
        ("Consistent with pneumonia.", "pneumonia", Present),
    ]);
}

#[test]
fn what_is_only_asked_or_remembered_is_no_mention() {
    check(&[
        ("Evaluate for pneumonia.", "pneumonia", NotMentioned),
        ("Recommend CT to rule out nodule.", "nodule", NotMentioned),
        ("History of pneumonia.", "pneumonia", NotMentioned),
        ("CT is more sensitive in detecting small nodules.", "nodule", NotMentioned),
        ("Treated for pneumonia, consolidation persists.", "consolidation", Present),
        ("Indication: pneumonia. Findings: effusion.", "pneumonia", NotMentioned),
        ("Indication: pneumonia. Findings: effusion.", "effusion", Present),
    ]);
}

#[test]
fn words_match_whole_and_in_context() {
    check(&[
        ("Consistent with cardiomegaly.", "stent", NotMentioned),
        ("Stents in place.", "stent", Present),
        ("A 3.5 mm nodule. Next.", "nodule", Present),
        ("Pneumothoraces are seen.", "pneumothorax", Present),
        ("Pleural-effusion.", "effusion", Present),
        ("Density in the left lung.", "density", Present),
        ("Density in the neck.", "density", NotMentioned),
        ("Density of the breast over the lung.", "density", NotMentioned),
        ("Bone density beside the lung.", "density", NotMentioned),
        ("Heart size is normal.", "cardiomegaly", Absent),
        ("The heart is mildly enlarged.", "cardiomegaly", Present),
        ("", "nodule", NotMentioned),
    ]);
}

#[test]
fn the_strongest_assertion_of_the_report_counts() {
    let (_, labeller) = labeller(SMALL_PACK);
    let state = |sections: &[(&str, &str)]| labeller.label(sections)[0].state;
    assert_eq!(state(&[("findings", "No effusion."), ("impression", "Small effusion.")]), Present);
    assert_eq!(state(&[("findings", "No effusion."), ("impression", "Possible effusion.")]), Uncertain);
    assert_eq!(state(&[("findings", "No effusion."), ("indication", "Effusion.")]), Absent);
    assert_eq!(state(&[]), NotMentioned);
}

#[test]
fn evidence_is_a_slice_of_the_section() {
    let (_, labeller) = labeller(SMALL_PACK);
    let text = "Größe – “stabil”. There is No pneumothorax; 2 cm NODULE.";
    let labels = labeller.label(&[("impression", "Clear."), ("findings", text)]);
    let evidence = labels[1].evidence.as_ref().unwrap();
    assert_eq!((evidence.section.as_str(), evidence.text.as_str()), ("findings", "No pneumothorax"));
    assert_eq!(&text[evidence.start..evidence.end], evidence.text);
    assert_eq!(evidence.rule, "synonyms[0] \"pneumothorax\"; cue \"no\"");
    let nodule = labels[3].evidence.as_ref().unwrap();
    assert_eq!((nodule.text.as_str(), nodule.rule.as_str()), ("NODULE", "synonyms[0] \"nodule\""));
    assert_eq!(labels[0].evidence, None);
}

#[test]
fn a_pack_adds_words_and_cues() {
    let pack = SMALL_PACK.replace("synonyms: [pneumothorax]", "synonyms: [pneumothorax, Collapsed Lung]")
        + "cues: {negation_before: [nary a], skip_sections: [addendum]}\n";
    let (_, labeller) = labeller(&pack);
    let state = |text| labeller.label(&[("findings", text)])[1].state;
    assert_eq!(state("collapsed lungs"), Present);
    assert_eq!(state("Nary a pneumothorax."), Absent);
    assert_eq!(labeller.label(&[("Addendum", "pneumothorax")])[1].state, NotMentioned);
}

#[test]
fn anchors_and_signs_work_by_sentence() {
    let pack = r"{name: anchors, findings: [
        {id: alone, name: Alone, rules: {any: ['^clear$']}},
        {id: marked, name: Marked, rules: {any: ['stage \(iv\)']}}]}";
    let (_, labeller) = labeller(pack);
    let states =
        |text| labeller.label(&[("findings", text)]).into_iter().map(|l| l.state).collect::<Vec<_>>();
    assert_eq!(states("Stable. Clear. Tumour stage (IV)."), [Present, Present]);
    assert_eq!(states("Lungs clear. Tumour stage (IV) as before."), [NotMentioned, Present]);
}

#[test]
fn german_reports_have_german_cues() {
    let pack = "{name: de, language: de, findings: [
        {id: erguss, name: Erguss, synonyms: [Pleuraerguss, Erguss], rules: {any: [pleuraergüsse]}},
        {id: infiltrat, name: Infiltrat, synonyms: [Infiltrat]}]}";
    let (_, labeller) = labeller(pack);
    for (text, expected) in [
        ("Kein Pleuraerguss.", [Absent, NotMentioned]),
        ("Pleuraergüsse beidseits, kein Infiltrat.", [Present, Absent]),
        ("Ein Infiltrat ist nicht sicher auszuschließen.", [NotMentioned, Uncertain]),
        ("Pleuraerguss nicht nachweisbar.", [Absent, NotMentioned]),
        ("Keine wesentliche Änderung des Ergusses. Erguss links.", [Present, NotMentioned]),
        ("Verdacht auf Infiltrat, jedoch Erguss.", [Present, Uncertain]),
        ("Kein Nachweis eines Infiltrats oder Ergusses, kein Anhalt für Infiltrat.", [Absent, Absent]),
        ("V.a. Infiltrat. Nachweis von Erguss.", [Present, Uncertain]),
    ] {
        let states: Vec<State> =
            labeller.label(&[("befund", text)]).into_iter().map(|label| label.state).collect();
        assert_eq!(states, expected, "{text}");
    }
}

#[test]
fn reports_of_two_languages_have_the_cues_of_both() {
    let pack = "{name: both, language: [de, en], findings: [{id: erguss, name: Erguss, synonyms: [Erguss, effusion]}]}";
    let (pack, labeller) = labeller(pack);
    let written = serde_yaml::to_string(&pack.language).unwrap();
    assert_eq!(written, "- de\n- en\n");
    for (text, expected) in [
        ("Kein Erguss.", Absent),
        ("No effusion.", Absent),
        ("Ein Erguss ist nicht sicher auszuschließen.", Uncertain),
        ("An effusion cannot be excluded.", Uncertain),
        ("Fragestellung: Erguss?", NotMentioned),
        ("Reason for exam: effusion?", NotMentioned),
    ] {
        assert_eq!(labeller.label(&[("findings", text)])[0].state, expected, "{text}");
    }
    let none: Pack =
        serde_yaml::from_str("{name: n, language: [], findings: [{id: a, name: A, synonyms: [a]}]}").unwrap();
    assert_eq!(Labeller::new(&none).unwrap_err().mistakes[0].place, "language");
}

#[test]
fn another_place_of_the_report_takes_a_mention_back() {
    let pack = r"{name: t, findings: [{id: effusion, name: E, synonyms: [effusion],
        rules: {taken_back: [{phrase: 'old ... effusion', by: 'has (completely )?resolved'}]}}]}";
    let (_, labeller) = labeller(pack);
    let of = |sections: &[(&str, &str)]| {
        let label = labeller.label(sections).swap_remove(0);
        (label.state, label.evidence.map(|e| e.rule).unwrap_or_default())
    };
    let taken = "synonyms[0] \"effusion\"; rules.taken_back".to_owned();
    assert_eq!(
        of(&[("findings", "Old left effusion."), ("impression", "It has resolved.")]),
        (Absent, taken)
    );
    assert_eq!(of(&[("findings", "Old left effusion.")]).0, Present);
    assert_eq!(of(&[("findings", "New effusion. The old one has resolved.")]).0, Present);
    // What was asked is not said.
    assert_eq!(of(&[("indication", "It has resolved."), ("findings", "Old effusion.")]).0, Present);
}

#[test]
fn every_mistake_of_a_pack_is_named() {
    let pack: Pack = serde_yaml::from_str(
        "{name: wrong, cues: {skip: ['(']}, findings: [
            {id: a, name: A, synonyms: [x, '  '], rules: {any: ['(b', 'c*'], absent: ['[']}},
            {id: a, name: A again, synonyms: [x]},
            {id: b, name: Nothing to look for}]}",
    )
    .unwrap();
    let error = Labeller::new(&pack).unwrap_err();
    let places: Vec<(Option<&str>, &str)> =
        error.mistakes.iter().map(|mistake| (mistake.finding.as_deref(), mistake.place.as_str())).collect();
    assert_eq!(
        places,
        [
            (Some("a"), "findings[1].id"),
            (Some("b"), "findings[2].id"),
            (Some("a"), "synonyms[1]"),
            (Some("a"), "rules.any[0]"),
            (Some("a"), "rules.any[1]"),
            (Some("a"), "rules.absent[0]"),
            (None, "cues.skip[0]"),
        ]
    );
    assert!(error.to_string().contains("finding \"a\", rules.any[0] \"(b\": is no regular expression"));
    assert!(serde_yaml::from_str::<Pack>("{name: x, findings: [], typo: 1}").is_err());
}

/// Text of a pack that ships with the program.
fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../pipelines/findings/{name}.yaml"));
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn chest_radiograph_phrasing() {
    check_with(
        &shipped("openi-25"),
        &[
            ("The cardiac silhouette is mildly enlarged.", "cardiomegaly", Present),
            ("Moderate cardiomegaly, unchanged.", "cardiomegaly", Present),
            ("The heart is not significantly enlarged.", "cardiomegaly", Absent),
            ("The heart is normal in size.", "cardiomegaly", Absent),
            ("Heart size within normal limits.", "cardiomegaly", Absent),
            ("Small bilateral pleural effusions, right greater than left.", "pleural_effusion", Present),
            ("Pleural effusion has nearly resolved.", "pleural_effusion", Present),
            ("No pericardial effusion.", "pleural_effusion", NotMentioned),
            ("There is a tiny right apical pneumothorax.", "pneumothorax", Present),
            ("No new or enlarging pneumothorax.", "pneumothorax", Absent),
            ("Bibasilar subsegmental atelectasis.", "atelectasis", Present),
            (
                "Consolidation in the left lower lobe consistent with pneumonia.",
                "consolidation_pneumonia",
                Present,
            ),
            ("Patchy opacity, pneumonia not excluded.", "lung_opacity", Present),
            ("Patchy opacity, pneumonia not excluded.", "consolidation_pneumonia", Uncertain),
            ("No focal airspace disease.", "lung_opacity", Absent),
            ("8 mm nodule in the right upper lobe.", "nodule_mass", Present),
            ("No nodules or masses.", "nodule_mass", Absent),
            ("Calcified granuloma in the left base.", "granuloma", Present),
            ("Calcified granuloma in the left base.", "calcinosis", NotMentioned),
            ("Calcified hilar lymph nodes.", "calcinosis", Present),
            ("Atherosclerotic calcification of the aortic arch.", "atherosclerosis", Present),
            ("Tortuous and ectatic thoracic aorta.", "aortic_tortuosity_enlargement", Present),
            ("The aorta is not tortuous.", "aortic_tortuosity_enlargement", Absent),
            ("Findings of COPD.", "emphysema_copd", Present),
            ("Subcutaneous emphysema along the left chest wall.", "emphysema_copd", NotMentioned),
            ("Hyperinflated lungs with flattened hemidiaphragms.", "hyperinflation", Present),
            ("Low lung volumes.", "hypoinflation", Present),
            ("Mild pulmonary vascular congestion without overt edema.", "edema_congestion", Present),
            ("No pulmonary edema.", "edema_congestion", Absent),
            ("Scarring at the left apex.", "fibrosis_scar", Present),
            ("Increased interstitial markings.", "interstitial", Present),
            ("Biapical pleural thickening.", "pleural_thickening", Present),
            ("Blunting of the left costophrenic angle.", "costophrenic_blunting", Present),
            ("The right hemidiaphragm is elevated.", "diaphragm_elevation", Present),
            ("Moderate hiatal hernia.", "hernia", Present),
            ("Old healed right rib fractures.", "fracture", Present),
            ("No acute fracture.", "fracture", Absent),
            ("Mild dextroscoliosis.", "scoliosis_kyphosis", Present),
            ("Multilevel degenerative changes of the thoracic spine.", "spine_degenerative", Present),
            ("Degenerative changes of the left shoulder.", "spine_degenerative", NotMentioned),
            ("Left subclavian pacemaker with leads in the right ventricle.", "medical_device", Present),
            ("The endotracheal tube has been removed.", "medical_device", Absent),
            ("Median sternotomy wires are intact.", "medical_device", Present),
        ],
    );
}

#[test]
fn chest_ct_phrasing() {
    check_with(
        &shipped("ct-rate-18"),
        &[
            ("A port catheter is seen in the superior vena cava.", "medical_material", Present),
            ("Findings are consistent with infection.", "medical_material", NotMentioned),
            (
                "Wall calcifications in the aorta and coronary arteries.",
                "arterial_wall_calcification",
                Present,
            ),
            (
                "Wall calcifications in the aorta and coronary arteries.",
                "coronary_artery_wall_calcification",
                Present,
            ),
            ("Calcific plaques in the LAD.", "arterial_wall_calcification", NotMentioned),
            ("Calcific plaques in the LAD.", "coronary_artery_wall_calcification", Present),
            ("Calcification of the aortic valve.", "arterial_wall_calcification", NotMentioned),
            ("Heart size has increased.", "cardiomegaly", Present),
            ("The cardiothoracic index increased in favor of the heart.", "cardiomegaly", Present),
            ("Heart contour, size are normal.", "cardiomegaly", Absent),
            ("Pericardial effusion-thickening was not observed.", "pericardial_effusion", Absent),
            ("Pericardial effusion measuring 8 mm is observed.", "pericardial_effusion", Present),
            ("Pericardial effusion measuring 8 mm is observed.", "pleural_effusion", NotMentioned),
            ("Pericardial or pleural effusion was not detected.", "pericardial_effusion", Absent),
            ("Pericardial or pleural effusion was not detected.", "pleural_effusion", Absent),
            ("Sliding type hiatal hernia is observed.", "hiatal_hernia", Present),
            ("Millimetric mediastinal lymph nodes are observed.", "lymphadenopathy", Present),
            ("No lymph node in pathological size was detected.", "lymphadenopathy", Absent),
            ("Centriacinar emphysema in both upper lobes.", "emphysema", Present),
            ("Emphysema is observed under the skin.", "emphysema", NotMentioned),
            ("Linear atelectasis in the lingula.", "atelectasis", Present),
            ("No nodule or infiltration was detected in both lungs.", "lung_nodule", Absent),
            ("Nodules smaller than 5 mm in both lungs.", "lung_nodule", Present),
            ("A nodule is observed in the thyroid gland.", "lung_nodule", NotMentioned),
            ("Ground-glass densities in both lower lobes.", "lung_opacity", Present),
            ("Consolidation in the right lower lobe.", "lung_opacity", NotMentioned),
            ("Consolidation in the right lower lobe.", "consolidation", Present),
            ("Pleuroparenchymal sequela changes in both apices.", "pulmonary_fibrotic_sequela", Present),
            ("Sequela of an old rib fracture.", "pulmonary_fibrotic_sequela", NotMentioned),
            ("Bilateral pleural effusion reaching 3 cm.", "pleural_effusion", Present),
            ("Free fluid in the right hemithorax.", "pleural_effusion", Present),
            ("Mosaic attenuation pattern in both lungs.", "mosaic_attenuation_pattern", Present),
            ("Thickening of the bronchial walls.", "peribronchial_thickening", Present),
            ("Diffuse peribronchial thickness increase.", "peribronchial_thickening", Present),
            ("Bronchiectatic changes in the middle lobe.", "bronchiectasis", Present),
            ("Smooth thickening of the interlobular septa.", "interlobular_septal_thickening", Present),
            ("Interlobular septal thickening was not observed.", "interlobular_septal_thickening", Absent),
            ("Findings may be compatible with atypical consolidation.", "consolidation", Uncertain),
        ],
    );
}

#[test]
fn the_shipped_packs_find_each_of_their_synonyms() {
    for name in ["openi-25", "ct-rate-18", "rad-chestct-16", "ankle-fracture"] {
        let (pack, labeller) = labeller(&shipped(name));
        assert_eq!(pack.name, name);
        for (index, finding) in pack.findings.iter().enumerate() {
            assert!(!finding.definition.is_empty(), "{}", finding.id);
            for synonym in &finding.synonyms {
                let label = labeller.label(&[("findings", synonym)]).swap_remove(index);
                assert_eq!(label.state, Present, "{}: {synonym}", finding.id);
            }
        }
    }
}
