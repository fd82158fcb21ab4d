"""A catalogue file to arrays: columns, sentinels, units, and what was left out and why.

A problem with the table (a missing column, a wrong unit) is a `JaxsedError`.  A problem with a
row is a flag on that row, and the row stays.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxsed.bands.filters import Filter
from jaxsed.catalog.config.sections import MAX_REDSHIFT, CatalogConfig
from jaxsed.catalog.flags import Flag
from jaxsed.catalog.units import check_declared, check_values, flux_unit, to_maggies
from jaxsed.core.errors import JaxsedError, nearest, user_errors
from jaxsed.io.tables import check_table

if TYPE_CHECKING:
    from astropy.table import Table

MISSING, DETECTION, UPPER_LIMIT = 0, 1, 2

FORMATS = {
    ".fits": "fits", ".fit": "fits", ".ecsv": "ascii.ecsv", ".csv": "ascii.csv",
    ".vot": "votable", ".votable": "votable", ".xml": "votable", ".parquet": "parquet",
    ".h5": "hdf5", ".hdf5": "hdf5",
}  # fmt: skip
_BLANK = {"", "-", "--", "nan", "null", "none", "n/a", "masked"}
# A flux this many sigma below zero is no measurement of a galaxy.
_NEGATIVE_SIGMA = 10.0
# Numbers that catalogues write for "not observed"; as fluxes, only where the error is one too.
_SENTINELS = (99.0, 99.9, 99.99, 999.0, 999.9, 9999.0, 99999.0)
_HUGE = 1e30  # 9.9e99 and the like


@dataclass(frozen=True)
class Column:
    """Where the fluxes of a band stand in a table, and the curve of the band."""

    name: str
    flux: str
    error: str
    unit: str
    filter: Filter


@dataclass(frozen=True)
class Reader:
    """How a catalogue is read."""

    options: CatalogConfig
    columns: tuple[Column, ...]
    negative_error_is_limit: bool
    """Whether a negative error marks an upper limit."""

    @property
    def band_names(self) -> tuple[str, ...]:
        """Of the columns."""
        return tuple(column.name for column in self.columns)


class Observations(NamedTuple):
    """A catalogue, ready to fit.  N rows, B bands; fluxes in maggies, float64 NumPy arrays."""

    id: NDArray[np.str_]  # [N]
    redshift: NDArray[np.float64]  # [N], NaN where free
    flux: NDArray[np.float64]  # [N, B], 0 where missing; of an upper limit, the limit
    error: NDArray[np.float64]  # [N, B], 1 sigma, 1 where missing
    kind: NDArray[np.int8]  # [N, B], 0 missing, 1 detection, 2 upper limit
    flag: NDArray[np.int64]  # [N]
    band_names: tuple[str, ...]  # [B]
    id_name: str  # the id column's name in the input
    id_values: NDArray[Any]  # [N], as in the input
    occurrence: NDArray[np.int64]  # [N], 0 for the first row with its id, 1 for the second, ...
    notes: tuple[str, ...]  # what was left out and why, to be told once

    @property
    def n_bands(self) -> NDArray[np.int64]:
        """Usable bands per row [N]."""
        return np.count_nonzero(self.kind, axis=1)

    def rows(self, index: Any) -> Observations:
        """The chosen rows (a slice, mask or index array)."""
        per_row = ("id", "redshift", "flux", "error", "kind", "flag", "id_values", "occurrence")
        return self._replace(**{name: getattr(self, name)[index] for name in per_row})


def read_table(path: str | Path, *, format: str | None = None, table: str | None = None) -> Table:
    """Read FITS, ECSV, CSV, VOTable, parquet, HDF5 or whitespace-separated text.

    The suffix decides; any other suffix is text with a header line, with or without ``#``, or
    without one if the first line is all numbers (columns are then ``col1``, ``col2``, ...).
    Raises JaxsedError where the file is not there, not readable, cut short or empty.
    """
    from astropy.table import Table
    from astropy.utils.exceptions import AstropyUserWarning

    path = Path(path)
    if not path.exists():
        raise JaxsedError(f"no catalogue {str(path)!r} (working folder: {Path.cwd()}).")
    if path.is_dir():
        raise JaxsedError(f"the catalogue {str(path)!r} is a folder, not a file.")
    with user_errors():
        check_table(path)
    suffixes = [s for s in path.suffixes if s != ".gz"]
    kind = format or FORMATS.get(suffixes[-1].lower() if suffixes else "", "")
    options: dict[str, Any] = {}
    if table is not None:
        options = {"path": table} if kind == "hdf5" else {"hdu": table} if kind == "fits" else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", ".*truncated.*", AstropyUserWarning)
            warnings.filterwarnings("error", ".*multiple tables.*", AstropyUserWarning)
            if not kind:
                kind, options = _text_format(path)
            result = Table.read(path, format=kind, **options)
    except PermissionError:
        raise JaxsedError(f"no permission to read the catalogue {str(path)!r}.") from None
    # astropy's readers raise nearly anything on a broken file, pyarrow and h5py their own kinds
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise JaxsedError(
            f"cannot read the catalogue {str(path)!r} as {kind or 'text'}: "
            f"{(reason[0] if reason else type(error).__name__).rstrip('.')}. Is the file complete? "
            'Where the suffix misleads, set format = "..." in [catalog] to astropy\'s name of the '
            'format; where a file has several tables, set table = "...".'
        ) from None
    if len(result) == 0:
        raise JaxsedError(f"the catalogue {str(path)!r} has no rows.")
    return result


def _text_format(path: Path) -> tuple[str, dict[str, Any]]:
    """The astropy format and options of a plain text table, from its first lines."""
    import gzip

    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        lines = [line.strip() for _, line in zip(range(200), file, strict=False)]
    lines = [line for line in lines if line]
    if not lines:
        raise ValueError("the file is empty")
    content = [line for line in lines if not line.startswith("#")]
    if not content:
        raise ValueError("the file has comments and no rows")
    if _all_numbers(content[0]):
        # The last comment with as many words as there are columns names them.
        comments = [line.lstrip("# ") for line in lines[: lines.index(content[0])]]
        width = len(content[0].split())
        names = [i for i, line in enumerate(comments) if len(line.split()) == width]
        if names:
            return "ascii.commented_header", {"header_start": names[-1]}
        return "ascii.no_header", {}
    return ("ascii.csv" if "," in content[0] else "ascii.basic"), {}


def _all_numbers(line: str) -> bool:
    try:
        [float(word) for word in line.split()]
    except ValueError:
        return False
    return True


def _is_sentinel(value: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether each [N] is +- one of the usual sentinels, to the precision of a float32 column."""
    return np.any(np.isclose(np.abs(value)[:, None], _SENTINELS, rtol=1e-6, atol=0), axis=1)


