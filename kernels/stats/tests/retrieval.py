"""Writes retrieval.json: what plain NumPy says about small random embeddings, by the published definitions.

    pip install numpy==2.4.6 scikit-learn==1.9.1
    python retrieval.py

The functions are the definitions written out, pair by pair. scikit-learn's `jaccard_score` is asserted to agree.
"""

import json
from pathlib import Path

import numpy as np
from sklearn.metrics import jaccard_score


def order(similarities):
    """Places by similarity, the highest first, ties by place. Rounded, so that equal vectors are tied."""
    return np.lexsort((np.arange(len(similarities)), -np.round(similarities, 9)))


def similarity(a, b, kind):
    a, b = a.astype(np.float64), b.astype(np.float64)
    if kind == "cosine":
        a = a / np.linalg.norm(a, axis=1, keepdims=True)
        b = b / np.linalg.norm(b, axis=1, keepdims=True)
    return a @ b.T


def rank(similarities, targets):
    places = order(similarities).tolist()
    return min(places.index(target) for target in targets) + 1


def jaccard(a, b):
    n11, n10, n01 = (a & b).sum(), (a & ~b).sum(), (~a & b).sum()
    value = n11 / (n11 + n10 + n01) if n11 + n10 + n01 else 0.0
    assert np.isclose(value, jaccard_score(a, b, zero_division=0))
    return value


def ct_clip(vectors, labels, ks, kind):
    """Self included: per K, and as the script accumulates it (the list of per-query means is never reset)."""
    gallery = [i for i in range(len(labels)) if labels[i].any()]
    similarities = similarity(vectors, vectors[gallery], kind)
    per_k, cumulative, never_reset = [], [], []
    for k in ks:
        of_k = []
        for query in range(len(labels)):
            top = [gallery[place] for place in order(similarities[query])[:k]]
            of_k.append(np.mean([jaccard(labels[query], labels[found]) for found in top]))
        never_reset.extend(of_k)
        per_k.append(np.mean(of_k))
        cumulative.append(np.mean(never_reset))
    return per_k, cumulative


def clean(vectors, labels, ks, kind):
    gallery = [i for i in range(len(labels)) if labels[i].any()]
    similarities = similarity(vectors, vectors[gallery], kind)
    values = []
    for k in ks:
        of_k = []
        for query in range(len(labels)):
            top = [gallery[place] for place in order(similarities[query]) if gallery[place] != query][:k]
            of_k.append(np.mean([jaccard(labels[query], labels[found]) for found in top]))
        values.append(np.mean(of_k))
    return values


def radfinder(vectors, labels, ks, kind):
    abnormal = [i for i in range(len(labels)) if labels[i].any()]
    similarities = similarity(vectors[abnormal], vectors[abnormal], kind)
    np.fill_diagonal(similarities, -np.inf)
    values = []
    for k in ks:
        of_k = []
        for query, row in enumerate(similarities):
            relevant = [(labels[abnormal[query]] & labels[abnormal[place]]).any() for place in order(row)[:k]]
            precisions = [np.mean(relevant[: at + 1]) for at in range(k) if relevant[at]]
            of_k.append(np.sum(precisions) / k)
        values.append(np.mean(of_k))
    return values


def zero_shot(images, positive, negative, kind, scale, ensemble):
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)
    images, positive, negative = (x.astype(np.float64) for x in (images, positive, negative))
    if ensemble == "mean_vector":
        positive, negative = unit(positive).mean(0, keepdims=True), unit(negative).mean(0, keepdims=True)
    if kind == "cosine":
        images, positive, negative = unit(images), unit(positive), unit(negative)
    logits = scale * np.stack([images @ positive.T, images @ negative.T], axis=-1)
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (exponents / exponents.sum(axis=-1, keepdims=True))[..., 0].mean(axis=1)


rng = np.random.default_rng(11)
scans = np.repeat(np.arange(30), rng.integers(1, 4, size=30))
images = rng.normal(size=(len(scans), 21)).astype(np.float32)
first = np.array([np.argmax(scans == scan) for scan in scans])
images[scans % 3 == 0] = images[first][scans % 3 == 0]  # reconstructions that look alike: ties
texts = (images + rng.normal(size=images.shape)).astype(np.float32)
labels = (rng.random((30, 5)) < 0.25)[scans]
ks = [1, 5, 10]
golden = {
    "images": images.tolist(),
    "texts": texts.tolist(),
    "scans": scans.tolist(),
    "labels": labels.tolist(),
    "ks": ks,
    "zero_shot": [
        {"similarity": kind, "scale": scale, "ensemble": ensemble,
         "probabilities": zero_shot(images, texts[:3], texts[3:6], kind, scale, ensemble).tolist()}
        for kind, scale in [("cosine", 14.3), ("dot", 1.0)] for ensemble in ["mean_vector", "mean_probability"]
    ],
}
for kind in ["cosine", "dot"]:
    similarities = similarity(texts, images, kind)
    per_k, cumulative = ct_clip(images, labels, ks, kind)
    golden[kind] = {
        "pair_ranks": [rank(row, [i]) for i, row in enumerate(similarities)],
        "scan_ranks": [rank(row, np.flatnonzero(scans == scans[i])) for i, row in enumerate(similarities)],
        "self_included": per_k,
        "cumulative": cumulative,
        "clean": clean(images, labels, ks, kind),
        "average_precision": radfinder(images, labels, ks, kind),
    }
round_trip = lambda value: float(value) if isinstance(value, np.floating) else int(value)
Path(__file__).with_name("retrieval.json").write_text(json.dumps(golden, default=round_trip) + "\n")
