"""Tied softmax, mixture of softmaxes, and what all heads promise."""

import keras
import layer_checks
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_seq.layers import (
    AdaptiveSoftmax,
    MixtureOfSoftmaxes,
    SoftmaxHead,
    TiedSoftmax,
)

WORDS, WIDTH = 13, 6

HEADS = {
    "tied": lambda **options: TiedSoftmax(WORDS, **options),
    "no_bias": lambda **options: TiedSoftmax(WORDS, use_bias=False, **options),
    "mixture": lambda **options: MixtureOfSoftmaxes(WORDS, 3, WIDTH, seed=1, **options),
    "split": lambda **options: AdaptiveSoftmax(WORDS, [4, 8], **options),
    "plain": lambda **options: AdaptiveSoftmax(WORDS, [], **options),
}
heads = pytest.mark.parametrize("make", HEADS.values(), ids=HEADS)


def normal(*shape, seed=0, dtype="float32"):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def filled(head, shape=(2, 5, WIDTH), seed=3):
    """The head, built, with random weights."""
    head.build(shape)
    rng = np.random.default_rng(seed)
    head.set_weights([rng.normal(0, 0.5, w.shape) for w in head.weights])
    return head


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


@heads
@pytest.mark.parametrize("tied", [True, False])
def test_nll_agrees_with_probabilities(make, tied):
    """`nll` is minus the log-probability of the target; the probabilities sum to one."""
    head = filled(make(tied=tied))
    tables = [normal(WORDS, WIDTH, seed=1)] if tied else None
    hidden, targets = normal(2, 5, WIDTH), np.arange(10).reshape(2, 5) + 2
    log_probabilities = ops.convert_to_numpy(head(hidden, tables=tables))
    assert log_probabilities.shape == (2, 5, WORDS)
    np.testing.assert_allclose(np.exp(log_probabilities).sum(-1), 1, rtol=1e-5)
    nll = ops.convert_to_numpy(head.nll(hidden, targets, tables=tables))
    picked = np.take_along_axis(log_probabilities, targets[..., None], -1)[..., 0]
    np.testing.assert_allclose(nll, -picked, rtol=1e-5, atol=1e-6)
    # any leading axes
    np.testing.assert_allclose(
        head.nll(hidden[0, 0], targets[0, 0], tables=tables), nll[0, 0], 1e-5
    )
    four = head.nll(hidden[:, None], targets[:, None], tables=tables)
    np.testing.assert_allclose(four[:, 0], nll, 1e-5)


@heads
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(make, policy):
    """Under a mixed policy, weights and losses are float32, in and outside of a call."""
    want, head = filled(make(tied=False)), filled(make(tied=False, dtype=policy))
    hidden, targets = normal(2, 5, WIDTH), np.arange(10).reshape(2, 5)
    with tf.GradientTape() as tape:
        nll = head.nll(hidden, targets)
        loss = ops.mean(nll)
    gradients = tape.gradient(loss, [w.value for w in head.trainable_variables])
    assert nll.dtype == "float32" and head(hidden).dtype == "float32"
    assert all(w.dtype == "float32" for w in head.weights)
    assert all(
        np.isfinite(ops.convert_to_numpy(g)).all() and g.dtype == tf.float32 for g in gradients
    )
    np.testing.assert_allclose(nll, want.nll(hidden, targets), rtol=0.03, atol=0.03)
    np.testing.assert_allclose(head(hidden), want(hidden), rtol=0.03, atol=0.03)


@heads
def test_gradients_float64(make):
    """Gradients of `nll` agree with central differences, and XLA's with the eager ones."""
    head = make(tied=True, dtype="float64")
    filled(head)
    hidden = tf.Variable(tf.constant(normal(2, 5, WIDTH, dtype="float64")))
    table = tf.Variable(tf.constant(normal(WORDS, WIDTH, seed=1, dtype="float64")))
    targets = np.arange(10).reshape(2, 5) + 3
    scale = normal(2, 5, seed=2, dtype="float64")
    variables = [hidden, table, *[w.value for w in head.trainable_variables]]

    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(head.nll(hidden, targets, tables=[table]) * scale)
        return loss, [tf.convert_to_tensor(g) for g in tape.gradient(loss, variables)]

    _, eager = step()
    _, compiled = tf.function(step, jit_compile=True)()
    for got, want in zip(compiled, eager, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)
    for variable, gradient in zip(variables, eager, strict=True):
        direction = normal(*variable.shape, seed=5, dtype="float64")
        start, values = variable.numpy(), []
        for sign in (1, -1):
            variable.assign(start + sign * 1e-5 * direction)
            values.append(float(tf.reduce_sum(head.nll(hidden, targets, tables=[table]) * scale)))
        variable.assign(start)
        difference = (values[0] - values[1]) / 2e-5
        np.testing.assert_allclose(np.sum(gradient * direction), difference, rtol=1e-6, atol=1e-8)


def test_tied_softmax_formula():
    head, table, hidden = filled(TiedSoftmax(WORDS)), normal(WORDS, WIDTH), normal(2, 5, WIDTH)
    want = hidden @ table.T + ops.convert_to_numpy(head.bias)
    np.testing.assert_allclose(head.logits(hidden, [table]), want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        head(hidden, tables=[table]), log_softmax(want), rtol=1e-5, atol=1e-6
    )


