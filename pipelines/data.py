"""`Data`: what every pipeline returns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import tensorflow as tf

from keras_seq.pipelines.vocabulary import Vocabulary

T = TypeVar("T")
Maybe = T | Any  # T or None, and the type checker leaves the `None` to the reader


@dataclass(frozen=True)
class Data:
    """The splits of one data set as `tf.data` datasets of known cardinality.

    Attributes:
        name: the registered name.
        train: training dataset, or `None` where there is no training split. Its n-th iteration is
            `epoch(n)`, counted from zero.
        validation: validation dataset or `None`. Covers the whole split exactly once.
        test: test dataset or `None`. Covers the whole split exactly once.
        vocabulary: the `Vocabulary` of a text, else `None`.
        info: counts a split and the source, as plain values that go into JSON.
    """

    name: str
    train: Maybe[tf.data.Dataset]
    validation: Maybe[tf.data.Dataset]
    test: Maybe[tf.data.Dataset]
    vocabulary: Maybe[Vocabulary] = None
    info: Mapping[str, Any] = field(default_factory=dict)
    epoch_fn: Callable[[int, int], tf.data.Dataset] | None = field(default=None, repr=False)

    @property
    def splits(self) -> dict[str, Maybe[tf.data.Dataset]]:
        """The datasets by the names of their splits; `None` where there is no such split."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def split(self, name: str) -> tf.data.Dataset:
        """The dataset of a split.

        Raises:
            ValueError: if there is none.
        """
        found = self.splits.get(name)
        if found is None:
            raise ValueError(f"{self.name} has no {name} split. Give its files, or another split.")
        return found

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one training epoch."""
        if self.train is None:
            raise ValueError(f"`{self.name}` was loaded without a training split.")
        return int(self.train.cardinality())

    def epoch(self, epoch: int, skip: int = 0) -> tf.data.Dataset:
        """The training batches of one epoch, from `skip` on. It keeps no state.

        The same `(epoch, skip)` gives the same batches in every process, so a run that was stopped
        after batch n of epoch e continues with `epoch(e, skip=n)`.

        Args:
            epoch: epoch number, from zero.
            skip: batches of the epoch that are left out at its start. They are not computed.

        Returns:
            A dataset with `steps_per_epoch - skip` batches.
        """
        if self.epoch_fn is None:
            raise ValueError(f"`{self.name}` was loaded without a training split.")
        if epoch < 0:
            raise ValueError(f"`epoch` must not be negative. Received: epoch={epoch}.")
        if not 0 <= skip <= self.steps_per_epoch:
            raise ValueError(
                f"`skip` must lie between 0 and {self.steps_per_epoch}, the batches of an epoch. "
                f"Received: skip={skip}."
            )
        return self.epoch_fn(epoch, skip)
