"""An analytic rest-frame spectrum model for tests, and its observed spectrum by brute force."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from flax import struct
from scipy.signal import fftconvolve

from jaxsed import cosmology as cosmo

C_KM_S = 299792.458
LINE_CENTRES = np.array([4100.0, 4305.0, 4861.0, 5175.0, 5270.0, 5890.0])


class Theta(NamedTuple):
    log_mass_formed: Any
    slope: Any
    depth: Any
    redshift: Any


class Full(NamedTuple):
    log_mass_formed: Any
    slope: Any
    depth: Any
    redshift: Any
    velocity_dispersion: Any
    gas_dispersion: Any = 100.0
    ln_aperture: Any = 0.0


class Resolution(NamedTuple):
    fwhm: np.ndarray
    text: str = "as sharp as a test needs"


@struct.dataclass(eq=False)
class FakeRest:
    """ln L = ln(1e-4) + slope ln(wave/5000) - depth sum of Gaussian absorption lines."""

    nodes: Any
    fwhm: float = struct.field(pytree_node=False, default=1e-3)
    width: float = struct.field(pytree_node=False, default=5.0)

    @property
    def wave(self):
        return np.asarray(self.nodes, float)

    @property
    def resolution(self):
        return Resolution(np.full(self.wave.size, self.fwhm))

    def __call__(self, theta):
        return ln_light(theta, self.nodes, self.width, jnp)


def fake_rest(low=3000.0, high=9000.0, step=0.9, **options):
    return FakeRest(jnp.arange(low, high, step), **options)


def ln_light(theta, wave, width, np_):
    lines = np_.exp(-0.5 * ((wave - LINE_CENTRES[:, None]) / width) ** 2).sum(0)
    return np_.log(1e-4) + theta.slope * np_.log(wave / 5000.0) - theta.depth * lines


def prior(redshift=0.1):
    return Theta(dist.Uniform(8.0, 12.0), dist.Normal(0.0, 1.0), dist.Uniform(0.0, 2.0), redshift)


def brute_force(theta, edges, sigma_km_s, width=5.0):
    """[pixel] mean flux densities in 1e-17 cgs, in numpy on a grid of 0.5 km/s."""
    step = 0.5 / C_KM_S
    x = np.arange(np.log(edges[0]) - 0.02, np.log(edges[-1]) + 0.02, step)
    rest = np.exp(x) / (1 + theta.redshift)
    energy = rest * np.exp(ln_light(theta, rest, width, np))
    if sigma_km_s > 0:
        reach = int(6 * sigma_km_s / 0.5)
        u = np.arange(-reach, reach + 1) * 0.5 / sigma_km_s
        kernel = np.exp(-0.5 * u**2)
        energy = fftconvolve(energy, kernel / kernel.sum(), mode="same")
    modulus = float(cosmo.distance_modulus(theta.redshift, cosmo.PLANCK15))
    distance = 10 ** (modulus / 5 + 1) * 3.0856775814913674e18
    flux = energy * 3.828e33 * 10.0**theta.log_mass_formed / (4 * np.pi * distance**2) / 1e-17
    cumulative = np.concatenate([[0], np.cumsum(0.5 * (flux[1:] + flux[:-1]) * step)])
    return np.diff(np.interp(np.log(edges), x, cumulative)) / np.diff(edges)