def _column(table: Table, name: str, key: str) -> Any:
    if name not in table.colnames:
        shown = ", ".join(table.colnames[:40]) + (", ..." if len(table.colnames) > 40 else "")
        raise JaxsedError(
            f"{key}: the catalogue has no column {name!r}.{nearest(name, table.colnames, 2)} "
            f"Columns: {shown}."
        )
    return table[name]


def numbers(column: Any, name: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """A column as float64 [N] (masked and blank entries NaN), and where it was not a number [N].

    Raises JaxsedError for a column of several numbers per row, or one that is mostly words.
    """
    values = np.ma.asarray(column)
    if values.ndim != 1:
        raise JaxsedError(
            f"column {name!r} has {values.shape[1:]} numbers in each row; one per row is expected."
        )
    mask = np.ma.getmaskarray(values)
    raw = values.data
    wrong = np.zeros(len(raw), bool)
    if raw.dtype.kind in "iuf":
        result = raw.astype(np.float64)
    elif raw.dtype.kind in "USO":
        result = np.full(len(raw), np.nan)
        for i, entry in enumerate(raw):
            text = entry.decode(errors="replace") if isinstance(entry, bytes) else str(entry)
            word = text.strip()
            try:
                result[i] = float(word)
            except ValueError:
                wrong[i] = word.lower() not in _BLANK
        wrong &= ~mask
        if wrong.mean() > 0.5:
            first = int(np.argmax(wrong))
            raise JaxsedError(
                f"column {name!r} is not numeric: row {first + 1} has {str(raw[first])!r}."
            )
    else:
        raise JaxsedError(f"column {name!r} is of type {raw.dtype}; numbers are expected.")
    result[mask] = np.nan
    return result, wrong


def _ids(table: Table, name: str | None) -> tuple[str, NDArray[Any], NDArray[np.str_], list[str]]:
    """Name and values of the id column, and the same as text with blanks filled in."""
    if name is None:
        values = np.arange(1, len(table) + 1)
        return "id", values, values.astype(str), []
    column = np.ma.asarray(_column(table, name, "[catalog] id"))
    if column.ndim != 1:
        raise JaxsedError(f"the id column {name!r} has several values in each row.")
    blank = np.ma.getmaskarray(column)
    values = column.data
    if values.dtype.kind in "SO":
        values = np.array([v.decode() if isinstance(v, bytes) else str(v) for v in values])
    text = np.char.strip(values.astype(str)).astype("U")
    blank = blank | (text == "")
    notes = []
    if blank.any():
        text = np.where(blank, [f"row {i + 1}" for i in range(len(text))], text)
        notes.append(f"{blank.sum()} rows have no id: named by their row number.")
        values = text
    return name, values, text, notes


def _occurrences(ids: NDArray[np.str_]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """How many rows before each have its id [N], and whether its id is on several rows [N]."""
    counts: dict[str, int] = {}
    occurrence = np.zeros(len(ids), np.int64)
    for i, name in enumerate(ids):
        occurrence[i] = counts.get(name, 0)
        counts[name] = int(occurrence[i]) + 1
    return occurrence, np.array([counts[name] > 1 for name in ids])


def _redshifts(
    table: Table, setting: str | float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Redshift [N] (NaN where free) and whether it is unusable [N]."""
    n = len(table)
    if setting == "free":
        return np.full(n, np.nan), np.zeros(n, bool)
    if isinstance(setting, float):
        return np.full(n, setting), np.zeros(n, bool)
    values, _ = numbers(_column(table, setting, "[catalog] redshift"), setting)
    with np.errstate(invalid="ignore"):
        return values, ~((values > 0) & (values <= MAX_REDSHIFT))


class _Band(NamedTuple):
    flux: NDArray[np.float64]  # [N]
    error: NDArray[np.float64]  # [N]
    kind: NDArray[np.int8]  # [N]
    bad: NDArray[np.bool_]  # [N], unusable though not declared missing
    reasons: dict[str, int]  # why values are missing: how many


def _read_band(table: Table, band: Column, reader: Reader) -> _Band:
    """One band of every row, in maggies."""
    catalog, unit = reader.options, band.unit
    known = flux_unit(unit)
    pivot = band.filter.pivot if known.per_wavelength else math.nan
    place = f"[[band]] {band.name}"
    for name in (band.flux, band.error):
        check_declared(_column(table, name, place), unit, name)
    value, wrong = numbers(table[band.flux], band.flux)
    error, wrong_error = numbers(table[band.error], band.error)

    usable = np.ones(len(value), bool)
    bad = np.zeros(len(value), bool)
    reasons: dict[str, int] = {}

    def leave_out(where: NDArray[np.bool_], reason: str, *, fault: bool = False) -> None:
        where = where & usable
        if where.any():
            reasons[reason] = reasons.get(reason, 0) + int(where.sum())
            usable[where] = False
            if fault:
                bad[where] = True

    with np.errstate(invalid="ignore"):
        leave_out(wrong | wrong_error, "not a number in the file", fault=True)
        leave_out(np.isnan(value), "NaN or blank")
        if catalog.missing_flux_above is not None:
            limit = catalog.missing_flux_above
            leave_out(value > limit, f"flux above {limit:g} (missing_flux_above)")
        if catalog.missing_flux_below is not None:
            limit = catalog.missing_flux_below
            leave_out(value < limit, f"flux below {limit:g} (missing_flux_below)")
        if catalog.missing_error_below is not None:
            limit = catalog.missing_error_below
            # An error of exactly zero is a fault even where negative ones are sentinels.
            leave_out(
                (error <= limit) & (error != 0), f"error below {limit:g} (missing_error_below)"
            )
        sentinel = _is_sentinel(value) & (~(error > 0) | _is_sentinel(error))
        if known.magnitudes:
            sentinel |= np.isfinite(value) & (np.abs(value) >= 90)
        sentinel |= np.isfinite(value) & (np.abs(value) >= _HUGE)
        leave_out(sentinel, "recognised sentinel (not declared)")
        leave_out(~np.isfinite(value), "infinite flux", fault=True)
        leave_out(~np.isfinite(error), "NaN or infinite error", fault=True)
        leave_out(error == 0, "zero error", fault=True)
        limits = np.zeros(len(value), bool)
        if reader.negative_error_is_limit:
            limits = usable & (error < 0)
            if not known.magnitudes:
                leave_out(limits & (value <= 0), "upper limit that is not positive", fault=True)
        else:
            leave_out(error < 0, "negative error", fault=True)
        error = np.abs(error)
        if not known.magnitudes:
            leave_out(value < -_NEGATIVE_SIGMA * error, "flux 10 sigma below zero", fault=True)
    if catalog.check_units:
        check_values(value[usable], error[usable], unit, place, pivot)
    flux, sigma = to_maggies(
        np.where(usable, value, 0.0), np.where(usable, error, 1.0), unit, pivot
    )
    kind = np.where(usable, np.where(limits, UPPER_LIMIT, DETECTION), MISSING).astype(np.int8)
    return _Band(np.where(usable, flux, 0.0), np.where(usable, sigma, 1.0), kind, bad, reasons)


def _notes(n_rows: int, names: tuple[str, ...], bands: list[_Band], flag: NDArray) -> list[str]:
    """What was left out and why, a line per kind."""
    kind = np.stack([band.kind for band in bands], axis=1)
    used = f"{np.count_nonzero(kind)} of {kind.size} fluxes used"
    lines = [f"{n_rows} rows, {len(names)} bands, {used}."]
    total: dict[str, int] = {}
    for band in bands:
        for reason, count in band.reasons.items():
            total[reason] = total.get(reason, 0) + count
    lines += [f"{count} fluxes left out: {reason}." for reason, count in total.items()]
    if (kind == UPPER_LIMIT).any():
        lines.append(f"{np.count_nonzero(kind == UPPER_LIMIT)} fluxes are upper limits.")
    empty = [name for name, any_row in zip(names, np.any(kind, axis=0), strict=True) if not any_row]
    if empty:
        lines.append(f"No row has a usable flux in: {', '.join(empty)}.")
    for bit, words in (
        (Flag.BAD_REDSHIFT, f"have no redshift in (0, {MAX_REDSHIFT:g}] and are not fitted"),
        (Flag.NO_BANDS, "have no usable flux and are not fitted"),
        (Flag.FEW_BANDS, "have fewer than 3 bands"),
        (Flag.DUPLICATE_ID, "share their id with another row"),
    ):
        rows = int(np.count_nonzero(flag & bit))
        if rows:
            lines.append(f"{rows} rows {words}.")
    return lines


def read_catalog(path: str | Path, reader: Reader) -> Observations:
    """Read a catalogue.

    Raises JaxsedError for a problem with the file, a column or a unit; a problem with one row is
    a bit in that row's flag (see `jaxsed.catalog.flags.Flag`).
    """
    options = reader.options
    table = read_table(path, format=options.format, table=options.table)
    id_name, id_values, ids, notes = _ids(table, options.id)
    occurrence, duplicate = _occurrences(ids)
    redshift, bad_redshift = _redshifts(table, options.redshift)
    bands = [_read_band(table, band, reader) for band in reader.columns]
    kind = np.stack([band.kind for band in bands], axis=1)
    detections = np.count_nonzero(kind == DETECTION, axis=1)
    used = np.count_nonzero(kind, axis=1)

    flag = np.where(bad_redshift, Flag.BAD_REDSHIFT, 0).astype(np.int64)
    flag |= np.where(detections == 0, Flag.NO_BANDS, 0)
    flag |= np.where((used < 3) & (detections > 0), Flag.FEW_BANDS, 0)
    flag |= np.where(np.any([band.bad for band in bands], axis=0), Flag.BAD_PHOTOMETRY, 0)
    flag |= np.where(duplicate, Flag.DUPLICATE_ID, 0)
    return Observations(
        id=ids,
        redshift=redshift,
        flux=np.stack([band.flux for band in bands], axis=1),
        error=np.stack([band.error for band in bands], axis=1),
        kind=kind,
        flag=flag,
        band_names=reader.band_names,
        id_name=id_name,
        id_values=id_values,
        occurrence=occurrence,
        notes=tuple(_notes(len(table), reader.band_names, bands, flag) + notes),
    )
