"""Reads pickled lists of numpy arrays, and nothing else: the one place where pickle is allowed.

A pickle is a program. This one is looked through before it runs, and what it may then call is
not numpy but a few stand-ins that record plain arrays: no class or function of any module is ever
handed to it. What is left is lists, tuples, numbers, text and arrays of numbers.
"""

import io
import math
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxsed.core.types import PyTree
from jaxsed.io.limits import one_line, regular_file

MAX_BYTES = 2**29
"""Largest file that is read."""

_PLAIN_KINDS = "biuf"
_MAX_DEPTH, _MAX_ITEMS = 4, 10_000  # of lists in lists; a list may hold itself many times over

_MAX_OPCODES = 200_000  # a network of some tens of arrays takes a few thousand

# What lists of arrays are written with, by any protocol.  No dictionaries and sets: the time to
# fill one with keys of equal hashes grows as the square of their number.
_OPCODES = {
    "PROTO", "FRAME", "STOP", "MARK", "POP",
    "NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1",
    "FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE",
    "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
    "EMPTY_LIST", "LIST", "APPEND", "APPENDS",
    "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
    "GET", "BINGET", "LONG_BINGET", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE",
    "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD",
}  # fmt: skip


def read_arrays(path: str | Path) -> Any:
    """The lists, tuples, numbers and numpy arrays in a pickle file, at whatever nesting.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the pickle holds or calls anything else, is damaged, or is larger than
            `MAX_BYTES`; the message names the file and what was refused. Nothing in it is run.
    """
    path = regular_file(path)
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path}: larger than {MAX_BYTES} bytes, which is no emulator")
    try:
        data = path.read_bytes()
        _check(data)
        content = _ArrayUnpickler(data).load()
        return _plain(content, _Budget(_MAX_ITEMS, "values"), _Budget(len(data), "bytes"))
    except _Refused as problem:
        raise ValueError(
            f"{path}: refused: {problem}. Only pickles of plain numpy arrays are read; convert "
            "the file with the program that wrote it, to .npz"
        ) from None
    # a damaged stream raises almost anything, and none of it is the caller's business
    except Exception as problem:
        raise ValueError(
            f"{path}: not a readable pickle of arrays "
            f"({type(problem).__name__}: {one_line(problem)})"
        ) from None


class _Refused(Exception):
    """The pickle asks for something that arrays do not need."""


