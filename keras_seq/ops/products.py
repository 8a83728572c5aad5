"""Matrix products of sequences."""

from keras import ops


def matrix_product(x, kernel):
    """`(..., d)` times `(d, channels)` as one product over all rows.

    A batched product would give a partial gradient of the kernel for every entry of the batch.
    """
    if len(x.shape) == 2:
        return ops.matmul(x, kernel)
    lead = ops.shape(x)[:-1]
    rows = ops.matmul(ops.reshape(x, (-1, x.shape[-1])), kernel)
    return ops.reshape(rows, (*lead, kernel.shape[-1]))
