"""Gradients of predictions with respect to inputs."""

from typing import Any

import numpy as np
import tensorflow as tf

from keras_seq.layers.plain_layer import causal
from keras_seq.models import LanguageModel

_ROWS = 32  # copies of a passage that are differentiated at once


def log_probs(model: LanguageModel, vectors: Any) -> Any:
    """(b, t, v) from word vectors (b, t, e): the model after its embedding, without dropout."""
    result = causal(model.core)(
        vectors, initial_state=None, return_state=False, training=False, masks={}
    )
    hidden = result[0] if isinstance(result, tuple | list) else result
    return tf.cast(model.head(hidden, tables=model.tables, training=False), tf.float32)


def word_norms(model: LanguageModel, vectors: Any, words: Any) -> np.ndarray:
    """(t, t) norms of the gradients of the log-probability of a word after each step.

    Args:
        model: a language model.
        vectors: (1, t, e) the word vectors of a passage.
        words: (t,) the word that is looked at after each step.
    """
    steps, norms = int(vectors.shape[1]), []
    for start in range(0, steps, _ROWS):
        # One copy of the passage for each output: a copy's gradient is that of its output alone.
        outputs = tf.range(start, min(start + _ROWS, steps))
        norms.append(_norms(model, vectors, outputs, tf.gather(words, outputs)))
    return np.concatenate(norms)


def _norms(model: LanguageModel, vectors: Any, outputs: Any, words: Any) -> np.ndarray:
    rows = int(outputs.shape[0])
    copies = tf.repeat(vectors, rows, axis=0)
    with tf.GradientTape() as tape:
        tape.watch(copies)
        values = log_probs(model, copies)
        places = tf.stack([tf.range(rows), outputs, words], axis=1)
        total = tf.reduce_sum(tf.gather_nd(values, places))
    gradients: Any = tape.gradient(total, copies)
    return tf.norm(tf.cast(gradients, tf.float32), axis=-1).numpy()


def input_norms(model: Any, x: Any) -> np.ndarray:
    """(t,) norms of the gradient of a model's strongest output with respect to each input step.

    Args:
        model: a classifier, a regressor or a model of frames.
        x: (1, t, d) vectors, or (1, t) ids.
    """
    with tf.GradientTape() as tape:
        if model.embedding is None:
            vectors = tf.convert_to_tensor(x)
            tape.watch(vectors)
            outputs = model(vectors, training=False)
        else:
            vectors = model.embedding(x)
            tape.watch(vectors)
            outputs = _after_embedding(model, vectors)
        if len(outputs.shape) == 3:
            outputs = outputs[:, -1]
        strongest = tf.reduce_sum(tf.reduce_max(outputs, axis=-1))
    gradient: Any = tape.gradient(strongest, vectors)
    return tf.norm(tf.cast(gradient, tf.float32), axis=-1)[0].numpy()


def _after_embedding(model: Any, vectors: Any) -> Any:
    """The outputs of a reader of ids, from the vectors of the ids."""
    result = model.core(vectors, initial_state=None, return_state=False, training=False)
    hidden = result[0] if isinstance(result, tuple | list) else result
    return model.predict_from(hidden)
