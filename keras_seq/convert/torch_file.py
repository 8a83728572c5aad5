"""PyTorch weight files, read without PyTorch and without executing anything from them.

Two formats exist. Since PyTorch 1.6 a file is a zip archive with one pickle and one entry a
storage; before, it was a sequence of pickles followed by the raw storages. Both hold either a
state dict (name to tensor), a checkpoint with one inside, or a whole module.
"""

import io
import reprlib
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from keras_seq._reading import BrokenFileError, check_unpacked, regular
from keras_seq.convert.pickle_machine import PickleMachine, UnsafePickleError
from keras_seq.convert.torch_objects import (
    Storage,
    TorchFileError,
    call_symbol,
    storage_dtype,
)
from keras_seq.convert.torch_state import find_state

_ZIP_MAGIC = b"PK\x03\x04"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    ValueError,
)


def read_state_dict(path: str | Path, limit: int | None = None) -> dict[str, np.ndarray]:
    """Reads the weights of a file that `torch.save` wrote.

    Understood are state dicts, checkpoints that hold one (under `"state_dict"`, `"model"` and the
    like, or in a list), and whole modules, in the zip format and in the format before it. Nothing
    of the file is executed; a file that asks for a call which no weights need is refused, and so is
    one that would unpack to far more than it holds. Of a checkpoint, the weights alone are read.

    Args:
        path: the file.
        limit: most bytes of the weights; `None` for any that the file's size allows.

    Returns:
        The arrays by name, read-only views of the file's storages: float64, float32, float16,
        the integer types and bool as they are; bfloat16 as float32.

    Raises:
        TorchFileError: the file is missing, damaged, of another kind, or refused. The message names
            the file and the place in it.

    Example:

    >>> weights = read_state_dict("trellisnet.pt")  # doctest: +SKIP
    >>> weights["encoder.weight"].shape  # doctest: +SKIP
    (10000, 280)
    """
    try:
        path = regular(path, "Give the path of a PyTorch weight file.")
    except (FileNotFoundError, BrokenFileError) as error:
        missing = isinstance(error, FileNotFoundError)
        problem = f"There is no file `{path}`" if missing else f"`{path}` is none: {error.problem}"
        raise TorchFileError(f"{problem} Give the path of a PyTorch weight file.") from None
    try:
        with path.open("rb") as stream:
            return _read_arrays(stream, limit)
    except UnsafePickleError as error:
        raise TorchFileError(f"`{path}` cannot be read as PyTorch weights: {error}.") from None
    except Exception as error:  # whatever else damage may lead to
        reason = f"{type(error).__name__}: {error}"
        raise TorchFileError(f"`{path}` cannot be read as PyTorch weights: {reason}.") from error


def _arrays(root: Any, limit: int | None) -> dict[str, np.ndarray]:
    """The weights in what a file holds."""
    state = find_state(root)
    storages = {id(tensor.storage.whole): tensor.storage.whole for tensor in state.values()}
    needed = sum(storage.nbytes for storage in storages.values())
    if limit is not None and needed > limit:
        raise UnsafePickleError(
            f"its weights take {needed:,} bytes, for this model at most {limit:,} are expected"
        )
    return {name: tensor.array(name) for name, tensor in state.items()}


def _read_arrays(stream: BinaryIO, limit: int | None) -> dict[str, np.ndarray]:
    head = stream.read(512)
    stream.seek(0)
    if not head:
        raise UnsafePickleError("it is empty")
    if head[:4] == _ZIP_MAGIC:
        return _read_zip(stream, limit)
    if head[257:262] == b"ustar":
        raise UnsafePickleError(
            "it is a tar archive, the format before PyTorch 0.2; load and save it again there"
        )
    if head[:8] == b"\x89HDF\r\n\x1a\n":
        raise UnsafePickleError("it is an HDF5 file; Keras weights need no conversion")
    if head[:1] != b"\x80":
        raise UnsafePickleError("it is neither a zip archive nor a pickle (at byte 0)")
    return _arrays(_read_legacy(stream), limit)


# The zip format ----------------------------------------------------------------------------------


def _read_zip(stream: BinaryIO, limit: int | None) -> dict[str, np.ndarray]:
    size = stream.seek(0, io.SEEK_END)
    try:
        with zipfile.ZipFile(stream) as archive:
            check_unpacked(archive)
            return _arrays(_read_archive(archive), limit)
    except UnsafePickleError:
        raise
    except _ZIP_ERRORS as error:
        raise UnsafePickleError(
            f"the zip archive of {size} bytes is damaged or cut short: {error}"
        ) from None


