"""The file of a finished run: what is in it, and how it is opened."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from jaxsed.catalog.results.folder import is_begun, parts_folder
from jaxsed.catalog.tables import Observations
from jaxsed.core.errors import JaxsedError, user_errors
from jaxsed.io import hdf5

SCHEMA = "jaxsed-results"
SCHEMA_VERSION = 1

_CHUNK_BYTES = 2**18  # of an HDF5 chunk: small enough to read one galaxy, large enough to be few


@contextlib.contextmanager
def open_results(path: Path) -> Iterator[hdf5.Reader]:
    """Open a finished result file; whatever is wrong as the block reads it is a JaxsedError.

    Raises JaxsedError where it is not there, unfinished, damaged, foreign or too new.
    """
    if not path.exists():
        if is_begun(parts_folder(path)):
            raise JaxsedError(
                f"the run {str(path)!r} is not finished: its galaxies are in "
                f"{str(parts_folder(path))!r}. The same command with --resume finishes it."
            )
        raise JaxsedError(f"no result file {str(path)!r}.")
    with user_errors(), hdf5.opened(path) as file:
        if file.attribute("schema") != SCHEMA:
            raise JaxsedError(f"{str(path)!r} is HDF5, but not a result of `jaxsed fit`.")
        version = file.number_attribute("schema_version")
        if version > SCHEMA_VERSION:
            raise JaxsedError(
                f"{str(path)!r} was written by a newer jaxsed (schema {version:g}; this one reads "
                f"up to {SCHEMA_VERSION}): update jaxsed."
            )
        yield file


def run_of(output: Path) -> dict[str, Any] | None:
    """The id of the run whose results a file holds; None where there is no such file."""
    if not output.exists():
        return None
    try:
        with open_results(output) as file:
            return {"run": file.attribute("run", "provenance")}
    except JaxsedError:
        return {"run": None}


def identity_of(file: hdf5.Reader) -> dict[str, Any]:
    """What the run whose results are open was of; ValueError where the file does not say."""
    try:
        found = json.loads(file.text_attribute("identity", "provenance"))
    except RecursionError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"{file.path}: attribute 'identity' is not that of a run")
    return found


def create(file: h5py.File, name: str, n: int, like: NDArray[Any]) -> None:
    """A dataset [n, ...] with the trailing shape and type of `like`, filled with "nothing"."""
    fill = np.nan if like.dtype.kind == "f" else None
    row_bytes = max(1, int(np.prod(like.shape[1:])) * like.dtype.itemsize)
    chunk = (max(1, min(n, _CHUNK_BYTES // row_bytes)), *like.shape[1:])
    file.create_dataset(
        name,
        (n, *like.shape[1:]),
        like.dtype,
        chunks=chunk,
        fillvalue=fill,
        compression="gzip",
        compression_opts=1,
        shuffle=True,
    )


def put(dataset: h5py.Dataset, rows: slice, values: NDArray[Any]) -> None:
    """Write some rows of a dataset.  ValueError where they have another shape."""
    if values.shape[1:] != dataset.shape[1:]:
        raise ValueError(
            f"{dataset.name}: parts differ in shape, {dataset.shape[1:]} and {values.shape[1:]}"
        )
    dataset[rows] = values


def write_provenance(group: h5py.Group, provenance: Mapping[str, Any]) -> None:
    """Where the results come from, by name."""
    for name, value in provenance.items():
        if isinstance(value, str) and len(value) > 1000:
            group[name] = value  # an attribute holds 64 kB at most
        else:
            group.attrs[name] = value


def write_catalog(group: h5py.Group, observations: Observations, waves: Sequence[float]) -> None:
    """What was read of the input, and the effective wavelengths [band] in Angstrom."""
    group.attrs["id_name"] = observations.id_name
    group.attrs["band_names"] = list(observations.band_names)
    group.attrs["notes"] = list(observations.notes)
    group["band_wave"] = np.asarray(waves, float)
    group["band_wave"].attrs["unit"] = "Angstrom"
    group["id"] = observations.id.astype(h5py.string_dtype())
    values = observations.id_values
    group["id_values"] = (
        values if values.dtype.kind in "iuf" else values.astype(str).astype(h5py.string_dtype())
    )
    for name in ("redshift", "flux", "error", "kind"):
        group[name] = getattr(observations, name)
    for name in ("flux", "error"):
        group[name].attrs["unit"] = "maggies"
