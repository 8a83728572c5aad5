"""What the benchmarks share: registration, timing against matrix products, memory, XLA or graph."""

import dataclasses
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

SQUARE = 2048  # the matrix product that measures the machine is SQUARE x SQUARE in float32


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A registered benchmark: `run` returns a dictionary of figures."""

    name: str
    summary: str
    run: Callable[[], dict[str, Any]]


REGISTRY: dict[str, Benchmark] = {}


def benchmark(name: str, summary: str):
    """Registers the decorated function, which takes nothing and returns figures."""

    def decorate(function: Callable[[], dict[str, Any]]):
        REGISTRY[name] = Benchmark(name, summary, function)
        return function

    return decorate


def resident() -> float:
    """Peak resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Work:
    """One thing to be timed: a function that returns when its result is there."""

    def __init__(self, function: Callable[[], Any], flops: float = 0.0, repeat: int = 1):
        self.function = function
        self.flops = flops
        self.repeat = repeat
        self.seconds: list[float] = []

    def turn(self) -> None:
        begun = time.perf_counter()
        for _ in range(self.repeat):
            self.function()
        self.seconds.append((time.perf_counter() - begun) / self.repeat)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def matrix_product() -> Work:
    """The machine's own float32 speed, as TensorFlow reaches it."""
    import tensorflow as tf

    a = tf.random.stateless_normal((SQUARE, SQUARE), (1, 2))
    product = tf.function(lambda: tf.matmul(a, a))
    product()
    return Work(lambda: product().numpy(), 2.0 * SQUARE**3, repeat=3)


def alternate(rounds: int, *works: Work) -> None:
    """Lets the works take turns, so that a busy machine slows all of them alike."""
    for _ in range(rounds):
        for work in works:
            work.turn()


def measure(make: Callable[[], Callable[[], Any]], flops: float, rounds: int = 7) -> dict[str, Any]:
    """Times a step against matrix products, in one process.

    Args:
        make: builds the step; it runs once for the first time, and its memory is taken, before the
            matrix products begin.
        flops: floating-point operations of a step.
        rounds: turns of each.
    """
    import keras_seq  # noqa: F401  (its memory does not count)

    before = resident()
    step = make()
    begun = time.perf_counter()
    step()
    first = time.perf_counter() - begun
    for _ in range(2):
        step()
    peak = resident() - before
    timed, product = Work(step, flops), matrix_product()
    alternate(rounds, product, timed, product)
    # Each step is compared with the matrix products right before and after it.
    shares = []
    for turn, seconds in enumerate(timed.seconds):
        near = statistics.mean(product.seconds[2 * turn : 2 * turn + 2])
        shares.append((flops / seconds) / (product.flops / near))
    return {
        "seconds": timed.median,
        "flops": flops,
        "fraction_of_matmul": statistics.median(shares),
        "fraction_range": [min(shares), max(shares)],
        "matmul_gflops": product.flops / product.median / 1e9,
        "peak_mib": peak,
        "first_step_seconds": first,
        "overhead_seconds": first - timed.median,
    }


def train_step(model, batch, jit_compile: bool) -> Callable[[], Any]:
    """One call of a compiled model's own training step."""
    import tensorflow as tf

    # The step that `fit` runs, without its data iterator. `fit` too makes the optimizer's variables
    # before it traces the step, and converts no Python code.
    model.optimizer.build(model.trainable_variables)
    train = tf.autograph.experimental.do_not_convert(model.train_step)
    step = tf.function(train, jit_compile=jit_compile, reduce_retracing=True)
    batch = keras_tensors(batch)
    return lambda: step(batch)["loss"].numpy()


def keras_tensors(batch):
    """A batch as tensors."""
    import tensorflow as tf

    return tuple(tf.constant(part) for part in batch)
