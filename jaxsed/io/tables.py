"""Tables of any format, looked at before astropy or pyarrow read them."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
from pathlib import Path

from jaxsed.io import fits, hdf5
from jaxsed.io.limits import FREE, megabytes, memory_limit, regular_file, unpacked_size

_BLOCK = 2**20
_HEADER = 2**22  # bytes of comments, which hold the columns of an ECSV file as YAML
_CELLS = 2**25  # of a text table; a short row is filled up to the columns of the header


def check_table(path: str | Path) -> None:
    """Whether a table may be read: a file that unpacks to no more than it may.

    Raises FileNotFoundError, and ValueError for what is not a regular file, declares more than it
    holds, unpacks to more than `jaxsed.io.limits.memory_limit` or refers to other files; the
    message names the file.
    """
    path = regular_file(path)
    length = unpacked_size(path)
    with _content(path) as file:
        start = file.read(2048)
    if start.startswith(b"SIMPLE"):
        fits.check(path)
    elif start.startswith(b"\x89HDF\r\n\x1a\n"):
        with hdf5.opened(path) as file:
            file.check_records()
    elif start.startswith(b"PAR1"):
        _check_parquet(path, length)
    elif start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        _check_votable(path, length)
    else:
        _check_text(path, length)


def _content(path: Path):
    with path.open("rb") as file:
        start = file.read(6)
    for magic, unpack in ((b"\x1f\x8b", gzip), (b"BZh", bz2), (b"\xfd7zXZ\x00", lzma)):
        if start.startswith(magic):
            return unpack.open(path, "rb")
    return path.open("rb")


def _check_parquet(path: Path, length: int) -> None:
    from pyarrow import parquet

    try:
        found = parquet.read_metadata(path)
        groups = [found.row_group(i) for i in range(found.num_row_groups)]
        size = max(
            sum(group.total_byte_size for group in groups), 8 * found.num_rows * found.num_columns
        )
    except Exception as problem:  # pyarrow has exceptions of its own
        raise ValueError(f"{path}: not a readable parquet file ({problem})") from problem
    if size > memory_limit(length):
        raise ValueError(
            f"{path}: {megabytes(size)} declared in a file of {megabytes(length)}, of which at "
            f"most {megabytes(memory_limit(length))} are read"
        )


def _check_votable(path: Path, length: int) -> None:
    with _content(path) as file:
        text = file.read(length)
    for tag in re.findall(rb"<(?:\w+:)?STREAM\b[^>]*>", text, re.IGNORECASE):
        if re.search(rb"\bhref\s*=", tag, re.IGNORECASE):
            raise ValueError(f"{path}: a table whose content is elsewhere (STREAM href)")
        if b"gzip" in tag.lower():
            raise ValueError(f"{path}: a packed table (STREAM encoding gzip): unpack it first")
    rows = [int(n) for n in re.findall(rb"\bnrows\s*=\s*[\"']\s*(\d{1,30})", text)]
    sizes = [int(n) for n in re.findall(rb"\barraysize\s*=\s*[\"'][\dx]*?(\d{1,30})\*?[\"']", text)]
    if max([0, *rows]) > length or max([0, *sizes]) > max(length, 2**16):
        raise ValueError(f"{path}: {max(rows + sizes)} entries declared in {megabytes(length)}")
    if re.search(rb"<!(?:ENTITY|DOCTYPE)", text):
        raise ValueError(f"{path}: a VOTable with definitions of its own (DOCTYPE)")


def _check_text(path: Path, length: int) -> None:
    lines = comments = widest = 0
    rest = b""
    with _content(path) as file:
        while block := file.read(_BLOCK):
            *whole, rest = (rest + block).split(b"\n")
            # the header is among the first lines
            widest = max([widest, *map(_words, whole[: max(0, 1000 - lines)])])
            lines += len(whole)
            comments += sum(len(line) for line in whole if line.startswith(b"#"))
            if len(rest) > FREE or comments > _HEADER:
                raise ValueError(f"{path}: a line or a header too long for a table")
    cells = max(widest, _words(rest)) * (lines + 1)
    if cells > max(_CELLS, 4 * length):
        raise ValueError(
            f"{path}: a header of {widest} columns and {lines} lines in {megabytes(length)}: rows "
            "are cut short"
        )


def _words(line: bytes) -> int:
    return max(line.count(b","), line.count(b" "), line.count(b"\t"), line.count(b"|")) + 1
