"""HDF5 files, read with care: links, types, shapes and sizes are looked at before the content.

A file of a few bytes may declare terabytes, may link to other files or to itself, and may hold
types that are no numbers.  `opened` gives a `Reader`, whose methods read one dataset or attribute
each, within `jaxsed.io.limits.memory_limit` for all together; whatever is wrong is one
ValueError that names the file, the dataset, what was found and what was expected.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from jaxsed.io.limits import FREE, megabytes, memory_limit, one_line, regular_file

NUMBERS = "biuf"
"""Kinds of dtypes that are numbers, truth values among them."""

_KINDS = {"b": "truth values", "i": "integers", "u": "integers", "f": "floats", "S": "text"}
_MOST_NAMES = 100_000
_MOST_CHUNKS = 100_000
_DEEPEST = 32  # groups in groups
_ATTRIBUTE = 2**20  # bytes of one attribute, without the text that it points to
_SCANNED = 2**30  # bytes of a file that is looked through for its longest text
_REFERENCE = np.dtype([("size", "<u4"), ("address", "<u8"), ("index", "<u4")])  # to a text

Shape = Sequence[int | None]
Found = TypeVar("Found")


@contextmanager
def opened(path: str | Path) -> Iterator[Reader]:
    """A file to be read.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an HDF5 file; the message names it.
    """
    path = regular_file(path)
    try:
        file = h5py.File(path, "r")
    except Exception as problem:  # of a damaged file h5py raises almost anything
        raise ValueError(f"{path}: not a readable HDF5 file ({one_line(problem)})") from None
    with file:
        yield Reader(path, file)


class Reader:
    """Reads the datasets and attributes of one open file, until its limit on memory."""

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.path = path
        self._file = file
        self._size = os.path.getsize(path)
        self._limit = self._left = memory_limit(self._size)

    # --- what there is ---------------------------------------------------------------------

    def __contains__(self, name: str) -> bool:
        return self._guarded(name, lambda: self._find(name)) is not None

    def names(self, group: str = "/", *, below: bool = False) -> list[str]:
        """Names in a group, in order; with `below` those of all datasets in it and under it.

        Raises ValueError for a link to elsewhere, for groups that hold themselves, and for no such
        group.
        """
        return self._guarded(group, lambda: self._names(group, below))

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Of a dataset; None for a group."""

        def look() -> tuple[int, ...] | None:
            item = self._item(name)
            found = item.shape if isinstance(item, h5py.Dataset) else None
            return None if found is None else tuple(found)

        return self._guarded(name, look)

    def attribute_names(self, of: str = "/") -> list[str]:
        """Names of the attributes of a group or dataset."""
        return self._guarded(of, lambda: sorted(self._item(of).attrs))

    def is_text(self, name: str) -> bool:
        """Whether a dataset holds text."""
        return self._guarded(name, lambda: _is_text(self._dataset(name).dtype))

    # --- content ---------------------------------------------------------------------------

    def array(
        self, name: str, *, kinds: str = NUMBERS, shape: Shape | None = None
    ) -> np.ndarray:
        """A dataset of numbers.

        Args:
            name: of the dataset.
            kinds: the kinds of numpy's dtypes that are expected.
            shape: expected; None for an axis of any length.

        Raises ValueError for no such dataset, another type or shape, and more than the limit.
        """
        return self._guarded(name, lambda: self._checked(name, kinds, shape)[()])

    def row(self, name: str, row: int, *, kinds: str = NUMBERS) -> np.ndarray:
        """One entry along the first axis of a dataset; raises as `array` does."""

        def read() -> np.ndarray:
            dataset = self._checked(name, kinds, None, rows=1)
            if not dataset.shape or not 0 <= row < dataset.shape[0]:
                raise _Wrong(f"expected a row {row}, got shape {dataset.shape}")
            return dataset[row]

        return self._guarded(name, read)

    def texts(self, name: str, *, shape: Shape | None = (None,)) -> np.ndarray:
        """A dataset of texts, as an array of `str`; raises as `array` does."""
        return self._guarded(name, lambda: self._texts(name, shape))

    def text(self, name: str) -> str:
        """A dataset that is one text; raises as `array` does."""
        return str(self.texts(name, shape=())[()])

    def attribute(self, name: str, of: str = "/", default: Any = None) -> Any:
        """An attribute: a number, a text, or an array of either; `default` if there is none.

        Raises ValueError for other types.
        """
        label = f"attribute {name!r}" if of == "/" else f"attribute {name!r} of {of!r}"
        return self._guarded(label, lambda: self._attribute(name, of, default), plain=True)

    def text_attribute(self, name: str, of: str = "/") -> str:
        """An attribute that is one text; ValueError if there is none such."""
        value = self.attribute(name, of)
        if not isinstance(value, str):
            raise ValueError(
                f"{self.path}: expected a text as attribute {name!r}, got {_of(value)}"
            )
        return value

    def number_attribute(self, name: str, of: str = "/") -> float:
        """An attribute that is one number; ValueError if there is none such."""
        value = self.attribute(name, of)
        if np.ndim(value) or np.asarray(value).dtype.kind not in "iuf":
            raise ValueError(
                f"{self.path}: expected a number as attribute {name!r}, got {_of(value)}"
            )
        return float(value)

    def check_records(self) -> None:
        """Whether the tables in the file, of one dataset each, may be read: ValueError if not.

        Links are left to what reads them, which does not follow them either.
        """
        for name in self._guarded("/", lambda: self._names("/", True, links=True)):
            self._guarded(name, partial(self._check_record, name))

    # --- how -------------------------------------------------------------------------------

    def _guarded(self, label: str, read: Callable[[], Found], plain: bool = False) -> Found:
        what = label if plain else f"dataset {label!r}"
        try:
            return read()
        except _Wrong as problem:
            raise ValueError(f"{self.path}: {what}: {problem}") from None
        except Exception as problem:  # of a damaged file h5py raises almost anything
            raise ValueError(f"{self.path}: {what} is not readable ({one_line(problem)})") from None

    def _find(self, name: str) -> Any:
        """The object of this name, found by hard links alone, or None."""
        item: Any = self._file
        for part in [part for part in name.split("/") if part]:
            if not isinstance(item, h5py.Group):
                return None
            link = item.get(part, getlink=True)
            if link is None:
                return None
            if not isinstance(link, h5py.HardLink):
                raise _Wrong("a link to another place or file: copy what it links to")
            item = item[part]
        return item

    def _item(self, name: str) -> Any:
        item = self._find(name)
        if item is None:
            raise _Wrong("there is none")
        return item

    def _dataset(self, name: str) -> h5py.Dataset:
        item = self._item(name)
        if not isinstance(item, h5py.Dataset):
            raise _Wrong("expected a dataset, got a group or a type")
        return item

    def _check_record(self, name: str) -> None:
        dataset = self._dataset(name)
        fields = dataset.dtype.fields or {"": (dataset.dtype,)}
        if dataset.dtype.fields or "__table_column_meta__" in name:
            for field, (dtype, *_) in fields.items():
                if dtype.base.kind not in f"{NUMBERS}SV" or dtype.base.fields:
                    raise _Wrong(f"expected numbers or text of fixed length as {field!r}")
            self._check_storage(dataset, None)
            self._charge(dataset.size * dataset.dtype.itemsize)

    def _names(self, start: str, below: bool, links: bool = False) -> list[str]:
        group = self._item(start)
        if not isinstance(group, h5py.Group):
            raise _Wrong("expected a group")
        if not below:
            self._count(len(group))
            return sorted(group)
        found: list[str] = []
        seen: set[Any] = {_address(group)}
        waiting = [("", group, 0)]
        while waiting:
            prefix, group, depth = waiting.pop()
            self._count(len(found) + len(waiting) + len(group))
            for name in group:
                full = prefix + name
                link = group.get(name, getlink=True)
                if not isinstance(link, h5py.HardLink):
                    if links:
                        continue
                    raise _Wrong(f"{full!r} is a link to another place or file")
                item = group[name]
                if isinstance(item, h5py.Group):
                    if _address(item) in seen:
                        raise _Wrong(f"the group {full!r} is linked more than once")
                    if depth == _DEEPEST:
                        raise _Wrong(f"groups nested deeper than {_DEEPEST}")
                    seen.add(_address(item))
                    waiting.append((f"{full}/", item, depth + 1))
                elif isinstance(item, h5py.Dataset):
                    found.append(full)
                else:
                    raise _Wrong(f"{full!r} is neither a group nor a dataset")
        return sorted(found)

    def _count(self, names: int) -> None:
        if names > _MOST_NAMES:
            raise _Wrong(f"more than {_MOST_NAMES} names")

    def _checked(
        self, name: str, kinds: str, shape: Shape | None, rows: int | None = None
    ) -> h5py.Dataset:
        """A dataset that may be read whole, or so many rows of it."""
        dataset = self._dataset(name)
        dtype = dataset.dtype
        if dtype.kind not in kinds or dtype.subdtype is not None:
            wanted = " or ".join(dict.fromkeys(_KINDS[kind] for kind in kinds))
            raise _Wrong(f"expected {wanted}, got {_type(dtype)}")
        self._check_storage(dataset, shape)
        size = dataset.size * dtype.itemsize
        if rows is not None and dataset.shape and dataset.shape[0]:
            size = size // dataset.shape[0] * rows
        self._charge(size)
        return dataset

    def _check_storage(self, dataset: h5py.Dataset, shape: Shape | None) -> None:
        if dataset.shape is None:
            raise _Wrong("it is empty")
        if shape is not None and not _agree(dataset.shape, shape):
            wanted = ", ".join("any" if n is None else str(n) for n in shape)
            raise _Wrong(f"expected shape ({wanted}), got {dataset.shape}")
        if dataset.is_virtual or dataset.external:
            raise _Wrong("its content is in another file: copy it into this one")
        if dataset.chunks:
            chunk = int(np.prod(dataset.chunks, dtype=object)) * dataset.dtype.itemsize
            if chunk > self._limit:
                raise _Wrong(f"chunks of {megabytes(chunk)} in a file of {megabytes(self._size)}")
            pairs = zip(dataset.shape, dataset.chunks, strict=True)
            count = int(np.prod([-(-n // c) for n, c in pairs], dtype=object))
            if count > max(_MOST_CHUNKS, self._size):
                raise _Wrong(f"{count} chunks in a file of {megabytes(self._size)}")

    def _charge(self, size: int) -> None:
        if size > self._left:
            raise _Wrong(
                f"{megabytes(size)} declared in a file of {megabytes(self._size)}, of which at "
                f"most {megabytes(self._limit)} are read"
            )
        self._left -= size

    def _texts(self, name: str, shape: Shape | None) -> np.ndarray:
        dataset = self._dataset(name)
        if not _is_text(dataset.dtype):
            raise _Wrong(f"expected text, got {_type(dataset.dtype)}")
        self._check_storage(dataset, shape)
        self._charge(dataset.size * max(dataset.dtype.itemsize, 64))  # an object each
        if dataset.dtype.kind == "S" or not dataset.size:
            return np.asarray(dataset.asstr()[()], object)
        references = self._references(dataset)
        if references is not None:
            self._charge(int(references["size"].sum(dtype=np.uint64)))
            return np.asarray(dataset.asstr()[()], object)
        # One text may be as long as the file, and all entries may point to it.
        found = np.empty(dataset.shape, object)
        if not dataset.shape:
            found[()] = dataset.asstr()[()]
            self._charge(len(found[()]))
            return found
        step = max(1, FREE // (self._size * max(dataset.size // max(dataset.shape[0], 1), 1)))
        for start in range(0, dataset.shape[0], step):
            found[start : start + step] = dataset.asstr()[start : start + step]
            self._charge(sum(map(len, found[start : start + step].ravel())))
        return found

    def _references(self, dataset: h5py.Dataset) -> np.ndarray | None:
        """What a dataset of texts stores: lengths and places; None where it is not plain bytes."""
        start = dataset.id.get_offset()
        if dataset.chunks or start is None:
            return None
        if dataset.id.get_storage_size() != dataset.size * _REFERENCE.itemsize:
            return None
        found = np.fromfile(self.path, _REFERENCE, dataset.size, offset=start)
        return found if found.size == dataset.size else None

    def _attribute(self, name: str, of: str, default: Any) -> Any:
        item = self._item(of)
        if name not in item.attrs:
            return default
        held = h5py.h5a.open(item.id, name.encode())
        if held.get_storage_size() > _ATTRIBUTE:
            raise _Wrong(f"{megabytes(held.get_storage_size())}, at most {megabytes(_ATTRIBUTE)}")
        dtype, count = held.dtype, int(np.prod(held.shape, dtype=object))
        if not (dtype.kind in NUMBERS or _is_text(dtype)) or dtype.subdtype is not None:
            raise _Wrong(f"expected numbers or text, got {_type(dtype)}")
        if dtype.kind == "O" and count > 1 and count * self._size > FREE:
            self._charge(count * self._longest_text())
        value = item.attrs[name]
        if isinstance(value, h5py.Empty):
            raise _Wrong("it is empty")
        return value.decode() if isinstance(value, bytes) else value

    def _longest_text(self) -> int:
        """Length of the longest text in the file's heaps; 0 in files too large to look through."""
        if self._size > _SCANNED:
            return 0
        longest, at = 0, 0
        access = mmap.ACCESS_READ
        with self.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=access) as m:
            while (at := m.find(b"GCOL\x01\0\0\0", at)) >= 0:
                end = min(at + int.from_bytes(m[at + 8 : at + 16], "little"), len(m))
                place = at + 16
                while place + 16 <= end and m[place : place + 2] != b"\0\0":
                    size = int.from_bytes(m[place + 8 : place + 16], "little")
                    longest = max(longest, min(size, self._size))
                    place += 16 + -(-size // 8) * 8
                at += 8
        return longest


class _Wrong(Exception):
    """What is wrong with one dataset or attribute."""


def _address(group: h5py.Group) -> Any:
    info = h5py.h5o.get_info(group.id)
    return info.fileno, info.addr


def _is_text(dtype: np.dtype) -> bool:
    return h5py.check_string_dtype(dtype) is not None


def _agree(found: tuple[int, ...], wanted: Shape) -> bool:
    return len(found) == len(wanted) and all(
        w is None or f == w for f, w in zip(found, wanted, strict=True)
    )


def _type(dtype: np.dtype) -> str:
    """A dtype in words."""
    if _is_text(dtype):
        return "text"
    if dtype.fields:
        return "records of several fields"
    return "objects or references" if dtype.kind == "O" else f"type {dtype}"


def _of(value: Any) -> str:
    if value is None:
        return "none"
    array = np.asarray(value)
    return f"{'text' if array.dtype.kind in 'OUS' else _type(array.dtype)} of shape {array.shape}"
