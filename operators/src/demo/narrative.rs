//! Writes a made-up radiologist's report of a made-up scan, as free text.
//!
//! A report tells every finding of its scan, firmly or with doubt. Of what is absent it denies a part and passes
//! over the rest, and rarely doubts it ([`Scan::hedged`]). Clinical information asks about findings whether they
//! are there or not, as referrals do.

mod phrases;

use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use self::phrases::Phrases;
use super::cohort::{Appearance, Device, Finding, Lobe, Scan, Side, pick, stream};

/// The sections of a report, named after CT-RATE's columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Narrative {
    /// Why the scan was asked for. It says nothing of what was seen.
    pub(super) clinical_information: String,
    /// How the scan was made.
    pub(super) technique: String,
    /// What was seen and what was not.
    pub(super) findings: String,
    /// The findings in short.
    pub(super) impression: String,
}

/// Writes the report of `scan`. The same `seed` as the cohort's is usual, though any will do.
pub(super) fn write(scan: &Scan, seed: u64) -> Narrative {
    let mut rng = stream(seed, &format!("{}/report", scan.scan));
    let telling = Finding::ALL.map(|finding| (finding, telling(scan, finding, &mut rng)));
    Narrative {
        clinical_information: clinical_information(&mut rng),
        technique: technique(scan, &mut rng),
        findings: findings(scan, &telling, &mut rng),
        impression: impression(scan, &telling, &mut rng),
    }
}

/// What a report says of one finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Telling {
    /// It is there.
    Firm,
    /// It may be there.
    Doubtful,
    /// It was there on the scan before and is gone.
    Resolved,
    /// It is not there, in a sentence of its own.
    Denied,
    /// It is not there, in a sentence about several findings.
    DeniedTogether,
    /// Nothing.
    Silent,
}

/// How often a report doubts what is there.
const DOUBTFUL: f64 = 0.1;

fn telling(scan: &Scan, finding: Finding, rng: &mut ChaCha8Rng) -> Telling {
    if scan.findings.contains(&finding) {
        return if rng.random_bool(DOUBTFUL) { Telling::Doubtful } else { Telling::Firm };
    }
    if scan.hedged.contains(&finding) {
        return Telling::Doubtful;
    }
    let was_there = scan.previous.as_ref().is_some_and(|previous| previous.contains(&finding));
    if was_there && finding.can_resolve() && rng.random_bool(0.5) {
        return Telling::Resolved;
    }
    match rng.random_range(0..10) {
        0..4 => Telling::Denied,
        4..7 => Telling::DeniedTogether,
        _ => Telling::Silent,
    }
}

impl Finding {
    /// Whether a report would say of it that it has gone; what is degenerative or implanted does not go by itself.
    fn can_resolve(self) -> bool {
        matches!(self, Finding::PleuralEffusion | Finding::Consolidation | Finding::LungNodule)
    }
}

/// From the airways over mediastinum, pleura and lungs to the bones, as radiologists read.
fn findings(scan: &Scan, telling: &[(Finding, Telling)], rng: &mut ChaCha8Rng) -> String {
    let mut sentences = vec![pick(rng, phrases::AIRWAYS).to_owned()];
    for &(finding, telling) in telling {
        sentences.extend(sentence(scan, finding, telling, rng));
    }
    let together: Vec<Finding> = telling
        .iter()
        .filter(|(_, telling)| *telling == Telling::DeniedTogether)
        .map(|&(finding, _)| finding)
        .collect();
    sentences.extend(denials(scan, &together, rng));
    for others in [phrases::LYMPH_NODES, phrases::ABDOMEN, phrases::BONES] {
        if rng.random_bool(0.7) {
            sentences.push(pick(rng, others).to_owned());
        }
    }
    sentences.join(" ")
}

