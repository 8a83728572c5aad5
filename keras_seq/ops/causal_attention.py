"""Scaled dot-product attention in blocks of queries, with a gradient of its own.

A block of queries of causal attention needs no key after its last step, and with a span none long
before its first: about half of the logits, or fewer, are never computed. The gradient keeps the
probabilities of each block and nothing else of their size but the dropout masks.
"""

from typing import Any, NamedTuple

import keras
from keras import ops

from keras_seq._backend import read
from keras_seq._dtypes import float32_at_least, largest
from keras_seq._random import DrawnSeed, bernoulli_mask
from keras_seq.ops.seeded_dropout import seed_of_place
from keras_seq.ops.written_gradient import once

_BLOCK = 200  # queries of a block; many more leave work undone, many fewer make small products


class _Block(NamedTuple):
    """Queries first..end-1 over keys low..high-1."""

    first: Any
    end: Any
    low: Any
    high: Any


def attend(query, key, value, valid, causal, span, rate, seed, written_gradient, in_blocks=True):
    """What each query pools.

    Args:
        query: (b, h, t, u), already scaled.
        key: (b, h, s, u); the last t of the s steps are those of the queries.
        value: (b, h, s, u).
        valid: (b, s), positive where a step may be seen; `None` for all.
        causal: whether a query sees only its own step and those before.
        span: how many steps it sees, its own included; `None` for all.
        rate: dropout rate of the probabilities.
        seed: a seed tensor (2,) for their masks; `None` for no dropout.
        written_gradient: whether to use the gradient written here, which cannot be differentiated
            again.
        in_blocks: whether long sequences may be split.

    Returns:
        (b, h, t, u), and the list of the probabilities (b, h, t, s) of all blocks before dropout;
        with the written gradient the list is empty.
    """
    blocks = _blocks(query.shape[2], key.shape[2], causal, span) if in_blocks else None
    if blocks is None:
        blocks = [_Block(0, ops.shape(query)[2], 0, ops.shape(key)[2])]
    ahead = ops.shape(key)[2] - ops.shape(query)[2]
    masks = []
    if seed is not None and rate:
        for place, block in enumerate(blocks):
            lead = (ops.shape(query)[0], ops.shape(query)[1])
            shape = (*lead, block.end - block.first, block.high - block.low)
            drawn = DrawnSeed(seed_of_place(seed, place))
            masks.append(bernoulli_mask(shape, rate, drawn, query.dtype))

    tensors = [query, key, value, *masks, *([] if valid is None else [valid])]
    first_other, has_valid = 3 + len(masks), valid is not None

    def forward(query, key, value, *rest):
        valid = rest[-1] if has_valid else None
        pooled, kept = [], []
        for index, block in enumerate(blocks):
            seen = _seen(block, ahead, causal, span, valid)
            some = query[:, :, block.first : block.end]
            keys = key[:, :, block.low : block.high]
            probabilities = _probabilities(some, keys, seen)
            dropped = probabilities * rest[index] if first_other > 3 else probabilities
            pooled.append(ops.matmul(dropped, value[:, :, block.low : block.high]))
            kept.append(probabilities)
        return ops.concatenate(pooled, axis=2) if len(pooled) > 1 else pooled[0], kept

    if not written_gradient:
        return forward(*tensors)

    @ops.custom_gradient
    def run(*tensors):
        pooled, kept = forward(*tensors)

        def gradient(*arguments, upstream=None):
            (given,) = keras.tree.flatten(arguments if upstream is None else upstream)
            backward = once(
                lambda: (
                    *_backward(blocks, tensors[:3], tensors[3:first_other], kept, pooled, given),
                    *(ops.zeros_like(tensor) for tensor in tensors[3:]),
                ),
                "SelfAttention",
            )
            return backward(*tensors, given)

        return pooled, gradient

    return run(*map(read, tensors)), []


def _blocks(length, total, causal, span):
    """The blocks of sequences of known lengths; `None` where one block is all there is."""
    if not causal or length is None or total is None or length < 2 * _BLOCK:
        return None
    blocks, ahead = [], total - length
    for first in range(0, length, _BLOCK):
        end = min(first + _BLOCK, length)
        low = 0 if span is None else max(0, ahead + first - span + 1)
        blocks.append(_Block(first, end, low, ahead + end))
    return blocks


def _seen(block, ahead, causal, span, valid):
    """Which keys of a block each of its queries sees; `None` where it sees all."""
    seen = None
    if causal:
        rows = ops.expand_dims(ops.arange(block.first, block.end), 1) + ahead
        columns = ops.expand_dims(ops.arange(block.low, block.high), 0)
        seen = columns <= rows
        if span is not None:
            seen = ops.logical_and(seen, columns > rows - span)
        seen = seen[None, None]
    if valid is not None:
        real = (valid[:, block.low : block.high] > 0)[:, None, None, :]
        seen = real if seen is None else ops.logical_and(seen, real)
    return seen


def _probabilities(query, key, seen):
    wide = float32_at_least(query.dtype)
    logits = ops.cast(ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))), wide)
    if seen is not None:
        # A choice, not a sum: TensorFlow on CPUs merges a scaled product and a sum into one
        # operation that is hundreds of times slower.
        logits = ops.where(seen, logits, ops.cast(-largest(wide), wide))
    return ops.cast(ops.softmax(logits), query.dtype)


def _backward(blocks, tensors, masks, kept, pooled, upstream):
    """The gradients of query, key and value."""
    query, key, value = tensors
    total = ops.shape(key)[2]
    d_query, d_key, d_value = [], None, None
    for index, block in enumerate(blocks):
        some = query[:, :, block.first : block.end]
        keys = key[:, :, block.low : block.high]
        values = value[:, :, block.low : block.high]
        given = upstream[:, :, block.first : block.end]
        # The sum over the keys of a probability times its gradient.
        mean = given * pooled[:, :, block.first : block.end]
        mean = ops.sum(mean, axis=-1, keepdims=True)
        probabilities = kept[index]
        d_probabilities = ops.matmul(given, ops.transpose(values, (0, 1, 3, 2)))
        dropped = probabilities
        if masks:
            d_probabilities = d_probabilities * masks[index]
            dropped = probabilities * masks[index]
        d_logits = probabilities * (d_probabilities - mean)
        d_query.append(ops.matmul(d_logits, keys))
        pads = [[0, 0], [0, 0], [block.low, total - block.high], [0, 0]]
        part = ops.matmul(ops.transpose(d_logits, (0, 1, 3, 2)), some)
        d_key = _sum(d_key, ops.pad(part, pads))
        part = ops.matmul(ops.transpose(dropped, (0, 1, 3, 2)), given)
        d_value = _sum(d_value, ops.pad(part, pads))
    joined = ops.concatenate(d_query, axis=2) if len(d_query) > 1 else d_query[0]
    return joined, d_key, d_value


def _sum(total, part):
    return part if total is None else total + part
