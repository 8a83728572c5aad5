"""Checkpoints: all that a run needs to continue as if it had never stopped, in one file."""

import json
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_seq import _files, _replicas
from keras_seq._reading import SLACK, check_unpacked, reading, regular
from keras_seq.models import SequenceModel
from keras_seq.training.state import Progress

FORMAT = 1


class Checkpoint:
    """A snapshot of model, optimizer, metrics, carried state and progress.

    The file is an uncompressed `.npz` with one array a variable and the JSON document `meta`. It
    is replaced in one step, so that there is a usable one at any moment.

    Of a run on several devices, it also holds what differs between them, by device: the states of
    the dropout seeds and the running sums of the metrics. On as many devices it is resumed exactly;
    on another number of them, also on one, the values of the whole are taken.

    Args:
        groups: group name → arrays, in the order of the variables.
        meta: JSON values: progress, rows of metrics, states of callbacks.
        path: the file that it was read from.
    """

    def __init__(
        self,
        groups: dict[str, list[np.ndarray]],
        meta: dict[str, Any],
        path: Path | None = None,
    ):
        self.groups = groups
        self.meta = meta
        self.path = path

    @classmethod
    def of(
        cls,
        model: keras.Model,
        meta: dict[str, Any],
        metrics: dict[str, list[np.ndarray]] | None = None,
    ) -> "Checkpoint":
        """A snapshot of a compiled model.

        Beside the weights, the model's variables hold the state of every dropout seed; the
        metrics' hold the running means of the epoch. Where several processes train together, all
        must call it.

        Args:
            model: the model.
            meta: see the class.
            metrics: the running means, where validation has taken their place meanwhile.
        """
        carried = model.carried_state if isinstance(model, SequenceModel) else None
        variables = _variables(model)
        groups = {name: [_array(v) for v in variables[name]] for name in ("model", "optimizer")}
        groups |= cls.metrics_of(model) if metrics is None else metrics
        if _count(model) > 1:
            seeds = _of_replicas(variables["model"])
            groups["replicas"] = _replicas.stacked(model.distribute_strategy, seeds)
        groups["carried"] = [] if carried is None else carried.get("train")
        paths = [variable.path for variable in model.variables]
        return cls(groups, {**meta, "format": FORMAT, "paths": paths})

    @staticmethod
    def metrics_of(model: keras.Model) -> dict[str, list[np.ndarray]]:
        """The groups of the running means alone."""
        variables = _variables(model)["metrics"]
        if _count(model) == 1:
            return {"metrics": [_array(variable) for variable in variables]}
        stacked = _replicas.stacked(model.distribute_strategy, variables)
        whole = [
            array.sum(axis=0).astype(array.dtype) if variable.aggregation == "sum" else array[0]
            for array, variable in zip(stacked, variables, strict=True)
        ]
        return {"metrics": whole, "replicas_metrics": stacked}

    @property
    def finite(self) -> bool:
        """Whether all weights and optimizer variables are finite numbers."""
        arrays = (*self.groups["model"], *self.groups["optimizer"])
        return all(bool(np.isfinite(a).all()) for a in arrays if a.dtype.kind not in "biu")

    def save(self, path: Path) -> None:
        """Writes the file in place of a former one."""
        kinds = {
            name: [array.dtype.name for array in arrays] for name, arrays in self.groups.items()
        }
        meta = json.dumps({**self.meta, "dtypes": kinds})
        arrays = {"meta": np.frombuffer(meta.encode(), np.uint8)}
        for name, group in self.groups.items():
            for index, array in enumerate(group):
                arrays[f"{name}/{index:05}"] = _storable(array)
        with _files.atomic(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]

    @classmethod
    def load(cls, path: Path) -> "Checkpoint | None":
        """The checkpoint of a file; `None` if there is none yet.

        Raises:
            BrokenFileError: if the file was not written by `save`, or was changed since.
        """
        if not path.exists():
            return None
        remedy = "Restore it from a copy, or remove the folder `backup` to start the run afresh."
        with reading(path, "a checkpoint of this version", remedy):
            with zipfile.ZipFile(regular(path, remedy)) as packed:
                check_unpacked(packed, SLACK + 10 * path.stat().st_size)  # `save` packs nothing
            with np.load(path, allow_pickle=False) as archive:
                meta = json.loads(bytes(archive["meta"]))
                if meta["format"] != FORMAT:
                    raise ValueError(f"it has format {meta['format']}, not {FORMAT}")
                groups = {
                    name: [
                        _restored(archive[f"{name}/{index:05}"], kind)
                        for index, kind in enumerate(kinds)
                    ]
                    for name, kinds in meta.pop("dtypes").items()
                }
            lacking = {"model", "optimizer", "metrics", "carried"} - set(groups)
            if lacking:
                raise ValueError(f"it has no {', '.join(sorted(lacking))}")
            Progress.from_meta(meta)
            return cls(groups, meta, path)

    def restore(self, model: keras.Model) -> None:
        """Gives model and optimizer the saved values; the metrics' come with `restore_metrics`.

        Raises:
            ValueError: if the checkpoint belongs to another model or optimizer.
        """
        self.restore_weights(model)
        self.restore_optimizer(model)
        carried = model.carried_state if isinstance(model, SequenceModel) else None
        within = self.meta.get("step_in_epoch", 0) > 0  # an epoch begins with the zero state
        if carried is not None and within and self.groups["carried"]:
            carried.restore(self.groups["carried"], "train")

    def restore_weights(self, model: keras.Model) -> None:
        """Gives the model the saved weights and seed states."""
        self._assign("model", model.variables)
        self._assign_replicas("replicas", model, _of_replicas(model.variables))

    def restore_optimizer(self, model: keras.Model) -> None:
        """Gives the optimizer the saved values: moments, averages, the number of steps."""
        self._assign("optimizer", _variables(model)["optimizer"])

    def restore_metrics(self, model: keras.Model) -> None:
        """Sets the running means of the epoch; call it once the epoch has begun."""
        variables = _variables(model)["metrics"]
        if len(variables) == len(self.groups["metrics"]):
            self._assign("metrics", variables)
            self._assign_replicas("replicas_metrics", model, variables)

    def _assign(self, name: str, variables) -> None:
        arrays = self.groups[name]
        shapes = [tuple(variable.shape) for variable in variables]
        if shapes != [array.shape for array in arrays]:
            where = "The checkpoint" if self.path is None else f"{self.path}: the checkpoint"
            raise ValueError(
                f"{where}'s {name} variables do not fit: it holds {len(arrays)} arrays and "
                f"the recipe makes {len(variables)}, or their shapes differ. "
                "A run can only be resumed with the recipe that it began with."
            )
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)

    def _assign_replicas(self, name: str, model: keras.Model, variables) -> None:
        """Gives the devices their own values, if there are as many as the checkpoint is of."""
        arrays, count = self.groups.get(name, []), _count(model)
        fits = len(arrays) == len(variables) and all(len(array) == count for array in arrays)
        if count > 1 and fits:
            _replicas.assign_stacked(model.distribute_strategy, variables, arrays)


