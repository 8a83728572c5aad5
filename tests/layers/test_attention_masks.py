"""Masks and attention: several masked calls, and what is said to have been looked at."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_seq import layers
from keras_seq.layers import recorded_attention

STEPS, WIDTH = 6, 8
MASK = np.array(
    [[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1], [1, 0, 1, 0, 0, 1], [1] * 6, [0] * 6], "bool"
)
ROWS = range(4)  # those with valid steps
CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}
MAKE = {
    "all": lambda **options: layers.SelfAttention(2, **options),
    "span": lambda **options: layers.SelfAttention(2, span=3, **options),
    "transformer": lambda **options: layers.Transformer(
        WIDTH, levels=2, heads=2, span=4, **options
    ),
    "r_transformer": lambda **options: layers.RTransformer(
        WIDTH, levels=2, window=3, heads=2, span=4, **options
    ),
    "transformer_xl": lambda **options: layers.TransformerXL(
        2, heads=2, inner_units=12, memory_length=8, **options
    ),
}


def steps(length: int = STEPS, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(len(MASK), length, WIDTH))
    return x.astype("float32")


def of_row(nest, row: int):
    return keras.tree.map_structure(lambda part: part[row : row + 1], nest)


@pytest.mark.parametrize("name", MAKE)
def test_many_masked_calls_are_one(name):
    """Each with its mask, a long prefix and calls of padding alone among them."""
    layer, x = MAKE[name](), steps(9)
    mask = np.random.default_rng(2).random((len(x), 9)) < 0.6
    mask[0, 6:8], mask[1, :6], mask[4] = False, False, False
    layer.build((None, None, WIDTH))
    state, start = layer.get_initial_state(len(x)), 0
    pieces = []
    for end in (6, 7, 8, 9):
        part = slice(start, end)
        y, state = layer(x[:, part], initial_state=state, return_state=True, mask=mask[:, part])
        pieces.append(np.asarray(y))
        start = end
    got, want = np.concatenate(pieces, axis=1), np.asarray(layer(x, mask=mask))
    np.testing.assert_allclose(got[mask], want[mask], **CLOSE)
    for row in range(4):
        alone = layer(x[row : row + 1, mask[row]])
        np.testing.assert_allclose(got[row, mask[row]], alone[0], **CLOSE)


def check_places(got, want, row: int):
    """Probabilities (h, t, m + t) of a row are those of its valid steps alone, in their places."""
    valid, past = MASK[row], got.shape[2] - STEPS
    keys = np.concatenate([np.ones(past, bool), valid])
    np.testing.assert_allclose(got[:, valid][:, :, keys], want, **CLOSE)
    np.testing.assert_array_equal(got[:, :, ~keys], 0)
    seen = np.cumsum(valid)
    np.testing.assert_array_equal(got[:, seen == 0], 0)
    repeated = np.flatnonzero(valid)[seen[seen > 0] - 1]
    np.testing.assert_array_equal(got[:, seen > 0], got[:, repeated])


@pytest.mark.parametrize("past", [0, 2])
@pytest.mark.parametrize("options", [{}, {"span": 3}, {"causal": False}], ids=str)
def test_probabilities_in_the_places_of_the_steps(options, past):
    if past and "causal" in options:
        pytest.skip("attention over all steps has no state")
    layer, x = layers.SelfAttention(2, **options), steps()
    state = layer(steps(past, seed=1), return_state=True)[1] if past else None
    given = {"initial_state": state, "return_probabilities": True}
    y, probabilities = layer(x, mask=MASK, **given)
    probabilities = np.asarray(probabilities)
    for row in ROWS:
        given["initial_state"] = None if state is None else of_row(state, row)
        y_alone, want = layer(x[row : row + 1, MASK[row]], **given)
        np.testing.assert_allclose(y[row][MASK[row]], y_alone[0], **CLOSE)
        check_places(probabilities[row], want[0], row)
    np.testing.assert_array_equal(probabilities[4], 0)


@pytest.mark.parametrize("name", ["transformer", "r_transformer", "transformer_xl"])
def test_recorded_attention_in_the_places_of_the_steps(name):
    layer, x = MAKE[name](), steps()
    state = layer(steps(2, seed=1), return_state=True)[1]
    with recorded_attention() as found:
        layer(x, mask=MASK, initial_state=state)
    assert len(found) == 2
    for row in ROWS:
        with recorded_attention() as alone:
            layer(x[row : row + 1, MASK[row]], initial_state=of_row(state, row))
        for path, want in alone.items():
            check_places(np.asarray(found[path])[row], want[0], row)


def test_a_record_that_cannot_be_placed_is_refused():
    layer, x = layers.SelfAttention(2, lookahead=1), steps()
    with recorded_attention() as found:
        layer(x)
        with pytest.raises(ValueError, match="`mask` must be None where the attention of"):
            layer(x, mask=MASK)
    assert len(found) == 1


@pytest.mark.parametrize("injects", [False, True])
def test_relative_attention(injects):
    """Outputs and all gradients are those of the valid steps alone; keys of the memory stay."""
    layer, past = layers.RelativeAttention(2), 2
    x, memory = steps(), steps(past, seed=1)
    injected = np.random.default_rng(3).normal(size=(len(x), past + STEPS, 3 * WIDTH))
    injected = injected.astype("float32") if injects else None
    layer.build((None, None, WIDTH))
    masked = np.where(MASK[..., None], x, np.float32("nan"))

    def run(x, memory, injected, mask=None):
        given = {"memory": memory, "injected": injected, "mask": mask}
        x, memory = tf.convert_to_tensor(x), tf.convert_to_tensor(memory)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, **given)
            kept = y if mask is None else tf.where(mask[..., None], y, 0)
            loss = tf.reduce_sum(kept**2)
        return [y, *tape.gradient(loss, [x, *layer.trainable_weights])]

    y, dx, *weights = run(masked, memory, injected, MASK)
    wanted = []
    for row in ROWS:
        keep = np.concatenate([np.ones(past, bool), MASK[row]])
        added = None if injected is None else injected[row : row + 1, keep]
        y_alone, dx_alone, *rest = run(x[row : row + 1, MASK[row]], memory[row : row + 1], added)
        np.testing.assert_allclose(y[row][MASK[row]], y_alone[0], **CLOSE)
        np.testing.assert_allclose(dx[row][MASK[row]], dx_alone[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(dx[row][~MASK[row]], 0)
        wanted.append(rest)
    np.testing.assert_array_equal(y[4], 0)
    for got, *parts in zip(weights, *wanted, strict=True):
        np.testing.assert_allclose(got, sum(np.asarray(p) for p in parts), rtol=1e-3, atol=1e-5)


def test_relative_attention_takes_the_mask_that_its_input_carries():
    layer, memory = layers.RelativeAttention(2), steps(2, seed=1)
    x = np.where(MASK[..., None], steps(), 0)
    carried = keras.layers.Masking()(x)
    y = layer(carried, memory=memory)
    np.testing.assert_allclose(y, layer(x, memory=memory, mask=MASK), **CLOSE)
    np.testing.assert_array_equal(y._keras_mask, MASK)
