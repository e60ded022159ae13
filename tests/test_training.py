"""Training against a plain PyTorch loop, replicas against themselves alone, and what goes wrong."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import har_ls.training
from har_ls.core import HarLsError
from har_ls.models.registry import MODELS, build, plain, register
from har_ls.recipes import RECIPES, Recipe, lengthened, recipe
from har_ls.training import augment, clip_gradients, epoch_order, flatten_parameters, judged_after, stream, train

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU on this machine")
DEVICES = ["cpu", pytest.param("cuda", marks=NO_GPU)]
MODEL_NAMES = ["resnet1d", "moderntcn"]


@pytest.fixture
def models():
    "Models registered by a test are gone after it."
    before = dict(MODELS)
    yield
    MODELS.clear()
    MODELS.update(before)


def needs(model):
    if model not in MODELS:
        pytest.skip(f"{model} is not registered")


def make_split(n=120, classes=3, channels=2, length=32, seed=0, posterior=False):
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=n)
    t = np.arange(length) / length
    wave = np.sin(2 * np.pi * (2 + 3 * y[:, None, None]) * t + rng.uniform(0, 6, (n, channels, 1)))
    x = (wave + 0.5 * rng.normal(size=wave.shape)).astype(np.float32)
    parts = dict(train=slice(0, n // 2), validation=slice(n // 2, 3 * n // 4), test=slice(3 * n // 4, n))
    p = np.eye(classes)[y] if posterior else None

    def part(name):
        s = parts[name]
        return x[s], y[s], np.arange(n)[s] % 4, None if p is None else p[s]

    return SimpleNamespace(
        windows=SimpleNamespace(name="toy", activities=tuple(f"a{k}" for k in range(classes))), part=part
    )


SPLIT = make_split()
EPOCHS_20_STEPS = Recipe(epochs=5, batch_size=15, lr=5e-3)  # 60 windows: 4 steps an epoch


def difference(a, b):
    "Largest absolute difference of two state dicts."
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.mark.parametrize("model", MODEL_NAMES)
@pytest.mark.parametrize("alpha, clip", [(0.0, 0.5), (0.1, None)])
def test_equals_a_plain_pytorch_loop(model, alpha, clip):
    needs(model)
    used = Recipe(epochs=3, batch_size=20, lr=3e-3, weight_decay=0.05, clip=clip, options=dict(dropout=0.0))
    ours = train(model, SPLIT, alpha, 11, used, progress=False, dtype=torch.float64)

    x, y, *_ = SPLIT.part("train")
    x, y = torch.from_numpy(x).double(), torch.from_numpy(y)
    net = plain(model, 2, 32, 3, dropout=0.0).double()
    start = build(model, 2, 32, 3, (11,), dropout=0.0).double().state_dict()
    missing, unexpected = net.load_state_dict({name: value[0] for name, value in start.items()}, strict=False)
    assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing)
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.05, foreach=False, fused=False)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, epochs=3, steps_per_epoch=3)
    criterion = nn.CrossEntropyLoss(label_smoothing=alpha)
    generator, losses = stream(11, "order"), []
    for _ in range(3):
        order, total = torch.randperm(60, generator=generator), 0.0
        for index in order.split(20):
            loss = criterion(net(x[index])[1], y[index])
            optimiser.zero_grad()
            loss.backward()
            if clip:
                nn.utils.clip_grad_norm_(net.parameters(), clip)
            optimiser.step()
            schedule.step()
            total += loss.item() / 3
        losses.append(total)
    theirs = {k: v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert difference({k: v[0] for k, v in ours.model.state_dict().items()}, theirs) < 1e-9
    np.testing.assert_allclose(ours.history.loss, losses, rtol=1e-9)

    net.eval()
    xt, yt, subject, _ = SPLIT.part("test")
    features, logits = net(torch.from_numpy(xt).double())
    test = ours.predictions["test"]
    np.testing.assert_allclose(test.logits[0], logits.detach(), atol=1e-5)
    np.testing.assert_allclose(test.features[0], features.detach(), atol=1e-5)
    assert np.array_equal(test.y, yt) and np.array_equal(test.subject, subject)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("model", MODEL_NAMES)
def test_replica_equals_the_same_training_alone(model, device):
    "Float64, dropout and noise on, 20 steps, clipping active: below 1e-10."
    needs(model)
    used = Recipe(epochs=5, batch_size=15, lr=5e-3, clip=0.5, jitter=0.1, scaling=0.1, options=dict(dropout=0.3))
    pairs = [(0.0, 1), (0.1, 1), (0.0, 2), (0.3, 9)]
    together = train(model, SPLIT, *zip(*pairs), used, device, progress=False, at_once=4, dtype=torch.float64)
    assert together.at_once == 4
    for r, (alpha, seed) in enumerate(pairs):
        alone = train(model, SPLIT, alpha, seed, used, device, progress=False, at_once=1, dtype=torch.float64)
        stacked = {name: value[r] for name, value in together.model.state_dict().items()}
        assert difference(stacked, {name: value[0] for name, value in alone.model.state_dict().items()}) < 1e-10


def test_groups_do_not_change_results():
    runs = [
        train(
            "resnet1d",
            SPLIT,
            [0.0, 0.1, 0.0],
            [0, 0, 1],
            EPOCHS_20_STEPS,
            progress=False,
            at_once=k,
            dtype=torch.float64,
        )
        for k in (1, 2, 3)
    ]
    for run in runs[1:]:
        assert difference(runs[0].model.state_dict(), run.model.state_dict()) < 1e-10
        assert np.allclose(run.history.loss, runs[0].history.loss, atol=1e-10)
        assert np.allclose(run.predictions["test"].logits, runs[0].predictions["test"].logits, atol=1e-6)


@pytest.mark.parametrize("model", MODEL_NAMES)
def test_same_seed_same_numbers(model):
    needs(model)
    first, second = (train(model, SPLIT, [0.0, 0.1], 3, Recipe(epochs=2), progress=False) for _ in range(2))
    assert all(torch.equal(v, second.model.state_dict()[k]) for k, v in first.model.state_dict().items())
    assert np.array_equal(first.predictions["test"].logits, second.predictions["test"].logits)
    assert not np.array_equal(first.predictions["test"].logits[0], first.predictions["test"].logits[1])


def test_every_alpha_sees_the_same_weights_order_and_masks(models):
    seen = {}

    def spy(channels, length, classes, seeds, **options):
        model = build("resnet1d", channels, length, classes, seeds, **options)
        record = seen.setdefault(len(seen), [{name: value.clone() for name, value in model.state_dict().items()}])
        cut = model.bank.cut
        model.bank.cut = lambda *a: record.append(cut(*a)) or record[-1]
        model.register_forward_pre_hook(lambda m, a: record.append(a[0].clone()) if m.training else None)
        return model

    register("spy", spy)
    train("spy", SPLIT, [0.0, 0.4], 5, Recipe(epochs=2, batch_size=20), progress=False, parts=())
    first, second = seen[0], seen[1]
    assert difference(first[0], second[0]) == 0
    assert len(first) == len(second) == 1 + 2 * 2 * 3
    assert all(torch.equal(a, b) for a, b in zip(first[1:], second[1:]))


def test_order_is_a_permutation_and_changes():
    generators = [stream(0, "order"), stream(1, "order")]
    a, b = epoch_order(generators, 50, 8), epoch_order(generators, 50, 8)
    assert a.shape == (2, 6, 8)
    for order in (*a, *b):
        assert order.unique().numel() == 48 and order.min() >= 0 and order.max() < 50
    assert not torch.equal(a[0], a[1]) and not torch.equal(a[0], b[0])
    assert stream(0, "order").initial_seed() != stream(0, "dropout").initial_seed()


@pytest.mark.parametrize("device", DEVICES)
def test_clipping_equals_torch_per_replica(device):
    sizes = torch.tensor([100.0, 1e-3, 1.0, 0.0], device=device)
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(4, n, generator=generator).to(device) * sizes[:, None] for n in (24, 5, 4)]
    alone = [[nn.Parameter(torch.zeros_like(g[r])) for g in gradients] for r in range(4)]
    for r, row in enumerate(alone):
        for p, g in zip(row, gradients):
            p.grad = g[r].clone()
    norm = clip_gradients(gradients, 0.7)
    for r, row in enumerate(alone):
        torch.testing.assert_close(norm[r], nn.utils.clip_grad_norm_(row, 0.7))
        for p, g in zip(row, gradients):
            torch.testing.assert_close(g[r], p.grad)


@pytest.mark.parametrize("model", MODEL_NAMES)
@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_flat_parameters_are_the_models_parameters(model, seeds):
    needs(model)
    net = build(model, 2, 32, 3, seeds, dropout=0.0)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    flat, gradients = flatten_parameters(net)
    assert flat.shape == (sum(p.numel() for p in net.parameters()),)
    assert difference(before, net.state_dict()) == 0
    x = torch.randn(len(seeds), 6, 2, 32)
    net(x)[1].square().sum().backward()
    expected = build(model, 2, 32, 3, seeds, dropout=0.0)
    expected(x)[1].square().sum().backward()
    rows = torch.cat([p.grad.flatten(1) for p in expected.parameters()], 1)
    torch.testing.assert_close(torch.cat(gradients, 1), rows, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        flat.mul_(2)
    assert all(torch.equal(value, 2 * before[name]) for name, value in net.named_parameters())


def broken(bad_seeds, after_steps=0):
    "A ResNet whose replicas with these seeds turn to NaN after so many training steps."

    def builder(channels, length, classes, seeds, **options):
        model = build("resnet1d", channels, length, classes, seeds, **options)
        steps = [0]

        def poison(module, arguments):
            if module.training:
                if steps[0] == after_steps:
                    for r, seed in enumerate(seeds):
                        if seed in bad_seeds:
                            module.stem.weight.data[r] = torch.nan
                steps[0] += 1

        model.register_forward_pre_hook(poison)
        return model

    return builder


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_diverging_replica_is_named_and_leaves_the_others(models, at_once):
    register("broken", broken({13}, after_steps=5))
    alphas, seeds = [0.0, 0.2, 0.1], [1, 13, 2]
    run = train("broken", SPLIT, alphas, seeds, EPOCHS_20_STEPS, progress=False, at_once=at_once, dtype=torch.float64)
    assert run.failed == [dict(alpha=0.2, seed=13, epoch=2, reason="the loss or a weight is not finite")]
    assert run.trained.seed.tolist() == [1, 2]
    good = train("resnet1d", SPLIT, [0.0, 0.1], [1, 2], EPOCHS_20_STEPS, progress=False, dtype=torch.float64)
    assert difference(run.model.state_dict(), good.model.state_dict()) < 1e-10
    test = run.predictions["test"]
    assert test.seeds.tolist() == [1, 2] and test.alphas.tolist() == [0.0, 0.1]
    assert np.isfinite(test.logits).all()
    lost = run.history[run.history.seed == 13]
    assert lost.epoch.tolist() == [1, 2] and np.isfinite(lost.loss.iloc[0]) and np.isnan(lost.loss.iloc[1])
    assert (run.history.groupby("seed").size()[[1, 2]] == 5).all()


def test_divergence_in_the_very_last_step_is_seen(models):
    "The last loss is still a number, but its gradient is not."

    def builder(channels, length, classes, seeds, **options):
        model = build("resnet1d", channels, length, classes, seeds, **options)
        steps = [0]

        def poison(gradient):
            steps[0] += 1
            return gradient * torch.nan if steps[0] == 20 and 7 in seeds else gradient

        model.head.bias.register_hook(poison)
        return model

    register("late", builder)
    run = train("late", SPLIT, 0.0, [7, 8], EPOCHS_20_STEPS, progress=False)
    assert [(f["seed"], f["epoch"]) for f in run.failed] == [(7, 5)] and run.predictions["test"].seeds.tolist() == [8]


def test_all_diverged_is_an_error_that_names_them(models):
    register("broken", broken({1, 2}))
    with pytest.raises(HarLsError, match="seed 1 with alpha 0 in epoch 1, seed 2 with alpha 0.1 in epoch 1"):
        train("broken", SPLIT, [0.0, 0.1], [1, 2], EPOCHS_20_STEPS, progress=False)


def short_of_memory(largest):
    "A ResNet that runs out of memory with more replicas than `largest`."

    def builder(channels, length, classes, seeds, **options):
        model = build("resnet1d", channels, length, classes, seeds, **options)

        def check(module, arguments):
            if arguments[0].shape[0] > largest and module.training:
                raise torch.cuda.OutOfMemoryError("simulated")

        model.register_forward_pre_hook(check)
        return model

    return builder


def test_out_of_memory_halves_the_replicas_and_goes_on(models):
    register("hungry", short_of_memory(2))
    run = train("hungry", SPLIT, 0.1, range(7), EPOCHS_20_STEPS, progress=False, at_once=7, dtype=torch.float64)
    assert run.at_once == 1  # 7, then 3, then 1
    whole = train("resnet1d", SPLIT, 0.1, range(7), EPOCHS_20_STEPS, progress=False, dtype=torch.float64)
    assert difference(run.model.state_dict(), whole.model.state_dict()) < 1e-10
    assert run.predictions["test"].seeds.tolist() == list(range(7))
    assert (run.history.groupby("seed").size() == 5).all()


def test_one_replica_too_large_is_an_error(models):
    register("hungry", short_of_memory(0))
    with pytest.raises(HarLsError, match="one replica of hungry does not fit"):
        train("hungry", SPLIT, 0.1, range(4), EPOCHS_20_STEPS, progress=False, at_once=4)


def test_other_errors_are_not_swallowed(models, monkeypatch):
    monkeypatch.setattr(har_ls.training, "clip_gradients", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train("resnet1d", SPLIT, 0.0, 0, EPOCHS_20_STEPS, progress=False)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(alphas=1.5), "alpha = 1.5"),
        (dict(alphas=[0.0, float("nan")]), "alpha = nan"),
        (dict(alphas=[0.0, 0.1], seeds=[1, 2, 3]), "2 alphas and 3 seeds"),
        (dict(seeds=[]), "1 alphas and 0 seeds"),
        (dict(model="resnet"), "unknown model 'resnet'"),
        (dict(split=make_split(n=2)), "has 1 windows: at least 2"),
        (dict(device="cpux"), "cpux"),
        (dict(objective="crossentropy"), "unknown objective 'crossentropy'"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(HarLsError, match=message):
        train(**(dict(model="resnet1d", split=SPLIT, alphas=0.0, seeds=0, progress=False) | arguments))


@pytest.mark.parametrize(
    "bad",
    [dict(epochs=0), dict(epochs=1.5), dict(batch_size=1), dict(lr=0.0), dict(lr=float("nan")), dict(weight_decay=-1.0),
     dict(clip=0.0), dict(jitter=-0.1), dict(scaling=1.0), dict(jitter=float("inf"))],
)  # fmt: skip
def test_impossible_recipes(bad):
    (name,) = bad
    with pytest.raises(HarLsError, match=f"recipe: {name} = .*expected"):
        Recipe(**bad)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there():
    with pytest.raises(HarLsError, match="sees no GPU"):
        train("resnet1d", SPLIT, 0.0, 0, device="cuda", progress=False)


def test_one_alpha_serves_many_seeds_and_the_parts_asked_for():
    run = train(
        "resnet1d",
        make_split(posterior=True),
        0.1,
        range(3),
        Recipe(epochs=1),
        progress=False,
        parts=("train", "test"),
        watch="validation",
    )
    assert list(run.predictions) == ["train", "test"]
    assert run.predictions["train"].logits.shape == (3, 60, 3) and run.predictions["train"].posterior.shape == (60, 3)
    assert run.predictions["test"].logits.dtype == np.float32
    assert run.predictions["test"].alphas.tolist() == [0.1] * 3
    assert list(run.history) == ["epoch", "alpha", "seed", "loss", "validation_loss", "validation_accuracy"]
    assert run.failed == [] and run.seconds > 0 and run.at_once == (1 if run.device == "cpu" else 3)


def test_fewer_windows_than_a_batch():
    run = train("resnet1d", make_split(n=20), 0.0, 0, Recipe(epochs=2, batch_size=64), progress=False)
    assert len(run.history) == 2


def test_watching_changes_nothing():
    first = train("resnet1d", SPLIT, 0.1, 0, EPOCHS_20_STEPS, progress=False)
    second = train("resnet1d", SPLIT, 0.1, 0, EPOCHS_20_STEPS, progress=False, watch="validation")
    assert difference(first.model.state_dict(), second.model.state_dict()) == 0
    validation = second.predictions["validation"]
    accuracy = (validation.logits[0].argmax(-1) == validation.y).mean()
    assert second.history.validation_accuracy.iloc[-1] == pytest.approx(accuracy)


def test_the_test_part_is_not_read_while_training():
    read = []
    spy = SimpleNamespace(windows=SPLIT.windows, part=lambda name: read.append(name) or SPLIT.part(name))
    train("resnet1d", spy, 0.1, 0, Recipe(epochs=1), progress=False, parts=())
    assert "train" in read and "test" not in read


def test_it_learns():
    run = train("resnet1d", make_split(n=400), [0.0, 0.1], 0, Recipe(epochs=6, batch_size=20), progress=False)
    test = run.predictions["test"]
    assert ((test.logits.argmax(-1) == test.y).mean(1) > 0.95).all()


def test_recipes_do_not_know_alpha_or_seed():
    assert recipe("uci_har", "resnet1d") == recipe("uci_har", "resnet1d")
    assert recipe("nothing", "nobody") == Recipe()
    assert {"alpha", "seed"}.isdisjoint(Recipe.__dataclass_fields__)


def test_lengths():
    assert [lengthened(Recipe(epochs=15), f).epochs for f in (0.25, 1, 3)] == [4, 15, 45]
    assert lengthened(Recipe(epochs=2), 0.25).epochs == 1
    longer = lengthened(Recipe(lr=0.1, options=dict(dropout=0.5)), 2)
    assert longer == Recipe(epochs=30, lr=0.1, options=dict(dropout=0.5))
    for bad in (0, -1, float("nan"), float("inf"), "3", True, None):
        with pytest.raises(HarLsError, match="epoch_factor"):
            lengthened(Recipe(), bad)


@pytest.mark.parametrize("model", MODEL_NAMES)
def test_every_recipe_can_be_built(model):
    "Options of the table are options of the builder, at every shape of the catalogue's windows."
    for (name, _), found in RECIPES.items():
        if name == model:
            for channels, length in ((3, 128), (9, 128), (45, 125)):
                _, logits = build(model, channels, length, 6, (0,), **found.options)(
                    torch.zeros(1, 2, channels, length)
                )
                assert logits.shape == (1, 2, 6)


def test_options_reach_the_builder(models):
    seen = []

    def spy(channels, length, classes, seeds, **options):
        seen.append(options)
        return build("resnet1d", channels, length, classes, seeds, **options)

    register("spy", spy)
    run = train("spy", SPLIT, 0.0, 0, Recipe(epochs=1, options=dict(dropout=0.4, widths=(4, 8, 8))), progress=False)
    assert seen and all(options == dict(dropout=0.4, widths=(4, 8, 8)) for options in seen)
    assert run.predictions["test"].features.shape[-1] == 16


def windows_seen(models, used, alphas, at_once=1):
    "What the model is given in training, per call of the builder."
    seen = []

    def spy(channels, length, classes, seeds, **options):
        model, record = build("resnet1d", channels, length, classes, seeds, **options), []
        model.register_forward_pre_hook(lambda m, a: record.append(a[0].clone()) if m.training else None)
        seen.append(record)
        return model

    register("spy", spy)
    train("spy", SPLIT, alphas, 5, used, progress=False, parts=(), at_once=at_once)
    return [torch.stack(record) for record in seen if record]


def test_noise_is_that_of_the_seed_for_every_strength(models):
    plain_windows = windows_seen(models, Recipe(epochs=2, batch_size=20), 0.0)[0]
    weak, weak_smoothed = windows_seen(models, Recipe(epochs=2, batch_size=20, jitter=0.1), [0.0, 0.3])
    strong = windows_seen(models, Recipe(epochs=2, batch_size=20, jitter=0.2), 0.0)[0]
    scaled = windows_seen(models, Recipe(epochs=2, batch_size=20, scaling=0.1), 0.0)[0]
    assert torch.equal(weak, weak_smoothed)
    torch.testing.assert_close(strong - plain_windows, 2 * (weak - plain_windows), rtol=0, atol=1e-5)
    assert float((weak - plain_windows).std()) == pytest.approx(0.1, rel=0.05)
    factor = scaled / plain_windows
    torch.testing.assert_close(factor, factor[..., :1, :1].expand_as(factor), rtol=1e-3, atol=1e-3)
    assert not torch.equal(weak[0] - plain_windows[0], weak[1] - plain_windows[1])


def test_noise_is_gone_when_a_model_is_asked():
    run = train("resnet1d", SPLIT, 0.0, 0, Recipe(epochs=1, jitter=3.0), progress=False, parts=("validation", "train"))
    again = har_ls.training.predict(run.model, SPLIT, "validation", [0.0], [0])
    assert np.array_equal(again.logits, run.predictions["validation"].logits)


def test_augment_of_a_replica_does_not_depend_on_its_neighbours():
    x = torch.randn(3, 4, 2, 16)
    together = augment(x, [stream(s, "augmentation") for s in (1, 2, 3)], 0.3, 0.2)
    for r, seed in enumerate((1, 2, 3)):
        assert torch.equal(together[r : r + 1], augment(x[r : r + 1], [stream(seed, "augmentation")], 0.3, 0.2))


@pytest.mark.parametrize("model", MODEL_NAMES)
def test_training_accuracy_and_nll_are_those_of_the_predictions(model):
    needs(model)
    run = train(
        model, make_split(n=200), [0.0, 0.1], [0, 3], Recipe(epochs=2, batch_size=20), progress=False, parts=("train",)
    )
    said = run.predictions["train"]
    assert list(run.trained) == ["alpha", "seed", "train_accuracy", "train_nll"]
    assert run.trained[["alpha", "seed"]].to_numpy().tolist() == [[0.0, 0], [0.1, 3]]
    for r, row in run.trained.iterrows():
        z, y = torch.from_numpy(said.logits[r]).double(), torch.from_numpy(said.y)
        assert row.train_nll == pytest.approx(nn.functional.cross_entropy(z, y).item(), abs=1e-5)
        assert row.train_accuracy == (z.argmax(-1) == y).double().mean().item()


def test_training_accuracy_looks_at_no_more_windows_than_it_says(monkeypatch):
    monkeypatch.setattr(har_ls.training, "SHOWN", 10)
    asked, outputs = [], har_ls.training.outputs
    monkeypatch.setattr(har_ls.training, "outputs", lambda model, x, *a: asked.append(len(x)) or outputs(model, x, *a))
    train("resnet1d", SPLIT, 0.0, 0, Recipe(epochs=1), progress=False, parts=())
    assert asked == [10]


def unlearnable(n=600):
    "A split whose windows are silent."
    whole = make_split(n=n)
    return SimpleNamespace(windows=whole.windows, part=lambda name: (0 * whole.part(name)[0], *whole.part(name)[1:]))


def test_a_training_at_chance_ends_after_a_quarter():
    epochs = []
    used = Recipe(epochs=20, batch_size=20)
    with pytest.raises(HarLsError, match="seed 0 with alpha 0 in epoch 5.*validation accuracy is at chance"):
        train("resnet1d", unlearnable(), 0.0, 0, used, progress=lambda done, total: epochs.append(done))
    assert epochs == [1, 2, 3, 4, 5]


def test_one_at_chance_is_counted_and_the_others_go_on(models):
    def builder(channels, length, classes, seeds, **options):
        model = build("resnet1d", channels, length, classes, seeds, **options)

        def deaf(module, arguments):
            x = arguments[0].clone()
            x[[seed == 13 for seed in seeds]] = 0
            return (x,)

        model.register_forward_pre_hook(deaf)
        return model

    register("deaf", builder)
    used = Recipe(epochs=8, batch_size=15)
    run = train("deaf", make_split(n=800), [0.0, 0.1, 0.1], [1, 13, 2], used, progress=False, at_once=3)
    assert run.failed == [dict(alpha=0.1, seed=13, epoch=2, reason="validation accuracy is at chance")]
    assert run.predictions["test"].seeds.tolist() == [1, 2] and run.trained.seed.tolist() == [1, 2]
    assert run.history.groupby("seed").size().to_dict() == {1: 8, 2: 8, 13: 2}


@pytest.mark.parametrize(
    "epochs, steps, expected", [(16, 100, 4), (15, 100, 4), (16, 10, 5), (4, 60, 1), (1, 100, 1), (40, 1, 50)]
)
def test_when_a_training_is_judged(epochs, steps, expected):
    assert judged_after(epochs, steps) == expected


def test_a_training_that_arrives_is_not_judged():
    run = train("resnet1d", unlearnable(), 0.0, 0, Recipe(epochs=1, batch_size=5), progress=False)
    assert run.failed == [] and len(run.trained) == 1


def test_named_objectives_are_found_when_they_are_there(monkeypatch):
    "The table of another module, with strengths above one, per replica."
    import sys
    from types import ModuleType

    from har_ls.loss.smoothing import label_smoothing_loss

    other = ModuleType("har_ls.loss.objectives")
    other.OBJECTIVES = {"tenfold": lambda logits, y, strengths: label_smoothing_loss(logits, y, strengths / 10)}
    monkeypatch.setitem(sys.modules, "har_ls.loss.objectives", other)
    named = train("resnet1d", SPLIT, [0.0, 2.0], 0, EPOCHS_20_STEPS, progress=False, objective="tenfold")
    usual = train("resnet1d", SPLIT, [0.0, 0.2], 0, EPOCHS_20_STEPS, progress=False)
    assert np.allclose(named.predictions["test"].logits, usual.predictions["test"].logits, atol=1e-4)
    with pytest.raises(HarLsError, match="strengths"):
        train("resnet1d", SPLIT, -1.0, 0, EPOCHS_20_STEPS, progress=False, objective="tenfold")
    with pytest.raises(HarLsError, match="alpha = 2"):
        train("resnet1d", SPLIT, 2.0, 0, EPOCHS_20_STEPS, progress=False)
