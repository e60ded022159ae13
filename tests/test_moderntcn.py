"""ModernTCN against an implementation written from the paper's equations, with sums where the library has
convolutions."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from har_ls.core import HarLsError
from har_ls.models.moderntcn import ModernTCNConfig, PlainModernTCN, parameter_count
from har_ls.models.moderntcn_fast import (
    FoldedModernTCN,
    Kept,
    ModernTCN,
    branch_statistics,
    branch_statistics_gradient,
    diagonal_sums,
    from_published,
    toeplitz,
)
from har_ls.models.registry import build, plain
from har_ls.models.replicas import DropoutBank, seeded

CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU"))
DEVICES = ["cpu", CUDA]
TINY = dict(channels=3, length=30, classes=4, patch=4, stride=2, widths=(4, 6), kernels=(9, 5), small_kernels=(3, 3))
SHAPES = {
    "tiny": TINY,
    "hidden units": TINY | dict(ratio=3),
    "odd positions": TINY | dict(length=29, stride=4, kernels=(7, 13), small_kernels=(5, 1)),
    "three stages, merging by 3": TINY
    | dict(length=64, widths=(4, 6, 8), depth=(2, 1, 2), kernels=(15, 9, 5), small_kernels=(5, 3, 5), downsample=3),
    "one stage": TINY | dict(widths=(5,), depth=(3,), kernels=(31,), small_kernels=(5,), head="flatten"),
    "one variable": TINY | dict(channels=1, head="flatten"),
    "patches that touch": TINY | dict(length=41, patch=1, stride=1, kernels=(51, 49), small_kernels=(5, 5)),
    "long": TINY | dict(length=150, patch=2, stride=1, kernels=(3, 3), small_kernels=(1, 3)),
}


# -- the oracle: plain sums over numpy arrays, from a state dict in the published layout -------------------------------


def _normalised(x, state, name, axes, training):
    shape = [1] * x.ndim
    shape[[i for i in range(x.ndim) if i not in axes][0]] = -1
    if training:
        mean, var = x.mean(axes), x.var(axes)
    else:
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    scaled = (x - mean.reshape(shape)) / np.sqrt(var.reshape(shape) + 1e-5)
    return scaled * state[f"{name}.weight"].reshape(shape) + state[f"{name}.bias"].reshape(shape)


def _gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def _depthwise(x, kernels):
    "Each row of x [B, C, N] with its own kernel [C, 1, K], by the definition."
    b, c, n = x.shape
    k = kernels.shape[2]
    y = np.zeros_like(x)
    for i in range(n):
        for j in range(k):
            if 0 <= i + j - k // 2 < n:
                y[:, :, i] += kernels[:, 0, j] * x[:, :, i + j - k // 2]
    return y


def _grouped(x, weight, bias, groups):
    b, c, n = x.shape
    w = weight[:, :, 0].reshape(groups, -1, c // groups)
    return (np.einsum("gij,bgjn->bgin", w, x.reshape(b, groups, -1, n)) + bias.reshape(groups, -1, 1)).reshape(b, -1, n)


def _strided(x, weight, bias, stride):
    "Convolution without padding of x [B, C, N] with weight [E, C, K]."
    k = weight.shape[2]
    starts = range(0, x.shape[2] - k + 1, stride)
    return np.stack([np.einsum("eck,bck->be", weight, x[:, :, s : s + k]) for s in starts], 2) + bias.reshape(1, -1, 1)


def published_forward(state, x, config, training=False):
    "Features and logits of the published network for x [B, M, L]."
    state = {name: value.double().numpy() for name, value in state.items()}
    c, (b, m, _) = config, x.shape
    x = np.concatenate([x, np.repeat(x[:, :, -1:], c.patch - c.stride, 2)], 2).reshape(b * m, 1, -1)
    for i, d in enumerate(c.widths):
        name = f"downsample_layers.{i}"
        if i == 0:
            x = _strided(x, state[f"{name}.0.weight"], state[f"{name}.0.bias"], c.stride)
            x = _normalised(x, state, f"{name}.1", (0, 2), training)
        else:
            missing = -x.shape[2] % c.downsample
            x = np.concatenate([x, x[:, :, x.shape[2] - missing :]], 2)
            x = _normalised(x, state, f"{name}.0", (0, 2), training)
            x = _strided(x, state[f"{name}.1.weight"], state[f"{name}.1.bias"], c.downsample)
        for j in range(c.depth[i]):
            name, n, before = f"stages.{i}.blocks.{j}", x.shape[2], x
            x = x.reshape(b, m * d, n)
            branches = [
                _normalised(
                    _depthwise(x, state[f"{name}.dw.{branch}.conv.weight"]),
                    state,
                    f"{name}.dw.{branch}.bn",
                    (0, 2),
                    training,
                )
                for branch in ("lkb_origin", "small_conv")
            ]
            x = _normalised(sum(branches).reshape(b * m, d, n), state, f"{name}.norm", (0, 2), training).reshape(
                b, m * d, n
            )
            x = _gelu(_grouped(x, state[f"{name}.ffn1pw1.weight"], state[f"{name}.ffn1pw1.bias"], m))
            x = _grouped(x, state[f"{name}.ffn1pw2.weight"], state[f"{name}.ffn1pw2.bias"], m)
            x = x.reshape(b, m, d, n).transpose(0, 2, 1, 3).reshape(b, d * m, n)
            x = _gelu(_grouped(x, state[f"{name}.ffn2pw1.weight"], state[f"{name}.ffn2pw1.bias"], d))
            x = _grouped(x, state[f"{name}.ffn2pw2.weight"], state[f"{name}.ffn2pw2.bias"], d)
            x = before + x.reshape(b, d, m, n).transpose(0, 2, 1, 3).reshape(b * m, d, n)
    x = _gelu(x).reshape(b, m, d, -1)
    features = (x.mean(3) if c.head == "pool" else x).reshape(b, -1)
    return features, features @ state["head_class.weight"].T + state["head_class.bias"]


def _used(config, seed=0):
    "A plain model in double precision whose norms have seen other than their initial values."
    model = seeded(lambda: PlainModernTCN(config), seed).double()
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if name.endswith(("running_var", "bn.weight", "norm.weight")):
            tensor.uniform_(0.5, 2, generator=generator)
        elif name.endswith(("running_mean", "bn.bias", "norm.bias")):
            tensor.normal_(generator=generator)
    return model


def _windows(config, replicas=1, batch=5, seed=0, device="cpu"):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(replicas, batch, config.channels, config.length, generator=generator, dtype=torch.float64).to(
        device
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("training", [False, True])
def test_equals_the_published_network(shape, training):
    config = ModernTCNConfig(**SHAPES[shape], dropout=0.0)
    model, x = _used(config), _windows(config)
    expected = published_forward(model.state_dict(), x[0].numpy(), config, training)
    published = {f"model.{name}": value for name, value in model.state_dict().items()}
    published |= {"model.revin_layer.affine_weight": torch.ones(3), "model.head.linear.weight": torch.ones(2, 2)}
    fast = from_published(published, config).double().train(training)
    forms = {"plain": lambda: (t[None] for t in model.train(training)(x[0])), "auto": lambda: fast(x)}
    if not training:
        forms |= {"folded": lambda: fast.fold()(x)}
    for name, form in forms.items():
        with torch.no_grad():
            for ours, theirs in zip(form(), expected):
                np.testing.assert_allclose(ours[0].numpy(), theirs, rtol=0, atol=1e-10, err_msg=name)


# -- fast against plain: outputs, gradients, running statistics --------------------------------------------------------


class Masked(torch.nn.Module):
    def __init__(self, mask):
        super().__init__()
        self.mask = mask

    def forward(self, x):
        return x * self.mask


def _with_masks(model, bank, head_bank, replica, batch, device):
    "Replace the dropout layers of a plain model by the masks that the banks of a stacked model cut next."
    c, like = model.config, torch.zeros((), dtype=torch.float64, device=device)
    for stage, d, n in zip(model.stages, c.widths, c.positions):
        for block in stage.blocks:
            for name, groups, width in (("ffn1", c.channels, d), ("ffn2", d, c.channels)):
                for number, channels in ((1, width * c.ratio), (2, width)):
                    mask = bank.cut((groups, channels, n + -n % 4, batch), like)[replica, :, :, :n]
                    setattr(block, f"{name}drop{number}", Masked(mask.permute(3, 0, 1, 2).flatten(1, 2)))
    model.class_dropout = Masked(head_bank.cut((batch, c.features), like)[replica])


def _loss(features, logits):
    return features.square().sum() + (logits * logits.detach().sin()).sum() + logits.square().sum()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("path", ["matrix", "native"])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_plain_in_outputs_gradients_and_statistics(shape, path, device):
    config = ModernTCNConfig(**SHAPES[shape], dropout=0.3, head_dropout=0.2)
    seeds, x = (3, 4), _windows(config, 2, device=device)
    model = ModernTCN(config, seeds, path=path).double().to(device)
    features, logits = model(x)
    _loss(features, logits).backward()
    for r, seed in enumerate(seeds):
        alone = seeded(lambda: PlainModernTCN(config), seed).double().to(device)
        _with_masks(alone, DropoutBank(seeds, 0.3), DropoutBank(seeds, 0.2), r, 5, device)
        ours = alone(x[r])
        _loss(*ours).backward()
        for a, b in zip((features[r], logits[r]), ours):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-10)
        for name, parameter in alone.named_parameters():
            torch.testing.assert_close(
                model.get_parameter(name).grad[r], parameter.grad, rtol=1e-10, atol=1e-10, msg=name
            )
        for name, buffer in model.named_buffers():
            torch.testing.assert_close(buffer[r], alone.get_buffer(name), rtol=0, atol=1e-11, msg=name)


def test_gradients_reach_the_input_in_both_modes_and_paths():
    config = ModernTCNConfig(**TINY, dropout=0.0)
    for training in (True, False):
        gradients = []
        for path in ("matrix", "native"):
            x = _windows(config).requires_grad_()
            _loss(*ModernTCN(config, (0,), path=path).double().train(training)(x)).backward()
            gradients.append(x.grad)
        torch.testing.assert_close(*gradients, rtol=0, atol=1e-11)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("path", ["matrix", "native"])
def test_twenty_steps_of_replicas_are_those_of_each_alone(path, device):
    config = ModernTCNConfig(**SHAPES["odd positions"], dropout=0.2)

    def train(seeds):
        model = ModernTCN(config, seeds, path=path).double().to(device)
        optimiser = torch.optim.AdamW(model.parameters(), 1e-2)
        for step in range(20):
            x = torch.cat([_windows(config, seed=100 * seed + step, device=device) for seed in seeds])
            optimiser.zero_grad()
            (_loss(*model(x)) / 1000).backward()
            optimiser.step()
        return model.eval()

    together = train((5, 6, 7))
    for r, seed in enumerate((5, 6, 7)):
        for name, value in train((seed,)).state_dict().items():
            torch.testing.assert_close(together.state_dict()[name][r : r + 1], value, rtol=0, atol=1e-10, msg=name)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES)
def test_folded_equals_unfolded(shape, device):
    config, seeds = ModernTCNConfig(**SHAPES[shape]), (0, 1)
    model, x = ModernTCN(config, seeds).double().to(device), _windows(config, 2, device=device)
    for r in range(2):
        for name, value in _used(config, r).state_dict().items():
            if not name.endswith("num_batches_tracked"):
                model.state_dict()[name][r] = value
    before = copy.deepcopy(model.state_dict())
    folded = model.fold()
    assert isinstance(folded, FoldedModernTCN) and model.training and folded.fold() is folded
    model.eval()
    with torch.no_grad():
        native = ModernTCN(config, seeds, path="native").double().to(device).eval()
        native.load_state_dict(model.state_dict())
        for a, b, c in zip(folded(x), model(x), native(x)):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-10)
            torch.testing.assert_close(a, c, rtol=0, atol=1e-10)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(folded.templates, model.templates) and torch.equal(folded.bias, model.bias)


def test_single_precision_stays_close_to_plain_with_large_means():
    config = ModernTCNConfig(**TINY, dropout=0.0)
    x = _windows(config).float() + 30
    x[..., 0, :] = 5  # a channel that never changes
    model, alone = ModernTCN(config, (0,)), seeded(lambda: PlainModernTCN(config), 0)
    for ours, theirs in zip(model(x), alone(x[0])):
        torch.testing.assert_close(ours[0], theirs, rtol=0, atol=2e-2)
        assert ours.isfinite().all()


def test_a_second_forward_pass_makes_the_first_backward_pass_fail_aloud():
    config = ModernTCNConfig(**TINY)
    model, x = ModernTCN(config, (0,)), _windows(config).float()
    first, _ = model(x)
    second, _ = model(x)
    with pytest.raises(RuntimeError, match="modified inplace|modified by an inplace"):
        first.sum().backward()
    second.sum().backward()


def test_copies_and_changing_batches_do_not_share_memory():
    config = ModernTCNConfig(**TINY, dropout=0.0)
    model = ModernTCN(config, (0,)).double()
    model(_windows(config))
    twin = copy.deepcopy(model)
    ours, _ = model(_windows(config, seed=1))
    twin(_windows(config, seed=2))
    ours.sum().backward()
    small, _ = model(_windows(config, batch=2, seed=3))
    expected, _ = ModernTCN(config, (0,)).double()(_windows(config, batch=2, seed=3))
    torch.testing.assert_close(small, expected, rtol=0, atol=1e-12)


# -- parts -------------------------------------------------------------------------------------------------------------


@given(n=st.integers(1, 9), half=st.integers(0, 11), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_toeplitz_is_convolution_and_diagonal_sums_its_transpose(n, half, seed):
    generator = torch.Generator().manual_seed(seed)
    k, padded = 2 * half + 1, n + -n % 4
    kernels = torch.randn(2, k, generator=generator, dtype=torch.float64)
    x, gradient = (torch.randn(2, padded, padded, generator=generator, dtype=torch.float64) for _ in range(2))
    matrices = toeplitz(kernels, n, torch.empty_like(x))
    expected = torch.zeros_like(x)
    for i in range(n):
        for j in range(k):
            if 0 <= i + j - half < n:
                expected[:, i] += kernels[:, j, None] * x[:, i + j - half]
    torch.testing.assert_close(matrices @ x, expected)
    summed = diagonal_sums(gradient, n, k, torch.zeros(2, n, 2 * n - 1, dtype=torch.float64))
    torch.testing.assert_close((summed * kernels).sum(), (gradient * matrices).sum())


@given(n=st.integers(1, 9), half=st.integers(0, 8), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_statistics_of_branches_are_those_of_their_outputs(n, half, seed):
    "Against convolutions that were made, read and differentiated by PyTorch."
    generator = torch.Generator().manual_seed(seed)
    k, padded, batch = 2 * min(half, n - 1) + 1, n + -n % 4, 3
    kernels = torch.randn(2, 2, k, generator=generator, dtype=torch.float64, requires_grad=True)
    x = torch.randn(2, padded, batch, generator=generator, dtype=torch.float64, requires_grad=True)
    ys = [F.conv1d(x[:, :n].permute(2, 0, 1), w.unsqueeze(1), padding=k // 2, groups=2) for w in kernels.unbind(1)]
    y = torch.stack(ys).permute(2, 0, 1, 3).flatten(2)
    expected = y.mean(2, keepdim=True), y @ y.mT / (n * batch)
    moments = x.detach().sum(2), x.detach() @ x.detach().mT
    mean, product, known = branch_statistics(kernels.detach(), *moments, n, n * batch, Kept())
    torch.testing.assert_close((mean, product), expected)
    grad_mean = torch.randn(2, 2, 1, generator=generator, dtype=torch.float64)
    grad_product = torch.randn(2, 2, 2, generator=generator, dtype=torch.float64)
    grad_product = grad_product + grad_product.mT
    wanted = torch.autograd.grad(expected, (kernels, x), (grad_mean, grad_product))
    by_kernel, by_first, by_second = branch_statistics_gradient(
        grad_mean, grad_product, kernels.detach(), known, n * batch, Kept()
    )
    torch.testing.assert_close((by_kernel, by_first.unsqueeze(2) + 2 * by_second @ x.detach()), wanted)


@pytest.mark.parametrize("shape", SHAPES)
def test_parameter_count(shape):
    config = ModernTCNConfig(**SHAPES[shape])
    assert sum(p.numel() for p in ModernTCN(config, (0, 1)).parameters()) == 2 * parameter_count(config)


def test_sizes_of_the_default_and_of_published_configurations():
    assert parameter_count(ModernTCNConfig(9, 128, 6, head="flatten")) == 196_582
    assert parameter_count(ModernTCNConfig(9, 128, 6)) == 144_742
    assert build("moderntcn", 9, 128, 6).templates.shape == (1, 6, 576)
    heartbeat = ModernTCNConfig(
        61, 405, 2, widths=(256,), depth=(1,), kernels=(31,), small_kernels=(5,), head="flatten"
    )
    face = ModernTCNConfig(
        5, 62, 2, patch=32, stride=16, widths=(32, 64, 128), depth=(1, 1, 1), kernels=(9,) * 3, small_kernels=(5,) * 3
    )
    assert heartbeat.positions == [101] and face.positions == [3, 2, 1]
    features, logits = ModernTCN(face, (0,))(torch.randn(1, 2, 5, 62))
    assert features.shape == (1, 2, 5 * 128) and logits.shape == (1, 2, 2)


def test_weights_and_masks_follow_from_the_seed_alone():
    config = ModernTCNConfig(**TINY)
    a, b = ModernTCN(config, (1, 2)), ModernTCN(config, (9, 2))
    x = _windows(config, 2).float()
    x[0] = x[1]
    assert all(torch.equal(p[1], q[1]) for p, q in zip(a.parameters(), b.parameters()))
    assert torch.equal(a(x)[1][1], b(x)[1][1]) and not torch.equal(a.templates[0], b.templates[0])


# -- faults ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(kernels=(3, 5), small_kernels=(5, 3)), "small one not above the large one"),
        (dict(kernels=(8, 5)), "must be odd"),
        (dict(kernels=(9,)), "one entry per stage"),
        (dict(stride=5), "stride 5"),
        (dict(length=1), "stride 2"),
        (dict(length=3, downsample=4), "too few"),
        (dict(head="mean"), "unknown head"),
    ],
)
def test_sizes_that_do_not_fit_are_named(change, message):
    with pytest.raises(HarLsError, match=message):
        ModernTCNConfig(**TINY | change)


def test_published_weights_that_do_not_fit_are_named():
    config = ModernTCNConfig(**TINY)
    state = PlainModernTCN(config).state_dict()
    with pytest.raises(HarLsError, match="stages.0.blocks.0.norm.weight: expected \\(4,\\), found nothing"):
        from_published({k: v for k, v in state.items() if k != "stages.0.blocks.0.norm.weight"}, config)
    with pytest.raises(HarLsError, match="lkb_reparam"):
        from_published(state | {"stages.0.blocks.0.dw.lkb_reparam.bias": torch.zeros(12)}, config)
    with pytest.raises(HarLsError, match=r"head_class.weight: expected \(4, 18\), found \(5, 18\)"):
        from_published(state | {"head_class.weight": torch.zeros(5, 18)}, config)


def test_the_registry_builds_both_forms():
    assert isinstance(plain("moderntcn", 3, 30, 4, dropout=0.3), PlainModernTCN)
    model = build("moderntcn", 3, 30, 4, seeds=(0, 1), dropout=0.3, head="flatten")
    assert model.config.dropout == 0.3 and model.templates.shape == (2, 4, model.config.features)
