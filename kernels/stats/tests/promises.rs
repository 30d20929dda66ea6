//! What no reference implementation says: what is undefined, what is an error, how ties are broken, and that a
//! bootstrap repeats.

use argent_stats::*;

const LEVEL: f64 = 0.95;

#[test]
fn a_statistic_without_both_classes_is_undefined() {
    for targets in [[true; 3], [false; 3]] {
        let scores = [0.1, 0.2, 0.3];
        assert_eq!(roc_auc(&targets, &scores), Ok(None));
        assert_eq!(roc_curve(&targets, &scores), Ok(None));
        assert_eq!(auc_interval_delong(&targets, &scores, LEVEL), Ok(None));
        assert_eq!(delong_test(&targets, &scores, &scores), Ok(None));
        assert_eq!(youden_threshold(&targets, &scores), Ok(None));
        assert_eq!(closest_to_corner_threshold(&targets, &scores), Ok(None));
    }
    assert_eq!(average_precision(&[false], &[0.5]), Ok(None));
    assert_eq!(f1_threshold(&[false], &[0.5]), Ok(None));
    assert_eq!(brier_score(&[], &[]), Ok(None));
    assert_eq!(expected_calibration_error(&[], &[]), Ok(None));
    assert_eq!(wilson(0, 0, LEVEL), Ok(None));
    assert_eq!(cluster_bootstrap(&[], 10, 1, LEVEL, |_| Some(1.0)), Ok(None));
}

#[test]
fn a_score_that_is_not_a_number_is_an_error_everywhere() {
    let (targets, scores) = ([true, false], [0.5, f64::NAN]);
    let error = StatsError::NotANumber { row: 1 };
    assert_eq!(roc_auc(&targets, &scores), Err(error));
    assert_eq!(roc_curve(&targets, &scores), Err(error));
    assert_eq!(average_precision(&targets, &scores), Err(error));
    assert_eq!(auc_interval_delong(&targets, &scores, LEVEL), Err(error));
    assert_eq!(delong_test(&targets, &[0.1, 0.2], &scores), Err(error));
    assert_eq!(youden_threshold(&targets, &scores), Err(error));
    assert_eq!(f1_threshold(&targets, &scores), Err(error));
    assert_eq!(closest_to_corner_threshold(&targets, &scores), Err(error));
    assert_eq!(Confusion::at_threshold(&targets, &scores, 0.5), Err(error));
    assert_eq!(brier_score(&targets, &scores), Err(error));
    assert_eq!(expected_calibration_error(&targets, &scores), Err(error));
}

#[test]
fn columns_of_different_lengths_are_an_error() {
    let error = StatsError::LengthMismatch { left: 2, right: 1 };
    assert_eq!(roc_auc(&[true, false], &[0.5]), Err(error));
    assert_eq!(Confusion::of_decisions(&[true, false], &[true]), Err(error));
    assert_eq!(brier_score(&[true, false], &[0.5]), Err(error));
    assert_eq!(error.to_string(), "columns of 2 and 1 rows, expected equal lengths; join them by key first");
}

#[test]
fn levels_and_probabilities_outside_their_range_are_errors() {
    for level in [0.0, 1.0, 95.0, f64::NAN] {
        assert!(matches!(wilson(1, 2, level), Err(StatsError::Level { .. })));
        assert!(matches!(cluster_bootstrap(&[1], 1, 1, level, |_| None), Err(StatsError::Level { .. })));
    }
    assert_eq!(wilson(3, 2, LEVEL), Err(StatsError::MoreSuccessesThanTrials { successes: 3, trials: 2 }));
    let error = StatsError::NotAProbability { row: 0, score: 1.5 };
    assert_eq!(brier_score(&[true], &[1.5]), Err(error));
    assert_eq!(closest_to_corner_threshold(&[true, false], &[1.5, 0.5]), Err(error));
}

