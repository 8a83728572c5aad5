"""Negative log-likelihood within one cluster of words, for the tokens of that cluster only."""

from keras import ops

from keras_seq._backend import needs_fixed_shapes, read


def cluster_nll(hidden, targets, tokens, start, count, weights, max_logits: int, dtype: str):
    """Softmax cross-entropy over one cluster of a vocabulary, in bounded memory.

    How many tokens fall into the cluster is known only when the program runs. They are taken in
    chunks, by a loop whose number of turns depends on the data. The gradient is written out as a
    loop of the same form that computes the logits of each chunk again: nothing is kept between the
    two loops, and at no time are there more than `max_logits` logits (or one token's, if the
    cluster has more words than that).

    In a plain graph the chunks share the tokens evenly. XLA wants shapes known beforehand: there
    chunks have a fixed size, at most a sixteenth of all tokens, and the last one is padded.

    Args:
        hidden: (n, d), the hidden states of all tokens.
        targets: (n,), each token's target counted from the cluster's first word; read for the
            cluster's tokens only.
        tokens: (n,), the positions of all tokens, those of the cluster next to each other.
        start, count: scalars; the cluster's tokens are `tokens[start : start + count]`.
        weights: `(table, bias, projection)`: word vectors (v, e), a bias (v,) or `None`, and a
            projection (d, e) or `None` if e is d.
        max_logits: the largest number of logits held at once.
        dtype: the type of softmax and loss.

    Returns:
        (n,), the negative log-likelihood of the cluster's tokens and zero for all others.
    """
    size = ops.shape(hidden)[0]
    largest = max(1, max_logits // weights[0].shape[0])
    fixed = needs_fixed_shapes()
    if fixed:
        chunk = min(largest, max(16, size // 16)) if isinstance(size, int) else largest
        turns = (count + chunk - 1) // chunk
    else:
        turns = (count + largest - 1) // largest
        chunk = ops.maximum(count + turns - 1, 0) // ops.maximum(turns, 1)
    present = [array is not None for array in weights]

    def unpack(arrays):
        """The arrays that exist, back in the order (table, bias, projection)."""
        arrays = iter(arrays)
        return [next(arrays) if there else None for there in present]

    def rows(turn):
        """Positions of the chunk's tokens, and which of them belong to the cluster."""
        place = turn * chunk + ops.arange(chunk, dtype="int32")
        inside = place < count
        return ops.take(tokens, ops.minimum(start + place, size - 1)), inside

    def forward(index, inside, hidden, table, bias, projection):
        """The chunk's hidden states, projected states, targets and logits."""
        states = ops.take(hidden, index, axis=0)
        projected = states if projection is None else ops.matmul(states, projection)
        logits = ops.matmul(projected, ops.transpose(table))
        logits = ops.cast(logits if bias is None else logits + bias, dtype)
        target = ops.where(inside, ops.take(targets, index), 0)
        return states, projected, target, logits

    @ops.custom_gradient
    def nll(hidden, *arrays):
        def turn_forward(turn, losses):
            index, inside = rows(turn)
            *_, target, logits = forward(index, inside, hidden, *unpack(arrays))
            loss = ops.sparse_categorical_crossentropy(target, logits, from_logits=True)
            loss = ops.where(inside, ops.cast(loss, dtype), ops.zeros((), dtype))
            return turn + 1, losses + ops.scatter(index[:, None], loss, (size,))

        state = (ops.zeros((), "int32"), ops.zeros((size,), dtype))
        _, losses = ops.while_loop(lambda turn, _: turn < turns, turn_forward, state)

        def chunk_gradients(turn, upstream):
            """Gradients of the chunk's loss: hidden states, then the arrays that exist."""
            index, inside = rows(turn)
            table, bias, projection = unpack(arrays)
            states, projected, target, logits = forward(
                index, inside, hidden, table, bias, projection
            )
            scale = ops.take(ops.cast(upstream, dtype), index)
            scale = ops.where(inside, scale, ops.zeros_like(scale))
            d_logits = ops.softmax(logits) * scale[:, None]
            hit = ops.stack([ops.arange(chunk, dtype="int32"), target], axis=1)
            d_logits = ops.scatter_update(d_logits, hit, -scale, reduction="add")
            d_bias = ops.sum(d_logits, axis=0)
            d_logits = ops.cast(d_logits, table.dtype)
            d_table = ops.matmul(ops.transpose(d_logits), projected)
            d_states, d_projection = ops.matmul(d_logits, table), None
            if projection is not None:
                d_projection = ops.matmul(ops.transpose(states), d_states)
                d_states = ops.matmul(d_states, ops.transpose(projection))
            gradients = zip((d_table, d_bias, d_projection), present, strict=True)
            return [
                ops.scatter(index[:, None], d_states, ops.shape(hidden)),
                *[ops.cast(gradient, dtype) for gradient, there in gradients if there],
            ]

        def grad(*args, upstream=None):
            if upstream is None:
                (upstream,) = args

            def turn_backward(turn, *sums):
                news = chunk_gradients(turn, upstream)
                return turn + 1, *[old + new for old, new in zip(sums, news, strict=True)]

            if fixed:
                zeros = [ops.zeros(array.shape, dtype) for array in arrays]
                state = (ops.zeros((), "int32"), ops.zeros_like(hidden), *zeros)
            else:  # the first chunk needs no sum to be added to; it costs nothing if it is empty
                state = (ops.ones((), "int32"), *chunk_gradients(0, upstream))
            _, d_hidden, *sums = ops.while_loop(lambda turn, *_: turn < turns, turn_backward, state)
            sums = [ops.cast(s, a.dtype) for s, a in zip(sums, arrays, strict=True)]
            return d_hidden, *sums

        return losses, grad

    return nll(read(hidden), *[read(array) for array in weights if array is not None])
