"""Results on disk: finished galaxies survive a killed run, and a stale run is never continued.

While a run lasts, its galaxies are in files of the folder ``RUN.h5.parts``: about one a minute,
each there completely or not at all.  ``run.json`` says which run they are of, and ``lock`` which
process works on it (see `jaxsed.io.locks`).  At the end they become ``RUN.h5`` and the folder goes.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from jaxsed.catalog.flags import NOT_FITTED, Flag
from jaxsed.catalog.tables import Observations
from jaxsed.core.errors import JaxsedError, user_errors
from jaxsed.io import files, hdf5
from jaxsed.io.locks import Held, Lock, Owner, describe
from jaxsed.io.outputs import check_writable

SCHEMA = "jaxsed-results"
SCHEMA_VERSION = 1
PART = "part of a catalogue run"
"""The kind of the files of an unfinished run."""

PART_SECONDS = 60.0
"""Time after which finished galaxies are written to disk: no more than this is lost at a kill."""

PART_BYTES = 2**28
"""Size at which they are written earlier, to spare memory."""

_HEADER, _LOCK = "run.json", "lock"
_RUN_SCHEMA = "jaxsed-run 2"
_NAMES = re.compile(r"run\.json|lock|(part|chunk)_\w+\.h5|\..*\.tmp|(run\.json|chunk_\w+)\.new")
_CHUNK_BYTES = 2**18  # of an HDF5 chunk: small enough to read one galaxy, large enough to be few
_BLOCK = 1024  # rows that are joined at a time
_MEANT = ("draws/", "summary/", "diagnostics/chi2")  # finite in every row with a result

Tree = Mapping[str, NDArray[Any]]


def parts_folder(output: Path) -> Path:
    """Where the parts of an unfinished run lie."""
    return output.with_name(output.name + ".parts")


def _is_begun(parts: Path) -> bool:
    return (parts / _HEADER).is_file()


def _is_ours(parts: Path) -> bool:
    """Whether a folder is that of a run: by what its header says, or as it holds nothing else."""
    if parts.is_symlink() or not parts.is_dir():
        return False
    if isinstance(_header(parts), dict):
        return True
    return all(_NAMES.fullmatch(entry.name) for entry in parts.iterdir())


def _header(parts: Path) -> dict[str, Any] | str | None:
    """The header of a run, None where there is none, or what is wrong with it."""
    try:
        found = json.loads((parts / _HEADER).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError, OSError):
        return "is damaged"
    fields = {"schema": str, "run": str, "replaces": bool, "identity": dict}
    if not isinstance(found, dict) or found.get("schema") != _RUN_SCHEMA:
        return "is not that of a run of this version of jaxsed"
    if not all(isinstance(found.get(name), kind) for name, kind in fields.items()):
        return "is damaged"
    return found


def check_output(output: Path, *, resume: bool, overwrite: bool) -> None:
    """Raise JaxsedError, before any work, where the results could not be written in the end.

    Whether the name is free is known only to `ResultWriter`, which holds the lock.
    """
    if resume and overwrite:
        raise JaxsedError("--resume continues a run and --overwrite starts it again: choose one.")
    if output.suffix.lower() not in (".h5", ".hdf5"):
        raise JaxsedError(f"the output {str(output)!r} is HDF5: its name must end with .h5.")
    check_writable(output)
    parts = parts_folder(output)
    if os.path.lexists(parts) and not _is_ours(parts):
        raise JaxsedError(f"{str(parts)!r} is in the way and was not made by jaxsed: move it.")


def _check_free(output: Path, *, resume: bool, overwrite: bool) -> None:
    """Raise JaxsedError where results or an unfinished run are there that must not be touched."""
    parts = parts_folder(output)
    if resume:
        if isinstance(wrong := _header(parts), str):
            raise JaxsedError(
                f"cannot resume {str(output)!r}: {str(parts / _HEADER)!r} {wrong}. Start again "
                "with --overwrite."
            )
        return
    if overwrite:
        return
    if _is_begun(parts):
        raise JaxsedError(
            f"an unfinished run of {str(output)!r} is there: --resume continues it, --overwrite "
            "starts it again."
        )
    if output.exists():
        raise JaxsedError(
            f"the output {str(output)!r} exists: --overwrite replaces it, --resume keeps what it "
            "has if it is the same run."
        )


class _Contents(NamedTuple):
    """Of a part: its rows, how long they took, and how much of that went into compilation."""

    rows: NDArray[np.int64]
    seconds: float
    compiling: float


class ResultWriter:
    """Keeps the galaxies of one run, which no other process may work on meanwhile.

    Used in a ``with`` statement, which holds the lock.  But for the lock, nothing on disk changes
    before the first galaxies are written.

    Attributes
    ----------
    run: the run's id, in every part and in the results.
    identity: what the run is of (name -> checksum or number).
    finished: whether the run to be resumed has nothing left to do.
    """

    def __init__(
        self,
        output: Path,
        *,
        resume: bool = False,
        overwrite: bool = False,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Raises JaxsedError where the output is not free, or in use by another process."""
        self.output = output
        self.parts = parts_folder(output)
        self.report = report
        self.run = secrets.token_hex(16)
        self.identity: dict[str, Any] = {}
        self.finished = False
        self._lock: Lock | None = None
        self._resumed = False
        self._replaces = overwrite
        self._agreed: set[str] = set()
        self._contents: dict[Path, _Contents] = {}
        self._waiting: list[tuple[NDArray[np.int64], Tree]] = []
        self._written = time.monotonic()
        self._seconds = self._compiling = 0.0
        check_output(output, resume=resume, overwrite=overwrite)
        self._lock = self._locked()
        try:
            _check_free(output, resume=resume, overwrite=overwrite)
            if resume:
                self._resume()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> ResultWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the lock back; a folder with nothing else in it goes."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None
            with contextlib.suppress(OSError):
                self.parts.rmdir()

    def _locked(self) -> Lock:
        while True:
            try:
                self.parts.mkdir(exist_ok=True)
                lock = Lock(self.parts / _LOCK)
            except FileNotFoundError:  # removed by a run that ended just now
                if not self.parts.parent.is_dir():
                    raise
            except Held as held:
                raise JaxsedError(_in_use(self.output, held.owner)) from None
            except OSError as error:
                raise JaxsedError(f"cannot write in {str(self.parts)!r}: {error}.") from error
            else:
                break
        if lock.left is not None:
            self.report(f"{self.output} was left by {describe(lock.left)}: taken over.")
        return lock

    def _resume(self) -> None:
        header = _header(self.parts)
        finished = _run_of(self.output)
        if isinstance(header, dict):
            if finished is not None and finished["run"] != header["run"] and not header["replaces"]:
                raise JaxsedError(
                    f"cannot resume {str(self.output)!r}: the file is there now, of another run "
                    "than the unfinished one: move it, or start again with --overwrite."
                )
            self.run, self.identity = header["run"], header["identity"]
            self._replaces = header["replaces"]
            self._resumed = True
            self.finished = finished is not None and finished["run"] == self.run
            if self.finished:  # killed as it removed the parts
                self._clear()
        elif self.output.exists():
            with open_results(self.output) as file:
                self.identity = _identity(file)
            self.finished = True
        elif any(self.parts.glob("*_*.h5")):
            self.report(f"{self.parts} has no {_HEADER}: what is in it is left out.")

    def agree(self, identity: Mapping[str, Any], *, complete: bool = False) -> None:
        """Record what this run is, or compare with what the run to be resumed was.

        `complete` tells that this is the last of it.  Raises JaxsedError naming all that differs.
        """
        self._agreed |= set(identity)
        now = dict(identity)
        if complete:
            now |= dict.fromkeys(self.identity.keys() - self._agreed)
        differing = [
            f"the {name} (then {_short(self.identity.get(name))}, now {_short(value)})"
            for name, value in now.items()
            if (self._resumed or name in self.identity) and self.identity.get(name) != value
        ]
        if differing:
            raise JaxsedError(
                f"cannot resume {str(self.output)!r}: it was made with something else; what "
                f"differs: {', '.join(differing)}. Give another output, or start again with "
                "--overwrite."
            )
        self.identity.update(identity)

    def kept(self, fitted: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which rows have a result already [row], of those that are `fitted` [row].

        Parts that are damaged, of another run or of other rows are removed and told.
        """
        done = np.zeros(len(fitted), bool)
        self._contents = {}
        if not self._resumed:
            return done
        like: Mapping[str, Any] | None = None
        for path in sorted(self.parts.glob("*_*.h5")):
            try:
                rows, tree, contents = self._read(path)
                shapes = {name: (a.shape[1:], a.dtype) for name, a in tree.items()}
                if len(rows) and not (0 <= rows[0] and rows[-1] < len(fitted)):
                    raise ValueError("rows that the catalogue does not have")
                if not fitted[rows].all():
                    raise ValueError("rows that are not fitted")
                if like is not None and shapes != like:
                    raise ValueError("other quantities than in the other parts")
            except (ValueError, OSError, KeyError, TypeError) as error:
                reason = str(error).removeprefix(f"{path}: ").splitlines()[0]
                self.report(f"{path} is left out, and its galaxies are fitted again: {reason}.")
                self._remove([path])
                continue
            like = shapes
            done[rows] = True
            self._contents[path] = contents
        return done

    def _read(self, path: Path) -> tuple[NDArray[np.int64], Tree, _Contents]:
        """Rows (rising), datasets and contents of a part.  Raises ValueError, OSError."""
        arrays, attributes = files.read(path, PART)
        if attributes.get("run") != self.run:
            raise ValueError("it is of another run")
        rows = arrays.pop("rows", np.zeros(0))
        tree = dict(_from_numbers(name, values) for name, values in arrays.items())
        if rows.ndim != 1 or rows.dtype != np.int64 or not len(rows) or (np.diff(rows) <= 0).any():
            raise ValueError("its rows are not as they are written")
        if "diagnostics/flag" not in tree or any(len(a) != len(rows) for a in tree.values()):
            raise ValueError("it is not complete")
        seconds, compiling = (float(attributes[name]) for name in ("seconds", "compiling"))
        return rows, tree, _Contents(rows, seconds, compiling)

    def due(self) -> bool:
        """Whether finished galaxies should be handed over now, so that a kill loses few."""
        return time.monotonic() - self._written >= PART_SECONDS

    def add(self, rows: NDArray[np.int64], tree: Tree, *, seconds: float, compiling: float) -> None:
        """Take finished galaxies: their rows in the table, in any order, and what
        `jaxsed.catalog.chunk.datasets` gave.  They are on disk after about a minute, or `flush`.

        `seconds` is how long they took, and `compiling` how much of that went into compilation.
        """
        self._waiting.append((np.asarray(rows, np.int64), tree))
        self._seconds += seconds
        self._compiling += compiling
        size = sum(a.nbytes for _, tree in self._waiting for a in tree.values())
        if self.due() or size >= PART_BYTES:
            self.flush()

    def flush(self) -> None:
        """Bring the galaxies that were added to the disk.

        Raises JaxsedError if another process has taken the output over, or nothing can be written.
        """
        if self._waiting:
            rows = np.concatenate([rows for rows, _ in self._waiting])
            order = np.argsort(rows)
            trees = [tree for _, tree in self._waiting]
            joined = {k: np.concatenate([tree[k] for tree in trees])[order] for k in trees[0]}
            arrays = dict(_to_numbers(name, values) for name, values in joined.items())
            contents = _Contents(rows[order], self._seconds, self._compiling)
            times = {"seconds": contents.seconds, "compiling": contents.compiling}
            path = self.parts / f"part_{rows.min():09d}_{secrets.token_hex(4)}.h5"
            with self._writing():
                self._begin()
                files.write(
                    path, PART, {**arrays, "rows": contents.rows}, {"run": self.run, **times},
                    compressed=False,
                )  # fmt: skip
            self._contents[path] = contents
            self._waiting = []
            self._seconds = self._compiling = 0.0
        self._written = time.monotonic()

    def _begin(self) -> None:
        """The folder's header, if it is not there yet; that it is ours, if it is."""
        if not self._resumed:
            self._clear()
            header = {
                "schema": _RUN_SCHEMA,
                "run": self.run,
                "since": datetime.now(UTC).isoformat(timespec="seconds"),
                "replaces": self._replaces,
                "identity": self.identity,
            }
            text = json.dumps(header, indent=1, sort_keys=True)
            files.write_text(self.parts / _HEADER, text)
            self._resumed = True
        found = _header(self.parts)
        if not isinstance(found, dict) or found["run"] != self.run:
            raise JaxsedError(
                f"another run has taken {str(self.output)!r} over: this one stops. Give every run "
                "an output of its own."
            )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise JaxsedError(
                f"cannot write {str(error.filename or self.parts)!r}: "
                f"{error.strerror or error}. Finished galaxies are kept in {str(self.parts)!r}: "
                "when this is mended, the same command with --resume goes on."
            ) from error

    def rehearse(
        self, observations: Observations, provenance: Mapping[str, Any], *, waves: Sequence[float]
    ) -> None:
        """Raise JaxsedError, before any sampling, for what an output file could not hold."""
        with h5py.File(io.BytesIO(), "w") as file:
            try:
                _write_catalog(file.create_group("catalog"), observations, waves)
                _write_provenance(file.create_group("provenance"), {**provenance, "run": self.run})
            except (ValueError, TypeError, OSError, RuntimeError) as error:
                reason = str(error).splitlines()[0]
                raise JaxsedError(
                    f"the catalogue cannot be stored in {str(self.output)!r}: {reason}. Look for "
                    f"unusual characters or values in the id column {observations.id_name!r}."
                ) from error

    def finish(
        self, observations: Observations, provenance: Mapping[str, Any], *, waves: Sequence[float]
    ) -> None:
        """Join the parts to the output file and remove them.

        `waves` [B] are the bands' effective wavelengths in Angstrom.  Rows that are not fitted get
        NaN.  A row whose numbers are not all finite gets the flag NUMERICAL_FAILURE.

        Raises JaxsedError, and keeps all parts, if a row that is to be fitted is in none of them.
        """
        self.flush()
        with self._writing():
            self._begin()
        n = len(observations.id)
        where = np.full((2, n), -1)  # in which part a row is, and at which place
        for number, contents in enumerate(self._contents.values()):
            where[0, contents.rows] = number
            where[1, contents.rows] = np.arange(len(contents.rows))
        missing = ((observations.flag & int(NOT_FITTED)) == 0) & (where[0] < 0)
        if missing.any():
            first = ", ".join(map(str, np.flatnonzero(missing)[:5]))
            raise JaxsedError(
                f"{missing.sum()} rows have no result (first: {first}), so {str(self.output)!r} is "
                "not written: the same command with --resume fits them."
            )
        # on the same file system as what it replaces, and where a killed run's files are cleared
        target = Path(os.path.realpath(self.output))
        beside = os.stat(target.parent).st_dev == os.stat(self.parts).st_dev
        folder = self.parts if beside else None
        with self._writing(), files.creating(self.output, folder=folder) as file:
            file.attrs["schema"] = SCHEMA
            file.attrs["schema_version"] = SCHEMA_VERSION
            _write_catalog(file.create_group("catalog"), observations, waves)
            # what every row has, fitted or not
            flag, bands = observations.flag.copy(), np.asarray(observations.n_bands, np.int64)
            for rows, tree in self._blocks(where):
                done = where[0][rows] >= 0
                flag[rows] = np.where(done, tree.pop("diagnostics/flag"), flag[rows])
                flag[rows] |= np.where(done & ~_finite(tree), int(Flag.NUMERICAL_FAILURE), 0)
                found = tree.pop("diagnostics/n_bands", None)
                bands[rows] = bands[rows] if found is None else np.where(done, found, bands[rows])
                for name, values in tree.items():
                    if name not in file:
                        _create(file, name, n, values)
                    _put(file[name], rows, values)
            file["diagnostics/flag"], file["diagnostics/n_bands"] = flag, bands
            group = file.create_group("provenance")
            group.attrs["identity"] = json.dumps(self.identity, sort_keys=True)
            _write_provenance(group, {**provenance, "run": self.run})
            for name in ("seconds", "compiling"):
                times = [getattr(contents, name) for contents in self._contents.values()]
                group[f"chunk_{name}"] = np.array(times, float)
        self._clear()
        self.finished = True

    def _blocks(self, where: NDArray[np.int64]) -> Iterator[tuple[slice, dict[str, NDArray[Any]]]]:
        """Rows, some at a time, and their datasets; "nothing" in rows that have none."""
        n = where.shape[1]
        last = {number: int(np.flatnonzero(where[0] == number)[-1]) for number in set(where[0])}
        opened: dict[int, Tree] = {}
        paths = list(self._contents)
        for start in range(0, n, _BLOCK):
            rows = slice(start, min(start + _BLOCK, n))
            part, place = where[:, rows]
            tree: dict[str, NDArray[Any]] = {}
            for number in sorted(set(part[part >= 0])):
                if number not in opened:
                    opened[number] = self._again(paths[number])
                here = part == number
                for name, values in opened[number].items():
                    if name not in tree:
                        tree[name] = _nothing(len(part), values)
                    tree[name][here] = values[place[here]]
                if last[number] < rows.stop:
                    del opened[number]
            if tree:
                yield rows, tree

    def _again(self, path: Path) -> Tree:
        """The datasets of a part that was found to be good before."""
        try:
            return self._read(path)[1]
        except (ValueError, OSError) as error:
            raise JaxsedError(
                f"{str(path)!r} cannot be read any more ({error}). The same command with --resume "
                "fits its galaxies again."
            ) from error

    def _clear(self) -> None:
        """Remove what runs have left in the folder, the header last: a killed removal is seen."""
        ours = [p for p in self.parts.iterdir() if _NAMES.fullmatch(p.name) and p.name != _LOCK]
        self._remove(sorted(ours, key=lambda path: path.name == _HEADER))

    @staticmethod
    def _remove(paths: Sequence[Path]) -> None:
        for path in paths:
            path.unlink(missing_ok=True)


def _in_use(output: Path, owner: Owner) -> str:
    return (
        f"{str(output)!r} is in use by {describe(owner)}: wait until it ends, stop it, or give "
        "another output."
    )


def _run_of(output: Path) -> dict[str, Any] | None:
    """The id of the run whose results a file holds; None where there is no such file."""
    if not output.exists():
        return None
    try:
        with open_results(output) as file:
            return {"run": file.attribute("run", "provenance")}
    except JaxsedError:
        return {"run": None}


def _identity(file: hdf5.Reader) -> dict[str, Any]:
    """What the run whose results are open was of; ValueError where the file does not say."""
    try:
        found = json.loads(file.text_attribute("identity", "provenance"))
    except RecursionError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"{file.path}: attribute 'identity' is not that of a run")
    return found


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text[:10] + "..." if len(text) > 40 else text


