"""Every other feature, in one pass over the data."""

import keras

from keras_seq._backend import read, tf, traced_for_xla, wants_portable_operations


def halves(x):
    """The even and the odd features of (..., 2n), each (..., n).

    In float32 a pair is the two parts of a complex number, and both the split and its gradient are
    one pass over the data; strided slices, which XLA merges with what follows, take three.
    """
    plain = tf is None or x.dtype != tf.float32 or wants_portable_operations()
    if plain or traced_for_xla(unknown=True):
        return x[..., ::2], x[..., 1::2]

    @tf.custom_gradient
    def split(x):
        lead, width = tuple(keras.ops.shape(x))[:-1], x.shape[-1] // 2
        pairs = tf.bitcast(tf.reshape(x, (*lead, width, 2)), tf.complex64)

        def grad(even, odd):
            joined = tf.bitcast(tf.complex(even, odd), tf.float32)
            return tf.reshape(joined, (*lead, 2 * width))

        return (tf.math.real(pairs), tf.math.imag(pairs)), grad

    return split(read(x))
