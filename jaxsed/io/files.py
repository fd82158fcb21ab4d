"""Files of the package: written whole or not at all, components under one checksum."""

import contextlib
import errno
import hashlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from jaxsed.core.types import Numbers
from jaxsed.io import hdf5
from jaxsed.io.limits import one_line

SCHEMA_VERSION = 1

TEMPORARY = ".tmp"
"""How the names of unfinished files end; they begin with a dot."""

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def replacing(path: str | Path, *, folder: str | Path | None = None) -> Iterator[Path]:
    """Write a file so that its name always holds the old content or the whole new one.

    Yields the path of a new, empty file beside `path` (or in `folder`, on the same file system),
    whose name no other process has.  When the block ends, its content is brought to the disk and
    it takes the name `path`; when the block raises, it is removed and `path` is as it was.  A new
    file has the permissions of the one that it replaces, or those that the process gives files.
    Where `path` is a symbolic link, the link stays and the file that it points to is replaced.

    Raises OSError, with `path` as its ``filename``, where the file cannot be written: no folder,
    no permission, something that is not a regular file in the way, no space left.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise OSError(errno.EINVAL, "not a regular file, so it is not replaced", str(path))
    where = target.parent if folder is None else Path(folder)
    try:
        handle, name = tempfile.mkstemp(TEMPORARY, f".{target.name[:40]}.", where)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    os.close(handle)
    new = Path(name)
    try:
        yield new
        _to_disk(new)
        os.chmod(new, _mode(target))
        os.replace(new, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        code = _out_of_space(error)
        if code is None:
            raise
        raise OSError(code, os.strerror(code), str(path)) from error
    _to_disk(target.parent)


@contextmanager
def creating(path: str | Path, *, folder: str | Path | None = None) -> Iterator[h5py.File]:
    """Write an HDF5 file; yields it, open and empty.  See `replacing`."""
    with replacing(path, folder=folder) as new, new.open("r+b", buffering=0) as raw:
        disk = _Disk(raw)
        try:
            with h5py.File(disk, "w") as file:
                yield file
        finally:
            if disk.error is not None:
                raise disk.error


class _Disk:
    """A file that HDF5 writes to.

    The HDF5 library cannot close a file that it failed to write, and says so until the process
    ends.  So it is not told: the first error is kept, and what comes after it is dropped.
    """

    def __init__(self, raw: Numbers) -> None:
        self._raw = raw
        self.error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        try:
            while len(left) and self.error is None:
                left = left[self._raw.write(left) :]
        except OSError as error:
            self.error = error
        return len(data)

    def truncate(self, size: int) -> int:
        try:
            return self._raw.truncate(size)
        except OSError as error:
            self.error = self.error or error
        return size


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8; see `replacing`."""
    with replacing(path) as new:
        new.write_text(text, encoding="utf-8")


