"""How sure a language model is: the entropy of each of its predictions."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_seq.models import LanguageModel
from keras_seq.training.dynamic_evaluation import Reader, unpack_scored

_NUMBERS = 1 << 24  # log-probabilities that are held at once


class Predictions(NamedTuple):
    """What a model predicts for each token of a text.

    Attributes:
        entropies: (n,) the entropy of the predicted distribution, in nats.
        losses: (n,) the negative log-likelihood of the token that came, in nats.
    """

    entropies: np.ndarray
    losses: np.ndarray


def predict_entropies(model: LanguageModel, dataset: Iterable) -> Predictions:
    """Entropy of the next-token distribution at every token of a text that counts.

    `-sum_w p(w) log p(w)` over the whole vocabulary, as in the histograms of Mehta et al. (2018),
    section 4.3. Dropout is off, and the state is carried where the model carries one.

    Args:
        model: a language model.
        dataset: batches `(ids, targets[, sample_weight])`, windows in the order of the text.

    Raises:
        ValueError: if no token counts.

    Example:

    >>> core = keras_seq.layers.PRU(8)
    >>> model = keras_seq.models.LanguageModel(20, 8, core)
    >>> ids = np.random.randint(0, 20, (2, 5))
    >>> found = keras_seq.analysis.predict_entropies(model, [(ids, ids)])
    >>> found.entropies.shape, bool(np.all(found.entropies <= np.log(20) + 1e-5))
    ((10,), True)
    """
    reader = Reader(model)
    rows = max(1, _NUMBERS // model.vocabulary_size)

    @tf.function(reduce_retracing=True)
    def read(ids, targets, weights, state):
        nll, hidden, state = reader.read(ids, targets, state)
        counts = weights > 0
        return tf.boolean_mask(nll, counts), tf.boolean_mask(hidden, counts), state

    entropies, losses, state = [], [], None
    for number, batch in enumerate(dataset):
        ids, targets, weights = unpack_scored(batch, model)
        state = reader.start(ids.shape[0]) if number == 0 else state
        nll, hidden, state = read(ids, targets, weights, state)
        losses.append(nll.numpy())
        for start in range(0, int(hidden.shape[0]), rows):
            entropies.append(_entropy(model, hidden[start : start + rows]))
    if not sum(map(len, losses)):
        raise ValueError("`dataset` must hold at least one token that counts. Received: none.")
    return Predictions(np.concatenate(entropies), np.concatenate(losses))


def entropy_histogram(entropies: np.ndarray, vocabulary_size: int, bins: int = 50) -> dict:
    """Counts of entropies in equal bins from 0 to the largest that is possible.

    Args:
        entropies: (n,) in nats.
        vocabulary_size: v; the largest entropy is log v.
        bins: number of bins.

    Returns:
        A dictionary: `edges` (bins + 1), `counts` (bins), `tokens`, and `mean`, `median` and
        `deviation` of the entropies.

    Raises:
        ValueError: if there is no bin or no entropy.
    """
    entropies = np.asarray(entropies, np.float64)
    if bins < 1 or not entropies.size:
        raise ValueError(
            "`bins` must be positive and `entropies` hold at least one. Received: "
            f"bins={bins} and {entropies.size} entropies."
        )
    top = max(float(np.log(vocabulary_size)), 1e-12)
    clipped = np.clip(entropies, 0.0, top)  # rounding may pass the ends
    counts, edges = np.histogram(clipped, bins=bins, range=(0.0, top))
    histogram: dict[str, Any] = {
        "tokens": int(entropies.size),
        "mean": float(np.mean(entropies)),
        "median": float(np.median(entropies)),
        "deviation": float(np.std(entropies)),
        "edges": edges.tolist(),
        "counts": counts.tolist(),
    }
    return histogram


def _entropy(model: LanguageModel, hidden) -> np.ndarray:
    log_probs = tf.cast(model.head(hidden, tables=model.tables, training=False), tf.float32)
    terms = tf.math.multiply_no_nan(log_probs, tf.exp(log_probs))  # 0 where p is 0
    return -tf.reduce_sum(terms, axis=-1).numpy()
