"""Random numbers as a pure function of (key, counter), in NumPy and in a TensorFlow graph.

The mixing function is that of SplitMix64 (Steele, Lea, Flood 2014). Example i of a synthetic data
set is computed from its number alone: nothing is stored, and neither the batch size nor the
order of the examples nor the version of a library changes it.
"""

import numpy as np
import tensorflow as tf

_GOLDEN = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB
_MASK = (1 << 64) - 1


def stream_key(*parts: int) -> int:
    """One 64-bit key of several integers."""
    key = 0
    for part in parts:
        mixed = np.array([(key ^ (part & _MASK)) & _MASK], np.uint64)
        key = int(mix_numpy(0, mixed)[0])
    return key


def mix_numpy(key: int, counter: np.ndarray) -> np.ndarray:
    """uint64 of the same shape as `counter` (uint64)."""
    with np.errstate(over="ignore"):
        z = np.uint64(key) + (counter + np.uint64(1)) * np.uint64(_GOLDEN)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(_FIRST)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(_SECOND)
    return z ^ (z >> np.uint64(31))


def mix(key: int, counter: tf.Tensor) -> tf.Tensor:
    """`mix_numpy` in the graph."""

    def constant(value: int) -> tf.Tensor:
        return tf.constant(np.array(value, np.uint64))

    def shift(value: tf.Tensor, bits: int) -> tf.Tensor:
        return tf.bitwise.bitwise_xor(value, tf.bitwise.right_shift(value, constant(bits)))

    z = constant(key) + (tf.cast(counter, tf.uint64) + constant(1)) * constant(_GOLDEN)
    z = shift(z, 30) * constant(_FIRST)
    z = shift(z, 27) * constant(_SECOND)
    return shift(z, 31)


def uniform(key: int, counter: tf.Tensor) -> tf.Tensor:
    """float32 in [0, 1), 24 random bits each."""
    bits = tf.bitwise.right_shift(mix(key, counter), tf.constant(np.array(40, np.uint64)))
    return tf.cast(tf.cast(bits, tf.int32), tf.float32) * (1 / (1 << 24))


def integers(key: int, counter: tf.Tensor, below: int) -> tf.Tensor:
    """int32 in [0, below), for `below` up to 2**24."""
    bits = tf.bitwise.right_shift(mix(key, counter), tf.constant(np.array(16, np.uint64)))
    return tf.cast(tf.math.floormod(tf.cast(bits, tf.int64), below), tf.int32)
