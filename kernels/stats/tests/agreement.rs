//! Agreement, paired tests and BCa intervals against reference implementations: scikit-learn, SciPy, statsmodels,
//! krippendorff and irrCAC. `agreement.py` beside this file made `agreement.json` and names each reference.

use argent_stats::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    pairs: Vec<Pair>,
    mcnemar: Vec<Discordant>,
    holm: (Vec<f64>, Vec<f64>),
    several: Vec<Several>,
    bca: Vec<Bca>,
}

#[derive(Deserialize)]
struct Pair {
    table: Vec<Vec<u64>>,
    kappa: f64,
    standard_error: f64,
    low: f64,
    high: f64,
    ac1: f64,
}

#[derive(Deserialize)]
struct Discordant {
    counts: (u64, u64),
    exact: f64,
    mid_p: f64,
}

#[derive(Deserialize)]
struct Several {
    counts: Vec<Vec<u64>>,
    fleiss: Option<f64>,
    alpha: f64,
}

#[derive(Deserialize)]
struct Bca {
    estimate: f64,
    draws: Vec<f64>,
    left_out: Vec<f64>,
    level: f64,
    low: f64,
    high: f64,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("agreement.json")).expect("agreement.json has the shape above")
}

/// Asserts that two numbers differ by at most a fraction `relative` of the expected one.
#[track_caller]
fn close(what: &str, found: f64, expected: f64, relative: f64) {
    let error = (found - expected).abs();
    assert!(error <= relative * expected.abs(), "{what}: {found:e}, expected {expected:e}, off by {error:e}");
}

const LEVEL: f64 = 0.95;

#[test]
fn kappa_and_ac1_agree_with_statsmodels_and_irrcac() {
    for case in golden().pairs {
        let found = cohen_kappa(&case.table, LEVEL).unwrap().unwrap();
        close("kappa", found.kappa, case.kappa, 1e-12);
        close("standard error", found.standard_error, case.standard_error, 1e-11);
        close("low", found.interval.low, case.low, 1e-10);
        close("high", found.interval.high, case.high, 1e-10);
        close("AC1", gwet_ac1(&case.table).unwrap().unwrap(), case.ac1, 1e-12);
    }
}

#[test]
fn a_confusion_is_a_table_of_two_labellers() {
    let counts = Confusion { tp: 45, fp: 9, fn_: 6, tn: 40 };
    let case = &golden().pairs[0];
    assert_eq!(counts.table(), case.table);
    close("kappa", counts.kappa().unwrap(), case.kappa, 1e-12);
    close("AC1", counts.ac1().unwrap(), case.ac1, 1e-12);
}

#[test]
fn mcnemar_and_holm_agree_with_statsmodels_and_scipy() {
    let golden = golden();
    for case in golden.mcnemar {
        let found = mcnemar(case.counts.0, case.counts.1);
        close("exact", found.exact, case.exact, 1e-11);
        close("mid-p", found.mid_p, case.mid_p, 1e-11);
    }
    let (p_values, expected) = golden.holm;
    for (found, expected) in holm(&p_values).unwrap().into_iter().zip(expected) {
        close("Holm", found, expected, 1e-14);
    }
}

#[test]
fn three_and_more_labellers_agree_with_statsmodels_and_krippendorff() {
    for case in golden().several {
        if let Some(expected) = case.fleiss {
            close("Fleiss", fleiss_kappa(&case.counts).unwrap().unwrap(), expected, 1e-12);
        }
        close("alpha", krippendorff_alpha(&case.counts).unwrap().unwrap(), case.alpha, 1e-12);
    }
}

#[test]
fn bca_intervals_agree_with_scipy() {
    for case in golden().bca {
        let found = bca_interval(case.estimate, &case.draws, &case.left_out, case.level).unwrap().unwrap();
        close("low", found.low, case.low, 1e-10);
        close("high", found.high, case.high, 1e-10);
    }
}

