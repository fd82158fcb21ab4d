"""The named galaxy models: what `physics = "..."` in a configuration refers to."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsed import cosmology as cosmo
from jaxsed import params
from jaxsed.bands.filters import Filter
from jaxsed.core.types import Key, Theta
from jaxsed.sps.dust.attenuation import BIRTH_CLOUD_AGE_GYR
from jaxsed.sps.energy_balance import EmissionTables
from jaxsed.sps.models import continuity, prospector, provabgs
from jaxsed.sps.models.galaxy import GalaxyModel, galaxy_model, unreachable
from jaxsed.sps.ssp.grid import SSPGrid

DUST_END = 1e8
"""Wavelength in Å up to which the dust's emission is tabulated."""

IGM = "inoue2014"
"""The absorption between the galaxies that is used unless another is named."""

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
    ssp: str = "pegase2"
    """The shipped SSP grid it is used with unless another is named."""
    birth_cloud_age: float = BIRTH_CLOUD_AGE_GYR
    """Gyr."""
    emits: bool = False
    """Whether gas, dust and an active nucleus shine; the SSP grid is then of stars alone."""

    def model(
        self,
        ssp: SSPGrid,
        bands: Sequence[Filter],
        *,
        redshift_range: tuple[float, float],
        birth_cloud_age: float | None = None,
        emission_tables: EmissionTables | None = None,
        **options: Any,
    ) -> GalaxyModel:
        """The direct physics of this model for a set of bands; see `sed.galaxy_model`.

        Args:
            ssp: the SSP grid.
            bands: the filters.
            redshift_range: lowest and highest redshift.
            birth_cloud_age: Gyr; the model's own if not given.
            emission_tables: gas, dust and torus of a model that emits; the shipped ones if not
                given.
            options: further ones of `sed.galaxy_model`.
        """
        if self.emits and emission_tables is None:
            emission_tables = EmissionTables.shipped()
        model = galaxy_model(
            self.physics, self.name, ssp, bands,
            redshift_range=redshift_range,
            birth_cloud_age=self.clouds(birth_cloud_age),
            emission_tables=emission_tables,
            **options,
        )  # fmt: skip
        return dataclasses.replace(model, own_prior=self.prior)

    def clouds(self, birth_cloud_age: float | None = None) -> float:
        """The age of birth clouds in Gyr that is used: the one given, else the model's own."""
        return self.birth_cloud_age if birth_cloud_age is None else birth_cloud_age

    def unreachable(
        self, bands: Sequence[Filter], ssp: SSPGrid, redshift_range: tuple[float, float]
    ) -> list[str]:
        """Names of the bands this model has no light for anywhere in a redshift range."""
        wave = np.asarray(ssp.wave)
        if self.emits:
            wave = np.append(wave, DUST_END)
        return unreachable(bands, wave, redshift_range)


def _provabgs_draw(key: Key, redshift: Array) -> provabgs.ProvabgsTheta:
    key_u, key_t, key_which = jax.random.split(key, 3)
    prior = provabgs.prior(redshift)
    u = THICK_TAIL * jax.random.normal(key_u, (params.dimension(prior),))
    theta = params.constrain(prior, u)[0]
    # Bursts are learned evenly in the log of their age as well: light changes fast when young.
    low, high = provabgs.T_BURST_GYR[0], jnp.minimum(cosmo.age(redshift), provabgs.T_BURST_GYR[1])
    even = low * (high / low) ** jax.random.uniform(key_t)
    t_burst = jnp.where(jax.random.bernoulli(key_which, 0.6), even, theta.t_burst)
    return theta._replace(log_mass_formed=jnp.asarray(10.0), t_burst=t_burst)


def _draw_from(distribution: Callable[[Array], Any]) -> Callable[[Array, Array], Any]:
    """Draws from a training distribution of the redshift, at mass 1e10."""

    def draw(key: Key, redshift: Array) -> Theta:
        prior = distribution(redshift)
        u = jax.random.normal(key, (params.dimension(prior),))
        return params.draw(prior, u)._replace(log_mass_formed=jnp.asarray(10.0))

    return draw


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
        training_draw=_draw_from(continuity.training_distribution),
        citations=("Leja et al. 2019", "Mathews et al. 2023", "Gallazzi et al. 2005"),
    ),
    "prospector": GalaxyFamily(
        name="prospector",
        theta=prospector.ProspectorTheta,
        physics=prospector.prospector,
        features=prospector.FEATURES,
        prior=prospector.prior,
        training_draw=_draw_from(prospector.training_distribution),
        citations=(
            "Leja et al. 2017",
            "Leja et al. 2019",
            "Mathews et al. 2023",
            "Gallazzi et al. 2005",
            "Draine & Li 2007",
            "Nenkova et al. 2008",
            "Byler et al. 2017",
        ),
        ssp="pegase2_stellar",
        emits=True,
    ),
}


def family(name: str) -> GalaxyFamily:
    """The model of this name.

    Raises ValueError listing the known names.
    """
    if name not in FAMILIES:
        raise ValueError(f"unknown physics {name!r}: expected one of {', '.join(FAMILIES)}")
    return FAMILIES[name]
