"""Comparing with and without smoothing: brute force, exact cases, and simulations in which the truth is known."""
import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from har_ls.evidence import statistics as s
from har_ls.core import HarLsError
from har_ls.predictions import Predictions

DESIGNS = {  # spread of people, of seeds, of the rest
    "people": (1.0, 0.3, 0.5), "seeds": (0.3, 1.0, 0.5), "both": (1.0, 1.0, 1.0), "some": (0.5, 0.3, 1.0), "neither": (0.0, 0.0, 1.0),
}
SIZES = [(4, 3), (4, 10), (8, 5), (9, 3), (15, 3), (15, 5), (30, 3), (30, 10)]  # people, seeds


def simulate(rng, n, people, seeds, sigma_a, sigma_b, sigma_e):
    return (rng.normal(0, sigma_a, (n, people, 1)) + rng.normal(0, sigma_b, (n, 1, seeds)) + rng.normal(0, sigma_e, (n, people, seeds)))


def table_of(values, measure="accuracy", dataset="d", model="m", protocol="subject", alpha=0.1):
    "Metrics and leave-one-out tables of a measure that is a mean over people; values: [people, seeds] differences from zero."
    rows, left = [], []
    for seed in range(values.shape[1]):
        for a in (0.0, alpha):
            mine = values[:, seed] if a else np.zeros(len(values))
            key = dict(dataset=dataset, model=model, protocol=protocol, fold=0, alpha=a, seed=seed, part="test")
            rows.append(key | {measure: mine.mean()})
            left += [key | {"subject": j, "n": 1, measure: np.delete(mine, j).mean()} for j in range(len(mine))]
    return pd.DataFrame(rows), pd.DataFrame(left)


@pytest.mark.parametrize("people, seeds", SIZES)
@pytest.mark.parametrize("design", DESIGNS)
def test_intervals_cover_and_verdicts_err_rarely(people, seeds, design):
    rng = np.random.default_rng([people, seeds, *map(ord, design)])
    d = simulate(rng, 20_000, people, seeds, *DESIGNS[design])
    estimate, se, df = s.two_way(d)
    low, high = s.bounds(estimate, se, df)
    assert 0.92 <= ((low <= 0) & (0 <= high)).mean() <= 0.98
    low, high = s.bounds(estimate, se, df, s.VERDICT_LEVEL)
    assert ((low > 0) | (high < 0)).mean() <= 0.05  # "helps" or "hurts" although there is nothing
    margin = 2.0
    assert ((-margin < low + margin) & (high + margin < margin)).mean() <= 0.05  # "equivalent" although the effect is the margin


def test_coverage_with_skewed_people_and_unequal_windows():
    rng = np.random.default_rng(0)
    d = (rng.gamma(2, 0.5, (20_000, 10, 1)) - 1) + rng.normal(0, 0.3, (20_000, 1, 5)) + rng.normal(0, 0.7, (20_000, 10, 5))
    low, high = s.bounds(*s.two_way(d))
    assert 0.92 <= ((low <= 0) & (0 <= high)).mean() <= 0.98
    covered = []
    for _ in range(200):  # the whole way from tables, accuracy of windows, a few people with many windows
        n = rng.integers(20, 120, 8)
        profit = rng.normal(0, 0.04, (8, 1)) + rng.normal(0, 0.02, (1, 4)) + rng.normal(0, 0.03, (8, 4))
        rows, left = [], []
        for seed in range(4):
            for alpha in (0.0, 0.1):
                right = n * (0.8 + profit[:, seed] * (alpha > 0))
                key = dict(dataset="d", model="m", protocol="subject", fold=0, alpha=alpha, seed=seed, part="test")
                rows.append(key | dict(accuracy=right.sum() / n.sum()))
                left += [key | dict(subject=j, n=n[j], accuracy=np.delete(right, j).sum() / np.delete(n, j).sum()) for j in range(8)]
        found = s.effects(pd.DataFrame(rows), pd.DataFrame(left), ["accuracy"])
        covered.append(found.low.item() <= 0 <= found.high.item())
    assert 0.92 <= np.mean(covered) <= 0.98


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 6), st.integers(2, 5), st.integers(0, 1000))
def test_two_way_properties(people, seeds, seed):
    rng = np.random.default_rng(seed)
    d = rng.normal(size=(people, seeds))
    mean, se, df = s.two_way(d)
    assert np.isclose(mean, d.mean()) and se > 0 and df >= min(people, seeds) - 1 - 1e-9
    again = s.two_way(3 * d[rng.permutation(people)][:, rng.permutation(seeds)] + 7)
    assert np.allclose(again, (3 * mean + 7, 3 * se, df))
    assert np.allclose(s.two_way(d.T), (mean, se, df))
    stack = np.stack([d, d + 1, -d])
    assert np.allclose(np.array(s.two_way(stack)).T, [s.two_way(one) for one in stack])
    assert se >= max(stats.sem(d.mean(1)), stats.sem(d.mean(0))) - 1e-12  # never below either kind of luck alone


