"""The processes that train one model together; mostly there is only one."""

import atexit
import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_seq import _replicas
from keras_seq.training.state import TrainingError

_PIECE = 1 << 22  # numbers a message


class Cluster:
    """What the processes of a strategy tell each other outside of training steps.

    Args:
        strategy: a `tf.distribute.Strategy`.

    Attributes:
        strategy: the same.
        replicas: devices that train together, on all machines.
        workers: processes, one a machine.
        index: the number of this one.
    """

    def __init__(self, strategy: Any):
        self.strategy = strategy
        self.replicas = strategy.num_replicas_in_sync
        ids = _replicas.local_ids(strategy)
        self.local_ids = ids
        self.workers = self.replicas // len(ids)
        self.index = ids[0] // len(ids)

    @property
    def chief(self) -> bool:
        """Whether this process keeps the run: its folder, checkpoints, logs."""
        return self.index == 0

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """The strategy's scope; without one, that of the caller."""
        import tensorflow as tf

        if self.strategy is tf.distribute.get_strategy():
            yield
        else:
            with self.strategy.scope():
                yield

    def agree(self, *asked: bool) -> tuple[bool, ...]:
        """Whether any process asks for something: for each question the same answer in all."""
        if self.workers == 1:
            return asked
        flags = np.asarray(asked, np.int32)
        (total,) = _replicas.sum_over_processes(self.strategy, [flags])
        return tuple(bool(count) for count in total)

    def share(self, content: bytes | None) -> bytes:
        """The chief's bytes, in every process.

        Args:
            content: the bytes; of no account in other processes than the chief.
        """
        if self.workers == 1:
            return content or b""
        mine = content if self.chief and content is not None else b""
        (size,) = self._sum(np.asarray([len(mine)], np.int64))
        padded = mine.ljust(-(-int(size) // 4) * 4 if self.chief else 0, b"\0")
        numbers = np.frombuffer(padded, np.int32)
        pieces = []
        for start in range(0, -(-int(size) // 4), _PIECE):
            count = min(_PIECE, -(-int(size) // 4) - start)
            piece = numbers[start : start + count] if self.chief else np.zeros(count, np.int32)
            pieces.append(self._sum(piece).tobytes())
        return b"".join(pieces)[: int(size)]

    def rows(self, dataset: Any, whole: bool = False) -> Any:
        """The rows of each batch that are this process's, or all rows if it is alone.

        Device r of R takes rows r p to (r + 1) p, with p = b / R rounded up; of a last batch that
        is smaller, what there is of them.

        Args:
            dataset: a `tf.data.Dataset` of whole batches.
            whole: instead, a data set with the parts of all processes, one after the other.
        """
        import tensorflow as tf

        if self.workers == 1:
            return dataset
        size = tf.nest.flatten(dataset.element_spec)[0].shape[0]
        share = len(self.local_ids)

        def part(number, *batch):
            return tf.nest.map_structure(
                lambda tensor: self._part(tensor, size, number, self.workers, share), batch
            )

        if not whole:
            return dataset.map(lambda *batch: part(self.index, *batch))
        places = range(self.workers)
        return dataset.flat_map(
            lambda *batch: tf.data.Dataset.from_tensor_slices([*places]).map(
                lambda number: part(number, *batch)
            )
        )

    def of_replicas(self, batch: Any, size: int | None) -> Any:
        """This process's rows of a batch, divided among its devices.

        Args:
            batch: a structure of tensors, an element of `rows`.
            size: rows of a whole batch, if they are known.
        """
        import tensorflow as tf

        share, first = len(self.local_ids), self.local_ids[0]

        def value(tensor):
            parts = [self._part(tensor, size, place, share, 1) for place in range(share)]
            return self.strategy.experimental_distribute_values_from_function(
                lambda context: parts[context.replica_id_in_sync_group - first]
            )

        return tf.nest.map_structure(value, batch)

    def _part(self, tensor: Any, size: int | None, number: Any, parts: int, share: int) -> Any:
        """Part `number` of `parts` of a tensor's rows, for `share` devices each."""
        import tensorflow as tf

        there = tf.shape(tensor)[0]
        if size is None:
            rows = -(-there // (parts * share)) * share
        else:
            rows = -(-size // self.replicas) * share
        start = tf.minimum(number * rows, there)
        part = tensor[start : tf.minimum(start + rows, there)]
        if size is not None and size % self.replicas == 0 and size == tensor.shape[0]:
            part.set_shape((rows, *tensor.shape[1:]))
        return part

    def check(self, model: Any, recipe: Any) -> None:
        """Refuses batches that carried state can not divide among the devices.

        Raises:
            ValueError: if they are no multiple of the number of devices.
        """
        if not model.carry_state:
            return
        spec = recipe.data
        sizes = {"batch_size": spec.batch_size, "eval_batch_size": spec.eval_batch_size}
        for name, size in sizes.items():
            if size is not None and size % self.replicas:
                raise ValueError(
                    f"`data.{name}` must be a multiple of the {self.replicas} devices, since each "
                    "carries the state of its own sequences. "
                    f"Received: data.{name}={size}. Set it to another value."
                )

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Says it in words when this process fails because another one is gone.

        Raises:
            TrainingError: in place of TensorFlow's error.
        """
        try:
            yield
        except Exception as error:
            lost = self.lost(error)
            if not lost:
                raise
            raise TrainingError(
                f"The run was stopped: {lost}. Start all of them again with --resume "
                "(`resume=True`) to go on from the last checkpoint."
            ) from error

    def lost(self, error: Exception) -> str:
        """What to say of an error that another process's end has caused; else nothing."""
        import tensorflow as tf

        if self.workers == 1 or not isinstance(error, tf.errors.OpError):
            return ""
        kinds = (
            tf.errors.UnavailableError,
            tf.errors.AbortedError,
            tf.errors.CancelledError,
            tf.errors.DeadlineExceededError,
        )
        if not isinstance(error, kinds):
            return ""
        return f"another of the {self.workers} processes has ended or can not be reached"

    def _sum(self, array: np.ndarray) -> np.ndarray:
        return _replicas.sum_over_processes(self.strategy, [array])[0]


def scratch_folder() -> Path:
    """A folder for what a process that is not the chief writes; it goes with the process."""
    folder = Path(tempfile.mkdtemp(prefix="keras_seq-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