/// The sentence of the findings section about one finding, if it has one of its own.
fn sentence(scan: &Scan, finding: Finding, telling: Telling, rng: &mut ChaCha8Rng) -> Option<String> {
    let phrases = Phrases::of(finding, &scan.appearance);
    match telling {
        Telling::Firm => {
            let mut sentence = filled(pick(rng, phrases.present), &scan.appearance);
            let known = scan.previous.as_ref().is_some_and(|previous| previous.contains(&finding));
            if known && rng.random_bool(0.3) {
                sentence = format!("{sentence} {}", pick(rng, phrases::UNCHANGED));
            }
            Some(sentence)
        }
        Telling::Doubtful => Some(pick(rng, phrases.doubtful).to_owned()),
        Telling::Resolved => Some(pick(rng, phrases::RESOLVED).replace("{noun}", phrases.noun)),
        Telling::Denied => Some(pick(rng, phrases.absent).to_owned()),
        Telling::DeniedTogether | Telling::Silent => None,
    }
}

/// One sentence that denies several findings: "No consolidation, emphysema or lung nodule."
fn denials(scan: &Scan, together: &[Finding], rng: &mut ChaCha8Rng) -> Option<String> {
    let mut nouns: Vec<&str> =
        together.iter().map(|&finding| Phrases::of(finding, &scan.appearance).noun).collect();
    nouns.shuffle(rng);
    let (last, others) = nouns.split_last()?;
    let list =
        if others.is_empty() { (*last).to_owned() } else { format!("{} or {last}", others.join(", ")) };
    Some(pick(rng, phrases::DENIALS).replace("{list}", &list))
}

/// The findings again in short, now and then without one of them.
fn impression(scan: &Scan, telling: &[(Finding, Telling)], rng: &mut ChaCha8Rng) -> String {
    let mut sentences = Vec::new();
    for &(finding, telling) in telling {
        let phrases = Phrases::of(finding, &scan.appearance);
        match telling {
            Telling::Firm if rng.random_bool(0.85) => {
                sentences.push(filled(pick(rng, phrases.short), &scan.appearance));
            }
            Telling::Doubtful if rng.random_bool(0.7) => {
                sentences.push(pick(rng, phrases::DOUBTFUL_IMPRESSION).replace("{noun}", phrases.noun));
            }
            _ => {}
        }
    }
    if sentences.is_empty() {
        let told = |(_, telling): &(Finding, Telling)| matches!(telling, Telling::Firm | Telling::Doubtful);
        let choices =
            if telling.iter().any(told) { phrases::SEE_FINDINGS } else { phrases::NORMAL_IMPRESSION };
        return pick(rng, choices).to_owned();
    }
    sentences.join(" ")
}

fn clinical_information(rng: &mut ChaCha8Rng) -> String {
    pick(rng, phrases::CLINICAL_INFORMATION).to_owned()
}

/// True of the volumes: the slice thicknesses are those of the reconstructions.
fn technique(scan: &Scan, rng: &mut ChaCha8Rng) -> String {
    let thicknesses: Vec<String> =
        scan.reconstructions.iter().map(|one| format!("{}", one.spacing_mm[2])).collect();
    pick(rng, phrases::TECHNIQUE).replace("{thickness}", &thicknesses.join(" mm and "))
}

/// A phrase with its places filled in.
fn filled(phrase: &str, appearance: &Appearance) -> String {
    let (side, on_side, space) = match appearance.effusion_side {
        Side::Right => ("right", "on the right", "right pleural space"),
        Side::Left => ("left", "on the left", "left pleural space"),
        Side::Both => ("bilateral", "on both sides", "pleural space on both sides"),
    };
    let text = phrase
        .replace("{ratio}", &format!("{:.2}", appearance.cardiothoracic_ratio))
        .replace("{depth}", &format!("{:.0}", appearance.effusion_depth_mm))
        .replace("{side}", side)
        .replace("{on side}", on_side)
        .replace("{space}", space)
        .replace("{lobe}", lobe_name(appearance.consolidation_lobe))
        .replace("{nodule lobe}", lobe_name(appearance.nodule_lobe))
        .replace("{diameter}", &format!("{:.0}", appearance.nodule_diameters_mm[0]));
    capitalised(&text)
}