def test_two_way_with_one_row_or_column():
    d = np.array([0.1, 0.3, 0.2, 0.6])
    for table in (d[:, None], d[None]):
        estimate, se, df = s.two_way(table)
        test = stats.ttest_1samp(d, 0)
        assert np.isclose(s.p_value(estimate, se, df), test.pvalue)
        assert np.allclose(s.bounds(estimate, se, df), test.confidence_interval())
    assert np.isnan(s.two_way(np.array([[0.1]]))[1])
    assert s.two_way(np.zeros((3, 2))) == (0, 0, 1) and s.p_value(0, 0, 1) == 1 and s.p_value(0.1, 0, 1) == 0


def test_bootstrap_mean_and_variance_by_enumeration():
    d = np.random.default_rng(3).normal(size=(3, 2))
    every = [d[np.ix_(rows, columns)].mean() for rows in itertools.product(range(3), repeat=3) for columns in itertools.product(range(2), repeat=2)]
    drawn = s.hierarchical_bootstrap(d, draws=50_000)
    assert np.isclose(drawn.mean(), np.mean(every), atol=0.01) and np.isclose(drawn.std(), np.std(every), rtol=0.02)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_pairs_by_brute_force(seed):
    rng = np.random.default_rng(seed)
    rows = [
        dict(dataset=d, model="m", protocol="random", fold=f, alpha=a, seed=k, part=p, accuracy=rng.random(), ece=rng.random())
        for d in "ab" for f in range(2) for a in (0.0, 0.01, 0.1) for k in range(2) for p in ("validation", "test") if rng.random() < 0.8
    ]
    table = pd.DataFrame(rows).sample(frac=1, random_state=seed)
    found = s.paired_differences(table, ["accuracy", "ece"])
    expected = {
        (one["dataset"], one["fold"], one["seed"], one["part"], one["alpha"], measure): one[measure] - other[measure]
        for one in rows for other in rows for measure in ("accuracy", "ece")
        if one["alpha"] > 0 and other["alpha"] == 0 and all(one[key] == other[key] for key in s.PAIR)
    }
    got = {(r.dataset, r.fold, r.seed, r.part, r.alpha, r.measure): r.difference for r in found.itertuples()}
    assert got.keys() == expected.keys() and all(np.isclose(got[key], expected[key]) for key in got)


def test_bad_tables_are_refused():
    table, _ = table_of(np.zeros((2, 2)))
    with pytest.raises(HarLsError, match="no column ece"):
        s.paired_differences(table, ["ece"])
    with pytest.raises(HarLsError, match="two results for .*'seed': 0"):
        s.paired_differences(pd.concat([table, table[:1]]), ["accuracy"])
    with pytest.raises(HarLsError, match="direction"):
        s.verdict(0, 1, 1, "up")


def test_left_out_subject_by_hand():
    rng = np.random.default_rng(0)
    n, subject = 30, np.repeat([4, 7, 9], 10)
    logits, posterior = rng.normal(size=(2, n, 3)), rng.dirichlet(np.ones(3), n)
    p = Predictions("test", logits, logits, np.ones((2, 3, 3)), np.zeros((2, 3)), rng.integers(3, size=n), subject, np.array([0, 0.1]), np.array([5, 5]), posterior)

    def measure(q):
        assert len(q.posterior) == len(q.y) == len(q.subject)
        return pd.DataFrame(dict(alpha=q.alphas, seed=q.seeds, part=q.part, accuracy=(q.logits.argmax(-1) == q.y).mean(1)))

    table = s.leave_one_subject_out(p, measure)
    assert len(table) == 6 and (table.n == 10).all()
    keep = subject != 7
    expected = (logits.argmax(-1) == p.y)[:, keep].mean(1)
    assert np.allclose(table[table.subject == 7].accuracy, expected)
    alone = Predictions("test", logits[:, :10], logits[:, :10], p.templates, p.bias, p.y[:10], subject[:10], p.alphas, p.seeds, posterior[:10])
    empty = s.leave_one_subject_out(alone, measure)
    assert empty.empty and {"subject", "n", "accuracy"} <= set(empty)


