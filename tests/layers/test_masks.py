"""The law of masks, on every public causal layer: a masked step is left out."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_layers import CAUSAL, EXACT, WIDTH, each_of, sequence

from keras_seq import layers

every_causal = pytest.mark.parametrize("name", each_of(CAUSAL))
flatten = keras.tree.flatten
STEPS = 6
# Padding after and before, masked steps within, none, and nothing but padding.
MASK = np.array(
    [[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1], [1, 0, 1, 0, 0, 1], [1] * 6, [0] * 6], "bool"
)
ROWS = range(4)  # those with valid steps
CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}


def exact(name: str, **options):
    """A built layer whose outputs are those of its equations."""
    layer = CAUSAL[name](**EXACT.get(name, {}), **options)
    layer.build((None, None, WIDTH))
    return layer


def padded() -> np.ndarray:
    """Rows with NaN at masked steps."""
    return np.where(MASK[..., None], rows(), np.float32("nan"))


def rows() -> np.ndarray:
    return sequence(STEPS, batch=len(MASK))


def alone(x, row: int):
    """The valid steps of a row, as a batch of one."""
    return x[row : row + 1][:, MASK[row]]


def as_keras_does(outputs_alone, row: int) -> np.ndarray:
    """The outputs of a row alone, at all of its steps."""
    seen = np.cumsum(MASK[row])
    placed = np.asarray(outputs_alone)[0][np.maximum(seen - 1, 0)]
    return np.where(seen[:, None] > 0, placed, 0)


@every_causal
def test_outputs(name):
    """The outputs of each row are those of its valid steps alone, whatever stands elsewhere."""
    layer = exact(name)
    outputs = layer(padded(), mask=MASK)
    for row in ROWS:
        want = as_keras_does(layer(alone(rows(), row)), row)
        np.testing.assert_allclose(outputs[row], want, **CLOSE)
    np.testing.assert_array_equal(outputs[4], 0)


@every_causal
def test_states(name):
    """The state is that after the last valid step; a row of padding keeps the state it had."""
    layer, x = exact(name), rows()
    if not layer.is_causal:
        with pytest.raises(ValueError, match="`(padding|causal)` must be .* for a state"):
            layer(padded(), mask=MASK, return_state=True)
        return
    before = layer(x[:, :2], return_state=True)[1]
    outputs, state = layer(padded(), mask=MASK, initial_state=before, return_state=True)
    after = layer(x[:, :1], initial_state=state)
    for row in ROWS:
        was = keras.tree.map_structure(lambda part, row=row: part[row : row + 1], before)
        want, want_state = layer(alone(x, row), initial_state=was, return_state=True)
        np.testing.assert_allclose(outputs[row], as_keras_does(want, row), **CLOSE)
        want = layer(x[row : row + 1, :1], initial_state=want_state)
        np.testing.assert_allclose(after[row], want[0], **CLOSE)
    want = layer(x[:, :1], initial_state=before)
    np.testing.assert_allclose(after[4], want[4], **CLOSE)


@every_causal
def test_gradients(name):
    """Those of inputs and weights are the sums of those of the rows alone."""
    layer, weight = exact(name), np.random.default_rng(1).normal(size=(len(MASK), STEPS, 1))
    weight = weight.astype("float32")

    def gradients(x, mask, weight):
        x = tf.convert_to_tensor(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.cast(layer(x, mask=mask), "float32") * weight)
        unused = tf.UnconnectedGradients.ZERO
        return tape.gradient(loss, [x, *layer.trainable_weights], unconnected_gradients=unused)

    x, *rest = gradients(padded(), MASK, weight * MASK[..., None])
    wanted = [gradients(alone(rows(), row), None, alone(weight, row)) for row in ROWS]
    for row in ROWS:
        np.testing.assert_allclose(x[row][MASK[row]], wanted[row][0][0], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(x[row][~MASK[row]], 0)
    for place, got in enumerate(rest, start=1):
        want = sum(np.asarray(gradient[place]) for gradient in wanted)
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@every_causal
@pytest.mark.parametrize("compiled", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_in_graphs(name, compiled, dtype):
    """In graphs of free sizes, compiled ones too, and in bfloat16 within its precision."""
    layer = exact(name, dtype=dtype)
    close: dict[str, Any] = CLOSE if dtype == "float32" else {"rtol": 0.05, "atol": 0.05}
    sizes = (len(MASK), STEPS) if compiled else (None, None)
    signature = [tf.TensorSpec((*sizes, WIDTH)), tf.TensorSpec(sizes, "bool")]
    call = tf.function(
        lambda x, mask: layer(x, mask=mask), input_signature=signature, jit_compile=compiled
    )
    outputs = np.asarray(call(padded(), MASK), "float32")
    for row in ROWS:
        want = np.asarray(layer(alone(rows(), row)), "float32")
        np.testing.assert_allclose(outputs[row][MASK[row]], want[0], **close)


@every_causal
def test_both_directions(name):
    """`Bidirectional` of a padded row gives what it gives of the row alone."""
    if not exact(name).is_causal:
        pytest.skip("the layer sees both directions itself")
    both = keras.layers.Bidirectional(exact(name))
    x = np.where(MASK[..., None], rows(), 0)
    outputs = both(keras.layers.Masking()(x))
    ahead, back = both.forward_layer, both.backward_layer
    for row in ROWS:
        one = alone(rows(), row)
        want = np.concatenate([ahead(one), back(one)[:, ::-1]], -1)[0]
        np.testing.assert_allclose(outputs[row][MASK[row]], want, **CLOSE)
    back.set_weights(ahead.get_weights())
    np.testing.assert_allclose(back(rows()), ahead(rows()[:, ::-1]), **CLOSE)


def test_options_of_all():
    """Direction, look-ahead and what is handed out; shapes, configuration, saving."""
    layer, x = layers.LSTM(3, seed=1), rows()
    whole = np.asarray(layer(x))

    def twin(**options):
        other = layers.LSTM.from_config({**layer.get_config(), **options})
        other.build(x.shape)
        other.set_weights(layer.get_weights())
        inputs = keras.Input((None, WIDTH))
        model = keras.Model(inputs, other(inputs))
        again = type(model).from_config(model.get_config())
        again.set_weights(model.get_weights())
        outputs = np.asarray(other(x))
        assert len(model.output.shape) == outputs.ndim and model.output.shape[-1] == 3
        np.testing.assert_allclose(again(x), outputs, rtol=1e-6)
        return other, outputs

    last, outputs = twin(return_sequences=False)
    np.testing.assert_allclose(outputs, whole[:, -1], **CLOSE)
    assert last.compute_output_shape((5, 6, WIDTH)) == (5, 3)
    read = np.asarray(last(padded(), mask=MASK))
    every = np.asarray(layer(padded(), mask=MASK))
    np.testing.assert_allclose(read, every[:, -1], **CLOSE)
    np.testing.assert_array_equal(read[4], 0)

    _, outputs = twin(go_backwards=True)
    np.testing.assert_allclose(outputs, layer(x[:, ::-1]), **CLOSE)

    ahead, outputs = twin(lookahead=2)
    longer = np.pad(x, [[0, 0], [0, 2], [0, 0]])
    np.testing.assert_allclose(outputs, layer(longer)[:, 2:], **CLOSE)
    late, state = ahead(x[:, :4], return_state=True)  # streamed, two steps late
    rest, _ = ahead(longer[:, 4:], initial_state=state, return_state=True)
    np.testing.assert_allclose(np.concatenate([late, rest], 1)[:, 2:], outputs, **CLOSE)
    masked = ahead(padded(), mask=MASK)
    for row in ROWS:
        want = as_keras_does(ahead(alone(x, row)), row)
        np.testing.assert_allclose(masked[row], want, **CLOSE)

    zeros, _ = twin(zero_output_for_mask=True)
    np.testing.assert_allclose(zeros(padded(), mask=MASK), every * MASK[..., None], **CLOSE)
    assert "lookahead" not in layer.get_config()  # as before there was such a thing
    assert [layer.is_causal, last.is_causal, ahead.is_causal] == [True, True, False]


def test_masks_of_keras_arrive():
    """From `Masking`, through stacks and functional models, and beside a state."""
    layer, x = layers.LSTM(3), np.where(MASK[..., None], rows(), 0)
    inputs = keras.Input((None, WIDTH))
    hidden = layer(keras.layers.Masking()(inputs))
    model = keras.Model(inputs, keras.layers.GRU(2)(hidden))
    want = np.asarray(layer(x, mask=MASK))
    gru = model.layers[-1]
    np.testing.assert_allclose(model(x), gru(want, mask=MASK), **CLOSE)
    masked = keras.layers.Masking()(x)
    np.testing.assert_allclose(layer(masked), want, **CLOSE)
    state = layer(x[:, :2], return_state=True)[1]
    beside = layer(masked, initial_state=state)
    np.testing.assert_allclose(beside, layer(x, initial_state=state, mask=MASK), **CLOSE)
    assert beside._keras_mask is not None


@keras.saving.register_keras_serializable("test_masks")
class Summed(layers.CausalLayer):
    """A user's layer, which knows nothing of masks."""

    @property
    def output_units(self):
        return WIDTH

    def get_initial_state(self, batch_size, kind=None):
        return keras.ops.zeros((batch_size, WIDTH))

    def call(self, x, initial_state=None, return_state=False, training=None, masks=None):
        x = keras.ops.cumsum(x, axis=1)
        return (x, x[:, -1]) if return_state else x


class Plain(keras.layers.Layer):
    """The same as a layer of Keras."""

    output_units = WIDTH

    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, x, initial_state=None, return_state=False, training=None):
        x = keras.ops.cumsum(x, axis=1)
        return (x, x[:, -1]) if return_state else x


@pytest.mark.parametrize("layer", [Summed(), layers.RecurrentStack([Plain()])])
def test_a_layer_that_knows_nothing_of_masks(layer):
    """Its outputs are right; asked for its state it is refused by name."""
    outputs = layer(padded(), mask=MASK)
    for row in ROWS:
        want = np.cumsum(alone(rows(), row), axis=1)
        np.testing.assert_allclose(outputs[row], as_keras_does(want, row), **CLOSE)
    with pytest.raises(ValueError, match=r"a (Summed|Plain) \(layer '.*'\) is asked for its state"):
        layer(padded(), mask=MASK, return_state=True)


@pytest.mark.parametrize("mask", [MASK[0], MASK[:, :4], MASK[..., None]])
def test_masks_of_another_shape_are_refused(mask):
    with pytest.raises(ValueError, match=r"`mask` must have shape \(b, t\)"):
        layers.LSTM(3)(rows(), mask=mask)
