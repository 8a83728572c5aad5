"""Every number of an analysis against a small case worked out by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_seq import analysis
from keras_seq.analysis.saliency import passages
from keras_seq.layers import (
    PRU,
    AdaptiveEmbedding,
    AdaptiveSoftmax,
    MixtureOfSoftmaxes,
    RecurrentStack,
    TrellisNet,
)
from keras_seq.models import LanguageModel
from keras_seq.pipelines import Vocabulary


class Sum(keras.layers.Layer):
    """A causal layer with a known gradient: the weighted sum of all inputs so far."""

    output_units = 2

    def __init__(self, decay=0.5, **kwargs):
        super().__init__(**kwargs)
        self.decay = decay

    def call(self, x, initial_state=None, return_state=False, training=None):
        steps = tf.shape(x)[1]
        age = tf.cast(tf.range(steps)[:, None] - tf.range(steps)[None], x.dtype)
        weights = tf.where(age >= 0, self.decay ** tf.maximum(age, 0.0), 0.0)
        outputs = tf.einsum("ti,bie->bte", weights, x)
        return (outputs, outputs[:, -1]) if return_state else outputs

    def get_initial_state(self, batch_size):
        return tf.zeros((batch_size, 2))

    def compute_output_shape(self, input_shape):
        return input_shape


VECTORS = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.5]], "float32")


def linear_model():
    model = LanguageModel(3, 2, Sum())
    model.build()
    model.embedding.embeddings.assign(VECTORS)
    model.head.bias.assign([0.0, 0.3, -0.2])
    return model


def log_softmax(x):
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def test_saliency_of_a_linear_model():
    model, ids = linear_model(), [2, 0, 1, 1]
    found = analysis.saliency(model, ids)
    inputs = VECTORS[ids]
    assert found.norms.shape == (4, 4)
    for t in range(4):
        hidden = sum(0.5 ** (t - i) * inputs[i] for i in range(t + 1))
        log_probs = log_softmax(VECTORS @ hidden + np.array([0.0, 0.3, -0.2]))
        order = np.argsort(-log_probs)
        np.testing.assert_array_equal(found.top_ids[t], order)  # three words: fewer than five
        np.testing.assert_allclose(found.top_probabilities[t], np.exp(log_probs[order]), rtol=1e-5)
        # d log p(w) / dh = E[w] - sum_v p(v) E[v], and dh / dx_i = 0.5 ** (t - i).
        slope = np.linalg.norm(VECTORS[order[0]] - np.exp(log_probs) @ VECTORS)
        wanted = [slope * 0.5 ** (t - i) if i <= t else 0.0 for i in range(4)]
        np.testing.assert_allclose(found.norms[t], np.array(wanted), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "core",
    [
        lambda: RecurrentStack([PRU(8, groups=2), PRU(6)], dropout=0.3, output_dropout=0.3),
        lambda: TrellisNet(units=8, output_units=6, levels=3),
    ],
)
def test_saliency_equals_finite_differences(core):
    """A passage longer than the copies made at once, and one gradient against its definition."""
    model = LanguageModel(9, 6, core(), carry_state=True, embedding_dropout=0.5, seed=1)
    model.build()
    for index, weight in enumerate(model.trainable_variables):
        weight.assign(np.random.default_rng(index).normal(size=weight.shape) * 0.5)
    ids = np.random.default_rng(0).integers(0, 9, 35)
    norms = analysis.saliency(model, ids).norms
    assert not np.triu(norms, 1).any()
    t, i, step = 33, 32, 1e-2
    vectors = model.embedding(ids[None]).numpy()
    word = int(np.argmax(model(ids[None])[0, t]))

    def log_prob(x):
        hidden = model.core(x, training=False)
        return float(model.head(hidden, tables=model.tables)[0, t, word])

    slopes = []
    for axis in range(6):
        shift = np.zeros_like(vectors)
        shift[0, i, axis] = step
        slopes.append((log_prob(vectors + shift) - log_prob(vectors - shift)) / (2 * step))
    assert norms[t, i] == pytest.approx(np.linalg.norm(slopes), rel=2e-2)


def test_gradient_coverage():
    norms = np.array([[3.0, 9.0, 9.0], [0.2, 1.0, 9.0], [0.1, 0.5, 1.0]])
    # After two words 2 of 2 exceed a tenth of 1.0, after three 2 of 3: 0.1 is no more than it.
    assert analysis.gradient_coverage(norms) == pytest.approx((1 + 2 / 3) / 2)
    assert analysis.gradient_coverage(norms, 0.6) == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert analysis.gradient_coverage(norms[:1, :1]) == 1
    assert analysis.gradient_coverage(np.zeros((3, 3))) == 0


def test_entropies_and_losses():
    model = linear_model()
    ids, targets = np.array([[2, 0, 1], [1, 1, 0]]), np.array([[0, 1, 1], [1, 0, 2]])
    weights = np.array([[1, 1, 0], [0, 1, 1]], "float32")
    found = analysis.predict_entropies(model, [(ids, targets, weights)])
    log_probs = model(ids).numpy()
    entropies = -(np.exp(log_probs) * log_probs).sum(-1)
    losses = -np.take_along_axis(log_probs, targets[..., None], -1)[..., 0]
    np.testing.assert_allclose(found.entropies, entropies[weights > 0], rtol=1e-5)
    np.testing.assert_allclose(found.losses, losses[weights > 0], rtol=1e-5)
    with pytest.raises(ValueError, match="at least one token"):
        analysis.predict_entropies(model, [(ids, targets, 0 * weights)])


@pytest.mark.parametrize(
    "head",
    [
        lambda: MixtureOfSoftmaxes(30, experts=3, embedding_dim=5, tied=False),
        lambda: AdaptiveSoftmax(30, cutoffs=[5, 12]),
    ],
)
def test_every_head_gives_entropies_and_saliency(head):
    model = LanguageModel(30, 8, RecurrentStack([PRU(8)]), head=head(), seed=1)
    ids = np.random.default_rng(0).integers(0, 30, (2, 4))
    log_probs = model(ids).numpy()
    found = analysis.predict_entropies(model, [(ids, ids)])
    entropies = -(np.exp(log_probs) * log_probs).sum(-1)
    np.testing.assert_allclose(found.entropies, entropies.ravel(), rtol=1e-4)
    seen = analysis.saliency(model, ids[0])
    np.testing.assert_array_equal(seen.top_ids[:, 0], log_probs[0].argmax(-1))
    assert np.all(np.diagonal(seen.norms) > 0)


def test_a_uniform_and_a_certain_prediction():
    model = linear_model()
    model.embedding.embeddings.assign(0 * VECTORS)
    for bias, wanted in (([0.0, 0.0, 0.0], np.log(3)), ([0.0, 500.0, 0.0], 0.0)):
        model.head.bias.assign(bias)
        found = analysis.predict_entropies(model, [(np.array([[0, 1]]), np.array([[1, 1]]))])
        np.testing.assert_allclose(found.entropies, wanted, rtol=1e-6)


def test_the_state_is_carried_from_window_to_window():
    core = RecurrentStack([PRU(6)])
    model = LanguageModel(9, 6, core, carry_state=True, seed=1)
    ids = np.random.default_rng(0).integers(0, 9, (2, 8))
    whole = analysis.predict_entropies(model, [(ids, ids)]).entropies.reshape(2, 8)
    parts = [(ids[:, :4], ids[:, :4]), (ids[:, 4:], ids[:, 4:])]
    found = analysis.predict_entropies(model, parts).entropies.reshape(2, 2, 4)
    np.testing.assert_allclose(np.concatenate(found, axis=-1), whole, rtol=1e-5)


def test_entropy_histogram():
    found = analysis.entropy_histogram(np.array([0.0, 0.1, 0.4, np.log(2) + 1e-6]), 2, bins=2)
    assert found["counts"] == [2, 2]
    np.testing.assert_allclose(found["edges"], [0, np.log(2) / 2, np.log(2)])
    assert found["tokens"] == 4
    assert found["median"] == pytest.approx(0.25)
    assert found["mean"] == pytest.approx((0.5 + np.log(2)) / 4, rel=1e-5)


def test_variance_by_band():
    vectors = np.array([[0.0, 0.0], [4.0, 0.0], [1.0, 1.0], [1.0, 3.0], [9.0, 9.0]])
    counts = np.array([5, 7, 1, 7, 0])  # ranks: 1, 3, 0, 2, 4
    bands = analysis.variance_by_band(vectors, counts, edges=[2, 4])
    assert [(b["first"], b["last"], b["words"]) for b in bands] == [(1, 2, 2), (3, 4, 2), (5, 5, 1)]
    assert [(b["most"], b["least"]) for b in bands] == [(7, 7), (5, 1), (0, 0)]
    # (4, 0) and (1, 3): variances 2.25 and 2.25. (0, 0) and (1, 1): 0.25 and 0.25.
    assert [b["variance"] for b in bands] == pytest.approx([2.25, 0.25, 0.0])
    assert [b["last"] for b in analysis.variance_by_band(np.eye(40), np.arange(40))] == [10, 30, 40]
    with pytest.raises(ValueError, match="rise"):
        analysis.variance_by_band(vectors, counts, edges=[3, 2])
    with pytest.raises(ValueError, match="`counts`"):
        analysis.variance_by_band(vectors, counts[:3])


def test_variance_by_tag(tmp_path):
    file = tmp_path / "tags.tsv"
    file.write_text("run\tverb\nrun\tnoun\ncat\tnoun\n\ncat\tnoun\nsits\tverb\nfly\tverb\n")
    tagged = analysis.read_tags(file)
    assert tagged == {"verb": [b"run", b"sits", b"fly"], "noun": [b"run", b"cat"]}
    file.write_text(file.read_text(), encoding="utf-8-sig")
    assert analysis.read_tags(file) == tagged
    vocabulary = Vocabulary(["cat", "run", "sits"])
    vectors = np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 6.0]])
    rows = analysis.variance_by_tag(vectors, vocabulary, tagged)
    assert rows == [
        {"tag": "noun", "words": 2, "variance": 0.5},
        {"tag": "verb", "words": 2, "variance": 4.5},
    ]
    with pytest.raises(ValueError, match="None of the tagged words"):
        analysis.variance_by_tag(vectors, vocabulary, {"noun": [b"dog"]})
    file.write_text("cat\tnoun\nrun verb\n")
    with pytest.raises(ValueError, match="line 2"):
        analysis.read_tags(file)


def test_count_tokens():
    targets = np.array([[0, 1, 1], [2, 0, 1]])
    weights = np.array([[1, 1, 0], [0, 1, 1]], "float32")
    assert analysis.count_tokens([(targets, targets, weights)], 4).tolist() == [2, 2, 0, 0]
    assert analysis.count_tokens([(targets, targets)], 4, history=1).tolist() == [1, 3, 0, 0]


def test_passages_hold_the_inputs_that_count():
    ids = np.array([[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 1, 2]])
    weights = np.array([[0, 1, 1, 1], [0, 1, 0, 0], [1, 1, 0, 0]], "float32")
    batches = [(ids, ids, weights)] * 2
    found = [list(p) for p in passages(batches, 3, 2)]
    assert found == [[1, 2], [8, 9], [1, 2]]  # the row of one token is left out


def test_word_vectors_of_an_embedding_in_clusters():
    embedding = AdaptiveEmbedding(12, 8, cutoffs=[4], div_value=2)
    core = TrellisNet(units=8, output_units=8, levels=2)
    model = LanguageModel(12, 8, core, head="softmax", embedding=embedding)
    vectors = analysis.word_vectors(model)
    assert vectors.shape == (12, 8)
    rare = embedding.tables[1].numpy()[3] @ embedding.projections[1].numpy().T * 8**0.5
    np.testing.assert_allclose(vectors[7], rare, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda: analysis.saliency(linear_model(), []), "`ids`"),
        (lambda: analysis.saliency(linear_model(), [1], top=0), "`top`"),
        (lambda: analysis.gradient_coverage(np.ones((2, 3))), "square"),
        (lambda: analysis.gradient_coverage(np.ones((2, 2)), 1.0), "`fraction`"),
        (lambda: analysis.entropy_histogram(np.ones(0), 3), "`bins`"),
    ],
)
def test_wrong_arguments(function, message):
    with pytest.raises(ValueError, match=message):
        function()