def _mode(target: Path) -> int:
    """Permissions of the file that is there, or of a new one."""
    if target.exists():
        return stat.S_IMODE(target.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _to_disk(path: Path) -> None:
    """Bring a file, or the names in a folder, from the memory of the system to the disk."""
    if not path.is_dir():
        with path.open("r+b") as file:
            os.fsync(file.fileno())
        return
    with contextlib.suppress(OSError):  # not every system can synchronise a folder
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _out_of_space(error: BaseException | None) -> int | None:
    """The error number if a disk is full, a quota used up or a file too large; HDF5 tells it in
    the words of its own errors."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_SPACE:
            return error.errno
        if isinstance(error, OSError | RuntimeError):
            for number in re.findall(r"errno = (\d+)", str(error)):
                if int(number) in _NO_SPACE:
                    return int(number)
        error = error.__context__
    return None


def write(
    path: str | Path,
    kind: str,
    arrays: Mapping[str, Any],
    attributes: Mapping[str, Any],
    *,
    compressed: bool = True,
) -> None:
    """Write a component, replacing an older file in a single step (see `replacing`).

    Args:
        path: the file.
        kind: what the component is, checked by `read`.
        arrays: name -> array; a name with slashes goes into groups.
        attributes: JSON types; stored as JSON text.
        compressed: whether large arrays are packed: smaller, and slower to write.
    """
    arrays, texts = _prepared(arrays, attributes)
    with creating(path) as file:
        file.attrs["kind"] = kind
        file.attrs["schema_version"] = SCHEMA_VERSION
        file.attrs["sha256"] = _checksum(kind, arrays, texts)
        group = file.create_group("attributes")
        for name, text in texts.items():
            group.create_dataset(name, data=text, dtype=h5py.string_dtype())
        for name, values in arrays.items():
            large = compressed and values.size > 1000
            packing = {"compression": "gzip", "shuffle": True} if large else {}
            file.create_dataset(f"arrays/{name}", data=values, **packing)


def content_checksum(
    kind: str, arrays: Mapping[str, Any], attributes: Mapping[str, Any]
) -> str:
    """The SHA-256 that `write` would store with a component."""
    return _checksum(kind, *_prepared(arrays, attributes))


def _prepared(arrays: Mapping[str, Any], attributes: Mapping[str, Any]):
    texts = {name: json.dumps(value, sort_keys=True) for name, value in attributes.items()}
    return {name: np.asarray(values) for name, values in arrays.items()}, texts


def read(path: str | Path, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and attributes that `write` stored.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a file of this kind and schema, or its content is not what was written;
            the message names the file.
    """
    with hdf5.opened(path) as file:
        found = file.attribute("kind")
        if not isinstance(found, str) or found != kind:
            raise ValueError(f"{path}: expected a {kind!r} file, got kind {str(found)[:100]!r}")
        version = file.number_attribute("schema_version")
        if version != SCHEMA_VERSION:
            raise ValueError(
                f"{path}: expected schema version {SCHEMA_VERSION}, got {version:g}: "
                "read it with the release of jaxsed that wrote it"
            )
        arrays = {
            name: file.array(f"arrays/{name}") for name in file.names("arrays", below=True)
        }
        texts = {name: file.text(f"attributes/{name}") for name in file.names("attributes")}
        expected = file.text_attribute("sha256")
    if _checksum(kind, arrays, texts) != expected:
        raise ValueError(f"{path}: wrong checksum: the file is damaged, fetch it anew")
    return arrays, {name: _parsed(path, name, text) for name, text in texts.items()}


@contextmanager
def complete(path: str | Path, what: str) -> Iterator[None]:
    """Whatever goes wrong as something is made of a file's content is a ValueError that names it.

    Args:
        path: the file.
        what: is made of it, as "emulator".
    """
    try:
        yield
    # arrays and attributes of a foreign file may be anything, and so may what they end in
    except Exception as problem:
        raise ValueError(f"{path}: not a complete {what} ({one_line(problem)})") from problem


def check_shapes(arrays: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]]) -> None:
    """ValueError unless the arrays of these names have these shapes."""
    for name, shape in expected.items():
        found = np.shape(arrays[name])
        if found != tuple(shape):
            raise ValueError(f"expected {name} of shape {tuple(shape)}, got {found}")


def kind(path: str | Path) -> str:
    """What a component's file says that it is.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a component's file; the message names it.
    """
    with hdf5.opened(path) as file:
        return file.text_attribute("kind")


def checksum(path: str | Path) -> str:
    """The SHA-256 that is stored in a component's file, for provenance; raises as `kind` does."""
    with hdf5.opened(path) as file:
        return file.text_attribute("sha256")


def _parsed(path: str | Path, name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise ValueError(
            f"{path}: attribute {name!r} is not JSON ({one_line(problem)})"
        ) from None


def _checksum(kind, arrays, texts):
    sha = hashlib.sha256(f"{kind} {SCHEMA_VERSION}".encode())
    for name in sorted(texts):
        sha.update(f"|{name}={texts[name]}".encode())
    for name in sorted(arrays):
        # byte order is that of the file (little-endian) on every machine
        values = np.ascontiguousarray(arrays[name])
        values = values.astype(values.dtype.newbyteorder("<"), copy=False)
        sha.update(f"|{name}:{values.dtype.str}{values.shape}".encode())
        sha.update(values.ravel().view(np.uint8).data)  # without a copy of what may be large
    return sha.hexdigest()
