"""What the solves of a deep equilibrium layer were like, as metrics of the model."""

import contextlib
import threading

import keras
from keras import ops

from keras_seq._replicas import sum_over_replicas
from keras_seq.solvers import Status

_LOCAL = threading.local()


@contextlib.contextmanager
def evaluation():
    """Within it, solves outside of training count too: the evaluation step of a model."""
    _LOCAL.evaluating = True
    try:
        yield
    finally:
        _LOCAL.evaluating = False


def counted(training) -> bool:
    """Whether a solve counts: one of training or of an evaluation, not of a prediction.

    On JAX none does: while a model trains, its layers are not given their metrics there.
    """
    if keras.backend.backend() == "jax":
        return False
    return bool(training) or getattr(_LOCAL, "evaluating", False)


class InARow(keras.metrics.Metric):
    """How many training steps in a row had a sample that diverged or was not finite.

    It goes on from epoch to epoch: `reset_state` leaves it as it is.
    """

    def __init__(self, name, **kwargs):
        super().__init__(name=name, **kwargs)
        self.count = self.add_variable(
            (), "zeros", dtype="float32", name="count", aggregation="only_first_replica"
        )

    def update_state(self, lost, sample_weight=None):
        """Counts a step.

        Args:
            lost: (b,) whether each sample was lost.
            sample_weight: without effect.
        """
        (lost,) = sum_over_replicas([ops.sum(ops.cast(lost, "float32"))])
        self.count.assign(ops.where(lost > 0, self.count + 1, 0.0))

    def reset_state(self):
        """Leaves the count."""

    def result(self):
        return ops.convert_to_tensor(self.count)


def solver_metrics(name: str) -> dict[str, keras.metrics.Metric]:
    """The metrics of a layer of that name."""
    made: dict[str, keras.metrics.Metric] = {
        part: keras.metrics.Mean(name=f"{name}_{part}")
        for part in ("residual", "steps", "failures")
    }
    made["diverged_in_a_row"] = InARow(f"{name}_diverged_in_a_row")
    for metric in made.values():
        metric._direction = "down"  # read by Keras' callbacks whose mode is "auto"
    return made


def update(metrics: dict[str, keras.metrics.Metric], solution, training, rows=None) -> None:
    """Takes a solve into account; nothing leaves the device for it.

    Args:
        metrics: of `solver_metrics`.
        solution: a dict of `residual`, `steps` and `status`, (b,) each.
        training: whether it was a training step.
        rows: (b,), one for samples that count and zero for others; `None` where all do.
    """
    status = solution["status"]
    finite = ops.isfinite(solution["residual"])
    residual = ops.where(finite, solution["residual"], 0)
    known = ops.cast(finite, "float32")
    metrics["residual"].update_state(residual, known if rows is None else known * rows)
    metrics["steps"].update_state(solution["steps"], rows)
    failed = ops.not_equal(status, int(Status.CONVERGED))
    metrics["failures"].update_state(ops.cast(failed, "float32"), rows)
    if training:
        lost = ops.greater_equal(status, int(Status.DIVERGED))
        metrics["diverged_in_a_row"].update_state(lost)
