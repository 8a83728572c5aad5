"""Random draws that differ between the replicas of a `tf.distribute` strategy."""

import keras
from keras import ops

from keras_seq import _backend

_REPLICA_STEP = 1_000_003  # between the seeds of two replicas; seeds of layers are usually close


class DrawnSeed(keras.random.SeedGenerator):
    """A seed that was drawn already, in the only form that `keras.random` takes: a generator.

    Every draw with it gives the same numbers, so it is good for one draw.

    Args:
        value: integer tensor of shape (2,).
    """

    def __init__(self, value):  # owns no variable, so it does not call its parent's constructor
        self.value = value

    def next(self, ordered=True):
        return self.value


def draw_seed(generator: keras.random.SeedGenerator) -> DrawnSeed:
    """Draws the next seed of a generator, a different one on each replica.

    Keras' own `Dropout` gives every replica of a strategy the same mask, since each reads the same
    generator state. Here the replica's id enters the seed, so that replicas are independent and a
    run stays reproducible.

    Args:
        generator: the `SeedGenerator` that the calling layer owns.

    Returns:
        A value for the `seed` argument of one call of a function of `keras.random`.
    """
    seed = generator.next()
    replica = _backend.replica_id()
    if replica is not None:
        offset = ops.cast(replica, seed.dtype) * _REPLICA_STEP
        seed = seed + ops.stack([offset, ops.zeros_like(offset)])
    return DrawnSeed(seed)


def bernoulli_mask(shape, rate: float, seed, dtype="float32"):
    """An inverted dropout mask: 0 with probability `rate`, else `1 / (1 - rate)`.

    Args:
        shape: the mask's shape; entries may be scalar tensors.
        rate: the probability of a zero, in [0, 1).
        seed: a seed from `draw_seed`, or an integer.
        dtype: the mask's type.
    """
    keep = 1.0 - rate
    uniform = keras.random.uniform(shape, seed=seed, dtype="float32")
    return ops.cast(uniform < keep, dtype) * ops.cast(1.0 / keep, dtype)
