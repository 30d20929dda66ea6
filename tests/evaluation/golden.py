"""Writes cells.csv, a score and a state per scan and finding, and golden.json: what scikit-learn says about them.

    pip install scikit-learn==1.9.1 numpy==2.4.6
    python golden.py

Intervals are drawn by NumPy with random numbers of its own, so they are compared with a tolerance.
"""

import csv
import json
from pathlib import Path

import numpy as np
from sklearn import metrics

FINDINGS = {"consolidation": (0.4, 1.6), "effusion": (0.25, 0.9), "nodule": (0.1, 1.2), "pneumothorax": (0.0, 0.0)}
rng = np.random.default_rng(5)
rows = []
for patient in range(80):
    part = "val" if patient < 30 else "test"
    for scan in range(rng.integers(1, 4)):
        for finding, (prevalence, effect) in FINDINGS.items():
            present = rng.random() < prevalence
            score = 1 / (1 + np.exp(-(rng.normal() + effect * present - 0.7)))
            rows.append({
                "cell": f"p{patient:02}s{scan}-{finding}", "scan": f"p{patient:02}s{scan}", "patient": f"p{patient:02}",
                "part": part, "finding": finding, "score": round(score, 3), "state": "present" if present else "absent",
            })


def columns(finding, part):
    own = [row for row in rows if row["finding"] == finding and row["part"] == part]
    return (np.array([row["state"] == "present" for row in own]), np.array([row["score"] for row in own]),
            np.array([row["patient"] for row in own]))


def closest(targets, scores):
    """`find_threshold` of CT-CLIP's evaluation script, rewritten: p > t, the last of equal distances."""
    best, threshold = 10000, 0
    for t in np.linspace(0, 1, 100):
        (tn, fp), (fn, tp) = metrics.confusion_matrix(targets, scores > t, labels=[False, True])
        distance = np.sqrt((1 - tp / (tp + fn)) ** 2 + (fp / (fp + tn)) ** 2)
        if distance <= best:
            best, threshold = distance, t
    return threshold


def measures(finding, fitted_on):
    targets, scores, _ = columns(finding, "test")
    if not targets.any():
        return None
    threshold = closest(*columns(finding, fitted_on)[:2])
    calls = scores > threshold
    return {
        "auc": metrics.roc_auc_score(targets, scores),
        "average_precision": metrics.average_precision_score(targets, scores),
        "f1": metrics.f1_score(targets, calls),
        "weighted_f1": metrics.f1_score(targets, calls, average="weighted"),
        "sensitivity": metrics.recall_score(targets, calls),
        "specificity": metrics.recall_score(targets, calls, pos_label=False),
        "ppv": metrics.precision_score(targets, calls),
        "accuracy": metrics.accuracy_score(targets, calls),
        "balanced_accuracy": metrics.balanced_accuracy_score(targets, calls),
        "mcc": metrics.matthews_corrcoef(targets, calls),
    }


def averages(fitted_on):
    of = {finding: measures(finding, fitted_on) for finding in FINDINGS}
    defined = [finding for finding in FINDINGS if of[finding]]
    positives = [columns(finding, "test")[0].sum() for finding in defined]
    table = {}
    for measure in of[defined[0]]:
        values = [of[finding][measure] for finding in defined]
        table[measure] = {"macro": np.mean(values), "weighted": np.average(values, weights=positives)}
    # All findings at once: scikit-learn's own averages.
    test = [columns(finding, "test") for finding in defined]
    targets, scores = (np.stack([of[i] for of in test], axis=1) for i in (0, 1))
    assert np.isclose(table["auc"]["weighted"], metrics.roc_auc_score(targets, scores, average="weighted"))
    assert np.isclose(table["auc"]["macro"], metrics.roc_auc_score(targets, scores, average="macro"))
    return table


def bootstrap(finding, draws=4000):
    targets, scores, patients = columns(finding, "test")
    of_patient = [np.flatnonzero(patients == patient) for patient in np.unique(patients)]
    random, aucs = np.random.default_rng(1), []
    for _ in range(draws):
        picked = np.concatenate([of_patient[i] for i in random.integers(len(of_patient), size=len(of_patient))])
        if targets[picked].any() and not targets[picked].all():
            aucs.append(metrics.roc_auc_score(targets[picked], scores[picked]))
    return np.percentile(aucs, [2.5, 97.5]).tolist()


defined = [finding for finding in FINDINGS if FINDINGS[finding][0]]
golden = {
    "fitted": {part: {f: measures(f, part) for f in defined} for part in ["val", "test"]},
    "averages": {part: averages(part) for part in ["val", "test"]},
    "auc_bootstrap": {f: bootstrap(f) for f in defined},
}
here = Path(__file__)
with here.with_name("cells.csv").open("w", newline="") as file:
    writer = csv.DictWriter(file, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
here.with_name("golden.json").write_text(json.dumps(golden, indent=1) + "\n")