def test_tied_with_reversible_embedding():
    """The embedding's table gets the sum of both gradients; the bias starts from zero."""
    embedding = keras.layers.ReversibleEmbedding(WORDS, WIDTH)
    ids = np.array([[1, 2, 1]])
    head = TiedSoftmax(WORDS)
    embedding.build()
    table = embedding.embeddings

    def gradient(stop_input, stop_output):
        with tf.GradientTape() as tape:
            hidden = embedding(ids)
            hidden = tf.stop_gradient(hidden) if stop_input else hidden
            tables = [
                tf.stop_gradient(t) if stop_output else t for t in head.tied_tables(embedding)
            ]
            loss = ops.sum(head.nll(hidden, ids[:, ::-1], tables=tables))
        return tf.convert_to_tensor(tape.gradient(loss, table.value)).numpy()

    both = gradient(False, False)
    np.testing.assert_allclose(both, gradient(True, False) + gradient(False, True), atol=1e-6)
    assert not np.any(head.bias)
    assert len(head.weights) == 1


@pytest.mark.parametrize("masked", [False, True])
def test_mixture_formula(masked):
    """The formula of the published code, with the mask between the linear map and tanh."""
    experts, width, units = 3, 4, WIDTH
    head = filled(MixtureOfSoftmaxes(WORDS, experts, width, latent_dropout=0.5, seed=2))
    table, hidden = normal(WORDS, width, seed=4), normal(2, 5, units)
    masks = head.get_masks(2) if masked else {}
    prior_k, prior_b, latent_k, latent_b, bias = head.get_weights()
    latent = hidden @ latent_k + latent_b
    if masked:
        assert masks["latent"].shape == (2, 1, experts * width)
        latent = latent * ops.convert_to_numpy(masks["latent"])
    latent = np.tanh(latent).reshape(2, 5, experts, width)
    mixed = np.einsum(
        "btk,btkv->btv",
        np.exp(log_softmax(hidden @ prior_k + prior_b)),
        np.exp(log_softmax(latent @ table.T + bias)),
    )
    got = head(hidden, tables=[table], training=True, masks=masks)
    np.testing.assert_allclose(got, np.log(mixed + 1e-8), rtol=1e-5, atol=1e-6)
    nll = head.nll(hidden, np.full((2, 5), 3), tables=[table], training=True, masks=masks)
    np.testing.assert_allclose(nll, -np.log(mixed + 1e-8)[..., 3], rtol=1e-5, atol=1e-6)


def test_mixture_latent_dropout():
    """Drawn in training only, one mask a sequence, a new one each call."""
    head = MixtureOfSoftmaxes(WORDS, 2, WIDTH, latent_dropout=0.5, tied=False, seed=1)
    hidden = np.repeat(normal(4, 1, WIDTH), 5, axis=1)
    quiet = ops.convert_to_numpy(head(hidden))
    np.testing.assert_array_equal(quiet, head(hidden, training=False))
    noisy = ops.convert_to_numpy(head(hidden, training=True))
    np.testing.assert_allclose(noisy[:, 0], noisy[:, 4], rtol=1e-5)
    assert np.abs(noisy - quiet).max() > 1e-4
    assert np.abs(noisy - ops.convert_to_numpy(head(hidden, training=True))).max() > 1e-4
    auxiliary = np.repeat(hidden[:, None], 2, axis=1)  # (b, m, t, d): a mask for each (b, m)
    noisy = ops.convert_to_numpy(head(auxiliary, training=True))
    np.testing.assert_allclose(noisy[:, :, 0], noisy[:, :, 4], rtol=1e-5)
    assert np.abs(noisy[:, 0] - noisy[:, 1]).max() > 1e-4


def test_mixture_initial_weights():
    """PyTorch's default: uniform within 1 / sqrt(inputs)."""
    head = MixtureOfSoftmaxes(WORDS, 40, 10)
    head.build((None, 100))
    for weight in (head.prior_kernel, head.latent_kernel, head.latent_bias):
        values = np.abs(ops.convert_to_numpy(weight))
        assert 0.09 < values.max() <= 0.1 + 1e-6 and 0.04 < values.mean() < 0.06


def test_errors():
    with pytest.raises(ValueError, match="needs `tables="):
        TiedSoftmax(5)(normal(2, 3))
    with pytest.raises(ValueError, match=r"tables=\[\(5, 3\), \(5, 3\)\]"):
        TiedSoftmax(5)(normal(2, 3), tables=[normal(5, 3)] * 2)
    with pytest.raises(ValueError, match="tied=False"):
        TiedSoftmax(5, tied=False)(normal(2, 3), tables=[normal(5, 3)])
    with pytest.raises(ValueError, match="vocabulary_size=0"):
        TiedSoftmax(0)
    with pytest.raises(ValueError, match="experts=0"):
        MixtureOfSoftmaxes(5, 0, 3)
    with pytest.raises(ValueError, match=r"latent_dropout=1\.0"):
        MixtureOfSoftmaxes(5, 2, 3, latent_dropout=1.0)
    with pytest.raises(NotImplementedError):
        SoftmaxHead(5).call(normal(2, 3))
    layer_checks.check_unknown_argument_refused(TiedSoftmax, vocabulary_size=5)


@heads
def test_config_and_jit(make):
    layer_checks.check_config(make())
    head = filled(make(tied=False))
    layer_checks.check_jit(head, normal(2, 5, WIDTH))
