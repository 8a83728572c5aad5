"""Recurrent layers of Keras in the state contract."""

import keras
import numpy as np
import pytest
from keras import ops
from layer_checks import (
    check_chunks,
    check_gradients,
)

from keras_seq.layers import KerasRecurrent, RecurrentStack
from keras_seq.models import LanguageModel


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(2, 9, 4)).astype("float32")


KINDS = {
    "gru": lambda: keras.layers.GRU(5),
    "rnn": lambda: keras.layers.SimpleRNN(5),
    "lstm": lambda: keras.layers.LSTM(5),
}


@pytest.mark.parametrize("kind", ["gru", "rnn", "lstm"])
def test_is_the_layer_of_keras_and_streams(kind, x):
    plain = KINDS[kind]()
    layer = KerasRecurrent(plain)
    outputs = layer(x)
    plain.build(x.shape)
    plain.set_weights(layer.get_weights())
    np.testing.assert_allclose(
        ops.convert_to_numpy(outputs)[:, -1], ops.convert_to_numpy(plain(x)), atol=1e-6
    )
    check_chunks(layer, x, [1, 1, 5, 2])
    assert layer.output_units == 5


def test_gradients():
    x = np.random.default_rng(0).normal(size=(2, 5, 3))
    layer = KerasRecurrent(keras.layers.GRU(4), dtype="float64")
    layer.build(x.shape)
    check_gradients(layer, x)


def test_a_stack_of_them_streams(x):
    layers = [KerasRecurrent(keras.layers.GRU(5)), KerasRecurrent(keras.layers.SimpleRNN(4))]
    check_chunks(RecurrentStack(layers, dropout=0.1), x, [1, 8])


def test_is_the_core_of_a_language_model():
    core = RecurrentStack([KerasRecurrent(keras.layers.GRU(6))], dropout=0.1)
    model = LanguageModel(7, 6, core, carry_state=True)
    model.compile("adam")
    ids = np.tile(np.arange(7), (4, 3))
    history = model.fit(ids[:, :-1], ids[:, 1:], batch_size=2, epochs=6, verbose=0).history
    assert history["nll"][-1] < history["nll"][0]


def test_what_has_no_explicit_state_is_refused():
    with pytest.raises(TypeError, match="recurrent layer of Keras"):
        KerasRecurrent(keras.layers.Dense(3))
    for option in ("dropout", "recurrent_dropout"):
        with pytest.raises(ValueError, match=f"must have no `{option}`"):
            KerasRecurrent(keras.layers.GRU(3, **{option: 0.1}))
        with pytest.raises(ValueError, match=f"must have no `{option}`, nor its cells"):
            cells = [keras.layers.LSTMCell(4), keras.layers.GRUCell(3, **{option: 0.1})]
            KerasRecurrent(keras.layers.RNN(cells))
    with pytest.raises(ValueError, match="must have no `stateful`"):
        KerasRecurrent(keras.layers.GRU(3, stateful=True))
    with pytest.raises(ValueError, match="must be 'exact'"):
        KerasRecurrent(keras.layers.GRU(3)).get_initial_state(2, kind="history")


def test_layers_of_several_cells_and_unrolled_ones():
    """Nested states, and a number of steps that an unrolled layer could not be made for."""
    x = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")
    cells = [keras.layers.LSTMCell(6), keras.layers.GRUCell(5)]
    several = keras.layers.RNN(keras.layers.StackedRNNCells(cells), return_sequences=True)
    for given in (several, keras.layers.GRU(5, unroll=True, return_sequences=True)):
        layer = KerasRecurrent(given)
        want = given(x)
        layer.build(x.shape)
        layer.layer.set_weights(given.get_weights())
        np.testing.assert_allclose(layer(x), want, rtol=1e-5, atol=1e-6)
        check_chunks(layer, x, [2, 1, 2])
        assert layer(keras.Input((None, 4))).shape == (None, None, 5)
