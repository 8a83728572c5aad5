"""The embeddings of a vocabulary for TensorBoard's projector."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_seq import _files
from keras_seq.training.watching.labels import label

MOST = 10_000  # vectors; the browser gets them all
NAME = "embedding"


def word_vectors(model: Any, count: int) -> np.ndarray:
    """(n, e) the vectors that the first tokens enter a language model with."""
    size = 8192
    parts = [
        np.asarray(model.embedding(np.arange(start, min(start + size, count))[None])[0])
        for start in range(0, count, size)
    ]
    return np.concatenate(parts).astype(np.float32)


def write_embedding(folder: Path, model: Any, tokens: Sequence[bytes]) -> None:
    """Writes a checkpoint of the vectors, `metadata.tsv` and `projector_config.pbtxt`.

    Args:
        folder: the folder of an event file, since TensorBoard looks nowhere else.
        model: a language model.
        tokens: its vocabulary, in the order of the ids; of a large one, the beginning is taken.
    """
    import tensorflow as tf
    from google.protobuf import text_format
    from tensorboard.plugins import projector

    shown = [label(token) for token in tokens[:MOST]]
    lines = ["token\tid", *(f"{token}\t{i}" for i, token in enumerate(shown))]
    _files.write_text(folder / "metadata.tsv", "\n".join(lines) + "\n")
    with tf.device("CPU:0"):
        vectors = tf.Variable(word_vectors(model, len(shown)))
    # The path stays out of the configuration, so that the folder can be moved: TensorBoard looks
    # for the newest checkpoint.
    checkpoint = tf.train.Checkpoint(**{NAME: vectors})
    tf.train.CheckpointManager(checkpoint, str(folder), 1, checkpoint_name=NAME).save()
    config = projector.ProjectorConfig()
    entry = config.embeddings.add()
    entry.tensor_name = f"{NAME}/.ATTRIBUTES/VARIABLE_VALUE"
    entry.metadata_path = "metadata.tsv"
    _files.write_text(folder / "projector_config.pbtxt", text_format.MessageToString(config))
