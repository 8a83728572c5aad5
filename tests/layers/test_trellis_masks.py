"""TrellisNet with masks: states and their gradients; convolutions that see both sides."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_seq.layers import TrellisNet
from keras_seq.ops.trellis import fused_inputs, run
from keras_seq.ops.trellis.naive import run_naive

WIDE = keras.initializers.RandomNormal(stddev=0.5, seed=5)
MASK = np.array([[1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 1], [1, 0, 1, 0, 1, 1], [0] * 6], "bool")
flatten = keras.tree.flatten


def make(**options):
    options = {"kernel_initializer": WIDE, "bias_initializer": WIDE, **options}
    layer = TrellisNet(2, 2, levels=4, auxiliary_frequency=2, dtype="float64", seed=1, **options)
    layer.build((None, None, 3))
    return layer


def rows():
    return np.random.default_rng(0).normal(size=(*MASK.shape, 3))


def weighed(results):
    """A number that every element of the results counts in, for each row its own weights."""
    total = 0.0
    for place, part in enumerate(flatten(results)):
        weights = np.random.default_rng(place).normal(size=tuple(part.shape[1:]))
        total += tf.reduce_sum(part * weights)
    return total


def of_rows(layer, x, mask, state, training, masks):
    """The state after the rows, and the gradient of all of it and of the last outputs."""
    x = tf.convert_to_tensor(x)
    state = keras.tree.map_structure(tf.convert_to_tensor, state)
    sources = [x, *flatten(state), *[weight.value for weight in layer.trainable_variables]]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        outputs, after = layer(
            x, initial_state=state, return_state=True, training=training, masks=masks, mask=mask
        )
        loss = weighed([outputs[:, -1], after])
    return after, tape.gradient(loss, sources, unconnected_gradients="zero")


@pytest.mark.parametrize("kind", ["exact", pytest.param("history", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "dilation_rate": (1, 2)},
        pytest.param({"dilation_rate": (1, 4), "rematerialize": True}, marks=pytest.mark.slow),
        pytest.param({"kernel_size": 1, "activation": "gru"}, marks=pytest.mark.slow),
        pytest.param({"groups": (2, 2), "unroll": False}, marks=pytest.mark.slow),
    ],
    ids=["fused", "again", "one tap", "groups"],
)
def test_states_of_padded_rows_and_their_gradients(kind, options):
    """As those of the rows alone, of a short piece of a sequence too."""
    layer, x = make(hidden_dropout=0.4, **options), rows()
    before = keras.tree.map_structure(
        lambda part: np.random.default_rng(3).normal(size=part.shape),
        layer.get_initial_state(len(MASK), kind=kind),
    )
    masks = layer.get_masks(len(MASK))
    for training in (True, False)[: 1 + (kind == "history")]:
        x[~MASK] = np.nan
        got, (dx, *d_rest) = of_rows(layer, x, MASK, before, training, masks)
        d_weights = d_rest[len(flatten(before)) :]
        sums = [np.zeros(part.shape) for part in d_weights]
        for row in range(len(MASK)):
            one = slice(row, row + 1)
            was = keras.tree.map_structure(lambda part, one=one: part[one], before)
            if not MASK[row].any():
                for now, then in zip(flatten(got), flatten(was), strict=True):
                    np.testing.assert_array_equal(now[one], then)
                np.testing.assert_array_equal(dx[one], 0)
                continue
            own = {name: part[one] for name, part in masks.items()}
            want, (dx_want, *d_want) = of_rows(layer, x[one, MASK[row]], None, was, training, own)
            for now, then in zip(flatten(got), flatten(want), strict=True):
                np.testing.assert_allclose(now[one], then, rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(dx[row][MASK[row]], dx_want[0], rtol=1e-8, atol=1e-10)
            np.testing.assert_array_equal(dx[row][~MASK[row]], 0)
            for place in range(len(flatten(before))):
                np.testing.assert_allclose(d_rest[place][one], d_want[place], 1e-8, 1e-10)
            sums = [a + b for a, b in zip(sums, d_want[len(flatten(before)) :], strict=True)]
        for now, then in zip(d_weights, sums, strict=True):
            np.testing.assert_allclose(now, then, rtol=1e-8, atol=1e-9)


def test_a_masked_single_step_keeps_its_state():
    layer, x = make(dilation_rate=(1, 2)), rows()
    _, before = layer(x, return_state=True)
    mask = np.array([True, False, True, False])
    outputs, after = layer(x[:, :1], initial_state=before, return_state=True, mask=mask[:, None])
    want, stepped = layer(x[:, :1], initial_state=before, return_state=True)
    np.testing.assert_allclose(outputs, np.where(mask[:, None, None], want, 0))
    for now, kept, new in zip(*map(flatten, (after, before, stepped)), strict=True):
        chosen = mask.reshape(-1, *[1] * (len(now.shape) - 1))
        np.testing.assert_array_equal(now, np.where(chosen, new, kept))


# Convolutions that see both sides -----------------------------------------------------------------


def test_taps_stand_as_those_of_keras():
    """With gates that hand on the pre-activations a level is a convolution of Keras."""

    def linear(pre, previous_hidden, previous_cell):
        return pre

    x = rows()
    for taps, dilation in ((2, 1), (2, 2), (3, 1), (4, 3)):
        layer = TrellisNet(
            0,
            4,
            levels=1,
            kernel_size=taps,
            dilation_rate=dilation,
            activation=linear,
            padding="same",
            dtype="float64",
            kernel_initializer=WIDE,
        )
        twin = keras.layers.Conv1D(4, taps, padding="same", dilation_rate=dilation, dtype="float64")
        layer.build(x.shape)
        twin.build(x.shape)
        twin.set_weights([layer.kernel_input, layer.bias])
        np.testing.assert_allclose(layer(x), twin(x), rtol=1e-9)


CENTRED = {
    "two taps": {"dilation_rate": (1, 2)},
    "dropout": {"kernel_size": 3, "hidden_dropout": 0.4},
    "sparse": {"kernel_size": 4, "injection_frequency": 2, "dilation_rate": (2, 1)},
    "again": {"kernel_size": 3, "rematerialize": True},
    "loop": {"kernel_size": 3, "unroll": False},
}


@pytest.mark.parametrize(
    "share", [0, pytest.param(12, marks=pytest.mark.slow)], ids=["folded", "added"]
)
@pytest.mark.parametrize(
    "name", ["dropout", *(pytest.param(n, marks=pytest.mark.slow) for n in CENTRED if n[0] != "d")]
)
def test_centred_levels_equal_the_naive_ones(name, share, monkeypatch):
    """Outputs and gradients, with a mask too, in training and outside."""
    monkeypatch.setattr(fused_inputs, "_FOLDED_SHARE", share)
    layer, x = make(padding="same", **CENTRED[name]), tf.constant(rows())
    masks, weights = layer.get_masks(len(MASK)), [w.value for w in layer.trainable_variables]

    def answers(mask, training):
        with tf.GradientTape() as tape:
            tape.watch([x, *weights])
            results = layer(x, mask=mask, training=training, masks=masks, return_auxiliary=True)
            loss = weighed(results)
        return [*results, *tape.gradient(loss, [x, *weights])]

    for mask in (None, MASK):
        with monkeypatch.context() as patch:
            patch.setattr(run, "choose_runner", lambda *_: run_naive)
            wanted = answers(mask, True)
        for training in (True, False):
            for got, want in zip(answers(mask, training), wanted, strict=True):
                np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-10)


def test_a_step_that_is_lost_marks_what_sees_it():
    layer, x = make(padding="same", kernel_size=3, dilation_rate=(1, 2)), rows()
    x = np.concatenate([x, x, x, x], axis=1)
    want, at = np.asarray(layer(x)), 12
    bad, other = np.array(x), np.array(x)
    bad[0, at], other[0, at] = np.nan, 9.0
    got = np.asarray(layer(bad))
    seen = np.abs(np.asarray(layer(other)) - want).max(-1) > 0
    np.testing.assert_array_equal(np.isnan(got).all(-1), seen)
    np.testing.assert_allclose(got[~seen], want[~seen], rtol=1e-9)
    assert np.flatnonzero(seen[0]).tolist() == list(range(at - 6, at + 7))
    assert layer.receptive_field == 13 and not layer.is_causal


def test_what_centred_convolutions_cannot_have_is_refused():
    layer = make(padding="same")
    for ask in (
        lambda: layer(rows(), return_state=True),
        lambda: layer(rows(), initial_state=[]),
        lambda: layer.get_initial_state(2),
    ):
        with pytest.raises(ValueError, match="`padding` must be 'causal' for a state"):
            ask()
    with pytest.raises(ValueError, match="`lookahead` must be 0 with padding='same'"):
        make(padding="same", lookahead=1)
    with pytest.raises(ValueError, match="`padding` must be 'causal' with a mixed-group kernel"):
        make(padding="same", groups=(2, 2))
    with pytest.raises(ValueError, match="`padding` must be one of"):
        make(padding="valid")
