"""Writes golden.json: what reference implementations say about fixed random data.

    pip install scikit-learn==1.9.1 scipy==1.17.1 statsmodels==0.15.0 confidenceinterval==1.0.5 MLstatkit==0.1.91
    python golden.py

Each value names its reference below. DeLong's variance has no implementation in SciPy or scikit-learn, so it is
computed from the definition of the structural components (all pairs, exact fractions), and the packages
confidenceinterval and MLstatkit are asserted to agree.
"""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
from confidenceinterval.delong import delong_roc_variance
from MLstatkit import Delong_test
from scipy.special import ndtri
from scipy.stats import norm
from sklearn import metrics
from statsmodels.stats.proportion import proportion_confint


def data(name, seed, rows, prevalence, digits):
    """Two correlated scores in 0 to 1, rounded to make ties when digits are few."""
    rng = np.random.default_rng(seed)
    targets = rng.random(rows) < prevalence
    shared = rng.normal(size=rows) + 1.2 * targets
    logistic = lambda x: 1 / (1 + np.exp(-x))
    scores = [np.round(logistic(shared + rng.normal(size=rows)), digits) for _ in range(2)]
    return {"name": name, "targets": targets, "scores": scores[0], "other_scores": scores[1]}


def components(targets, scores):
    """DeLong's structural components of the positives and of the negatives, as exact fractions."""
    positive, negative = scores[targets], scores[~targets]
    wins = lambda a, b: Fraction(1) if a > b else Fraction(1, 2) if a == b else Fraction(0)
    of_positives = [sum(wins(a, b) for b in negative) / len(negative) for a in positive]
    of_negatives = [sum(wins(a, b) for a in positive) / len(positive) for b in negative]
    return of_positives, of_negatives


def variance(parts):
    def of_mean(values):
        mean = sum(values) / len(values)
        return sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values)

    return of_mean(parts[0]) + of_mean(parts[1])


def delong(case):
    targets, a, b = case["targets"], case["scores"], case["other_scores"]
    parts_a, parts_b = components(targets, a), components(targets, b)
    auc_a, auc_b = (float(sum(parts[0]) / len(parts[0])) for parts in (parts_a, parts_b))
    variance_a = float(variance(parts_a))
    assert np.isclose(variance_a, delong_roc_variance(targets.astype(int), a)[1], rtol=1e-9)
    half = norm.ppf(0.975) * variance_a**0.5 / (auc_a * (1 - auc_a))
    logit = np.log(auc_a / (1 - auc_a))
    difference = tuple([x - y for x, y in zip(*side)] for side in zip(parts_a, parts_b))
    error = float(variance(difference)) ** 0.5
    z = (auc_a - auc_b) / error
    reference = Delong_test(targets.astype(int), a, b)
    assert np.isclose(abs(z), abs(reference[0]), rtol=1e-6), (z, reference)
    return {
        "low": 1 / (1 + np.exp(-(logit - half))),
        "high": 1 / (1 + np.exp(-(logit + half))),
        "auc_a": auc_a,
        "auc_b": auc_b,
        "standard_error": error,
        "z": z,
        "p_value": 2 * norm.sf(abs(z)),
    }


def youden(targets, scores):
    false, true, thresholds = metrics.roc_curve(targets, scores, drop_intermediate=False)
    return thresholds[np.argmax(true - false)]


def best_f1(targets, scores):
    candidates = np.unique(scores)[::-1]
    return candidates[np.argmax([metrics.f1_score(targets, scores >= t) for t in candidates])]


def ct_clip(targets, probabilities):
    """`find_threshold` of CT-CLIP's evaluation script, rewritten."""
    best, threshold = 10000, 0
    for t in np.linspace(0, 1, 100):
        (tn, fp), (fn, tp) = metrics.confusion_matrix(targets, probabilities > t, labels=[False, True])
        distance = np.sqrt((1 - tp / (tp + fn)) ** 2 + (fp / (fp + tn)) ** 2)
        if distance <= best:
            best, threshold = distance, t
    return threshold