#[test]
fn ratios_of_nothing_are_undefined() {
    let nothing = Confusion::default();
    for ratio in [nothing.accuracy(), nothing.f1(), nothing.weighted_f1(), nothing.mcc(), nothing.kappa()] {
        assert_eq!(ratio, None);
    }
    let no_positives = Confusion { tp: 0, fp: 2, fn_: 0, tn: 8 };
    assert_eq!(no_positives.sensitivity(), None);
    assert_eq!(no_positives.balanced_accuracy(), None);
    assert_eq!(no_positives.f1(), None);
    assert_eq!(no_positives.mcc(), None);
    assert_eq!(no_positives.ppv(), Some(0.0));
    assert_eq!(no_positives.kappa(), Some(0.0));
    let nothing_called = Confusion { tp: 0, fp: 0, fn_: 2, tn: 8 };
    assert_eq!(nothing_called.ppv(), None);
    assert_eq!(nothing_called.f1(), Some(0.0));
    assert_eq!(Confusion { tp: 0, fp: 0, fn_: 0, tn: 8 }.kappa(), None);
}

#[test]
fn equal_youden_indices_give_the_highest_threshold() {
    // J is 1/2 at 0.8 and again at 0.4.
    let targets = [true, false, true, false];
    assert_eq!(youden_threshold(&targets, &[0.8, 0.6, 0.4, 0.2]), Ok(Some(0.8)));
    // F1 is 2/3 at 0.9 (1 of 2 positives, no false one) and again at 0.1 (both positives, both negatives).
    assert_eq!(f1_threshold(&targets, &[0.9, 0.3, 0.1, 0.1]), Ok(Some(0.9)));
}

#[test]
fn a_threshold_that_beats_nothing_is_still_a_score_that_occurs() {
    assert_eq!(youden_threshold(&[false, true], &[0.9, 0.1]), Ok(Some(0.1)));
}

#[test]
fn signed_zeros_are_tied() {
    assert_eq!(roc_auc(&[true, false], &[0.0, -0.0]), Ok(Some(0.5)));
    assert_eq!(roc_auc(&[true, false], &[f64::INFINITY, f64::NEG_INFINITY]), Ok(Some(1.0)));
}

#[test]
fn delong_claims_no_certainty_from_separation_or_identity() {
    let targets = [true, true, false, false];
    assert_eq!(auc_interval_delong(&targets, &[0.9, 0.8, 0.2, 0.1], LEVEL), Ok(None));
    assert_eq!(auc_interval_delong(&targets, &[0.5; 4], LEVEL), Ok(None));
    let scores = [0.9, 0.3, 0.4, 0.1];
    assert_eq!(delong_test(&targets, &scores, &scores.map(|score| score * 0.5)), Ok(None));
}

#[test]
fn calibration_does_not_depend_on_the_order_of_tied_rows() {
    let scores: Vec<f64> = (0..40).map(|row| f64::from(row / 10) / 4.0).collect();
    let targets: Vec<bool> = (0..40).map(|row| row % 10 < row / 10 * 2).collect();
    let backwards: Vec<bool> = (0..40).map(|row| row % 10 >= 10 - row / 10 * 2).collect();
    let forwards = reliability_table(&targets, &scores).unwrap();
    assert_eq!(forwards, reliability_table(&backwards, &scores).unwrap());
    assert_eq!(forwards.len(), CALIBRATION_BINS);
    assert_eq!(forwards.iter().map(|bin| bin.rows).sum::<usize>(), 40);
}

fn mean_of(values: &[f64]) -> impl Fn(&[usize]) -> Option<f64> + Sync {
    |rows| Some(rows.iter().map(|&row| values[row]).sum::<f64>() / rows.len() as f64)
}

