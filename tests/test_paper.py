"""The analyses of Müller et al. on cases whose answer is known, and their faults."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss

from har_ls.core import HarLsError
from har_ls.data.catalog import load
from har_ls.data.splits import split
from har_ls.paper.distillation import distil, distillation_loss, smoothing_index
from har_ls.paper.information import disturb, mutual_information
from har_ls.paper.projection import clusters, project, template_distances, triples
from har_ls.paper.temperature import scaled, sweep, with_and_without
from har_ls.predictions import Predictions


def predictions(seed=0, R=2, N=60, K=5, D=8, part="test", sure=1.0):
    rng = np.random.default_rng(seed)
    y = np.arange(N) % K
    templates, bias = rng.normal(size=(R, K, D)), rng.normal(size=(R, K))
    features = rng.normal(size=(R, N, D)) + sure * templates[:, y]
    logits = np.einsum("rnd,rkd->rnk", features, templates) + bias[:, None]
    return Predictions(part, logits, features, templates, bias, y, y % 2, np.zeros(R), np.arange(R))


def test_a_point_at_a_template_is_projected_onto_it_and_distances_in_the_plane_are_kept():
    p = predictions(D=8)
    inside = np.einsum("nk,kd->nd", np.random.default_rng(1).dirichlet(np.ones(3), size=60), p.templates[0, [0, 2, 3]])
    p = Predictions(
        "test", p.logits, np.stack([inside, inside]), p.templates, p.bias, p.y, p.subject, p.alphas, p.seeds
    )
    flat = project(p, (0, 2, 3), per_class=None)
    chosen = np.concatenate([np.flatnonzero(p.y == c) for c in (0, 2, 3)])
    true = np.linalg.norm(inside[chosen][:, None] - p.templates[0, [0, 2, 3]], axis=-1)
    assert np.allclose(np.linalg.norm(flat.points[:, None] - flat.templates, axis=-1), true, atol=1e-9)


def test_projection_takes_the_nearest_point_of_the_plane():
    p = predictions()
    flat, w = project(p, (1, 2, 4), per_class=3), p.templates[0, [1, 2, 4]]
    index = np.concatenate([np.flatnonzero(p.y == c) for c in (1, 2, 4)])
    x = p.features[0, index[np.isin(index, index)]]
    weights = np.linalg.lstsq(np.stack([w[1] - w[0], w[2] - w[0]], 1), (x - w[0]).T, rcond=None)[0]
    nearest = w[0] + weights.T @ np.stack([w[1] - w[0], w[2] - w[0]])
    whole = project(p, (1, 2, 4), per_class=None)
    assert np.allclose(np.linalg.norm(nearest - w.mean(0), axis=1), np.linalg.norm(whole.points, axis=1))
    assert len(flat.points) == 9


@pytest.mark.parametrize("classes", [(0, 0, 1), (0, 1, 5), (0, 1)])
def test_classes_of_a_projection_are_checked(classes):
    with pytest.raises(HarLsError, match="three different classes from 0 to 4"):
        project(predictions(), classes)


def test_templates_on_a_line_span_no_plane():
    p = predictions()
    p.templates[:, 2] = 2 * p.templates[:, 1] - p.templates[:, 0]
    with pytest.raises(HarLsError, match="on one line"):
        project(p, (0, 1, 2))


def test_cluster_numbers_against_loops():
    p = predictions()
    row = clusters(p).iloc[1]
    x, w = p.features[1], p.templates[1]
    own, others, uneven = [], [], []
    for n, k in enumerate(p.y):
        d = [math.dist(x[n], w[j]) for j in range(5)]
        rest = d[:k] + d[k + 1 :]
        own.append(d[k])
        others += rest
        uneven.append(np.std(rest) / np.mean(rest))
    means = [x[p.y == k].mean(0) for k in range(5)]
    spread = np.sqrt(np.mean([math.dist(x[n], means[k]) ** 2 for n, k in enumerate(p.y)]))
    between = np.mean([math.dist(means[a], means[b]) for a in range(5) for b in range(a)])
    assert np.allclose(
        row[["own", "unevenness", "spread"]].astype(float),
        [np.mean(own) / np.mean(others), np.mean(uneven), spread / between],
    )
    assert np.allclose(template_distances(p)[1, 3], [math.dist(x[3], w[j]) for j in range(5)])


def test_the_most_confused_triple_comes_first():
    p = predictions(sure=3.0)
    logits = np.full_like(p.logits, -6.0)
    logits[:, np.arange(60), p.y] = 6.0
    for a, b in ((0, 1), (1, 3), (3, 0)):
        logits[:, p.y == a, b] = 6.0
    confused = Predictions("validation", logits, p.features, p.templates, p.bias, p.y, p.subject, p.alphas, p.seeds)
    assert triples(confused).classes[0] == (0, 1, 3)
    assert triples(confused).confusion.iloc[0] == pytest.approx(0.5, abs=1e-3)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_temperature_rows_against_scikit_learn_and_scipy(seed):
    test, validation = predictions(seed, N=200), predictions(seed + 1, N=200, part="validation")
    table = with_and_without(test, validation)

    def nll(p, r, t):
        z = p.logits[r] / t
        q = np.exp(z - z.max(-1, keepdims=True))
        return log_loss(p.y, q / q.sum(-1, keepdims=True), labels=range(5))

    for r in range(2):
        best = minimize_scalar(
            lambda log_t, r=r: nll(validation, r, np.exp(log_t)),
            bounds=np.log([0.05, 20]),
            method="bounded",
            options=dict(xatol=1e-9),
        )
        here = table[(table.seed == r) & table.scaled].iloc[0]
        assert nll(validation, r, here.temperature) <= best.fun + 1e-9
        assert here.nll == pytest.approx(nll(test, r, here.temperature), rel=1e-6)
        assert table[(table.seed == r) & ~table.scaled].iloc[0].nll == pytest.approx(nll(test, r, 1.0), rel=1e-6)
    assert np.allclose(sweep(test, (1.0,)).nll, table[~table.scaled].nll)


@pytest.mark.parametrize("temperature", [0, -1, math.nan, [1.0, 0.0]])
def test_impossible_temperatures(temperature):
    with pytest.raises(HarLsError, match="expected positive numbers"):
        scaled(predictions(), temperature)


def test_validation_of_other_replicas_is_refused():
    with pytest.raises(HarLsError, match="different replicas"):
        with_and_without(predictions(), predictions(R=3, part="validation"))


@pytest.mark.parametrize("N, truth", [(30, math.log(30)), (100, math.log(100))])
def test_windows_far_apart_give_log_n(N, truth):
    rng = np.random.default_rng(0)
    draws = [30.0 * np.arange(N)[:, None] + rng.normal(size=(N, 100)) for _ in range(2)]
    assert mutual_information(*draws) == pytest.approx(truth, rel=0.02)


def test_two_collapsed_classes_give_log_two_with_a_hundred_draws():
    rng = np.random.default_rng(0)
    found = [
        mutual_information(*(30.0 * (np.arange(60) % 2)[:, None] + rng.normal(size=(60, 100)) for _ in range(2)))
        for _ in range(5)
    ]
    assert np.mean(found) == pytest.approx(math.log(2), rel=0.02)


def test_gaussian_channel_against_numerical_integration():
    "Means drawn from a wide normal: the information of the mixture, by quadrature on a fine grid."
    rng = np.random.default_rng(3)
    mu = 2 * rng.normal(size=40)
    grid = np.linspace(-15, 15, 20001)
    density = np.exp(-((grid[:, None] - mu) ** 2) / 2).mean(1) / np.sqrt(2 * np.pi)
    truth = -(density * np.log(density)).sum() * (grid[1] - grid[0]) - 0.5 * np.log(2 * np.pi * np.e)
    draws = [mu[:, None] + rng.normal(size=(40, 2000)) for _ in range(2)]
    assert mutual_information(*draws) == pytest.approx(truth, abs=0.01)


def test_an_output_without_variation():
    constant = np.zeros((10, 5))
    assert mutual_information(constant, constant) == pytest.approx(0)
    two = np.repeat((np.arange(10) % 2)[:, None], 5, 1)
    assert mutual_information(two, two) == pytest.approx(math.log(2))


@pytest.mark.parametrize("fit, held_out", [((1, 5), (1, 5)), ((5, 1), (5, 1)), ((5, 4), (6, 4)), ((5,), (5,))])
def test_draws_that_cannot_be_used(fit, held_out):
    with pytest.raises(HarLsError, match="draws of shapes"):
        mutual_information(np.zeros(fit), np.zeros(held_out))


def test_draws_that_are_not_finite():
    with pytest.raises(HarLsError, match="not finite"):
        mutual_information(np.full((3, 4), np.nan), np.zeros((3, 4)))


def test_disturbances_are_checked_and_seeded():
    x = np.random.default_rng(0).normal(size=(3, 4, 50)).astype(np.float32)
    with pytest.raises(HarLsError, match="4 channels are not triads"):
        disturb(x, np.random.default_rng(0))
    with pytest.raises(HarLsError, match="crop = 0"):
        disturb(x, np.random.default_rng(0), degrees=0, crop=0)
    one, two = (disturb(x, np.random.default_rng(5), degrees=0) for _ in range(2))
    assert np.array_equal(one, two) and one.dtype == np.float32


def test_distillation_against_pytorchs_divergence():
    """Up to the teacher's own entropy, the soft part is T^2 times torch's Kullback-Leibler divergence, in value and
    gradient."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(4, 9, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    y = torch.randint(5, (4, 9), generator=generator)
    t = torch.tensor([1.0, 2.0, 4.0, 16.0], dtype=torch.float64)
    student.requires_grad_()
    ours = distillation_loss(student, y, teacher, 0.3, t)
    p = [(teacher[r] / t[r]).softmax(-1) for r in range(4)]
    theirs = torch.stack(
        [
            0.7 * torch.nn.functional.cross_entropy(student[r], y[r])
            + 0.3
            * t[r] ** 2
            * (
                torch.nn.functional.kl_div((student[r] / t[r]).log_softmax(-1), p[r], reduction="batchmean")
                + torch.distributions.Categorical(probs=p[r]).entropy().mean()
            )
            for r in range(4)
        ]
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    one, two = (torch.autograd.grad(loss.sum(), student, retain_graph=True)[0] for loss in (ours, theirs))
    torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("beta, temperature, found", [(1.5, 1.0, "beta = 1.5"), (0.5, 0.0, "temperature = 0.0")])
def test_distillation_is_checked(beta, temperature, found):
    z = torch.zeros(2, 3)
    with pytest.raises(HarLsError, match=found):
        distillation_loss(z, torch.zeros(2, dtype=torch.long), z, beta, temperature)


def test_teachers_must_know_the_windows_of_the_student():
    small = split(load("synthetic"), "subject", max_windows=100)
    with pytest.raises(HarLsError, match="expected the 100 of the train part"):
        distil("resnet1d", small, predictions(part="train"), 1.0, [0, 1])
    with pytest.raises(HarLsError, match="of the test part"):
        distil("resnet1d", small, predictions(N=100), 1.0, [0, 1])


def test_a_smoothed_teacher_has_its_alpha_as_index():
    p = predictions()
    p = Predictions(
        "train",
        np.log(0.8 * np.eye(5)[p.y] + 0.2 / 5)[None],
        p.features[:1],
        p.templates[:1],
        p.bias[:1],
        p.y,
        p.subject,
        p.alphas[:1],
        p.seeds[:1],
    )
    assert smoothing_index(p) == pytest.approx(0.2)
    assert smoothing_index(p, 1e6) == pytest.approx(1, abs=1e-4)
