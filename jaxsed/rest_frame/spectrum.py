"""Rest-frame spectrum models: what they are, their wavelengths and their resolution.

A *rest-frame spectrum model* is called on one theta and gives ln L_lambda [wave] in
ln(Lsun/Angstrom per Msun formed); it says its `wave` and `resolution`.  The direct physics is
one, and so are the emulators.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import NamedTuple, Protocol

import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxsed.core.content import ByContent
from jaxsed.core.types import Theta

_NEARBY = 4  # nodes on either side


class Resolution(NamedTuple):
    """How sharp a spectrum model is."""

    fwhm: np.ndarray
    """[wave] full width at half maximum of the line-spread function, Angstrom."""
    text: str
    """The same in words, for messages."""


def nodes_resolution(wave: ArrayLike, text: str = "") -> Resolution:
    """The resolution of a grid whose spectra are known no better than its nodes: two steps.

    The widest step nearby counts: nodes are added around lines, which sharpens nothing.
    """
    step = np.pad(np.gradient(np.asarray(wave, float)), _NEARBY, mode="edge")
    widest = np.lib.stride_tricks.sliding_window_view(step, 2 * _NEARBY + 1).max(1)
    return Resolution(2.0 * widest, text or "two steps of the wavelength grid")


@dataclasses.dataclass(frozen=True, eq=False)
class SpectralGrid(ByContent):
    """Wavelengths [wave] (vacuum Angstrom, increasing) and resolution of a spectrum model.

    Static metadata: numpy also inside `jax.jit`, compared and hashed by content.
    """

    wave: np.ndarray
    resolution: Resolution

    def digest(self) -> str:
        """SHA-256 of the content."""
        sha = hashlib.sha256(self.resolution.text.encode())
        for values in (self.wave, self.resolution.fwhm):
            sha.update(np.ascontiguousarray(values, np.float64).tobytes() + b"|")
        return sha.hexdigest()

    def __hash__(self) -> int:
        return hash((self.wave.size, float(self.wave[0]), float(self.wave[-1])))


def spectral_grid(wave: ArrayLike, resolution: Resolution) -> SpectralGrid:
    """Validate wavelengths and resolution.

    Raises ValueError unless wavelengths are positive and increasing and every one has a FWHM.
    """
    wave, fwhm = np.asarray(wave, np.float64), np.asarray(resolution.fwhm, np.float64)
    if wave.ndim != 1 or wave.size < 2 or not (wave[0] > 0 and np.all(np.diff(wave) > 0)):
        raise ValueError("expected two or more positive, increasing wavelengths in Angstrom")
    if fwhm.shape != wave.shape or not np.all(fwhm > 0):
        raise ValueError(
            f"expected a resolution (FWHM > 0 in Angstrom) per wavelength, {wave.shape}, "
            f"got shape {fwhm.shape}"
        )
    return SpectralGrid(wave, Resolution(fwhm, resolution.text))


class RestModel(Protocol):
    """A rest-frame spectrum model."""

    @property
    def wave(self) -> np.ndarray:
        """[wave] vacuum Angstrom, increasing."""

    @property
    def resolution(self) -> Resolution:
        """How sharp the spectra are."""

    def __call__(self, theta: Theta) -> Array:
        """ln L_lambda [wave] in ln(Lsun/Angstrom per Msun formed)."""


class OnSpectralGrid:
    """`wave` and `resolution` of a model that holds its `grid`."""

    grid: SpectralGrid

    @property
    def wave(self) -> np.ndarray:
        """[wave] rest-frame vacuum Angstrom, increasing."""
        return self.grid.wave

    @property
    def resolution(self) -> Resolution:
        """How sharp the spectra are."""
        return self.grid.resolution
