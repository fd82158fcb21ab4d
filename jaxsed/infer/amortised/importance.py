"""A flow's draws made exact: importance weights against the true posterior density."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from blackjax.diagnostics import psis_weights
from jax import Array

from jaxsed.core.types import Key
from jaxsed.infer.amortised.posterior import Amortised
from jaxsed.problem import Problem

KHAT_MAX = 0.7
"""Pareto shape above which weighted means cannot be trusted (Vehtari+ 2024, for any number of
draws from about 2000)."""

ROUGH = 200.0
"""Effective number of draws that samplers can learn from."""
POWERS = (1.0, 0.5, 0.25, 0.1, 0.03, 0.0)


class Weighted(NamedTuple):
    """Draws of one galaxy by their weights."""

    x: Array
    """[draw, dimension] drawn again in proportion to the weights."""
    log_density: Array
    """[draw] of the posterior, up to a constant."""
    effective: Array
    """Kish's effective number of the weighted draws."""
    khat: Array
    """Shape of the Pareto tail of the weights; infinity where no weight is finite."""
    log_evidence: Array
    """ln of the mean weight."""
    log_evidence_error: Array
    outside: Array
    """Bits that say why the galaxy is unlike the training set; zero if it is not."""
    rough: Array
    """[draw, dimension] drawn by weights to a power that leaves an effective `ROUGH` of them: where
    the posterior is, for samplers to start from."""


def weighted(key: Key, problem: Problem, amortised: Amortised, n: int, keep: int) -> Weighted:
    """`keep` draws out of `n` of the flow, by Pareto-smoothed weights (Vehtari+ 2024).

    Draws whose density is not finite have no weight; where none has any, the draws are the flow's.
    """
    key_flow, key_keep, key_order = jax.random.split(key, 3)
    x, log_q = amortised.sample(key_flow, problem, n)
    log_p = jax.vmap(problem.guarded_logdensity)(x)
    ratio = log_p - log_q
    real = jnp.isfinite(ratio)
    some = jnp.any(real)
    ratio = jnp.where(real, ratio, jnp.where(some, -jnp.inf, 0.0))
    # Infinities would make the tail's fit not a number; nothing so light gets drawn.
    top = jnp.max(ratio)
    log_weight, khat = psis_weights(jnp.maximum(ratio - top, -80.0))
    weight = jnp.exp(log_weight)
    raw = jnp.exp(ratio - top)
    mean = jnp.mean(raw)
    powers = jnp.asarray(POWERS)[:, None] * log_weight
    tempered = jax.nn.softmax(powers, axis=1)
    enough = 1.0 / jnp.sum(tempered**2, axis=1) >= min(ROUGH, n / 2)
    rows = _systematic(key_keep, weight, keep)
    rough = _systematic(key_order, tempered[jnp.argmax(enough)], keep)
    return Weighted(
        x=x[rows],
        log_density=log_p[rows],
        effective=jnp.where(some, 1.0 / jnp.sum(weight**2), 0.0),
        # Where one weight is all there is, the tail has no shape.
        khat=jnp.where(some & jnp.isfinite(khat), khat, jnp.inf),
        # The prior of the coordinates is N(0, I), whose constant the log density leaves out.
        log_evidence=jnp.where(some, top + jnp.log(mean) - _log_normal_constant(x), -jnp.inf),
        log_evidence_error=jnp.std(raw) / mean / n**0.5,
        outside=amortised.outside(problem),
        rough=x[rough],
    )


def _log_normal_constant(x: Array) -> float:
    return 0.5 * x.shape[1] * math.log(2.0 * math.pi)


def _systematic(key: Key, weight: Array, n: int) -> Array:
    """[n] indices in random order; the number of copies of each is within one of n weight / sum."""
    key_grid, key_order = jax.random.split(key)
    sums = jnp.cumsum(weight)
    grid = (jnp.arange(n) + jax.random.uniform(key_grid)) / n * sums[-1]
    rows = jnp.clip(jnp.searchsorted(sums, grid), 0, weight.size - 1)
    return jax.random.permutation(key_order, rows)
