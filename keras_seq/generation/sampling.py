"""Drawing the next token from log-probabilities."""

import math
from numbers import Integral, Number, Real
from typing import Any

import numpy as np
import tensorflow as tf

TINY, HUGE = (float(x) for x in (np.finfo("float32").tiny, np.finfo("float32").max))


def sample(
    log_probs: Any,
    temperature: Any = 1.0,
    top_k: Any = 0,
    top_p: Any = 1.0,
    seed: Any = None,
) -> Any:
    """Draws one token for each row of log-probabilities, eagerly or in a graph.

    The log-probabilities are divided by the temperature, cut to the `top_k` likeliest tokens, and
    of these to the smallest set of likeliest ones whose share of the rest is at least `top_p`. The
    draw inverts the cumulative distribution, so that one uniform number decides about a row.

    `temperature`, `top_k` and `top_p` may be numbers, or tensors of shape `()` or `(b,)`.

    Args:
        log_probs: (b, v) log-probabilities, or logits. Tokens at minus infinity are never drawn.
            They are computed with in float32 at least.
        temperature: not negative. 0 takes the likeliest token (the first of several).
        top_k: number of tokens that may be drawn; 0 for all.
        top_p: share of the probability that may be drawn, in (0, 1]. The likeliest token always
            may.
        seed: an integer or a pair of integers for the whole batch; integers of shape (b, 2), a pair
            for each row, with which a row's draw depends on nothing in the other rows; `None` for
            a new seed at each call.

    Output shape:
        (b,) token ids, int32.

    Raises:
        ValueError: for a number out of range, or log-probabilities that are not of rank 2.
        tf.errors.InvalidArgumentError: for a tensor that holds a value out of range, and for a
            row of log-probabilities without any finite value.

    Example:

    >>> log_probs = np.log([[0.1, 0.7, 0.2], [0.5, 0.25, 0.25]])
    >>> keras_seq.generation.sample(log_probs, temperature=0).numpy()
    array([1, 0], dtype=int32)
    """
    check_options(temperature, top_k, top_p)
    log_probs = tf.convert_to_tensor(log_probs)
    if log_probs.shape.rank != 2:
        raise ValueError(
            "`log_probs` must be of shape (batch, vocabulary). "
            f"Received: log_probs.shape={log_probs.shape}. Take one time step of a longer output."
        )
    log_probs, highest = checked(log_probs)
    greedy = tf.argmax(log_probs, axis=1, output_type=tf.int32)
    if _is_number(temperature) and temperature == 0:
        return greedy

    batch = tf.shape(log_probs)[0]
    cold, temperature = usable_temperature(_rows(temperature, batch, log_probs.dtype))
    scaled = (log_probs - highest) / temperature[:, None]
    uniform = _uniform(seed, batch)
    if _is_number(top_k) and _is_number(top_p) and top_k == 0 and top_p == 1:
        return tf.where(cold, greedy, _draw(tf.exp(scaled), uniform))

    top_k, top_p = _rows(top_k, batch, tf.int32), _rows(top_p, batch, tf.float64)
    weights = tf.cond(
        tf.reduce_any((top_k > 0) | (top_p < 1)),
        lambda: _likeliest(scaled, top_k, top_p),
        lambda: tf.exp(scaled),
    )
    return tf.where(cold, greedy, _draw(weights, uniform))


def check_options(temperature, top_k, top_p) -> None:
    """Refuses values out of range: numbers at once, tensors when they are evaluated.

    Raises:
        ValueError: for a number out of range.
    """
    check(
        "temperature",
        temperature,
        lambda x: (x >= 0) & is_finite(x),
        "must be a finite number, 0 or more",
        "0 takes the likeliest token",
    )
    check(
        "top_k",
        top_k,
        lambda x: x >= 0,
        "must be an integer, 0 or more",
        "0 lets all tokens be drawn",
        integer=True,
    )
    check(
        "top_p",
        top_p,
        lambda x: (x > 0) & (x <= 1),
        "must be a number above 0 and at most 1",
        "1 lets all tokens be drawn",
    )


def is_finite(value):
    """Whether a number or a tensor is finite; an infinity to compare with would be a constant."""
    return tf.math.is_finite(value) if tf.is_tensor(value) else abs(value) < math.inf


def check_length_and_seed(length, seed, tensors: bool = False) -> None:
    """Refuses a length or a seed that cannot be.

    Args:
        length: number of tokens or frames to make.
        seed: seed of the draws.
        tensors: whether there may be one for each row; only plain numbers are looked at then.

    Raises:
        ValueError: for what is no integer, a negative length, a seed of more than 32 bits.
    """
    for name, value in (("length", length), ("seed", seed)):
        if tensors and not isinstance(value, Number | None):
            continue
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise ValueError(f"`{name}` must be an integer. Received: {name}={value!r}.")
        if name == "length" and value < 0:
            raise ValueError(f"`length` must be 0 or more. Received: length={value}.")
        if not -(2**31) <= value < 2**31:
            raise ValueError(f"`{name}` must fit in 32 bits. Received: {name}={value}.")


