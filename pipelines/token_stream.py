"""Batches of windows from one long stream of token ids, sliced in the graph."""

import math

import numpy as np
import tensorflow as tf

from keras_seq.pipelines.epochs import EpochSource, epoch_options
from keras_seq.pipelines.errors import DataError
from keras_seq.pipelines.token_file import as_tensor

HALF_PROBABILITY = 0.05  # AWD-LSTM: one window in twenty has half the nominal length
LENGTH_DEVIATION = 5.0
SHORTEST = 5


def train_source(
    ids: np.ndarray,
    *,
    batch_size: int,
    length: int,
    history: int = 0,
    random_lengths: bool = False,
    length_multiple: int = 1,
    seed: int = 0,
    name: str = "the training split",
) -> EpochSource:
    """Training windows over contiguous lanes.

    The stream is cut into `batch_size` lanes of equal length; what remains at the end is dropped.
    Window k of lane i continues window k-1 of lane i, so a carried state fits. A window has
    `history + length` steps and the next one starts `length` steps later.

    With `random_lengths` each window draws its length as AWD-LSTM does (Merity et al. 2018,
    section 5): nominal `length` with probability 0.95, else half of it; then
    `max(5, int(N(nominal, 5)))`. Every epoch has the number of windows that covers a lane on
    average, and its draw is stretched (by about a step a window) to cover the lane exactly.

    Args:
        ids: the stream, one-dimensional.
        batch_size: lanes.
        length: scored steps a window.
        history: context steps a window.
        random_lengths: see above.
        length_multiple: random lengths are rounded to multiples of it (fewer shapes to compile).
        seed: lengths of epoch e depend on `(seed, e)`.
        name: of the split, for errors.

    Returns:
        Batches `(ids, targets)`, int32 `(b, history + length)`.
    """
    lane = ids.size // batch_size
    usable = lane - 1 - history
    if usable < length:
        raise DataError(
            f"{ids.size} tokens are too few for {batch_size} lanes with windows of "
            f"{history} + {length} steps.",
            path=name,
            remedy=f"Lower `batch_size`, `length` or `history`: batch_size * (length + history + 1)"
            f" may be at most {ids.size}.",
        )
    with tf.device("CPU:0"):  # views of the stream, not copies on an accelerator
        lanes = tf.reshape(as_tensor(ids)[: batch_size * lane], (batch_size, lane))

    def window(start, stop):
        part = tf.cast(lanes[:, start:stop], tf.int32)
        return part[:, :-1], part[:, 1:]

    if not random_lengths:
        steps = usable // length
        span = history + length + 1

        def fixed(start):
            batch = window(start, start + span)
            for tensor in batch:
                tensor.set_shape((batch_size, span - 1))
            return batch

        def plan(epoch):
            del epoch
            return tf.range(steps, dtype=tf.int64) * length

        return EpochSource(plan, fixed, steps, copy_constants=False)

    units = usable // length_multiple
    steps = random_window_count(units * length_multiple, length, length_multiple)

    def random_plan(epoch):
        lengths = random_window_lengths(epoch, seed, steps, length, units, length_multiple)
        stops = tf.cumsum(lengths)
        return stops - lengths, stops + history + 1

    def random_window(start, stop):
        batch = window(start, stop)
        for tensor in batch:
            tensor.set_shape((batch_size, None))
        return batch

    return EpochSource(random_plan, random_window, steps, copy_constants=False)


def random_window_count(usable: int, length: int, multiple: int = 1) -> int:
    """Windows of random length that cover `usable` steps on average."""

    def mean(nominal: float) -> float:  # of max(SHORTEST, int(N(nominal, LENGTH_DEVIATION)))
        z = (nominal - SHORTEST) / LENGTH_DEVIATION
        density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        above = (1 + math.erf(z / math.sqrt(2))) / 2
        return SHORTEST + LENGTH_DEVIATION * density + (nominal - 0.5 - SHORTEST) * above

    average = (1 - HALF_PROBABILITY) * mean(length) + HALF_PROBABILITY * mean(length / 2)
    shortest = -(-SHORTEST // multiple) * multiple
    return max(1, min(round(usable / average), usable // shortest))


def random_window_lengths(
    epoch, seed: int, steps: int, length: int, units: int, multiple: int = 1
) -> tf.Tensor:
    """Lengths (int64) of the windows of an epoch; their sum is `units * multiple`."""
    key = tf.stack([tf.constant(seed, tf.int64), tf.cast(epoch, tf.int64)])
    keys = tf.random.split(key, 2)
    half = tf.random.stateless_uniform((steps,), keys[0]) < HALF_PROBABILITY
    nominal = tf.where(half, length / 2, float(length))
    drawn = nominal + LENGTH_DEVIATION * tf.random.stateless_normal((steps,), keys[1])
    shortest = -(-SHORTEST // multiple)
    excess = tf.maximum(tf.floor(drawn) / multiple - shortest, 0.0)
    # Stretch the excess to the lane. The ends are rounded, so no rounding error adds up.
    ends = tf.cumsum(tf.cast(excess, tf.float64) + 1e-6)
    room = tf.cast(max(units - shortest * steps, 0), tf.float64)
    ends = tf.cast(tf.round(ends * (room / ends[-1])), tf.int64)
    return (shortest + tf.concat([ends[:1], ends[1:] - ends[:-1]], 0)) * multiple


def eval_dataset(
    ids: np.ndarray, *, batch_size: int, length: int, history: int = 0, context_id: int = 0
) -> tf.data.Dataset:
    """Windows in which every token of the stream is a scored target exactly once.

    The stream is preceded by one `context_id` (the line end), so its first token has an input.
    It is cut into `batch_size` contiguous lanes. Places past the end of a lane have weight 0, and
    so have the `history` context steps of a window, which hold the text before it (`context_id`
    before the start of the stream).

    Args:
        ids: the stream, one-dimensional, not empty.
        batch_size: lanes.
        length: scored steps a window.
        history: context steps a window.
        context_id: id before the stream.

    Returns:
        Batches `(ids, targets, sample_weight)`, int32, int32, float32, each
        `(b, history + length)`. The weights sum to the number of tokens.
    """
    count = ids.size
    stream = as_tensor(ids)
    lane = -(-count // batch_size)
    steps = -(-lane // length)
    starts = tf.range(batch_size, dtype=tf.int64)[:, None] * lane
    offsets = tf.range(-history, length, dtype=tf.int64)[None, :]

    def window(step):
        in_lane = step * length + offsets
        place = starts + in_lane
        clipped = tf.clip_by_value(place, 0, count - 1)
        targets = tf.cast(tf.gather(stream, clipped), tf.int32)
        before = tf.gather(stream, tf.maximum(clipped - 1, 0))
        inputs = tf.where(place > 0, tf.cast(before, tf.int32), context_id)
        weight = (offsets >= 0) & (in_lane < lane) & (place < count)
        return inputs, targets, tf.cast(weight, tf.float32)

    return (
        tf.data.Dataset.range(steps)
        .map(window)
        .apply(tf.data.experimental.assert_cardinality(steps))
        .with_options(epoch_options(copy_constants=False))
        .prefetch(tf.data.AUTOTUNE)
    )