#[test]
fn what_the_data_leave_undefined_is_none_and_never_0() {
    let one_class = vec![vec![12, 0], vec![0, 0]];
    assert_eq!(cohen_kappa(&one_class, LEVEL), Ok(None), "chance alone agrees always");
    assert_eq!(gwet_ac1(&one_class), Ok(Some(1.0)), "AC1 is defined where kappa is not");
    let nothing = vec![vec![0, 0], vec![0, 0]];
    assert_eq!(cohen_kappa(&nothing, LEVEL), Ok(None));
    assert_eq!(gwet_ac1(&nothing), Ok(None));
    assert_eq!(gwet_ac1(&[vec![3]]), Ok(None));
    assert_eq!(fleiss_kappa(&[]), Ok(None));
    assert_eq!(fleiss_kappa(&[vec![3, 0], vec![3, 0]]), Ok(None));
    assert_eq!(krippendorff_alpha(&[]), Ok(None));
    assert_eq!(krippendorff_alpha(&[vec![1, 0], vec![0, 1]]), Ok(None), "no row has two labels");
    assert_eq!(krippendorff_alpha(&[vec![2, 0], vec![3, 0]]), Ok(None));
    assert_eq!(bca_interval(1.0, &[], &[0.9, 1.1], LEVEL), Ok(None));
    assert_eq!(bca_interval(1.0, &[2.0, 3.0], &[0.9, 1.1], LEVEL), Ok(None), "all draws on one side");
    assert_eq!(bca_interval(1.0, &[0.5, 1.5], &[1.0, 1.0], LEVEL), Ok(None), "no cluster matters");
    let undefined = |_: &[usize]| None;
    assert_eq!(paired_cluster_bootstrap(&[0, 1], 9, 1, LEVEL, |_| Some(1.0), undefined), Ok(None));
    assert_eq!(paired_cluster_bootstrap(&[], 9, 1, LEVEL, |_| Some(1.0), |_| Some(1.0)), Ok(None));
    assert_eq!(cluster_bootstrap_bca(&[], 9, 1, LEVEL, |_| Some(1.0)), Ok(None));
    let nothing_speaks_for_a_difference = mcnemar(0, 0);
    assert_eq!((nothing_speaks_for_a_difference.exact, nothing_speaks_for_a_difference.mid_p), (1.0, 1.0));
    assert_eq!(holm(&[]), Ok(Vec::new()));
}

#[test]
fn tables_that_are_none_are_errors() {
    let error = StatsError::NotSquare { rows: 2, columns: 1 };
    assert_eq!(cohen_kappa(&[vec![1, 2], vec![3]], LEVEL), Err(error));
    assert_eq!(error.to_string(), "a table of 2 rows and 1 columns, expected as many columns as rows");
    assert_eq!(fleiss_kappa(&[vec![2, 1], vec![2, 2]]), Err(StatsError::UnevenRow { row: 1 }));
    assert_eq!(fleiss_kappa(&[vec![1, 0]]), Err(StatsError::UnevenRow { row: 0 }));
    assert_eq!(krippendorff_alpha(&[vec![2, 1], vec![2]]), Err(StatsError::UnevenRow { row: 1 }));
    assert!(matches!(holm(&[0.5, 1.5]), Err(StatsError::NotAProbability { row: 1, .. })));
}

#[test]
fn a_paired_difference_is_surer_than_two_intervals() {
    // Two statistics that share all their noise: each varies, their difference is always 0.1.
    let values: Vec<f64> = (0..40).map(|row| f64::from(row * 17 % 40) / 40.0).collect();
    let clusters: Vec<u32> = (0..40).collect();
    let mean = |rows: &[usize]| Some(rows.iter().map(|row| values[*row]).sum::<f64>() / rows.len() as f64);
    let shifted = |rows: &[usize]| Some(mean(rows)? + 0.1);
    let found = paired_cluster_bootstrap(&clusters, 199, 5, LEVEL, shifted, mean).unwrap().unwrap();
    assert!((found.difference - 0.1).abs() < 1e-12);
    assert!(found.bootstrap.interval.high - found.bootstrap.interval.low < 1e-12);
    assert_eq!(found.p_value, 2.0 / 200.0, "no draw of 199 is on the other side, and the sample counts too");
    let equal = paired_cluster_bootstrap(&clusters, 199, 5, LEVEL, mean, mean).unwrap().unwrap();
    assert_eq!((equal.difference, equal.p_value), (0.0, 1.0));
}

#[test]
fn bca_moves_towards_the_longer_tail() {
    let values: Vec<f64> = (0..30).map(|row| (f64::from(row) / 6.0).exp()).collect();
    let clusters: Vec<u32> = (0..30).collect();
    let mean = |rows: &[usize]| {
        (!rows.is_empty()).then(|| rows.iter().map(|row| values[*row]).sum::<f64>() / rows.len() as f64)
    };
    let plain = cluster_bootstrap(&clusters, 999, 1, LEVEL, mean).unwrap().unwrap().interval;
    let bca = cluster_bootstrap_bca(&clusters, 999, 1, LEVEL, mean).unwrap().unwrap().interval;
    assert!(bca.low > plain.low && bca.high > plain.high, "{bca:?} and {plain:?}");
}
