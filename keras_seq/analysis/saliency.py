"""Which words a prediction depends on: gradients with respect to the input vectors."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_seq.models import LanguageModel
from keras_seq.training.dynamic_evaluation import unpack_batch
from keras_seq.training.watching.gradients import log_probs, word_norms

TOP = 5


class Saliency(NamedTuple):
    """What the predictions over a passage depend on.

    Attributes:
        norms: (t, t) row: the output after that many words; column: the input word. Zero where the
            word comes after the output.
        top_ids: (t, k) the likeliest next words after each input word, likeliest first.
        top_probabilities: (t, k) their probabilities.
    """

    norms: np.ndarray
    top_ids: np.ndarray
    top_probabilities: np.ndarray


def saliency(model: LanguageModel, ids: Any, top: int = TOP) -> Saliency:
    """Gradient saliency of the words of a passage, for the word predicted after each of them.

    Mehta et al. (2018), section 4.3. With the input vectors x and the likeliest word w after step
    t,

        S[t, i] = || d log p(w | x_1 ... x_t) / d x_i ||_2

    Dropout is off, and the passage starts from the zero state.

    Args:
        model: a language model.
        ids: (t,) token ids.
        top: k, how many predictions are given; fewer in a smaller vocabulary.

    Raises:
        ValueError: if `ids` is not a sequence of one token or more, or `top` is not positive.

    Example:

    >>> core = keras_seq.layers.PRU(8)
    >>> model = keras_seq.models.LanguageModel(20, 8, core)
    >>> keras_seq.analysis.saliency(model, [3, 1, 4, 1]).norms.shape
    (4, 4)
    """
    ids = np.asarray(ids, np.int32)
    if ids.ndim != 1 or not ids.size:
        raise ValueError(
            f"`ids` must be a sequence of one token or more. Received: an array {ids.shape}."
        )
    if top < 1:
        raise ValueError(f"`top` must be positive. Received: top={top}.")
    model.build()
    vectors = tf.convert_to_tensor(model.embedding(ids[None]))
    best = tf.math.top_k(log_probs(model, vectors)[0], k=min(top, model.vocabulary_size))
    chosen = tf.cast(best.indices[:, 0], tf.int32)
    norms = word_norms(model, vectors, chosen)
    values = np.exp(best.values.numpy())
    return Saliency(norms, best.indices.numpy(), values)


def gradient_coverage(norms: np.ndarray, fraction: float = 0.1) -> float:
    """The share of the words read so far that a prediction depends on, mean over the predictions.

    After t words, the share of i <= t with `S[t, i] > fraction * max_j S[t, j]`. The mean is over
    the outputs after two words and more, since after one the share is always 1; the single output
    of a passage of one word counts.

    Args:
        norms: (t, t) of `saliency`.
        fraction: share of the maximum, in [0, 1).

    Raises:
        ValueError: if `norms` is not square or `fraction` is not in [0, 1).

    Example:

    >>> keras_seq.analysis.gradient_coverage(np.array([[1.0, 0.0], [0.05, 2.0]]))
    0.5
    """
    norms = np.asarray(norms)
    if norms.ndim != 2 or norms.shape[0] != norms.shape[1] or not norms.size:
        raise ValueError(f"`norms` must be square. Received: an array of shape {norms.shape}.")
    if not 0 <= fraction < 1:
        raise ValueError(f"`fraction` must be in [0, 1). Received: fraction={fraction}.")
    shares = [
        float(np.mean(row[: t + 1] > fraction * np.max(row[: t + 1])))
        for t, row in enumerate(norms)
    ]
    return float(np.mean(shares[1:] or shares))


def passages(dataset: Iterable, count: int, length: int) -> Iterator[np.ndarray]:
    """Passages of a text: from each row of each batch, the first inputs whose targets count.

    Args:
        dataset: batches `(ids, targets[, sample_weight])`.
        count: passages at most.
        length: tokens of each at most; passages of one token are left out.
    """
    found = 0
    for batch in dataset:
        ids, _, weights = unpack_batch(batch)
        for row, counts in zip(np.asarray(ids), np.asarray(weights) > 0, strict=True):
            passage = row[counts][:length]
            if found < count and passage.size > 1:
                found += 1
                yield passage
        if found >= count:
            return
