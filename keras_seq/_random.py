"""Random draws that differ between the replicas of a `tf.distribute` strategy."""

import math

import keras
from keras import ops

from keras_seq._backend import tf, wants_portable_operations
from keras_seq._replicas import replica_id

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
    replica = replica_id()
    if replica is not None:
        offset = ops.cast(replica, seed.dtype) * _REPLICA_STEP
        seed = seed + ops.stack([offset, ops.zeros_like(offset)])
    return DrawnSeed(seed)


_SHORTS = 2**16


def bernoulli_mask(shape, rate: float, seed, dtype="float32"):
    """An inverted dropout mask: 0 with probability `rate`, else the inverse of the rest.

    On TensorFlow the mask comes from 16 random bits a value: the probability is the multiple of
    2^-16 next to `rate`, and the scale is the inverse of just that, so that the mean is one.

    Args:
        shape: the mask's shape; entries may be scalar tensors.
        rate: the probability of a zero, in [0, 1).
        seed: a seed from `draw_seed`, or an integer.
        dtype: the mask's type.
    """
    shape = tuple(shape)
    shorts = _random_shorts(shape, _pair(seed))
    if shorts is None:
        keep = 1.0 - rate
        kept = keras.random.uniform(shape, seed=seed, dtype="float32") < keep
    else:
        count = max(1, round((1.0 - rate) * _SHORTS))  # of the values of a short
        keep = count / _SHORTS
        kept = shorts < count - _SHORTS // 2 if count < _SHORTS else ops.ones_like(shorts, "bool")
    return ops.cast(kept, dtype) * ops.cast(1.0 / keep, dtype)


def _pair(seed):
    """A seed as two integers, of which an integer is the first."""
    return ops.convert_to_tensor([seed, 0], "int32") if isinstance(seed, int) else seed.next()


def _random_shorts(shape, seed):
    """Integers from -32768 to 32767, all equally likely; `None` where the backend draws none.

    Four of them are one random word of 64 bits, so that they cost far less than as many uniform
    floats, above all with XLA.

    Args:
        shape: the shape; entries may be scalar tensors.
        seed: (2,) integers.
    """
    if tf is None or wants_portable_operations():
        return None
    known = all(isinstance(size, int) for size in shape)
    count = math.prod(shape) if known else tf.reduce_prod(tf.stack(shape))
    words = tf.random.stateless_uniform(
        ((count + 3) // 4,), tf.cast(seed, "int32"), minval=None, maxval=None, dtype="int64"
    )
    shorts = tf.reshape(tf.bitcast(words, tf.int16), (-1,))
    return tf.reshape(shorts[:count], shape)
