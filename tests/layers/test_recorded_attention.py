"""Recorded attention against NumPy, and that a call without a record is as it was."""

import inspect

import numpy as np
import pytest
import tensorflow as tf

from keras_seq import layers
from keras_seq.layers import recorded_attention, self_attention
from keras_seq.models import LanguageModel
from keras_seq.ops import causal_attention

RNG = np.random.default_rng(5)


def softmax(scores):
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def randomized(layer, *shapes):
    layer.build(*shapes)
    for weight in layer.weights:
        if "seed" not in weight.path:
            weight.assign(RNG.normal(size=weight.shape, scale=0.4))
    return layer


def absolute(layer, x):
    """Probabilities of a `SelfAttention`, (b, h, t, t)."""
    batch, length, features = x.shape
    rows = x @ layer.kernel.numpy() + layer.bias.numpy()
    query, key, _ = np.split(rows, 3, axis=-1)
    query, key = (y.reshape(batch, length, layer.heads, -1) for y in (query, key))
    scores = np.einsum("bihu,bjhu->bhij", query, key) / np.sqrt(features // layer.heads)
    i, j = np.indices((length, length))
    seen = (j <= i) & (j > i - (layer.span or length))
    return softmax(np.where(seen, scores, -np.inf))


def relative(layer, x, memory, injected=None):
    """Probabilities of a `RelativeAttention`, (b, h, t, m + t)."""
    both = np.concatenate([memory, x], axis=1)
    batch, total, features = both.shape
    past = total - x.shape[1]
    rows = both @ layer.kernel.numpy() + (0 if injected is None else injected)
    query, key, _ = np.split(rows, 3, axis=-1)
    query, key = (y.reshape(batch, total, layer.heads, -1) for y in (query, key))
    i, j = np.indices((total, total))
    rates = 10_000.0 ** (-2 * np.arange(features // 2) / features)
    angles = np.arange(total)[:, None] * rates
    sinusoids = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)
    r = (sinusoids @ layer.position_kernel.numpy()).reshape(total, layer.heads, -1)
    scores = np.einsum("bihu,bjhu->bhij", query + layer.content.numpy(), key)
    by_distance = np.einsum("bihu,dhu->bhid", query + layer.position.numpy(), r)
    at = np.broadcast_to(np.maximum(i - j, 0), scores.shape)
    scores = (scores + np.take_along_axis(by_distance, at, -1)) / np.sqrt(layer.width)
    seen = (j <= i) & (j > i - (layer.span or total))
    return softmax(np.where(seen, scores, -np.inf))[:, :, past:]


def check_rows(probabilities):
    """Rows sum to one, and nothing after the own step is looked at."""
    past = probabilities.shape[-1] - probabilities.shape[-2]
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-6)
    assert np.all(np.triu(probabilities, past + 1) == 0)


@pytest.mark.parametrize("span", [None, 3])
def test_absolute_attention(span):
    layer = randomized(layers.SelfAttention(2, span=span, dtype="float64"), (None, None, 8))
    x = RNG.normal(size=(2, 7, 8))
    with recorded_attention() as found:
        layer(x)
    (probabilities,) = (value.numpy() for value in found.values())
    np.testing.assert_allclose(probabilities, absolute(layer, x), atol=1e-12)
    check_rows(probabilities)


@pytest.mark.parametrize("span", [None, 3])
@pytest.mark.parametrize("past", [0, 4])
def test_relative_attention(span, past):
    layer = randomized(layers.RelativeAttention(2, span=span, dtype="float64"), (None, None, 8))
    x, memory = RNG.normal(size=(2, 5, 8)), RNG.normal(size=(2, past, 8))
    with recorded_attention() as found:
        layer(x, memory=memory if past else None)
    (probabilities,) = (value.numpy() for value in found.values())
    assert probabilities.shape == (2, 2, 5, 5 + past)
    np.testing.assert_allclose(probabilities, relative(layer, x, memory), atol=1e-12)
    check_rows(probabilities)


@pytest.mark.slow
def test_a_deep_equilibrium_gives_that_of_its_equilibrium():
    cell = layers.DEQTransformerCell(8, heads=2, inner_units=12, dtype="float64")
    layer = layers.DeepEquilibrium(
        cell, solver="anderson", max_steps=200, tolerance=1e-11, dtype="float64"
    )
    x = RNG.normal(size=(2, 5, 6))
    layer(x)
    cell.injection_kernel.assign(RNG.normal(size=(6, 24)))
    for kernel in (cell.attention.kernel, cell.inner_kernel, cell.outer_kernel):
        kernel.assign(0.1 * RNG.normal(size=kernel.shape))
    cell.attention.output_kernel.assign(RNG.normal(size=(8, 8)))
    with recorded_attention() as found:
        z, solution = layer(x, return_solution=True)
    assert np.all(solution["residual"] < 1e-9)
    (probabilities,) = (value.numpy() for value in found.values())
    injected = x @ cell.injection_kernel.numpy() + cell.injection_bias.numpy()
    want = relative(cell.attention, z.numpy(), np.zeros((2, 0, 8)), injected)
    np.testing.assert_allclose(probabilities, want, atol=1e-7)
    check_rows(probabilities)


CORES = {
    "transformer": (lambda: layers.Transformer(8, levels=2, heads=2), 2),
    "r_transformer": (lambda: layers.RTransformer(units=8, levels=2, window=2, heads=2, span=4), 2),
    "transformer_xl": (lambda: layers.TransformerXL(2, 2, 8, memory_length=4), 2),
    "deq_transformer": (
        lambda: layers.DeepEquilibrium(layers.DEQTransformerCell(8, 2, 8), max_steps=3),
        1,
    ),
    "tcn": (lambda: layers.TCN(8, levels=2), 0),
}


@pytest.mark.parametrize("name", CORES)
def test_every_attention_of_a_model_is_noted_and_none_later(name):
    make, count = CORES[name]
    model = LanguageModel(11, 8, make())
    ids = np.arange(12).reshape(2, 6) % 11
    with recorded_attention() as found:
        inside = model(ids).numpy()
    assert len(found) == count
    for probabilities in found.values():
        assert probabilities.shape == (2, 2, 6, 6)
        check_rows(probabilities.numpy())
    noted = dict(found)
    np.testing.assert_allclose(model(ids).numpy(), inside, atol=1e-6)
    assert all(found[path] is noted[path] for path in found)


def test_records_are_apart():
    layer = layers.RelativeAttention(2)
    with recorded_attention() as outer:
        with recorded_attention() as inner:
            layer(tf.ones((1, 3, 4)))
        assert not outer
        layer(tf.ones((1, 2, 4)))
    assert [tuple(p.shape) for p in (*inner.values(), *outer.values())] == [
        (1, 2, 3, 3),
        (1, 2, 2, 2),
    ]


def test_without_a_record_and_in_compiled_functions_the_fast_path_is_used(monkeypatch):
    calls = []
    names = list(inspect.signature(causal_attention.attend).parameters)

    def spy(*arguments, **options):
        given = dict(zip(names, arguments, strict=False)) | options
        calls.append((given["written_gradient"], given["in_blocks"]))
        return causal_attention.attend(*arguments, **options)

    monkeypatch.setattr(self_attention, "attend", spy)
    layer, x = layers.SelfAttention(2), tf.ones((1, 3, 4))
    layer(x, training=True)
    compiled = tf.function(lambda: layer(x, training=True))
    with recorded_attention() as found:
        compiled()
    assert calls == [(True, True), (True, True)]
    assert not found
    with recorded_attention():
        layer(x, training=True)
    assert calls[2:] == [(False, False)]
