"""How much a file may unpack to, and the checks that come before any reader."""

import bz2
import gzip
import lzma
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

FREE = 2**28
"""Bytes that any file may unpack to."""

RATIO = 20
"""A larger file may unpack to so many times its size: real data seldom pack better."""

_PIECE = 2**20

_UNPACKERS: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open,
}  # fmt: skip
_OTHER_ARCHIVES = (b"PK\x03\x04", b"\x1f\x9d")  # zip, compress


def regular_file(path: str | Path) -> Path:
    """The path of a file that is there.

    Raises FileNotFoundError, and ValueError for a folder, a pipe or a device.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no file {path}")
    if not path.is_file():
        raise ValueError(f"{path}: expected a file, got a folder, a pipe or a device")
    return path


def memory_limit(size: int) -> int:
    """Bytes that a file of `size` bytes may unpack to."""
    return max(FREE, RATIO * size)


def megabytes(size: int) -> str:
    """A number of bytes for a message."""
    return f"{size / 1e6:.3g} MB"


def one_line(problem: BaseException) -> str:
    """What an exception says, in one line of moderate length."""
    if isinstance(problem, KeyError):
        return f"it lacks {problem}"[:300]
    if isinstance(problem, MemoryError):
        return "it needs more memory than there is"
    lines = str(problem).strip().splitlines()
    return (lines[0] if lines else type(problem).__name__)[:300]


def unpacked_size(path: Path) -> int:
    """Bytes of a file, or if it is compressed by gzip, bzip2 or xz, of its content.

    Raises ValueError for content beyond `memory_limit`, and for other archives.
    """
    size = os.path.getsize(path)
    with path.open("rb") as file:
        start = file.read(6)
    if start.startswith(_OTHER_ARCHIVES):
        raise ValueError(f"{path}: an archive, unpack it first")
    found = next((f for magic, f in _UNPACKERS.items() if start.startswith(magic)), None)
    if found is None:
        return size
    total, limit = 0, memory_limit(size)
    try:
        with found(path, "rb") as content:
            while piece := content.read(_PIECE):
                total += len(piece)
                if total > limit:
                    raise ValueError(
                        f"{path}: {megabytes(size)} that unpack to more than {megabytes(limit)}"
                    )
    except (OSError, EOFError, lzma.LZMAError) as problem:
        raise ValueError(f"{path}: damaged or cut short ({one_line(problem)})") from problem
    return total