def test_effects_equal_the_table_they_come_from():
    d = np.random.default_rng(1).normal(0.1, 0.05, (6, 4))
    table, left = table_of(d)
    found = s.effects(table, left, ["accuracy"]).iloc[0]
    estimate, se, df = s.two_way(d)
    assert np.allclose([found.estimate, found.se, found.df], [estimate, se, df]) and (found.subjects, found.seeds) == (6, 4)
    assert np.allclose(s.shares(table, left, ["accuracy"], 0.1)["accuracy"], d)
    seeds = s.effects(table, None, ["accuracy"]).iloc[0]
    test = stats.ttest_1samp(d.mean(0), 0)
    assert seeds.method == "seeds only" and np.isclose(seeds.p, test.pvalue) and np.isclose(seeds.estimate, found.estimate)
    one = s.effects(table[table.seed == 0], left[left.seed == 0], ["accuracy"]).iloc[0]
    assert one.method == "subjects only" and np.isclose(one.p, stats.ttest_1samp(d[:, 0], 0).pvalue)
    none = s.add_verdicts(s.effects(table[table.seed == 0], None, ["accuracy"]), {"accuracy": "higher"}).iloc[0]
    assert np.isnan(none.low) and none.verdict == "undecided" and none.method.startswith("nothing")
    g = s.hedges(d.mean(0))
    assert np.isclose(g, d.mean() / d.mean(0).std(ddof=1) * (1 - 3 / 11)) and np.isnan(s.hedges([0.1])) and np.isnan(s.hedges([0.1, 0.1]))


def test_folds_are_averaged_and_incomplete_seeds_left_out():
    d = np.random.default_rng(2).normal(0, 0.1, (2, 5, 3))  # folds, people, seeds
    tables = []
    for fold in range(2):
        metrics, left = table_of(d[fold])
        tables.append((metrics.assign(fold=fold), left.assign(fold=fold)))
    table, left = (pd.concat(both, ignore_index=True) for both in zip(*tables))
    same = s.shares(table, left, ["accuracy"], 0.1)["accuracy"]
    assert np.allclose(same, d.mean(0))  # the same people in both folds
    others = s.shares(table, left.assign(subject=left.subject + 5 * left.fold), ["accuracy"], 0.1)["accuracy"]
    assert np.allclose(others, d.reshape(10, 3))  # other people in each fold
    failed = table[~((table.fold == 1) & (table.seed == 2) & (table.alpha == 0.1))]
    assert list(s.shares(failed, left, ["accuracy"], 0.1)["accuracy"].columns) == [0, 1]


def test_equivalence_is_the_two_one_sided_tests():
    rng = np.random.default_rng(5)
    margin, level = 0.5, s.VERDICT_LEVEL
    for _ in range(200):
        x = rng.normal(rng.normal(0, 0.4), 0.5, 8)
        low, high = s.bounds(x.mean(), stats.sem(x), 7, level)
        p = max(stats.ttest_1samp(x, -margin, alternative="greater").pvalue, stats.ttest_1samp(x, margin, alternative="less").pvalue)
        assert (s.position(low, high, margin) == "equivalent") == (p < (1 - level) / 2)


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


def test_over_cells_against_scipy():
    estimates = np.array([0.1, 0.2, -0.05, 0.3, 0.15, 0.0, 0.12])
    found = pd.concat([pd.DataFrame(dict(measure=m, alpha=0.1, estimate=sign * estimates)) for m, sign in (("ece", 1), ("nll", -1))])
    table = s.over_cells(found)
    moved = estimates[estimates != 0]
    assert list(table.up) == [5, 1] and np.allclose(table.p_wilcoxon, min(1, 2 * stats.wilcoxon(moved).pvalue))
    assert np.allclose(table.p_sign, min(1, 2 * stats.binomtest(5, 6).pvalue))
    nothing = s.over_cells(pd.DataFrame(dict(measure="ece", alpha=0.1, estimate=[0.0, 0.0])))
    assert np.isnan(nothing.p_sign.item())


