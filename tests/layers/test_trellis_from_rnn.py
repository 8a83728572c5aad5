"""Theorem 1: a truncated recurrent network is a TrellisNet with a mixed-group kernel."""

import keras
import numpy as np
import pytest

from keras_seq.layers import TrellisNet


def stack(cls, widths, **options) -> list[keras.layers.Layer]:
    """A stack of recurrent layers with random biases."""
    layers = [cls(width, return_sequences=True, **options) for width in widths]
    rng = np.random.default_rng(len(widths))
    features = 3
    for layer, width in zip(layers, widths, strict=True):
        layer.build((None, None, features))
        layer.set_weights([rng.normal(scale=0.6, size=w.shape) for w in layer.get_weights()])
        features = width
    return layers


def truncated(layers, x: np.ndarray, horizon: int) -> np.ndarray:
    """Each output is that of the whole stack over the last `horizon` inputs, from a zero state."""
    outputs = []
    for t in range(x.shape[1]):
        hidden = x[:, max(0, t + 1 - horizon) : t + 1]
        for layer in layers:
            hidden = layer(hidden)
        outputs.append(keras.ops.convert_to_numpy(hidden)[:, -1])
    return np.stack(outputs, 1)


@pytest.mark.parametrize("widths", [(4,), (3, 5), (4, 2, 3)])
@pytest.mark.parametrize("cls", [keras.layers.SimpleRNN, keras.layers.GRU, keras.layers.LSTM])
def test_equals_the_truncated_network(cls, widths):
    layers = stack(cls, widths)
    x = np.random.default_rng(0).normal(size=(2, 6, 3)).astype("float32")
    for horizon in (1, 3, 8):
        trellis = TrellisNet.from_rnn(layers, horizon)
        assert trellis.levels == horizon + len(widths) - 1
        assert trellis.width == sum(widths)
        assert trellis.output_units == widths[-1]
        assert trellis.receptive_field == horizon
        np.testing.assert_allclose(trellis(x), truncated(layers, x, horizon), atol=2e-6)


def test_horizon_over_the_whole_sequence_is_the_network_itself():
    layers = stack(keras.layers.LSTM, (4, 5))
    x = np.random.default_rng(1).normal(size=(2, 7, 3)).astype("float32")
    trellis = TrellisNet.from_rnn(layers, horizon=7)
    np.testing.assert_allclose(trellis(x), layers[1](layers[0](x)), atol=2e-6)


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (keras.layers.SimpleRNN, {"activation": "relu"}),
        (keras.layers.LSTM, {"activation": "softsign", "recurrent_activation": "hard_sigmoid"}),
        (keras.layers.GRU, {"use_bias": False}),
    ],
)
def test_other_activations_and_no_bias(cls, options):
    layers = stack(cls, (4, 3), **options)
    x = np.random.default_rng(2).normal(size=(2, 5, 3)).astype("float32")
    trellis = TrellisNet.from_rnn(layers, horizon=3)
    np.testing.assert_allclose(trellis(x), truncated(layers, x, 3), atol=3e-6)


@pytest.mark.slow
def test_is_a_layer_like_any_other():
    """It trains, streams and has the recurrent layers' number of weights (GRU biases merged)."""
    layers = stack(keras.layers.LSTM, (4, 5))
    trellis = TrellisNet.from_rnn(layers, horizon=4, hidden_dropout=0.1)
    assert trellis.count_params() == sum(layer.count_params() for layer in layers)
    x = np.random.default_rng(3).normal(size=(8, 9, 3)).astype("float32")
    model = keras.Sequential([keras.Input((None, 3)), trellis, keras.layers.Dense(1)])
    model.compile("adam", "mse")
    losses = model.fit(x, x[..., :1], epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    full = trellis(x)
    state, steps = trellis.get_initial_state(8), []
    for t in range(9):
        step, state = trellis(x[:, t : t + 1], initial_state=state, return_state=True)
        steps.append(step)
    np.testing.assert_allclose(np.concatenate(steps, 1), full, atol=1e-6)


def test_what_cannot_be_converted_is_refused():
    lstm = stack(keras.layers.LSTM, (4,))
    cases = {
        "must be a SimpleRNN, GRU or LSTM": ([keras.layers.Dense(3)], 2),
        "`horizon` must be an integer of at least 1": (lstm, 0),
        "must be of one type": (lstm + stack(keras.layers.GRU, (4,)), 2),
        "reset_after": (stack(keras.layers.GRU, (4,), reset_after=False), 2),
        "runs backwards": (stack(keras.layers.LSTM, (4,), go_backwards=True), 2),
        "has dropout": (stack(keras.layers.LSTM, (4,), dropout=0.1), 2),
        "same activations": (lstm + [_built(keras.layers.LSTM(4, activation="relu"))], 2),
        "has no weights yet": ([keras.layers.LSTM(3)], 2),
    }
    for message, (layers, horizon) in cases.items():
        with pytest.raises(ValueError, match=message):
            TrellisNet.from_rnn(layers, horizon)


def _built(layer):
    layer.build((None, None, 4))
    return layer
