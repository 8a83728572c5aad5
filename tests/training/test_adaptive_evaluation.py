"""Dynamic evaluation and the neural cache against hand-written loops."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_sequence_models import IDS, language_model

from keras_seq.layers import PRU, RecurrentStack, TrellisNet
from keras_seq.models import LanguageModel
from keras_seq.training.dynamic_evaluation import dynamic_evaluate, gradient_statistics
from keras_seq.training.neural_cache import cache_evaluate

WORDS = 7


def model_of(carry_state=True, core=None):
    core = core or RecurrentStack([PRU(8, groups=2), PRU(6)], dropout=0.3, output_dropout=0.3)
    model = LanguageModel(WORDS, 6, core, carry_state=carry_state, embedding_dropout=0.1, seed=1)
    model.build((None, None))
    for index, weight in enumerate(model.trainable_variables):
        weight.assign(np.random.default_rng(index).normal(size=weight.shape) * 0.5)
    return model


def batches(rows=2, count=4, steps=5):
    rng = np.random.default_rng(3)
    ids = rng.integers(0, WORDS, (rows, count * steps + 1)).astype("int32")
    weights = (rng.random((rows, count * steps)) < 0.8).astype("float32")
    cuts = [slice(k * steps, (k + 1) * steps) for k in range(count)]
    return [(ids[:, :-1][:, c], ids[:, 1:][:, c], weights[:, c]) for c in cuts]


def gradients_of(model, batch, state):
    """Sum of losses, gradients of their mean and the state, in the plainest way."""
    ids, targets, weights = batch
    with tf.GradientTape() as tape:
        result = model(ids, initial_state=state, return_state=model.carry_state)
        log_probs, state = result if model.carry_state else (result, None)
        nll = -tf.gather(log_probs, targets, batch_dims=2)
        loss = tf.reduce_sum(nll * weights) / weights.sum()
    values = [v.value for v in model.trainable_variables]
    gradients = [tf.convert_to_tensor(g).numpy() for g in tape.gradient(loss, values)]
    return float(loss) * weights.sum(), gradients, state


@pytest.mark.parametrize("carry_state", [True, False])
def test_dynamic_evaluation_equals_a_loop(carry_state):
    model, data = model_of(carry_state), batches()
    squares, state = np.zeros(len(model.trainable_variables), object), None
    for batch in data[:3]:
        _, gradients, state = gradients_of(model, batch, state)
        squares = squares + np.array([g**2 for g in gradients], object)
    rms = [np.sqrt(np.asarray(s / 3, "float64")) for s in squares]
    statistics = gradient_statistics(model, data, batches=3)
    for got, want in zip(statistics, rms, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)

    rate, decay, epsilon = 0.05, 0.3, 0.01
    trained = model.get_weights()
    start = [v.numpy() for v in model.trainable_variables]
    result = dynamic_evaluate(model, data, statistics, rate, decay, epsilon)
    for a, b in zip(model.get_weights(), trained, strict=True):
        np.testing.assert_array_equal(a, b)

    mean = sum(s.sum() for s in rms) / sum(s.size for s in rms)
    total, state = 0.0, None
    for batch in data:
        loss, gradients, state = gradients_of(model, batch, state)
        total += loss
        for v, g, s, w0 in zip(model.trainable_variables, gradients, rms, start, strict=True):
            pull = np.minimum(decay * s / mean, 1)
            v.assign(v.numpy() - rate * g / (s + epsilon) + pull * (w0 - v.numpy()))
    tokens = sum(batch[2].sum() for batch in data)
    assert result["tokens"] == tokens
    np.testing.assert_allclose(result["nll"], total / tokens, rtol=1e-4)
    np.testing.assert_allclose(result["perplexity"], np.exp(total / tokens), rtol=1e-3)


def test_adapting_helps_on_a_text_that_repeats():
    core = TrellisNet(units=6, output_units=6, levels=3)
    model = model_of(carry_state=False, core=core)
    ids = np.tile(np.arange(5, dtype="int32"), 41)[None]
    data = [(ids[:, k : k + 5], ids[:, k + 1 : k + 6]) for k in range(0, 200, 5)]
    statistics = gradient_statistics(model, data)
    fixed = dynamic_evaluate(model, data, statistics, learning_rate=0.0)
    assert dynamic_evaluate(model, data, statistics, learning_rate=0.02)["nll"] < fixed["nll"] - 0.2
    np.testing.assert_allclose(
        fixed["nll"], np.mean([model.token_losses(*batch) for batch in data]), rtol=1e-4
    )


def test_dynamic_evaluation_puts_weights_back_when_it_fails():
    model, data = model_of(), batches()
    statistics, trained = gradient_statistics(model, data), model.get_weights()

    def failing():
        yield data[0]
        raise RuntimeError("the text ends here")

    with pytest.raises(RuntimeError, match="the text ends here"):
        dynamic_evaluate(model, failing(), statistics)
    for a, b in zip(model.get_weights(), trained, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="`statistics` must hold an array for each of"):
        dynamic_evaluate(model, data, statistics[1:])
    with pytest.raises(ValueError, match="at least one batch"):
        gradient_statistics(model, [])


@pytest.mark.parametrize("size", [3, 8, 50])
def test_cache_equals_a_loop(size):
    model, data = model_of(), batches()
    sharpness, share = 0.7, 0.3
    result = cache_evaluate(model, data, size, sharpness, share)
    memories: list = [[] for _ in range(2)]
    total, state = 0.0, None
    for ids, targets, weights in data:
        features = model.features(ids, state, return_state=True, masks={})
        state = features.state
        hidden = keras.ops.convert_to_numpy(features.outputs)
        log_probs = keras.ops.convert_to_numpy(model.head(features.outputs, tables=model.tables))
        for row, memory in enumerate(memories):
            for step in range(ids.shape[1]):
                word, h = targets[row, step], hidden[row, step]
                p = np.exp(log_probs[row, step, word])
                if memory:
                    scores = np.array([np.exp(sharpness * h @ k) for k, _ in memory[-size:]])
                    hits = np.array([w == word for _, w in memory[-size:]])
                    p = (1 - share) * p + share * (scores * hits).sum() / scores.sum()
                total -= np.log(p) * weights[row, step]
                if weights[row, step]:
                    memory.append((h, word))
    np.testing.assert_allclose(result["nll"], total / result["tokens"], rtol=1e-4)


def test_cache_errors():
    with pytest.raises(ValueError, match="`size` must be positive and `share`"):
        cache_evaluate(model_of(), batches(), size=0)
    empty = [(ids, targets, 0 * weights) for ids, targets, weights in batches(count=1)]
    with pytest.raises(ValueError, match="at least one token that counts"):
        cache_evaluate(model_of(), empty)


def test_what_does_not_count_is_left_out():
    """An ignored target, and any target of weight zero, with weights of windows too."""
    ids, targets = IDS, (IDS + 1) % 7
    holes = targets.copy()
    holes[1:3] = -1
    counts = np.array([1, 0, 0, 1], "float32")
    plain, ignoring = language_model(), language_model(ignore_class=-1)
    ignoring.set_weights(plain.get_weights())
    statistics = [np.ones(v.shape, "float32") for v in plain.trainable_variables]
    for evaluate in (cache_evaluate, lambda m, d: dynamic_evaluate(m, d, statistics)):
        expected = evaluate(plain, [(ids[[0, 3]], targets[[0, 3]])])
        for model, batch in (
            (plain, (ids, holes, counts)),
            (plain, (ids, holes, np.repeat(counts[:, None], 4, axis=1))),
            (ignoring, (ids, holes)),
        ):
            assert evaluate(model, [batch]) == pytest.approx(expected, rel=1e-5)
