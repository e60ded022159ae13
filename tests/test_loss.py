"""The loss against PyTorch's own, against finite differences, and against its closed form."""

import math
import re
import sys
import types
from pathlib import Path

import numpy as np
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
@given(
    st.integers(0, 2**31),
    st.integers(1, 4),
    st.integers(1, 9),
    st.integers(2, 19),
    st.sampled_from([0.1, 3.0, 300.0]),
    st.data(),
)
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
            label_smoothing_loss(logits, targets, torch.tensor([0.1]))
    with pytest.raises(HarLsError, match="1 of 4 predictions have NaN"):
        broken = logits.detach().clone()
        broken[0, 2, 1] = math.nan
        label_smoothing_loss(broken, y, torch.tensor([0.1]))
    with pytest.raises(HarLsError, match="need targets of shape"):
        label_smoothing_loss(logits, y[0], torch.tensor([0.1]))
    with pytest.raises(HarLsError, match="expected num_classes = 4"):
        LabelSmoothingLoss(4, 0.1)(logits[0], y[0])


def both(ours, theirs, logits, target):
    "Values and gradients of two losses of the same input are the same, nan where nan."
    results = []
    for loss in (ours, theirs):
        z = logits.clone().requires_grad_()
        value = loss(z, target)
        (gradient,) = torch.autograd.grad(value.sum(), z)
        results.append((value.detach(), gradient))
    for a, b in zip(*results):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14, equal_nan=True)


@settings(max_examples=120, deadline=None)
@given(
    st.integers(0, 2**31), st.integers(2, 7), st.sampled_from(["one", "batch", "square", "sequence", "image"]), ALPHAS,
    st.booleans(), st.booleans(),
    st.booleans(), st.sampled_from(["mean", "sum", "none"]), st.booleans(),
)  # fmt: skip
def test_the_module_equals_pytorchs_for_every_layout_and_option(
    seed, classes, layout, alpha, probabilities, weighted, ignored, reduction, masked
):
    generator = torch.Generator().manual_seed(seed)
    more = dict(one=(), batch=(), square=(classes,), sequence=(5,), image=(3, classes))[layout]
    batch_shape = () if layout == "one" else (4,)
    logits = 3 * torch.randn(*batch_shape, classes, *more, generator=generator, dtype=torch.float64)
    target = torch.randint(classes - 1, (*batch_shape, *more), generator=generator)
    if masked:  # the last class is nobody's
        logits.select(len(batch_shape), classes - 1).fill_(-math.inf)
    if probabilities:
        target = torch.rand(logits.shape, generator=generator, dtype=torch.float64).softmax(len(batch_shape))
    elif ignored and target.numel() > 1:
        target.view(-1)[0] = -7
    weight = torch.rand(classes, generator=generator, dtype=torch.float64) + 0.1 if weighted else None
    options = dict(weight=weight, ignore_index=-7, reduction=reduction)
    both(
        LabelSmoothingLoss(classes, alpha, **options),
        nn.CrossEntropyLoss(label_smoothing=alpha, **options),
        logits,
        target,
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(3, 7), st.data())
def test_replicas_with_a_masked_class_equal_pytorchs(seed, replicas, classes, data):
    alphas = data.draw(st.lists(ALPHAS, min_size=replicas, max_size=replicas))
    logits, y = batch(seed, replicas, 6, classes, 2.0)
    z = logits.detach().clone()
    z[..., -1] = -math.inf
    y = y.clamp(max=classes - 2)
    z.requires_grad_()
    ours = label_smoothing_loss(z, y, torch.tensor(alphas, dtype=torch.float64))
    theirs = torch.stack([nn.CrossEntropyLoss(label_smoothing=a)(one, t) for one, t, a in zip(z, y, alphas)])
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    (ours_grad,), (theirs_grad,) = (torch.autograd.grad(loss.sum(), z, retain_graph=True) for loss in (ours, theirs))
    torch.testing.assert_close(ours_grad, theirs_grad, rtol=1e-10, atol=1e-14, equal_nan=True)


