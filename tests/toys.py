"""Small problems of one shape, so that all tests of samplers in a process share compiled code."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from flax import struct

from jaxsed import infer
from jaxsed.likelihood import photometry
from jaxsed.problem import Problem

OPTIONS: dict[str, Any] = {
    "warmup": 200, "warmup_chains": 8, "draws": 300, "retries": 2, "starts": 2, "walkers": 16,
    "live_points": 150,
}  # fmt: skip


def method_of(name, **changes):
    """A method with few starts and chains in the warm-up, and other changes."""
    return infer.method_of(name, **OPTIONS | changes)


class Toy(NamedTuple):
    """Two unknowns, and two numbers that are known."""

    a: Any
    b: Any
    log_mass_formed: Any
    redshift: Any


def prior(redshift=0.1):
    """Unit normals of both unknowns."""
    return Toy(dist.Normal(0.0, 1.0), dist.Normal(0.0, 1.0), 0.0, redshift)


@struct.dataclass
class Quadratic:
    """Fluxes [3] linear in a and b but for a multiple of a^2; without it posteriors are Gaussian.
    """

    matrix: Any
    """[3, 2]"""
    square: Any
    """[3]"""

    def __call__(self, theta):
        linear = self.matrix @ jnp.stack([theta.a, theta.b])
        return linear + self.square * theta.a**2


def problem(flux, error, matrix, square=(0.0, 0.0, 0.0), own_prior=None, kind=(1, 1, 1)):
    """The posterior of a and b given fluxes [3]; bands of kind 0 are missing."""
    data = photometry(np.array(flux), np.array(error), np.array(kind), error_floor=0.0)
    model = Quadratic(jnp.asarray(matrix, dtype=float), jnp.asarray(square, dtype=float))
    return Problem(prior() if own_prior is None else own_prior, model, data)
