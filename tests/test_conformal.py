"""Prediction sets: by counting, by the exact law on exchangeable windows, against another library, at the edges."""

import importlib
import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from har_ls.core import HarLsError
from har_ls.metrics.classification import imaginary_predictions
from har_ls.metrics.conformal import FREE, KINDS, PENALTY, conformity, coverage_law, set_table, sets, threshold
from har_ls.metrics.people import window_values
from har_ls.predictions import Predictions
from har_ls.runs.identity import closure


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def made(rng, replicas, windows, classes, part="test", ties=False):
    "Random predictions without features; with ties, few different logits."
    logits = 3 * rng.normal(size=(replicas, windows, classes))
    return Predictions(
        part,
        logits.round() if ties else logits,
        np.zeros((replicas, windows, 1)),
        np.zeros((replicas, classes, 1)),
        np.zeros((replicas, classes)),
        rng.integers(classes, size=windows),
        rng.integers(3, size=windows),
        np.zeros(replicas),
        np.arange(replicas),
    )


def smallest_mass(p, k):
    "The sets of Romano et al. grow with the mass asked for, down the sorted classes; the mass at which k enters."
    mass = 0.0
    for value in sorted(set(p.tolist()), reverse=True):
        if value == p[k]:
            return mass
        mass += value * int((p == value).sum())


def by_counting(test, validation, kind, level):
    "The classes that are no rarer than their rank among the validation windows allows, one window after the other."

    def strangeness(z, k):
        p = softmax(z)
        if kind == "threshold":
            return -p[k]
        place = int((p >= p[k]).sum())
        return smallest_mass(p, k) + (PENALTY * max(0, place - FREE) if kind == "raps" else 0)

    found = np.zeros(test.logits.shape, bool)
    n = len(validation.y)
    for r in range(len(test.logits)):
        old = np.array([strangeness(z, k) for z, k in zip(validation.logits[r], validation.y)])
        for i, z in enumerate(test.logits[r]):
            for k in range(len(z)):
                rank = int((old >= strangeness(z, k) - 1e-9).sum()) + 1  # as strange or stranger, itself included
                found[r, i, k] = rank / (n + 1) > 1 - level + 1e-9
    return found


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(1, 3),
    st.integers(1, 25),
    st.integers(1, 6),
    st.sampled_from(KINDS),
    st.sampled_from([0.5, 0.8, 0.9, 0.95]),
    st.booleans(),
)
def test_sets_equal_those_by_counting(seed, replicas, windows, classes, kind, level, ties):
    rng = np.random.default_rng(seed)
    test = made(rng, replicas, 6, classes, ties=ties)
    validation = made(rng, replicas, windows, classes, "validation", ties)
    np.testing.assert_array_equal(sets(test, validation, kind, level), by_counting(test, validation, kind, level))


@pytest.mark.parametrize("kind", KINDS)
def test_replicas_are_alone(kind):
    rng = np.random.default_rng(3)
    test, validation = made(rng, 3, 40, 5), made(rng, 3, 50, 5, "validation")
    together = sets(test, validation, kind, seed=1)
    for r in range(3):
        names = ("logits", "features", "templates", "bias", "alphas", "seeds")
        one = [replace(part, **{name: getattr(part, name)[r : r + 1] for name in names}) for part in (test, validation)]
        np.testing.assert_array_equal(sets(*one, kind, seed=1)[0], together[r])


TRIES, N, M = 3000, 47, 30


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lots", [True, False])
@pytest.mark.parametrize("sharpness", [0.5, 4.0])
def test_coverage_on_exchangeable_windows_follows_the_law(kind, lots, sharpness):
    """Many draws of validation and test windows from one population, for a model that is not calibrated; the answer
    alone is right less often than promised, so that values at the threshold differ without lots too."""
    everyone = imaginary_predictions((sharpness,), windows=(N + M) * TRIES, classes=4, distance=1.5)
    luck = np.random.default_rng(5).random(len(everyone.y)) if lots else None
    fit = conformity(everyone.logits[0], kind, luck)[np.arange(len(everyone.y)), everyone.y].reshape(TRIES, -1)
    covered = (fit[:, N:] >= threshold(fit[:, :N])[:, None]).sum(1)
    law, counts = coverage_law(N, M), np.arange(M + 1)
    mean = (law * counts).sum()
    spread = math.sqrt((law * counts**2).sum() - mean**2)
    assert mean / M >= 0.9 and abs(covered.mean() - mean) < 4 * spread / math.sqrt(TRIES)
    low = int(np.flatnonzero(law.cumsum() * TRIES > 10)[0])  # rare counts together, then one by one
    groups = np.clip(counts, low, None)
    seen = np.bincount(np.clip(covered, low, None), minlength=M + 1)[low:]
    expected = np.bincount(groups, law, M + 1)[low:] * TRIES
    assert stats.chisquare(seen, expected).pvalue > 1e-4


