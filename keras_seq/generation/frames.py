"""Tunes, frame by frame over an explicit state."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_seq.generation.note_sampling import check_note_options, sample_notes
from keras_seq.generation.sampling import as_tensor, check_length_and_seed
from keras_seq.generation.stepping import stepper
from keras_seq.models import FrameModel


def generate_frames(
    model: keras.Model,
    prime: Any = None,
    length: int = 200,
    temperature: float = 1.0,
    top_notes: int = 0,
    seed: int = 0,
) -> Iterator[np.ndarray]:
    """Continues a tune, and yields each frame as soon as it is made.

    The frames of the prime are read in one pass; each further frame is one step on the exact
    streaming state. On one machine, one seed gives one tune.

    Args:
        model: a `FrameModel`.
        prime: (t, notes) zeros and ones, the tune to continue; `None` for one frame of silence.
        length: number of frames to make.
        temperature: not negative, see `sample_notes`.
        top_notes: only the so many likeliest notes of a frame may sound; 0 for all.
        seed: an integer.

    Yields:
        Frames (notes,) of zeros and ones in uint8, those of the prime not included.

    Raises:
        TypeError: if `model` is no `FrameModel`.
        ValueError: for an option out of range, or a prime of another width than the model's.

    Example:

    >>> core = keras_seq.layers.RTransformer(units=8, levels=1, window=3, heads=2, span=16)
    >>> model = keras_seq.models.FrameModel(core, notes=88)
    >>> model.build((None, None, 88))
    >>> len(list(keras_seq.generation.generate_frames(model, length=5)))
    5
    """
    if not isinstance(model, FrameModel):
        raise TypeError(f"`model` must be a FrameModel. Received: model={model!r}.")
    check_note_options(temperature, top_notes)
    check_length_and_seed(length, seed)
    silence = np.zeros((1, model.notes), "float32")
    prime = silence if prime is None else np.asarray(prime, "float32")
    if prime.ndim != 2 or prime.shape[1] != model.notes or not len(prime):
        raise ValueError(
            f"`prime` must be of shape (t, {model.notes}) with a frame or more. Received: "
            f"prime.shape={prime.shape}."
        )
    options = (as_tensor(temperature, tf.float32), as_tensor(top_notes, tf.int32))
    return _frames(model, prime, length, *options, seed)


def _frames(model, prime, length: int, temperature, top_notes, seed: int):
    steps = stepper(model)

    def draw(pair, temperature, top_notes, inputs, *state):
        logits, state = steps.advance(inputs, *state)
        return sample_notes(logits[:, -1], temperature, top_notes, pair), state

    draw_notes = steps.compiled("notes", draw)
    state, feed = steps.initial_state(1), tf.constant(prime[None])
    for position in range(length):
        frame, state = draw_notes(
            tf.constant([seed, position]), temperature, top_notes, feed, *state
        )
        feed = frame[:, None]
        yield frame[0].numpy().astype(np.uint8)
