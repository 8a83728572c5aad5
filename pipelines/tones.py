"""Series of different lengths that the package makes: which of four tones is it?"""

import numpy as np

from keras_seq.pipelines.counter_random import mix_numpy, stream_key

PERIODS = (5.0, 7.0, 10.0, 14.0)  # steps, one a class
CHANNELS = 2
SHORTEST, LONGEST = 12, 48
COUNTS = {"train": 240, "test": 240}
NOISE = 0.5


def tones(split: str) -> tuple[list[np.ndarray], np.ndarray]:
    """The series of a split, float32 (t, 2), and their classes; always the same ones.

    A series is a sine of one of four periods in each of two channels, with phases and lengths of
    its own, under uniform noise.
    """
    count = COUNTS[split]
    key = stream_key(*split.encode())

    def uniform(part: int, *shape: int) -> np.ndarray:
        counter = np.arange(int(np.prod(shape)), dtype=np.uint64).reshape(shape)
        return (mix_numpy(stream_key(key, part), counter) >> np.uint64(40)) / float(1 << 24)

    classes = np.arange(count) % len(PERIODS)
    lengths = SHORTEST + (uniform(0, count) * (LONGEST + 1 - SHORTEST)).astype(int)
    steps = np.arange(LONGEST)[None, :, None] / np.take(PERIODS, classes)[:, None, None]
    values = np.sin(2 * np.pi * (steps + uniform(1, count, 1, CHANNELS)))
    values += NOISE * (2 * uniform(2, count, LONGEST, CHANNELS) - 1)
    series = [one[:length].astype(np.float32) for one, length in zip(values, lengths, strict=True)]
    return series, classes.astype(np.int32)
