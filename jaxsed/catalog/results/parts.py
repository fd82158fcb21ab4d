"""Parts of an unfinished run: files of finished galaxies, each there completely or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxsed.io import files

PART = "part of a catalogue run"
"""The kind of the files of an unfinished run."""

_MEANT = ("draws/", "summary/", "diagnostics/chi2")  # finite in every row with a result

Tree = Mapping[str, NDArray[Any]]


class Contents(NamedTuple):
    """Of a part: its rows, how long they took, and how much of that went into compilation."""

    rows: NDArray[np.int64]
    seconds: float
    compiling: float


def write_part(path: Path, run: str, contents: Contents, tree: Tree) -> None:
    """Write finished galaxies: datasets [row, ...] by name."""
    arrays = dict(_to_numbers(name, values) for name, values in tree.items())
    times = {"seconds": contents.seconds, "compiling": contents.compiling}
    files.write(
        path, PART, {**arrays, "rows": contents.rows}, {"run": run, **times}, compressed=False
    )


def read_part(path: Path, run: str) -> tuple[Contents, Tree]:
    """Contents (rows rising) and datasets of a part of this run.  Raises ValueError, OSError."""
    arrays, attributes = files.read(path, PART)
    if attributes.get("run") != run:
        raise ValueError("it is of another run")
    rows = arrays.pop("rows", np.zeros(0))
    tree = dict(_from_numbers(name, values) for name, values in arrays.items())
    if rows.ndim != 1 or rows.dtype != np.int64 or not len(rows) or (np.diff(rows) <= 0).any():
        raise ValueError("its rows are not as they are written")
    if "diagnostics/flag" not in tree or any(len(a) != len(rows) for a in tree.values()):
        raise ValueError("it is not complete")
    seconds, compiling = (float(attributes[name]) for name in ("seconds", "compiling"))
    return Contents(rows, seconds, compiling), tree


def finite(tree: Tree) -> NDArray[np.bool_]:
    """[row] whether all that a fitted row must have is finite."""
    finite = np.ones(len(next(iter(tree.values()))), bool)
    for name, values in tree.items():
        if name.startswith(_MEANT) and values.dtype.kind == "f":
            finite &= np.isfinite(values).reshape(len(values), -1).all(axis=1)
    return finite


def nothing(n: int, like: NDArray[Any]) -> NDArray[Any]:
    """[n, ...] of the trailing shape and type of `like`: NaN, zero or an empty text."""
    blank = np.zeros((n, *like.shape[1:]), like.dtype)
    if blank.dtype.kind == "f":
        blank[:] = np.nan
    return blank


def _to_numbers(name: str, values: NDArray[Any]) -> tuple[str, NDArray[Any]]:
    """A dataset and its name in a part, which holds numbers only: texts [row] as their bytes."""
    if values.dtype.kind != "S":
        return f"numbers/{name}", values
    return f"texts/{name}", np.frombuffer(values.tobytes(), np.uint8).reshape(len(values), -1)


def _from_numbers(name: str, values: NDArray[Any]) -> tuple[str, NDArray[Any]]:
    """What `_to_numbers` was given.  Raises ValueError for anything else."""
    form, _, name = name.partition("/")
    if form == "numbers":
        return name, values
    if form != "texts" or values.ndim != 2 or values.dtype != np.uint8:
        raise ValueError("it is not complete")
    return name, np.ascontiguousarray(values).view(f"S{values.shape[1]}")[:, 0]