def _read_archive(archive: zipfile.ZipFile) -> Any:
    """What the archive holds; its storages are read where they are asked for."""
    names = set(archive.namelist())
    roots = [name[: -len("data.pkl")] for name in names if Path(name).name == "data.pkl"]
    if len(roots) != 1:
        raise UnsafePickleError(f"the zip archive holds {len(roots)} entries `data.pkl`, not one")
    root = roots[0]
    if f"{root}constants.pkl" in names:
        raise UnsafePickleError("it holds a TorchScript program; save its state_dict() instead")
    order = "little"
    if f"{root}byteorder" in names:
        order = archive.read(f"{root}byteorder").decode("ascii", "replace").strip()
        if order not in ("little", "big"):
            raise UnsafePickleError(f"entry `{root}byteorder` holds {order!r}")
    storages: dict[str, Storage] = {}

    def load(identifier: Any) -> Any:
        kind, symbol, key, _, count = _identifier(identifier, 5)
        if kind != "storage":
            raise UnsafePickleError(f"unknown reference {kind!r} to data outside the pickle")
        if key not in storages:
            entry = f"{root}data/{key}"
            if entry not in names:
                raise UnsafePickleError(f"entry `{entry}` is missing")
            dtype = storage_dtype(symbol)
            storage = Storage(str(key), dtype, count, order)
            size = archive.getinfo(entry).file_size
            if size != storage.nbytes:
                raise UnsafePickleError(
                    f"entry `{entry}` has {size} bytes where {storage.nbytes} are expected"
                )
            storage.fill_from(lambda: archive.read(entry))
            storages[key] = storage
        return _same_type(storages[key], symbol)

    pickle = io.BytesIO(archive.read(f"{root}data.pkl"))
    try:
        return PickleMachine(pickle, call_symbol, load).read()
    except UnsafePickleError as error:
        raise UnsafePickleError(f"in entry `{root}data.pkl`, {error}") from None


# The format before it ----------------------------------------------------------------------------


def _read_legacy(stream: BinaryIO) -> Any:
    plain = PickleMachine(stream)
    if plain.read() != _LEGACY_MAGIC:
        raise UnsafePickleError("it is a pickle, but torch.save did not write it (at byte 0)")
    protocol = plain.read()
    if protocol != _LEGACY_PROTOCOL:
        raise UnsafePickleError(f"unknown protocol {protocol!r}, expected {_LEGACY_PROTOCOL}")
    plain.read()  # sizes of C types on the machine that wrote it; the data do not depend on them
    storages: dict[str, Storage] = {}
    views: dict[str, Storage] = {}

    def load(identifier: Any) -> Any:
        if isinstance(identifier, tuple) and identifier and identifier[0] == "module":
            return identifier[1]  # a class, with its source text beside it
        kind, symbol, key, _, count, view = _identifier(identifier, 6)
        if kind != "storage":
            raise UnsafePickleError(f"unknown reference {kind!r} to data outside the pickle")
        storage = storages.setdefault(key, Storage(str(key), storage_dtype(symbol), count))
        _same_type(storage, symbol)
        if view is None:
            return storage
        view_key, offset, size = _identifier(view, 3)
        return views.setdefault(view_key, storage.view(offset, size))

    root = PickleMachine(stream, call_symbol, load).read()
    keys = plain.read()
    if not isinstance(keys, list) or set(keys) != set(storages):
        raise UnsafePickleError(f"the list of storages is damaged (before byte {stream.tell()})")
    for key in keys:
        _fill_legacy(stream, storages[key])
    return root


def _fill_legacy(stream: BinaryIO, storage: Storage) -> None:
    place = stream.tell()
    header = stream.read(8)
    if len(header) < 8:
        raise UnsafePickleError(f"the file ends before storage {storage.key} (at byte {place})")
    (count,) = struct.unpack("<q", header)
    if count != storage.count:
        raise UnsafePickleError(
            f"storage {storage.key} has {count} elements where {storage.count} are expected "
            f"(at byte {place})"
        )
    end = stream.seek(0, io.SEEK_END)
    stream.seek(place + 8)
    if end - place - 8 < storage.nbytes:
        raise UnsafePickleError(
            f"the file ends inside storage {storage.key}: {storage.nbytes} bytes are expected, "
            f"{end - place - 8} are left (at byte {place + 8})"
        )
    storage.fill(stream.read(storage.nbytes))


def _same_type(storage: Storage, symbol: Any) -> Storage:
    dtype = storage_dtype(symbol)
    if dtype != storage.dtype:
        raise UnsafePickleError(f"storage {storage.key} is both of {storage.dtype} and {dtype}")
    return storage


def _identifier(value: Any, length: int) -> tuple:
    if not isinstance(value, tuple) or len(value) != length:
        raise UnsafePickleError(f"damaged reference to a storage: {reprlib.repr(value)}")
    return value
