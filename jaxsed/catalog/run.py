"""Fit a catalogue: read it, hand it to the engine chunk by chunk, keep what comes back."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import jaxsed
from jaxsed.catalog.chunk import ChunkResult, Engine, datasets
from jaxsed.catalog.config import Config, load_config
from jaxsed.catalog.flags import NOT_FITTED
from jaxsed.catalog.plan import Plan, resolve
from jaxsed.catalog.results import Results, load_results
from jaxsed.catalog.results.folder import check_output
from jaxsed.catalog.results.writer import ResultWriter
from jaxsed.catalog.tables import Observations, read_catalog
from jaxsed.core.errors import JaxsedError, user_errors
from jaxsed.io.outputs import check_table_holds, check_table_path

if TYPE_CHECKING:
    from jaxsed.bands.filters import Filter


COMPILING = (
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
)
"""What JAX calls its compilation; tracing is nested and would count twice."""


def seeds_of(
    seed: int, ids: Sequence[str], occurrence: Sequence[int] | NDArray[Any]
) -> NDArray[np.uint32]:
    """Two words [n, 2] of a random key per galaxy, from the run's seed and the galaxy's id alone.

    Neither the order of the rows nor the batch enters; of rows with the same id, `occurrence` [n]
    (0, 1, ...) tells which is meant.
    """
    words = np.empty((len(ids), 2), np.uint32)
    for i, (name, count) in enumerate(zip(ids, occurrence, strict=True)):
        digest = hashlib.sha256(f"{seed}\n{name}\n{int(count)}".encode()).digest()
        words[i] = np.frombuffer(digest[:8], "<u4")
    return words


def _effective_wave(curve: Filter) -> float:
    """Mean wavelength of a curve in Angstrom, weighted with its transmission."""
    wave, trans = np.asarray(curve.wave, float), np.asarray(curve.trans, float)
    return float(np.trapezoid(wave * trans, wave) / np.trapezoid(trans, wave))


def _checksum(**arrays: Any) -> str:
    """SHA-256 of named arrays, with their shapes and types."""
    digest = hashlib.sha256()
    for name, values in arrays.items():
        array = np.ascontiguousarray(values)
        if array.dtype.kind == "U":  # the width of a text column is no part of the content
            content, kind = json.dumps(array.tolist()).encode(), "text"
        else:
            content, kind = array.tobytes(), array.dtype.str
        digest.update(f"|{name} {kind} {array.shape} ".encode() + content)
    return digest.hexdigest()


def _catalog_checksum(observations: Observations) -> str:
    """Of all that decides what is fitted; names of columns are in the configuration."""
    names = ("id", "redshift", "flux", "error", "kind", "flag")
    return _checksum(**{name: getattr(observations, name) for name in names})


def _filter_checksum(filters: Sequence[Filter]) -> str:
    return _checksum(
        **{f"{k} {a}": getattr(f, a) for k, f in enumerate(filters) for a in ("wave", "trans")}
    )


def _engine_identity(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What of an engine's provenance makes it another engine: the predictor and its checksums."""
    return {k: v for k, v in provenance.items() if k == "predictor" or k.endswith("checksum")}