def calibration_error(targets, scores):
    """15 bins of equal mass; only called without ties, where the order is the only one."""
    order = np.argsort(scores)
    bins = np.array_split(order, min(15, len(order)))
    return sum(len(b) * abs(scores[b].mean() - targets[b].mean()) for b in bins) / len(scores)


def ranking(case):
    targets, scores = case["targets"], case["scores"]
    false, true, thresholds = metrics.roc_curve(targets, scores, drop_intermediate=False)
    return {
        "name": case["name"],
        "targets": targets.tolist(),
        "scores": scores.tolist(),
        "other_scores": case["other_scores"].tolist(),
        "roc_auc": metrics.roc_auc_score(targets, scores),
        "average_precision": metrics.average_precision_score(targets, scores),
        "roc_thresholds": thresholds[1:].tolist(),
        "false_positive_rates": false.tolist(),
        "true_positive_rates": true.tolist(),
        "delong": delong(case),
        "youden": youden(targets, scores),
        "f1_threshold": best_f1(targets, scores),
        "ct_clip_threshold": ct_clip(targets, scores),
        "brier": metrics.brier_score_loss(targets, scores),
        "calibration_error": calibration_error(targets, scores) if len(set(scores)) == len(scores) else None,
    }


def confusion(tp, fp, fn, tn):
    targets = np.repeat([True, False, True, False], [tp, fp, fn, tn])
    calls = np.repeat([True, True, False, False], [tp, fp, fn, tn])
    return {
        "counts": [tp, fp, fn, tn],
        "sensitivity": metrics.recall_score(targets, calls),
        "specificity": metrics.recall_score(targets, calls, pos_label=False),
        "ppv": metrics.precision_score(targets, calls),
        "npv": metrics.precision_score(targets, calls, pos_label=False),
        "accuracy": metrics.accuracy_score(targets, calls),
        "balanced_accuracy": metrics.balanced_accuracy_score(targets, calls),
        "f1": metrics.f1_score(targets, calls),
        "weighted_f1": metrics.f1_score(targets, calls, average="weighted"),
        "mcc": metrics.matthews_corrcoef(targets, calls),
        "kappa": metrics.cohen_kappa_score(targets, calls),
    }


def wilson(successes, trials, level):
    low, high = proportion_confint(successes, trials, alpha=1 - level, method="wilson")
    return {"successes": successes, "trials": trials, "level": level, "low": low, "high": high}


probabilities = [1e-300, 1e-100, 1e-20, 1e-12, 1e-10, 1e-5, 0.001, 0.025, 0.074, 0.075, 0.076, 0.3, 0.5, 0.6, 0.925, 0.975]
distances = [0.0, 1e-8, 0.1, 0.5, 1.0, 1.96, 2.5, 2.8, 2.829, 3.0, 4.0, 6.0, 10.0, 20.0, 37.0]
golden = {
    "rankings": [
        ranking(data("continuous", 1, 300, 0.3, 17)),
        ranking(data("tied", 2, 240, 0.4, 1)),
        ranking(data("rare", 3, 500, 0.02, 3)),
        ranking(data("small", 4, 12, 0.5, 2)),
    ],
    "confusions": [confusion(*counts) for counts in [(30, 10, 5, 55), (1, 2, 3, 4), (90, 3, 40, 900), (0, 5, 5, 5)]],
    "wilson": [wilson(*k) for k in [(0, 10, 0.95), (10, 10, 0.95), (3, 17, 0.9), (1, 1, 0.95), (812, 1000, 0.99)]],
    "quantiles": [[p, ndtri(p)] for p in probabilities],
    "two_sided_p": [[z, 2 * norm.sf(z)] for z in distances],
}
Path(__file__).with_name("golden.json").write_text(json.dumps(golden) + "\n")
