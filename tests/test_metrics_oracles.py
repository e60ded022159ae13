"""The measures against software by others and against loops that follow the formulas."""

import warnings

import calibration as uncertainty_calibration
import numpy as np
import pytest
import relplot
import torch
from hypothesis import given, settings
from metrics_cases import judged, plausible, predictions, unpleasant
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from scipy.stats import binomtest
from sklearn import metrics as sklearn_metrics
from torchmetrics.functional.classification import multiclass_calibration_error

from har_ls.metrics import calibration, classification, confidence, geometry, selective

few = settings(max_examples=60, deadline=None)
SEEDS = range(4)


def probabilities(made, r):
    return np.exp(confidence.log_probabilities(made.logits[r]))


# ---- classification: scikit-learn


@few
@given(unpleasant())
def test_classification_is_scikit_learns(made):
    found = classification.measures(made)
    for r, taken in enumerate(classification.predicted_class(made)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = dict(
                accuracy=sklearn_metrics.accuracy_score(made.y, taken),
                f1_macro=sklearn_metrics.f1_score(made.y, taken, average="macro"),
                f1_weighted=sklearn_metrics.f1_score(made.y, taken, average="weighted"),
                balanced_accuracy=sklearn_metrics.balanced_accuracy_score(made.y, taken),
            )
            labels = np.arange(made.logits.shape[2])
            counts = sklearn_metrics.confusion_matrix(made.y, taken, labels=labels)
            precision, recall, f1, support = sklearn_metrics.precision_recall_fscore_support(
                made.y, taken, labels=labels, zero_division=np.nan
            )
        assert np.array_equal(classification.confusion(made)[r], counts)
        for name, value in expected.items():
            assert found[name][r] == pytest.approx(value, abs=1e-12), name
        table = classification.per_class(made).query("seed == @r")
        np.testing.assert_allclose(table["precision"], precision)
        np.testing.assert_allclose(table["recall"], recall)
        np.testing.assert_array_equal(table["windows"], support)
        met = (support > 0) | np.isin(labels, taken)
        np.testing.assert_allclose(table["f1"][met], np.nan_to_num(f1[met]))


def test_accuracy_per_subject_by_hand():
    made = plausible(0)
    table = classification.accuracy_per_subject(made)
    hits = classification.predicted_class(made) == made.y
    for row in table.itertuples():
        mine = made.subject == row.subject
        assert row.accuracy == pytest.approx(hits[row.seed, mine].mean()) and row.windows == mine.sum()
    assert np.allclose(classification.accuracy_worst_subject(made), table.groupby("seed").accuracy.min())


# ---- confidence: scipy and scikit-learn


@few
@given(unpleasant())
def test_log_probabilities_are_scipys(made):
    found = confidence.log_probabilities(made.logits)
    np.testing.assert_allclose(found, log_softmax(made.logits, axis=-1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_nll_and_brier_are_scikit_learns(seed):
    made = plausible(seed)
    found = confidence.measures(made)
    for r in range(2):
        p = probabilities(made, r)
        # scikit-learn clips probabilities at the spacing of float64, 2e-16; none of these is that small for the true
        # class
        assert found["nll"][r] == pytest.approx(sklearn_metrics.log_loss(made.y, p, labels=np.arange(5)), abs=1e-9)
        assert found["brier"][r] == pytest.approx(
            sklearn_metrics.brier_score_loss(made.y, p, labels=np.arange(5), scale_by_half=False), abs=1e-12
        )


@few
@given(unpleasant())
def test_window_by_window(made):
    values = confidence.per_window(made)
    replicas, windows, classes = made.logits.shape
    for r in range(replicas):
        for n in range(windows):
            z, y = made.logits[r, n], made.y[n]
            p = softmax(z)
            ordered = np.sort(p)[::-1]
            expected = dict(
                correct=z.argmax() == y,
                max_conf=ordered[0],
                nll=-log_softmax(z)[y],
                brier=((p - np.eye(classes)[y]) ** 2).sum(),
                entropy=-sum(q * np.log(q) for q in p if q > 0),
                margin=ordered[0] - (ordered[1] if classes > 1 else 0),
                logit_gap=np.sort(z)[-1] - np.sort(z)[-2] if classes > 1 else np.nan,
            )
            for name, value in expected.items():
                assert values[name][r, n] == pytest.approx(value, rel=1e-9, abs=1e-9, nan_ok=True), name


@few
@given(unpleasant())
def test_right_and_wrong_apart(made):
    values, found = confidence.per_window(made), confidence.measures(made)
    for name in ("max_conf", "nll", "brier", "entropy", "margin"):
        for ending, chosen in (("correct", values["correct"]), ("wrong", ~values["correct"])):
            for r in range(len(chosen)):
                expected = values[name][r][chosen[r]].mean() if chosen[r].any() else np.nan
                assert found[f"{name}_{ending}"][r] == pytest.approx(expected, rel=1e-9, abs=1e-9, nan_ok=True)


# ---- calibration: uncertainty-calibration


def as_binary(judgement):
    "The library takes probabilities of class 1 and labels 0 or 1."
    return judgement[0], judgement[1].astype(int)


@few
@given(judged())
def test_ece_is_uncertainty_calibrations(judgement):
    expected = uncertainty_calibration.get_ece(*as_binary(judgement))
    assert calibration.ece(*judgement) == pytest.approx(expected, abs=1e-9)


@few
@given(judged())
def test_equal_mass_is_uncertainty_calibrations(judgement):
    for bins in (1, 4, 15):
        expected = uncertainty_calibration.get_ece_em(*as_binary(judgement), num_bins=bins)
        assert calibration.ece_mass(*judgement, bins=bins) == pytest.approx(expected, abs=1e-9)


@few
@given(judged())
def test_debiased_is_uncertainty_calibrations(judgement):
    expected = uncertainty_calibration.lower_bound_scaling_ce(*as_binary(judgement), p=2, debias=True, num_bins=15)
    # a square root of a difference: 1e-15 in the square is 3e-8 in the root
    assert calibration.rmsce_debiased(*judgement) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("seed", SEEDS)
def test_calibration_of_many_classes_is_uncertainty_calibrations(seed):
    made = plausible(seed)
    sure, correct = calibration.top_label(made)
    for r in range(2):
        p = probabilities(made, r)
        assert calibration.ece(sure, correct)[r] == pytest.approx(uncertainty_calibration.get_ece(p, made.y), abs=1e-9)
        assert calibration.ece_mass(sure, correct)[r] == pytest.approx(
            uncertainty_calibration.get_ece_em(p, made.y), abs=1e-9
        )
        assert calibration.rmsce_debiased(sure, correct)[r] == pytest.approx(
            uncertainty_calibration.get_top_calibration_error(p, made.y, p=2, debias=True), abs=1e-7
        )
        assert calibration.ece_classwise(made)[r] == pytest.approx(
            uncertainty_calibration.get_ece(p, made.y, mode="marginal"), abs=1e-9
        )


# ---- calibration: torchmetrics, away from its fault at confidence 1


@pytest.mark.parametrize("seed", SEEDS)
def test_ece_and_mce_are_torchmetrics(seed):
    made = plausible(seed, sharpness=1.0)
    sure, correct = calibration.top_label(made)
    assert sure.max() < 0.9999
    for r in range(2):
        p, y = torch.from_numpy(probabilities(made, r)), torch.from_numpy(made.y)
        for norm, ours in (("l1", calibration.ece), ("max", calibration.mce)):
            theirs = multiclass_calibration_error(p, y, num_classes=5, n_bins=15, norm=norm).item()
            assert ours(sure, correct)[r] == pytest.approx(theirs, abs=1e-6)


def test_torchmetrics_errs_at_confidence_one():
    "Why the comparison above keeps away from 1: torchmetrics puts confidence exactly 1 into a bin of its own."
    p = torch.tensor([[0.97, 0.03]] * 5 + [[1.0, 0.0]] * 5, dtype=torch.float64)
    y = torch.tensor([0] * 5 + [1] * 5)
    sure, correct = p.max(1).values.numpy(), (y == 0).numpy()
    by_hand = abs(sure.mean() - correct.mean())  # all ten windows lie in the last bin
    assert calibration.ece(sure, correct) == pytest.approx(by_hand)
    assert abs(multiclass_calibration_error(p, y, num_classes=2, n_bins=15).item() - by_hand) > 0.01


# ---- calibration: relplot


@pytest.mark.parametrize("seed", SEEDS)
def test_smooth_error_at_one_width_is_relplots(seed, monkeypatch):
    """At a fixed width relplot differs by its grids: 200 points for the integral, made finer here, and 1,001 for the
    kernel,
    which `kernel.apply` lets us make finer. Confidences stay below 0.999, where it has a fault, see below."""
    monkeypatch.setattr(relplot.config, "smECE_mesh_pts", 40_001)
    sure, correct = calibration.top_label(plausible(seed, sharpness=0.7))
    assert sure.max() < 0.999
    points = np.linspace(0, 1, 20_001)
    for sigma in (0.02, 0.1):
        kernel = relplot.kernels.ReflectedGaussianKernel(sigma)
        found = calibration.smece_at(sure, correct, sigma)
        for r in range(2):
            curve = kernel.apply(sure[r], sure[r] - correct[r], points, eval_points=16_001) / len(sure[r])
            assert found[r] == pytest.approx(np.trapezoid(abs(curve), points), abs=1e-6)
            theirs = relplot.metrics.smECE_sigma(sure[r], correct[r].astype(float), sigma)
            assert found[r] == pytest.approx(theirs, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("sharpness", [0.2, 0.5, 1.0])
def test_smooth_error_is_relplots_within_its_steps(seed, sharpness):
    """relplot halves the width ten times and stops, so that its width, and with it the error, is known to 1/1024; its
    200 points
    add 0.5 %."""
    sure, correct = calibration.top_label(plausible(seed, sharpness=sharpness))
    found = calibration.smece(sure, correct)
    for r in range(2):
        theirs = relplot.smECE(sure[r], correct[r].astype(float))
        assert found[r] == pytest.approx(theirs, abs=1 / 1024, rel=0.01)


def test_relplot_loses_half_of_what_is_at_confidence_one():
    """Why the comparisons above keep away from 1: mass on the last grid point of relplot's kernel is its own mirror
    image and
    should count twice, but counts once. A confidence of 0.5 keeps its mass. Ours keeps both."""
    kernel, points = relplot.kernels.ReflectedGaussianKernel(0.1), np.linspace(0, 1, 2001)
    mass = [np.trapezoid(kernel.apply(np.array([f]), np.ones(1), points), points) for f in (0.5, 1.0)]
    assert mass == pytest.approx([1, 0.5], abs=0.01)
    ours = [float(calibration.smece_at(np.array([f]), np.array([f - 1.0]), 0.1)) for f in (0.5, 1.0)]
    assert ours == pytest.approx([1, 1], abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(judged(max_windows=20))
def test_smooth_error_is_its_integral(judgement):
    sure, correct = judgement
    t = np.linspace(0, 1, 10_001)
    shifts = np.arange(-8, 10, 2)[:, None, None]
    for sigma in (0.02, 0.3):
        images = sum(np.exp(-(((t[:, None] - sign * sure - shifts) / sigma) ** 2) / 2).sum(0) for sign in (1, -1))
        curve = images @ (correct - sure) / (len(sure) * sigma * np.sqrt(2 * np.pi))
        # 1e-5: both integrate an absolute value by the trapezoid rule, whose error at a change of sign is quadratic in
        # the step
        assert calibration.smece_at(sure, correct, sigma) == pytest.approx(np.trapezoid(abs(curve), t), abs=1e-5)
    value = float(calibration.smece(sure, correct))
    if value > 1e-3:
        assert calibration.smece_at(sure, correct, value) == pytest.approx(value, abs=1e-6)


# ---- calibration: loops


def pieces_of_equal_mass(sure, bins):
    order = np.argsort(sure, kind="stable")
    cuts = [0]
    for piece in np.array_split(np.arange(len(sure)), min(bins, len(sure))):
        cut = piece[-1] + 1
        while cut < len(sure) and sure[order[cut]] == sure[order[cut - 1]]:
            cut += 1
        cuts.append(cut)
    return [order[low:high] for low, high in zip(cuts, cuts[1:]) if high > low]


@few
@given(judged())
def test_sweep_by_loop(judgement):
    sure, correct = judgement
    chosen = 1
    for bins in range(2, len(sure) + 1):
        shares = [correct[piece].mean() for piece in pieces_of_equal_mass(sure, bins)]
        if any(b < a for a, b in zip(shares, shares[1:])):
            break
        chosen = bins
    error = sum(abs(sure[piece].sum() - correct[piece].sum()) for piece in pieces_of_equal_mass(sure, chosen)) / len(
        sure
    )
    found, bins = calibration.ece_sweep(sure, correct)
    assert bins == chosen and found == pytest.approx(error, abs=1e-9)


@few
@given(judged())
def test_binned_errors_by_loop(judgement):
    sure, correct = judgement
    gaps, error = [], 0
    for b in range(15):
        inside = (sure <= (b + 1) / 15) & ((sure > b / 15) | (b == 0))
        if inside.any():
            gaps.append(abs(sure[inside].mean() - correct[inside].mean()))
            error += inside.mean() * gaps[-1]
    assert calibration.ece(sure, correct) == pytest.approx(error, abs=1e-12)
    assert calibration.mce(sure, correct) == pytest.approx(max(gaps), abs=1e-12)


@few
@given(judged())
def test_order_of_the_windows_does_not_matter(judgement):
    shuffled = np.random.default_rng(0).permutation(len(judgement[0]))
    for measure in (calibration.ece, calibration.ece_mass, calibration.rmsce_debiased, calibration.smece):
        moved = measure(judgement[0][shuffled], judgement[1][shuffled])
        assert measure(*judgement) == pytest.approx(moved, abs=1e-7), measure
    other = judgement[0][shuffled], judgement[1][shuffled]
    for moved, kept in zip(calibration.ece_sweep(*other), calibration.ece_sweep(*judgement)):
        assert moved == pytest.approx(kept)
    moved = selective.curve_measures(*other)
    for name, value in selective.curve_measures(*judgement).items():
        assert value == pytest.approx(moved[name], abs=1e-9), name


def test_reliability_intervals_are_scipys():
    made = plausible(0)
    table = calibration.reliability(made)
    assert len(table) == 30 and table.windows.sum() == 400
    for row in table[table.windows > 0].itertuples():
        expected = binomtest(round(row.accuracy * row.windows), row.windows).proportion_ci(method="wilson")
        assert (row.accuracy_low, row.accuracy_high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert table[table.windows == 0].accuracy.isna().all()


def test_noise_floor_by_simulation():
    sure, _ = calibration.top_label(plausible(0, windows=150))
    floor, high = calibration.noise_floor(sure, draws=4000)
    rng = np.random.default_rng(1)
    for r in range(2):
        errors = [calibration.ece(sure[r], rng.random(150) < sure[r]) for _ in range(2000)]
        assert floor[r] == pytest.approx(np.mean(errors), abs=5 * np.std(errors) / np.sqrt(2000))
        assert high[r] == pytest.approx(np.quantile(errors, 0.95), rel=0.05)


def test_calibrated_models_stay_below_the_floors_95th_percentile():
    "Of test parts drawn from a calibrated model one in twenty lies above."
    rng = np.random.default_rng(0)
    sure = rng.beta(6, 1, size=300)
    _, high = calibration.noise_floor(sure)
    above = np.mean([calibration.ece(sure, rng.random(300) < sure) > high for _ in range(2000)])
    assert 0.03 < above < 0.07


@pytest.mark.parametrize("sharpness", [0.1, 0.7, 2.0, 8.0])
def test_temperature_is_scipys(sharpness):
    made = plausible(3, windows=400, sharpness=sharpness)
    found, at_bound = calibration.fit_temperature(made)
    for r in range(2):

        def nll(log_t, r=r):
            return -log_softmax(made.logits[r] * np.exp(-log_t), axis=-1)[np.arange(400), made.y].mean()

        best = minimize_scalar(nll, bounds=(np.log(0.05), np.log(20)), method="bounded", options=dict(xatol=1e-10))
        assert not at_bound[r] and np.log(found[r]) == pytest.approx(best.x, abs=1e-5)
        assert nll(np.log(found[r])) <= best.fun + 1e-12


# ---- selective classification: exact expectation by loop


@few
@given(judged(max_windows=25))
def test_risk_curve_by_loop(judgement):
    """Within a group of equal scores the expected number of errors among the first m of g windows is m/g of the
    group's errors."""
    score, correct = judgement
    expected, before, errors = [], 0, 0.0
    for value in sorted(set(score), reverse=True):
        group = ~correct[score == value]
        expected += [(errors + group.sum() * m / len(group)) / (before + m) for m in range(1, len(group) + 1)]
        before, errors = before + len(group), errors + group.sum()
    np.testing.assert_allclose(selective.risk_curve(score, correct), expected, atol=1e-12)
    found = selective.curve_measures(score, correct)
    n = len(score)
    assert found["aurc"] == pytest.approx(np.mean(expected))
    low_risk = [i / n for i, risk in enumerate(expected, 1) if risk <= 0.05 + 1e-12]
    assert found["coverage_at_5_risk"] == pytest.approx(max(low_risk, default=0))
    assert found["risk_at_80_coverage"] == pytest.approx(
        next(r for i, r in enumerate(expected, 1) if i >= 0.8 * n - 1e-9)
    )
    assert found["aurc_excess"] >= -1e-12


def test_aurc_without_ties_is_uncertainty_calibrations():
    "get_selective_stats: the mean accuracy over coverages, which is 1 - AURC."
    sure, correct = calibration.top_label(plausible(1))
    for r in range(2):
        area, _ = uncertainty_calibration.get_selective_stats(sure[r], correct[r])
        assert selective.curve_measures(sure, correct)["aurc"][r] == pytest.approx(1 - area, abs=1e-9)


@few
@given(unpleasant())
def test_pnorm_scores_are_torchs(made):
    "The authors' definition: torch.nn.functional.normalize of the centred logits, then the maximum."
    if made.logits.max() > 1e20:  # their powers overflow
        return
    z = torch.from_numpy(made.logits - made.logits.mean(-1, keepdims=True))
    scores = selective.pnorm_scores(made.logits)
    for p in range(1, 10):
        np.testing.assert_allclose(scores[p], torch.nn.functional.normalize(z, p, -1).max(-1).values, atol=1e-9)


def test_norm_is_the_one_with_least_validation_aurc():
    made = plausible(2, windows=300)
    sure, correct = calibration.top_label(made)
    scores = selective.pnorm_scores(made.logits)
    for r, p in enumerate(selective.choose_norm(made)):
        areas = {-1: selective.risk_curve(sure[r], correct[r]).mean()}
        areas |= {q: selective.risk_curve(scores[q, r], correct[r]).mean() for q in range(10)}
        assert areas[p] == min(areas.values())
        chosen = selective.pnorm_confidence(made, selective.choose_norm(made))[r]
        np.testing.assert_array_equal(chosen, sure[r] if p == -1 else scores[p, r])


# ---- geometry


@few
@given(unpleasant(min_windows=2))
def test_silhouette_is_scikit_learns(made):
    features = np.clip(
        made.logits, -1e6, 1e6
    )  # beyond, squares of differences overflow in their float32 path and ours alike
    made = predictions(made.logits, made.y, features)
    found = geometry.silhouette(geometry.Clusters(made))
    classes = len(np.unique(made.y))
    if classes == 1:
        assert np.isnan(found).all()
    elif classes < len(made.y):  # scikit-learn refuses one window per class
        for r in range(len(found)):
            if np.ptp(features[r]) == 0:
                assert found[r] == 0
            else:
                assert found[r] == pytest.approx(sklearn_metrics.silhouette_score(features[r], made.y), abs=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_geometry_by_loop(seed):
    made = plausible(seed, windows=60, classes=4, features=6)
    found = geometry.measures(made)
    for r in range(2):
        x, w, y = made.features[r], made.templates[r], made.y
        mu = np.array([x[y == k].mean(0) for k in range(4)])
        m = mu - mu.mean(0)
        pairs = [(k, j) for k in range(4) for j in range(k)]

        def cosine(a, b):
            return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

        variance = [np.mean([np.sum((v - mu[k]) ** 2) for v in x[y == k]]) for k in range(4)]
        within = np.mean([np.outer(v - mu[k], v - mu[k]) for v, k in zip(x, y)], axis=0)
        between = np.mean([np.outer(v, v) for v in m], axis=0)
        gram = m @ m.T
        nearest = [np.argmin([np.linalg.norm(v - c) for c in mu]) for v in x]
        expected = dict(
            intra=np.mean([np.mean([np.linalg.norm(v - mu[k]) for v in x[y == k]]) for k in range(4)]),
            inter=np.mean([np.linalg.norm(mu[k] - mu[j]) for k, j in pairs]),
            feature_norm=np.mean([np.linalg.norm(v) for v in x]),
            intra_cosine=np.mean([np.mean([1 - cosine(v, mu[k]) for v in x[y == k]]) for k in range(4)]),
            inter_cosine=np.mean([1 - cosine(mu[k], mu[j]) for k, j in pairs]),
            nc1=np.trace(within @ np.linalg.pinv(between, rcond=1e-12)) / 4,
            nc2=np.linalg.norm(gram / np.linalg.norm(gram) - (np.eye(4) - 1 / 4) / np.sqrt(3)),
            nc2_norms=np.std([np.linalg.norm(v) for v in m]) / np.mean([np.linalg.norm(v) for v in m]),
            nc2_angles=np.mean([abs(cosine(m[k], m[j]) + 1 / 3) for k, j in pairs]),
            nc3=np.linalg.norm(w / np.linalg.norm(w) - m / np.linalg.norm(m)) ** 2,
            nc4=np.mean(nearest != made.logits[r].argmax(-1)),
            cdnv=np.mean([(variance[k] + variance[j]) / 2 / np.sum((mu[k] - mu[j]) ** 2) for k, j in pairs]),
            silhouette=sklearn_metrics.silhouette_score(x, y),
        )
        expected |= dict(
            separability=expected["intra"] / expected["inter"],
            intra_relative=expected["intra"] / expected["feature_norm"],
            inter_relative=expected["inter"] / expected["feature_norm"],
        )
        assert set(expected) == set(found)
        for name, value in expected.items():
            assert found[name][r] == pytest.approx(value, rel=1e-8, abs=1e-10), name
