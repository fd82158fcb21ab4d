"""PROVABGS rest-frame spectra from the physics, and the training of their emulator."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsed import params
from jaxsed.core.keys import typed_key
from jaxsed.core.types import Key
from jaxsed.cosmology import PLANCK15, Cosmology, age
from jaxsed.emulators.spectral.provabgs import (
    BURST_INPUTS,
    SMOOTH_INPUTS,
    Burst,
    ProvabgsSpectrum,
    Smooth,
    provabgs_spectrum,
)
from jaxsed.emulators.training.pairs import Simulate
from jaxsed.emulators.training.spectral import (
    SpectrumSettings,
    SpectrumTarget,
    train_spectrum,
)
from jaxsed.rest_frame.dust_curves import KriekConroyCurve
from jaxsed.rest_frame.spectrum import nodes_resolution, spectral_grid
from jaxsed.sps.dust.attenuation import BIRTH_CLOUD_AGE_GYR
from jaxsed.sps.models.provabgs import BURST_WIDTH_DEX, T_BURST_GYR, provabgs
from jaxsed.sps.models.registry import family
from jaxsed.sps.populations.composite import Formation
from jaxsed.sps.populations.sfh import IntervalMass, burst
from jaxsed.sps.spectra.rest_frame import RestSpectrum, rest_spectrum
from jaxsed.sps.ssp.grid import SSPGrid
from jaxsed.workflows.simulation import in_blocks, simulator

WAVE_RANGE = (2000.0, 60_000.0)
"""Angstrom."""

REDSHIFT_RANGE = (0.0, 0.65)
"""Of the galaxies an emulator is trained for: that of the DESI Bright Galaxy Survey."""

_BURST_WIDTH = BURST_WIDTH_DEX * params.LN10


def rest_frame_provabgs(
    ssp: SSPGrid,
    *,
    wave_range: tuple[float, float] = WAVE_RANGE,
    birth_cloud_age: float = BIRTH_CLOUD_AGE_GYR,
    cosmology: Cosmology = PLANCK15,
) -> RestSpectrum:
    """The physics of PROVABGS at the grid's own nodes between two wavelengths in Angstrom.

    `birth_cloud_age` is in Gyr.

    Raises ValueError if the grid does not cover the range.
    """
    model = rest_spectrum(
        provabgs, ssp,
        wave_range=wave_range, birth_cloud_age=birth_cloud_age, cosmology=cosmology,
    )  # fmt: skip
    resolution = nodes_resolution(model.wave, ssp.resolution)
    return dataclasses.replace(model, grid=spectral_grid(model.wave, resolution))


def smooth_component(model: RestSpectrum, inputs: Smooth) -> Array:
    """ln L_lambda [wave] of the smooth component of unit mass, before diffuse dust.

    `model` is that of `rest_frame_provabgs`.
    """
    basis = model.physics.history(inputs.age)
    mass, upper = inputs.beta @ basis.mass, inputs.beta @ basis.upper
    total = jnp.maximum(jnp.sum(mass), 1e-12)
    formation = Formation(IntervalMass(mass / total, upper / total))
    young, old = model.stars.light(formation, model.physics.log_z(inputs))
    return model.ln_luminosity(model.dust.clouds(inputs.dust1) * young + old)


def burst_component(model: RestSpectrum, inputs: Burst) -> Array:
    """ln L_lambda [wave] of a burst of unit mass, before diffuse dust.

    `model` is that of `rest_frame_provabgs`.
    """
    event = burst(jnp.log(inputs.t_burst), _BURST_WIDTH, inputs.age, model.stars.axis)
    total = jnp.sum(event.mass)
    unit = IntervalMass(event.mass / total, event.upper / total)
    none = IntervalMass(jnp.zeros_like(unit.mass), jnp.zeros_like(unit.upper))
    _, light = model.stars.light(Formation(none, unit), model.physics.log_z(inputs))
    return model.ln_luminosity(light)


def component_simulators(
    model: RestSpectrum, redshift_range: tuple[float, float] = REDSHIFT_RANGE
) -> dict[str, Simulate]:
    """``simulate(key, n) -> (parameters, ln flux)`` for `train_spectrum`, of both components.

    Parameters are drawn from the thick-tailed training distribution of PROVABGS, but for the time
    of the burst: up to the largest of the prior whatever the age of the galaxy, evenly in its log
    in six cases of ten and evenly in time in the others.
    """
    draw = family("provabgs").training_draw
    low, high = redshift_range

    def smooth(key: Key, model: RestSpectrum) -> tuple[Array, Array]:
        key_z, key_theta = jax.random.split(key)
        redshift = low + (high - low) * jax.random.uniform(key_z)
        theta = draw(key_theta, redshift)
        t_age = age(redshift, model.cosmology)
        inputs = Smooth(theta.beta, theta.gamma1, theta.gamma2, theta.dust1, t_age)
        return params.features(inputs, SMOOTH_INPUTS), smooth_component(model, inputs)

    def bursts(key: Key, model: RestSpectrum) -> tuple[Array, Array]:
        key_z, key_theta, key_t, key_which = jax.random.split(key, 4)
        redshift = low + (high - low) * jax.random.uniform(key_z)
        theta = draw(key_theta, redshift)
        first, last = T_BURST_GYR
        u = jax.random.uniform(key_t)
        t_burst = jnp.where(
            jax.random.bernoulli(key_which, 0.6),
            first * (last / first) ** u,
            first + (last - first) * u,
        )
        inputs = Burst(t_burst, theta.gamma1, theta.gamma2, age(redshift, model.cosmology))
        return params.features(inputs, BURST_INPUTS), burst_component(model, inputs)

    return {"smooth": simulator(smooth, model), "burst": simulator(bursts, model)}


def training_box(
    redshift_range: tuple[float, float], cosmology: Cosmology = PLANCK15
) -> dict[str, tuple[float, float]]:
    """Range of every feature that `component_simulators` draws from."""
    prior = family("provabgs").prior(0.0, cosmology)
    ages = (float(age(z, cosmology)) for z in reversed(redshift_range))
    return {
        **{f"beta_stick_{k}": (0.0, 1.0) for k in (1, 2, 3)},
        **{
            f"log10_{name}": tuple(np.log10([getattr(prior, name).low, getattr(prior, name).high]))
            for name in ("gamma1", "gamma2")
        },
        "log10_t_burst": tuple(np.log10(T_BURST_GYR)),
        "dust1": (float(prior.dust1.low), float(prior.dust1.high)),
        "age": tuple(ages),
    }


def unseen_galaxies(
    key: Key,
    model: RestSpectrum,
    n: int,
    *,
    redshift_range: tuple[float, float] = REDSHIFT_RANGE,
    thick: bool = False,
) -> tuple[Any, np.ndarray]:
    """Galaxies to judge an emulator by: thetas [galaxy] and their ln flux [galaxy, wave].

    Drawn from the PROVABGS prior at redshifts even in the range, or from the thick-tailed
    training distribution.
    """
    kind = family("provabgs")
    low, high = redshift_range

    def one(key: Key, model: RestSpectrum) -> tuple[Any, Array]:
        key_z, key_theta = jax.random.split(key)
        redshift = low + (high - low) * jax.random.uniform(key_z)
        if thick:
            theta = kind.training_draw(key_theta, redshift)
        else:
            prior = kind.prior(redshift, model.cosmology)
            u = jax.random.normal(key_theta, (params.dimension(prior),))
            theta = params.draw(prior, u)
        return theta, model(theta)

    thetas, ln_flux = in_blocks(one)(jax.random.split(typed_key(key), n), model)
    return thetas, np.asarray(ln_flux)


def train_provabgs_spectrum(
    key: Key,
    model: RestSpectrum,
    settings: dict[str, SpectrumSettings],
    *,
    redshift_range: tuple[float, float] = REDSHIFT_RANGE,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> ProvabgsSpectrum:
    """Train the emulators of both components and put them together; errors are not yet measured.

    Args:
        key: random key.
        model: the physics.
        settings: for "smooth" and "burst".
        redshift_range: of the training set.
        checkpoint: stem of the files that an interrupted training continues from.
        progress: show a progress line.
    """
    key = typed_key(key)
    inputs = {"smooth": SMOOTH_INPUTS, "burst": BURST_INPUTS}
    box = training_box(redshift_range, model.cosmology)
    parts, notes = {}, {}
    for k, (name, simulate) in enumerate(component_simulators(model, redshift_range).items()):
        ranges = [box[feature] for feature in inputs[name]]
        target = SpectrumTarget(
            inputs[name], model.wave, model.resolution, tuple(np.transpose(ranges))
        )
        trained = train_spectrum(
            jax.random.fold_in(key, k), simulate, target, settings=settings[name],
            checkpoint=None if checkpoint is None else Path(f"{checkpoint}.{name}"),
            progress=progress,
        )  # fmt: skip
        parts[name], notes[name] = trained.emulator, trained.notes
    return provabgs_spectrum(
        parts["smooth"], parts["burst"], KriekConroyCurve.build(model.wave),
        burst_width=_BURST_WIDTH, cosmology=model.cosmology,
        record={
            "physics": "provabgs", "training": notes, "redshift_range": list(redshift_range),
            "birth_cloud_age": model.birth_cloud_age,
        },
    )  # fmt: skip