def checked(log_probs) -> Any:
    """Log-probabilities (b, v) in float32 at least, and the highest of each row (b, 1).

    Raises:
        tf.errors.InvalidArgumentError: for a row that holds NaN, or no finite value.
    """
    if log_probs.dtype not in (tf.float32, tf.float64):
        log_probs = tf.cast(log_probs, tf.float32)
    highest = tf.reduce_max(log_probs, axis=1, keepdims=True)
    message = "`log_probs` must hold a finite value in every row and no NaN: did training diverge?"
    with tf.control_dependencies(_assertion(tf.math.is_finite(highest), message)):
        return tf.identity(log_probs), highest


def usable_temperature(temperature) -> Any:
    """Where a temperature is 0, and what else to divide by.

    What is closer to 0 than the smallest normal number counts as 0, as which processors may read
    it.
    """
    cold = temperature < temperature.dtype.as_numpy_dtype(TINY)
    return cold, tf.where(cold, tf.ones_like(temperature), temperature)


def as_tensor(value, dtype: tf.DType) -> Any:
    """A number or tensor in `dtype`. A number beyond what `dtype` holds is the nearest that it has.

    So a temperature of 1e300 is as good as any that high, and one of 1e-300 is not 0.
    """
    if not _is_number(value):
        value = tf.convert_to_tensor(value)
        if value.dtype.size > dtype.size and value.dtype.is_integer == dtype.is_integer:
            value = tf.minimum(value, tf.cast(dtype.max, value.dtype))
        return tf.cast(value, dtype)
    if dtype.is_integer:
        return tf.constant(min(int(value), dtype.max), dtype)
    value = float(min(max(value, TINY), HUGE) if value > 0 else value)
    # By way of float32 whatever the type is, as TensorFlow takes Python's numbers.
    return tf.cast(tf.constant(value, tf.float32), dtype)


def check(name: str, value, fits, rule: str, hint: str, integer: bool = False) -> None:
    """Refuses a value that does not fit: a number at once, a tensor when it is evaluated.

    Raises:
        ValueError: for a number.
    """
    if tf.is_tensor(value):
        tf.debugging.Assert(tf.reduce_all(fits(value)), [f"`{name}` {rule}: {hint}.", value])
    elif (
        not _is_number(value)
        or isinstance(value, bool)
        or not fits(value)
        or (integer and value != int(value))
    ):
        raise ValueError(f"`{name}` {rule}: {hint}. Received: {name}={value!r}.")


def _assertion(condition, message: str) -> list:
    """Control dependencies of a check (eagerly there are none: it raises)."""
    check = tf.debugging.Assert(tf.reduce_all(condition), [message])
    return [] if check is None else [check]


def _is_number(value) -> bool:
    return isinstance(value, Real)


def _rows(value, batch, dtype) -> Any:
    """A number or tensor as one value for each row."""
    return tf.broadcast_to(as_tensor(value, dtype), [batch])


def _uniform(seed, batch) -> Any:
    """(b,) uniform numbers in [0, 1) in float64, by one algorithm on all devices."""
    options: dict[str, Any] = {"dtype": tf.float64, "alg": "philox"}
    if seed is None:
        seed = tf.random.uniform((2,), tf.int32.min, tf.int32.max, dtype=tf.int32)
    else:
        check_length_and_seed(0, seed, tensors=True)
    seed = tf.cast(seed, tf.int32)
    if seed.shape.rank == 0:
        seed = tf.stack([seed, 0])
    if seed.shape.rank == 1:
        return tf.random.stateless_uniform([batch], seed, **options)
    return tf.map_fn(
        lambda pair: tf.random.stateless_uniform([], pair, **options),
        seed,
        fn_output_signature=tf.TensorSpec((), tf.float64),
    )


def _draw(weights, uniform) -> Any:
    """The index at which the running sum of `weights` (b, n) passes `uniform` (b,) of its total."""
    total = tf.cumsum(tf.cast(weights, tf.float64), axis=1)
    passed = total <= uniform[:, None] * total[:, -1:]
    return tf.reduce_sum(tf.cast(passed, tf.int32), axis=1)


def _likeliest(scaled, top_k, top_p) -> Any:
    """exp(scaled), with zeros for all but the likeliest tokens of each row, in their own order.

    As the order stays, a row without limits is drawn as in a batch in which no row has any.
    """
    size = tf.shape(scaled)[1]
    limit = tf.where(top_k == 0, size, tf.minimum(top_k, size))
    values, indices = tf.math.top_k(scaled, tf.reduce_max(limit))
    batch, count = tf.unstack(tf.shape(values))
    rank = tf.range(count)[None]
    weights = tf.where(rank < limit[:, None], tf.exp(tf.cast(values, tf.float64)), 0.0)
    before = tf.cumsum(weights, axis=1, exclusive=True)
    share = top_p[:, None] * tf.reduce_sum(weights, axis=1, keepdims=True)
    # The likeliest one stays, however small the share is.
    kept = (weights > 0) & ((before < share) | (rank == 0) | (top_p == 1)[:, None])
    rows = tf.broadcast_to(tf.range(batch)[:, None], [batch, count])
    places = tf.stack([rows, indices], axis=-1)
    mask = tf.scatter_nd(places, tf.cast(kept, scaled.dtype), tf.shape(scaled))
    return tf.exp(scaled) * mask
