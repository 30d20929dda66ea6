//! Retrieval and zero-shot diagnosis against NumPy (`retrieval.py` beside this file made `retrieval.json`), against what
//! is known of random vectors, and against all pairs one by one.

use argent_stats::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    images: Vec<Vec<f32>>,
    texts: Vec<Vec<f32>>,
    scans: Vec<u32>,
    labels: Vec<Vec<bool>>,
    ks: Vec<usize>,
    zero_shot: Vec<ZeroShot>,
    cosine: Expected,
    dot: Expected,
}

#[derive(Deserialize)]
struct Expected {
    pair_ranks: Vec<usize>,
    scan_ranks: Vec<usize>,
    self_included: Vec<f64>,
    cumulative: Vec<f64>,
    clean: Vec<f64>,
    average_precision: Vec<f64>,
}

#[derive(Deserialize)]
struct ZeroShot {
    similarity: String,
    scale: f64,
    ensemble: String,
    probabilities: Vec<f64>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("retrieval.json")).expect("retrieval.json has the shape above")
}

fn vectors(rows: &[Vec<f32>], similarity: Similarity) -> Vectors {
    let vectors = Vectors::new(rows.iter().map(Vec::as_slice)).expect("rows are vectors");
    vectors.prepared(similarity).expect("no row is zero")
}

fn label_sets(labels: &[Vec<bool>]) -> Vec<LabelSet> {
    labels.iter().map(|of| LabelSet::new(&of.iter().map(|label| Some(*label)).collect::<Vec<_>>())).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[track_caller]
fn close(found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "{found}, expected {expected} within {tolerance}");
}

const MEASURES: [OverlapMeasure; 4] = [
    OverlapMeasure::SelfIncluded,
    OverlapMeasure::Cumulative,
    OverlapMeasure::Clean,
    OverlapMeasure::AveragePrecision,
];

#[test]
fn ranks_and_overlaps_agree_with_numpy() {
    let golden = golden();
    for (similarity, expected) in [(Similarity::Cosine, &golden.cosine), (Similarity::Dot, &golden.dot)] {
        let (images, texts) = (vectors(&golden.images, similarity), vectors(&golden.texts, similarity));
        let pairs: Vec<Vec<usize>> = (0..images.len()).map(|image| vec![image]).collect();
        assert_eq!(best_ranks(&texts, &images, &pairs).unwrap(), expected.pair_ranks);
        let of_scan = |scan: &u32| (0..images.len()).filter(|image| golden.scans[*image] == *scan).collect();
        let scans: Vec<Vec<usize>> = golden.scans.iter().map(of_scan).collect();
        assert_eq!(best_ranks(&texts, &images, &scans).unwrap(), expected.scan_ranks);
        let labels = label_sets(&golden.labels);
        let retrieval = LabelRetrieval::new(&images, &labels, 10).unwrap();
        let wanted =
            [&expected.self_included, &expected.cumulative, &expected.clean, &expected.average_precision];
        for (measure, wanted) in MEASURES.into_iter().zip(wanted) {
            let found = retrieval.values(measure, &golden.ks);
            assert_eq!(found.len(), wanted.len());
            for (found, wanted) in found.iter().zip(wanted) {
                close(mean(found.as_ref().unwrap()), *wanted, 1e-12);
            }
        }
    }
}

#[test]
fn zero_shot_probabilities_agree_with_numpy() {
    let golden = golden();
    let plain = |rows: &[Vec<f32>]| vectors(rows, Similarity::Dot);
    let (images, positive, negative) =
        (plain(&golden.images), plain(&golden.texts[..3]), plain(&golden.texts[3..6]));
    for case in &golden.zero_shot {
        let similarity = if case.similarity == "dot" { Similarity::Dot } else { Similarity::Cosine };
        let ensemble =
            if case.ensemble == "mean_vector" { Ensemble::MeanVector } else { Ensemble::MeanProbability };
        let comparison = Comparison { similarity, scale: case.scale };
        let found = zero_shot_probabilities(&images, &positive, &negative, comparison, ensemble).unwrap();
        assert_eq!(found.len(), case.probabilities.len());
        for (found, wanted) in found.iter().zip(&case.probabilities) {
            close(*found, *wanted, 1e-6);
        }
    }
}

