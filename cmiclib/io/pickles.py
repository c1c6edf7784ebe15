"""Read pickles from strangers: nothing runs, and only what the reader names is built.

A pickle is a program. Python's unpickler asks :meth:`~SafeUnpickler.find_class` for every function or class that it
wants to use; here the answer is one of a few stand-ins, or an error. `_Array` rebuilds arrays from their bytes, so that
not even numpy's own constructors are called with a stranger's arguments.
"""

import hashlib
import io
import pickle
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..errors import CMICError

KINDS = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"}
"""Types of numbers that an array may hold: no objects, no strings."""
_PythonUnpickler: Any = pickle._Unpickler  # type: ignore[attr-defined]  # noqa: TID251 (refuses every class)


class StandIn:
    """Takes a class's place while a pickle is read; a pickle may give a state to no other object."""

    def set_state(self, state: Any) -> None:
        """Take over the state that the pickle holds for this object."""
        raise pickle.UnpicklingError("it gives a state to something that has none")


def _with_checked_keys(name: str, keys: slice) -> Callable[[Any], None]:
    """Refuse containers as keys: hashing forty nested pairs, each twice the same tuple, never ends."""

    def load(unpickler: Any) -> None:
        for key in unpickler.stack[keys]:
            if not isinstance(key, str | bytes | int | float | None):
                raise pickle.UnpicklingError(f"it has a {type(key).__name__} as a key")
        getattr(_PythonUnpickler, name)(unpickler)

    return load


def _refuse(problem: str) -> Callable[..., Any]:
    def refuse(*_: Any) -> None:
        raise pickle.UnpicklingError(problem)

    return refuse


class SafeUnpickler(_PythonUnpickler):
    """Unpickle containers, numbers, strings, and classes for which ``allowed``, (module, name) → stand-in, has one.

    It derives from the unpickler in pure Python, whose memo is a dictionary: a forged index claims no memory.
    """

    def __init__(self, file: io.BytesIO, allowed: Mapping[tuple[str, str], Callable[..., Any]]):
        super().__init__(file)
        self.allowed = allowed

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        """Return the stand-in; refuse other classes."""
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not data")
        return self.allowed[module, name]

    def get_extension(self, code: int) -> None:
        """Refuse numbered classes, of which `find_class` does not hear."""
        raise pickle.UnpicklingError(f"it asks for the registered class {code}, which is not data")

    def load_build(self) -> None:
        """Give a state to a stand-in; Python's own method also sets attributes of functions and classes."""
        state = self.stack.pop()
        if not isinstance(self.stack[-1], StandIn):
            raise pickle.UnpicklingError("it gives a state to something that has none")
        self.stack[-1].set_state(state)

    def load_bytearray8(self) -> None:
        """Read a bytearray; Python's own method claims its memory before it reads."""
        (length,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(length)))

    dispatch: ClassVar[dict[int, Any]] = _PythonUnpickler.dispatch | {
        pickle.BUILD[0]: load_build,
        pickle.BYTEARRAY8[0]: load_bytearray8,
        pickle.SETITEM[0]: _with_checked_keys("load_setitem", slice(-2, -1)),
        pickle.SETITEMS[0]: _with_checked_keys("load_setitems", slice(None, None, 2)),
        pickle.DICT[0]: _with_checked_keys("load_dict", slice(None, None, 2)),
        pickle.EMPTY_SET[0]: _refuse("it holds a set"),  # it would hash what it holds, and no known file has one
        pickle.FROZENSET[0]: _refuse("it holds a set"),
    }


def load_pickle(
    data: bytes, path: Path, error: type[CMICError], allowed: Mapping[tuple[str, str], Callable[..., Any]] | None = None
) -> Any:
    """Read the bytes of a pickle of containers and arrays; ``allowed`` has further stand-ins.

    What is damaged, or asks for something that is not data, is an ``error`` that names ``path``.
    """
    try:
        names = {**ARRAYS, **(allowed or {})}
        names["_codecs", "encode"] = _Encoder(len(data))
        return _finish(SafeUnpickler(io.BytesIO(data), names).load())
    except Exception as problem:  # a forged pickle can fail anywhere in the unpickler
        reason, fix = str(problem) or type(problem).__name__, "get the file from its authors again"
        raise error(f"this pickle cannot be read: {reason}", path=path, fix=fix) from None


class _Type(StandIn):
    """Stand-in for `numpy.dtype`."""

    def __init__(self, code: str = "", *_: Any):
        self.code, self.order = code, "<"

    def set_state(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def numpy(self) -> np.dtype:
        if self.code not in KINDS or self.order not in "<>|=":
            raise pickle.UnpicklingError(f"it holds an array of type {self.order!r}{self.code!r}, not of numbers")
        return np.dtype(("<" if self.order == "|" else self.order) + self.code)


class _Array(StandIn):
    """Stand-in for an array under construction."""

    def __init__(self, *_: Any):
        self.value: np.ndarray | None = None

    def set_state(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, data = state
        if not isinstance(kind, _Type) or not isinstance(data, bytes | bytearray):
            raise pickle.UnpicklingError("it holds an array of objects, not of numbers")
        self.value = np.frombuffer(data, kind.numpy()).reshape(shape, order="F" if fortran else "C")


def _array_of_bytes(data: Any, kind: Any, shape: Any, order: Any = "C", *_: Any) -> _Array:
    array = _Array()
    array.set_state((1, shape, kind, order == "F", data))
    return array


class _Encoder:
    """Makes bytes as protocols before 3 do, in all at most as many as the file has: it may repeat one text."""

    def __init__(self, left: int):
        self.left = left

    def __call__(self, text: Any, codec: Any = "latin1") -> bytes:
        if not isinstance(text, str) or codec != "latin1":
            raise pickle.UnpicklingError("it encodes text")
        self.left -= len(text)
        if self.left < 0:
            raise pickle.UnpicklingError("it unpacks to more than it holds")
        return text.encode("latin1")


ARRAYS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _refuse("it builds an array directly"),
    ("numpy", "dtype"): _Type,
    ("numpy.core.numeric", "_frombuffer"): _array_of_bytes,
    ("numpy._core.numeric", "_frombuffer"): _array_of_bytes,
}


def _finish(value: Any) -> Any:
    """Replace the stand-ins in nested containers without recursion, because a pickle can nest without end."""
    holder = [value]
    waiting: list[Any] = [holder]
    seen: set[int] = set()
    lists: dict[int, tuple[Any, list[Any]]] = {}  # one list for each tuple, however often it occurs; both stay alive
    while waiting:
        container = waiting.pop()
        if id(container) in seen:
            continue
        seen.add(id(container))
        for key, item in list(container.items() if isinstance(container, dict) else enumerate(container)):
            if isinstance(item, _Array):
                if item.value is None:
                    raise pickle.UnpicklingError("it holds an array without numbers")
                container[key] = item.value
            elif isinstance(item, tuple):
                _, container[key] = lists.setdefault(id(item), (item, list(item)))
                waiting.append(container[key])
            elif isinstance(item, dict | list):
                waiting.append(item)
    return holder[0]


def sha1(data: bytes) -> bytes:
    """Return the SHA-1 of some bytes, which finds damage but not forgery."""
    return hashlib.sha1(data, usedforsecurity=False).digest()
