"""FITS files, read with care: what the headers declare is compared with the length of the file."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jaxsed.io.limits import (
    FREE,
    megabytes,
    memory_limit,
    one_line,
    regular_file,
    unpacked_size,
)

_MOST_COLUMNS = 999  # of a table, in the standard


@contextmanager
def opened(path: str | Path) -> Iterator[Any]:
    """The HDUs of a FITS file, plain or compressed by gzip, bzip2 or xz.

    Whatever goes wrong while the block reads them is a ValueError as well.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no FITS file, one that declares more than it holds, one that unpacks to more
            than `jaxsed.io.limits.memory_limit`; the message names the file.
    """
    from astropy.io import fits

    path = regular_file(path)
    length = unpacked_size(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # all that they tell is checked here
            with fits.open(path, memmap=False) as hdus:
                _check(path, hdus, length)
                yield hdus
    except OSError as problem:
        raise ValueError(f"{path}: not a readable FITS file ({one_line(problem)})") from problem
    # of a damaged file astropy raises almost anything
    except Exception as problem:
        if str(path) in str(problem):
            raise
        raise ValueError(f"{path}: not readable as expected ({one_line(problem)})") from problem


def check(path: str | Path) -> None:
    """Raise as `opened` does, before another reader takes the file."""
    with opened(path):
        pass


def _check(path: Path, hdus: Any, length: int) -> None:
    limit, total, i = memory_limit(length), 0, 0
    while True:
        try:
            hdu = hdus[i]
        except IndexError:
            break
        i += 1
        where = f"{path}: HDU {i - 1} ({hdu.name})"
        axes = [int(hdu.header[f"NAXIS{k + 1}"]) for k in range(int(hdu.header.get("NAXIS", 0)))]
        if min([*axes, 0]) < 0:
            raise ValueError(f"{where}: a negative axis in {axes}")
        end = hdu.fileinfo()["datLoc"] + _declared(hdu, axes)
        if end > length:
            raise ValueError(
                f"{where}: its header declares data up to byte {end}, the file has {length}: "
                "cut short, or damaged"
            )
        if max([*axes, 0]) > max(FREE, length):  # rows without content take memory all the same
            raise ValueError(f"{where}: an axis of {max(axes)} in a file of {length} bytes")
        total += _unpacked(where, hdu, axes, limit)
        if total > limit:
            raise ValueError(
                f"{where}: {megabytes(total)} unpacked from a file of {megabytes(length)}"
            )
    if not i:
        raise ValueError(f"{path}: no FITS file, or one without content")


def _declared(hdu: Any, axes: list[int]) -> int:
    """Bytes of data: equation 2 of the FITS standard 4.0."""
    header = hdu.header
    if hdu.name == "PRIMARY" and axes and axes[0] == 0 and header.get("GROUPS", False):
        axes = axes[1:]
    points = int(np.prod(axes, dtype=object)) if axes else 0
    heap, groups = int(header.get("PCOUNT", 0)), int(header.get("GCOUNT", 1))
    if heap < 0 or groups < 0:
        raise ValueError(f"PCOUNT {heap} and GCOUNT {groups}, which cannot be negative")
    return abs(int(header["BITPIX"])) // 8 * groups * (heap + points)


def _unpacked(where: str, hdu: Any, axes: list[int], limit: int) -> int:
    """Bytes in memory beyond those in the file: compressed images, columns of varying length."""
    header = hdu.header
    if header.get("ZIMAGE", False) or type(hdu).__name__ == "CompImageHDU":
        shape = hdu.shape if hdu.is_image else axes
        return 8 * int(np.prod(shape, dtype=object))
    if header.get("XTENSION", "") != "BINTABLE":
        return 0
    if int(header["TFIELDS"]) > _MOST_COLUMNS:
        raise ValueError(f"{where}: {header['TFIELDS']} columns")
    total = 0
    for name, form in zip(hdu.columns.names, hdu.columns.formats, strict=True):
        if "P" in form or "Q" in form:
            rows = np.asarray(hdu.data.view(np.ndarray)[name])
            counts = rows.reshape(-1, 2)[:, 0].astype(float)
            if (counts < 0).any():
                raise ValueError(f"{where}: column {name} declares a negative length")
            # an array of its own for each row
            total += int(16 * counts.sum()) + 100 * len(counts)
    return total
