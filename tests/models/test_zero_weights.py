"""Samples and steps of weight 0 that are not finite, in models of every family."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_layers import CAUSAL, WIDTH, sequence

from keras_seq.models import FrameModel, SequenceClassifier, SequenceRegressor

NAN = float("nan")
T = 5
X = sequence(T, batch=4)
FRAMES = (X > 0).astype("float32")

# A model on a core, its inputs and its targets, of which each step counts or each row.
KINDS = {
    "classifier": (lambda core: SequenceClassifier(core, 3), X, np.array([0, 2, 1, 0])),
    "regressor": (
        lambda core: SequenceRegressor(core, WIDTH, return_sequences=True),
        X,
        np.ascontiguousarray(X[:, ::-1]),
    ),
    "frames": (lambda core: FrameModel(core, notes=WIDTH), FRAMES, FRAMES[:, ::-1]),
}


def figures(model, x, y, weights):
    """Loss, metrics and gradients of a step in training, then those of an evaluation."""
    with tf.GradientTape() as tape:
        loss, total, terms = model._loss(x, y, weights, "train", training=True)
    gradients = tape.gradient(loss, model.trainable_weights)
    model.reset_metrics()
    found = [loss, *model._report(loss, total, terms).values()]
    found += [g for g in gradients if g is not None]
    loss, total, terms = model._loss(x, y, weights, "test", training=False)
    model.reset_metrics()
    return [np.asarray(v) for v in (*found, loss, *model._report(loss, total, terms).values())]


def check(model, x, y, weights):
    unread = weights == 0
    bad_x, bad_y = x.copy(), y.copy()
    bad_x[unread] = NAN
    bad_y[unread] = NAN if y.dtype.kind == "f" else -1
    want = figures(model, x, y, weights)
    got = figures(model, bad_x, bad_y, weights)
    assert all(np.isfinite(value).all() for value in want)
    scale = max(np.abs(value).max() for value in want)
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=1e-6 * scale)


# The statistics of a batch are those of all its rows, whatever they weigh.
NAMES = [name for name in CAUSAL if "batch normalization" not in name]
CASES = [
    (kind, name)
    for kind in KINDS
    for name in NAMES
    if kind != "frames" or "same padding" not in name  # which a model of frames refuses
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_what_has_no_weight_contributes_nothing(kind, name):
    """Whole rows, and the last steps of a row, as padding is: loss, metrics and gradients."""
    make, x, y = KINDS[kind]
    keras.utils.set_random_seed(1)
    model = make(CAUSAL[name]())
    model.build(x.shape)
    rows = np.array([1, 0, 2, 0], "float32")
    check(model, x, y, rows)
    if kind != "classifier" and "same padding" not in name:  # which sees later steps
        steps = np.repeat(rows[:, None], T, axis=1)
        steps[2, 3:] = 0
        check(model, x, y, steps)
