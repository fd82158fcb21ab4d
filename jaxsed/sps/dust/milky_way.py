"""Extinction by the dust of the Milky Way, undone in the data before anything is fitted."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.interpolate import CubicSpline

from jaxsed.bands.filters import load_filter
from jaxsed.sps.spectra.observed import Arm, ObservedSpectrum

SFD_SCALE = 0.86
"""Of E(B-V) by Schlegel, Finkbeiner & Davis (1998), as Schlafly & Finkbeiner (2011) found."""

_WAVENUMBER = (0.0, 0.377, 0.820, 1.667, 1.828, 2.141, 2.433, 3.704, 3.846)
_CURVE = CubicSpline(
    _WAVENUMBER, (0.0, 0.265, 0.829, 2.688, 3.055, 3.806, 4.315, 6.265, 6.591), bc_type="natural"
)


def extinction(wave: np.ndarray, ebv: float) -> np.ndarray:
    """[wave] magnitudes of extinction at wavelengths in Angstrom, above 2600.

    The curve of Fitzpatrick (1999, PASP 111, 63, table 3) with R_V = 3.1.

    Args:
        wave: vacuum Angstrom.
        ebv: E(B-V) of the SFD map in mag, which is scaled by `SFD_SCALE`.

    Raises ValueError for wavelengths in the ultraviolet, where the curve is another.
    """
    wavenumber = 1e4 / np.asarray(wave, float)
    if np.any(wavenumber > _WAVENUMBER[-1]):
        raise ValueError(f"expected wavelengths above 2600 Angstrom, got {np.min(wave):.5g}")
    return SFD_SCALE * ebv * _CURVE(wavenumber)


def dereddened(observed: ObservedSpectrum, ebv: float | None = None) -> ObservedSpectrum:
    """The spectrum and its photometry without the extinction of the Milky Way.

    Args:
        observed: as read.
        ebv: E(B-V) of the SFD map in mag; default: that of the file.

    Raises ValueError where neither is known.
    """
    ebv = observed.ebv if ebv is None else ebv
    if ebv is None or not np.isfinite(ebv) or ebv < 0:
        raise ValueError(f"{observed.name}: expected E(B-V) of at least zero, got {ebv}: give ebv=")

    def brighter(arm: Arm) -> Arm:
        factor = 10.0 ** (0.4 * extinction(arm.wave, ebv))
        return dataclasses.replace(arm, flux=arm.flux * factor, ivar=arm.ivar / factor**2)

    photometry = {}
    for name, (flux, error) in observed.photometry.items():
        factor = 10.0 ** (0.4 * float(extinction(np.array(load_filter(name).pivot), ebv)))
        photometry[name] = (flux * factor, error * factor)
    arms = tuple(brighter(arm) for arm in observed.arms)
    return dataclasses.replace(observed, arms=arms, photometry=photometry, ebv=0.0)