class _Budget:
    """How much is left of what a file may have or take: an array is stored but once in a file, so
    that all of them together are no more bytes than the file has."""

    def __init__(self, left: int, what: str):
        self.left, self.most, self.what = left, left, what

    def take(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise _Refused(f"more than {self.most} {self.what}")


def _check(data: bytes) -> None:
    """Go through the opcodes without running any."""
    opcodes = _Budget(_MAX_OPCODES, "opcodes")
    for opcode, argument, position in pickletools.genops(data):
        opcodes.take(1)
        if opcode.name not in _OPCODES:
            raise _Refused(f"opcode {opcode.name} at byte {position}")
        if opcode.name == "GLOBAL":
            _check_global(*str(argument).split(" ", 1))
        # the unpickler's memory table grows to the largest index
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > _MAX_OPCODES:
            raise _Refused(f"memo index {argument} at byte {position}")


class _ArrayUnpickler(pickle.Unpickler):
    """Finds the stand-ins of this file under numpy's names."""

    def __init__(self, data: bytes):
        super().__init__(io.BytesIO(data), encoding="latin1")
        self._made = _Budget(2 * len(data), "bytes made of a file half as long")

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a global, or `_Refused`."""
        _check_global(module, name)
        return _StandIn(_STAND_INS[module, name], self._made)

    def persistent_load(self, pid: Any) -> Any:
        """Refused."""
        raise _Refused("a persistent id")


class _StandIn:
    """A callable without attributes, so that a pickle cannot alter it."""

    __slots__ = ("_made", "_make")

    def __init__(self, make: Callable[..., Any], made: _Budget):
        self._make, self._made = make, made

    def __call__(self, *arguments: Any) -> Any:
        return self._make(self._made, *arguments)

    def __setstate__(self, state: PyTree) -> None:
        raise _Refused("state for a function")


class _Dtype:
    """A dtype as pickled: its code, and the byte order that follows as state."""

    __slots__ = ("_big", "_plain")

    def __init__(self, made: _Budget, code: Any, align: Any = False, copy: Any = False):
        del made, align, copy
        plain = np.dtype(code) if isinstance(code, str) and len(code) < 20 else None
        if plain is None or plain.kind not in _PLAIN_KINDS:
            raise _Refused(f"arrays of dtype {_shown(code)}")
        self._plain, self._big = plain, False

    def __setstate__(self, state: PyTree) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "|", "="):
            raise _Refused("a dtype that is not plain")
        if any(part is not None for part in state[2:5]):
            raise _Refused("a dtype with fields")
        self._big = state[1] == ">"

    def dtype(self) -> np.dtype:
        return self._plain.newbyteorder(">" if self._big else "<")


class _Array:
    """An array as pickled: empty, then its content as state."""

    __slots__ = ("_made", "values")

    def __init__(self, made: _Budget, values: np.ndarray | None = None):
        self.values, self._made = values, made

    def __setstate__(self, state: PyTree) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise _Refused("an array without version, shape, dtype, order and data")
        _, shape, dtype, fortran, raw = state
        self.values = _decode(self._made, raw, dtype, shape, bool(fortran))


def _decode(
    made: _Budget, raw: Any, dtype: Any, shape: Any, fortran: bool = False
) -> np.ndarray:
    """The array, without a copy of its bytes."""
    if isinstance(raw, str):  # of a pickle that Python 2 wrote
        raw = _latin1(made, raw)
    if not isinstance(dtype, _Dtype) or not isinstance(raw, bytes | bytearray):
        raise _Refused("an array that is not raw bytes of a plain dtype")
    shape = (shape,) if isinstance(shape, int) else shape
    if not isinstance(shape, tuple) or len(shape) > _MAX_DEPTH:
        raise _Refused("an array without a shape")
    if not all(isinstance(n, int) and n >= 0 for n in shape):
        raise _Refused("an array with a shape that is not whole numbers")
    size = math.prod(shape) * dtype.dtype().itemsize
    if size != len(raw):
        raise _Refused(f"an array of {size} bytes, of which {len(raw)} are there")
    return np.frombuffer(raw, dtype.dtype()).reshape(shape, order="F" if fortran else "C")


def _latin1(made: _Budget, text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _Refused(f"encoding {_shown(encoding)}")
    made.take(len(text))
    return text.encode("latin1")


def _shown(value: Any) -> str:
    """A value for a message: lists in lists may be short in a file and endless as text."""
    short = isinstance(value, str) and len(value) < 40
    return repr(value) if short else f"of type {type(value).__name__.lstrip('_')}"


_MULTIARRAY: dict[str, Callable[..., Any]] = {
    "_reconstruct": lambda made, subtype, shape, code: _Array(made),
    "scalar": lambda made, dtype, raw: _Array(made, _decode(made, raw, dtype, ())),
}
_STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): lambda made, *_: _Array(made),
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _latin1,
}
for _core in ("numpy.core", "numpy._core"):  # before and from numpy 2
    for _name, _make in _MULTIARRAY.items():
        _STAND_INS[f"{_core}.multiarray", _name] = _make
    _STAND_INS[f"{_core}.numeric", "_frombuffer"] = lambda made, raw, dtype, shape, order: _Array(
        made, _decode(made, raw, dtype, shape, order == "F")
    )


def _check_global(module: str, name: str) -> None:
    if (module, name) not in _STAND_INS:
        raise _Refused(f"global {module}.{name}"[:200])


def _plain(value: Any, values: _Budget, memory: _Budget, depth: int = 0) -> Any:
    """The value with arrays, in the machine's byte order, for their stand-ins."""
    if depth > _MAX_DEPTH:
        raise _Refused("lists nested deeper than an emulator's")
    values.take(1)
    if isinstance(value, list | tuple):
        return [_plain(item, values, memory, depth + 1) for item in value]
    if isinstance(value, _Array) and value.values is not None:
        memory.take(value.values.nbytes)
        return value.values.astype(value.values.dtype.newbyteorder("="))
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise _Refused(f"a value of type {type(value).__name__.lstrip('_')}")
