"""PROVABGS rest-frame spectra from the physics, and the training of their emulator."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from jaxsed import params
from jaxsed.core.constants import C_LIGHT
from jaxsed.core.keys import typed_key
from jaxsed.cosmology import PLANCK15, Cosmology, age
from jaxsed.emulators.spectral.emulator import (
    Resolution,
    SpectralGrid,
    nodes_resolution,
    spectral_grid,
)
from jaxsed.emulators.spectral.provabgs import (
    BURST_INPUTS,
    SMOOTH_INPUTS,
    Burst,
    ProvabgsSpectrum,
    Screen,
    Smooth,
    provabgs_spectrum,
)
from jaxsed.emulators.spectral.published import PARAMETERS
from jaxsed.emulators.training.spectral import (
    SpectrumSettings,
    SpectrumTarget,
    train_spectrum,
)
from jaxsed.sps.dust.attenuation import BIRTH_CLOUD_AGE_GYR, CharlotFall, bump_strength
from jaxsed.sps.models.provabgs import (
    BURST_WIDTH_DEX,
    T_BURST_GYR,
    Provabgs,
    provabgs,
)
from jaxsed.sps.models.registry import family
from jaxsed.sps.populations.composite import Formation, Populations, populations
from jaxsed.sps.populations.sfh import IntervalMass, burst
from jaxsed.sps.ssp.grid import SSPGrid

WAVE_RANGE = (2000.0, 60_000.0)
"""Angstrom."""

REDSHIFT_RANGE = (0.0, 0.65)
"""Of the galaxies an emulator is trained for: that of the DESI Bright Galaxy Survey."""

BLOCK = 256
"""Galaxies simulated together: their spectra then stay in the processor's caches."""

_BURST_WIDTH = BURST_WIDTH_DEX * params.LN10


@struct.dataclass(eq=False)  # equal only if the same object, so that it can be hashed
class RestFrameProvabgs:
    """The direct physics: a rest-frame spectrum model on the nodes of an SSP grid."""

    stars: Populations
    physics: Provabgs
    dust: CharlotFall
    ln_unit: Array
    """[wave] ln of Lsun/Angstrom per Lsun/Hz."""
    cosmology: Cosmology
    birth_cloud_age: float = struct.field(pytree_node=False)
    """Gyr."""
    grid: SpectralGrid = struct.field(pytree_node=False)
    parameter_names: tuple[str, ...] = struct.field(pytree_node=False)

    @property
    def wave(self) -> np.ndarray:
        """[wave] rest-frame vacuum Angstrom, increasing."""
        return self.grid.wave

    @property
    def resolution(self) -> Resolution:
        """How sharp the spectra are."""
        return self.grid.resolution

    def __call__(self, theta: Any) -> Array:
        """ln L_lambda [wave] in ln(Lsun/Angstrom per Msun formed) of one `ProvabgsTheta`."""
        t_age = age(theta.redshift, self.cosmology)
        formation = self.physics.formation(theta, t_age)
        young, old = self.stars.light(formation, self.physics.log_z(theta))
        young_seen, old_seen = self.dust(theta.dust1, theta.dust2, theta.dust_index)
        # the sum before diffuse dust, which may underflow
        light = young * (young_seen / jnp.maximum(old_seen, 1e-30)) + old
        return (
            jnp.log(light) + self.ln_unit - self.dust.diffuse.depth(theta.dust2, theta.dust_index)
        )

    def smooth(self, inputs: Smooth) -> Array:
        """ln L_lambda [wave] of the smooth component of unit mass, before diffuse dust."""
        basis = self.physics.history(inputs.age)
        mass, upper = inputs.beta @ basis.mass, inputs.beta @ basis.upper
        total = jnp.maximum(jnp.sum(mass), 1e-12)
        formation = Formation(IntervalMass(mass / total, upper / total))
        young, old = self.stars.light(formation, self._log_z(inputs))
        return jnp.log(jnp.exp(-inputs.dust1 * self.dust.birth_cloud) * young + old) + self.ln_unit

    def burst(self, inputs: Burst) -> Array:
        """ln L_lambda [wave] of a burst of unit mass, before diffuse dust."""
        event = burst(jnp.log(inputs.t_burst), _BURST_WIDTH, inputs.age, self.stars.axis)
        total = jnp.sum(event.mass)
        unit = IntervalMass(event.mass / total, event.upper / total)
        none = IntervalMass(jnp.zeros_like(unit.mass), jnp.zeros_like(unit.upper))
        _, light = self.stars.light(Formation(none, unit), self._log_z(inputs))
        return jnp.log(light) + self.ln_unit

    def _log_z(self, inputs: Any) -> Array:
        """The metallicity history, which depends on the two gammas alone."""
        return self.physics.log_z(inputs)