#[test]
fn a_pair_of_prompts_that_say_the_same_is_undecided_and_swapping_them_turns_the_answer_round() {
    let images = vectors(&[vec![1.0, 2.0], vec![-3.0, 0.5]], Similarity::Dot);
    let (one, other) =
        (vectors(&[vec![0.2, 0.4]], Similarity::Dot), vectors(&[vec![-1.0, 0.3]], Similarity::Dot));
    let comparison = Comparison { similarity: Similarity::Cosine, scale: 20.0 };
    let ask = |positive, negative, ensemble| {
        zero_shot_probabilities(&images, positive, negative, comparison, ensemble).unwrap()
    };
    for ensemble in [Ensemble::MeanVector, Ensemble::MeanProbability] {
        assert_eq!(ask(&one, &one, ensemble), [0.5, 0.5]);
        for (forwards, backwards) in ask(&one, &other, ensemble).iter().zip(ask(&other, &one, ensemble)) {
            close(forwards + backwards, 1.0, 1e-12);
        }
    }
    let far = Comparison { similarity: Similarity::Dot, scale: 1e6 };
    let sure = zero_shot_probabilities(&images, &one, &other, far, Ensemble::MeanProbability).unwrap();
    assert_eq!(sure, [1.0, 0.0], "a large exponent is no overflow");
}

/// Standard normal numbers would do no better: directions are all that counts.
fn random_vectors(rows: usize, dimension: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..rows).map(|_| (0..dimension).map(|_| random.random_range(-1.0..1.0)).collect()).collect()
}

#[test]
fn random_vectors_find_their_pair_as_often_as_chance_says() {
    let rows = 3039;
    let (texts, images) = (random_vectors(rows, 32, 1), random_vectors(rows, 32, 2));
    let (texts, images) = (vectors(&texts, Similarity::Cosine), vectors(&images, Similarity::Cosine));
    let scan = |image: usize| image / 3;
    let pairs: Vec<Vec<usize>> = (0..rows).map(|image| vec![image]).collect();
    let scans: Vec<Vec<usize>> =
        (0..rows).map(|image| (scan(image) * 3..scan(image) * 3 + 3).collect()).collect();
    for (targets, size) in [(pairs, 1), (scans, 3)] {
        let ranks = best_ranks(&texts, &images, &targets).unwrap();
        for k in [50, 100, 1000] {
            let chance = chance_of_a_hit(rows, size, k).unwrap();
            // Four standard errors.
            close(mean(&hits_at(&ranks, k)), chance, 4.0 * (chance * (1.0 - chance) / rows as f64).sqrt());
        }
    }
    assert_eq!(chance_of_a_hit(3039, 1, 5), Some(5.0 / 3039.0));
    // One of two among the first two of four: 1 - 2/4 * 1/3.
    close(chance_of_a_hit(4, 2, 2).unwrap(), 5.0 / 6.0, 1e-15);
    assert_eq!(chance_of_a_hit(4, 1, 5), None);
}

/// Images of one scan that look alike, whose labels are drawn with a few rates. The expected values of all measures are
/// known exactly where vectors are random; the ones that were measured on CT-RATE need its labels, which are not here.
#[test]
fn random_vectors_overlap_as_much_as_chance_says() {
    let images = 2000;
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let rates = [0.45, 0.35, 0.3, 0.25, 0.12, 0.1, 0.07];
    let labels: Vec<Vec<bool>> =
        (0..images).map(|_| rates.iter().map(|rate| random.random_bool(*rate)).collect()).collect();
    let labels = label_sets(&labels);
    let vectors = vectors(&random_vectors(images, 64, 6), Similarity::Cosine);
    let ks = [1, 5, 10, 50];
    let retrieval = LabelRetrieval::new(&vectors, &labels, 50).unwrap();
    for measure in MEASURES {
        let (values, chance) = (retrieval.values(measure, &ks), retrieval.chance(measure, &ks));
        for (values, chance) in values.iter().zip(chance) {
            close(mean(values.as_ref().unwrap()), chance.unwrap(), 0.02);
        }
    }
    // An abnormal query finds itself first; an all-negative one has nothing in common with anything.
    let abnormal = labels.iter().filter(|labels| labels.is_abnormal()).count() as f64 / images as f64;
    let first = |measure| mean(retrieval.values(measure, &[1])[0].as_ref().unwrap());
    close(first(OverlapMeasure::SelfIncluded), abnormal, 1e-12);
    close(first(OverlapMeasure::Cumulative), abnormal, 1e-12);
}

