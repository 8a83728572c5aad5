"""What the pickles of PyTorch refer to: storages, tensors, and the few calls that make them."""

import math
import reprlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np

from keras_seq.convert.pickle_machine import ORDERED_DICTS, Record, Symbol, UnsafePickleError


class TorchFileError(ValueError):
    """A PyTorch weight file that cannot be read; the message names the file and the place."""


_DTYPES: dict[str, Any] = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
    "UntypedStorage": np.uint8,
}
_TENSOR_DTYPES = {
    "float64": np.float64,
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "int64": np.int64,
    "int32": np.int32,
    "int16": np.int16,
    "int8": np.int8,
    "uint8": np.uint8,
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
    "bool": np.bool_,
}


def storage_dtype(symbol: Any) -> np.dtype:
    """The element type of a storage class such as `torch.FloatStorage` (or its CUDA twin)."""
    modules = ("torch", "torch.cuda", "torch.storage")
    known = isinstance(symbol, Symbol) and symbol.module in modules
    if not known or symbol.name not in _DTYPES:
        raise UnsafePickleError(f"storages of type `{symbol}` are not supported")
    return np.dtype(_DTYPES[symbol.name])


def _count(value: Any, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        found = reprlib.repr(value)
        raise UnsafePickleError(f"{what} must be a whole number of at least 0, found {found}")
    return value


@dataclass(eq=False)
class Storage:
    """A flat piece of memory of a file, or a window of another one.

    Args:
        key: its name in the file.
        dtype: the type of its elements.
        count: how many elements it has.
        order: the byte order, `"little"` or `"big"`.
    """

    key: str
    dtype: np.dtype
    count: int
    order: str = "little"
    base: "Storage | None" = None
    offset: int = 0
    _values: dict = field(default_factory=dict)
    _data: bytes | None = None
    _source: Callable[[], bytes] | None = None

    def __post_init__(self):
        _count(self.count, f"the size of storage {self.key}")

    @property
    def nbytes(self) -> int:
        return self.count * self.dtype.itemsize

    def view(self, offset: Any, count: Any) -> "Storage":
        """A window on this storage."""
        offset, count = _count(offset, "a view's offset"), _count(count, "a view's size")
        if offset + count > self.count:
            raise UnsafePickleError(
                f"a view of storage {self.key} covers elements {offset} to {offset + count}, "
                f"it has {self.count}"
            )
        return Storage(self.key, self.dtype, count, self.order, self, offset)

    def fill(self, data: bytes) -> None:
        """Sets the content."""
        self._data = data

    def fill_from(self, source: Callable[[], bytes]) -> None:
        """Sets what reads the content, once it is asked for."""
        self._source = source

    @property
    def whole(self) -> "Storage":
        """The storage that this is a window of; itself, if it is none."""
        return self if self.base is None else self.base.whole

    def values(self, dtype: np.dtype) -> np.ndarray:
        """The content as a flat read-only array of `dtype`; bfloat16 becomes float32."""
        if self.base is not None:
            start, stop = self.offset, self.offset + self.count
            scale = self.dtype.itemsize / dtype.itemsize
            return self.base.values(dtype)[int(start * scale) : int(stop * scale)]
        if dtype not in self._values:
            if self._data is None and self._source is not None:
                self._data = self._source()
            if self._data is None:
                raise UnsafePickleError(f"the content of storage {self.key} is missing")
            usable = len(self._data) // dtype.itemsize * dtype.itemsize
            flat = np.frombuffer(self._data[:usable], dtype)
            if self.order == "big":
                flat = flat.byteswap()
            if dtype == ml_dtypes.bfloat16:
                flat = flat.astype(np.float32)
            flat.flags.writeable = False
            self._values[dtype] = flat
        return self._values[dtype]


@dataclass(eq=False)
class Tensor:
    """A window with strides on a storage; read when its values are asked for."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype

    def array(self, name: str = "tensor") -> np.ndarray:
        """The values, a read-only view of the storage.

        Raises:
            UnsafePickleError: the tensor reaches beyond its storage.
        """
        flat = self.storage.values(self.dtype)
        if math.prod(self.shape) == 0:
            return np.broadcast_to(np.zeros((), flat.dtype), self.shape)
        reach = sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        if self.offset + reach >= flat.size:
            raise UnsafePickleError(
                f"`{name}` of shape {self.shape} with strides {self.strides} from element "
                f"{self.offset} reaches beyond storage {self.storage.key} of {flat.size} elements"
            )
        return np.lib.stride_tricks.as_strided(
            flat[self.offset :],
            self.shape,
            tuple(s * flat.itemsize for s in self.strides),
            writeable=False,
        )


def _tensor(arguments: tuple, dtype: np.dtype | None = None) -> Tensor:
    if len(arguments) < 4 or not isinstance(arguments[0], Storage):
        raise UnsafePickleError("a tensor has no storage")
    storage, offset, shape, strides = arguments[:4]
    if not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise UnsafePickleError("a tensor has no shape or strides")
    if len(shape) != len(strides) or len(shape) > 32:
        raise UnsafePickleError(f"a tensor has shape {shape} but strides {strides}"[:200])
    return Tensor(
        storage,
        _count(offset, "a tensor's offset"),
        tuple(_count(n, "a tensor's size") for n in shape),
        tuple(_count(n, "a tensor's stride") for n in strides),
        storage.dtype if dtype is None else dtype,
    )


def _tensor_of_type(arguments: tuple) -> Tensor:
    dtype = arguments[6] if len(arguments) > 6 else None
    if not isinstance(dtype, Symbol) or dtype.module != "torch" or dtype.name not in _TENSOR_DTYPES:
        raise UnsafePickleError(f"tensors of type `{dtype}` are not supported")
    return _tensor(arguments, np.dtype(_TENSOR_DTYPES[dtype.name]))


def _first(arguments: tuple) -> Any:
    if not arguments:
        raise UnsafePickleError("a parameter has no tensor")
    return arguments[0]


def _sequence(kind: type):
    def build(arguments: tuple) -> Any:
        if len(arguments) > 1 or (arguments and not isinstance(arguments[0], list | tuple | set)):
            raise UnsafePickleError(f"a {kind.__name__} is made of something else than a list")
        return kind(*arguments)

    return build


def _mapping(arguments: tuple) -> dict:
    if not arguments:
        return {}
    (items,) = arguments[:1]
    if isinstance(items, dict):
        return dict(items)
    if not isinstance(items, list) or not all(
        isinstance(pair, list | tuple) and len(pair) == 2 for pair in items
    ):
        raise UnsafePickleError("a dictionary is made of something else than pairs")
    return dict(items)


# The calls that are understood. Each is carried out by a function of this file.
_CALLS = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_type,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._tensor._rebuild_from_type_v2": None,  # refused below, with a hint
    "torch.Size": _sequence(tuple),
    "builtins.set": _sequence(set),
    "__builtin__.set": _sequence(set),
    "builtins.frozenset": _sequence(frozenset),
    "__builtin__.frozenset": _sequence(frozenset),
}
# Calls whose result is no weight and which whole modules contain: noted, not carried out.
_INERT = {
    "torch.device",
    "torch._C._get_device",
    "collections.defaultdict",
    "copy_reg._reconstructor",
    "copyreg._reconstructor",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.dtype",
    "_codecs.encode",
}


def call_symbol(symbol: Symbol, arguments: tuple) -> Any:
    """What stands for the result of a call in a pickle of PyTorch.

    Args:
        symbol: the name that is called.
        arguments: its arguments.

    Raises:
        UnsafePickleError: the name is none of those that weights need.
    """
    if symbol in ORDERED_DICTS:
        return _mapping(arguments)
    build = _CALLS.get(str(symbol))
    if build is not None:
        return build(arguments)
    if symbol.name == "_reconstructor" and arguments and isinstance(arguments[0], Symbol):
        return Record(arguments[0])
    if str(symbol) in _INERT:
        return Record(symbol, arguments)
    hint = "; save the plain state_dict() instead" if symbol.module.startswith("torch") else ""
    raise UnsafePickleError(
        f"the file asks to call `{symbol}`, which no weights need; nothing was called{hint}"
    )
