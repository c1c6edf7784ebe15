"""Read pickles from strangers: nothing runs and nothing is built but what the reader names.

A pickle is a program. Python's unpickler asks :meth:`~SafeUnpickler.find_class` for every function or class that it
wants to use; here the answer is one of a few stand-ins, or an error. Arrays are rebuilt by `_Array` from their bytes,
so that not even numpy's own constructors are called with a stranger's arguments.
"""

import hashlib
import io
import pickle
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from ..errors import CMICError
from .files import read_limited as read_limited  # readers of pickles take it from here

KINDS = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"}
"""Types of numbers that an array may hold: no objects, no strings."""


_PythonUnpickler: Any = pickle._Unpickler  # type: ignore[attr-defined]  # noqa: TID251 (refuses every class)


class StandIn:
    """What takes a class's place while a pickle is read; the only objects that a pickle may give a state to."""

    def set_state(self, state: Any) -> None:
        """Take over what the pickle holds for this object."""
        raise pickle.UnpicklingError("it gives a state to something that has none")


class SafeUnpickler(_PythonUnpickler):
    """Unpickle containers, numbers, strings and what ``allowed`` gives a stand-in for.

    The pure Python unpickler is meant: its memo is a dictionary, so a forged index claims no memory.

    Args:
        file: the pickle's bytes.
        allowed: (module, name) → the stand-in.
    """

    def __init__(self, file: io.BytesIO, allowed: Mapping[tuple[str, str], Callable[..., Any]]):
        super().__init__(file)
        self.allowed = allowed

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        """Return the stand-in, or refuse."""
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not data")
        return self.allowed[module, name]

    def get_extension(self, code: int) -> None:
        """Refuse numbered classes, which `find_class` would not see."""
        raise pickle.UnpicklingError(f"it asks for the registered class {code}, which is not data")

    def load_build(self) -> None:
        """Give a state to a stand-in; the usual way would set attributes of functions and classes, too."""
        state = self.stack.pop()
        if not isinstance(self.stack[-1], StandIn):
            raise pickle.UnpicklingError("it gives a state to something that has none")
        self.stack[-1].set_state(state)

    def load_bytearray8(self) -> None:
        """Read a bytearray; the usual way claims its memory before it looks whether so much is there."""
        (length,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(length)))

    def load_setitem(self) -> None:
        """Put one entry into a dictionary, with a checked key."""
        _check_keys(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self) -> None:
        """Put entries into a dictionary, with checked keys."""
        _check_keys(self.stack[::2])
        super().load_setitems()

    def load_dict(self) -> None:
        """Make a dictionary of entries with checked keys."""
        _check_keys(self.stack[::2])
        super().load_dict()

    def load_set(self) -> None:
        """Refuse sets: no file that is read here has any, and they hash what they hold."""
        raise pickle.UnpicklingError("it holds a set")

    dispatch: ClassVar[dict[int, Any]] = _PythonUnpickler.dispatch | {
        pickle.BUILD[0]: load_build,
        pickle.BYTEARRAY8[0]: load_bytearray8,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.DICT[0]: load_dict,
        pickle.EMPTY_SET[0]: load_set,
        pickle.FROZENSET[0]: load_set,
    }


def _check_keys(keys: list[Any]) -> None:
    """Refuse containers as keys: to hash a tuple that holds one tuple twice, and so on forty times, takes for ever."""
    for key in keys:
        if not isinstance(key, str | bytes | int | float | None):
            raise pickle.UnpicklingError(f"it has a {type(key).__name__} as a key")


def load_pickle(
    data: bytes, path: Path, error: type[CMICError], allowed: Mapping[tuple[str, str], Callable[..., Any]] | None = None
) -> Any:
    """Read a pickle of containers and arrays.

    Args:
        data: its bytes.
        path: where they come from, for the message.
        error: the class of error to raise.
        allowed: further stand-ins besides those of arrays.

    Raises:
        CMICError: of class ``error``: damaged, or it wants something that is not data.
    """
    try:
        names = {**ARRAYS, **(allowed or {})}
        names["_codecs", "encode"] = _Encoder(len(data))
        value = SafeUnpickler(io.BytesIO(data), names).load()
        return _finish(value)
    except Exception as problem:  # a forged pickle can fail anywhere in the unpickler
        reason = str(problem) or type(problem).__name__
        raise error(
            f"this pickle cannot be read: {reason}", path=path, fix="get the file from its authors again"
        ) from None


class _Type(StandIn):
    """A stand-in for `numpy.dtype`."""

    def __init__(self, code: str = "", *_: Any):
        self.code, self.order = code, "<"

    def set_state(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def numpy(self) -> np.dtype:
        if self.code not in KINDS or self.order not in "<>|=":
            raise pickle.UnpicklingError(f"it holds an array of type {self.order!r}{self.code!r}, not of numbers")
        return np.dtype(("<" if self.order == "|" else self.order) + self.code)


class _Array(StandIn):
    """A stand-in for an array under construction."""

    value: np.ndarray | None = None

    def set_state(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, data = state
        self.fill(data, kind, shape, "F" if fortran else "C")

    def fill(self, data: Any, kind: Any, shape: Any, order: Literal["C", "F"]) -> None:
        if not isinstance(kind, _Type) or not isinstance(data, bytes | bytearray):
            raise pickle.UnpicklingError("it holds an array of objects, not of numbers")
        self.value = np.frombuffer(data, kind.numpy()).reshape(shape, order=order)


def _new_array(*_: Any) -> _Array:
    return _Array()


def _array_of_bytes(data: Any, kind: Any, shape: Any, order: Any = "C", *_: Any) -> _Array:
    array = _Array()
    array.fill(data, kind, shape, "F" if order == "F" else "C")
    return array


class _Encoder:
    """Make bytes as protocols before 3 do, at most as many as the file has: it may ask for one text again and again."""

    def __init__(self, left: int):
        self.left = left

    def __call__(self, text: Any, codec: Any = "latin1") -> bytes:
        if not isinstance(text, str) or codec != "latin1":
            raise pickle.UnpicklingError("it encodes text")
        self.left -= len(text)
        if self.left < 0:
            raise pickle.UnpicklingError("it unpacks to more than it holds")
        return text.encode("latin1")


def _refuse(*_: Any) -> Any:
    raise pickle.UnpicklingError("it builds an array directly")


ARRAYS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _new_array,
    ("numpy._core.multiarray", "_reconstruct"): _new_array,
    ("numpy", "ndarray"): _refuse,
    ("numpy", "dtype"): _Type,
    ("numpy.core.numeric", "_frombuffer"): _array_of_bytes,
    ("numpy._core.numeric", "_frombuffer"): _array_of_bytes,
}


def _finish(value: Any) -> Any:
    """Replace the stand-ins in nested containers; iterative, because a pickle can nest without end."""
    holder = [value]
    waiting: list[Any] = [holder]
    seen: set[int] = set()
    lists: dict[
        int, tuple[Any, list[Any]]
    ] = {}  # of each tuple one list, however often it occurs; the tuple stays alive
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
    """Return the SHA-1 of some bytes: a checksum against damage, not against forgery."""
    return hashlib.sha1(data, usedforsecurity=False).digest()
