"""Hardly anything to measure: a defined value or a sentence, for every public function of the measures and the
statistics, found by looking."""

import importlib
import inspect
import pkgutil
import warnings

import numpy as np
import pandas as pd
import pytest

import har_ls.metrics
from har_ls.core import HarLsError
from har_ls.evidence import statistics
from har_ls.evidence.statistics import CELL
from har_ls.metrics import calibration, confidence, selective
from har_ls.metrics.geometry import Clusters
from har_ls.predictions import Predictions

MODULES = [
    *(importlib.import_module(f"har_ls.metrics.{each.name}") for each in pkgutil.iter_modules(har_ls.metrics.__path__)),
    statistics,
]
PUBLIC = [
    pytest.param(getattr(module, name), id=f"{module.__name__.removeprefix('har_ls.')}.{name}")
    for module in MODULES
    for name in module.__all__
    if inspect.isfunction(getattr(module, name))
    and (module, name) != (importlib.import_module("har_ls.metrics.table"), "add")  # fills a register
]


def predictions(windows, classes=2, part="test"):
    "Of one replica, as few windows as wished."
    rng = np.random.default_rng(windows)
    return Predictions(
        part,
        rng.normal(size=(1, windows, classes)),
        rng.normal(size=(1, windows, 3)),
        rng.normal(size=(1, classes, 3)),
        np.zeros((1, classes)),
        np.arange(windows) % max(classes, 1),
        np.arange(windows),
        np.zeros(1),
        np.zeros(1, int),
    )


def trainings(n):
    "n with and n without smoothing."
    columns = [*CELL, "fold", "seed", "part"]
    rows = [
        dict.fromkeys(columns, 0) | dict(seed=i, alpha=alpha, part="test", accuracy=0.5 + i * alpha)
        for i in range(n)
        for alpha in (0.0, 0.1)
    ]
    return pd.DataFrame(rows, columns=[*columns, "alpha", "accuracy"])


def found(n):
    "n effects, as `effects` gives them."
    rows = [
        dict(measure="accuracy", alpha=0.1, base=0.5, value=0.6, estimate=0.1, se=0.1, df=1.0, subjects=0, seeds=1)
    ] * n
    return pd.DataFrame(
        rows, columns=["measure", "alpha", "base", "value", "estimate", "se", "df", "subjects", "seeds"]
    ).assign(**dict.fromkeys(CELL, 0))


def arguments(function, n):
    "Arguments with n elements for the parameters that have to be given."
    made = predictions(n)
    known = dict(
        predictions=made,
        test=made,
        validation=predictions(n, part="validation"),
        names="logits",
        confidence=np.linspace(0.5, 0.9, n),
        score=np.linspace(0.5, 0.9, n),
        correct=np.arange(n) % 2 == 0,
        sigma=0.1,
        arrays=np.linspace(0.5, 0.9, n),
        logits=made.logits,
        norms=np.array([1]),
        features=made.features[0],
        points=made.features[0, :, :2],
        table=trainings(n),
        found=found(n),
        measures=["accuracy"],
        measure="accuracy",
        alpha=0.1,
        d=np.linspace(0, 1, n)[:, None],
        estimate=np.linspace(0, 1, n),
        se=np.linspace(0.1, 1, n),
        df=np.ones(n),
        J=n,
        S=n,
        base=0.5,
        low=np.nan,
        high=np.nan,
        margin=0.01,
        better="higher",
        p=np.linspace(0.01, 0.1, n),
        where=dict(measure=["accuracy"]),
        cell=(0, 0, 0),
        cells={(0, 0, 0): 1.0},
        parts=[(0.1, 0.1, 2.0)] * n,
        x=np.arange(n),
        y=np.arange(n),
        name="c",
        sentence="It rises.",
        part=None,
        agree=0,
        method="by hand",
        values=np.linspace(0, 1, n),
        inside=np.ones((1, n, 2), bool),
        windows=n,
        tests=n,
    )
    if "clusters" in inspect.signature(function).parameters:
        known["clusters"] = Clusters(made)
    one = dict(estimate=0.1, se=np.nan if n < 2 else 0.1, df=n - 1)  # those that take numbers
    special = {"p_value": one, "decided": one, "verdict": one, "select": dict(where=dict(part=["test"]))}
    known |= special.get(function.__name__, {})
    parameters = inspect.signature(function).parameters.values()
    asked = [p for p in parameters if p.default is p.empty]
    if any(p.name == "validation" for p in parameters):
        asked += [p for p in parameters if p.name == "validation" and p not in asked]
    missing = [p.name for p in asked if p.name not in known]
    assert not missing, f"say here how {missing} of {function.__name__} looks with few elements"
    return [known[p.name] for p in asked if p.kind is p.VAR_POSITIONAL or p.kind is p.POSITIONAL_OR_KEYWORD]


@pytest.mark.parametrize("n", [0, 1, 2])
@pytest.mark.parametrize("function", PUBLIC)
def test_a_value_or_a_sentence(function, n):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            value = function(*arguments(function, n))
        except HarLsError as error:
            assert n < 2 or function.__name__ in ("tsne", "tsne_trust"), error
            assert len(str(error)) > 20
        else:
            assert value is not None or function.__name__.startswith("check_")


def test_no_class_is_refused():
    for function in (confidence.log_probabilities, selective.pnorm_scores):
        for shape in ((2, 0), (0,), ()):
            with pytest.raises(HarLsError, match="at least one class"):
                function(np.zeros(shape))
        assert np.isfinite(function(np.zeros((0, 3)))).all()


def test_two_windows_by_hand():
    sure, right = np.array([0.6, 0.9]), np.array([False, True])
    assert np.isclose(calibration.ece(sure, right), (0.6 + 0.1) / 2) and np.isclose(calibration.mce(sure, right), 0.6)
    assert (
        selective.risk_curve(sure, right).tolist() == [0, 0.5] == selective.risk_curve(sure, right.astype(int)).tolist()
    )
    assert statistics.holm([0.03, 0.01]).tolist() == [0.03, 0.02]


@pytest.mark.parametrize(
    "sure, right, words",
    [
        ([0.5, 1.5], [True, False], "1.5, expected a probability"),
        ([0.5, np.nan], [True, False], "nan"),
        ([0.5], [True, False], "one shape"),
        ([], [], "at least one window"),
        (0.5, True, "one shape"),
    ],
)
@pytest.mark.parametrize(
    "function",
    [
        calibration.ece,
        calibration.mce,
        calibration.ece_mass,
        calibration.rmsce_debiased,
        calibration.ece_sweep,
        calibration.smece,
    ],
)
def test_what_is_no_confidence_is_refused(function, sure, right, words):
    with pytest.raises(HarLsError, match=words):
        function(np.array(sure, float), np.array(right, bool))
    with pytest.raises(HarLsError, match="np.asarray"):
        function([0.5, 0.9], [True, False])


def test_what_is_not_a_number_is_no_evidence():
    nan = np.nan
    for values in ((nan, 0.0, 3), (0.1, nan, 3), (0.1, 0.1, nan), (nan, nan, nan)):
        assert np.isnan(statistics.p_value(*values))
    assert statistics.p_value(0.0, 0.0, 3) == 1 and statistics.p_value(0.1, 0.0, 3) == 0
    assert np.isnan(statistics.holm([nan, nan])).all() and statistics.holm([nan, 0.01])[1] == 0.01
    assert statistics.decided(nan, nan, nan, 0.005) == statistics.position(nan, 1.0, 0.005) == "undecided"
