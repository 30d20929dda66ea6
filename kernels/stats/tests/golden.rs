//! Every statistic against reference implementations: scikit-learn, SciPy, statsmodels and, for DeLong, the
//! definition in exact fractions. `golden.py` beside this file made `golden.json` and names each reference.

use argent_stats::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    rankings: Vec<Ranking>,
    confusions: Vec<ConfusionCase>,
    wilson: Vec<WilsonCase>,
    quantiles: Vec<(f64, f64)>,
    two_sided_p: Vec<(f64, f64)>,
}

#[derive(Deserialize)]
struct Ranking {
    name: String,
    targets: Vec<bool>,
    scores: Vec<f64>,
    other_scores: Vec<f64>,
    roc_auc: f64,
    average_precision: f64,
    roc_thresholds: Vec<f64>,
    false_positive_rates: Vec<f64>,
    true_positive_rates: Vec<f64>,
    delong: Delong,
    youden: f64,
    f1_threshold: f64,
    ct_clip_threshold: f64,
    brier: f64,
    calibration_error: Option<f64>,
}

#[derive(Deserialize)]
struct Delong {
    low: f64,
    high: f64,
    auc_a: f64,
    auc_b: f64,
    standard_error: f64,
    z: f64,
    p_value: f64,
}

#[derive(Deserialize)]
struct ConfusionCase {
    counts: [u64; 4],
    sensitivity: f64,
    specificity: f64,
    ppv: f64,
    npv: f64,
    accuracy: f64,
    balanced_accuracy: f64,
    f1: f64,
    weighted_f1: f64,
    mcc: f64,
    kappa: f64,
}

#[derive(Deserialize)]
struct WilsonCase {
    successes: u64,
    trials: u64,
    level: f64,
    low: f64,
    high: f64,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("golden.json")).expect("golden.json has the shape above")
}

/// Asserts that two numbers differ by at most a fraction `relative` of the expected one.
#[track_caller]
fn close(what: &str, found: f64, expected: f64, relative: f64) {
    let error = (found - expected).abs();
    assert!(error <= relative * expected.abs(), "{what}: {found:e}, expected {expected:e}, off by {error:e}");
}

#[test]
fn rankings_agree_with_scikit_learn() {
    for case in golden().rankings {
        let (targets, scores, name) = (&case.targets, &case.scores, &case.name);
        close(name, roc_auc(targets, scores).unwrap().unwrap(), case.roc_auc, 1e-14);
        close(name, average_precision(targets, scores).unwrap().unwrap(), case.average_precision, 1e-13);
        close(name, brier_score(targets, scores).unwrap().unwrap(), case.brier, 1e-13);
        if let Some(expected) = case.calibration_error {
            close(name, expected_calibration_error(targets, scores).unwrap().unwrap(), expected, 1e-12);
        }
    }
}

#[test]
fn roc_curves_agree_with_scikit_learn() {
    for case in golden().rankings {
        let curve = roc_curve(&case.targets, &case.scores).unwrap().unwrap();
        let thresholds: Vec<f64> = curve[1..].iter().map(|point| point.threshold).collect();
        assert_eq!(curve[0].threshold, f64::INFINITY);
        assert_eq!(thresholds, case.roc_thresholds, "{}", case.name);
        let expected = case.false_positive_rates.iter().zip(&case.true_positive_rates);
        assert_eq!(curve.len(), expected.len());
        for (point, (false_positive_rate, true_positive_rate)) in curve.iter().zip(expected) {
            close("false positive rate", point.false_positive_rate, *false_positive_rate, 1e-15);
            close("true positive rate", point.true_positive_rate, *true_positive_rate, 1e-15);
        }
    }
}

#[test]
fn delong_agrees_with_its_definition() {
    for case in golden().rankings {
        let interval = auc_interval_delong(&case.targets, &case.scores, 0.95).unwrap().unwrap();
        close(&case.name, interval.low, case.delong.low, 1e-12);
        close(&case.name, interval.high, case.delong.high, 1e-12);
        let test = delong_test(&case.targets, &case.scores, &case.other_scores).unwrap().unwrap();
        close(&case.name, test.auc_a, case.delong.auc_a, 1e-14);
        close(&case.name, test.auc_b, case.delong.auc_b, 1e-14);
        close(&case.name, test.standard_error, case.delong.standard_error, 1e-12);
        close(&case.name, test.z, case.delong.z, 1e-12);
        close(&case.name, test.p_value, case.delong.p_value, 1e-12);
    }
}

#[test]
fn thresholds_agree_with_the_reference_rules() {
    for case in golden().rankings {
        let (targets, scores) = (&case.targets, &case.scores);
        assert_eq!(youden_threshold(targets, scores).unwrap(), Some(case.youden), "{}", case.name);
        assert_eq!(f1_threshold(targets, scores).unwrap(), Some(case.f1_threshold), "{}", case.name);
        // One step above the reference's threshold: `>=` then decides as its `>` does.
        let corner = closest_to_corner_threshold(targets, scores).unwrap().unwrap();
        assert_eq!(corner, case.ct_clip_threshold.next_up(), "{}", case.name);
    }
}

#[test]
fn confusions_agree_with_scikit_learn() {
    for case in golden().confusions {
        let [tp, fp, fn_, tn] = case.counts;
        let counts = Confusion { tp, fp, fn_, tn };
        for (what, found, expected) in [
            ("sensitivity", counts.sensitivity(), case.sensitivity),
            ("specificity", counts.specificity(), case.specificity),
            ("ppv", counts.ppv(), case.ppv),
            ("npv", counts.npv(), case.npv),
            ("accuracy", counts.accuracy(), case.accuracy),
            ("balanced accuracy", counts.balanced_accuracy(), case.balanced_accuracy),
            ("f1", counts.f1(), case.f1),
            ("weighted f1", counts.weighted_f1(), case.weighted_f1),
            ("mcc", counts.mcc(), case.mcc),
            ("kappa", counts.kappa(), case.kappa),
        ] {
            close(what, found.unwrap(), expected, 1e-12);
        }
    }
}

#[test]
fn wilson_intervals_agree_with_statsmodels() {
    for case in golden().wilson {
        let interval = wilson(case.successes, case.trials, case.level).unwrap().unwrap();
        assert!((interval.low - case.low).abs() < 1e-13, "{interval:?}, expected {}", case.low);
        assert!((interval.high - case.high).abs() < 1e-13, "{interval:?}, expected {}", case.high);
    }
}

#[test]
fn normal_quantiles_and_tails_agree_with_scipy() {
    let golden = golden();
    for (p, expected) in golden.quantiles {
        close("quantile", normal_quantile(p), expected, 1e-15);
    }
    for (z, expected) in golden.two_sided_p {
        close("two-sided p", normal_two_sided_p(z), expected, 1e-12);
        assert_eq!(normal_two_sided_p(-z), normal_two_sided_p(z));
    }
}