def rest_frame_provabgs(
    ssp: SSPGrid,
    *,
    wave_range: tuple[float, float] = WAVE_RANGE,
    birth_cloud_age: float = BIRTH_CLOUD_AGE_GYR,
    cosmology: Cosmology = PLANCK15,
) -> RestFrameProvabgs:
    """The physics at the grid's own nodes between two wavelengths in Angstrom.

    `birth_cloud_age` is in Gyr.

    Raises ValueError if the grid does not cover the range.
    """
    wave = np.asarray(ssp.wave, float)
    low, high = wave_range
    if not wave[0] <= low < high <= wave[-1]:
        raise ValueError(
            f"the SSP grid covers {wave[0]:.4g} to {wave[-1]:.4g} Angstrom, not {low:g} to {high:g}"
        )
    keep = (wave >= low) & (wave <= high)
    lnu = np.asarray(ssp.lnu)[..., keep]
    cut = dataclasses.replace(ssp, wave=wave[keep].astype(np.float32), lnu=lnu)
    stars = populations(cut, birth_cloud_age=birth_cloud_age)
    nodes = wave[keep]
    return RestFrameProvabgs(
        stars=stars,
        physics=provabgs(stars.axis, stars.log_z_solar),
        dust=CharlotFall.build(nodes),
        ln_unit=jnp.asarray(np.log(C_LIGHT / nodes**2), float),
        cosmology=cosmology,
        birth_cloud_age=birth_cloud_age,
        grid=spectral_grid(nodes, nodes_resolution(nodes, ssp.resolution)),
        parameter_names=PARAMETERS,
    )


def screen_of(dust: CharlotFall) -> Screen:
    """The diffuse dust in the form that an emulator carries."""
    curve = dust.diffuse
    strength = jnp.asarray([bump_strength(0.0), bump_strength(1.0) - bump_strength(0.0)], float)
    return Screen(curve.calzetti, curve.bump, curve.ln_wave_ratio, strength)  # type: ignore[union-attr]


def component_simulators(
    model: RestFrameProvabgs, redshift_range: tuple[float, float] = REDSHIFT_RANGE
) -> dict[str, Callable[[Array, int], tuple[Array, Array]]]:
    """``simulate(key, n) -> (parameters, ln flux)`` for `train_spectrum`, of both components.

    Parameters are drawn from the thick-tailed training distribution of PROVABGS, but for the time
    of the burst: up to the largest of the prior whatever the age of the galaxy, evenly in its log
    in six cases of ten and evenly in time in the others.
    """
    draw = family("provabgs").training_draw
    low, high = redshift_range

    def smooth(key: Array, model: RestFrameProvabgs) -> tuple[Array, Array]:
        key_z, key_theta = jax.random.split(key)
        redshift = low + (high - low) * jax.random.uniform(key_z)
        theta = draw(key_theta, redshift)
        t_age = age(redshift, model.cosmology)
        inputs = Smooth(theta.beta, theta.gamma1, theta.gamma2, theta.dust1, t_age)
        return params.features(inputs, SMOOTH_INPUTS), model.smooth(inputs)

    def bursts(key: Array, model: RestFrameProvabgs) -> tuple[Array, Array]:
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
        return params.features(inputs, BURST_INPUTS), model.burst(inputs)

    def simulator(one: Callable) -> Callable[[Array, int], tuple[Array, Array]]:
        @jax.jit
        def blocks(keys: Array, model: RestFrameProvabgs) -> tuple[Array, Array]:
            return jax.lax.map(lambda key: one(key, model), keys, batch_size=BLOCK)

        return lambda key, n: blocks(jax.random.split(key, n), model)

    return {"smooth": simulator(smooth), "burst": simulator(bursts)}


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
    key: Array,
    model: RestFrameProvabgs,
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

    def one(key: Array, model: RestFrameProvabgs) -> tuple[Any, Array]:
        key_z, key_theta = jax.random.split(key)
        redshift = low + (high - low) * jax.random.uniform(key_z)
        if thick:
            theta = kind.training_draw(key_theta, redshift)
        else:
            prior = kind.prior(redshift, model.cosmology)
            u = jax.random.normal(key_theta, (params.dimension(prior),))
            theta = params.draw(prior, u)
        return theta, model(theta)

    run = jax.jit(lambda keys, model: jax.lax.map(lambda k: one(k, model), keys, batch_size=BLOCK))
    thetas, ln_flux = run(jax.random.split(typed_key(key), n), model)
    return thetas, np.asarray(ln_flux)


def train_provabgs_spectrum(
    key: Array,
    model: RestFrameProvabgs,
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
        parts["smooth"], parts["burst"], screen_of(model.dust),
        burst_width=_BURST_WIDTH, cosmology=model.cosmology,
        record={
            "physics": "provabgs", "training": notes, "redshift_range": list(redshift_range),
            "birth_cloud_age": model.birth_cloud_age,
        },
    )  # fmt: skip
