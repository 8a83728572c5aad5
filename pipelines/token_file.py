"""Flat files of token ids: written once, checked, then memory-mapped."""

import contextlib
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_seq import _files
from keras_seq.pipelines.errors import DataError

_BLOCK = 1 << 22  # ids a step, where a whole file is looked through


def id_dtype(vocabulary_size: int) -> np.dtype:
    """`uint16` where the ids fit, else `uint32`."""
    return np.dtype(np.uint16 if vocabulary_size <= 1 << 16 else np.uint32)


def write_token_file(
    path: Path, blocks: Iterable[np.ndarray], vocabulary_size: int, facts: dict | None = None
) -> int:
    """Writes ids to `path` and their description to the `.json` file beside it, atomically.

    Args:
        path: the file of ids, native byte order, no header.
        blocks: arrays of ids, in order.
        vocabulary_size: ids are below it.
        facts: more entries for the description.

    Returns:
        The number of ids.
    """
    dtype = id_dtype(vocabulary_size)
    count, checksum = 0, 0

    def checked() -> Iterator[memoryview]:
        nonlocal count, checksum
        for block in blocks:
            ids = np.ascontiguousarray(block, dtype)
            checksum = zlib.crc32(ids.data, checksum)
            count += ids.size
            yield ids.data

    path.parent.mkdir(parents=True, exist_ok=True)
    _files.write_bytes(path, checked())
    description = {
        **(facts or {}),
        "tokens": count,
        "dtype": dtype.name,
        "crc32": checksum,
        "vocabulary_size": vocabulary_size,
    }
    _files.write_json(path.with_suffix(".json"), description)
    return count


def read_token_file(path: Path, facts: dict | None = None) -> np.ndarray | None:
    """Maps a file that `write_token_file` wrote, or returns `None`.

    `None` means: not there, cut short, changed since it was written, or written from other facts.
    The caller encodes its source again.
    """
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        description = json.loads(path.with_suffix(".json").read_bytes())
        if any(description.get(key) != value for key, value in (facts or {}).items()):
            return None
        dtype = np.dtype(description["dtype"])
        if path.stat().st_size != description["tokens"] * dtype.itemsize:
            return None
        if not description["tokens"]:
            return np.zeros(0, dtype)
        ids = np.memmap(path, dtype, mode="c")
        checksum = 0
        for start in range(0, ids.size, _BLOCK):
            checksum = zlib.crc32(ids[start : start + _BLOCK].data, checksum)
        return ids if checksum == description["crc32"] else None
    return None


def open_token_file(path: str | Path, vocabulary_size: int, dtype: str | None = None) -> np.ndarray:
    """Maps any flat file of ids and checks every id.

    Args:
        path: file of ids in native byte order.
        vocabulary_size: ids must be below it.
        dtype: `"uint16"` or `"uint32"`. Defaults to the smaller one that holds the vocabulary.

    Raises:
        DataError: for a missing or empty file, a size that is no whole number of ids, or an id out
            of range.
    """
    path = Path(path)
    kind = id_dtype(vocabulary_size) if dtype is None else np.dtype(dtype)
    if not path.is_file():
        raise DataError("no such file.", path=path, remedy="Give the path of a file of ids.")
    size = path.stat().st_size
    if not size or size % kind.itemsize:
        problem = f"{size} bytes are no whole number of {kind.name} ids." if size else "no ids."
        raise DataError(
            problem, path=path, place=f"byte {size}", remedy="Write the file again; check `dtype`."
        )
    ids = np.memmap(path, kind, mode="c")
    check_ids(ids, vocabulary_size, path)
    return ids


def check_ids(ids: np.ndarray, vocabulary_size: int, path: str | Path | None = None) -> None:
    """Raises `DataError` at the first id that is not below `vocabulary_size`."""
    for start in range(0, ids.size, _BLOCK):
        block = ids[start : start + _BLOCK]
        if block.max() >= vocabulary_size:
            place = start + int(np.argmax(block >= vocabulary_size))
            raise DataError(
                f"id {int(ids[place])} is out of range for a vocabulary of {vocabulary_size}.",
                path=path,
                place=f"token {place} (byte {place * ids.itemsize})",
                remedy="Encode the text with this vocabulary, or give the one it was encoded with.",
            )


def as_tensor(ids: np.ndarray) -> tf.Tensor:
    """The ids as a tensor on the CPU, sharing memory with `ids` where TensorFlow allows it."""
    with tf.init_scope(), tf.device("CPU:0"):
        # TensorFlow's kernels want 64-byte alignment, which a mapped file has.
        if ids.size and ids.flags.c_contiguous and ids.ctypes.data % 64 == 0:
            with contextlib.suppress(BufferError, TypeError, ValueError, RuntimeError):
                return tf.experimental.dlpack.from_dlpack(ids.__dlpack__())
        return tf.constant(ids)
