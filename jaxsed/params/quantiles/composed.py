"""Distributions made of others: truncations, batches and mixtures."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from jaxsed.core.types import Prior
from jaxsed.params.quantiles.base import bounds, quantile, tails
from jaxsed.params.quantiles.inversion import Family, broadcast, invert

# Truncation


def _ends(prior: Prior) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Tails of the base distribution at both ends of a truncated one."""
    zero, one = jnp.zeros(()), jnp.ones(())
    low = tails(prior.base_dist, prior.low) if hasattr(prior, "low") else (zero, one)
    high = tails(prior.base_dist, prior.high) if hasattr(prior, "high") else (one, zero)
    return low, high


def _between(low: tuple[Array, Array], high: tuple[Array, Array]) -> Array:
    """Probability between two values, by the tail in which less cancels."""
    return jnp.where(low[1] < high[0], low[1] - high[1], high[0] - low[0])


def _truncated_quantile(prior: Prior, p: Array, q: Array) -> Array:
    low, high = _ends(prior)
    width = _between(low, high)
    value = quantile(prior.base_dist, low[0] + width * p, high[1] + width * q)
    # Rounding can carry a value past the end, where a density would be zero.
    value = jnp.maximum(value, prior.low) if hasattr(prior, "low") else value
    return jnp.minimum(value, prior.high) if hasattr(prior, "high") else value


def _truncated_tails(prior: Prior, value: Array) -> tuple[Array, Array]:
    low, high = _ends(prior)
    here, width = tails(prior.base_dist, value), _between(low, high)
    return (
        jnp.clip(_between(low, here) / width, 0.0, 1.0),
        jnp.clip(_between(here, high) / width, 0.0, 1.0),
    )


TRUNCATED = tuple(
    getattr(dist, name)
    for name in (
        "TwoSidedTruncatedDistribution", "LeftTruncatedDistribution", "RightTruncatedDistribution",
        "TwoSidedTruncatedGamma", "LeftTruncatedGamma", "RightTruncatedGamma",
    )
    if hasattr(dist, name)
)  # fmt: skip
"""Truncated distributions; numpyro 0.21 does not have all of them."""

for _type in TRUNCATED:
    quantile.register(_type, _truncated_quantile)
    tails.register(_type, _truncated_tails)


# Batches and mixtures


@quantile.register
def _(prior: dist.ExpandedDistribution, p: Array, q: Array) -> Array:
    return quantile(prior.base_dist, p, q)


@tails.register
def _(prior: dist.ExpandedDistribution, value: Array) -> tuple[Array, Array]:
    return tails(prior.base_dist, value)


def _component_tails(mixture: Any, value: Array) -> tuple[Array, Array]:
    """[..., component] tails of every component."""
    if isinstance(mixture, dist.MixtureSameFamily):
        return tails(mixture.component_distribution, value[..., None])
    parts = [_limited_tails(part, value) for part in mixture.component_distributions]
    below, above = zip(*parts, strict=True)
    return jnp.stack(below, axis=-1), jnp.stack(above, axis=-1)


def _limited_tails(prior: Prior, value: Array) -> tuple[Array, Array]:
    """`tails` of a component, whose support may be only part of the mixture's."""
    low, high = bounds(prior.support)
    limits = jnp.finfo(value.dtype)
    inside = jnp.clip(value, *(jnp.clip(end, limits.min, limits.max) for end in (low, high)))
    # An open end is outside of the support, where a tail might not be a number.
    inside = jnp.where(inside <= low, low + limits.tiny + limits.eps * jnp.abs(low), inside)
    below, above = tails(prior, inside)
    out = value <= low, value >= high
    return (
        jnp.where(out[0], 0.0, jnp.where(out[1], 1.0, below)),
        jnp.where(out[0], 1.0, jnp.where(out[1], 0.0, above)),
    )


def _log_mixture_tail(mixture: Any, value: Array, lower: Array) -> Array:
    below, above = _component_tails(mixture, value)
    tail = jnp.where(lower[..., None], below, above)
    return jnp.log(jnp.sum(mixture.mixing_distribution.probs * tail, axis=-1))


def _mixture_bounds(mixture: Any, p: Array, q: Array) -> tuple[Array, Array]:
    # A mixture's quantile lies between those of its components.
    if isinstance(mixture, dist.MixtureSameFamily):
        ends = quantile(mixture.component_distribution, p[..., None], q[..., None])
    else:
        ends = jnp.stack([quantile(c, p, q) for c in mixture.component_distributions], axis=-1)
    return jnp.min(ends, axis=-1), jnp.max(ends, axis=-1)


_MIXTURE = Family(_log_mixture_tail, lambda mixture, x: mixture.log_prob(x), _mixture_bounds)


def _mixture_quantile(prior: Prior, p: Array, q: Array) -> Array:
    p, q = broadcast(p, q)
    return invert(_MIXTURE, p, q, prior)


def _mixture_tails(prior: Prior, value: Array) -> tuple[Array, Array]:
    value = jnp.asarray(value, float)
    low = jnp.ones(value.shape, bool)
    below, above = _log_mixture_tail(prior, value, low), _log_mixture_tail(prior, value, ~low)
    return jnp.exp(below), jnp.exp(above)


for _type in (dist.MixtureSameFamily, dist.MixtureGeneral):
    quantile.register(_type, _mixture_quantile)
    tails.register(_type, _mixture_tails)
