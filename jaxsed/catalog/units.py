"""Flux units: to maggies, and whether a column can be in the unit that was declared."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxsed.core.errors import JaxsedError

# maggies per unit; 1 maggie = 3631 Jy, AB magnitude 0
MAGGIES = {
    "maggies": 1.0,
    "nanomaggies": 1e-9,
    "Jy": 1 / 3631.0,
    "mJy": 1e-3 / 3631.0,
    "uJy": 1e-6 / 3631.0,
}
# AB magnitudes of a catalogue's median galaxy: from the brightest in the sky to the deepest noise
_BRIGHTEST, _FAINTEST = 7.0, 35.0


def to_maggies(
    value: NDArray[np.float64], error: NDArray[np.float64], unit: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Flux and its 1 sigma error in maggies, any shape.

    A magnitude m +- s becomes 10^(-0.4 m) and 0.4 ln(10) s times that.
    """
    if unit == "ABmag":
        flux = 10.0 ** (-0.4 * value)
        return flux, 0.4 * math.log(10.0) * flux * error
    return value * MAGGIES[unit], error * MAGGIES[unit]


def check_declared(column: Any, unit: str, name: str) -> None:
    """Compare a column's own unit, if it has one, with the declared one.

    Raises JaxsedError where they differ by a factor or in kind.
    """
    own = getattr(column, "unit", None)
    if own is None or str(own) in ("", "mag", "mag(AB)", "ABmag") and unit == "ABmag":
        return
    import astropy.units as u

    if not isinstance(own, u.UnitBase | u.FunctionUnitBase) or isinstance(own, u.UnrecognizedUnit):
        return
    if unit == "ABmag" or isinstance(own, u.FunctionUnitBase) or own == u.mag:
        factor = math.nan
    else:
        to_jansky = u.zero_point_flux(3631 * u.Jy)
        declared = getattr(u, {"maggies": "mgy", "nanomaggies": "nmgy"}.get(unit, unit))
        if own.is_equivalent(u.dimensionless_unscaled):
            return  # a column of pure numbers says nothing
        factor = (
            own.to(declared, equivalencies=to_jansky)
            if own.is_equivalent(declared, equivalencies=to_jansky)
            else math.nan
        )
    if not math.isclose(factor, 1.0, rel_tol=1e-3):
        raise JaxsedError(
            f"column {name!r} carries the unit {str(own)!r}, but the configuration says {unit}. "
            'Correct flux_unit, or give the band its own unit = "...".'
        )


def check_values(
    value: NDArray[np.float64], error: NDArray[np.float64], unit: str, place: str
) -> None:
    """Refuse values that cannot be in the declared unit, such as magnitudes called fluxes.

    `value` and `error` [n] are the usable entries of one band, in that unit.  Raises JaxsedError
    with what the values look like; too few values say nothing.
    """
    if len(value) == 0:
        return
    middle = float(np.median(value))
    shown = f"median {middle:.4g}, error {float(np.median(error)):.3g}"
    advice = "Correct flux_unit (or the band's unit); check_units = false in [catalog] accepts it."
    if unit == "ABmag":
        # Errors of magnitudes are nearly always below 1; fluxes have errors of any size.
        if not _BRIGHTEST < middle < _FAINTEST or np.median(error) > 10:
            raise JaxsedError(f"{place}: declared ABmag, but the values are not: {shown}. {advice}")
        return
    # Where galaxies are too faint to be seen, the noise still tells the unit.
    size = float(np.median(np.maximum(np.abs(value), error)))
    magnitude = -2.5 * math.log10(max(size * MAGGIES[unit], 1e-300))
    looks_like_magnitudes = (
        len(value) >= 10
        and float(np.min(value)) > 12
        and float(np.max(value)) < 32
        and float(np.max(value) / np.min(value)) < 2.2
        and float(np.median(error)) < 1
    )
    if looks_like_magnitudes:
        raise JaxsedError(
            f"{place}: declared {unit}, but the values look like magnitudes: {shown}. {advice}"
        )
    if not _BRIGHTEST < magnitude < _FAINTEST:
        raise JaxsedError(
            f"{place}: declared {unit}, but then the median galaxy has AB magnitude "
            f"{magnitude:.1f}: {shown}. {advice}"
        )
