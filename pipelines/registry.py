"""Names of the data sets, and `load`."""

import dataclasses
import numbers
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from keras_seq._discovery import modules_of
from keras_seq.pipelines.data import Data


@dataclasses.dataclass(frozen=True)
class Request:
    """What every data set is asked for. Fields are the arguments of `load`."""

    name: str
    data_dir: Path | None
    batch_size: int
    eval_batch_size: int
    length: int | None
    history: int
    seed: int


Loader = Callable[[Request, Any], Data]
L = TypeVar("L", bound=Callable)

_loaders: dict[str, tuple[Loader, Any]] = {}


def register(name: str, options: Any) -> Callable[[L], L]:
    """Registers a loader under `name`.

    A loader maps a `Request` and its options to a `Data`. Modules of this folder are imported
    when names are looked up, so a new family of data sets is one new file.

    Args:
        name: the name for `load`.
        options: instance of a frozen dataclass: its fields are the options of the data set, its
            values their defaults.
    """

    def decorate(loader: L) -> L:
        known = _loaders.get(name)
        if known is not None and known[0].__module__ != loader.__module__:
            raise ValueError(f"A data set named {name!r} exists already. Choose another name.")
        _loaders[name] = (loader, options)
        return loader

    return decorate


def _discover() -> None:
    modules_of("keras_seq.pipelines")


def names() -> list[str]:
    """Names that `load` knows, sorted."""
    _discover()
    return sorted(_loaders)


def _entry(name: str) -> tuple[Loader, Any]:
    if name not in _loaders:
        _discover()
    if name not in _loaders:
        known = ", ".join(sorted(_loaders))
        raise ValueError(f"Unknown data set. Received: name={name!r}. Known names: {known}.")
    return _loaders[name]


def options(name: str) -> dict[str, Any]:
    """Options of a data set beyond the arguments of `load`, with their defaults."""
    defaults = _entry(name)[1]
    return {field.name: getattr(defaults, field.name) for field in dataclasses.fields(defaults)}


def _check_integer(name: str, value: Any, least: int) -> None:
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
        kind = "a positive integer" if least == 1 else f"an integer >= {least}"
        raise ValueError(f"`{name}` must be {kind}. Received: {name}={value!r}.")


def load(
    name: str,
    data_dir: str | Path | None = None,
    *,
    batch_size: int,
    eval_batch_size: int | None = None,
    length: int | None = None,
    history: int = 0,
    seed: int = 0,
    **settings: Any,
) -> Data:
    """Loads a data set.

    Args:
        name: one of `names()`.
        data_dir: folder of raw files (or of TensorFlow Datasets, with `source="tfds"`). The
            embedded and the synthetic data sets need none.
        batch_size: sequences a training batch.
        eval_batch_size: sequences a validation and test batch. Defaults to `batch_size`.
        length: scored steps of a window (texts). Data sets whose sequences have a length of their
            own take `None` or that length.
        history: steps of context before the scored ones of a window (texts).
        seed: everything random about the data follows from it.
        **settings: options of the data set, see `options(name)`. Unknown ones are refused.

    Returns:
        A `Data` with train, validation and test datasets.

    Raises:
        ValueError: for an unknown name or option, or a size that is not positive.
        DataError: for files that are missing or broken.

    Example:

    >>> from keras_seq import pipelines
    >>> data = pipelines.load("python_docs_char", batch_size=8, length=64)
    >>> ids, targets = next(iter(data.train))
    >>> ids.shape
    TensorShape([8, 64])
    """
    loader, defaults = _entry(name)
    known = options(name)
    unknown = sorted(set(settings) - set(known))
    if unknown:
        listing = ", ".join(f"{key}={value!r}" for key, value in sorted(known.items())) or "none"
        raise ValueError(
            f"Unknown option of {name!r}. Received: {', '.join(unknown)}. "
            f"Options, with their defaults: {listing}."
        )
    eval_batch_size = batch_size if eval_batch_size is None else eval_batch_size
    _check_integer("batch_size", batch_size, 1)
    _check_integer("eval_batch_size", eval_batch_size, 1)
    _check_integer("history", history, 0)
    if length is not None:
        _check_integer("length", length, 1)
    request = Request(
        name=name,
        data_dir=None if data_dir is None else Path(data_dir).expanduser(),
        batch_size=batch_size,
        eval_batch_size=eval_batch_size,
        length=length,
        history=history,
        seed=int(seed),
    )
    return loader(request, dataclasses.replace(defaults, **settings))
