"""Effects, pooling, claims, mechanism and power: against statsmodels, brute force and simulation."""

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

from har_ls.core import HarLsError
from har_ls.evidence import claims, effects, mechanism, pooling, power
from har_ls.evidence.statistics import CELL, bounds

CELL_OF = ("imaginary", "net", "subject")


def tables(rng, n, people, seeds, folds, person, training, rest):
    "Gaussian pieces: u [n, ...] of n studies with people divided into folds, and the ids that `luck` takes."
    fold = np.arange(people) * folds // people
    share = 1 / people
    d = (
        rng.normal(0, person, (n, people, 1))
        + rng.normal(0, training, (n, folds, seeds))[:, fold]
        + rng.normal(0, rest, (n, people, seeds))
    )
    ids = np.arange(people * seeds)
    person_of, group = ids // seeds, fold[ids // seeds]
    return (
        (d * share / seeds).reshape(n, -1),
        np.full(len(ids), share / seeds),
        person_of,
        group,
        group * seeds + ids % seeds,
    )


@pytest.mark.parametrize("people, seeds, folds", [(4, 3, 1), (10, 2, 5), (30, 3, 5)])
@pytest.mark.parametrize("spread", [(1.0, 0.3, 0.5), (0.3, 1.0, 0.5), (1.0, 1.0, 1.0)])
def test_intervals_of_nested_trainings_cover(people, seeds, folds, spread):
    u, weight, person, group, training = tables(
        np.random.default_rng([people, folds]), 400, people, seeds, folds, *spread
    )
    hits = 0
    for row in u:
        half = effects.luck(row - weight * row.sum(), weight, person, 0 * person, group, training).half_width()
        hits += abs(row.sum()) <= half
    assert 0.915 <= hits / len(u) <= 0.985


def test_variance_is_right_on_average():
    u, weight, person, group, training = tables(np.random.default_rng(0), 800, 20, 3, 5, 0.5, 1.0, 1.0)
    found = [effects.luck(row - weight * row.sum(), weight, person, 0 * person, group, training) for row in u]
    assert np.isclose(np.mean([f.people + f.trainings + f.rest for f in found]), u.sum(1).var(), rtol=0.15)
    assert np.isclose(np.mean([f.rest for f in found]), 1 / 60, rtol=0.05)


@pytest.mark.parametrize(
    "design",
    [dict(people=10, seeds=3, folds=1, person=0.5, seed=0.1), dict(people=12, seeds=2, folds=3, person=0.15, seed=0.3)],
)
def test_intervals_cover_on_realistic_predictions(design):
    "From logits to intervals: few studies, so what is refused is what a coverage of .93 would hardly ever give."
    studies = 50
    seen = effects.coverage(design | dict(windows=25), studies=studies).set_index("measure")
    covered = seen.covered.dropna()
    assert (covered * studies >= stats.binom.ppf(1e-3, studies, 0.93)).all()
    assert seen.above["any of them"] * studies <= stats.binom.ppf(0.999, studies, 0.06)  # after Holm's correction
    assert (seen.equivalent.dropna() * studies <= stats.binom.ppf(0.999, studies, 0.06)).all()


def test_effects_add_up_and_refuse():
    rng = np.random.default_rng(0)
    table = effects.people_table(effects.imaginary_study(rng, people=6, folds=2, windows=30))
    found = effects.pieces(table, ("accuracy", "ece"))
    rows = effects.cell_effects(found)
    assert np.allclose(rows.value - rows.base, rows.estimate) and np.allclose(found.groupby("measure").weight.sum(), 1)
    with pytest.raises(HarLsError, match="no column margin"):
        effects.pieces(table.drop(columns="margin"), ("margin",))
    with pytest.raises(HarLsError, match="two results"):
        effects.pieces(pd.concat([table, table[:1]]), ("accuracy",))
    with pytest.raises(HarLsError, match="no results"):
        effects.combine(found[found.measure == "ece"], {("mars", "net", "subject"): 1.0})
    few = effects.pieces(table[table.subject < 3], ("accuracy",))
    effect = effects.combine(few, {CELL_OF: 1.0})
    assert np.isnan(effect.se) and effect.reason.startswith("no interval from 3 people")
    one = effects.combine(effects.pieces(table[table.seed == 0], ("accuracy",)), {CELL_OF: 1.0})
    assert np.isnan(one.interval()[0]) and "one seed" in one.reason


def test_hartung_knapp_and_reml_against_statsmodels():
    meta = pytest.importorskip("statsmodels.stats.meta_analysis")
    rng = np.random.default_rng(0)
    for _ in range(5):
        s = rng.uniform(0.01, 0.05, 7)
        y = rng.normal(0.02, 0.03, 7) + rng.normal(0, s)
        theirs = meta.combine_effects(y, s**2, method_re="iterated", use_t=True)
        w, mean, se = pooling.hartung_knapp(y, s**2, float(theirs.tau2))
        assert (
            np.isclose(mean, theirs.mean_effect_re) and np.isclose(se**2, theirs.var_hksj_re) and np.isclose(w.sum(), 1)
        )