def test_the_law_is_that_of_the_rank_of_a_new_window():
    "By brute force: the covered among m new windows, over all places that n old and m new ones can take."
    import itertools

    n, m, level = 4, 3, 0.6
    out = n + 1 - math.ceil(level * (n + 1))
    counts = np.zeros(m + 1)
    for new in itertools.combinations(range(n + m), m):
        old = [place for place in range(n + m) if place not in new]
        counts[sum(place >= old[out - 1] for place in new)] += 1
    np.testing.assert_allclose(coverage_law(n, m, level), counts / counts.sum(), atol=1e-12)


@pytest.mark.parametrize("kind", ["aps", "raps"])
def test_an_answer_that_is_right_often_enough_is_given_alone(kind):
    "More than nine of ten right: without lots every set is the answer; with them, coverage is as promised."
    parts = [imaginary_predictions((2.0,), windows=6000, distance=6, part=part) for part in ("test", "validation")]
    inside = sets(*parts, kind)
    assert (inside.sum(2) == 1).all() and (inside.argmax(2) == parts[0].logits.argmax(2)).all()
    assert set_table(inside, parts[0]).coverage[0] > 0.95
    by_lot = set_table(sets(*parts, kind, seed=2), parts[0])
    assert abs(by_lot.coverage[0] - 0.9) < 0.02 and by_lot["empty"][0] > 0
    np.testing.assert_array_equal(sets(*parts, kind, seed=2), sets(*parts, kind, seed=2))


@pytest.mark.parametrize("kind", ["aps", "raps"])
def test_without_lots_no_set_is_empty(kind):
    rng = np.random.default_rng(0)
    for classes in (1, 2, 7):
        for ties in (False, True):
            test, validation = made(rng, 2, 200, classes, ties=ties), made(rng, 2, 30, classes, "validation", ties)
            if kind == "raps" and ties:
                continue  # more than FREE classes may share the first place, and pay for it
            assert sets(test, validation, kind).any(2).all()


def test_lots_keep_a_class_as_often_as_its_probability_asks():
    "Under the model's own probabilities the value of the truth is uniform, ties or not (Romano et al., section 2)."
    rng = np.random.default_rng(0)
    for z in (np.log([0.5, 0.3, 0.2]), np.log([0.4, 0.4, 0.2]), np.zeros(3)):
        p = softmax(z)
        y = rng.choice(3, size=20_000, p=p)
        fit = conformity(np.tile(z, (len(y), 1)), "aps", rng.random(len(y)))[np.arange(len(y)), y]
        assert stats.kstest(fit, "uniform").pvalue > 1e-4


def test_what_is_certain_to_all_digits_keeps_its_order():
    fit = conformity(np.array([[400.0, 90.0, 40.0, 0.0]]))[0]
    assert fit[0] == 1 and 0 < fit[3] < fit[2] < fit[1] < 1e-100
    assert conformity(np.zeros((1, 1))).tolist() == [[1.0]]
    assert conformity(np.zeros((2, 5))).tolist() == [[1.0] * 5] * 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("windows", [1, 2, 8])
def test_too_few_validation_windows_leave_nothing_out(kind, windows):
    rng = np.random.default_rng(0)
    test = made(rng, 1, 20, 3)
    assert sets(test, made(rng, 1, windows, 3, "validation"), kind).all()
    assert not sets(test, made(rng, 1, 9, 3, "validation"), "threshold").all()
    assert coverage_law(windows, 5).tolist() == [0, 0, 0, 0, 0, 1]
    assert np.isneginf(threshold(np.zeros((2, windows)))).all()


