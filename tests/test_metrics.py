"""Perplexity, bits per character and token counts."""

import keras
import layer_checks
import numpy as np
import pytest
import tensorflow as tf

from keras_seq.metrics import BitsPerCharacter, NegativeLogLikelihood, Perplexity, TokenCount

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(4, 6, 9)).astype("float32")
TARGETS = RNG.integers(0, 9, (4, 6))
LOG_PROBABILITIES = LOGITS - np.log(np.exp(LOGITS).sum(-1, keepdims=True))
NLL = -np.take_along_axis(LOG_PROBABILITIES, TARGETS[..., None], -1)[..., 0]
TRANSFORMS = {
    NegativeLogLikelihood: lambda mean: mean,
    Perplexity: np.exp,
    BitsPerCharacter: lambda mean: mean / np.log(2),
}
metrics = pytest.mark.parametrize("cls", TRANSFORMS)


@metrics
def test_values(cls):
    """Logits, log-probabilities, probabilities and losses give the same; batches add up."""
    want = TRANSFORMS[cls](NLL.mean())
    for y_pred, from_logits in (
        (LOGITS, True),
        (LOG_PROBABILITIES, True),
        (np.exp(LOG_PROBABILITIES), False),
    ):
        metric = cls(from_logits=from_logits)
        for i in range(4):
            metric.update_state(TARGETS[i : i + 1], y_pred[i : i + 1])
        np.testing.assert_allclose(metric.result(), want, rtol=1e-5)
        assert metric.tokens == 24
        assert metric.result().dtype == tf.float32
    metric = cls()
    metric.update_from_nll(NLL)
    np.testing.assert_allclose(metric.result(), want, rtol=1e-6)
    metric.reset_state()
    assert metric.result() == 0 and metric.tokens == 0  # nothing seen


@metrics
def test_weights_and_masked_tokens(cls):
    transform, weight = TRANSFORMS[cls], RNG.random((4, 6)).astype("float32")
    metric = cls(from_logits=True)
    metric.update_state(TARGETS, LOGITS, weight)
    np.testing.assert_allclose(metric.result(), transform(np.average(NLL, weights=weight)), 1e-5)
    one_an_example = np.array([1, 0, 2, 0], "float32")
    metric.reset_state()
    metric.update_state(TARGETS, LOGITS, one_an_example)
    want = transform(np.average(NLL.mean(1), weights=one_an_example))
    np.testing.assert_allclose(metric.result(), want, rtol=1e-5)
    assert metric.tokens == 18

    masked = cls(from_logits=True, mask_token_id=-1)
    targets = np.where(weight > 0.5, TARGETS, -1)
    masked.update_state(targets, LOGITS)
    np.testing.assert_allclose(masked.result(), transform(NLL[weight > 0.5].mean()), rtol=1e-5)
    masked.update_state(targets, LOGITS, np.zeros((4, 6)))
    assert masked.tokens == np.sum(weight > 0.5)

    broken = np.where(weight > 0.5, NLL, np.inf)  # padding may be anything
    metric.reset_state()
    metric.update_from_nll(broken, weight > 0.5)
    np.testing.assert_allclose(metric.result(), transform(NLL[weight > 0.5].mean()), rtol=1e-5)
    with pytest.raises(ValueError, match="more axes"):
        metric.update_from_nll(NLL, np.ones((4, 6, 2)))


def test_large_counts_are_exact():
    """10^8 tokens and one more: float32 sums would stop counting at 1.7 * 10^7."""
    metric, count = Perplexity(), TokenCount()
    chunk = np.full((1000, 1000), np.log(7), "float32")
    for _ in range(100):
        metric.update_from_nll(chunk)
        count.update_state(chunk)
    metric.update_from_nll(chunk[:1, :1])
    count.update_state(chunk[:1, :1])
    assert metric.tokens == count.result() == 100_000_001
    np.testing.assert_allclose(metric.result(), 7, rtol=1e-6)


def test_token_count():
    count = TokenCount()
    count.update_state(NLL, sample_weight=np.array([[1], [0], [1], [1]]))
    count.update_state(NLL[0, 0])
    assert count.result() == 19
    count.reset_state()
    assert count.result() == 0


def test_half_precision_predictions():
    metric = Perplexity(from_logits=True)
    metric.update_state(TARGETS, tf.cast(LOGITS, "bfloat16"))
    np.testing.assert_allclose(metric.result(), np.exp(NLL.mean()), rtol=0.02)


def test_in_fit_and_configuration():
    """With `compile`, in a plain and in a compiled graph; by configuration, the same again."""
    for cls in (*TRANSFORMS, TokenCount):
        layer_checks.check_config(cls(name="this"))
    again = keras.metrics.deserialize(
        keras.metrics.serialize(Perplexity(from_logits=True, mask_token_id=3))
    )
    assert again.from_logits and again.mask_token_id == 3
    ids = RNG.integers(0, 9, (8, 5))
    for jit in (False, True):
        model = keras.Sequential([keras.Input((5,)), keras.layers.Embedding(9, 9)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss, metrics=[Perplexity(from_logits=True)], jit_compile=jit)
        model.fit(ids, ids, batch_size=4, verbose=0)
        report = model.evaluate(ids, ids, batch_size=4, verbose=0, return_dict=True)
        np.testing.assert_allclose(report["perplexity"], np.exp(report["loss"]), rtol=1e-5)