def _finite(tree: Tree) -> NDArray[np.bool_]:
    """[row] whether all that a fitted row must have is finite."""
    finite = np.ones(len(next(iter(tree.values()))), bool)
    for name, values in tree.items():
        if name.startswith(_MEANT) and values.dtype.kind == "f":
            finite &= np.isfinite(values).reshape(len(values), -1).all(axis=1)
    return finite


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


def _nothing(n: int, like: NDArray[Any]) -> NDArray[Any]:
    """[n, ...] of the trailing shape and type of `like`: NaN, zero or an empty text."""
    blank = np.zeros((n, *like.shape[1:]), like.dtype)
    if blank.dtype.kind == "f":
        blank[:] = np.nan
    return blank


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


def _put(dataset: h5py.Dataset, rows: slice, values: NDArray[Any]) -> None:
    if values.shape[1:] != dataset.shape[1:]:
        raise ValueError(
            f"{dataset.name}: parts differ in shape, {dataset.shape[1:]} and {values.shape[1:]}"
        )
    dataset[rows] = values


def _write_provenance(group: h5py.Group, provenance: Mapping[str, Any]) -> None:
    for name, value in provenance.items():
        if isinstance(value, str) and len(value) > 1000:
            group[name] = value  # an attribute holds 64 kB at most
        else:
            group.attrs[name] = value


def _write_catalog(group: h5py.Group, observations: Observations, waves: Sequence[float]) -> None:
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


@contextlib.contextmanager
def open_results(path: Path) -> Iterator[hdf5.Reader]:
    """Open a finished result file; whatever is wrong as the block reads it is a JaxsedError.

    Raises JaxsedError where it is not there, unfinished, damaged, foreign or too new.
    """
    if not path.exists():
        if _is_begun(parts_folder(path)):
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
