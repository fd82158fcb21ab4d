"""Results on disk: finished galaxies survive a killed run, and a stale run is never continued.

While a run lasts, its galaxies are in files of the folder ``RUN.h5.parts``: about one a minute (see
`jaxsed.catalog.results.parts`).  At the end they become ``RUN.h5`` and the folder goes.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from jaxsed.catalog.flags import NOT_FITTED, Flag
from jaxsed.catalog.results.file import (
    SCHEMA,
    SCHEMA_VERSION,
    create,
    identity_of,
    open_results,
    put,
    run_of,
    write_catalog,
    write_provenance,
)
from jaxsed.catalog.results.folder import (
    HEADER,
    LOCK,
    NAMES,
    RUN_SCHEMA,
    check_free,
    check_output,
    in_use,
    parts_folder,
    read_header,
)
from jaxsed.catalog.results.parts import Contents, Tree, finite, nothing, read_part, write_part
from jaxsed.catalog.tables import Observations
from jaxsed.core.errors import JaxsedError
from jaxsed.io import files
from jaxsed.io.locks import Held, Lock, describe

PART_SECONDS = 60.0
"""Time after which finished galaxies are written to disk: no more than this is lost at a kill."""

PART_BYTES = 2**28
"""Size at which they are written earlier, to spare memory."""

_BLOCK = 1024  # rows that are joined at a time


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
        self._contents: dict[Path, Contents] = {}
        self._waiting: list[tuple[NDArray[np.int64], Tree]] = []
        self._written = time.monotonic()
        self._seconds = self._compiling = 0.0
        check_output(output, resume=resume, overwrite=overwrite)
        self._lock = self._locked()
        try:
            check_free(output, resume=resume, overwrite=overwrite)
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
                lock = Lock(self.parts / LOCK)
            except FileNotFoundError:  # removed by a run that ended just now
                if not self.parts.parent.is_dir():
                    raise
            except Held as held:
                raise JaxsedError(in_use(self.output, held.owner)) from None
            except OSError as error:
                raise JaxsedError(f"cannot write in {str(self.parts)!r}: {error}.") from error
            else:
                break
        if lock.left is not None:
            self.report(f"{self.output} was left by {describe(lock.left)}: taken over.")
        return lock

    def _resume(self) -> None:
        header = read_header(self.parts)
        finished = run_of(self.output)
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
                self.identity = identity_of(file)
            self.finished = True
        elif any(self.parts.glob("*_*.h5")):
            self.report(f"{self.parts} has no {HEADER}: what is in it is left out.")

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
                contents, tree = read_part(path, self.run)
                rows = contents.rows
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
            contents = Contents(rows[order], self._seconds, self._compiling)
            path = self.parts / f"part_{rows.min():09d}_{secrets.token_hex(4)}.h5"
            with self._writing():
                self._begin()
                write_part(path, self.run, contents, joined)
            self._contents[path] = contents
            self._waiting = []
            self._seconds = self._compiling = 0.0
        self._written = time.monotonic()

    def _begin(self) -> None:
        """The folder's header, if it is not there yet; that it is ours, if it is."""
        if not self._resumed:
            self._clear()
            header = {
                "schema": RUN_SCHEMA,
                "run": self.run,
                "since": datetime.now(UTC).isoformat(timespec="seconds"),
                "replaces": self._replaces,
                "identity": self.identity,
            }
            text = json.dumps(header, indent=1, sort_keys=True)
            files.write_text(self.parts / HEADER, text)
            self._resumed = True
        found = read_header(self.parts)
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
                write_catalog(file.create_group("catalog"), observations, waves)
                write_provenance(file.create_group("provenance"), {**provenance, "run": self.run})
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
            write_catalog(file.create_group("catalog"), observations, waves)
            # what every row has, fitted or not
            flag, bands = observations.flag.copy(), np.asarray(observations.n_bands, np.int64)
            for rows, tree in self._blocks(where):
                done = where[0][rows] >= 0
                flag[rows] = np.where(done, tree.pop("diagnostics/flag"), flag[rows])
                flag[rows] |= np.where(done & ~finite(tree), int(Flag.NUMERICAL_FAILURE), 0)
                found = tree.pop("diagnostics/n_bands", None)
                bands[rows] = bands[rows] if found is None else np.where(done, found, bands[rows])
                for name, values in tree.items():
                    if name not in file:
                        create(file, name, n, values)
                    put(file[name], rows, values)
            file["diagnostics/flag"], file["diagnostics/n_bands"] = flag, bands
            group = file.create_group("provenance")
            group.attrs["identity"] = json.dumps(self.identity, sort_keys=True)
            write_provenance(group, {**provenance, "run": self.run})
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
                        tree[name] = nothing(len(part), values)
                    tree[name][here] = values[place[here]]
                if last[number] < rows.stop:
                    del opened[number]
            if tree:
                yield rows, tree

    def _again(self, path: Path) -> Tree:
        """The datasets of a part that was found to be good before."""
        try:
            return read_part(path, self.run)[1]
        except (ValueError, OSError) as error:
            raise JaxsedError(
                f"{str(path)!r} cannot be read any more ({error}). The same command with --resume "
                "fits its galaxies again."
            ) from error

    def _clear(self) -> None:
        """Remove what runs have left in the folder, the header last: a killed removal is seen."""
        ours = [p for p in self.parts.iterdir() if NAMES.fullmatch(p.name) and p.name != LOCK]
        self._remove(sorted(ours, key=lambda path: path.name == HEADER))

    @staticmethod
    def _remove(paths: Sequence[Path]) -> None:
        for path in paths:
            path.unlink(missing_ok=True)


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text[:10] + "..." if len(text) > 40 else text