def test_what_cannot_be_used_is_refused_by_name():
    rng = np.random.default_rng(0)
    test, validation = made(rng, 2, 10, 3), made(rng, 2, 10, 3, "validation")
    for value in (np.nan, np.inf):
        for position, part in enumerate((test, validation)):
            broken = part.logits.copy()
            broken[1, 4, 2] = value
            both = [test, validation]
            both[position] = replace(part, logits=broken)
            with pytest.raises(HarLsError, match=f"{part.part} part: logits of replica 1 .alpha 0, seed 1. hold NaN"):
                sets(*both)
    with pytest.raises(HarLsError, match="validation part: logits have shape .2, 0, 3."):
        sets(test, made(rng, 2, 0, 3, "validation"))
    with pytest.raises(HarLsError, match="test part: logits have shape .2, 0, 3."):
        sets(made(rng, 2, 0, 3), validation)
    with pytest.raises(HarLsError, match="different replicas"):
        sets(test, made(rng, 3, 10, 3, "validation"))
    with pytest.raises(HarLsError, match="validation part: 4 classes, test part: 3"):
        sets(test, made(rng, 2, 10, 4, "validation"))
    with pytest.raises(HarLsError, match="kind of set"):
        sets(test, validation, "lac")
    for level in (0, 1, 1.5, np.nan):
        with pytest.raises(HarLsError, match="level = .*between 0 and 1"):
            sets(test, validation, level=level)
    with pytest.raises(HarLsError, match="1 of 3 values are NaN"):
        threshold(np.array([0.1, np.nan, 0.3]))
    with pytest.raises(HarLsError, match="do not belong to logits"):
        set_table(np.ones((2, 10, 4), bool), test)
    with pytest.raises(HarLsError, match="group"):
        set_table(np.ones((2, 10, 3), bool), test, "fold")


def test_tables_by_person_and_class_add_up_to_the_whole():
    rng = np.random.default_rng(1)
    test, validation = made(rng, 2, 300, 4), made(rng, 2, 100, 4, "validation")
    inside = sets(test, validation, "threshold")
    whole = set_table(inside, test)
    for by in ("subject", "y"):
        parts = set_table(inside, test, by)
        for name in ("coverage", "size", "empty"):
            means = (parts[name] * parts.windows).groupby(parts.seed).sum() / 300
            np.testing.assert_allclose(means, whole[name])
        some = parts[(parts.seed == 1) & (parts[by] == 2)].iloc[0]
        mine = getattr(test, by) == 2
        assert some.windows == mine.sum()
        assert math.isclose(some.coverage, np.mean([inside[1, i, test.y[i]] for i in np.flatnonzero(mine)]))


def test_threshold_sets_are_those_of_the_published_tables():
    rng = np.random.default_rng(2)
    test, validation = made(rng, 3, 400, 6), made(rng, 3, 150, 6, "validation")
    values = window_values(replace(test, features=rng.normal(size=(3, 400, 1))), validation)
    inside = sets(test, validation, "threshold")
    np.testing.assert_array_equal(inside.sum(2), values["set_size_90"])
    np.testing.assert_array_equal(inside[:, np.arange(400), test.y], values["covered_90"])


@pytest.mark.parametrize("kind", KINDS)
def test_against_crepes(kind):
    "The same values of fit, the sets by p values of another library, without its lots."
    crepes = pytest.importorskip("crepes")
    rng = np.random.default_rng(4)
    test, validation = made(rng, 1, 200, 5), made(rng, 1, 73, 5, "validation")
    old = -conformity(validation.logits[0], kind)[np.arange(73), validation.y]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = crepes.ConformalClassifier().fit(old)
        theirs = fitted.predict_set(-conformity(test.logits[0], kind), confidence=0.9, smoothing=False)
    np.testing.assert_array_equal(sets(test, validation, kind)[0], np.asarray(theirs, bool))


def test_the_measures_of_a_run_do_not_lead_here():
    "Another way to make sets must not make the published tables look outdated."
    assert "metrics.conformal" not in closure({"metrics.table"})
    assert importlib.import_module("har_ls.metrics.table").MEASURES
