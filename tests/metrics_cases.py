"""Predictions for the tests of the measures: random ones and unpleasant ones."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from har_ls.predictions import Predictions


def predictions(logits, y, features=None, templates=None, subject=None, posterior=None, part="test"):
    "Predictions from logits `[R, N, K]` (or `[N, K]`), with features equal to the logits unless they are given."
    logits = np.asarray(logits, float)
    logits = logits[None] if logits.ndim == 2 else logits
    replicas, windows, classes = logits.shape
    features = logits if features is None else np.asarray(features, float)
    features = features[None] if features.ndim == 2 else features
    templates = np.zeros((replicas, classes, features.shape[-1])) if templates is None else np.asarray(templates, float)
    subject = np.zeros(windows, int) if subject is None else subject
    return Predictions(
        part,
        logits,
        features,
        templates,
        np.zeros((replicas, classes)),
        np.asarray(y),
        subject,
        np.linspace(0, 0.1, replicas),
        np.arange(replicas),
        posterior,
    )


def plausible(seed, replicas=2, windows=200, classes=5, features=8, sharpness=3.0):
    "Random predictions that are right more often than not, with every class present."
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(classes), rng.integers(classes, size=windows - classes)])
    logits = sharpness * (rng.normal(size=(replicas, windows, classes)) + 1.5 * np.eye(classes)[y])
    x = rng.normal(size=(replicas, windows, features)) + 2 * rng.normal(size=(replicas, classes, features))[:, y]
    return predictions(
        logits, y, x, rng.normal(size=(replicas, classes, features)), subject=rng.integers(4, size=windows)
    )


@st.composite
def unpleasant(draw, min_windows=1, max_windows=40, min_classes=1):
    "One to two replicas with ties, huge and equal logits, absent classes, one class, one window."
    replicas = draw(st.integers(1, 2))
    windows = draw(st.integers(min_windows, max_windows))
    classes = draw(st.integers(min_classes, 5))
    size = draw(st.sampled_from([0.0, 0.5, 3.0, 40.0, 1e4, 1e30]))
    steps = hnp.arrays(np.int64, (replicas, windows, classes), elements=st.integers(-4, 4))
    present = draw(st.lists(st.integers(0, classes - 1), min_size=1, max_size=classes))
    y = np.array(draw(st.lists(st.sampled_from(present), min_size=windows, max_size=windows)))
    return predictions(size * draw(steps) / 4, y)


@st.composite
def judged(draw, max_windows=60):
    "Confidences in [0, 1] on a coarse grid, so that ties, bin edges, 0 and 1 are frequent, and whether each is right."
    windows = draw(st.integers(1, max_windows))
    grid = draw(st.sampled_from([1, 4, 15, 30, 997]))
    confidence = np.array(draw(st.lists(st.integers(0, grid), min_size=windows, max_size=windows))) / grid
    return confidence, np.array(draw(st.lists(st.booleans(), min_size=windows, max_size=windows)))
