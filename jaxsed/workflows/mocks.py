"""Mock galaxies with known parameters, and whether two forward models give the same posteriors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsed import infer, params
from jaxsed.core.keys import typed_key
from jaxsed.core.types import Forward, Key, Model, Prior, Theta
from jaxsed.likelihood import MAG_TO_RELATIVE, photometry
from jaxsed.problem import Problem
from jaxsed.sps.models.registry import GalaxyFamily

OUTLIER = 3.0
"""|Q| of a pair of posteriors that exclude each other (Mathews+ 2023, section 3.2)."""

_BATCH = 64


class Mocks(NamedTuple):
    """Galaxies drawn from the prior, with noise."""

    prior: Prior
    """The prior of each: leaves [galaxy, ...]."""
    truth: Any
    """Theta of arrays [galaxy, ...]."""
    flux: np.ndarray
    """[galaxy, band] without noise, maggies."""
    noise: np.ndarray
    """[galaxy, band] 1 sigma, maggies; that of the flux without noise, so that noise and
    likelihood agree exactly."""
    observed: np.ndarray
    """[galaxy, band] with noise, maggies."""

    def take(self, rows: np.ndarray) -> Mocks:
        """Some of them."""
        return jax.tree.map(lambda a: a[rows], self)


def mock_galaxies(
    key: Key,
    family: GalaxyFamily,
    physics: Model,
    redshift: np.ndarray,
    *,
    noise: float = 0.05,
    depth: float = 28.0,
) -> Mocks:
    """One galaxy from the prior at each redshift, with the fluxes of the direct physics.

    Args:
        key: random key of the parameters and the noise.
        family: whose prior it is.
        physics: ``physics(theta) -> flux [band]`` in maggies, a pytree.
        redshift: [galaxy].
        noise: relative to the flux, 1 sigma.
        depth: AB magnitude of the noise of the sky, 1 sigma, added in quadrature: without it bands
            that dust puts out would be measured as well as any.
    """
    key_truth, key_noise = jax.random.split(typed_key(key))
    z = jnp.asarray(redshift, float)
    u = jax.random.normal(key_truth, (len(z), params.dimension(family.prior(z[0]))))
    truth = jax.jit(jax.vmap(lambda z, u: params.draw(family.prior(z), u)))(z, u)
    flux = np.asarray(
        jax.jit(lambda m, t: jax.lax.map(m, t, batch_size=_BATCH))(physics, truth), float
    )
    sigma = np.hypot(noise * flux, 10.0 ** (-0.4 * depth))
    observed = flux + sigma * np.asarray(jax.random.normal(key_noise, flux.shape), float)
    return Mocks(jax.vmap(family.prior)(z), truth, flux, sigma, observed)


def fit_mocks(
    keys: Key,
    mocks: Mocks,
    forward: Forward,
    emulator_sigma: np.ndarray,
    method: infer.Method,
    report: Any = None,
) -> infer.Samples:
    """Posteriors of mocks with a forward model.

    Args:
        keys: one per galaxy.
        mocks: the galaxies.
        forward: ``forward(theta) -> flux [band]`` in maggies.
        emulator_sigma: [band] error of the forward model [mag]; zero for the physics.
        method: of the sampler.
        report: see `infer.sample`.
    """
    error = np.hypot(mocks.noise, MAG_TO_RELATIVE * emulator_sigma * mocks.flux)
    data = photometry(mocks.observed, error, error_floor=0.0)
    problem = Problem(mocks.prior, forward, data)
    return infer.sample(keys, problem, method, report=report)


class Agreement(NamedTuple):
    """Two posteriors of each galaxy compared, per scalar parameter."""

    names: tuple[str, ...]
    """[parameter]."""
    q: np.ndarray
    """[parameter, galaxy] difference of the medians over the root of the summed squares of the
    half-widths (Mathews+ 2023, eq. 10)."""
    shift: np.ndarray
    """[parameter, galaxy] difference of the medians in half-widths of the second."""
    width_ratio: np.ndarray
    """[parameter, galaxy] half-width of the first over that of the second."""

    def figures(self) -> dict[str, dict[str, float]]:
        """Summaries per parameter: median |shift|, median ratio of widths, largest |Q|, and the
        share of the galaxies with |Q| of `OUTLIER` or more."""
        return {
            name: {
                "shift": float(np.median(np.abs(self.shift[i]))),
                "width_ratio": float(np.median(self.width_ratio[i])),
                "q_max": float(np.max(np.abs(self.q[i]))),
                "outliers": float(np.mean(np.abs(self.q[i]) >= OUTLIER)),
            }
            for i, name in enumerate(self.names)
        }


def agreement(first: Any, second: Any) -> Agreement:
    """Compare posteriors of the same galaxies: thetas of arrays [galaxy, chain, draw, ...].

    Fixed parameters, whose draws are all alike, are left out.
    """
    names, parts = [], []
    theirs = dict(scalars(second))
    for name, draws in scalars(first):
        summaries = []
        for values in (draws, theirs[name]):
            flat = np.asarray(values, float).reshape(len(values), -1)
            low, middle, high = np.percentile(flat, (15.87, 50.0, 84.13), axis=1)
            summaries.append((middle, 0.5 * (high - low)))
        (m1, s1), (m2, s2) = summaries
        if not (s1 > 0).all() or not (s2 > 0).all():
            continue
        names.append(name)
        parts.append(((m1 - m2) / np.hypot(s1, s2), (m1 - m2) / s2, s1 / s2))
    q, shift, ratio = (np.array([part[i] for part in parts]) for i in range(3))
    return Agreement(tuple(names), q, shift, ratio)


def scalars(theta: Theta) -> Iterator[tuple[str, np.ndarray]]:
    """(name, draws [galaxy, chain, draw]) of every scalar parameter but the redshift."""
    for name, value in theta._asdict().items():
        value = np.asarray(value)
        if name == "redshift":
            continue
        if value.ndim == 3:
            yield name, value
        else:
            for k in range(value.shape[-1]):
                yield f"{name}_{k + 1}", value[..., k]
