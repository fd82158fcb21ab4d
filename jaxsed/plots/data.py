"""What the pictures need of a run, and a few numbers drawn from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from jaxsed.core.types import Row
from jaxsed.io.text import parse_toml

Array = NDArray[Any]

MISSING, DETECTION, UPPER_LIMIT = 0, 1, 2
DEFAULT_FLOOR, DEFAULT_COSMOLOGY = 0.05, "planck15"  # where a configuration names none


class Run(Protocol):
    """A finished run, as `jaxsed.load_results` gives it; fluxes are in maggies."""

    path: Path
    ids: Array
    flags: Array
    band_wave: Array
    redshift: Array
    flux: Array
    error: Array
    kind: Array
    provenance: dict[str, Any]

    def __len__(self) -> int: ...

    @property
    def quantities(self) -> tuple[str, ...]: ...

    @property
    def predicted_flux(self) -> Array: ...

    @property
    def table(self) -> Any: ...

    def row(self, id: Row) -> int: ...

    def summary(self, name: str) -> Array: ...

    def diagnostic(self, name: str) -> Array: ...

    def draws(self, id: Row = None, *, row: int | None = None) -> dict[str, Array]: ...

    def per_galaxy(self, id: Row = None, *, row: int | None = None) -> dict[str, Array]: ...


def fitted(results: Run) -> Array:
    """Which rows [N] were fitted."""
    return np.asarray(results.table["method"]) != "none"


def title(results: Run, row: int) -> str:
    """A galaxy's id and redshift."""
    redshift = results.redshift[row]
    if np.isfinite(redshift):
        return f"{results.ids[row]}    z = {redshift:.4g}".strip()
    if "redshift" in results.quantities:
        low, middle, high = results.summary("redshift")[row]
        errors = rf"$^{{+{high - middle:.3f}}}_{{-{middle - low:.3f}}}$"
        return f"{results.ids[row]}    z = {middle:.3f} {errors}".strip()
    return str(results.ids[row])


def _settings(results: Run, section: str) -> dict[str, Any]:
    """A section of the run's configuration."""
    text = str(results.provenance.get("config", ""))
    config = parse_toml(text, f"configuration in {results.path}")
    found = config.get(section, {})
    return found if isinstance(found, dict) else {}


def universe_age(results: Run, row: int) -> float:
    """Age of the universe in Gyr at a galaxy's redshift (its median where that was free)."""
    from jaxsed import cosmology

    redshift = results.redshift[row]
    if not np.isfinite(redshift):
        redshift = results.summary("redshift")[row, 1]
    name = str(_settings(results, "model").get("cosmology", DEFAULT_COSMOLOGY))
    return float(cosmology.age(float(redshift), getattr(cosmology, name.upper())))


def error_floor(results: Run) -> float:
    """The likelihood's error floor, a fraction of the observed flux; 0 where a run does not say."""
    if not results.provenance.get("config"):
        return 0.0
    return float(_settings(results, "likelihood").get("error_floor", DEFAULT_FLOOR))
