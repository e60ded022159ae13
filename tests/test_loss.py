"""The loss against PyTorch's own, against finite differences, and against its closed form."""
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from har_ls.core import HarLsError
from har_ls.loss.smoothing import LabelSmoothingLoss, label_smoothing_loss, smoothed_optimum, soft_targets

ALPHAS = st.one_of(st.just(0.0), st.floats(1e-6, 0.999))


def batch(seed, replicas, size, classes, scale):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(replicas, size, classes, generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), torch.randint(classes, (replicas, size), generator=generator)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 9), st.integers(2, 19), st.sampled_from([0.1, 3.0, 300.0]), st.data())
def test_value_and_gradient_equal_pytorchs(seed, replicas, size, classes, scale, data):
    alphas = data.draw(st.lists(ALPHAS, min_size=replicas, max_size=replicas))
    logits, y = batch(seed, replicas, size, classes, scale)
    ours = label_smoothing_loss(logits, y, torch.tensor(alphas, dtype=torch.float64))
    theirs = torch.stack([nn.CrossEntropyLoss(label_smoothing=a)(z, t) for z, t, a in zip(logits, y, alphas)])
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    (ours_grad,), (theirs_grad,) = (torch.autograd.grad(loss.sum(), logits) for loss in (ours, theirs))
    torch.testing.assert_close(ours_grad, theirs_grad, rtol=1e-10, atol=1e-15)


def test_gradient_by_finite_differences():
    logits, y = batch(0, 2, 5, 4, 1.0)
    assert torch.autograd.gradcheck(lambda z: label_smoothing_loss(z, y, torch.tensor([0.0, 0.3]).double()), (logits,))


@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("classes", [2, 6, 19])
def test_closed_form_is_the_entropy_of_the_target_and_a_stationary_point(alpha, classes):
    best = smoothed_optimum(alpha, classes)
    target = soft_targets(torch.tensor(0), classes, alpha)
    assert math.isclose(best.loss, torch.distributions.Categorical(probs=target).entropy(), rel_tol=1e-12)
    assert math.isclose(best.confidence, target.max(), rel_tol=1e-12)
    logits = torch.zeros(1, classes, dtype=torch.float64)
    logits[0, 0] = best.gap
    logits.requires_grad_()
    loss = label_smoothing_loss(logits, torch.tensor([0]), alpha)
    assert math.isclose(loss.item(), best.loss, rel_tol=1e-12)
    assert torch.autograd.grad(loss, logits)[0].abs().max() < 1e-15


def test_no_smoothing_has_no_finite_optimum():
    best = smoothed_optimum(0.0, 6)
    assert (best.confidence, best.gap, best.loss) == (1.0, math.inf, 0.0)


@pytest.mark.parametrize("alpha", [-0.1, 1.0, 1.5, math.nan])
def test_alpha_out_of_range(alpha):
    logits, y = batch(0, 1, 4, 3, 1.0)
    for attempt in (
        lambda: label_smoothing_loss(logits[0], y[0], alpha),
        lambda: label_smoothing_loss(logits, y, torch.tensor([alpha])),
        lambda: LabelSmoothingLoss(3, alpha),
        lambda: soft_targets(y, 3, alpha),
        lambda: smoothed_optimum(alpha, 3),
    ):
        with pytest.raises(HarLsError, match=r"alpha = .*\[0, 1\)"):
            attempt()


def test_bad_batches_are_named():
    logits, y = batch(0, 1, 4, 3, 1.0)
    for targets, found in ((torch.tensor([[0, 1, 2, 3]]), "0 to 3"), (torch.tensor([[-1, 0, 1, 2]]), "-1 to 2")):
        with pytest.raises(HarLsError, match=f"targets range from {found}, expected 0 to 2"):
            label_smoothing_loss(logits, targets, 0.1)
    with pytest.raises(HarLsError, match="1 of 4 predictions have NaN"):
        broken = logits.detach().clone()
        broken[0, 2, 1] = math.nan
        label_smoothing_loss(broken, y, 0.1)
    with pytest.raises(HarLsError, match="need targets of shape"):
        label_smoothing_loss(logits, y[0], 0.1)
    with pytest.raises(HarLsError, match="expected num_classes = 4"):
        LabelSmoothingLoss(4, 0.1)(logits[0], y[0])


def test_unchecked_nan_stays_in_its_replica():
    logits, y = batch(0, 3, 4, 3, 1.0)
    broken = logits.detach().clone()
    broken[1] = math.nan
    loss = label_smoothing_loss(broken, y, torch.tensor([0.0, 0.1, 0.1]), check=False)
    assert loss.isnan().tolist() == [False, True, False]
