"""Training an emulator of a named galaxy model for a set of bands."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import Array

from jaxsed import params
from jaxsed.bands.filters import Filter
from jaxsed.core.types import Key
from jaxsed.cosmology import PLANCK15, Cosmology
from jaxsed.emulators import (
    EmulatorTarget,
    PhotometricEmulator,
    TrainSettings,
    train_photometric,
)
from jaxsed.emulators.training.networks import FAST
from jaxsed.emulators.training.pairs import Simulate
from jaxsed.learn import History
from jaxsed.sps.models.galaxy import GalaxyModel
from jaxsed.sps.models.registry import IGM, GalaxyFamily
from jaxsed.sps.ssp.grid import SSPGrid
from jaxsed.workflows import simulation

SOFTENING = -6.0
"""Softening magnitude of the fluxes at 10 pc of 1e10 Msun: some 15 mag below their light."""

CACHE_SETTINGS = TrainSettings(
    n_train=1_000_000,
    width=128,
    mu_0=SOFTENING,
    loss="band_rmse",
    fit=dataclasses.replace(FAST, max_seconds=900.0),
)
"""Sizes of an emulator that `jaxsed fit --train` makes for the user's cache."""

EDGE = 4.0
"""Largest normal coordinate at which derivatives are taken."""


def simulator(
    family: GalaxyFamily,
    model: GalaxyModel,
    redshift_range: tuple[float, float],
    *,
    tangents: bool = False,
) -> Simulate:
    """``simulate(key, n) -> (features, F10)`` for `train_photometric`.

    With `tangents` also the changes of both along a random direction in the redshift and in the
    normal coordinates of the prior.
    """
    low, high = redshift_range

    def one(key: Key, model: GalaxyModel) -> tuple[Array, ...]:
        key_z, key_theta, key_dz, key_du = jax.random.split(key, 4)
        redshift = low + (high - low) * jax.random.uniform(key_z)
        theta = family.training_draw(key_theta, redshift)
        if not tangents:
            return params.features(theta, family.features), model.shape(theta)

        def pair(redshift, u):
            moved = params.constrain(family.prior(redshift), u)[0]
            moved = moved._replace(log_mass_formed=theta.log_mass_formed)
            return params.features(moved, family.features), model.shape(moved)

        # the edges of the box are infinitely far away in normal coordinates
        u = jnp.clip(params.unconstrain(family.prior(redshift), theta), -EDGE, EDGE)
        # as long in redshift as the standard deviation of its uniform distribution
        dz = (high - low) / math.sqrt(12) * jax.random.normal(key_dz)
        values, changes = jax.jvp(pair, (redshift, u), (dz, jax.random.normal(key_du, u.shape)))
        return *values, *changes

    return simulation.simulator(one, model)


def emulation(
    family: GalaxyFamily,
    ssp: SSPGrid,
    bands: Sequence[Filter],
    redshift_range: tuple[float, float],
    *,
    cosmology: Cosmology = PLANCK15,
    birth_cloud_age: float | None = None,
    igm: str = IGM,
    tangents: bool = False,
) -> tuple[Simulate, EmulatorTarget]:
    """What an emulator of `family` in these bands learns from, and what it is of.

    `tangents` are for settings with a `sobolev` weight, see `simulator`.

    Raises ValueError naming bands that the SSP grid does not reach in the redshift range.
    """
    model = family.model(
        ssp, bands,
        redshift_range=redshift_range,
        birth_cloud_age=birth_cloud_age, cosmology=cosmology, igm=igm,
    )  # fmt: skip
    target = EmulatorTarget(
        feature_names=family.features,
        band_names=[band.name for band in bands],
        curves=tuple(bands),
        physics=family.name,
        ssp=ssp.name,
        cosmology=cosmology,
        citations=(*family.citations, ssp.citation),
        birth_cloud_age=family.clouds(birth_cloud_age),
        igm=igm,
    )
    return simulator(family, model, redshift_range, tangents=tangents), target


def train_emulator(
    key: Key,
    family: GalaxyFamily,
    ssp: SSPGrid,
    bands: Sequence[Filter],
    *,
    redshift_range: tuple[float, float],
    settings: TrainSettings,
    cosmology: Cosmology = PLANCK15,
    birth_cloud_age: float | None = None,
    igm: str = IGM,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> tuple[PhotometricEmulator, History]:
    """Train an emulator of `family` for these bands, with its errors measured on unseen pairs.

    Raises ValueError naming bands that the SSP grid does not reach in the redshift range.
    """
    simulate, target = emulation(
        family, ssp, bands, redshift_range,
        cosmology=cosmology, birth_cloud_age=birth_cloud_age, igm=igm,
        tangents=settings.sobolev > 0,
    )  # fmt: skip
    return train_photometric(
        key, simulate, target, settings=settings, checkpoint=checkpoint, progress=progress
    )
