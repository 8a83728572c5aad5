"""Token pipeline: tokens a second inside tf.data, and memory a token.

    python benchmarks/run.py token_pipeline

Writes a file of 100 million uint16 ids, maps it, and iterates windows of 64 x 192 inside tf.data
(`Dataset.reduce`, no Python a batch). Memory is the growth of the resident set over that before the
file is opened, at the end and at its peak.
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from harness import benchmark

TOKENS = 100_000_000
VOCABULARY = 10_000


def resident_bytes() -> dict[str, int]:
    """Current and peak resident set (Linux; zeros elsewhere)."""
    status = Path("/proc/self/status")
    found = {"VmRSS": 0, "VmHWM": 0}
    if status.is_file():
        for line in status.read_text().splitlines():
            name, _, value = line.partition(":")
            if name in found:
                found[name] = int(value.split()[0]) * 1024
    return found


def reset_peak() -> None:
    """Sets the peak resident set to the current one, where the system allows it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def write_tokens(path: Path, tokens: int) -> None:
    """Random ids in blocks."""
    random = np.random.default_rng(0)
    with path.open("wb") as file:
        for start in range(0, tokens, 10_000_000):
            count = min(10_000_000, tokens - start)
            random.integers(0, VOCABULARY, count, dtype=np.uint16).tofile(file)


@benchmark("token_pipeline", "windows of 64 x 192 from a file of 100 million ids, in tf.data")
def token_pipeline() -> dict[str, float]:
    """Tokens a second of the best, median and worst pass; bytes a token at the end and the peak."""
    tokens, batch_size, length, repeats = TOKENS, 64, 192, 5
    import tensorflow as tf

    from keras_seq.pipelines.token_file import open_token_file
    from keras_seq.pipelines.token_stream import train_source

    def count_steps(dataset: tf.data.Dataset) -> int:
        zero = np.int64(0)
        return int(dataset.reduce(zero, lambda n, batch: n + tf.cast(batch[0][0, 0] >= 0, "int64")))

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokens.ids"
        write_tokens(path, tokens)
        # One small stream first, so that the memory of TensorFlow's own start is not counted.
        small = np.zeros(batch_size * (length + 1) * 4, np.uint16)
        count_steps(train_source(small, batch_size=batch_size, length=length).epoch(0))
        reset_peak()
        before = resident_bytes()["VmRSS"]
        started = time.perf_counter()
        ids = open_token_file(path, VOCABULARY)
        source = train_source(ids, batch_size=batch_size, length=length)
        opened = time.perf_counter() - started
        speeds = []
        for epoch in range(repeats):
            started = time.perf_counter()
            steps = count_steps(source.epoch(epoch))
            speeds.append(steps * batch_size * length / (time.perf_counter() - started))
        after = resident_bytes()
    return {
        "tokens": tokens,
        "steps": steps,
        "open_seconds": opened,
        "seconds": steps * batch_size * length / statistics.median(speeds) / steps,
        "tokens_per_second": statistics.median(speeds),
        "tokens_per_second_best": max(speeds),
        "tokens_per_second_worst": min(speeds),
        "bytes_per_token": (after["VmRSS"] - before) / tokens,
        "peak_bytes_per_token": (after["VmHWM"] - before) / tokens,
    }