def test_reml_against_a_mixed_model_and_brute_force():
    mixed = pytest.importorskip("statsmodels.regression.mixed_linear_model")
    rng = np.random.default_rng(3)
    group = np.repeat(np.arange(8), 12)
    values = rng.normal(0, 0.5, 8)[group] + rng.normal(0, 1, 96)
    theirs = mixed.MixedLM(values, np.ones((96, 1)), groups=group).fit(reml=True)
    y, variance = values.reshape(8, 12).mean(1), np.full(8, theirs.scale / 12)
    assert np.isclose(pooling.reml(y, variance), float(theirs.cov_re[0, 0]), rtol=0.01)
    v = rng.uniform(0.01, 0.2, 8)

    def loss(t):
        w = 1 / (v + t)
        mean = (w * y).sum() / w.sum()
        return -stats.norm.logpdf(y, mean, np.sqrt(v + t)).sum() + 0.5 * np.log(w.sum())

    assert np.isclose(pooling.reml(y, v), optimize.brute(lambda t: loss(t[0]), [(0, 2)], Ns=2001)[0], atol=2e-3)


def test_family_of_endpoints_is_rarely_wrong():
    "No effect anywhere: four endpoints on two populations, five datasets; how often does any verdict stand?"
    rng, wrong, runs = np.random.default_rng(0), 0, 80
    for _ in range(runs):
        theta = rng.normal(0, 0.01, (8, 5))
        p = []
        for row in theta:
            s = np.full(5, 0.01)
            y = row + rng.normal(0, s)
            _, mean, se, df, _ = pooling.pooled_mean(y, s**2, np.full(5, 20.0))
            p.append(2 * stats.t.sf(abs(mean) / se, df))
        wrong += pooling.holm(p).min() <= 0.05
    assert wrong / runs <= 0.125


def test_contrasts_are_differences_of_what_is_shown():
    rng = np.random.default_rng(0)
    parts = [
        effects.people_table(effects.imaginary_study(rng, people=6, folds=1, windows=30), d, m, p)
        for d in "ab"
        for m in ("x", "y")
        for p in ("random", "subject")
    ]
    found = effects.pieces(pd.concat(parts), ("ece",))
    known, new = (pooling.population_weights(found, name) for name in pooling.POPULATIONS)
    row = pooling.contrast(found, new, known)
    shown = [pooling.by_dataset(found, each).estimate.mean() for each in (new, known)]
    assert (
        np.isclose(row["estimate"], shown[0] - shown[1]) and row["people"] == 12
    )  # six people in each dataset, not twenty-four
    assert pooling.pool(pooling.by_dataset(found, new), "ece")["reason"].startswith("no interval from 2 datasets")
    with pytest.raises(HarLsError, match="does not add up"):
        pooling.check_adds_up(pd.DataFrame([dict(a=0.1, b=0.05, c=0.06)]), "c", "a", "b")
    with pytest.raises(HarLsError, match="population"):
        pooling.population_weights(found, "martians")


def test_claims_by_hand():
    claim = claims.Claim("c", "It rises.", (claims.Part("accuracy", "rises", {}),))
    row = dict(direction="rises", measure="accuracy", se=0.001, df=20, margin=0.005, people=9, reason="")

    def verdict(*estimates):
        return claims.judge_rows(
            claim, pd.DataFrame([row | dict(estimate=e, where=(e,)) for e in estimates]), "every cell"
        )

    assert verdict(0.02, 0.03)["verdict"] == "supported"
    assert verdict(0.02, -0.03)["verdict"] == "contradicted" and verdict(0.02, -0.03)["why"] == "it falls"
    assert verdict(0.02, 0.0)["why"] == "too small to matter"
    assert verdict(0.02, 0.0061)["verdict"] == "supported" and verdict()["verdict"] == "not measured here"
    assert verdict(0.02, np.nan)["verdict"] == "undecided"
    assert len({each.name for each in claims.original_claims()}) == len(claims.original_claims())


def test_mechanism_refuses_what_it_cannot_predict():
    with pytest.raises(HarLsError, match="validation"):
        mechanism.cells_of(
            pd.DataFrame(
                [
                    dict(
                        dataset="a",
                        model="m",
                        protocol="subject",
                        fold=0,
                        seed=0,
                        alpha=a,
                        part="test",
                        overconfidence=0.1,
                        max_conf=0.9,
                        ece=0.1,
                    )
                    for a in (0.0, 0.1)
                ]
            ),
            0.1,
        )
    cells = pd.DataFrame([dict(zip(CELL, ("a", "m", "subject")), gap=0.1, shift=0.02, change=-0.02)])
    with pytest.raises(HarLsError, match="two datasets"):
        mechanism.score(mechanism.left_out(cells))
    gap = np.linspace(-0.05, 0.1, 50)
    assert np.array_equal(mechanism.predicted_change(gap, 0.02) < -1e-12, gap > 0.01 + 1e-12)


def test_power_follows_the_components():
    parts = power.Components(4e-4, 1e-4, 1e-4)
    assert (
        parts.half_width(20, 3, 5)
        < parts.half_width(20, 2, 5)
        < parts.half_width(10, 2, 5)
        < parts.half_width(3, 2, 5)
        == np.inf
    )
    need = power.people_needed(parts, 0.005)
    assert need is None or need > 50
    with pytest.raises(HarLsError, match="no variance components"):
        power.components(effects.Effect(0, 0, np.nan, np.nan, 2, 2, 1, reason="no interval from 2 people"))
    low, high = bounds(0.0, 1.0, 10)
    assert np.isclose(-low, high)
