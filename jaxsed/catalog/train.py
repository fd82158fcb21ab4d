"""Training an emulator of a named galaxy model for a set of bands."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
from jax import Array

from jaxsed import params
from jaxsed.cosmology import PLANCK15, Cosmology
from jaxsed.emulators import (
    EmulatorTarget,
    FilterCurve,
    PhotometricEmulator,
    TrainSettings,
    train_photometric,
)
from jaxsed.emulators.pairs import Simulate
from jaxsed.emulators.train import FAST
from jaxsed.learn import History
from jaxsed.sps.models import GalaxyFamily
from jaxsed.sps.photometry import Filter
from jaxsed.sps.sed import GalaxyModel
from jaxsed.sps.ssp import SSPGrid

CACHE_SETTINGS = TrainSettings(
    n_train=1_000_000,
    width=128,
    mu_0=-6.0,
    loss="band_rmse",
    fit=dataclasses.replace(FAST, max_seconds=900.0),
)
"""Sizes of an emulator that `jaxsed fit --train` makes for the user's cache."""

BLOCK = 256
"""Galaxies simulated together: their spectra then stay in the processor's caches."""


def simulator(family: GalaxyFamily, model: GalaxyModel, redshift_range: tuple[float, float]):
    """``simulate(key, n) -> (features, F10)`` for `train_photometric`."""
    low, high = redshift_range

    def one(key: Array, model: GalaxyModel) -> tuple[Array, Array]:
        key_z, key_theta = jax.random.split(key)
        redshift = low + (high - low) * jax.random.uniform(key_z)
        theta = family.training_draw(key_theta, redshift)
        return params.features(theta, family.features), model.shape(theta)

    @jax.jit
    def blocks(keys: Array, model: GalaxyModel) -> tuple[Array, Array]:
        return jax.lax.map(lambda key: one(key, model), keys, batch_size=BLOCK)

    def simulate(key: Array, n: int) -> tuple[Array, Array]:
        return blocks(jax.random.split(key, n), model)

    return simulate


def emulation(
    family: GalaxyFamily,
    ssp: SSPGrid,
    bands: Sequence[Filter],
    redshift_range: tuple[float, float],
    *,
    cosmology: Cosmology = PLANCK15,
    birth_cloud_age: float | None = None,
) -> tuple[Simulate, EmulatorTarget]:
    """What an emulator of `family` in these bands learns from, and what it is of.

    Raises ValueError naming bands that the SSP grid does not reach in the redshift range.
    """
    model = family.model(
        ssp, bands,
        redshift_range=redshift_range, birth_cloud_age=birth_cloud_age, cosmology=cosmology,
    )  # fmt: skip
    target = EmulatorTarget(
        feature_names=family.features,
        band_names=[band.name for band in bands],
        curves=[FilterCurve(band.wave, band.trans) for band in bands],
        physics=family.name,
        ssp=ssp.name,
        cosmology=cosmology,
        citations=(*family.citations, ssp.citation),
    )
    return simulator(family, model, redshift_range), target


def train_emulator(
    key: Array,
    family: GalaxyFamily,
    ssp: SSPGrid,
    bands: Sequence[Filter],
    *,
    redshift_range: tuple[float, float],
    settings: TrainSettings,
    cosmology: Cosmology = PLANCK15,
    birth_cloud_age: float | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> tuple[PhotometricEmulator, History]:
    """Train an emulator of `family` for these bands, with its errors measured on unseen pairs.

    Raises ValueError naming bands that the SSP grid does not reach in the redshift range.
    """
    simulate, target = emulation(
        family, ssp, bands, redshift_range, cosmology=cosmology, birth_cloud_age=birth_cloud_age
    )
    return train_photometric(
        key, simulate, target, settings=settings, checkpoint=checkpoint, progress=progress
    )
