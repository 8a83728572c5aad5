"""Graphs with written-out gradients, which TensorFlow keeps for good."""

import contextlib
from collections.abc import Iterator

from keras_seq._backend import tf


@contextlib.contextmanager
def graphs_released() -> Iterator[None]:
    """Lets go of graphs with custom gradients that were made within, once nothing else holds them.

    TensorFlow registers the gradient of each use of `tf.custom_gradient` in a graph under a name of
    its own, for good, and with it keeps the whole graph: a process that trains one small model
    after the other grows by 6 to 17 MB with each. Leave the context when no gradient of these
    graphs is to be made any more. If TensorFlow moves its private list, they stay.

    Example:

    >>> ids = np.zeros((2, 6), "int32")
    >>> with keras_seq.gradients.graphs_released():
    ...     model = keras_seq.models.LanguageModel(9, 8, keras_seq.layers.LSTM(8), seed=0)
    ...     model.compile("sgd")
    ...     history = model.fit(ids, ids, verbose=0)
    >>> len(history.history["loss"])
    1
    """
    names = _gradient_names()
    before = set(names)
    try:
        yield
    finally:
        for name in set(names) - before:
            if name.startswith("CustomGradient-"):
                del names[name]


def _gradient_names() -> dict:
    if tf is None:
        return {}
    try:
        from tensorflow.python.framework.ops import gradient_registry

        return gradient_registry._registry
    except (ImportError, AttributeError):
        return {}
