"""ResNet1D against its plain form, its folded form, the parameter formula, and itself alone; the registry's errors."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from har_ls.core import HarLsError
from har_ls.models.registry import MODELS, build, plain, register
from har_ls.models.replicas import plain_state, seeded
from har_ls.models.resnet1d import PlainResNet1d, ResNet1d

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU on this machine")
    ),
]


def warmed(model, x):
    "Running statistics and affine parameters of batch norm away from their initial values."
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.add_(
                    0.3
                    * torch.randn(parameter.shape[1:], generator=generator, dtype=parameter.dtype).to(parameter.device)
                )
    model.train()
    model(x)
    return model


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=8, deadline=None)
@given(
    channels=st.integers(1, 12),
    length=st.integers(5, 70),
    classes=st.integers(2, 9),
    replicas=st.integers(1, 3),
    widths=st.sampled_from([(8, 12, 16), (6, 6), (4, 8, 8, 10)]),
    kernel=st.sampled_from([3, 5, 7]),
)
def test_replicas_equal_plain_models(device, channels, length, classes, replicas, widths, kernel):
    shape = dict(channels=channels, classes=classes, widths=widths, kernel=kernel, dropout=0.0)
    seeds = tuple(range(10, 10 + replicas))
    model = ResNet1d(seeds=seeds, **shape).to(device, torch.float64)
    x = torch.randn(replicas, 4, channels, length, dtype=torch.float64, device=device)
    y = torch.randint(classes, (replicas, 4), device=device)
    features, logits = model(x)
    sum(F.cross_entropy(z, t) for z, t in zip(logits, y)).backward()
    for r, seed in enumerate(seeds):
        alone = seeded(lambda: PlainResNet1d(**shape), seed).to(device, torch.float64)
        alone_features, alone_logits = alone(x[r])
        F.cross_entropy(alone_logits, y[r]).backward()
        torch.testing.assert_close(features[r], alone_features, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(logits[r], alone_logits, rtol=1e-9, atol=1e-11)
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        for name, parameter in alone.named_parameters():
            torch.testing.assert_close(gradients[name][r], parameter.grad, rtol=1e-7, atol=1e-10)
        buffers = plain_state(model, r)
        for name, buffer in alone.named_buffers():
            if not name.endswith("num_batches_tracked"):
                torch.testing.assert_close(buffers[name], buffer, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("replicas", [1, 3])
def test_folded_equals_evaluation_mode(device, replicas):
    x = torch.randn(replicas, 8, 9, 128, dtype=torch.float64, device=device)
    model = warmed(ResNet1d(9, 6, range(replicas)).to(device, torch.float64), x).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        features, logits = model(x)
        folded = model.fold()
        folded_features, folded_logits = folded(x)
    torch.testing.assert_close(folded_features, features, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(folded_logits, logits, rtol=1e-9, atol=1e-11)
    assert not any("norm" in name for name in folded.state_dict())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_logits_are_templates_times_features():
    model = ResNet1d(3, 5, (0, 1)).double().eval()
    features, logits = model(torch.randn(2, 4, 3, 40, dtype=torch.float64))
    expected = torch.einsum("rbd,rkd->rbk", features, model.templates) + model.bias[:, None]
    torch.testing.assert_close(logits, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("channels, classes", [(9, 6), (27, 19), (3, 6)])
def test_number_of_parameters(channels, classes):
    convolutions = 7 * channels * 32 + 5 * (32 * 32 * 2 + 32 * 64 + 64 * 64 + 64 * 128 + 128 * 128) + 32 * 64 + 64 * 128
    norms = 2 * 32 + 2 * 2 * (32 + 64 + 128)
    expected = convolutions + norms + 2 * 128 * classes + classes
    assert sum(p.numel() for p in plain("resnet1d", channels, 128, classes).parameters()) == expected
    assert sum(p.numel() for p in build("resnet1d", channels, 128, classes, (0, 1)).parameters()) == 2 * expected


@pytest.mark.parametrize("model", ["resnet1d", "moderntcn"])
def test_initial_weights_depend_on_the_seed_alone(model):
    if model not in MODELS:
        pytest.skip(f"{model} is not registered")
    together, alone = build(model, 9, 128, 6, (4, 5, 6)), build(model, 9, 128, 6, (5,))
    for name, value in alone.state_dict().items():
        assert torch.equal(together.state_dict()[name][1], value[0]), name
    assert any(not torch.equal(value[0], value[1]) for value in together.state_dict().values())


def test_building_leaves_the_global_random_state():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    build("resnet1d", 9, 128, 6, (0,))
    assert torch.equal(torch.rand(3), expected)


def test_registry_errors():
    with pytest.raises(HarLsError, match="unknown model 'resnet': expected one of resnet1d"):
        build("resnet", 9, 128, 6)
    with pytest.raises(HarLsError, match="unknown model"):
        plain("resnet", 9, 128, 6)
    for shape in [(0, 128, 6), (9, 0, 6), (9, 128, 1)]:
        with pytest.raises(HarLsError, match="expected at least 1, 1 and 2"):
            build("resnet1d", *shape)
    with pytest.raises(HarLsError, match="seeds is empty"):
        build("resnet1d", 9, 128, 6, ())
    with pytest.raises(HarLsError, match="belongs to har_ls"):
        register("resnet1d", lambda *a: None)
    with pytest.raises(HarLsError, match="dropout = "):
        build("resnet1d", 9, 128, 6, dropout=1.0)
    register("no_plain", lambda channels, length, classes, seeds, **options: None)
    try:
        with pytest.raises(HarLsError, match="without a plain form"):
            plain("no_plain", 9, 128, 6)
    finally:
        del MODELS["no_plain"]
