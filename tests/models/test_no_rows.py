"""Every model trains and evaluates on a batch without rows: nothing is learnt, nothing is NaN."""

import keras
import numpy as np
import pytest

from keras_seq import models
from keras_seq.layers import TCN

IDS, VECTORS = np.zeros((0, 6), "int32"), np.zeros((0, 6, 8), "float32")
CASES = {
    "FrameModel": (lambda: models.FrameModel(TCN(8, 1), notes=8), VECTORS, VECTORS),
    "LanguageModel": (
        lambda: models.LanguageModel(
            9,
            8,
            TCN(8, 1),
            activation_regularization=1.0,
            temporal_activation_regularization=1.0,
            input_dropout=0.2,
        ),
        IDS,
        IDS,
    ),
    "SequenceClassifier": (
        lambda: models.SequenceClassifier(TCN(8, 1), 3),
        VECTORS,
        np.zeros(0, "int32"),
    ),
    "SequenceRegressor": (
        lambda: models.SequenceRegressor(TCN(8, 1)),
        VECTORS,
        np.zeros((0, 1), "float32"),
    ),
}


def test_every_public_model_is_tried():
    public = {name for name in models.__all__ if issubclass(getattr(models, name), keras.Model)}
    assert set(CASES) == public - {"SequenceModel"}


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_learnt_and_all_is_finite(name):
    make, x, y = CASES[name]
    model = make()
    model.build((None, 6, 8) if x.ndim == 3 else (None, 6))
    model.compile(keras.optimizers.SGD(1.0), run_eagerly=True)
    before = model.get_weights()
    for figures in (
        model.train_on_batch(x, y, return_dict=True),
        model.test_on_batch(x, y, return_dict=True),
    ):
        assert all(value == 0 for value in figures.values()), figures
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
