"""What a difference and its error say: against scipy, brute force, and simulations in which the truth is known."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from har_ls.core import HarLsError
from har_ls.evidence import statistics as s


def test_intervals_and_p_values_are_those_of_the_t_test():
    rng = np.random.default_rng(0)
    for size in (2, 5, 40):
        x = rng.normal(0.2, 1, size)
        test, numbers = stats.ttest_1samp(x, 0), (x.mean(), stats.sem(x), size - 1)
        assert np.isclose(s.p_value(*numbers), test.pvalue)
        for level in (0.9, 0.95):
            assert np.allclose(s.bounds(*numbers, level), test.confidence_interval(level))
    assert s.p_value(0, 0, 1) == 1 and s.p_value(0.1, 0, 1) == 0 and np.isnan(s.p_value(0.1, np.nan, np.nan))


def test_mean_of_independent_estimates():
    rng = np.random.default_rng(1)
    a, b = rng.normal(0, 1, 5), rng.normal(0.5, 2, 9)
    welch = stats.ttest_ind(a, b, equal_var=False)
    half, se, df = s.plain_mean([a.mean(), -b.mean()], [stats.sem(a), stats.sem(b)], [4, 8])
    assert np.isclose(half / se, welch.statistic) and np.isclose(df, welch.df)
    assert np.allclose(s.plain_mean([0.1, 0.3], [0.03, 0.04], [5, 7])[:2], (0.2, 0.025))
    assert s.plain_mean([0.1, 0.3], [0.0, 0.0], [5, 7]) == (0.2, 0.0, 5.0)
    assert np.isnan(s.plain_mean([0.1, 0.3], [0.1, np.nan], [5, np.nan])[1:]).all()


def test_equivalence_is_the_two_one_sided_tests():
    rng, margin = np.random.default_rng(5), 0.5
    for _ in range(200):
        x = rng.normal(rng.normal(0, 0.4), 0.5, 8)
        above = stats.ttest_1samp(x, -margin, alternative="greater").pvalue
        below = stats.ttest_1samp(x, margin, alternative="less").pvalue
        word = s.decided(x.mean(), stats.sem(x), 7, margin)
        assert (word == "equivalent") == (max(above, below) < 0.05)
        if word != "equivalent":  # a difference is what the two-sided test at 5 % says
            assert (word in ("above", "below")) == (stats.ttest_1samp(x, 0).pvalue < 0.05)


def test_false_words_are_rare_at_the_border():
    rng, n = np.random.default_rng(6), 4000
    x = rng.normal(0, 1, (n, 12))
    se = x.std(1, ddof=1) / np.sqrt(12)
    none = [s.verdict(mean, error, 11, 0.001, "higher") for mean, error in zip(x.mean(1), se)]
    assert np.mean([word in ("helps", "hurts") for word in none]) < 0.065  # nothing is there; the promise is .05
    margin = 2.0
    at = [s.verdict(margin + mean, error, 11, margin, "higher") for mean, error in zip(x.mean(1), se)]
    assert np.mean([word == "equivalent" for word in at]) < 0.065  # it is as large as the margin
    stricter = [s.decided(mean, error, 11, 0.001, share=5) for mean, error in zip(x.mean(1), se)]
    assert np.mean([word != "undecided" for word in stricter]) < 0.02  # one of five questions


def test_words():
    assert s.verdict(0.02, 0.001, 30, 0.005, "higher") == s.verdict(-0.02, 0.001, 30, 0.005, "lower") == "helps"
    assert s.verdict(0.02, 0.001, 30, 0.005, "lower") == "hurts" and s.verdict(0.02, 0.001, 30, 0.005, None) == "raises"
    assert s.verdict(0.001, 0.0005, 30, 0.005, "lower") == "equivalent"  # real, and too small to matter
    assert s.verdict(0.02, np.nan, np.nan, 0.005, "lower") == "undecided"
    with pytest.raises(HarLsError, match="direction"):
        s.verdict(0, 1, 1, 1, "up")
    assert s.margin_of("accuracy", 9.0) == 0.005 and np.isclose(s.margin_of("intra", -20.0), 0.2)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.5))
def test_holm_by_its_definition(p, level):
    rejected, order = set(), sorted(range(len(p)), key=lambda k: p[k])
    for step, k in enumerate(order):
        if p[k] * (len(p) - step) > level:
            break
        rejected.add(k)
    assert rejected == set(np.flatnonzero(s.holm(p) <= level))


def test_holm_leaves_out_missing_values():
    assert np.allclose(s.holm([0.01, np.nan, 0.04]), [0.02, np.nan, 0.04], equal_nan=True)


def test_rows_of_a_cell():
    table = pd.DataFrame([(d, m, "subject", k) for d in "ab" for m in "xy" for k in range(2)], columns=[*s.CELL, "k"])
    assert s.in_cell(table, ("b", "x", "subject")).index.tolist() == [4, 5]
    assert s.select(table, dict(dataset="a", k=[1])).index.tolist() == [1, 3] and len(s.select(table, {})) == 8
