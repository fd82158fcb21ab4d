"""Flux units: to maggies, and whether a column can be in the unit that was declared."""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxsed.core.constants import C_LIGHT
from jaxsed.core.errors import JaxsedError, nearest

AB_ZERO = 3631.0
"""Jy of AB magnitude 0, which is 1 maggie (Oke & Gunn 1983)."""

# maggies per unit of names that astropy lacks, or that need not wait for it
NAMED = {
    "maggies": 1.0,
    "nanomaggies": 1e-9,
    "Jy": 1 / AB_ZERO,
    "mJy": 1e-3 / AB_ZERO,
    "uJy": 1e-6 / AB_ZERO,
    "nJy": 1e-9 / AB_ZERO,
}
MAGNITUDES = "ABmag"
EXPECTED = (
    f"expected one of {MAGNITUDES}, {', '.join(NAMED)}, a zero point such as 'AB 23.9', or a unit "
    "of astropy such as '10 nJy' or 'erg / (s cm2 AA)'"
)
_ZERO_POINT = re.compile(r"AB\s+([-+]?\d+\.?\d*)")
# AB magnitudes of a catalogue's median galaxy: from the brightest in the sky to the deepest noise
_BRIGHTEST, _FAINTEST = 7.0, 35.0


class FluxUnit(NamedTuple):
    """A unit of flux densities, or AB magnitudes."""

    text: str
    factor: float = math.nan
    """Maggies per unit; of a flux per wavelength, at a wavelength of 1 Å."""
    per_wavelength: bool = False
    is_flux: bool = True
    """Whether a column's own unit must agree: not with that of counts with a zero point."""

    @property
    def magnitudes(self) -> bool:
        """Whether values are AB magnitudes."""
        return self.text == MAGNITUDES

    def maggies(self, pivot: float) -> float:
        """Maggies per unit in a band of this pivot wavelength in Å."""
        return self.factor * pivot**2 if self.per_wavelength else self.factor


@lru_cache
def flux_unit(text: str) -> FluxUnit:
    """The unit that a text means: see `EXPECTED`.

    Raises ValueError for a text that is no unit, or one of another quantity than flux density.
    """
    if text == MAGNITUDES:
        return FluxUnit(text)
    if text in NAMED:
        return FluxUnit(text, NAMED[text])
    if found := _ZERO_POINT.fullmatch(text.strip()):
        return FluxUnit(text, 10.0 ** (-0.4 * float(found[1])), is_flux=False)
    import astropy.units as u

    try:
        if text.strip() == "AB":  # astropy has a unit of this name, but magnitudes are meant
            raise ValueError
        unit = u.Unit(text)
    except (ValueError, TypeError):
        raise ValueError(f"{EXPECTED}.{nearest(text, (MAGNITUDES, *NAMED), 1)}") from None
    known = None if isinstance(unit, u.FunctionUnitBase) else _of_astropy(unit)
    if known is None:
        raise ValueError(f"{EXPECTED}; {text!r} is not a flux density")
    return FluxUnit(text, *known)


def _of_astropy(unit: Any) -> tuple[float, bool] | None:
    """Factor to maggies, and whether it is per wavelength; None for another quantity."""
    import astropy.units as u

    to_jansky = u.zero_point_flux(AB_ZERO * u.Jy)
    per_wavelength = u.erg / (u.s * u.cm**2 * u.AA)
    if unit.is_equivalent(u.Jy, equivalencies=to_jansky):
        return float(unit.to(u.Jy, equivalencies=to_jansky)) / AB_ZERO, False
    if unit.is_equivalent(per_wavelength):
        # f_nu = f_lambda lambda^2 / c, and 1 Jy = 1e-23 erg / (s cm2 Hz)
        return float(unit.to(per_wavelength)) / C_LIGHT / (AB_ZERO * 1e-23), True
    return None


def to_maggies(
    value: NDArray[np.float64], error: NDArray[np.float64], unit: str, pivot: float = math.nan
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Flux and its 1 sigma error in maggies, any shape.

    A magnitude m +- s becomes 10^(-0.4 m) and 0.4 ln(10) s times that.  A flux per wavelength needs
    the `pivot` wavelength of the band in Å.
    """
    known = flux_unit(unit)
    if known.magnitudes:
        flux = 10.0 ** (-0.4 * value)
        return flux, 0.4 * math.log(10.0) * flux * error
    factor = known.maggies(pivot)
    return value * factor, error * factor


def check_declared(column: Any, unit: str, name: str) -> None:
    """Compare a column's own unit, if it has one, with the declared one.

    Raises JaxsedError where they differ by a factor or in kind.
    """
    known, own = flux_unit(unit), getattr(column, "unit", None)
    if own is None or str(own) in ("", "mag", "mag(AB)", "ABmag") and known.magnitudes:
        return
    import astropy.units as u

    if not isinstance(own, u.UnitBase | u.FunctionUnitBase) or isinstance(own, u.UnrecognizedUnit):
        return
    if known.magnitudes or isinstance(own, u.FunctionUnitBase) or own == u.mag:
        agrees = False
    elif own.is_equivalent(u.dimensionless_unscaled):
        return  # a column of pure numbers says nothing
    else:
        found = _of_astropy(own)
        if found is None and not known.is_flux:
            return  # counts, whose zero point is declared
        agrees = (
            found is not None
            and found[1] == known.per_wavelength
            and math.isclose(found[0], known.factor, rel_tol=1e-3)
        )
    if not agrees:
        raise JaxsedError(
            f"column {name!r} carries the unit {str(own)!r}, but the configuration says {unit}. "
            'Correct flux_unit, or give the band its own unit = "...".'
        )


def check_values(
    value: NDArray[np.float64],
    error: NDArray[np.float64],
    unit: str,
    place: str,
    pivot: float = math.nan,
) -> None:
    """Refuse values that cannot be in the declared unit, such as magnitudes called fluxes.

    `value` and `error` [n] are the usable entries of one band, in that unit.  Raises JaxsedError
    with what the values look like; too few values say nothing.
    """
    if len(value) == 0:
        return
    known = flux_unit(unit)
    middle = float(np.median(value))
    shown = f"median {middle:.4g}, error {float(np.median(error)):.3g}"
    advice = "Correct flux_unit (or the band's unit); check_units = false in [catalog] accepts it."
    if known.magnitudes:
        # Errors of magnitudes are nearly always below 1; fluxes have errors of any size.
        if not _BRIGHTEST < middle < _FAINTEST or np.median(error) > 10:
            raise JaxsedError(f"{place}: declared ABmag, but the values are not: {shown}. {advice}")
        return
    # Where galaxies are too faint to be seen, the noise still tells the unit.
    size = float(np.median(np.maximum(np.abs(value), error)))
    magnitude = -2.5 * math.log10(max(size * known.maggies(pivot), 1e-300))
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