#[test]
fn images_that_look_alike_are_found_by_each_other() {
    // Two images per scan, equal vectors and labels: the other reconstruction is always the nearest.
    let scans = random_vectors(50, 16, 7);
    let images: Vec<Vec<f32>> = (0..100).map(|image| scans[image / 2].clone()).collect();
    let labels: Vec<Vec<bool>> =
        (0..100).map(|image| (0..6).map(|bit| (image / 2) >> bit & 1 == 1).collect()).collect();
    let labels = label_sets(&labels);
    let retrieval = LabelRetrieval::new(&vectors(&images, Similarity::Cosine), &labels, 3).unwrap();
    let clean = retrieval.values(OverlapMeasure::Clean, &[1, 2]);
    // Scan 0 has no finding, so nothing to find; all others find their twin.
    close(mean(clean[0].as_ref().unwrap()), 98.0 / 100.0, 1e-12);
    assert!(mean(clean[1].as_ref().unwrap()) < 0.8);
}

#[test]
fn every_block_and_edge_gives_what_all_pairs_one_by_one_give() {
    for (queries, gallery, dimension) in [(1, 1, 1), (33, 129, 7), (4, 257, 8), (67, 130, 19), (5, 3, 16)] {
        let (from, to) = (random_vectors(queries, dimension, 8), random_vectors(gallery, dimension, 9));
        let nearest =
            nearest_neighbours(&vectors(&from, Similarity::Dot), &vectors(&to, Similarity::Dot), 10);
        let nearest = nearest.unwrap();
        for (query, nearest) in from.iter().zip(&nearest) {
            let dot = |item: &[f32]| query.iter().zip(item).map(|(a, b)| f64::from(a * b)).sum::<f64>();
            let mut all: Vec<(f64, usize)> =
                to.iter().enumerate().map(|(place, item)| (dot(item), place)).collect();
            all.sort_by(|one, other| other.0.total_cmp(&one.0));
            let expected: Vec<usize> = all.iter().take(10).map(|(_, place)| *place).collect();
            assert_eq!(*nearest, expected, "{queries} x {gallery} x {dimension}");
        }
    }
}

#[test]
fn equal_vectors_are_tied_wherever_they_lie_and_the_first_one_is_the_nearer() {
    // More than a block of equal vectors, so that each place of a tile is met.
    let vector = random_vectors(1, 37, 3).remove(0);
    let all = vectors(&vec![vector; 300], Similarity::Cosine);
    let nearest = nearest_neighbours(&all, &all, 5).unwrap();
    assert!(nearest.iter().all(|found| *found == [0, 1, 2, 3, 4]));
    let targets: Vec<Vec<usize>> = (0..300).map(|image| vec![image]).collect();
    assert_eq!(best_ranks(&all, &all, &targets).unwrap(), (1..=300).collect::<Vec<_>>());
}

#[test]
fn a_finding_that_is_not_known_of_both_counts_on_neither_side() {
    let set = |labels: &[Option<bool>]| LabelSet::new(labels);
    let (yes, no, open) = (Some(true), Some(false), None);
    assert_eq!(set(&[yes, yes, no]).jaccard(&set(&[yes, no, no])), 0.5);
    assert_eq!(set(&[yes, yes, no]).jaccard(&set(&[yes, open, no])), 1.0);
    assert_eq!(set(&[no, no]).jaccard(&set(&[no, no])), 0.0, "two normal images have no finding in common");
    assert_eq!(set(&[open; 70]).jaccard(&set(&[yes; 70])), 0.0);
    assert!(!set(&[no, open]).is_abnormal() && set(&[no, yes]).is_abnormal());
    assert!(!set(&[yes, no]).shares_a_finding(&set(&[no, yes])));
    let mut far = vec![no; 100];
    far[99] = yes;
    assert!(set(&far).is_abnormal() && set(&far).shares_a_finding(&set(&far)));
}