def test_a_claim_about_all_cells():
    rng = np.random.default_rng(7)

    def study(effects):
        both = [table_of(rng.normal(e, 0.01, (8, 4)), dataset=f"d{k}") for k, e in enumerate(effects)]
        return s.effects(*(pd.concat(part, ignore_index=True) for part in zip(*both)), ["accuracy"])

    def word(effects, direction):
        claim = s.Claim("c", "A claim.", (s.Part("accuracy", direction, {"protocol": ["subject"]}),))
        return s.judge(claim, study(effects))

    assert word([0.1, 0.2], "rises")["verdict"] == "supported"
    assert word([0.1, 0.0], "rises")["why"] in ("too small to matter", "")
    row = word([0.1, -0.2], "rises")
    assert (row["verdict"], row["why"], row["where"][0], row["agree"], row["cells"]) == ("contradicted", "it falls", "d1", 1, 2)
    assert word([-0.1, -0.2], "falls")["verdict"] == "supported"
    assert word([0.1], "unchanged")["verdict"] == "contradicted"
    nowhere = s.judge(s.Claim("c", "A claim.", (s.Part("ece", "falls", {}),)), study([0.1]))
    assert nowhere["verdict"] == "not measured here" and nowhere["cells"] == 0


def test_claims_err_rarely():
    "Four cells without any effect; a claim that all rise is seldom supported, and a claim that they rise is seldom contradicted where all do."
    rng = np.random.default_rng(8)
    parts = (s.Part("nll", "rises", {}),)
    supported = contradicted = 0
    n = 300
    for _ in range(n):
        d = simulate(rng, 4, 8, 4, 1.0, 0.5, 1.0)
        estimate, se, df = s.two_way(d)
        frame = pd.DataFrame(dict(measure="nll", base=1.0, estimate=estimate, se=se, df=df, subjects=8, seeds=4, dataset=list("abcd"), model="m", protocol="p"))
        supported += s.judge(s.Claim("c", "c", parts), frame)["verdict"] == "supported"
        contradicted += s.judge(s.Claim("c", "c", parts), frame.assign(estimate=frame.estimate + 1e-6))["verdict"] == "contradicted"
    assert supported / n <= 0.01 and contradicted / n <= 0.05


def test_contrasts_pair_people_and_seeds():
    rng = np.random.default_rng(9)
    a, b = rng.normal(0, 0.1, (6, 4)), rng.normal(0, 0.1, (6, 4))
    table, left = (pd.concat(part, ignore_index=True) for part in zip(table_of(a, model="a"), table_of(b, model="b")))
    cells = {("d", "a", "subject"): 1, ("d", "b", "subject"): -1}
    assert np.allclose(s.contrast(table, left, "accuracy", 0.1, cells), s.two_way(a - b))
    apart = left.assign(subject=left.subject + 100 * (left.model == "b"))
    estimate, se, df = s.contrast(table, apart, "accuracy", 0.1, cells)
    (_, se_a, df_a), (_, se_b, df_b) = s.two_way(a), s.two_way(b)
    assert np.isclose(estimate, (a - b).mean()) and np.isclose(se, np.hypot(se_a, se_b)) and min(df_a, df_b) <= df <= df_a + df_b
    parts = [(0.1, 0.03, 5), (0.2, 0.04, 7)]
    assert np.allclose(s.average(parts)[:2], (0.15, 0.025))


def test_welch_against_scipy():
    rng = np.random.default_rng(10)
    groups = [rng.normal(m, spread, size) for m, spread, size in ((0, 1, 5), (0.5, 2, 8), (1, 0.5, 6), (0, 1, 4))]
    parts = [(g.mean(), stats.sem(g), len(g) - 1) for g in groups]
    assert np.isclose(s.differ(parts), stats.f_oneway(*groups, equal_var=False).pvalue)
    assert np.isnan(s.differ(parts[:1])) and np.isnan(s.differ([(0, 0, 3), (1, 1, 3)]))


def test_rank_correlation_by_all_orders():
    rng = np.random.default_rng(11)
    x, y = rng.normal(size=6), rng.normal(size=6)
    rho, p = s.follows(x, y)
    every = [stats.spearmanr(x, y[list(order)]).statistic for order in itertools.permutations(range(6))]
    assert np.isclose(rho, stats.spearmanr(x, y).statistic) and np.isclose(p, np.mean(np.array(every) <= rho + 1e-9))
    assert np.isnan(s.follows([1, 2], [2, 1])[0]) and np.isnan(s.follows([1, 1, 1], [1, 2, 3])[0])
    many = s.follows(np.arange(12), -np.arange(12))
    assert np.isclose(many[0], -1) and many[1] < 0.001
