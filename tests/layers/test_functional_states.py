"""States in functional models: given on, taken in and constant, for every causal layer."""

import keras
import numpy as np
import pytest
from small_layers import CAUSAL, WIDTH, each_of, sequence

from keras_seq import layers

every_causal = pytest.mark.parametrize("name", each_of(CAUSAL))
flatten, each = keras.tree.flatten, keras.tree.map_structure


def check(model, inputs, expected, folder):
    """A model and the one that is loaded from its file give the expected values."""
    path = folder / "model.keras"
    model.save(path)
    for found in (model, keras.models.load_model(path)):
        results = flatten(found(inputs, training=False))
        for got, want in zip(results, flatten(expected), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@every_causal
def test_specification_is_what_a_call_gives(name):
    layer = CAUSAL[name]()
    x = sequence()
    expected = layer(x, return_state=True)
    symbolic = layer(keras.Input((None, WIDTH)), return_state=True)
    keras.tree.assert_same_structure(symbolic, expected)
    for spec, value in zip(flatten(symbolic), flatten(expected), strict=True):
        assert len({id(part) for part in flatten(symbolic)}) == len(flatten(symbolic))
        assert spec.dtype == keras.backend.standardize_dtype(value.dtype)
        assert len(spec.shape) == len(value.shape)
        assert all(size in (None, real) for size, real in zip(spec.shape, value.shape, strict=True))
    assert symbolic[0].shape == (None, None, layer.output_units)


@every_causal
def test_encoder_and_decoder(name, tmp_path):
    encoder, decoder = CAUSAL[name](name="encoder"), CAUSAL[name](name="decoder")
    a, b = sequence(4), sequence(5, seed=1)
    inputs = [keras.Input((None, WIDTH)), keras.Input((None, WIDTH))]
    _, state = encoder(inputs[0], return_state=True)
    model = keras.Model(inputs, decoder(inputs[1], initial_state=state))
    expected = decoder(b, initial_state=encoder(a, return_state=True)[1])
    check(model, [a, b], expected, tmp_path)
    assert np.abs(np.asarray(expected) - np.asarray(decoder(b))).max() > 1e-4


@every_causal
def test_step_model(name, tmp_path):
    layer = CAUSAL[name]()
    x = sequence(4)
    _, state = layer(x[:, :3], return_state=True)
    like = each(
        lambda part: keras.Input(tuple(size or None for size in part.shape[1:]), dtype=part.dtype),
        layer.get_initial_state(2),
    )
    token = keras.Input((1, WIDTH))
    outputs, after = layer(token, initial_state=like, return_state=True)
    model = keras.Model([token, *flatten(like)], [outputs, *flatten(after)])
    expected = layer(x[:, 3:], initial_state=state, return_state=True)
    inputs = [keras.ops.convert_to_tensor(x[:, 3:]), *flatten(state)]
    check(model, inputs, expected, tmp_path)


@every_causal
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
