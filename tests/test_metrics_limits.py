"""The measures where their values are known beforehand, and where there is hardly anything to measure."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from metrics_cases import plausible, predictions, unpleasant

from har_ls.core import HarLsError
from har_ls.loss.smoothing import smoothed_optimum
from har_ls.metrics import calibration, classification, confidence, geometry, selective
from har_ls.metrics.classification import imaginary_predictions
from har_ls.metrics.table import MEASURES, measure, scalar


def near(value, expected, **tolerance):
    assert np.allclose(value, expected, equal_nan=True, **tolerance), (value, expected)


# ---- closed forms


@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("classes", [2, 6, 12])
def test_model_at_the_smoothed_optimum(alpha, classes):
    y = np.arange(120) % classes
    targets = (1 - alpha) * np.eye(classes)[y] + alpha / classes
    found = scalar(predictions(np.log(targets), y))
    optimum = smoothed_optimum(alpha, classes)
    near(found["accuracy"], 1)
    near(found["max_conf"], optimum.confidence)
    near(found["logit_gap"], optimum.gap)
    near(found["entropy"], optimum.loss)
    near(found["nll"], -np.log(optimum.confidence))
    near(found["margin"], 1 - alpha)
    near(found["overconfidence"], optimum.confidence - 1)
    for name in ("ece", "ece_mass", "ece_sweep", "mce", "rmsce_debiased", "smece"):
        near(found[name], 1 - optimum.confidence, atol=1e-6)
    # of every class's probabilities, a share 1/K is too low by alpha - alpha/K and the rest too high by alpha/K
    near(found["ece_classwise"], 2 * (1 - 1 / classes) * alpha / classes)


@pytest.mark.parametrize("wrong", [1, 3])
def test_smoothing_that_matches_the_error_rate_is_calibrated(wrong):
    """With 20 windows, errors spread over the classes, and a confidence of exactly the accuracy, every binned error
    is 0."""
    y = np.arange(20) % 2
    taken = np.where(np.arange(20) < wrong, 1 - y, y)
    sure = 1 - wrong / 20
    found = scalar(predictions(np.log(np.where(np.eye(2)[taken] == 1, sure, 1 - sure)), y))
    for name in ("ece", "ece_mass", "mce", "smece", "rmsce_debiased"):
        near(found[name], 0, atol=1e-9)


def test_perfect_predictor():
    y = np.arange(60) % 4
    made = predictions(1e3 * np.eye(4)[y], y, templates=(np.eye(4) - 1 / 4)[None], posterior=np.eye(4)[y])
    found = measure(made, made).iloc[0]
    ones = ("accuracy", "f1_macro", "f1_weighted", "balanced_accuracy", "accuracy_worst_subject", "max_conf", "margin")
    for name in ones + ("coverage_at_5_risk", "coverage_at_5_risk_pnorm", "silhouette", "temperature_at_bound"):
        near(found[name], 1)
    zeros = """nll brier entropy overconfidence ece ece_floor ece_floor_95 ece_mass ece_classwise mce rmsce_debiased
    ece_sweep smece aurc aurc_excess risk_at_80_coverage ece_true smece_true posterior_gap intra separability nc1
    nc2 nc2_norms nc2_angles nc3 nc4 cdnv intra_cosine nll_refinement brier_refinement ece_temperature"""
    for name in zeros.split():
        near(found[name], 0, atol=1e-12)
    near(found["logit_gap"], 1e3)
    assert found[[name for name in MEASURES if name.endswith("_wrong")]].isna().all()


def test_constant_predictor():
    "Always class 0 with probability 0.7, right in 45 of 100 windows."
    y = np.repeat([0, 1, 2], [45, 30, 25])
    p = np.array([0.7, 0.2, 0.1])
    found = measure(predictions(np.tile(np.log(p), (100, 1)), y)).iloc[0]
    near(found["accuracy"], 0.45)
    near(found["balanced_accuracy"], 1 / 3)
    near(found["f1_macro"], 2 * 0.45 / 1.45 / 3)
    for name in ("ece", "ece_mass", "ece_sweep", "mce", "smece", "overconfidence"):
        near(found[name], 0.25, atol=1e-6)
    near(found["ece_classwise"], (0.25 + 0.1 + 0.15) / 3)
    near(found["nll"], -np.log(p) @ [0.45, 0.3, 0.25])
    near(found["entropy"], -p @ np.log(p))
    for name in ("aurc", "risk_at_80_coverage"):
        near(found[name], 0.55)
    near(found["coverage_at_5_risk"], 0)
    near(found["intra"], 0)
    near(found["silhouette"], 0)
    assert np.isnan(found["nc1"]) and np.isnan(found["separability"])


def test_uniform_predictor():
    y = np.arange(60) % 6
    found = measure(predictions(np.zeros((60, 6)), y)).iloc[0]
    near(found["max_conf"], 1 / 6)
    near(found["entropy"], np.log(6))
    near(found["nll"], np.log(6))
    near(found["brier"], 5 / 6)
    near(found["margin"], 0)
    near(found["ece"], 0, atol=1e-12)


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_simplex_has_collapsed(classes, scale):
    "Rotated, scaled, moved away from the origin: a simplex stays one."
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(10, 10)))[0][:classes]
    corners = (np.eye(classes) - 1 / classes) @ turn
    y = np.arange(5 * classes) % classes
    features = scale * (corners[y] + rng.normal(size=10))
    made = predictions(10 * np.eye(classes)[y], y, features, templates=3 * corners[None])
    found = geometry.measures(made)
    for name in ("nc1", "nc2", "nc2_norms", "nc2_angles", "nc3", "nc4", "cdnv"):
        near(found[name], 0, atol=1e-7)
    near(found["inter"], scale * np.sqrt(2))
    near(found["silhouette"], 1, atol=1e-6)


def test_geometry_without_scale():
    made = plausible(0)
    grown, found = geometry.measures(replace(made, features=1e3 * made.features)), geometry.measures(made)
    for name, value in found.items():
        near(grown[name], value * (1e3 if name in ("intra", "inter", "feature_norm") else 1))


def test_true_error_is_what_estimates_approach():
    made = imaginary_predictions(sharpness=(0.6, 1.0, 1.7), windows=40_000, seed=3)
    found = calibration.measures(made)
    near(found["ece"], found["ece_true"], atol=0.01)
    near(found["smece"], found["smece_true"], atol=0.01)
    near(found["ece_true"][1], 0, atol=1e-6)
    assert (found["posterior_gap"] >= found["ece_true"] - 1e-9).all()
    assert (np.isnan(calibration.against_truth(replace(made, posterior=None))["ece_true"])).all()


def test_temperature_undoes_sharpness():
    sharpness = np.array([0.25, 1.0, 4.0])
    test, validation = (imaginary_predictions(sharpness, windows=20_000, part=part) for part in ("test", "validation"))
    found = calibration.recalibrated(test, validation)
    near(found["temperature"], sharpness, rtol=0.03)
    near(found["temperature"] / sharpness, found["temperature"][1], rtol=1e-5)  # logits are float32
    assert np.ptp(found["nll_refinement"]) < 1e-5 and (found["ece_temperature"] < 0.02).all()


# ---- hardly anything to measure


@settings(max_examples=150, deadline=None)
@given(unpleasant())
def test_every_measure_has_a_value_in_its_range_or_none(made):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = measure(made, replace(made, part="validation"))
    assert list(table.columns) == ["alpha", "seed", "part", *MEASURES] and len(table) == len(made.logits)
    for name, one in MEASURES.items():
        values = table[name].dropna()
        slack = 1e-9 * max(1, np.abs(made.logits).max())
        assert values.between(one.low - slack, one.high + slack).all(), (name, values.tolist())
    always = [
        name for name, one in MEASURES.items() if one.area != "geometry" and not name.endswith(("_wrong", "_correct"))
    ]
    known = [name for name in always if MEASURES[name].needs != "posterior" and name != "logit_gap"]
    assert table[known].notna().all(axis=None)


@settings(max_examples=40, deadline=None)
@given(unpleasant())
def test_a_replica_has_the_same_numbers_alone(made):
    together = measure(made, made)
    for r in range(len(made.logits)):
        one = {
            name: getattr(made, name)[r : r + 1]
            for name in ("logits", "features", "templates", "bias", "alphas", "seeds")
        }
        alone = measure(replace(made, **one), replace(made, **one))
        for name, one in MEASURES.items():
            # distances round in units of the features
            slack = max(1, np.abs(made.features).max()) if one.area == "geometry" else 1
            near(alone[name][0], together[name][r], rtol=1e-9, atol=1e-7 * slack)


def test_absent_classes_change_no_decision_and_no_distance():
    "Three more classes that never occur and get no probability."
    made = plausible(0)
    more = np.concatenate([made.logits, np.full((2, 200, 3), -1e4)], axis=2)
    wider = predictions(
        more, made.y, made.features, np.concatenate([made.templates, np.ones((2, 3, 8))], axis=1), made.subject
    )
    found, expected = scalar(wider), scalar(made)
    for name in MEASURES:
        if name not in ("ece_classwise", "pnorm_order") and not name.endswith("_pnorm"):
            near(found[name], expected[name], atol=1e-9)
    near(found["ece_classwise"], expected["ece_classwise"] * 5 / 8)


def test_confidence_exactly_one():
    "Half of the windows are surely right, half surely wrong."
    y = np.arange(40) % 2
    made = predictions(np.where(np.eye(2)[np.zeros(40, int)] == 1, 2e4, -2e4), y)
    found = measure(made).iloc[0]
    near(found["max_conf"], 1)
    near(found["nll"], 2e4)  # 4e4 for each wrong window: nothing is clipped
    near(found["brier"], 1)
    for name in ("ece", "ece_mass", "mce", "smece", "ece_sweep", "aurc"):
        near(found[name], 0.5, atol=1e-6)
    near(found["ece_floor"], 0)


def test_saturated_logits_keep_their_nll():
    made = predictions([[0.0, 800.0], [0.0, 800.0], [800.0, 0.0]], np.array([1, 0, 0]))
    near(confidence.per_window(made)["nll"], [[0, 800, 0]], atol=1e-12)
    small = predictions(np.float32([[0, 30]]).astype(float), np.array([1]))
    assert confidence.measures(small)["nll"][0] == pytest.approx(9.357622968839299e-14, rel=1e-3)


def test_one_window_per_class():
    made = predictions(3 * np.eye(4), np.arange(4), templates=np.eye(4)[None])
    found = scalar(made)
    near(found["intra"], 0)
    near(found["silhouette"], 0)
    near(found["nc1"], 0)
    near(found["inter"], 3 * np.sqrt(2))
    for name, value in found.items():
        assert MEASURES[name].needs or name.endswith("_wrong") or np.isfinite(value).all(), name


def test_one_class():
    found = scalar(predictions(np.zeros((7, 1)), np.zeros(7, int)))
    near(found["accuracy"], 1)
    near(found["max_conf"], 1)
    near(found["margin"], 1)
    for name in ("logit_gap", "inter", "separability", "silhouette", "nc1", "nc2", "nc3", "cdnv"):
        assert np.isnan(found[name]).all(), name


def test_ties_between_logits_go_to_the_first_class():
    made = predictions([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]], np.array([0, 2]))
    assert classification.predicted_class(made).tolist() == [[0, 1]]
    near(confidence.per_window(made)["margin"], 0, atol=1e-12)


def test_empty_bins_count_for_nothing():
    sure, correct = np.array([0.03, 0.97]), np.array([False, True])
    near(calibration.ece(sure, correct), 0.03)
    near(calibration.mce(sure, correct), 0.03)
    table = calibration.reliability(predictions(np.log([[0.97, 0.03], [0.97, 0.03]]), np.array([0, 0])))
    assert table.windows.tolist() == [0] * 14 + [2] and table.accuracy.notna().sum() == 1


# ---- faults


@pytest.mark.parametrize("field", ["logits", "features", "templates"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_names_the_replica(field, value):
    made = plausible(0)
    getattr(made, field)[1, 3, 2] = value
    with pytest.raises(HarLsError, match=rf"test part: {field} of replica 1 \(alpha 0.1, seed 1\)"):
        measure(made)


def test_nan_in_the_validation_part_names_the_part():
    made, bad = plausible(0), replace(plausible(1), part="validation")
    bad.logits[0, 0, 0] = np.nan
    with pytest.raises(HarLsError, match="validation part: logits of replica 0"):
        measure(made, bad)


def test_parts_of_different_trainings_are_refused():
    made = plausible(0)
    with pytest.raises(HarLsError, match="different replicas"):
        measure(made, replace(made, seeds=made.seeds + 1))


def test_no_windows_and_labels_out_of_range_are_refused():
    with pytest.raises(HarLsError, match="needs a window"):
        measure(predictions(np.zeros((1, 0, 3)), np.zeros(0, int)))
    for label in (-1, 5):
        made = plausible(0)
        made.y[7] = label
        with pytest.raises(HarLsError, match=f"y holds {label}, expected classes 0 to 4"):
            measure(made)


def test_tsne():
    features = imaginary_predictions(windows=120, distance=6.0).features[0]
    points = geometry.tsne(features, seed=1)
    assert points.shape == (120, 2) and np.array_equal(points, geometry.tsne(features, seed=1))
    assert not np.array_equal(points, geometry.tsne(features, seed=2))
    assert geometry.tsne_trust(features, points) > 0.9
    assert geometry.tsne(features[:4]).shape == (4, 2)
    for bad, words in ((features[:3], "N >= 4"), (features[None], "one replica"), (np.full((9, 2), np.nan), "NaN")):
        with pytest.raises(HarLsError, match=words):
            geometry.tsne(bad)


def test_table_of_measures_agrees_with_the_modules():
    made = plausible(0)
    for module in (classification, confidence, calibration, selective, geometry):
        name = module.__name__.rsplit(".", 1)[1]
        assert set(module.measures(made)) == {key for key, one in MEASURES.items() if one.area == name}
    for name, one in MEASURES.items():
        assert one.direction in ("higher", "lower", None) and one.needs in ("", "validation", "posterior"), name
        assert one.low < one.high, name
    assert len({one.label for one in MEASURES.values()}) == len(MEASURES)
