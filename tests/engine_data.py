"""What stands in for the model and the sampler in tests of the engine."""

import types
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxsed.infer import Convergence, Diagnostics, Samples

CHAINS, DRAWS = 2, 40


class Derived(NamedTuple):
    """Of the stand-in for the physics."""

    a_v: Any


@struct.dataclass
class Half:
    """Fluxes of the reachable bands; redshifts below 0.5 are inside its range."""

    ones: Any

    def __call__(self, theta):
        return self.ones * 10.0**theta.log_mass_formed

    def inside(self, theta):
        return theta.redshift < 0.5

    def derived(self, theta):
        return Derived(theta.dust2)


def physics_of_ages(ages):
    """What an engine asks of the physics but its derived quantities: ages in Gyr."""
    return types.SimpleNamespace(
        stars=types.SimpleNamespace(axis=types.SimpleNamespace(age=np.array(ages)))
    )


def some_draws(prior, n, bands):
    """Draws of n galaxies that differ in all that is looked at."""
    rng = np.random.default_rng(2)
    shape = (n, CHAINS, DRAWS)
    theta = jax.vmap(lambda prior: type(prior)(*(jnp.zeros(()) for _ in prior)), 0)(prior)
    theta = theta._replace(
        redshift=prior.redshift,
        **{name: rng.normal(size=shape) for name in theta._fields if name != "redshift"},
    )
    three = np.arange(n) % 3
    return Samples(
        theta=theta,
        x=rng.normal(size=(*shape, 2)),
        log_density=rng.normal(size=shape),
        flux=rng.lognormal(size=(*shape, bands)) * 1e-9,
        derived={"a_v": rng.normal(size=shape)},
        convergence=Convergence(*np.ones((3, n, 2))),
        diagnostics=Diagnostics(
            rhat_max=np.array([1.2, 1.0, np.nan])[three],
            ess_bulk_min=np.array([500.0] * n),
            ess_tail_min=np.array([350.0] * n),
            divergences=np.array([0, 3, 0])[three],
            unique_fraction=np.array([0.9, 0.8, 0.7])[three],
            gradients=np.arange(n),
            evaluations=10 * np.arange(n),
            method=np.array(["hmc", "nuts", "hmc"])[three],
            run=np.arange(n) % 2,
            log_evidence=np.array([1.0, 2.0, 3.0])[three],
            log_evidence_error=np.array([0.1, 0.2, 0.3])[three],
            khat=np.array([0.3, np.nan, 0.6])[three],
            importance_ess=np.array([10.0, np.nan, 30.0])[three],
            support=np.array(["inside", "", "colour"])[three],
        ),
        slot_efficiency=1.0,
    )
