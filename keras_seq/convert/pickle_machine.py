"""A pickle reader that builds data and can do nothing else.

Python's own unpickler imports what a file names and calls it. This machine interprets the same
instructions on a stack of plain values: a name of the file becomes an inert `Symbol`, and a call
becomes whatever the reader of the file format decides for that name, or an error. Nothing is
imported, nothing of the file is called.
"""

import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO


class UnsafePickleError(ValueError):
    """The pickle asks for something that a file of weights has no need of."""


@dataclass(frozen=True)
class Symbol:
    """A class or function that a pickle names: only its name."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Record:
    """An object of a class unknown here: the class's name and the state that was saved with it."""

    symbol: Symbol
    state: Any = None


_MARK = object()
_DAMAGE = (
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    EOFError,
    OverflowError,
    RecursionError,
    MemoryError,
    struct.error,
)

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_IGNORED = {"PROTO", "FRAME"}
_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"),
    *("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_EMPTY = {"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict, "EMPTY_SET": set}
_GROUPS = {"TUPLE": tuple, "LIST": list, "FROZENSET": frozenset}
_SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUT = {"PUT", "BINPUT", "LONG_BINPUT"}
_GET = {"GET", "BINGET", "LONG_BINGET"}


def _pairs(items: list) -> dict:
    if len(items) % 2:
        raise UnsafePickleError("a dictionary's key has no value")
    return dict(zip(items[::2], items[1::2], strict=True))


class PickleMachine:
    """Reads one pickle after another from a stream of bytes.

    Args:
        stream: the open file; it is read from its current place on.
        call: called as `call(symbol, arguments)` where the pickle calls a name. Returns the value
            that stands for the result or raises `UnsafePickleError`.
        load: called with the identifier of an object that is stored outside the pickle.

    Example:

    >>> import io, pickle
    >>> from keras_seq.convert.pickle_machine import PickleMachine
    >>> PickleMachine(io.BytesIO(pickle.dumps({"a": [1, 2]}))).read()
    {'a': [1, 2]}
    """

    def __init__(
        self,
        stream: BinaryIO,
        call: Callable[[Symbol, tuple], Any] | None = None,
        load: Callable[[Any], Any] | None = None,
    ):
        self.stream = stream
        self._call = call or self._refuse
        self._load = load or self._refuse_load

    def read(self) -> Any:
        """Reads one pickle; the stream is left behind its end.

        Raises:
            UnsafePickleError: the bytes are no pickle, end early, or ask for a refused call. The
                message holds the byte at which it happened.
        """
        stack: list[Any] = []
        memo: dict[int, Any] = {}
        place = self.stream.tell()
        try:
            for opcode, argument, position in pickletools.genops(self.stream):
                place = position if position is not None else place
                if opcode.name == "STOP":
                    return stack.pop()
                self._step(opcode.name, argument, stack, memo)
        except UnsafePickleError as error:
            raise UnsafePickleError(f"{error} (at byte {place})") from None
        except _DAMAGE as error:
            reason = f"{type(error).__name__}: {error}"
            raise UnsafePickleError(
                f"the pickle is damaged, cut short or no pickle: {reason} (at byte {place})"
            ) from None
        raise UnsafePickleError(f"the pickle has no end (at byte {place})")

    # One instruction -----------------------------------------------------------------------------

    def _step(self, name: str, argument: Any, stack: list, memo: dict) -> None:
        if name in _LITERALS:
            stack.append(argument)
        elif name in _GET:
            stack.append(memo[int(argument)])
        elif name in _PUT:
            memo[int(argument)] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name == "MARK":
            stack.append(_MARK)
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _SHORT_TUPLES:
            count = _SHORT_TUPLES[name]
            if len(stack) < count:
                raise UnsafePickleError("a tuple lacks elements")
            items = tuple(stack[-count:])
            del stack[-count:]
            stack.append(items)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name not in _IGNORED:
            self._container_step(name, argument, stack)

    def _container_step(self, name: str, argument: Any, stack: list) -> None:
        if name in _GROUPS:
            stack.append(_GROUPS[name](self._to_mark(stack)))
        elif name == "DICT":
            stack.append(_pairs(self._to_mark(stack)))
        elif name == "SETITEMS":
            pairs = _pairs(self._to_mark(stack))
            self._of_type(stack[-1], dict).update(pairs)
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            self._of_type(stack[-1], dict)[key] = value
        elif name == "APPENDS":
            items = self._to_mark(stack)
            self._of_type(stack[-1], list).extend(items)
        elif name == "APPEND":
            value = stack.pop()
            self._of_type(stack[-1], list).append(value)
        elif name == "ADDITEMS":
            items = self._to_mark(stack)
            self._of_type(stack[-1], set).update(items)
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            self._to_mark(stack)
        elif name == "DUP":
            stack.append(stack[-1])
        else:
            self._object_step(name, argument, stack)

    def _object_step(self, name: str, argument: Any, stack: list) -> None:
        if name == "GLOBAL":
            module, _, attribute = argument.partition(" ")
            stack.append(Symbol(module, attribute))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(Symbol(self._of_type(module, str), self._of_type(attribute, str)))
        elif name == "REDUCE":
            arguments, symbol = stack.pop(), stack.pop()
            symbol = self._of_type(symbol, Symbol)
            stack.append(self._call(symbol, self._of_type(arguments, tuple)))
        elif name == "NEWOBJ":
            _, symbol = stack.pop(), stack.pop()
            stack.append(self._new(self._of_type(symbol, Symbol)))
        elif name == "NEWOBJ_EX":
            _, _, symbol = stack.pop(), stack.pop(), stack.pop()
            stack.append(self._new(self._of_type(symbol, Symbol)))
        elif name == "BUILD":
            state = stack.pop()
            # Attributes of a dictionary, such as a state dict's `_metadata`, are no weights.
            if isinstance(stack[-1], Record):
                stack[-1].state = state
        elif name == "BINPERSID":
            stack.append(self._load(stack.pop()))
        else:
            raise UnsafePickleError(f"the instruction {name} has no place in a file of weights")

    def _new(self, symbol: Symbol) -> Any:
        """An object that the pickle makes without a call: a dictionary, or an inert record."""
        if symbol in ORDERED_DICTS:
            return {}
        return Record(symbol)

    @staticmethod
    def _to_mark(stack: list) -> list:
        items = []
        while (item := stack.pop()) is not _MARK:
            items.append(item)
        items.reverse()
        return items

    @staticmethod
    def _of_type(value: Any, kind: type) -> Any:
        if not isinstance(value, kind):
            raise UnsafePickleError(
                f"a {kind.__name__} is expected here, found a {type(value).__name__}"
            )
        return value

    @staticmethod
    def _refuse(symbol: Symbol, arguments: tuple) -> Any:
        raise UnsafePickleError(f"the file asks to call `{symbol}`; nothing was called")

    @staticmethod
    def _refuse_load(identifier: Any) -> Any:
        raise UnsafePickleError("the pickle refers to data stored outside of it")


ORDERED_DICTS = {Symbol("collections", "OrderedDict")}
