"""Writes agreement.json: what reference implementations say of agreement, paired tests and BCa intervals.

    pip install scikit-learn==1.9.1 scipy==1.12.0 statsmodels==0.15.0 krippendorff==0.9.0 irrCAC==0.4.4 pandas==2.3.3
    python agreement.py

Each value names its reference below.
"""

import json
from pathlib import Path

import krippendorff
import numpy as np
import pandas as pd
from irrCAC.table import CAC
from scipy import stats
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.inter_rater import cohens_kappa, fleiss_kappa
from statsmodels.stats.multitest import multipletests


def pair(table):
    """Two labellers: kappa and its interval by statsmodels (kappa also by scikit-learn), AC1 by irrCAC."""
    counts = np.array(table)
    found = cohens_kappa(counts)
    size = len(counts)
    first = np.repeat(np.repeat(np.arange(size), size), counts.ravel())
    second = np.repeat(np.tile(np.arange(size), size), counts.ravel())
    assert np.isclose(found.kappa, cohen_kappa_score(first, second), rtol=1e-12)
    # irrCAC uses the same definition; it is asserted to agree.
    shares = counts / counts.sum()
    means = (shares.sum(0) + shares.sum(1)) / 2
    chance = (means * (1 - means)).sum() / (size - 1)
    ac1 = (np.trace(shares) - chance) / (1 - chance)
    reference = CAC(pd.DataFrame(counts), digits=12).gwet()["est"]["coefficient_value"]
    assert abs(ac1 - reference) < 1e-11, (ac1, reference)
    return {
        "table": table,
        "kappa": found.kappa,
        "standard_error": found.std_kappa,
        "low": found.kappa_low,
        "high": found.kappa_upp,
        "ac1": ac1,
    }


def discordant(b, c):
    """The exact p-value by statsmodels; the mid-p value from SciPy's binomial distribution."""
    exact = mcnemar([[0, b], [c, 0]], exact=True).pvalue
    outcome = stats.binom.pmf(min(b, c), b + c, 0.5)
    mid_p = min(1.0, 2 * stats.binom.cdf(min(b, c), b + c, 0.5) - outcome)
    return {"counts": [b, c], "exact": exact, "mid_p": mid_p}


def several(seed, rows, labellers, categories, missing):
    """Three or more labellers: Fleiss' kappa by statsmodels where no label is missing, alpha by krippendorff."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(categories, size=rows)
    ratings = np.where(rng.random((labellers, rows)) < 0.8, truth, rng.integers(categories, size=(labellers, rows)))
    present = rng.random((labellers, rows)) >= missing
    counts = np.stack([((ratings == k) & present).sum(0) for k in range(categories)], axis=1)
    data = np.where(present, ratings, np.nan)
    alpha = krippendorff.alpha(reliability_data=data, level_of_measurement="nominal")
    return {
        "counts": counts.tolist(),
        "fleiss": fleiss_kappa(counts, method="fleiss") if missing == 0 else None,
        "alpha": alpha,
    }


def bca(seed, rows):
    """The mean of squares of a skewed sample, by SciPy's bootstrap; its draws are kept, so that only the interval is compared."""
    rng = np.random.default_rng(seed)
    data = np.round(rng.exponential(size=rows), 3)
    statistic = lambda x: np.mean(x**2)
    found = stats.bootstrap(
        (data,), statistic, n_resamples=499, vectorized=False, method="BCa", random_state=rng, confidence_level=0.9
    )
    left_out = [statistic(np.delete(data, place)) for place in range(rows)]
    return {
        "estimate": statistic(data),
        "draws": found.bootstrap_distribution.tolist(),
        "left_out": left_out,
        "level": 0.9,
        "low": found.confidence_interval.low,
        "high": found.confidence_interval.high,
    }


p_values = [0.01, 0.04, 0.03, 0.005, 0.5, 0.04, 1.0]
golden = {
    "pairs": [
        pair([[40, 9], [6, 45]]),
        pair([[900, 12], [15, 3]]),
        pair([[20, 3, 1], [4, 30, 5], [2, 1, 34]]),
        pair([[5, 1, 0, 2], [0, 7, 1, 0], [2, 0, 3, 1], [0, 1, 1, 9]]),
    ],
    "mcnemar": [discordant(*counts) for counts in [(1, 8), (8, 1), (5, 5), (0, 6), (30, 12), (1500, 1400), (0, 1)]],
    "holm": [p_values, multipletests(p_values, method="holm")[1].tolist()],
    "several": [several(1, 40, 3, 4, 0.0), several(2, 60, 5, 2, 0.0), several(3, 80, 4, 3, 0.3)],
    "bca": [bca(1, 40), bca(2, 15)],
}
Path(__file__).with_name("agreement.json").write_text(json.dumps(golden) + "\n")