def test_the_two_layouts_cannot_be_confused():
    square, y = torch.zeros(2, 4, 4), torch.zeros(2, 4, dtype=torch.long)
    for alpha in (0.0, 0.1, torch.tensor(0.1)):
        with pytest.raises(HarLsError, match="for .B, K, .... as in PyTorch take LabelSmoothingLoss"):
            label_smoothing_loss(square, y, alpha)
    with pytest.raises(HarLsError, match="LabelSmoothingLoss"):
        label_smoothing_loss(square, y, torch.tensor([0.0, 0.1, 0.2]))
    with pytest.raises(HarLsError, match="need targets of shape"):
        LabelSmoothingLoss(4)(square, y[:, :3])
    with pytest.raises(HarLsError, match="expected num_classes = 4"):
        LabelSmoothingLoss(4)(torch.tensor(1.0), torch.tensor(0))
    with pytest.raises(HarLsError, match="reduction = 'average'"):
        LabelSmoothingLoss(4, reduction="average")


def fenced(word):
    "The Python block of the how-to that holds `word`."
    page = (Path(__file__).parent.parent / "nbs/howto/9_own_loop.md").read_text(encoding="utf-8")
    return next(text for text in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if word in text)


class StandIn(nn.Module):
    "What the recipe uses of a LightningModule."

    def log(self, name, value):
        self.logged = {name: value}


def test_the_lightning_recipe_trains_and_validates_without_smoothing(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning", types.SimpleNamespace(LightningModule=StandIn))
    space = {}
    exec(fenced("LightningModule"), space)
    torch.manual_seed(0)
    x, y = torch.randn(64, 5), torch.randint(6, (64,))
    module = space["Classifier"](nn.Linear(5, 6), 6)
    optimiser, losses = module.configure_optimizers(), []
    for step in range(50):
        loss = module.training_step((x, y), step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    smoothed = nn.functional.cross_entropy(module.model(x), y, label_smoothing=0.1).item()
    assert math.isclose(losses[-1], smoothed, rel_tol=1e-2)
    module.validation_step((x, y), 0)
    assert torch.equal(module.logged["val_nll"], nn.functional.cross_entropy(module.model(x), y))


def test_the_lightning_recipe_trains_with_lightning():
    lightning = pytest.importorskip("lightning")
    space = {}
    exec(fenced("LightningModule"), space)
    x, y = torch.randn(64, 5), torch.randint(6, (64,))
    module = space["Classifier"](nn.Linear(5, 6), 6)
    before = module.training_step((x, y), 0).item()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=16)
    trainer = lightning.Trainer(max_epochs=5, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.fit(module, loader, loader)
    assert module.training_step((x, y), 0).item() < before and "val_nll" in trainer.callback_metrics


def test_the_skorch_recipe_searches():
    pytest.importorskip("skorch")
    space = {}
    exec(fenced("skorch"), space)
    assert space["search"].best_params_["criterion__smoothing"] in (0.0, 0.01, 0.1)


def test_the_scikit_learn_recipe_is_at_the_minimum_of_the_smoothed_loss():
    "The gradient of C times the sum of our smoothed losses, plus that of the penalty, vanishes at what was fitted."
    from sklearn.linear_model import LogisticRegression

    source = fenced("LogisticRegression")
    space = {}
    exec(source[: source.index("parts = ")], space)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(80, 3)), rng.integers(4, size=80)
    for alpha in (0.0, 0.1, 0.5):
        rows, labels, weights = space["smoothed"](x, y, 4, alpha)
        fitted = LogisticRegression(C=2.0, tol=1e-10, max_iter=10_000).fit(rows, labels, weights)
        w, b = (torch.tensor(each, requires_grad=True) for each in (fitted.coef_, fitted.intercept_))
        loss = label_smoothing_loss(torch.tensor(x) @ w.T + b, torch.tensor(y), alpha)
        total = 2.0 * 80 * loss + 0.5 * (w**2).sum()
        for gradient in torch.autograd.grad(total, (w, b)):
            assert gradient.abs().max() < 1e-4
        far = 2.0 * 80 * label_smoothing_loss(torch.tensor(x) @ w.T + b, torch.tensor(y), alpha + 0.2)
        assert torch.autograd.grad(far + 0.5 * (w**2).sum(), w)[0].abs().max() > 0.1


def test_unchecked_nan_stays_in_its_replica():
    logits, y = batch(0, 3, 4, 3, 1.0)
    broken = logits.detach().clone()
    broken[1] = math.nan
    loss = label_smoothing_loss(broken, y, torch.tensor([0.0, 0.1, 0.1]), check=False)
    assert loss.isnan().tolist() == [False, True, False]