def fit_catalog(
    config: Config | str | Path,
    catalog: str | Path,
    output: str | Path,
    table: str | Path | None = None,
    *,
    seed: int = 0,
    engine: Engine | None = None,
    resume: bool = False,
    overwrite: bool = False,
    train: bool = False,
    progress: bool = True,
) -> Results:
    """Fit every row of a catalogue and write posteriors to an HDF5 file.

    config: a `Config`, or the path of one in TOML.
    catalog: the table; see `jaxsed.catalog.tables.read_table` for the formats.
    output: the HDF5 file; `table` the summary table (.ecsv, .fits or .csv) beside it.
    seed: with a galaxy's id, decides its random numbers.
    engine: what fits a chunk; by default the one that `config` describes.
    resume: continue a killed run, which must be the same in catalogue, configuration and seed.
    overwrite: replace an output that exists.
    train: where no emulator covers the bands, train one first.
    progress: tell what is done, on standard error.

    Raises JaxsedError, before any sampling, for a problem with the configuration, the table or
    an output.  A problem with one row is a flag on that row.
    """
    output, catalog = Path(output), Path(catalog)
    check_output(output, resume=resume, overwrite=overwrite)
    if output.exists() and catalog.exists() and output.samefile(catalog):
        raise JaxsedError(f"the output {str(output)!r} is the catalogue itself.")
    if table is not None:
        table = Path(table)
        check_table_path(table)
        if table.exists() and not (resume or overwrite):
            raise JaxsedError(f"the table {str(table)!r} exists: --overwrite replaces it.")
        if catalog.exists() and table.exists() and table.samefile(catalog):
            raise JaxsedError(f"the table {str(table)!r} is the catalogue itself.")
    say = _speaker(progress)
    with ResultWriter(output, resume=resume, overwrite=overwrite, report=say) as writer:
        plan = resolve(config if isinstance(config, Config) else load_config(config))
        observations = read_catalog(catalog, plan.reader)
        for note in observations.notes:
            say(note)
        if table is not None:
            check_table_holds(table, observations.id_name, observations.id_values)
        writer.agree(
            {
                "jaxsed version": jaxsed.__version__,
                "configuration": plan.checksum,
                "catalogue": _catalog_checksum(observations),
                "filters": _filter_checksum(plan.filters),
                "seed": seed,
            }
        )
        if writer.finished:
            say(f"{output} is complete.")
        else:
            _fit(
                engine, observations, plan, writer,
                catalog=catalog, seed=seed, train=train, progress=progress, say=say,
            )  # fmt: skip
        results = load_results(output)
        if table is not None:
            try:
                results.write_table(table)
            except OSError as error:
                raise JaxsedError(
                    f"cannot write {str(table)!r}: {error.strerror or error}. The results are "
                    f"complete in {str(output)!r}: when this is mended, the same command with "
                    "--resume writes the table."
                ) from error
    return results


def _fit(
    engine: Engine | None,
    observations: Observations,
    plan: Plan,
    writer: ResultWriter,
    *,
    catalog: Path,
    seed: int,
    train: bool,
    progress: bool,
    say: Callable[[str], None],
) -> None:
    """Fit what has no result yet, and join all of it to the output file."""
    fitted = (observations.flag & int(NOT_FITTED)) == 0
    if engine is None:
        with user_errors():  # the builders' own messages are for the user
            engine = _default_engine(plan, train=train, report=say)
            if fitted.any() and hasattr(engine, "prepare"):
                engine.prepare(observations.redshift[fitted])
    provenance = dict(getattr(engine, "provenance", {}))
    writer.agree(_engine_identity(provenance), complete=True)
    waves = [_effective_wave(f) for f in plan.filters]
    described = {
        "jaxsed_version": jaxsed.__version__,
        "config": plan.text,
        "catalog_path": str(catalog.resolve()),
        "seed": seed,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **_environment(),
        **writer.identity,
        **provenance,
    }
    writer.rehearse(observations, described, waves=waves)
    kept = writer.kept(fitted)
    _fit_chunks(engine, observations, plan, writer, kept, seed=seed, progress=progress)
    notes = (*observations.notes, *getattr(engine, "notes", ()))
    writer.finish(observations._replace(notes=notes), described, waves=waves)


def _default_engine(plan: Plan, *, train: bool, report: Callable[[str], None]) -> Engine:
    from jaxsed.catalog import engine

    return engine.Engine(plan, train=train, report=report)


def _environment() -> dict[str, str]:
    from importlib.metadata import version

    names = ("jax", "numpyro", "blackjax", "numpy", "astropy", "h5py")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{f"{name}_version": version(name) for name in names},
    }


