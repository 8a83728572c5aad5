"""Dynamic evaluation: a language model that learns from the text that it is evaluated on."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from keras import ops

from keras_seq._backend import densify
from keras_seq._tasks import LANGUAGE_MODEL
from keras_seq.models import LanguageModel
from keras_seq.models.sample_weights import aligned, blank


def unpack_batch(batch) -> tuple[Any, Any, Any]:
    """Ids, targets and weights (b, t) of an evaluation batch; ones where there are no weights."""
    ids, targets, *given = batch
    weights = aligned(given[0] if given else None, targets, "float32")
    return ids, targets, tf.ones(targets.shape) if weights is None else weights


def unpack_scored(batch, model: LanguageModel) -> tuple[Any, Any, Any]:
    """The same for a model, which may ignore a target; targets that do not count are zeros."""
    ids, targets, weights = unpack_batch(batch)
    return ids, *model.scored(targets, weights, "float32")


class Reader:
    """Reads windows of a text one after the other, with the state where the model carries one.

    Args:
        model: the model.
    """

    def __init__(self, model: LanguageModel):
        model.build()
        self.model = model

    def start(self, batch_size: int):
        """The state before the first window; `None` if the model carries none."""
        return self.model.get_initial_state(batch_size) if self.model.carry_state else None

    def read(self, ids, targets, state):
        """A window: loss of each token (b, t), hidden values (b, t, d), and the state after it."""
        carries = state is not None
        features = self.model.features(ids, state, return_state=carries, training=False, masks={})
        nll = self.model.head.nll(features.outputs, targets, tables=self.model.tables)
        return nll, features.outputs, features.state


def gradient_statistics(
    model: LanguageModel, dataset: Iterable, batches: int | None = None
) -> list[np.ndarray]:
    """The root mean square of each weight's gradient over batches of the training text.

    Krause et al., *Dynamic Evaluation of Neural Sequence Models* (2018), section 5.2. Dropout is
    off.

    Args:
        model: a trained language model.
        dataset: training batches `(ids, targets)`.
        batches: how many to use; `None` for all.

    Returns:
        An array for each trainable weight.

    Raises:
        ValueError: if there is no batch.
    """
    reader, step = Reader(model), None
    squares = [tf.Variable(tf.zeros(v.shape), trainable=False) for v in model.trainable_variables]
    count, state = 0, None
    for batch in dataset:
        if count == batches:
            break
        ids, targets, weights = unpack_scored(batch, model)
        if step is None:
            state = reader.start(ids.shape[0])
            step = _gradient_step(reader)
        _, gradients, state = step(ids, targets, weights, state)
        for square, gradient in zip(squares, gradients, strict=True):
            square.assign_add(gradient**2)
        count += 1
    if not count:
        raise ValueError("`dataset` must hold at least one batch. Received: an empty one.")
    return [np.sqrt(square.numpy() / count) for square in squares]


def dynamic_evaluate(
    model: LanguageModel,
    dataset: Iterable,
    statistics: Sequence[np.ndarray],
    learning_rate: float = 0.002,
    decay: float = 0.02,
    epsilon: float = 0.001,
) -> dict[str, float]:
    """Evaluates a language model that adapts to the text that it has scored already.

    Krause, Kahembwe, Murray and Renals, *Dynamic Evaluation of Neural Sequence Models* (ICML 2018),
    equations 6 to 9. Each window is scored with the weights θ of the moment; then

        θ ← θ - η ∇L / (RMS + ε) + min(λ RMS / mean(RMS), 1) (θ₀ - θ)

    with the trained weights θ₀ and the root mean square of the training gradients. The model's
    weights are those from before when the function returns, or fails.

    Args:
        model: a trained language model.
        dataset: batches `(ids, targets[, sample_weight])`, windows in the order of the text. The
            rows of a batch are adapted to together; the paper has one row and 5 steps.
        statistics: what `gradient_statistics` returned.
        learning_rate: η.
        decay: λ; 0 for none.
        epsilon: ε.

    Returns:
        `nll` (mean per token, in nats), `perplexity`, `bits` and `tokens`.

    Raises:
        ValueError: if the statistics are not those of this model, or no token counts.
    """
    variables = model.trainable_variables
    shapes = [tuple(variable.shape) for variable in variables]
    if [np.shape(rms) for rms in statistics] != shapes:
        raise ValueError(
            f"`statistics` must hold an array for each of the {len(shapes)} trainable weights, of "
            "its shape. Received: others. Compute them with this model."
        )
    mean = np.sum([np.sum(rms, dtype=np.float64) for rms in statistics])
    mean = max(mean / sum(np.size(rms) for rms in statistics), 1e-30)
    scales = [tf.constant(learning_rate / (rms + epsilon), tf.float32) for rms in statistics]
    pulls = [tf.constant(np.minimum(decay * rms / mean, 1), tf.float32) for rms in statistics]
    reader = Reader(model)
    with _weights_kept(model) as trained:
        gradient_step = _gradient_step(reader)

        @tf.function
        def step(ids, targets, weights, state):
            total, gradients, state = gradient_step(ids, targets, weights, state)
            parts = zip(variables, gradients, scales, pulls, trained, strict=True)
            for variable, gradient, scale, pull, start in parts:
                value = tf.convert_to_tensor(variable.value)
                variable.value.assign(value - scale * gradient + pull * (start - value))
            return total, state

        loss, tokens, state, first = 0.0, 0.0, None, True
        for batch in dataset:
            ids, targets, weights = unpack_scored(batch, model)
            state = reader.start(ids.shape[0]) if first else state
            first = False
            total, state = step(ids, targets, weights, state)
            loss += float(total)
            tokens += float(tf.reduce_sum(weights))
    return summary(loss, tokens)


def summary(loss: float, tokens: float) -> dict[str, float]:
    """The figures of an evaluation from the sum of the losses."""
    if not tokens:
        raise ValueError("`dataset` must hold at least one token that counts. Received: none.")
    nll = loss / tokens
    figures = {m.key: m.of_nll(nll) for m in LANGUAGE_MODEL.metrics if m.of_nll is not None}
    return {**figures, "tokens": tokens}


def _gradient_step(reader: Reader):
    """A function from a window to the sum of its losses, gradients of their mean, and the state."""
    variables = reader.model.trainable_variables

    @tf.function
    def step(ids, targets, weights, state):
        with tf.GradientTape() as tape:
            nll, _, state = reader.read(ids, targets, state)
            total = tf.reduce_sum(blank(nll, weights) * weights)
            loss = total / tf.maximum(tf.reduce_sum(weights), 1e-8)
        gradients: Any = tape.gradient(loss, [variable.value for variable in variables])
        dense = [
            tf.zeros(variable.shape) if gradient is None else ops.cast(densify(gradient), "float32")
            for gradient, variable in zip(gradients, variables, strict=True)
        ]
        return total, dense, state

    return step


@contextlib.contextmanager
def _weights_kept(model: LanguageModel) -> Iterator[list]:
    """Gives the trained weights, and puts them back at the end."""
    variables = model.trainable_variables
    kept = [tf.identity(tf.convert_to_tensor(variable.value)) for variable in variables]
    try:
        yield kept
    finally:
        for variable, value in zip(variables, kept, strict=True):
            variable.assign(value)
