"""Results on disk: finished chunks survive a killed run, and a stale run is never continued.

While a run lasts, each chunk is a file of its own in the folder ``RUN.h5.parts``, written beside
and moved into place, so that it is there completely or not at all.  At the end they become
``RUN.h5`` and the folder goes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from jaxsed.catalog.errors import JaxsedError
from jaxsed.catalog.tables import Observations

SCHEMA = "jaxsed-results"
SCHEMA_VERSION = 1
_HEADER = "run.json"
_CHUNK_BYTES = 2**18  # of an HDF5 chunk: small enough to read one galaxy, large enough to be few


def parts_folder(output: Path) -> Path:
    """Where the chunks of an unfinished run lie."""
    return output.with_name(output.name + ".parts")


def _is_ours(parts: Path) -> bool:
    return (parts / _HEADER).is_file()


def check_output(output: Path, *, resume: bool, overwrite: bool) -> None:
    """Raise JaxsedError, before any work, where the results could not be written in the end."""
    if resume and overwrite:
        raise JaxsedError("--resume continues a run and --overwrite starts it again: choose one.")
    if output.suffix.lower() not in (".h5", ".hdf5"):
        raise JaxsedError(f"the output {str(output)!r} is HDF5: its name must end with .h5.")
    check_writable(output)
    parts = parts_folder(output)
    if parts.exists() and not _is_ours(parts):
        raise JaxsedError(f"{str(parts)!r} is in the way and was not made by jaxsed: move it.")
    if resume or overwrite:
        return
    if parts.exists():
        raise JaxsedError(
            f"an unfinished run of {str(output)!r} is there: --resume continues it, --overwrite "
            "starts it again."
        )
    if output.exists():
        raise JaxsedError(
            f"the output {str(output)!r} exists: --overwrite replaces it, --resume keeps what it "
            "has if it is the same run."
        )


def check_writable(path: Path) -> None:
    """Raise JaxsedError where a file of this name could not be written."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise JaxsedError(f"cannot write {str(path)!r}: there is no folder {str(folder)!r}.")
    if path.is_dir():
        raise JaxsedError(f"cannot write {str(path)!r}: it is a folder.")
    if not os.access(folder, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise JaxsedError(f"cannot write {str(path)!r}: no permission.")


class ResultWriter:
    """Keeps the chunks of one run; nothing on disk changes before the first is written.

    `identity` says which run it is (name -> checksum or number); `finished` is True where the
    run to be resumed has nothing left to do.
    """

    def __init__(self, output: Path, *, resume: bool = False, overwrite: bool = False) -> None:
        check_output(output, resume=resume, overwrite=overwrite)
        self.output = output
        self.parts = parts_folder(output)
        self.finished = False
        self.identity: dict[str, Any] = {}
        self._resumed = resume and self.parts.exists()
        if self._resumed:
            try:
                self.identity = json.loads((self.parts / _HEADER).read_text())
            except ValueError:
                raise JaxsedError(
                    f"{str(self.parts / _HEADER)!r} is damaged: start again with --overwrite."
                ) from None
        elif resume and output.exists():
            with open_results(output) as file:
                self.identity = json.loads(file["provenance"].attrs["identity"])
            self.finished = True

    def agree(self, identity: Mapping[str, Any]) -> None:
        """Record what this run is, or compare with what the run to be resumed was.

        Raises JaxsedError naming all that differs.
        """
        differing = [
            f"the {name} (then {_short(self.identity[name])}, now {_short(value)})"
            for name, value in identity.items()
            if name in self.identity and self.identity[name] != value
        ]
        if differing:
            raise JaxsedError(
                f"cannot resume {str(self.output)!r}: it was made with something else; what "
                f"differs: {', '.join(differing)}. Give another output, or start again with "
                "--overwrite."
            )
        self.identity.update(identity)

    def _start(self) -> None:
        """Make the folder of chunks, with the run's identity in it."""
        if self.parts.exists():
            shutil.rmtree(self.parts)
        self.parts.mkdir()
        new = self.parts / (_HEADER + ".new")
        new.write_text(json.dumps(self.identity, indent=1, sort_keys=True))
        os.replace(new, self.parts / _HEADER)
        self._resumed = True

    def _part(self, chunk: int) -> Path:
        return self.parts / f"chunk_{chunk:06d}.h5"

    def has(self, chunk: int) -> bool:
        """Whether this chunk is complete."""
        return self._resumed and self._part(chunk).is_file()

    def write(
        self,
        chunk: int,
        rows: NDArray[np.int64],
        tree: Mapping[str, NDArray[Any]],
        *,
        seconds: float,
        compiling: float,
    ) -> None:
        """Keep one chunk: its rows in the table, and what `jaxsed.catalog.chunk.stored` gave.

        `seconds` is how long it took, and `compiling` how much of that went into compilation.
        """
        if not self._resumed:
            self._start()
        new = self._part(chunk).with_suffix(".new")
        with h5py.File(new, "w") as file:
            file["rows"] = rows
            file.attrs["seconds"], file.attrs["compiling"] = seconds, compiling
            for name, value in tree.items():
                file[f"tree/{name}"] = value
        os.replace(new, self._part(chunk))

    def finish(
        self, observations: Observations, provenance: Mapping[str, Any], *, waves: Sequence[float]
    ) -> None:
        """Join the chunks to the output file and remove their folder.

        `waves` [B] are the bands' effective wavelengths in Angstrom.  Rows in no chunk get NaN.
        """
        new = self.output.with_name(self.output.name + ".new")
        parts = sorted(self.parts.glob("chunk_*.h5")) if self._resumed else []
        # what every row has, fitted or not
        every_row = {
            "diagnostics/flag": observations.flag.copy(),
            "diagnostics/n_bands": observations.n_bands,
        }
        with h5py.File(new, "w") as file:
            file.attrs["schema"] = SCHEMA
            file.attrs["schema_version"] = SCHEMA_VERSION
            _write_catalog(file.create_group("catalog"), observations, waves)
            n = len(observations.id)
            chunk_seconds, chunk_compiling = [], []
            for path in parts:
                with h5py.File(path) as part:
                    rows = part["rows"][:]
                    chunk_seconds.append(float(part.attrs["seconds"]))
                    chunk_compiling.append(float(part.attrs["compiling"]))
                    for name in _dataset_names(part["tree"]):
                        values = part["tree"][name][:]
                        if name in every_row:
                            every_row[name][rows] = values
                            continue
                        if name not in file:
                            _create(file, name, n, values)
                        _put(file[name], rows, values)
            for name, values in every_row.items():
                file[name] = values
            group = file.create_group("provenance")
            group.attrs["identity"] = json.dumps(self.identity, sort_keys=True)
            for name, value in provenance.items():
                if isinstance(value, str) and len(value) > 1000:
                    group[name] = value  # an attribute holds 64 kB at most
                else:
                    group.attrs[name] = value
            group["chunk_seconds"] = np.array(chunk_seconds)
            group["chunk_compiling"] = np.array(chunk_compiling)
        os.replace(new, self.output)
        if self.parts.exists():
            shutil.rmtree(self.parts)


def _short(value: Any) -> str:
    text = str(value)
    return text[:10] + "..." if len(text) > 40 else text


def _dataset_names(group: h5py.Group) -> list[str]:
    names: list[str] = []
    group.visititems(
        lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None
    )
    return names


def _create(file: h5py.File, name: str, n: int, like: NDArray[Any]) -> None:
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


def _put(dataset: h5py.Dataset, rows: NDArray[np.int64], values: NDArray[Any]) -> None:
    if values.shape[1:] != dataset.shape[1:]:
        raise ValueError(
            f"{dataset.name}: chunks differ in shape, {dataset.shape[1:]} and {values.shape[1:]}"
        )
    if rows[-1] - rows[0] + 1 == len(rows):  # contiguous: much faster than a list of rows
        dataset[rows[0] : rows[-1] + 1] = values
    else:
        dataset[rows] = values


def _write_catalog(group: h5py.Group, observations: Observations, waves: Sequence[float]) -> None:
    group.attrs["id_name"] = observations.id_name
    group.attrs["band_names"] = list(observations.band_names)
    group.attrs["notes"] = list(observations.notes)
    group["band_wave"] = np.asarray(waves, float)
    group["band_wave"].attrs["unit"] = "Angstrom"
    group["id"] = observations.id.astype(h5py.string_dtype())
    values = observations.id_values
    group["id_values"] = (
        values if values.dtype.kind in "iuf" else values.astype(h5py.string_dtype())
    )
    for name in ("redshift", "flux", "error", "kind"):
        group[name] = getattr(observations, name)
    for name in ("flux", "error"):
        group[name].attrs["unit"] = "maggies"


def open_results(path: Path) -> h5py.File:
    """Open a finished result file.

    Raises JaxsedError where it is not there, unfinished, damaged, foreign or too new.
    """
    if not path.exists():
        if _is_ours(parts_folder(path)):
            raise JaxsedError(
                f"the run {str(path)!r} is not finished: its chunks are in "
                f"{str(parts_folder(path))!r}. The same command with --resume finishes it."
            )
        raise JaxsedError(f"no result file {str(path)!r}.")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise JaxsedError(
            f"cannot open {str(path)!r} as HDF5 (cut short, or another kind of file): {error}."
        ) from None
    if file.attrs.get("schema") != SCHEMA:
        file.close()
        raise JaxsedError(f"{str(path)!r} is HDF5, but not a result of `jaxsed fit`.")
    version = int(file.attrs["schema_version"])
    if version > SCHEMA_VERSION:
        file.close()
        raise JaxsedError(
            f"{str(path)!r} was written by a newer jaxsed (schema {version}; this one reads up to "
            f"{SCHEMA_VERSION}): update jaxsed."
        )
    return file
