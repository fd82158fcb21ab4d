"""Wavelengths in air and in vacuum."""

from __future__ import annotations

import numpy as np


def air_to_vacuum(wave_air: np.ndarray) -> np.ndarray:
    """[wave] vacuum wavelength of an air wavelength, Angstrom; below 2000 it is vacuum already.

    The refractive index of Edlen (1966) as the International Astronomical Union recommends it
    for spectroscopy (Morton 1991, ApJS 77, 119, eq. 3), iterated in the vacuum wavenumber.
    """
    wave_air = np.asarray(wave_air, float)
    wave = wave_air.copy()
    for _ in range(3):
        sigma2 = (1e4 / wave) ** 2
        index = 1 + 6.4328e-5 + 2.94981e-2 / (146 - sigma2) + 2.5540e-4 / (41 - sigma2)
        wave = np.where(wave_air > 2000.0, wave_air * index, wave_air)
    return wave
