"""`series_classification`, `japanese_vowels`: series of different lengths, each with a class."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_seq.pipelines.buckets import Buckets, bucket_bounds
from keras_seq.pipelines.corpus_files import data_folder
from keras_seq.pipelines.counter_random import mix_numpy, stream_key
from keras_seq.pipelines.data import Data
from keras_seq.pipelines.epochs import EpochSource
from keras_seq.pipelines.errors import DataError, MissingDataError
from keras_seq.pipelines.registry import Request, register
from keras_seq.pipelines.tones import PERIODS, tones
from keras_seq.pipelines.ts_files import SeriesFile, read_ts

MISSING = ("refuse", "skip", "mark")


@dataclass(frozen=True)
class SeriesOptions:
    """Options of every data set of series with classes.

    Attributes:
        validation: fraction of the training series of each class that is held out, the same ones
            whatever the seed. 0 for none.
        buckets: number of lengths that batches are padded to, chosen so that the padding is least;
            a batch holds series of one of them, and at most one batch of a split is smaller than
            the others. 0 for none: a batch holds any series and is as long as its longest.
        missing: what becomes of missing values: `"refuse"` raises an error that names the first;
            `"skip"` leaves out the steps that lack a value; `"mark"` gives a step twice as many
            features, the values, zero where one is missing, and then for each 1 where it is there
            and 0 where it is missing. Steps without any value at the end of a series are no part of
            it.
        standardize: give each feature mean 0 and deviation 1 over the steps of the training series,
            those held out not among them; `info["moments"]` holds both.
        noise: deviation of the normal noise that is added to the features of training series, drawn
            anew at each visit from the seed and the epoch, 0 for none. It is in units of the
            features: most of use with `standardize`.
    """

    validation: float = 0.2
    buckets: int = 8
    missing: str = "refuse"
    standardize: bool = False
    noise: float = 0.0


@dataclass(frozen=True)
class ClassificationOptions(SeriesOptions):
    """Options of `series_classification`, beside those of all series with classes.

    Attributes:
        problem: the data set's name in the file names `NAME_TRAIN.ts` and `NAME_TEST.ts`; `None`
            for the only one in `data_dir`, and without a `data_dir` for series that are computed.
    """

    problem: str | None = None


@dataclass(frozen=True)
class Labelled:
    """Series of a split and their classes.

    Attributes:
        series: float32 arrays (t, d), NaN where a value is missing.
        labels: int32 (n,).
        source: where they are from.
    """

    series: Sequence[np.ndarray]
    labels: np.ndarray
    source: str

    def of(self, rows: np.ndarray) -> "Labelled":
        """Some of them."""
        return Labelled([self.series[row] for row in rows], self.labels[rows], self.source)

    def changed(self, change: Callable[[np.ndarray], np.ndarray]) -> "Labelled":
        """The same with other values."""
        series = [change(values).astype(np.float32) for values in self.series]
        return Labelled(series, self.labels, self.source)


@register("japanese_vowels", SeriesOptions())
def japanese_vowels(request: Request, options: SeriesOptions) -> Data:
    """Nine speakers by two vowels (Kudo et al. 1999): 270 and 370 series of 12 coefficients."""
    return _of_files(request, options, "JapaneseVowels")


@register("series_classification", ClassificationOptions())
def series_classification(request: Request, options: ClassificationOptions) -> Data:
    """A data set of `.ts` files; without any, four tones that the package makes."""
    if options.problem is None and request.data_dir is None:
        splits = {split: Labelled(*tones(split), "computed") for split in ("train", "test")}
        return series_data(request, options, splits, [str(period) for period in PERIODS])
    return _of_files(request, options, options.problem)


def _of_files(request: Request, options: SeriesOptions, problem: str | None) -> Data:
    paths = find_ts(data_folder(request.data_dir), problem)
    files = {split: read_ts(path) for split, path in paths.items()}
    train = files["train"]
    classes = train.classes or tuple(sorted(set(train.labels)))
    splits = {split: _labelled(file, train, classes, options) for split, file in files.items()}
    return series_data(request, options, splits, classes)


def find_ts(folder: Path | None, problem: str | None) -> dict[str, Path]:
    """The files of a data set: in the folder, or in its folder `series/` or of the set's name.

    Args:
        folder: the data folder.
        problem: the name of the set; `None` for the only one that is there.

    Returns:
        `train`, and `test` where there is one.

    Raises:
        MissingDataError: if there is no training file.
        DataError: if no name is given and there are several.
    """
    ending = "_TRAIN.ts"
    name = f"{problem or '*'}{ending}"
    remedy = (
        "Give `data_dir`, the folder of the files NAME_TRAIN.ts and NAME_TEST.ts "
        "(from timeseriesclassification.com), or its parent."
    )
    found: list[Path] = []
    for place in () if folder is None else (folder, folder / "series", folder / (problem or "")):
        found = found or sorted(place.glob(name) if problem is None else [place / name])
        found = [path for path in found if path.is_file()]
    if not found:
        raise MissingDataError(f"no {name}, here or in series/.", path=folder, remedy=remedy)
    if len(found) > 1:
        names = ", ".join(path.name.removesuffix(ending) for path in found)
        raise DataError(
            f"there are several data sets: {names}.",
            path=found[0].parent,
            remedy="Choose one with `problem` (--set data.options.problem=NAME).",
        )
    train = found[0]
    test = train.with_name(train.name.removesuffix(ending) + "_TEST.ts")
    return {"train": train, **({"test": test} if test.is_file() else {})}


def _labelled(
    file: SeriesFile, train: SeriesFile, classes: Sequence[str], options: SeriesOptions
) -> Labelled:
    """Series and class numbers, with missing values only where these are to be marked."""

    def broken(problem: str, place: int | None = None, remedy: str = "") -> DataError:
        where = None if place is None else f"line {file.lines[place]}"
        return DataError(problem, path=file.path, place=where, remedy=remedy)

    if not file.labels:
        raise broken("the series have no classes.", remedy="Give a file with @classLabel true.")
    if file.features != train.features:
        raise broken(
            f"the series have {file.features} dimensions, those of {train.path} {train.features}.",
            remedy="Give files of one data set.",
        )
    if file.classes and tuple(file.classes) != tuple(classes):
        raise broken(
            f"the classes are {', '.join(file.classes)}, those of {train.path} "
            f"{', '.join(classes)}.",
            remedy="Give files of one data set, with one line @classLabel.",
        )
    number = {label: i for i, label in enumerate(classes)}
    series = []
    for place, values in enumerate(file.series):
        label = file.labels[place]
        if label not in number:
            raise broken(
                f"no series of {train.path} has the class {label!r}.",
                place,
                "List all classes after @classLabel true.",
            )
        there = np.isfinite(values)
        used = np.flatnonzero(there.any(axis=1))
        end = int(used[-1]) + 1 if used.size else 0
        values, there = values[:end], there[:end]
        if not there.all() and options.missing == "refuse":
            step, dimension = np.argwhere(~there)[0]
            raise broken(
                f"the value of dimension {dimension + 1} at step {step + 1} is missing.",
                place,
                'Choose `missing="skip"` or "mark" (--set data.options.missing=mark).',
            )
        if options.missing == "skip":
            values = values[there.all(axis=1)]
        if not len(values):
            raise broken("the series has no step with values.", place, "Leave the series out.")
        series.append(values)
    labels = np.array([number[label] for label in file.labels], np.int32)
    return Labelled(series, labels, str(file.path))


def series_data(
    request: Request,
    options: SeriesOptions,
    splits: dict[str, Labelled],
    classes: Sequence[str],
) -> Data:
    """`Data` of labelled series, of which some of the training ones are held out.

    x of a batch is a dict: `inputs`, float32 (b, t, d) with zeros after the end of a series, and
    `lengths`, int32 (b,). y is int32 (b,).

    Args:
        request, options: what is asked for.
        splits: `train`, and `test` where there is one.
        classes: their names.
    """
    _check(request, options)
    chosen = _hold_out(splits["train"], options.validation)
    chosen |= {"test": splits["test"]} if "test" in splits else {}
    info: dict[str, Any] = {}
    if options.standardize:
        mean, deviation = _moments(chosen["train"])
        info["moments"] = {"mean": mean.tolist(), "deviation": deviation.tolist()}
        chosen = {
            name: one.changed(lambda values: (values - mean) / deviation)
            for name, one in chosen.items()
        }
    if options.missing == "mark":
        chosen = {name: one.changed(_marked) for name, one in chosen.items()}
    lengths = {name: np.array([len(s) for s in one.series]) for name, one in chosen.items()}
    every = np.concatenate([*lengths.values()])
    bounds = bucket_bounds(every, options.buckets) if options.buckets else np.array([every.max()])
    planned = {name: Buckets(lengths[name], bounds, pass_on=True) for name in chosen}
    fetch = {name: _fetcher(one, bool(options.buckets)) for name, one in chosen.items()}

    def plan(epoch):
        key = tf.stack([tf.constant(request.seed, tf.int64), tf.cast(epoch, tf.int64)])
        rows, bounds = planned["train"].shuffled(key, request.batch_size)
        if not options.noise:
            return rows, bounds
        steps = planned["train"].steps(request.batch_size)
        # Not those of the order; of each batch another.
        draws = tf.random.stateless_uniform((steps, 2), key - [1, 0], None, None, tf.int64)
        return rows, bounds, draws

    def train_batch(rows, bound, draw=None):
        x, y = fetch["train"](tf.boolean_mask(rows, rows >= 0), bound)
        if draw is not None:
            x["inputs"] = _noisy(x["inputs"], x["lengths"], options.noise, draw)
        return x, y

    train = EpochSource(
        plan,
        train_batch,
        planned["train"].steps(request.batch_size),
        parallel=True,
        copy_constants=False,
    )
    held_out = {
        name: planned[name].in_order(request.eval_batch_size, fetch[name])
        for name in chosen
        if name != "train"
    }
    return Data(
        name=request.name,
        train=train.repeated(),
        validation=held_out.get("validation"),
        test=held_out.get("test"),
        info={
            "examples": {name: len(one.series) for name, one in chosen.items()},
            "steps": {name: int(lengths[name].sum()) for name in chosen},
            "classes": len(classes),
            "class_names": list(classes),
            "features": int(chosen["train"].series[0].shape[1]),
            "lengths": [int(every.min()), int(every.max())],
            "bounds": [int(bound) for bound in bounds] if options.buckets else [],
            "source": {name: one.source for name, one in chosen.items()},
            **info,
        },
        epoch_fn=train.epoch,
    )


def _noisy(inputs, lengths, deviation: float, seed):
    """Inputs (b, t, d) with noise at the steps that series have."""
    noise = tf.random.stateless_normal(tf.shape(inputs), seed, stddev=deviation)
    steps = tf.range(tf.shape(inputs)[1])[None]
    return inputs + tf.where((steps < lengths[:, None])[..., None], noise, 0.0)


def _check(request: Request, options: SeriesOptions) -> None:
    if request.length is not None or request.history:
        raise ValueError(
            f"The series of {request.name!r} have lengths of their own. Received: length="
            f"{request.length}, history={request.history}. Leave both out."
        )
    if not isinstance(options.buckets, int) or options.buckets < 0:
        raise ValueError(
            f"`buckets` must be a number of lengths, or 0. Received: buckets={options.buckets!r}."
        )
    if options.missing not in MISSING:
        raise ValueError(
            f"`missing` must be one of {MISSING}. Received: missing={options.missing!r}."
        )
    if isinstance(options.noise, bool | str) or not 0 <= options.noise < np.inf:
        raise ValueError(
            f"`noise` must be a deviation, at least 0. Received: noise={options.noise!r}."
        )
    fraction = options.validation
    if isinstance(fraction, bool | str) or not 0 <= fraction < 1:
        raise ValueError(
            f"`validation` must be a fraction in [0, 1). Received: validation={fraction!r}."
        )


def _hold_out(train: Labelled, fraction: float) -> dict[str, Labelled]:
    """Train and, where it has any, validation: of each class the same fraction."""
    held: list[int] = []
    for label in np.unique(train.labels):
        rows = np.flatnonzero(train.labels == label)
        order = np.argsort(mix_numpy(stream_key(int(label)), rows.astype(np.uint64)))
        held += rows[order[: min(round(fraction * len(rows)), len(rows) - 1)]].tolist()
    if not held:
        if fraction:
            raise ValueError(
                "`validation` must hold out a series of some class, and leave one of each. "
                f"Received: validation={fraction!r}. Choose a larger fraction, or 0 for none."
            )
        return {"train": train}
    kept = np.setdiff1d(np.arange(len(train.labels)), held)
    return {"train": train.of(kept), "validation": train.of(np.sort(held))}


def _moments(train: Labelled) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each feature; those of a constant one are its value and 1."""
    values = np.concatenate(train.series).astype(np.float64)
    there = np.isfinite(values)
    count = np.maximum(there.sum(axis=0), 1)
    mean = np.where(there, values, 0).sum(axis=0) / count
    deviation = np.sqrt((np.where(there, values - mean, 0) ** 2).sum(axis=0) / count)
    return mean, np.where(deviation > 1e-6 * np.abs(mean), deviation, 1.0)


