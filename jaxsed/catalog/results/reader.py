"""Reading what a catalogue fit wrote: draws, summaries, flags, provenance, the table."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jaxsed.catalog import flags
from jaxsed.catalog.results.file import open_results
from jaxsed.core.diagnostics import NEVER, WHERE_FOUND, Diagnostics, Goodness, described
from jaxsed.core.errors import JaxsedError, nearest
from jaxsed.core.types import Row
from jaxsed.io import hdf5
from jaxsed.io.outputs import check_table_path, save_table

if TYPE_CHECKING:
    from astropy.table import QTable

Array = NDArray[Any]

# The quantities every table has, in order; what a model adds comes after.
QUANTITIES = (
    "log_mass_surviving",
    "log_mass_formed",
    "log_sfr_100myr",
    "log_sfr_1gyr",
    "log_z_mw",
    "t_age_mw",
    "a_v",
)
DESCRIPTIONS = {
    "log_mass_surviving": "log10 of the mass in living stars and remnants / Msun",
    "log_mass_formed": "log10 of the mass ever formed / Msun",
    "log_sfr_10myr": "log10 of the star formation rate, mean of 10 Myr / (Msun/yr)",
    "log_sfr_100myr": "log10 of the star formation rate, mean of 100 Myr / (Msun/yr)",
    "log_sfr_1gyr": "log10 of the star formation rate, mean of 1 Gyr / (Msun/yr)",
    "log_z_mw": "log10 of the mass-weighted metallicity / solar",
    "t_age_mw": "mass-weighted age",
    "a_v": "attenuation at 5500 Angstrom",
    "flag": "0 is good; bits of jaxsed.catalog.flags.Flag",
}
FIGURES = described(Goodness) | described(Diagnostics)
"""Of a galaxy's fit and how it was sampled, by name."""

UNITS = {"t_age_mw": "Gyr", "t50": "Gyr", "t90": "Gyr", "a_v": "mag"}


def _per_row(file: hdf5.Reader, group: str, n: int) -> dict[str, Array]:
    """The datasets of a group, whose first axis is the row; empty if there is no such group."""
    found = {}
    for name in file.names(group) if group in file else []:
        full = f"{group}/{name}"
        shape = file.shape(full) or ()
        found[name] = file.array(full, kinds=f"{hdf5.NUMBERS}S", shape=(n, *shape[1:]))
    return found


