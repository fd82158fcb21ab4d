"""Reads pickled lists of numpy arrays, and nothing else: the one place where pickle is allowed.

A pickle is a program. This one is looked through before it runs, and what it may then call is
not numpy but a few stand-ins that record plain arrays: no class or function of any module is ever
handed to it. What is left is lists, tuples, numbers, text and arrays of numbers.
"""

import io
import pickle
import pickletools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

MAX_BYTES = 2**29
"""Largest file that is read."""

_PLAIN_KINDS = "biuf"
_MAX_DEPTH, _MAX_ITEMS = 4, 10_000  # of lists in lists; a list may hold itself many times over

# Opcodes that make objects other than by a global that is looked up in `_STAND_INS`.
_REFUSED = {
    "PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX",
    "NEXT_BUFFER", "READONLY_BUFFER",
}  # fmt: skip


def read_arrays(path: str | Path) -> Any:
    """The lists, tuples, numbers and numpy arrays in a pickle file, at whatever nesting.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the pickle holds or calls anything else, is damaged, or is larger than
            `MAX_BYTES`; the message names the file and what was refused. Nothing in it is run.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no file {path}")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path}: larger than {MAX_BYTES} bytes, which is no emulator")
    try:
        data = path.read_bytes()
        _check(data)
        content = _ArrayUnpickler(io.BytesIO(data), encoding="latin1").load()
        return _plain(content, iter(range(_MAX_ITEMS)))
    except _Refused as problem:
        raise ValueError(
            f"{path}: refused: {problem}. Only pickles of plain numpy arrays are read; convert "
            "the file with the program that wrote it, to .npz"
        ) from None
    # a damaged stream raises almost anything, and none of it is the caller's business
    except Exception as problem:
        raise ValueError(
            f"{path}: not a readable pickle of arrays ({type(problem).__name__}: {problem})"
        ) from None


class _Refused(Exception):
    """The pickle asks for something that arrays do not need."""


def _check(data: bytes) -> None:
    """Go through the opcodes without running any."""
    for opcode, argument, position in pickletools.genops(data):
        if opcode.name in _REFUSED:
            raise _Refused(f"opcode {opcode.name} at byte {position}")
        if opcode.name == "GLOBAL":
            _stand_in(*str(argument).split(" ", 1))
        # the unpickler's memory table grows to the largest index
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(data):
            raise _Refused(f"memo index {argument} at byte {position}")


class _ArrayUnpickler(pickle.Unpickler):
    """Finds the stand-ins of this file under numpy's names."""

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a global, or `_Refused`."""
        return _stand_in(module, name)

    def persistent_load(self, pid: Any) -> Any:
        """Refused."""
        raise _Refused(f"persistent id {pid!r}")


class _StandIn:
    """A callable without attributes, so that a pickle cannot alter it."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]):
        self._make = make

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise _Refused("state for a function")


class _Dtype:
    """A dtype as pickled: its code, and the byte order that follows as state."""

    __slots__ = ("_big", "_plain")

    def __init__(self, code: Any, align: Any = False, copy: Any = False):
        del align, copy
        plain = np.dtype(code) if isinstance(code, str) else None
        if plain is None or plain.kind not in _PLAIN_KINDS:
            raise _Refused(f"arrays of dtype {code!r}")
        self._plain, self._big = plain, False

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "|", "="):
            raise _Refused("a dtype that is not plain")
        if any(part is not None for part in state[2:5]):
            raise _Refused("a dtype with fields")
        self._big = state[1] == ">"

    def dtype(self) -> np.dtype:
        return self._plain.newbyteorder(">" if self._big else "<")


class _Array:
    """An array as pickled: empty, then its content as state."""

    __slots__ = ("values",)

    def __init__(self, values: np.ndarray | None = None):
        self.values = values

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise _Refused("an array without version, shape, dtype, order and data")
        _, shape, dtype, fortran, raw = state
        self.values = _decode(raw, dtype, shape, bool(fortran))


def _decode(raw: Any, dtype: Any, shape: Any, fortran: bool = False) -> np.ndarray:
    if isinstance(raw, str):  # of a pickle that Python 2 wrote
        raw = raw.encode("latin1")
    if not isinstance(dtype, _Dtype) or not isinstance(raw, bytes | bytearray):
        raise _Refused("an array that is not raw bytes of a plain dtype")
    if isinstance(shape, int):
        shape = (shape,)
    # as many bytes as the shape says, or reshape raises
    values = np.frombuffer(raw, dtype.dtype()).reshape(shape, order="F" if fortran else "C")
    return values.astype(values.dtype.newbyteorder("="))


def _latin1(text: Any, encoding: Any = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1") or not isinstance(text, str):
        raise _Refused(f"encoding {encoding!r}")
    return text.encode("latin1")


_NDARRAY = _StandIn(lambda *_: _Array())
_MULTIARRAY: dict[str, Callable[..., Any]] = {
    "_reconstruct": lambda subtype, shape, code: _Array(),
    "scalar": lambda dtype, raw: _Array(_decode(raw, dtype, ())),
}
_STAND_INS: dict[tuple[str, str], _StandIn] = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _StandIn(_Dtype),
    ("_codecs", "encode"): _StandIn(_latin1),
}
for _core in ("numpy.core", "numpy._core"):  # before and from numpy 2
    for _name, _make in _MULTIARRAY.items():
        _STAND_INS[f"{_core}.multiarray", _name] = _StandIn(_make)
    _STAND_INS[f"{_core}.numeric", "_frombuffer"] = _StandIn(
        lambda raw, dtype, shape, order: _Array(_decode(raw, dtype, shape, order == "F"))
    )


def _stand_in(module: str, name: str) -> _StandIn:
    try:
        return _STAND_INS[module, name]
    except KeyError:
        raise _Refused(f"global {module}.{name}") from None


def _plain(value: Any, left: Iterator[int], depth: int = 0) -> Any:
    """The value with arrays for their stand-ins."""
    if depth > _MAX_DEPTH:
        raise _Refused("lists nested deeper than an emulator's")
    if next(left, None) is None:
        raise _Refused(f"more than {_MAX_ITEMS} values")
    if isinstance(value, list | tuple):
        return [_plain(item, left, depth + 1) for item in value]
    if isinstance(value, _Array) and value.values is not None:
        return value.values
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise _Refused(f"a value of type {type(value).__name__.lstrip('_')}")
