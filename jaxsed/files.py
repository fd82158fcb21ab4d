"""HDF5 files of shipped and trained components: named arrays and attributes under one checksum."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

SCHEMA_VERSION = 1


def write(
    path: str | Path, kind: str, arrays: Mapping[str, Any], attributes: Mapping[str, Any]
) -> None:
    """Write a component, replacing an older file in a single step.

    Args:
        path: the file.
        kind: what the component is, checked by `read`.
        arrays: name -> array; a name with slashes goes into groups.
        attributes: JSON types; stored as JSON text.
    """
    arrays = {name: np.asarray(values) for name, values in arrays.items()}
    texts = {name: json.dumps(value, sort_keys=True) for name, value in attributes.items()}
    partial = Path(f"{path}.partial")
    with h5py.File(partial, "w") as file:
        file.attrs["kind"] = kind
        file.attrs["schema_version"] = SCHEMA_VERSION
        file.attrs["sha256"] = _checksum(kind, arrays, texts)
        group = file.create_group("attributes")
        for name, text in texts.items():
            group.create_dataset(name, data=text, dtype=h5py.string_dtype())
        for name, values in arrays.items():
            packing = {"compression": "gzip", "shuffle": True} if values.size > 1000 else {}
            file.create_dataset(f"arrays/{name}", data=values, **packing)
    os.replace(partial, path)


def read(path: str | Path, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and attributes that `write` stored.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a file of this kind and schema, or its content is not what was written;
            the message names the file.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"no file {path}")
    try:
        with h5py.File(path, "r") as file:
            found = file.attrs.get("kind")
            if found != kind:
                raise ValueError(f"{path}: expected a {kind!r} file, got kind {found!r}")
            version = int(file.attrs["schema_version"])
            if version != SCHEMA_VERSION:
                raise ValueError(
                    f"{path}: expected schema version {SCHEMA_VERSION}, got {version}: "
                    "read it with the release of jaxsed that wrote it"
                )
            arrays: dict[str, np.ndarray] = {}

            def visit(name, item):
                if isinstance(item, h5py.Dataset):
                    arrays[name] = item[()]

            file["arrays"].visititems(visit)
            texts = {name: item.asstr()[()] for name, item in file["attributes"].items()}
            expected = file.attrs["sha256"]
        if _checksum(kind, arrays, texts) != expected:
            raise ValueError(f"{path}: wrong checksum: the file is damaged, fetch it anew")
        return arrays, {name: json.loads(text) for name, text in texts.items()}
    except (OSError, KeyError, RuntimeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a readable {kind!r} file ({error})") from error


def opened(path: str | Path) -> h5py.File:
    """A user's HDF5 file, to be read.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an HDF5 file; the message names it.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"no file {path}")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path}: not an HDF5 file ({error})") from error


def kind(path: str | Path) -> str:
    """What a component's file says that it is.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a component's file; the message names it.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"no file {path}")
    try:
        with h5py.File(path, "r") as file:
            return str(file.attrs["kind"])
    except (OSError, KeyError) as error:
        raise ValueError(f"{path}: not a component's file ({error})") from error


def checksum(path: str | Path) -> str:
    """The SHA-256 that is stored in a component's file, for provenance."""
    with h5py.File(path, "r") as file:
        return str(file.attrs["sha256"])


def _checksum(kind, arrays, texts):
    sha = hashlib.sha256(f"{kind} {SCHEMA_VERSION}".encode())
    for name in sorted(texts):
        sha.update(f"|{name}={texts[name]}".encode())
    for name in sorted(arrays):
        # byte order is that of the file (little-endian) on every machine
        values = np.ascontiguousarray(arrays[name])
        values = values.astype(values.dtype.newbyteorder("<"), copy=False)
        sha.update(f"|{name}:{values.dtype.str}{values.shape}".encode() + values.tobytes())
    return sha.hexdigest()