def _fit_chunks(
    engine: Engine,
    observations: Observations,
    plan: Plan,
    writer: ResultWriter,
    kept: NDArray[np.bool_],
    *,
    seed: int,
    progress: bool,
) -> None:
    """Fit the rows that can be fitted, a chunk at a time, but those that are `kept` [row]."""
    fitted = (observations.flag & int(NOT_FITTED)) == 0
    rows = np.flatnonzero(fitted & ~kept)
    size = plan.sampling.chunk
    chunks = [rows[start : start + size] for start in range(0, len(rows), size)]
    with _progress(int(fitted.sum()), progress) as advance, _compile_time() as compiling:
        if kept.any():
            advance(int(kept.sum()), 0.0)
        for chunk in chunks:
            try:
                _fit_chunk(engine, observations, plan, writer, chunk, seed, advance, compiling)
            except BaseException as error:
                error.add_note(
                    f"While fitting rows {chunk[0]} to {chunk[-1]}. Finished galaxies are kept in "
                    f"{str(writer.parts)!r}: --resume continues from them."
                )
                with suppress(JaxsedError):  # the first error is the one to tell
                    writer.flush()
                raise
        writer.flush()


def _fit_chunk(
    engine: Engine,
    observations: Observations,
    plan: Plan,
    writer: ResultWriter,
    chunk: NDArray[np.int64],
    seed: int,
    advance: Callable[[int, float], None],
    compiling: list[float],
) -> None:
    """Fit some rows; those that are finished early are handed over while the others are fitted."""
    part = observations.rows(chunk)
    ids = [str(name) for name in part.id]
    left = np.ones(len(chunk), bool)
    clock = time.perf_counter()

    def add(places: NDArray[Any], result: ChunkResult) -> None:
        nonlocal clock
        now = time.perf_counter()
        tree = datasets(result, part.flag[places], plan.draws)
        writer.add(chunk[places], tree, seconds=now - clock, compiling=sum(compiling))
        left[places] = False
        advance(len(places), now - clock)
        compiling.clear()
        clock = now

    def keep(finished: NDArray[Any], result: Callable[[NDArray[Any]], ChunkResult]) -> None:
        new = finished[left[finished]]
        if len(new) and writer.due():
            add(new, result(new))

    options = {"keep": keep} if getattr(engine, "in_parts", False) else {}
    result = engine(ids, part, seeds_of(seed, ids, part.occurrence), **options)
    if left.any():
        add(np.flatnonzero(left), result if left.all() else result.rows(left))


@contextmanager
def _compile_time() -> Iterator[list[float]]:
    """Collects the seconds of every compilation while it is open."""
    from jax import monitoring

    seconds: list[float] = []

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event in COMPILING:
            seconds.append(duration_secs)

    monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seconds
    finally:
        monitoring.unregister_event_duration_listener(listen)


# ------------------------------------------------------------------ telling the user


def _speaker(progress: bool) -> Callable[[str], None]:
    if not progress:
        return lambda line: None
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    return lambda line: console.print(line, markup=False, soft_wrap=True)


def rate_and_rest(
    done: Sequence[tuple[int, float]], remaining: int
) -> tuple[float | None, float | None]:
    """Galaxies per second and seconds left, from (galaxies, seconds) of the parts so far.

    The first part holds the compilation, so it counts only while it is the only one.
    """
    timed = [(n, s) for n, s in done if s > 0]
    timed = timed[1:] or timed
    seconds = sum(s for _, s in timed)
    if seconds == 0:
        return None, None
    rate = sum(n for n, _ in timed) / seconds
    return rate, remaining / rate


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@contextmanager
def _progress(total: int, shown: bool) -> Iterator[Callable[[int, float], None]]:
    """A bar on a terminal, a line per chunk elsewhere; yields advance(galaxies, seconds)."""
    done: list[tuple[int, float]] = []

    def words() -> str:
        count = sum(n for n, _ in done)
        rate, rest = rate_and_rest(done, total - count)
        if rate is None or rest is None:
            return f"{count}/{total} galaxies"
        return f"{count}/{total} galaxies, {rate:.3g} galaxies/s, {_clock(rest)} left"

    if not shown or total == 0:
        yield lambda n, seconds: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:

        def tell(n: int, seconds: float) -> None:
            done.append((n, seconds))
            console.print(words(), markup=False, soft_wrap=True)

        yield tell
        return
    columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(f"0/{total} galaxies, compiling", total=total)

        def advance(n: int, seconds: float) -> None:
            done.append((n, seconds))
            bar.update(task, advance=n, description=words())

        yield advance
