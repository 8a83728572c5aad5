"""States in functional models that are constants, and what else a call may return."""

import keras
import numpy as np
import pytest
from small_layers import CAUSAL, WIDTH, each_of, sequence

from keras_seq import layers

flatten, each = keras.tree.flatten, keras.tree.map_structure


def check(model, inputs, expected, folder):
    """A model and the one that is loaded from its file give the expected values."""
    path = folder / "model.keras"
    model.save(path)
    for found in (model, keras.models.load_model(path)):
        results = flatten(found(inputs, training=False))
        for got, want in zip(results, flatten(expected), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", each_of(["LSTM", "TCN", "Transformer"]))
def test_constant_state(name, tmp_path):
    layer = CAUSAL[name]()
    x = sequence(6)
    _, state = layer(x[:, :3], return_state=True)
    constant = each(np.asarray, state)
    inputs = keras.Input((None, WIDTH), batch_size=2)
    model = keras.Model(inputs, layer(inputs, initial_state=constant))
    check(model, x[:, 3:], layer(x[:, 3:], initial_state=state), tmp_path)


def test_everything_that_an_equilibrium_returns():
    cell = layers.DEQTrellisCell(4, 3)
    layer = layers.DeepEquilibrium(cell, correction_steps=[2])
    options = {"return_auxiliary": True, "return_solution": True, "return_state": True}
    symbolic = layer(keras.Input((None, WIDTH)), **options)
    real = layer(sequence(), **options)
    keras.tree.assert_same_structure(symbolic, real)
    for spec, value in zip(flatten(symbolic), flatten(real), strict=True):
        assert spec.dtype == keras.backend.standardize_dtype(value.dtype)
        assert all(size in (None, real) for size, real in zip(spec.shape, value.shape, strict=True))


def test_probabilities_of_attention():
    layer = layers.SelfAttention(2)
    options = {"return_probabilities": True, "return_state": True}
    symbolic = layer(keras.Input((5, WIDTH)), **options)
    real = layer(sequence(), **options)
    keras.tree.assert_same_structure(symbolic, real)
    assert symbolic[1].shape == (None, 2, 5, 5)
