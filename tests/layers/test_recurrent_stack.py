"""The stack of recurrent layers, alone and as the core of a language model."""

import keras
import numpy as np
import pytest
from layer_checks import check_chunks, check_config

from keras_seq.layers import LSTM, PRU, RecurrentStack
from keras_seq.models import LanguageModel


def stack(**settings):
    layers = [PRU(8, groups=2, weight_dropout=settings.pop("weight_dropout", 0.0)), LSTM(6)]
    return RecurrentStack(layers, **settings)


def inputs():
    return np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")


def test_is_its_layers_one_after_the_other():
    core, x = stack(), inputs()
    y, state = core(x, return_state=True)
    h, first = core.layers[0](x, return_state=True)
    want, second = core.layers[1](h, return_state=True)
    np.testing.assert_allclose(y, want, atol=1e-6)
    for got, expected in zip(keras.tree.flatten(state), [*first, *second], strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6)
    assert core.output_units == 6


def test_variational_masks_are_used_as_given():
    core, x = (
        stack(dropout=0.5, input_dropout=0.25, output_dropout=0.5, weight_dropout=0.5),
        inputs(),
    )
    core.build(x.shape)
    masks = core.get_masks(2)
    assert sorted(masks) == ["dropout_0", "dropout_1", "dropout_2", "layer_0"]
    assert [masks[f"dropout_{i}"].shape for i in range(3)] == [(2, 1, 4), (2, 1, 8), (2, 1, 6)]
    h = core.layers[0](x * masks["dropout_0"], masks=masks["layer_0"])
    want = core.layers[1](h * masks["dropout_1"]) * masks["dropout_2"]
    np.testing.assert_allclose(core(x, masks=masks), want, atol=1e-6)
    np.testing.assert_allclose(core(x, training=True, masks={}), core(x), atol=1e-6)


def test_standard_dropout_differs_from_step_to_step():
    core = stack(output_dropout=0.5, variational=False, seed=3)
    x = inputs()
    core.build(x.shape)
    masks = core.get_masks(2)
    y, clean = np.asarray(core(x, masks=masks)), np.asarray(core(x))
    kept = np.isclose(y, 2 * clean, atol=1e-6)
    assert np.all(kept | (y == 0))
    assert not np.array_equal(kept[:, 0], kept[:, 1])
    np.testing.assert_array_equal(core(x, masks=masks), y)  # a drawn mask can be used again
    assert np.any(np.asarray(core(x, masks=core.get_masks(2))) != y)


def test_temporal_regulariser_acts_before_the_output_dropout():
    core = stack(output_dropout=0.5, variational=False, temporal_activation_regularization=3.0)
    x = inputs()
    raw = np.asarray(core(x))
    assert not core.losses
    core(x, training=True)
    want = 3.0 * np.mean((raw[:, 1:] - raw[:, :-1]) ** 2)
    np.testing.assert_allclose(core.losses[0], want, rtol=1e-5)


@pytest.mark.slow
def test_language_model_trains_and_carries_state():
    core = stack(dropout=0.2, output_dropout=0.2, variational=False, seed=1)
    check_config(core)
    model = LanguageModel(
        9, 6, core, activation_regularization=2.0, carry_state=True, embedding_dropout=0.1, seed=2
    )
    # The embedding is as wide as the last layer.
    ids = np.tile(np.arange(12) % 4, (4, 4))
    model.compile(keras.optimizers.Adam(0.05))
    losses = model.fit(
        ids[:, :-1], ids[:, 1:], batch_size=4, epochs=30, verbose=0, shuffle=False
    ).history["loss"]
    assert losses[-1] < 0.8 * losses[0]
    check_chunks(model, ids, [20, 1, 27])


def test_errors():
    with pytest.raises(ValueError, match="`layers` must hold at least one layer"):
        RecurrentStack([])
    with pytest.raises(ValueError, match="`input_dropout` must be a number"):
        RecurrentStack([PRU(4)], input_dropout=1.5)
    with pytest.raises(ValueError, match="`kind` must be"):
        stack().get_initial_state(2, kind="history")
