"""Rows of different length in one request, each answered as if it were alone."""

from typing import Any

import keras
import tensorflow as tf

from keras_seq.export.signatures import require, same_rows
from keras_seq.export.weights import StoredWeights
from keras_seq.generation.stepping import input_spec
from keras_seq.models import LanguageModel
from keras_seq.models.padded_rows import PaddedRows

LENGTHS = tf.TensorSpec((None,), tf.int32)
OF_LENGTHS = "_of_lengths"  # ends the name of a signature that takes them


class ServedRows:
    """A model over padded rows, as one graph that several signatures share.

    Attributes:
        read: (x, lengths) → what the head of a `LanguageModel` reads, or the outputs of another
            model. At padding stands what is at the last step of the row.

    Args:
        model: the model, one of those that take lengths.
        weights: its weights as they are stored.
    """

    def __init__(self, model: keras.Model, weights: StoredWeights):
        self._model, self._weights = model, weights
        inputs: Any = [input_spec(model), LENGTHS]
        self.read = tf.function(self._read, input_signature=inputs, autograph=False)

    def _read(self, x, lengths):
        inputs, model = {"inputs": x, "lengths": lengths}, self._model
        with self._weights.scope():
            if isinstance(model, LanguageModel):
                return model.features(inputs, training=False).outputs
            return model(inputs, training=False)

    def log_probs(self, hidden):
        """(b, t, v), of what a `LanguageModel` read."""
        model: Any = self._model
        with self._weights.scope():
            return model.head(hidden, tables=model.tables, training=False)


def takes_lengths(model: keras.Model) -> bool:
    """Whether a model reads rows of different length; one of a user's own need not."""
    return isinstance(model, PaddedRows)


def padded(x, lengths, name: str) -> tuple[Any, Any]:
    """An input (b, t, ...) with zeros at padding, and the lengths, if they can be; refused else."""
    lengths = same_rows(lengths, "lengths", tf.shape(x)[0], name)
    steps = tf.shape(x)[1]
    right = (lengths >= 1) & (lengths <= steps)
    lengths = require(right, "`lengths` must be from 1 to t.", lengths, lengths)
    valid = tf.sequence_mask(lengths, steps)
    for _ in x.shape[2:]:
        valid = valid[..., None]
    return tf.where(valid, x, tf.zeros_like(x)), lengths