#[test]
fn a_bootstrap_covers_what_normal_theory_says() {
    // 400 values of known variance: the percentile interval of their mean must agree with mean ± 1.96·σ/√n within
    // the Monte Carlo error of a tail percentile over 4000 draws (about 3 % of the width).
    let values: Vec<f64> = (0..400).map(|row| f64::from(row * 7919 % 400) / 400.0).collect();
    let clusters: Vec<u32> = (0..400).collect();
    let found = cluster_bootstrap(&clusters, 4000, 7, LEVEL, mean_of(&values)).unwrap().unwrap();
    let standard_error = (1.0_f64 / 12.0 / 400.0).sqrt();
    let mean = 399.0 / 800.0;
    let tolerance = 0.1 * standard_error;
    assert!((found.interval.low - (mean - 1.96 * standard_error)).abs() < tolerance, "{found:?}");
    assert!((found.interval.high - (mean + 1.96 * standard_error)).abs() < tolerance, "{found:?}");
    assert_eq!(found.undefined_draws, 0);
}

#[test]
fn a_bootstrap_is_the_same_on_any_number_of_threads() {
    let values: Vec<f64> = (0..50).map(|row| f64::from(row).sqrt()).collect();
    let clusters: Vec<u32> = (0..50).map(|row| row / 3).collect();
    let on_threads = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| cluster_bootstrap(&clusters, 500, 42, LEVEL, mean_of(&values)).unwrap().unwrap())
    };
    assert_eq!(on_threads(1), on_threads(4));
    let other_seed = cluster_bootstrap(&clusters, 500, 43, LEVEL, mean_of(&values)).unwrap().unwrap();
    assert_ne!(on_threads(1), other_seed);
}

#[test]
fn copies_of_a_row_in_its_cluster_narrow_nothing() {
    let values: Vec<f64> = (0..30).map(f64::from).collect();
    let singles: Vec<u32> = (0..30).collect();
    let copied_values: Vec<f64> = (0..120).map(|row| f64::from(row / 4)).collect();
    let copies: Vec<u32> = (0..120).map(|row| row / 4).collect();
    let alone = cluster_bootstrap(&singles, 1000, 3, LEVEL, mean_of(&values)).unwrap().unwrap();
    let copied = cluster_bootstrap(&copies, 1000, 3, LEVEL, mean_of(&copied_values)).unwrap().unwrap();
    assert_eq!(alone, copied);
    let as_if_independent: Vec<u32> = (0..120).collect();
    let narrow =
        cluster_bootstrap(&as_if_independent, 1000, 3, LEVEL, mean_of(&copied_values)).unwrap().unwrap();
    let width = |found: &Bootstrap| found.interval.high - found.interval.low;
    assert!(width(&narrow) < 0.6 * width(&alone));
}

#[test]
fn undefined_draws_are_counted_and_too_many_give_nothing() {
    // One of 3 clusters carries the only positive: a draw lacks it with probability (2/3)³ = 0.30.
    let found = cluster_bootstrap(&[0, 1, 2], 4000, 5, LEVEL, |rows| rows.contains(&0).then_some(1.0));
    let undefined = found.unwrap().unwrap().undefined_draws as f64 / 4000.0;
    assert!((undefined - 8.0 / 27.0).abs() < 0.03, "{undefined}");
    assert_eq!(cluster_bootstrap(&[0, 1, 2], 100, 5, LEVEL, |_| None), Ok(None));
    let infinite = cluster_bootstrap(&[0], 3, 5, LEVEL, |_| Some(f64::INFINITY));
    assert_eq!(infinite, Err(StatsError::StatisticNotFinite { draw: 0 }));
    assert_eq!(cluster_bootstrap(&[0], 0, 5, LEVEL, |_| None), Err(StatsError::NoDraws));
}

#[test]
fn the_draws_of_a_seed_never_change() {
    // Pinned, so that a new version of the random generator cannot change stored intervals unseen.
    let values: Vec<f64> = (0..10).map(f64::from).collect();
    let clusters: Vec<u32> = (0..10).collect();
    let found = cluster_bootstrap(&clusters, 9, 2024, 0.5, mean_of(&values)).unwrap().unwrap();
    assert_eq!((found.interval.low, found.interval.high), (4.0, 4.8));
}