def _count(model: keras.Model) -> int:
    """The number of devices that a model is trained on."""
    strategy = getattr(model, "distribute_strategy", None)
    return 1 if strategy is None else strategy.num_replicas_in_sync


def _of_replicas(variables) -> list[Any]:
    """The variables that each replica changes by itself: the states of seeds."""
    return [variable for variable in variables if not variable.trainable]


def _variables(model: keras.Model) -> dict[str, list[Any]]:
    optimizer = getattr(model, "optimizer", None)
    return {
        "model": list(model.variables),
        "optimizer": [] if optimizer is None else list(optimizer.variables),
        "metrics": [variable for metric in model.metrics for variable in metric.variables],
    }


def _array(variable) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_tensor(variable).numpy())


def _storable(array: np.ndarray) -> np.ndarray:
    """The array, or its bits where NumPy's file format does not know the type (bfloat16)."""
    if array.dtype.kind == "V" or array.dtype.name in ("bfloat16",) or "float8" in array.dtype.name:
        return array.view(np.dtype(f"u{array.dtype.itemsize}"))
    return array


def _restored(array: np.ndarray, kind: str) -> np.ndarray:
    if array.dtype.name == kind:
        return array
    import ml_dtypes

    return array.view(np.dtype(getattr(ml_dtypes, kind)))