#[test]
fn a_gallery_with_fewer_than_k_images_has_no_value_at_k() {
    let images = vectors(&random_vectors(4, 8, 1), Similarity::Cosine);
    let labels = label_sets(&[vec![true], vec![true], vec![true], vec![false]]);
    let retrieval = LabelRetrieval::new(&images, &labels, 5).unwrap();
    let has_value = |measure| {
        let values = retrieval.values(measure, &[2, 3, 5]);
        let chance = retrieval.chance(measure, &[2, 3, 5]);
        assert!(values.iter().zip(&chance).all(|(value, chance)| value.is_some() == chance.is_some()));
        values.iter().map(Option::is_some).collect::<Vec<_>>()
    };
    assert_eq!(retrieval.gallery_size(), 3);
    assert_eq!(has_value(OverlapMeasure::SelfIncluded), [true, true, false]);
    assert_eq!(has_value(OverlapMeasure::Cumulative), [true, true, false]);
    assert_eq!(has_value(OverlapMeasure::Clean), [true, false, false]);
    assert_eq!(has_value(OverlapMeasure::AveragePrecision), [true, false, false]);
    assert_eq!(retrieval.queries(OverlapMeasure::AveragePrecision), [0, 1, 2]);
    assert_eq!(retrieval.queries(OverlapMeasure::Clean), [0, 1, 2, 3]);
    let normal = label_sets(&[vec![false], vec![false]]);
    let none = LabelRetrieval::new(&images.select(&[0, 1]), &normal, 1).unwrap();
    assert_eq!(none.values(OverlapMeasure::Clean, &[1]), [None]);
    assert_eq!(none.chance(OverlapMeasure::AveragePrecision, &[1]), [None]);
}

#[test]
fn vectors_that_cannot_be_compared_are_errors() {
    let new = |rows: &[&[f32]]| Vectors::new(rows.iter().copied());
    assert_eq!(
        new(&[&[1.0, 2.0], &[1.0]]).unwrap_err(),
        StatsError::Dimension { row: 1, found: 1, expected: 2 }
    );
    assert_eq!(new(&[&[f32::NAN]]).unwrap_err(), StatsError::VectorNotFinite { row: 0 });
    let zero = new(&[&[1.0], &[0.0]]).unwrap();
    assert_eq!(zero.clone().prepared(Similarity::Cosine).unwrap_err(), StatsError::ZeroVector { row: 1 });
    let (two, three) = (new(&[&[1.0, 2.0]]).unwrap(), new(&[&[1.0, 2.0, 3.0]]).unwrap());
    assert_eq!(
        nearest_neighbours(&two, &three, 1).unwrap_err(),
        StatsError::Dimension { row: 0, found: 3, expected: 2 }
    );
    let huge = new(&[&[f32::MAX, f32::MAX]]).unwrap();
    assert_eq!(
        nearest_neighbours(&huge, &huge, 1).unwrap_err(),
        StatsError::SimilarityNotFinite { query: 0 }
    );
    assert_eq!(
        huge.clone().prepared(Similarity::Cosine).and_then(|v| nearest_neighbours(&v, &v, 1)),
        Ok(vec![vec![0]])
    );
    assert_eq!(best_ranks(&two, &two, &[vec![]]).unwrap_err(), StatsError::NoTarget { query: 0 });
    let none = new(&[]).unwrap();
    assert_eq!(nearest_neighbours(&none, &two, 1), Ok(vec![]));
    assert_eq!(nearest_neighbours(&two, &none, 1), Ok(vec![vec![]]));
    let comparison = Comparison { similarity: Similarity::Dot, scale: 1.0 };
    let ask =
        |p: &Vectors, n: &Vectors| zero_shot_probabilities(&two, p, n, comparison, Ensemble::MeanVector);
    assert_eq!(ask(&none, &none).unwrap_err(), StatsError::NoPrompts);
    assert_eq!(ask(&two, &none).unwrap_err(), StatsError::LengthMismatch { left: 1, right: 0 });
    assert_eq!(ask(&three, &three).unwrap_err(), StatsError::Dimension { row: 0, found: 3, expected: 2 });
}
