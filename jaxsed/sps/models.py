"""The named galaxy models: what `physics = "..."` in a configuration refers to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxsed import cosmology as cosmo
from jaxsed import params
from jaxsed.sps import continuity, provabgs

THICK_TAIL = 1.3
"""Width of the training distribution in normal coordinates of the prior; above one, so that the
edges of the box, where priors put little, are learned as well (Mathews+ 2023, section 4.2)."""


@dataclass(frozen=True)
class GalaxyFamily:
    """A galaxy model by name: its parameters, physics, prior and training distribution."""

    name: str
    theta: type
    physics: Callable[..., Any]
    """Takes the age axis and solar log metallicity of an SSP grid; see `sed.galaxy_model`."""
    features: tuple[str, ...]
    """Inputs of an emulator of this model."""
    prior: Callable[..., Any]
    """``prior(redshift, cosmology)``."""
    training_draw: Callable[[Array, Array], Any]
    """``training_draw(key, redshift)``: one theta of the training distribution, mass 1e10."""
    citations: tuple[str, ...]


def _provabgs_draw(key: Array, redshift: Array) -> provabgs.ProvabgsTheta:
    key_u, key_t, key_which = jax.random.split(key, 3)
    prior = provabgs.prior(redshift)
    u = THICK_TAIL * jax.random.normal(key_u, (params.dimension(prior),))
    theta = params.constrain(prior, u)[0]
    # Bursts are learned evenly in the log of their age as well: light changes fast when young.
    low, high = provabgs.T_BURST_GYR[0], jnp.minimum(cosmo.age(redshift), provabgs.T_BURST_GYR[1])
    even = low * (high / low) ** jax.random.uniform(key_t)
    t_burst = jnp.where(jax.random.bernoulli(key_which, 0.6), even, theta.t_burst)
    return theta._replace(log_mass_formed=jnp.asarray(10.0), t_burst=t_burst)


def _continuity_draw(key: Array, redshift: Array) -> continuity.ContinuityTheta:
    prior = continuity.training_distribution(redshift)
    u = jax.random.normal(key, (params.dimension(prior),))
    theta = params.constrain(prior, u)[0]
    return theta._replace(log_mass_formed=jnp.asarray(10.0))


FAMILIES = {
    "provabgs": GalaxyFamily(
        name="provabgs",
        theta=provabgs.ProvabgsTheta,
        physics=provabgs.provabgs,
        features=provabgs.FEATURES,
        prior=provabgs.prior,
        training_draw=_provabgs_draw,
        citations=("Hahn et al. 2022", "Kwon, Hahn & Alsing 2022"),
    ),
    "continuity": GalaxyFamily(
        name="continuity",
        theta=continuity.ContinuityTheta,
        physics=continuity.continuity,
        features=continuity.FEATURES,
        prior=continuity.prior,
        training_draw=_continuity_draw,
        citations=("Leja et al. 2019", "Mathews et al. 2023", "Gallazzi et al. 2005"),
    ),
}


def family(name: str) -> GalaxyFamily:
    """The model of this name.

    Raises ValueError listing the known names.
    """
    if name not in FAMILIES:
        raise ValueError(f"unknown physics {name!r}: expected one of {', '.join(FAMILIES)}")
    return FAMILIES[name]
