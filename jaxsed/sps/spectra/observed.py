"""An observed spectrum: one or several arms, with their resolution and masks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from jaxsed.bands.wavelengths import air_to_vacuum

FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))

FLUX_UNIT = 1e-17
"""erg/s/cm2/Angstrom: the unit of observed flux densities, that of DESI and SDSS."""


@dataclass(frozen=True, eq=False)
class Arm:
    """One arm of a spectrograph.

    Either `sigma` or `resolution` says how sharp it is; with neither it counts as infinitely so.
    """

    name: str
    wave: np.ndarray
    """[pixel] centres of the pixels, vacuum Angstrom as observed, increasing."""
    flux: np.ndarray
    """[pixel] 1e-17 erg/s/cm2/Angstrom."""
    ivar: np.ndarray
    """[pixel] inverse variance of the flux; zero where a pixel is not to be used."""
    sigma: np.ndarray | None = None
    """[pixel] standard deviation of a Gaussian line-spread function, Angstrom."""
    resolution: np.ndarray | None = None
    """[diagonal, pixel] row i of the resolution matrix at columns i + offsets."""
    offsets: tuple[int, ...] = ()

    @property
    def edges(self) -> np.ndarray:
        """[pixel + 1] edges of the pixels, half way between their centres."""
        middle = 0.5 * (self.wave[1:] + self.wave[:-1])
        first, last = 2 * self.wave[0] - middle[0], 2 * self.wave[-1] - middle[-1]
        return np.concatenate([[first], middle, [last]])

    @property
    def used(self) -> np.ndarray:
        """[pixel] whether it counts."""
        return self.ivar > 0

    def fwhm(self) -> np.ndarray:
        """[pixel] full width at half maximum of the line-spread function in Angstrom.

        Of a resolution matrix, that of the Gaussian with the variance of each row; rows at the
        ends of the arm, which are cut off, count like the next whole one.
        """
        if self.resolution is None:
            return FWHM_PER_SIGMA * (np.zeros(self.wave.size) if self.sigma is None else self.sigma)
        offset = np.asarray(self.offsets, float)[:, None]
        total = np.maximum(self.resolution.sum(0), 1e-3)
        mean = (self.resolution * offset).sum(0) / total
        variance = (self.resolution * offset**2).sum(0) / total - mean**2
        sigma = np.sqrt(np.maximum(variance, 0.0))
        reach = max(abs(o) for o in self.offsets)
        whole = np.clip(np.arange(sigma.size), reach, max(sigma.size - 1 - reach, reach))
        return FWHM_PER_SIGMA * sigma[whole] * np.diff(self.edges)


@dataclass(frozen=True, eq=False)
class ObservedSpectrum:
    """The spectrum of one galaxy, and what came with it."""

    name: str
    arms: tuple[Arm, ...]
    redshift: float | None = None
    """By the survey's own pipeline, where the file has it."""
    photometry: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Flux and its error in maggies by filter name, of the whole galaxy, where the file has it."""
    ebv: float | None = None
    """E(B-V) by Schlegel, Finkbeiner & Davis (1998) in mag, where the file has it."""

    def masked(self, ranges: Sequence[tuple[float, float]]) -> ObservedSpectrum:
        """Without the pixels in these observed wavelength ranges (Angstrom): skies, tellurics.

        Raises ValueError for a range that is empty or upside down.
        """
        for low, high in ranges:
            if not low < high:
                raise ValueError(f"expected a range with low < high, got ({low:g}, {high:g})")

        def cut(arm: Arm) -> Arm:
            bad = np.zeros(arm.wave.size, bool)
            for low, high in ranges:
                bad |= (arm.wave >= low) & (arm.wave <= high)
            return dataclasses.replace(arm, ivar=np.where(bad, 0.0, arm.ivar))

        return dataclasses.replace(self, arms=tuple(cut(arm) for arm in self.arms))

    def with_redshift(self, redshift: float | None) -> ObservedSpectrum:
        """With the redshift that a pipeline found."""
        return dataclasses.replace(self, redshift=redshift)

    def between(self, low: float, high: float) -> ObservedSpectrum:
        """Only the pixels whose centres are within these observed wavelengths (Angstrom)."""
        return self.masked([(-np.inf, np.nextafter(low, 0)), (np.nextafter(high, np.inf), np.inf)])


def arm(
    wave: np.ndarray,
    flux: np.ndarray,
    ivar: np.ndarray,
    *,
    name: str = "spectrum",
    mask: np.ndarray | None = None,
    sigma: np.ndarray | float | None = None,
    resolution: np.ndarray | None = None,
    offsets: Sequence[int] = (),
    air: bool = False,
) -> Arm:
    """Validate one arm of a spectrum.

    Args:
        wave: [pixel] centres, Angstrom as observed, increasing.
        flux: [pixel] 1e-17 erg/s/cm2/Angstrom.
        ivar: [pixel] inverse variances.
        name: of the arm, for messages and pictures.
        mask: [pixel] nonzero where a pixel is bad.
        sigma: [pixel] or one number: Gaussian line-spread function, Angstrom.
        resolution: [diagonal, pixel] rows of a resolution matrix at the columns i + offsets.
        offsets: of the diagonals.
        air: whether `wave` is in air; it is converted to vacuum.

    Pixels whose flux or inverse variance is not a number are left out, as are masked ones.

    Raises ValueError for shapes that differ, wavelengths that do not increase, negative inverse
    variances, widths that are not positive, and an arm without any usable pixel.
    """
    wave, flux, ivar = (np.array(x, float) for x in (wave, flux, ivar))
    if wave.ndim != 1 or wave.size < 3 or flux.shape != wave.shape or ivar.shape != wave.shape:
        raise ValueError(
            f"arm {name}: expected wave, flux and ivar [pixel] of one length of at least 3, got "
            f"{wave.shape}, {flux.shape} and {ivar.shape}"
        )
    if not (np.all(np.isfinite(wave)) and wave[0] > 0 and np.all(np.diff(wave) > 0)):
        raise ValueError(f"arm {name}: expected wavelengths in Angstrom that increase")
    if np.any(ivar < 0):
        raise ValueError(f"arm {name}: expected inverse variances, got negative ones")
    bad = ~np.isfinite(flux) | ~np.isfinite(ivar)
    if mask is not None:
        if np.shape(mask) != wave.shape:
            raise ValueError(f"arm {name}: expected a mask {wave.shape}, got {np.shape(mask)}")
        bad |= np.asarray(mask) != 0
    flux, ivar = np.where(np.isfinite(flux), flux, 0.0), np.where(bad, 0.0, ivar)
    if not np.any(ivar > 0):
        raise ValueError(f"arm {name}: every pixel is masked, not a number or without weight")
    if sigma is not None:
        sigma = np.broadcast_to(np.asarray(sigma, float), wave.shape)
        # Where a pixel has no weight its width is often missing too.
        if not np.all(sigma[ivar > 0] > 0):
            raise ValueError(f"arm {name}: expected line-spread widths above zero")
        sigma = np.where(sigma > 0, sigma, np.median(sigma[ivar > 0]))
    if resolution is not None:
        resolution = np.asarray(resolution, float)
        if sigma is not None:
            raise ValueError(f"arm {name}: expected sigma or a resolution matrix, not both")
        if resolution.shape != (len(offsets), wave.size) or not np.all(np.isfinite(resolution)):
            raise ValueError(
                f"arm {name}: expected a finite resolution matrix [{len(offsets)}, {wave.size}] "
                f"with an offset per diagonal, got shape {resolution.shape}"
            )
    vacuum = air_to_vacuum(wave) if air else wave
    return Arm(name, vacuum, flux, ivar, sigma, resolution, tuple(int(o) for o in offsets))
