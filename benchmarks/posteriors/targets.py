"""The posteriors that the benchmarks sample: mock galaxies, and two with known moments."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from flax import struct

from jaxsed.emulators import load_emulator, measured_sigma
from jaxsed.likelihood import MAG_TO_RELATIVE, photometry
from jaxsed.problem import Problem
from jaxsed.workflows.mocks import mock_galaxies
from jaxsed.workflows.validate import Request, physics_of

SETS = {
    "provabgs5": ("provabgs_sdss", None, (0.02, 0.3), 24.0),
    "goodss17": ("provabgs_goodss", None, (0.5, 2.0), 28.0),
    "prospector20": (
        "prospector_mathews137",
        ("galex_FUV", "galex_NUV", "sdss_u0", "sdss_g0", "sdss_r0", "sdss_i0", "sdss_z0",
         "twomass_J", "twomass_H", "twomass_Ks", "wise_w1", "wise_w2", "spitzer_irac_ch3",
         "spitzer_irac_ch4",
         "spitzer_mips_24", "herschel_pacs_70", "herschel_pacs_100", "herschel_pacs_160",
         "herschel_spire_250", "herschel_spire_350"),
        (0.05, 0.3), 24.0,
    ),
}  # fmt: skip
"""Emulator, bands, redshifts, and depth in AB magnitudes."""

NOISE = 0.05


class Toy(NamedTuple):
    """Parameters of the targets with known moments."""

    a: Any
    log_mass_formed: Any


@struct.dataclass
class Linear:
    """Fluxes linear in the parameters: a Gaussian posterior with a condition number of 1e4."""

    matrix: Any

    def __call__(self, theta: Toy) -> Any:
        return self.matrix @ theta.a


@struct.dataclass
class Bent:
    """Fluxes (a1, a2 + a1^2): a banana."""

    def __call__(self, theta: Toy) -> Any:
        return jnp.stack([theta.a[0], theta.a[1] + theta.a[0] ** 2])


def toy(name: str, n: int) -> Problem:
    """A batch of one of the targets with known moments."""
    generator = np.random.default_rng(5)
    if name == "gaussian":
        turn = np.linalg.qr(generator.normal(size=(10, 10)))[0]
        forward: Any = Linear(jnp.asarray(turn * np.logspace(0, 2, 10)[:, None], dtype=float))
        flux = generator.normal(size=(n, 10))
        error, size = np.ones_like(flux), 10
    else:
        forward, size = Bent(), 2
        flux, error = np.tile([0.0, 1.0], (n, 1)), np.tile([2.0, 0.1], (n, 1))
    one = Toy(dist.Normal(jnp.zeros(size), jnp.ones(size)).to_event(1), jnp.zeros(()))
    prior = jax.tree.map(lambda a: jnp.broadcast_to(a, (n, *a.shape)), one)
    return Problem(prior, forward, photometry(flux, error, error_floor=0.0))


def target(name: str, n: int, seed: int) -> Problem:
    """A batch of galaxies of a target."""
    if name not in SETS:
        return toy(name, n)
    source, bands, (low, high), depth = SETS[name]
    emulator = load_emulator(source)
    if bands is not None:
        emulator = emulator.select(bands)
    galaxies, physics, _ = physics_of(emulator, Request())
    z = np.random.default_rng(seed).uniform(low, high, n)
    mocks = mock_galaxies(jax.random.key(seed), galaxies, physics, z, noise=NOISE, depth=depth)
    sigma = measured_sigma(emulator)
    error = np.hypot(mocks.noise, MAG_TO_RELATIVE * sigma * mocks.flux)
    data = photometry(mocks.observed, error, error_floor=0.0)
    return Problem(mocks.prior, emulator, data)
