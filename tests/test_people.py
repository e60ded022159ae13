"""Shares of people: against brute force, at the edges, and refused where they mean nothing."""

from dataclasses import replace

import numpy as np
import pytest

from har_ls.core import HarLsError
from har_ls.metrics import people
from har_ls.metrics.classification import imaginary_predictions
from har_ls.metrics.table import measure


def part(predictions, keep):
    "The windows of a mask."
    return replace(
        predictions,
        logits=predictions.logits[:, keep],
        features=predictions.features[:, keep],
        y=predictions.y[keep],
        subject=predictions.subject[keep],
        posterior=predictions.posterior[keep],
    )


def test_values_of_people_are_their_measures_where_a_measure_is_a_mean():
    test, validation = (
        imaginary_predictions((1.0, 3.0), windows=400),
        imaginary_predictions((1.0, 3.0), part="validation"),
    )
    sums = people.person_sums(test, validation)
    for subject in range(10):
        mine = sums[sums.subject == subject]
        alone = measure(part(test, test.subject == subject), validation)
        for name in ("accuracy", "nll", "brier", "entropy", "margin", "overconfidence"):
            assert np.allclose(mine[name] / mine.n, alone[name], atol=1e-6)
        assert np.allclose(mine.nll_temperature / mine.n, alone.nll_refinement, atol=1e-6)
        wrong = mine.n - mine.accuracy
        assert np.allclose(mine.nll_of_wrong / wrong, alone.nll_wrong, atol=1e-5)


def test_one_class_one_person_and_absent_classes():
    few = imaginary_predictions((1.0,), windows=30)
    one = part(few, few.y == few.y[0])
    values = people.window_values(one)
    assert np.isfinite(values["ece"]).all() and np.isfinite(values["intra"]).all()
    assert np.isnan(values["inter"]).all() and np.isnan(values["separability"]).all()
    alone = part(few, few.subject == 3)
    assert len(people.person_sums(alone)) == 1 and people.person_sums(alone).nll_temperature.isna().all()
    table, sums = measure(alone), people.person_sums(alone)
    for name in ("f1_macro", "balanced_accuracy", "ece", "aurc", "separability"):
        assert np.allclose(sums[name] / sums.n, table[name], atol=1e-6), name


def test_parts_of_other_trainings_are_refused():
    with pytest.raises(HarLsError, match="different replicas"):
        people.person_sums(imaginary_predictions((1.0, 2.0)), imaginary_predictions((1.0,), part="validation"))
    broken = imaginary_predictions((1.0,))
    broken.logits[0, 3, 1] = np.nan
    with pytest.raises(HarLsError, match="replica 0"):
        people.person_sums(broken)
