"""The continuous cache: a language model's memory of the last words and where they occurred."""

from collections.abc import Iterable

import tensorflow as tf

from keras_seq.models import LanguageModel
from keras_seq.models.sample_weights import blank
from keras_seq.training.dynamic_evaluation import Reader, summary, unpack_scored

_NEVER = -1e30


def cache_evaluate(
    model: LanguageModel,
    dataset: Iterable,
    size: int = 500,
    sharpness: float = 0.66,
    share: float = 0.13,
) -> dict[str, float]:
    """Evaluates a language model together with a neural cache.

    Grave, Joulin and Usunier, *Improving Neural Language Models with a Continuous Cache* (2017),
    section 3. With the hidden values hᵢ of the last `size` tokens and the words xᵢ₊₁ that followed:

        p_cache(w) ∝ Σᵢ exp(θ hₜ·hᵢ) [w = xᵢ₊₁],    p(w) = (1 - λ) p_model(w) + λ p_cache(w)

    While the cache is empty, p is the model's. Every row of a batch has a cache of its own. The
    model is not changed.

    Args:
        model: a trained language model.
        dataset: batches `(ids, targets[, sample_weight])`, windows in the order of the text. Tokens
            of weight 0 (padding, and context that an earlier window has scored) do not enter the
            cache.
        size: number of tokens that are remembered.
        sharpness: θ.
        share: λ, in [0, 1).

    Returns:
        `nll` (mean per token, in nats), `perplexity`, `bits` and `tokens`.

    Raises:
        ValueError: if `size` is not positive or `share` not in [0, 1), or no token counts.
    """
    if size < 1 or not 0 <= share < 1:
        raise ValueError(
            f"`size` must be positive and `share` in [0, 1). Received: size={size}, share={share}."
        )
    reader = Reader(model)

    @tf.function
    def step(ids, targets, weights, state, memory):
        nll, hidden, state = reader.read(ids, targets, state)
        hidden, targets = tf.cast(hidden, tf.float32), tf.cast(targets, tf.int32)
        keys, words, valid = (
            tf.concat([old, new], axis=1)
            for old, new in zip(memory, (hidden, targets, weights > 0), strict=True)
        )
        steps = tf.shape(targets)[1]
        # Token j of the window is entry `size + j`; it sees the `size` valid entries before it.
        place = tf.range(size + steps)[None, None]
        now = size + tf.range(steps)[None, :, None]
        rank = tf.cumsum(tf.cast(valid, tf.int32), axis=1)  # the number of valid ones up to each
        before = tf.gather(rank, now[0, :, 0] - 1, axis=1)[:, :, None]
        seen = valid[:, None] & (place < now) & (before - rank[:, None] < size)
        scores = sharpness * tf.matmul(hidden, keys, transpose_b=True)
        attention = tf.nn.softmax(tf.where(seen, scores, _NEVER), axis=-1)
        same = seen & (words[:, None] == targets[:, :, None])
        cached = tf.reduce_sum(tf.where(same, attention, 0.0), axis=-1)
        model_part = tf.exp(-tf.cast(nll, tf.float32))
        mixed = -tf.math.log((1 - share) * model_part + share * cached)
        loss = tf.where(tf.reduce_any(seen, axis=-1), mixed, tf.cast(nll, tf.float32))
        memory = _last_valid((keys, words, valid), size)
        return tf.reduce_sum(blank(loss, weights) * weights), state, memory

    loss, tokens, state, memory = 0.0, 0.0, None, None
    for batch in dataset:
        ids, targets, weights = unpack_scored(batch, model)
        if memory is None:
            rows = ids.shape[0]
            state = reader.start(rows)
            memory = (
                tf.zeros((rows, size, model.core.output_units)),
                tf.zeros((rows, size), tf.int32),
                tf.zeros((rows, size), tf.bool),
            )
        total, state, memory = step(ids, targets, weights, state, memory)
        loss += float(total)
        tokens += float(tf.reduce_sum(weights))
    return summary(loss, tokens)


def _last_valid(entries: tuple, size: int) -> tuple:
    """The last `size` valid entries of each row, in order, at the end; others before them."""
    order = tf.argsort(tf.cast(entries[2], tf.int32), axis=1, stable=True)[:, -size:]
    return tuple(tf.gather(entry, order, axis=1, batch_dims=1) for entry in entries)
