"""The objectives beside smoothing: strength zero, replicas apart, gradients by finite differences, large logits."""

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from har_ls.loss.objectives import OBJECTIVES


def batch(seed, replicas, size, classes, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(replicas, size, classes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(classes, (replicas, size), generator=generator)


def independent(name, z, y, s):
    "The loss of one model, from PyTorch's distributions and built-in losses."
    ce = nn.functional.cross_entropy(z, y, reduction="none")
    if name == "focal":
        return ((1 - torch.exp(-ce)) ** s * ce).mean()
    if name == "flsd":  # one window after the other, its gamma looked up by its probability
        gamma = [s * (5 if q < 0.2 else 3) for q in torch.exp(-ce).tolist()]
        return torch.stack([(1 - torch.exp(-loss)) ** g * loss for loss, g in zip(ce, gamma)]).mean()
    if name == "margin":  # a hinge on the lead over each class
        lead = z.max(1, keepdim=True).values - z
        return ce.mean() + s * nn.functional.margin_ranking_loss(
            torch.full_like(lead, 10.0), lead, torch.ones_like(lead)
        )
    if name == "maxsup":  # smoothing of the label that the model gives, without its cross-entropy
        given = z.argmax(1)
        return (
            ce.mean() + nn.functional.cross_entropy(z, given, label_smoothing=s) - nn.functional.cross_entropy(z, given)
        )
    uniform = torch.full_like(z, 1 / z.shape[1])
    divergence = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=z), torch.distributions.Categorical(probs=uniform)
    )
    return ce.mean() + s * (divergence.mean() - torch.log(torch.tensor(float(z.shape[1]), dtype=z.dtype)))


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(list(OBJECTIVES)),
    st.integers(0, 2**31),
    st.integers(1, 4),
    st.integers(1, 9),
    st.integers(2, 19),
    st.data(),
)
def test_value_and_gradient_of_each_replica_equal_an_independent_loss(name, seed, replicas, size, classes, data):
    strengths = data.draw(st.lists(st.sampled_from([0.0, 0.05, 0.3, 0.9]), min_size=replicas, max_size=replicas))
    logits, y = batch(seed, replicas, size, classes, 6.0)
    z = logits.requires_grad_()
    ours = OBJECTIVES[name](z, y, torch.tensor(strengths, dtype=torch.float64))
    theirs = torch.stack([independent(name, *one) for one in zip(z, y, strengths)])
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
    (a,), (b,) = (torch.autograd.grad(loss.sum(), z, retain_graph=True) for loss in (ours, theirs))
    torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_strength_zero_is_cross_entropy_in_value_and_gradient(name):
    logits, y = batch(1, 3, 8, 6)
    z = logits.requires_grad_()
    ours = OBJECTIVES[name](z, y, torch.zeros(3, dtype=torch.float64))
    theirs = torch.stack([nn.functional.cross_entropy(a, b) for a, b in zip(z, y)])
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    (a,), (b,) = (torch.autograd.grad(loss.sum(), z, retain_graph=True) for loss in (ours, theirs))
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_gradient_by_finite_differences(name):
    logits, y = batch(2, 2, 5, 4)
    strengths = torch.tensor([0.2, 1.5], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: OBJECTIVES[name](z, y, strengths), (logits.requires_grad_(),))


@pytest.mark.parametrize("name", list(OBJECTIVES))
@pytest.mark.parametrize("lead", [40.0, 300.0, -300.0])
def test_certain_predictions_have_finite_value_and_slope(name, lead):
    z = torch.zeros(4, 1, 6)
    z[..., 0] = lead
    z.requires_grad_()
    loss = OBJECTIVES[name](z, torch.zeros(4, 1, dtype=torch.long), torch.tensor([0.0, 0.5, 1.0, 3.0]))
    assert loss.isfinite().all() and torch.autograd.grad(loss.sum(), z)[0].isfinite().all()


def test_the_schedule_takes_the_larger_gamma_below_the_edge_and_has_no_slope_of_the_jump():
    "For one window of two classes, by hand: at strength 1, gamma is 5 at a probability of 0.19 and 3 at 0.2 and above."
    for p, gamma in ((0.05, 5), (0.19, 5), (0.21, 3), (0.9, 3)):
        z = torch.tensor([[[p, 1 - p]]], dtype=torch.float64).log().requires_grad_()
        loss = OBJECTIVES["flsd"](z, torch.zeros(1, 1, dtype=torch.long), torch.ones(1, dtype=torch.float64))
        (slope,) = torch.autograd.grad(loss.sum(), z)
        log_p = math.log(p)
        assert math.isclose(loss.item(), -((1 - p) ** gamma) * log_p, rel_tol=1e-12)
        pull = (1 - p) ** gamma - gamma * p * (1 - p) ** (gamma - 1) * log_p  # Mukhoti et al. 2020, proposition 1
        assert math.isclose(slope[0, 0, 0].item(), -(1 - p) * pull, rel_tol=1e-10)


def test_only_the_objective_that_is_asked_for_is_imported():
    code = (
        "import sys; from har_ls.loss.objectives import OBJECTIVES; "
        "assert len(OBJECTIVES) == 5 and 'smoothing' not in OBJECTIVES; OBJECTIVES['focal'];"
        "print(sorted(m for m in sys.modules if m.startswith('har_ls.loss.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['har_ls.loss.focal', 'har_ls.loss.objectives']"
