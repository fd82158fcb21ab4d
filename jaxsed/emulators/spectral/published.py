"""Rest-frame spectra of a whole PROVABGS galaxy from two emulators (Kwon et al. 2022, section 2).

    L(theta) = (1 - f_burst) L_nmf(theta) + f_burst L_burst(theta),

per Msun formed, where one emulator gives the smooth (NMF) component and another the burst.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from jaxsed.core.types import Theta
from jaxsed.cosmology import PLANCK13, Cosmology, age
from jaxsed.emulators.spectral.emulator import SpectrumEmulator, check_inputs
from jaxsed.params import LN10, sticks
from jaxsed.rest_frame.spectrum import (
    OnSpectralGrid,
    Resolution,
    SpectralGrid,
    nodes_resolution,
    spectral_grid,
)

MILES_FWHM = 2.54
"""Angstrom, of the MILES library (Falcon-Barroso et al. 2011, A&A 532, A95)."""

MILES_RANGE = (3600.0, 7410.0)
"""Angstrom: the windows of the published networks that are sampled every 0.9 Angstrom."""

Z_LIMITS = (4.49043431e-05, 4.49043431e-02)
"""Absolute metallicities that the published histories are clipped to, those of MIST."""

NMF_INPUTS = (
    "beta_keep_1", "beta_keep_2", "beta_keep_3", "gamma1", "gamma2", "dust1", "dust2",
    "dust_index", "age",
)  # fmt: skip
"""Inputs of the published NMF networks; `beta_keep_k` is one minus the k-th stick-breaking
fraction of beta, `age` that of the universe in Gyr."""

NMF_BOX = (
    (0.0, 0.0, 0.0, 4.5e-5, 4.5e-5, 0.0, 0.0, -3.0, 7.9),
    (1.0, 1.0, 1.0, 2.0e-2, 2.0e-2, 3.0, 3.0, 1.0, 13.8),
)
"""Ranges they were trained in (the published training script; redshifts 0 to 0.6)."""

BURST_INPUTS = ("log10_t_burst", "log10_z_burst", "dust2", "dust_index")
"""Inputs of the published burst networks: log10 Gyr, log10 absolute metallicity, and the dust."""

BURST_BOX = (
    (-2.0, float(np.log10(4.5e-5)), 0.0, -3.0),
    (float(np.log10(13.27)), float(np.log10(4.5e-2)), 3.0, 1.0),
)
"""Ranges they were trained in."""

PARAMETERS = (
    "beta", "f_burst", "t_burst", "gamma1", "gamma2", "dust1", "dust2", "dust_index", "redshift",
)  # fmt: skip
"""Fields of a PROVABGS theta that a spectrum per Msun formed depends on."""

_LARGEST_EXPONENT = 80.0


def published_resolution(wave: ArrayLike) -> Resolution:
    """Resolution of the published networks: MILES inside `MILES_RANGE`, two nodes elsewhere."""
    wave = np.asarray(wave, float)
    inside = (wave >= MILES_RANGE[0]) & (wave < MILES_RANGE[1])
    return Resolution(
        np.where(inside, MILES_FWHM, nodes_resolution(wave).fwhm),
        "MILES (2.54 Angstrom) from 3600 to 7410 Angstrom, BaSeL (two nodes) elsewhere",
    )


def add_in_flux(ln_first: Array, ln_second: Array, first: Array, second: Array) -> Array:
    """ln(first exp(ln_first) + second exp(ln_second)) [wave], for weights that may be zero.

    Weights of zero are frequent (no burst) and must have a finite gradient, which rules the
    logarithm of a weight out.
    """
    ratio = jnp.clip(ln_second - ln_first, -_LARGEST_EXPONENT, _LARGEST_EXPONENT)
    total = first + second * jnp.exp(ratio)
    return ln_first + jnp.log(jnp.maximum(total, jnp.finfo(total.dtype).tiny))


@struct.dataclass(eq=False)  # equal only if the same object, so that it can be hashed
class PublishedProvabgs(OnSpectralGrid):
    """The published PROVABGS networks as one galaxy: ``model(theta) -> ln L_lambda [wave]``.

    As published: the burst counts only if it is younger than the universe at the galaxy's
    redshift; else its share of the mass is dark.
    """

    nmf: SpectrumEmulator
    burst: SpectrumEmulator
    time: Array
    """[time] lookback times in Gyr of the metallicity bases."""
    z_basis: Array
    """[2, time] absolute metallicity per unit coefficient."""
    cosmology: Cosmology
    grid: SpectralGrid = struct.field(pytree_node=False)
    parameter_names: tuple[str, ...] = struct.field(pytree_node=False, default=PARAMETERS)

    def __call__(self, theta: Theta) -> Array:
        """ln L_lambda [wave] in ln(Lsun/Angstrom per Msun formed) of one `ProvabgsTheta`."""
        existed = theta.t_burst < age(theta.redshift, self.cosmology)
        share = jnp.where(existed, theta.f_burst, 0.0)
        smooth, burst = self.nmf(self.nmf_inputs(theta)), self.burst(self.burst_inputs(theta))
        return add_in_flux(smooth, burst, 1.0 - jnp.asarray(theta.f_burst, float), share)

    def nmf_inputs(self, theta: Theta) -> Array:
        """[9] in the order of `NMF_INPUTS`."""
        keep = 1.0 - sticks(jnp.asarray(theta.beta, float))
        t_age = age(theta.redshift, self.cosmology)
        rest = (theta.gamma1, theta.gamma2, theta.dust1, theta.dust2, theta.dust_index, t_age)
        return jnp.concatenate([keep, jnp.stack([jnp.asarray(x, float) for x in rest])])

    def burst_inputs(self, theta: Theta) -> Array:
        """[4] in the order of `BURST_INPUTS`, the metallicity being that of the history."""
        z = sum(
            gamma * jnp.interp(theta.t_burst, self.time, basis)
            for gamma, basis in zip((theta.gamma1, theta.gamma2), self.z_basis, strict=True)
        )
        z = jnp.clip(z, *Z_LIMITS)
        logs = [jnp.log(jnp.asarray(x, float)) / LN10 for x in (theta.t_burst, z)]
        dust = [jnp.asarray(x, float) for x in (theta.dust2, theta.dust_index)]
        return jnp.stack([*logs, *dust])

    def inside(self, theta: Theta) -> Array:
        """Whether theta [scalar bool] lies where the networks were trained."""
        return self.nmf.inside(self.nmf_inputs(theta)) & self.burst.inside(self.burst_inputs(theta))


def published_provabgs(
    nmf: SpectrumEmulator,
    burst: SpectrumEmulator,
    bases: tuple[ArrayLike, ArrayLike],
    *,
    cosmology: Cosmology = PLANCK13,
) -> PublishedProvabgs:
    """Put the published networks together on the wavelengths they share.

    Args:
        nmf: the smooth component, with the inputs `NMF_INPUTS`.
        burst: the burst, with the inputs `BURST_INPUTS`.
        bases: lookback times [time] in Gyr, increasing, and metallicity bases [2, time]; linear
            between the times and, as published, beyond them.
        cosmology: of the ages; that of the published training set is Planck 2013.

    Raises:
        ValueError: emulators with other inputs or without common wavelengths, or bases of other
            shapes.
    """
    check_inputs(nmf, NMF_INPUTS)
    check_inputs(burst, BURST_INPUTS)
    time, z_basis = (np.asarray(part, float) for part in bases)
    if z_basis.shape != (2, time.size) or np.any(np.diff(time) <= 0):
        raise ValueError(f"expected bases [2, {time.size}] at increasing times")
    low = max(nmf.wave[0], burst.wave[0])
    high = min(nmf.wave[-1], burst.wave[-1])
    nmf, burst = nmf.between(low, high), burst.between(low, high)
    if not np.array_equal(nmf.wave, burst.wave):
        raise ValueError("expected both emulators on the same wavelengths where they overlap")
    time, z_basis = _extended(time, z_basis)
    return PublishedProvabgs(
        nmf=nmf,
        burst=burst,
        time=jnp.asarray(time, float),
        z_basis=jnp.asarray(z_basis, float),
        cosmology=cosmology,
        grid=spectral_grid(nmf.wave, published_resolution(nmf.wave)),
    )


def _extended(time: np.ndarray, bases: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The bases with nodes at 0 and 14 Gyr, by linear extrapolation."""
    columns: Sequence[tuple[float, int, int]] = ((0.0, 0, 1), (14.0, -1, -2))
    first, last = (
        bases[:, i] + (t - time[i]) * (bases[:, i] - bases[:, j]) / (time[i] - time[j])
        for t, i, j in columns
    )
    return np.concatenate([[0.0], time, [14.0]]), np.column_stack([first, bases, last])