class Results:
    """A finished run.  Arrays are read when asked for; row order is that of the input table.

    Attributes
    ----------
    path: the file.
    ids: text [N].
    flags: int64 [N]; ``jaxsed.catalog.flags.text`` puts one in words.
    band_names: [B] names, and `band_wave`, their effective wavelengths [B] in Angstrom.
    redshift: [N], NaN where it was free.
    flux, error, kind: the observed fluxes [N, B] in maggies; kind 0 missing, 1 detection, 2 limit.
    notes: what was left out of the input and why.
    provenance: version, seed, configuration, checksums, times and more, by name.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with open_results(self.path) as file:
            self.ids: Array = file.texts("catalog/id")
            n = len(self.ids)
            self._id_name = file.text_attribute("id_name", "catalog")
            self._id_values = (
                file.texts("catalog/id_values", shape=(n,)).astype("U")
                if file.is_text("catalog/id_values")
                else file.array("catalog/id_values", shape=(n,))
            )
            names, notes = (file.attribute(name, "catalog", ()) for name in ("band_names", "notes"))
            self.band_names = tuple(str(name) for name in np.atleast_1d(names))
            self.notes = tuple(str(note) for note in np.atleast_1d(notes))
            bands = (len(self.band_names),)
            self.band_wave: Array = file.array("catalog/band_wave", shape=bands)
            self.redshift: Array = file.array("catalog/redshift", shape=(n,))
            self.flux, self.error, self.kind = (
                file.array(f"catalog/{name}", shape=(n, *bands))
                for name in ("flux", "error", "kind")
            )
            self.flags: Array = file.array("diagnostics/flag", kinds="iu", shape=(n,))
            self.provenance: dict[str, Any] = {
                name: file.attribute(name, "provenance")
                for name in file.attribute_names("provenance")
            }
            for name in file.names("provenance"):
                full = f"provenance/{name}"
                read = file.text if file.is_text(full) else file.array
                self.provenance[name] = read(full)
            self._summaries = _per_row(file, "summary", n)
            self._diagnostics = _per_row(file, "diagnostics", n)
            # files of older versions count upper limits among the bands of chi2
            self._diagnostics.setdefault("n_detected", self._diagnostics["n_bands"])

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        good = np.count_nonzero(self.flags == 0)
        return f"Results({str(self.path)!r}: {len(self)} rows, {good} without a flag)"

    @property
    def quantities(self) -> tuple[str, ...]:
        """Names of all parameters and derived quantities."""
        return tuple(self._summaries)

    def row(self, id: Row) -> int:
        """The row of an id.  Raises JaxsedError where there is none, or more than one."""
        rows = np.flatnonzero(self.ids == str(id))
        if len(rows) == 0:
            raise JaxsedError(
                f"no id {str(id)!r} in {str(self.path)!r}."
                f"{nearest(str(id), [str(i) for i in self.ids[:10000]])}"
            )
        if len(rows) > 1:
            raise JaxsedError(
                f"id {str(id)!r} is on rows {', '.join(map(str, rows))}: choose one with row=..."
            )
        return int(rows[0])

    def summary(self, name: str) -> Array:
        """16th, 50th and 84th percentile of a quantity: [N, 3], or [N, 3, k] for a vector."""
        if name not in self._summaries:
            raise JaxsedError(
                f"no quantity {name!r}.{nearest(name, self.quantities)} "
                f"There are: {', '.join(self.quantities)}."
            )
        return self._summaries[name]

    def diagnostic(self, name: str) -> Array:
        """rhat_max, ess_bulk_min, ess_tail_min, divergences, unique_fraction, chi2, ... : [N]."""
        if name not in self._diagnostics:
            raise JaxsedError(f"no diagnostic {name!r}; there are: {', '.join(self._diagnostics)}.")
        return self._diagnostics[name]

    def _read_row(self, group: str, row: int) -> dict[str, Array]:
        if int(self.flags[row]) & flags.NOT_FITTED:
            raise JaxsedError(f"row {row} (id {self.ids[row]!r}): {flags.text(self.flags[row])}.")
        with open_results(self.path) as file:
            names = file.names(group) if group in file else []
            return {name: file.row(f"{group}/{name}", row) for name in names}

    def draws(self, id: Row = None, *, row: int | None = None) -> dict[str, Array]:
        """Stored draws of one galaxy: name -> [chain, draw], or [chain, draw, k] for a vector.

        Parameters come first, then derived quantities.  Give the id, or the row (from 0).
        """
        row = self.row(id) if row is None else row
        return self._read_row("draws/theta", row) | self._read_row("draws/derived", row)

    def log_density(self, id: Row = None, *, row: int | None = None) -> Array:
        """Log density of the stored draws of one galaxy [chain, draw]."""
        row = self.row(id) if row is None else row
        with open_results(self.path) as file:
            return file.row("draws/log_density", row)

    def per_galaxy(self, id: Row = None, *, row: int | None = None) -> dict[str, Array]:
        """What has one value per galaxy, not per draw, such as the time axis of a history."""
        return self._read_row("per_galaxy", self.row(id) if row is None else row)

    @property
    def predicted_flux(self) -> Array:
        """Posterior prediction [N, 3, B] in maggies: 16th, 50th, 84th percentile."""
        with open_results(self.path) as file:
            if "predicted_flux" not in file:
                return np.full((len(self), 3, len(self.band_names)), np.nan, np.float32)
            return file.array("predicted_flux", shape=(len(self), 3, len(self.band_names)))

    def to_arviz(self, id: Row = None, *, row: int | None = None) -> Any:
        """One galaxy as arviz InferenceData (a DataTree from arviz 1.0 on)."""
        import arviz

        row = self.row(id) if row is None else row
        observed = {"flux": self.flux[row], "error": self.error[row], "kind": self.kind[row]}
        groups: dict[str, Any] = {
            "posterior": self.draws(row=row),
            "sample_stats": {"lp": self.log_density(row=row)},
            "observed_data": observed,
        }
        if int(arviz.__version__.split(".")[0]) >= 1:
            return arviz.from_dict(groups)
        return arviz.from_dict(**groups)

    @cached_property
    def table(self) -> QTable:
        """A row per input row: id, redshift, percentiles, diagnostics, flag and its text."""
        from astropy.table import QTable

        table = QTable()
        table[self._id_name] = self._id_values
        redshift = self.redshift.copy()
        free = np.isnan(redshift) & ((self.flags & flags.Flag.BAD_REDSHIFT) == 0)
        if free.any() and "redshift" in self._summaries:
            redshift[free] = self._summaries["redshift"][free, 1]
        table["redshift"] = redshift
        for name in self._tabulated():
            values = self._summaries.get(name, np.full((len(self), 3), np.nan, np.float32))
            for k, suffix in enumerate(("p16", "p50", "p84")):
                self._add(table, f"{name}_{suffix}", values[:, k], name)
        for name, how in FIGURES.items():
            values = self._figure(name)
            if how.column == NEVER or (how.column == WHERE_FOUND and not _any_found(values)):
                continue
            self._add(table, name, values, name)
        self._add(table, "flag", self.flags, "flag")
        table["flag_text"] = [flags.text(flag) for flag in self.flags]
        return table

    def _figure(self, name: str) -> Array:
        """[N] of a diagnostic; nothing where the file has none."""
        blank: Any = "none" if name == "method" else ""
        if not FIGURES[name].dtype.startswith("S"):
            return self._diagnostics.get(name, np.full(len(self), np.nan, np.float32))
        texts = self._diagnostics.get(name, np.full(len(self), b""))
        return np.array([text.decode() or blank for text in texts], dtype=str)

    def _tabulated(self) -> list[str]:
        """The quantities every table has, then the model's further scalar derived ones."""
        with open_results(self.path) as file:
            derived = file.names("draws/derived") if "draws/derived" in file else []
        further = [name for name in derived if np.ndim(self._summaries.get(name, 0)) == 2]
        if "redshift" in self._summaries and np.isnan(self.redshift).all():
            further.append("redshift")
        return [*QUANTITIES, *(name for name in further if name not in QUANTITIES)]

    @staticmethod
    def _add(table: QTable, column: str, values: Array, name: str) -> None:
        import astropy.units as u

        table[column] = values * u.Unit(UNITS[name]) if name in UNITS else values
        known = FIGURES.get(name)
        table[column].info.description = known.text if known else DESCRIPTIONS.get(name)

    def write_table(self, path: str | Path) -> None:
        """Write `table` as ECSV, FITS or CSV, by the suffix; a file of that name is replaced."""
        from astropy.table import Table

        path = Path(path)
        check_table_path(path)
        plain = Table(self.table)  # units as plain column attributes, which every reader knows
        for name in plain.colnames:
            column = self.table[name]
            if getattr(column, "unit", None) is not None:
                plain[name] = np.asarray(column.value)
                plain[name].unit = column.unit
                plain[name].description = column.info.description
        save_table(plain, path)


def _any_found(values: Array) -> bool:
    return bool(np.any(values != "") if values.dtype.kind == "U" else np.isfinite(values).any())


def load_results(path: str | Path) -> Results:
    """Open the result file of a catalogue fit.

    Raises JaxsedError where it is not there, unfinished, damaged, foreign or from a newer version.
    """
    return Results(path)
