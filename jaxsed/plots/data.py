"""What the pictures need of a run, and a few numbers drawn from it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

PERCENTILES = (15.865525393, 50.0, 84.134474607)  # -1, 0, +1 sigma of a Gaussian
MISSING, DETECTION, UPPER_LIMIT = 0, 1, 2
DEFAULT_FLOOR = 0.05  # of a configuration that does not name one


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

    def row(self, id: Any) -> int: ...

    def summary(self, name: str) -> Array: ...

    def diagnostic(self, name: str) -> Array: ...

    def draws(self, id: Any = None, *, row: int | None = None) -> dict[str, Array]: ...

    def per_galaxy(self, id: Any = None, *, row: int | None = None) -> dict[str, Array]: ...


def fitted(results: Run) -> Array:
    """Which rows [N] were fitted."""
    return np.asarray(results.table["method"]) != "none"


def title(results: Run, row: int) -> str:
    """A galaxy's id and redshift."""
    redshift = results.redshift[row]
    if np.isfinite(redshift):
        return f"{results.ids[row]}    z = {redshift:.4g}"
    if "redshift" in results.quantities:
        low, middle, high = results.summary("redshift")[row]
        errors = rf"$^{{+{high - middle:.3f}}}_{{-{middle - low:.3f}}}$"
        return f"{results.ids[row]}    z = {middle:.3f} {errors}"
    return str(results.ids[row])


def error_floor(results: Run) -> float:
    """The likelihood's error floor as a fraction of the flux; 0 where the run does not say."""
    text = str(results.provenance.get("config", ""))
    if not text:
        return 0.0
    return float(tomllib.loads(text).get("likelihood", {}).get("error_floor", DEFAULT_FLOOR))