#[test]
fn the_vertices_of_a_curve_are_the_same_curve_without_points_on_straight_lines() {
    let mut state = 7_u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        state >> 33
    };
    let targets: Vec<bool> = (0..400).map(|_| next() % 3 == 0).collect();
    let scores: Vec<f64> =
        targets.iter().map(|target| (next() % 90 + 20 * u64::from(*target)) as f64).collect();
    let all = roc_curve(&targets, &scores).unwrap().unwrap();
    let vertices = roc_vertices(&targets, &scores).unwrap().unwrap();
    assert!(vertices.len() < all.len());
    assert!(vertices.first() == all.first() && vertices.last() == all.last());
    let area = |curve: &[RocPoint]| -> f64 {
        let parts = curve.windows(2).map(|pair| {
            let width = pair[1].false_positive_rate - pair[0].false_positive_rate;
            width * (pair[0].true_positive_rate + pair[1].true_positive_rate) / 2.0
        });
        parts.sum()
    };
    let auc = roc_auc(&targets, &scores).unwrap().unwrap();
    assert!((area(&vertices) - auc).abs() < 1e-12 && (area(&all) - auc).abs() < 1e-12);
    let straight = roc_vertices(&[true, false, true, false], &[0.9, 0.9, 0.1, 0.1]).unwrap().unwrap();
    assert_eq!(straight.len(), 2, "two groups with equal shares are one line");
    assert_eq!(roc_vertices(&[true], &[0.5]), Ok(None));
}

#[test]
fn a_ranking_measures_a_draw_as_if_its_rows_were_sorted_anew() {
    let targets = [true, false, true, false, true, false, false];
    let scores = [0.9, 0.9, 0.4, 0.1, 0.7, -0.0, 0.0];
    let ranking = Ranking::new(&targets, &scores).unwrap();
    for rows in
        [vec![0, 1, 2, 3, 4, 5, 6], vec![6, 6, 0, 0, 2, 1], vec![5, 6, 4], vec![1, 3], vec![0, 2], vec![]]
    {
        let drawn = ranking.draw(rows.iter().copied());
        let (t, s): (Vec<bool>, Vec<f64>) = rows.iter().map(|row| (targets[*row], scores[*row])).unzip();
        assert_eq!(drawn.roc_auc(), roc_auc(&t, &s).unwrap(), "{rows:?}");
        assert_eq!(drawn.average_precision(), average_precision(&t, &s).unwrap(), "{rows:?}");
        for threshold in [0.0, 0.4, 0.5, 2.0] {
            assert_eq!(drawn.at_threshold(threshold), Confusion::at_threshold(&t, &s, threshold).unwrap());
        }
    }
    assert_eq!(ranking.all().roc_auc(), roc_auc(&targets, &scores).unwrap());
}

#[test]
fn several_statistics_of_one_draw_are_each_what_it_would_be_alone() {
    let clusters: Vec<u32> = (0..60).map(|row| row / 3).collect();
    let mean = |rows: &[usize]| Some(rows.iter().sum::<usize>() as f64 / rows.len() as f64);
    let never = |_: &[usize]| None;
    let together = cluster_bootstrap_each(&clusters, 200, 4, LEVEL, 2, |rows| vec![mean(rows), never(rows)]);
    let alone = cluster_bootstrap(&clusters, 200, 4, LEVEL, mean).unwrap();
    assert!(alone.is_some());
    assert_eq!(together, Ok(vec![alone, None]));
    assert_eq!(cluster_bootstrap_each(&[], 10, 1, LEVEL, 1, |_| vec![Some(1.0)]), Ok(vec![None]));
    assert_eq!(
        cluster_bootstrap_each(&clusters, 2, 1, LEVEL, 3, |_| vec![]),
        Err(StatsError::LengthMismatch { left: 3, right: 0 })
    );
}