def _marked(values: np.ndarray) -> np.ndarray:
    """The values with zero where one is missing, and for each whether it is there."""
    there = np.isfinite(values)
    return np.concatenate([np.where(there, values, 0), there], axis=1)


def _fetcher(one: Labelled, padded_to_bound: bool):
    """What makes a batch of rows, padded to a bound or to the longest of them."""
    count = np.array([len(series) for series in one.series])
    with tf.init_scope(), tf.device("CPU:0"):
        values = tf.constant(np.concatenate(one.series))
        starts = tf.constant((np.cumsum(count) - count).astype(np.int32))
        lengths = tf.constant(count.astype(np.int32))
        labels = tf.constant(one.labels)
    features = values.shape[1]

    def fetch(rows, bound) -> tuple[dict[str, Any], Any]:
        ends = tf.gather(lengths, rows)
        steps = tf.range(bound if padded_to_bound else tf.reduce_max(ends))[None]
        places = tf.gather(starts, rows)[:, None] + tf.minimum(steps, ends[:, None] - 1)
        x = tf.where((steps < ends[:, None])[..., None], tf.gather(values, places), 0.0)
        x = tf.ensure_shape(x, (None, None, features))
        return {"inputs": x, "lengths": ends}, tf.gather(labels, rows)

    return fetch
