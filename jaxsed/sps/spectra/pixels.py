"""From a rest-frame spectrum model to the pixels of an observed spectrum.

The energy of a rest-frame spectrum model (see `jaxsed.rest_frame.spectrum`) goes to a grid uniform
in x = ln(wavelength), by integrals over the cells of the grid, and everything after that is linear:

    f_p = 1/(4 pi d_L^2 dlambda_p) int_p dx  [G(v) * lambda L_lambda](x - ln(1+z)),

The shift by the redshift and the Gaussian broadening G are one multiplication in Fourier space,
so a flux is a smooth function of both, down to zero dispersion, and the pixel integrals conserve
flux exactly.  The variance of the broadening is

    v = (sigma_v^2 + sigma_instrument^2 - sigma_model^2) / c^2,

each as it is at the wavelength: the model's own resolution counts as part of what is wanted.
Where the instrument has a resolution matrix, that is applied to the pixels instead (by
`jaxsed.likelihood.Spectrum`), and sigma_instrument is left out here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array, lax
from scipy import fft, sparse

from jaxsed import cosmology as cosmo
from jaxsed.bands.magnitudes import REFERENCE_LOG_MASS, ln_amplitude
from jaxsed.core.compiled import compiled
from jaxsed.core.constants import C_LIGHT_KM_S, LSUN, PC
from jaxsed.core.types import Numbers, Theta
from jaxsed.likelihood import LineProfiles, Lines, MassShear, SpectrumPrediction
from jaxsed.rest_frame.spectrum import RestModel
from jaxsed.sps.gas.lines import EmissionLine
from jaxsed.sps.spectra.banded import BandedMatrix, banded_matrix, energy_matrix, integrals
from jaxsed.sps.spectra.line_profiles import line_profiles, visible
from jaxsed.sps.spectra.observed import FLUX_UNIT, FWHM_PER_SIGMA, Arm

LN_STEP = 6e-5
"""Step of the working grid in ln(wavelength): 18 km/s."""

MAX_DISPERSION = 500.0
"""km/s; the working grid reaches five of these beyond the data."""

TAPER = 64
"""Grid steps over which the ends go to zero, so that the grid may be taken as periodic."""

SOFT_FLOOR = 10.0
"""km/s; where the model is broader than it should be, the broadening goes to zero over this."""

GRID_VARIANCE = 1 / 12 + 1 / 6
"""Steps squared; the blur of the grid itself, whose cells are boxes and whose reading is linear
between them, is taken off again."""

VARIANCE_NODES = 3
"""Broadened copies between which a variance that depends on wavelength is interpolated."""

FLUX_10PC = LSUN / (4.0 * np.pi * (10.0 * PC) ** 2) / FLUX_UNIT
"""1e-17 erg/s/cm2 of a source of 1 Lsun at 10 pc."""


def cosmology_of(rest: RestModel, given: cosmo.Cosmology | None) -> cosmo.Cosmology:
    """The cosmology of a rest-frame model if it has one, else the one given, else Planck 2015.

    Raises ValueError for a model of another cosmology than the one given.
    """
    own = getattr(rest, "cosmology", None)
    if own is None:
        return cosmo.PLANCK15 if given is None else given
    if given is not None and not cosmo.same(own, given):
        raise ValueError(
            f"the rest-frame model is of the cosmology {own}, not {given}: leave `cosmology` out "
            "to use the model's, or build the model with the other one"
        )
    return own


@struct.dataclass(eq=False)  # equal only if the same object, so that it can be hashed
class SpectrumModel:
    """``model(theta) -> SpectrumPrediction``: the pixels of all arms, for one galaxy.

    `theta` needs `log_mass_formed`, `redshift` and `velocity_dispersion` (km/s), and
    `gas_dispersion` (km/s) where there are lines; `ln_aperture`, the ln of the share of the
    galaxy's light that the fibre or slit gets, counts if it is there.
    """

    rest: Any
    """The rest-frame spectrum model."""
    to_grid: BandedMatrix
    """[grid, wave] energy per ln(wavelength) on the rest-frame grid."""
    to_pixels: tuple[BandedMatrix, ...]
    """Per arm, [pixel, grid] for every broadened copy."""
    taper: Array
    """[window] smooth ends."""
    excess: Array
    """[copy] sigma_instrument^2 - sigma_model^2 in (km/s)^2."""
    lines: LineProfiles
    cosmology: cosmo.Cosmology
    redshift: Array
    """The reference redshift, in the middle of the range."""
    start: int = struct.field(pytree_node=False)
    """First grid point of the window at the reference redshift."""
    line_names: tuple[str, ...] = struct.field(pytree_node=False)

    transform = MassShear()
    """Of problems with this model, see `jaxsed.Problem`."""

    @compiled
    def __call__(self, theta: Theta) -> SpectrumPrediction:
        """Mean flux densities in the pixels, before a resolution matrix is applied."""
        return self.observe(theta, self.rest(theta))

    def observe(self, theta: Theta, ln_light: Array) -> SpectrumPrediction:
        """The same from the rest-frame spectrum ln L_lambda [wave] of this theta."""
        energy = self.to_grid(jnp.exp(ln_light)) * aperture(theta)
        shift = self.shift(theta.redshift)
        copies = self._broadened(energy, shift / LN_STEP, theta.velocity_dispersion)
        copies = copies * amplitude(theta, self.cosmology)
        continuum = jnp.concatenate([matrix(copies) for matrix in self.to_pixels])
        gas = theta.gas_dispersion if self.line_names else 0.0
        return SpectrumPrediction(continuum, Lines(self.lines, shift, jnp.asarray(gas, float)))

    def shift(self, redshift: Numbers) -> Array:
        """ln(1+z) beyond that of the reference redshift, exact for small differences."""
        return jnp.log1p((jnp.asarray(redshift, float) - self.redshift) / (1 + self.redshift))

    def _broadened(self, energy: Array, shift: Array, dispersion: Any) -> Array:
        """[copy, window] redshifted and broadened by each of the variances."""
        n = self.taper.shape[0]
        whole = lax.stop_gradient(jnp.floor(shift))
        start = jnp.clip(self.start - whole.astype(int), 0, energy.shape[0] - n)
        window = lax.dynamic_slice(energy, (start,), (n,)) * self.taper
        frequency = jnp.asarray(2 * np.pi * np.arange(n // 2 + 1) / n, dtype=energy.dtype)
        variance = _variance(jnp.asarray(dispersion, float), self.excess) / LN_STEP**2
        damping = jnp.exp(-0.5 * (variance[:, None] - GRID_VARIANCE) * frequency**2)
        phase = frequency * (shift - whole)
        turn = lax.complex(jnp.cos(phase), -jnp.sin(phase))
        return jnp.fft.irfft(jnp.fft.rfft(window) * turn * damping, n)


def _variance(dispersion: Array, excess: Array) -> Array:
    """[copy] of the broadening in ln(wavelength)^2; smooth, and zero where it would be negative."""
    wanted = (dispersion**2 + excess) / C_LIGHT_KM_S**2
    floor = (SOFT_FLOOR / C_LIGHT_KM_S) ** 2
    soft = 0.5 * (wanted + jnp.sqrt(wanted**2 + floor**2))
    return jnp.where(excess < 0, soft, wanted)


def amplitude(theta: Theta, cosmology: cosmo.Cosmology) -> Array:
    """Flux in 1e-17 erg/s/cm2 of a galaxy with 1 Lsun per Msun formed: mass and distance."""
    return 10.0**REFERENCE_LOG_MASS * FLUX_10PC * jnp.exp(ln_amplitude(theta, cosmology))


def aperture(theta: Theta) -> Array:
    """Share of the light that the fibre gets: one where theta has no `ln_aperture`."""
    return jnp.exp(jnp.asarray(getattr(theta, "ln_aperture", 0.0), dtype=float))


def spectrum_model(
    rest: RestModel,
    arms: Sequence[Arm],
    *,
    redshift_range: tuple[float, float],
    lines: Sequence[EmissionLine] = (),
    cosmology: cosmo.Cosmology | None = None,
) -> SpectrumModel:
    """Build the model of these arms.

    Args:
        rest: the rest-frame spectrum model.
        arms: their pixels are predicted, used or not.
        redshift_range: lowest and highest redshift that will be asked for.  The resolution of
            the model is that at the middle of the range.
        lines: emission lines.
        cosmology: sets the distance; that of `rest` if not given, see `cosmology_of`.

    Raises ValueError where the model does not reach the data in this redshift range, or is of
    another cosmology than the one given.
    """
    cosmology = cosmology_of(rest, cosmology)
    z_low, z_high = redshift_range
    if not 0 <= z_low <= z_high:
        raise ValueError(f"expected 0 <= z_low <= z_high, got {redshift_range}")
    wave = np.asarray(rest.wave, float)
    edges = [arm.edges for arm in arms]
    blue, red = min(e[0] for e in edges), max(e[-1] for e in edges)
    if blue / (1 + z_high) < wave[0] or red / (1 + z_low) > wave[-1]:
        raise ValueError(
            f"the model reaches from {wave[0]:.5g} to {wave[-1]:.5g} Angstrom at rest; the data "
            f"({blue:.5g} to {red:.5g}) ask for {blue / (1 + z_high):.5g} to "
            f"{red / (1 + z_low):.5g} at redshifts {z_low:g} to {z_high:g}: mask the rest"
        )
    middle = 0.5 * (z_low + z_high)
    margin = int(np.ceil(5 * MAX_DISPERSION / C_LIGHT_KM_S / LN_STEP)) + TAPER
    n = int(np.ceil(np.log(red / blue) / LN_STEP)) + 2 * margin
    n = 2 * fft.next_fast_len((n + 1) // 2, real=True)
    first = np.log(blue) - margin * LN_STEP  # of the observed window
    extra = int(np.ceil(np.log((1 + z_high) / (1 + middle)) / LN_STEP)) + 2
    extra_low = int(np.ceil(np.log((1 + middle) / (1 + z_low)) / LN_STEP)) + 2
    origin = first - np.log1p(middle) - extra * LN_STEP  # of the rest-frame grid
    n_rest = n + extra + extra_low
    # The window of the middle redshift starts `extra` into the grid, a whole number of steps.
    observed = first + LN_STEP * np.arange(n)
    grids = [_excess(rest, arm, observed, middle) for arm in arms]
    nodes = _variance_nodes(np.concatenate(grids))
    to_pixels = []
    for arm_edges, excess in zip(edges, grids, strict=True):
        pixels = integrals(observed, np.log(arm_edges[:-1]), np.log(arm_edges[1:]))
        pixels = sparse.diags_array(1 / np.diff(arm_edges)) @ pixels
        weights = _lagrange(nodes, excess)
        to_pixels.append(banded_matrix(*[pixels @ sparse.diags_array(w) for w in weights]))
    taper = np.ones(n)
    taper[:TAPER] = np.sin(0.5 * np.pi * (np.arange(TAPER) + 0.5) / TAPER) ** 2
    taper[-TAPER:] = taper[:TAPER][::-1]
    chosen = [line for line in lines if visible(line, arms, redshift_range)]
    return SpectrumModel(
        rest=rest,
        to_grid=energy_matrix(wave, origin, LN_STEP, n_rest),
        to_pixels=tuple(to_pixels),
        taper=jnp.asarray(taper, dtype=float),
        excess=jnp.asarray(nodes, dtype=float),
        lines=line_profiles(chosen, arms, redshift_range),
        cosmology=cosmology,
        redshift=jnp.asarray(middle, dtype=float),
        start=extra,
        line_names=tuple(line.name for line in chosen),
    )


def blur(
    rest: RestModel, arm: Arm, redshift_range: tuple[float, float], min_dispersion: float = 0.0
) -> np.ndarray:
    """[pixel] the model's FWHM over that of the data; the data are sharper where it exceeds one.

    The data are as sharp as the instrument and the smallest velocity dispersion (km/s) let them
    be.
    """
    sigma = min_dispersion / C_LIGHT_KM_S * arm.wave
    data = np.hypot(arm.fwhm(), FWHM_PER_SIGMA * sigma)
    model = np.max(
        [
            (1 + z) * np.interp(arm.wave / (1 + z), rest.wave, rest.resolution.fwhm)
            for z in (*redshift_range, float(np.mean(redshift_range)))
        ],
        axis=0,
    )
    return model / np.maximum(data, 1e-6)


def _excess(rest: RestModel, arm: Arm, observed: np.ndarray, redshift: float) -> np.ndarray:
    """[window] sigma_instrument^2 - sigma_model^2 in (km/s)^2; constant beyond the used pixels."""
    wave = np.exp(observed)
    own = np.interp(wave / (1 + redshift), rest.wave, rest.resolution.fwhm) * (1 + redshift)
    excess = -((own / FWHM_PER_SIGMA / wave) ** 2)
    if arm.sigma is not None:
        excess += np.interp(wave, arm.wave, arm.sigma / arm.wave) ** 2
    ends = arm.wave[arm.used][[0, -1]]
    inside = (wave >= ends[0]) & (wave <= ends[1])
    if not inside.any():
        inside = np.arange(wave.size) == np.argmin(np.abs(wave - ends[0]))
    return C_LIGHT_KM_S**2 * np.clip(excess, excess[inside].min(), excess[inside].max())


def _variance_nodes(excess: np.ndarray) -> np.ndarray:
    """[copy] one where all are alike, else Chebyshev nodes over the range."""
    low, high = excess.min(), excess.max()
    if high - low < SOFT_FLOOR**2:
        return np.array([0.5 * (low + high)])
    angle = np.pi * (np.arange(VARIANCE_NODES) + 0.5) / VARIANCE_NODES
    return 0.5 * (low + high) - 0.5 * (high - low) * np.cos(angle)


def _lagrange(nodes: np.ndarray, x: np.ndarray) -> np.ndarray:
    """[node, x] weights of the polynomial interpolation through the nodes."""
    weights = np.ones((nodes.size, x.size))
    for k in range(nodes.size):
        for other in np.delete(nodes, k):
            weights[k] *= (x - other) / (nodes[k] - other)
    return weights