fn lobe_name(lobe: Lobe) -> &'static str {
    match lobe {
        Lobe::RightUpper => "right upper lobe",
        Lobe::RightMiddle => "right middle lobe",
        Lobe::RightLower => "right lower lobe",
        Lobe::LeftUpper => "left upper lobe",
        Lobe::LeftLower => "left lower lobe",
    }
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::cohort::scans;

    #[test]
    fn a_report_is_a_function_of_scan_and_seed() {
        let scans = scans(3, 7);
        assert_eq!(write(&scans[0], 7), write(&scans[0], 7));
        assert_ne!(write(&scans[0], 7), write(&scans[0], 8));
        assert_ne!(write(&scans[0], 7), write(&scans[1], 7));
    }

    #[test]
    fn places_are_filled_and_sentences_are_whole() {
        for scan in scans(300, 1) {
            let report = write(&scan, 1);
            for section in [report.clinical_information, report.technique, report.findings, report.impression]
            {
                assert!(!section.contains(['{', '}']), "{section}");
                assert!(section.ends_with(['.', '?']), "{section}");
                assert!(!section.contains("  ") && !section.contains(".."), "{section}");
                assert!(
                    !section.split(". ").any(|sentence| sentence.starts_with(char::is_lowercase)),
                    "{section}"
                );
            }
        }
    }

    /// The words of which every report of a finding has at least one.
    fn stems(finding: Finding) -> &'static [&'static str] {
        match finding {
            Finding::MedicalMaterial => {
                &["pacemaker", "port ", "catheter", "sternotomy", "sternal", "device"]
            }
            Finding::ArterialWallCalcification => &["calcif", "calcific", "plaque"],
            Finding::Cardiomegaly => {
                &["heart", "cardiomegaly", "cardiac enlargement", "cardiac silhouette", "cardiac contour"]
            }
            Finding::HiatalHernia => &["hernia"],
            Finding::Emphysema => &["emphysem"],
            Finding::LungNodule => &["nodul"],
            Finding::PleuralEffusion => &["effusion", "fluid"],
            Finding::Consolidation => &["consolidat"],
        }
    }

    #[test]
    fn every_finding_that_is_there_is_told() {
        for scan in scans(300, 4) {
            let text = write(&scan, 4).findings.to_lowercase();
            for &finding in &scan.findings {
                assert!(stems(finding).iter().any(|stem| text.contains(stem)), "{}: {text}", finding.id());
            }
        }
    }

    #[test]
    fn what_is_absent_is_named_in_the_impression_only_when_hedged() {
        for scan in scans(300, 5) {
            let text = write(&scan, 5).impression.to_lowercase();
            for finding in Finding::ALL {
                let named = stems(finding).iter().any(|stem| text.contains(stem));
                let known = scan.findings.contains(&finding) || scan.hedged.contains(&finding);
                assert!(known || !named || text.starts_with("no "), "{}: {text}", finding.id());
            }
        }
    }

    #[test]
    fn absent_findings_are_denied_or_passed_over() {
        let scans = scans(300, 6);
        let (mut denied, mut silent) = (0, 0);
        for scan in &scans {
            let mut rng = stream(6, &format!("{}/report", scan.scan));
            for finding in Finding::ALL {
                match telling(scan, finding, &mut rng) {
                    Telling::Denied | Telling::DeniedTogether | Telling::Resolved => denied += 1,
                    Telling::Silent => silent += 1,
                    Telling::Firm => assert!(scan.findings.contains(&finding)),
                    Telling::Doubtful => {
                        assert!(scan.findings.contains(&finding) || scan.hedged.contains(&finding));
                    }
                }
            }
        }
        let share = f64::from(denied) / f64::from(denied + silent);
        assert!((0.6..0.8).contains(&share), "{share}");
    }
}
