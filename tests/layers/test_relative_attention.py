"""Relative attention against a loop over pairs, and the contract of layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from layer_checks import (
    check_causal,
    check_config,
    check_gradients,
    check_jit,
    check_mixed_precision,
    check_unknown_argument_refused,
)

from keras_seq.layers import RelativeAttention

RNG = np.random.default_rng(3)


def sinusoid(distance, units):
    angles = distance * 10_000.0 ** (-2 * np.arange(units // 2) / units)
    return np.concatenate([np.sin(angles), np.cos(angles)])


def by_pairs(layer, x, memory, valid=None, injected=None, clamp=None):
    """Each score from its query, its key and their distance."""
    weights = {w.name: w.numpy().astype("float64") for w in layer.weights}
    both = np.concatenate([memory, x], axis=1)
    heads, width, past = layer.heads, layer.width, memory.shape[1]
    projected = both @ weights["kernel"] + (0 if injected is None else injected)
    q, k, v = (
        part.reshape(*both.shape[:2], heads, width) for part in np.split(projected, 3, axis=-1)
    )
    outputs = np.zeros((*x.shape[:2], heads, width))
    for b in range(x.shape[0]):
        for i in range(x.shape[1]):
            for h in range(heads):
                scores, keys = [], []
                for j in range(past + i + 1):
                    distance = past + i - j
                    if layer.span is not None and distance >= layer.span:
                        continue
                    if valid is not None and j < past and not valid[b, j]:
                        continue
                    counted = distance if clamp is None else min(distance, clamp)
                    r = sinusoid(counted, x.shape[2]) @ weights["position"]
                    r = r.reshape(heads, width)[h]
                    query = q[b, past + i, h]
                    score = (query + weights["content_vector"][h]) @ k[b, j, h]
                    score += (query + weights["position_vector"][h]) @ r
                    scores.append(score / np.sqrt(width))
                    keys.append(j)
                p = np.exp(scores - np.max(scores))
                outputs[b, i, h] = (p / p.sum()) @ v[b, keys, h]
    flat = outputs.reshape(*x.shape[:2], heads * width)
    return flat @ weights["output"] + weights["output_bias"]


def built(features=6, **options):
    layer = RelativeAttention(**{"heads": 2, "dtype": "float64", **options})
    layer.build((None, None, features))
    for weight in layer.weights:
        if weight.name != "seed_generator_state":
            weight.assign(RNG.normal(size=weight.shape, scale=0.5))
    return layer


@pytest.mark.parametrize("span", [None, 1, 3])
@pytest.mark.parametrize("head_units", [None, 5])
def test_equals_a_loop_over_pairs(span, head_units):
    layer = built(span=span, head_units=head_units)
    x, memory = RNG.normal(size=(2, 5, 6)), RNG.normal(size=(2, 4, 6))
    injected = RNG.normal(size=(2, 9, 6 * layer.width))
    valid = np.array([[0, 1, 1, 1], [0, 0, 0, 1]], "float64")
    got = layer(x, memory=memory, valid=valid, injected=injected)
    np.testing.assert_allclose(got, by_pairs(layer, x, memory, valid, injected), atol=1e-10)


def test_without_a_memory_and_with_given_distances():
    layer = built()
    x = RNG.normal(size=(1, 6, 6))
    nothing = np.zeros((1, 0, 6))
    np.testing.assert_allclose(layer(x), by_pairs(layer, x, nothing), atol=1e-10)
    clamped = layer(x, distances=np.minimum(np.arange(5, -1, -1), 2))
    np.testing.assert_allclose(clamped, by_pairs(layer, x, nothing, clamp=2), atol=1e-10)


def test_given_vectors_equal_own_ones():
    own, given = built(), built(own_vectors=False)
    given.set_weights([w for w in own.get_weights() if w.shape != (2, 3)])
    x = RNG.normal(size=(2, 4, 6))
    np.testing.assert_allclose(own(x), given(x, vectors=(own.content, own.position)), atol=1e-12)


def test_causal_configuration_and_gradients():
    layer = built(weight_normalization=True, span=4)
    x = RNG.normal(size=(2, 6, 6))
    check_causal(layer, x, at=3)
    check_gradients(layer, x)
    check_config(RelativeAttention(2, head_units=3, span=5, dropout=0.1, use_bias=False))
    check_unknown_argument_refused(RelativeAttention, heads=2)


def test_weight_normalization_starts_as_the_plain_kernel():
    layer = RelativeAttention(2, weight_normalization=True)
    layer.build((None, None, 6))
    x = RNG.normal(size=(1, 4, 6)).astype("float32")
    plain = RelativeAttention(2)
    plain.build((None, None, 6))
    plain.set_weights([w.numpy() for w in layer.weights if "gain" not in w.name])
    np.testing.assert_allclose(layer(x), plain(x), atol=1e-6)


def test_precisions_compilation_and_dynamic_lengths():
    x = RNG.normal(size=(2, 6, 8)).astype("float32")
    check_mixed_precision(lambda dtype: RelativeAttention(2, dtype=dtype), x)
    layer = RelativeAttention(2)
    check_jit(lambda x: layer(x), x)
    free = tf.function(
        lambda x, m: layer(x, memory=m), input_signature=[tf.TensorSpec((None, None, 8))] * 2
    )
    np.testing.assert_allclose(free(x, x[:, :3]), layer(x, memory=x[:, :3]), atol=1e-6)
    inputs = keras.Input((None, 8))
    assert keras.Model(inputs, layer(inputs))(x).shape == (2, 6, 8)


def test_dropout_is_drawn_in_training_only():
    layer = RelativeAttention(2, dropout=0.5, seed=1)
    x = RNG.normal(size=(2, 6, 8)).astype("float32")
    once, again = layer(x, training=True), layer(x, training=True)
    assert np.abs(np.asarray(once) - np.asarray(again)).max() > 1e-6
    np.testing.assert_array_equal(layer(x), layer(x, training=False))


@pytest.mark.parametrize(
    ("options", "features", "message"),
    [
        ({"heads": 4}, 6, "`heads` must divide"),
        ({"heads": 0}, 6, "`heads` must be an integer"),
        ({"heads": 1}, 5, "even"),
        ({"heads": 1, "span": 0}, 6, "`span` must be an integer"),
        ({"heads": 1, "dropout": 1.0}, 6, "`dropout` must be"),
    ],
)
def test_refusals(options, features, message):
    with pytest.raises(ValueError, match=message):
        RelativeAttention(**options).build((None, None, features))
