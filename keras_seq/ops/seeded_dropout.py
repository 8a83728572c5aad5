"""Dropout of single values, as a function of one seed a call.

A network whose masks have the size of its activations draws one seed a call instead of many masks.
Every place where values are dropped derives its own seed from it, so that the same seed gives the
same masks.
"""

from keras import ops

from keras_seq._random import DrawnSeed, bernoulli_mask

_PLACE_STEP = 15_485_863  # between the seeds of two places; a prime far from the step of replicas


def seed_of_place(seed, place: int):
    """The seed of a place; `None` stays `None`."""
    if seed is None:
        return None
    step = ops.convert_to_tensor([(place * _PLACE_STEP) % (2**31), 0], dtype=seed.dtype)
    return seed + step


def seeded_mask(shape, rate: float, seed, dtype):
    """The mask of a place where values are dropped; `None` without dropout.

    Args:
        shape: the mask's shape; entries may be scalar tensors.
        rate: the probability of a zero.
        seed: a seed tensor of shape (2,), good for one draw; `None` for no dropout.
        dtype: the mask's type.
    """
    if seed is None or not rate:
        return None
    return bernoulli_mask(shape, rate, DrawnSeed(seed), dtype)


def seeded_dropout(x, rate: float, seed):
    """`x` with single values dropped and the others scaled by 1 / (1 - rate).

    Args:
        x: a float tensor.
        rate: the probability of a zero.
        seed: a seed tensor of shape (2,), good for one draw; `None` for no dropout.
    """
    mask = seeded_mask(ops.shape(x), rate, seed, x.dtype)
    return x if mask is None else x * mask
