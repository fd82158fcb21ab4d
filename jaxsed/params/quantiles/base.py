"""Quantiles and tails: the two functions, what is known of them, and normal coordinates."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.scipy.special import ndtri

from jaxsed.core.types import Prior


@singledispatch
def quantile(prior: Prior, p: Array, q: Array) -> Array:
    """The value below which a draw lies with probability p, and above which with q = 1 - p.

    Elementwise where `prior` has a batch shape.

    Raises ValueError for a distribution that is not in `tails`, which is its inverse.
    """
    raise ValueError(f"the quantiles of {type(prior).__name__} are not known")


@singledispatch
def tails(prior: Prior, value: Array) -> tuple[Array, Array]:
    """Probabilities below and above a value inside the support; the inverse of `quantile`."""
    raise ValueError(f"the distribution function of {type(prior).__name__} is not known")


def is_known(prior: Prior) -> bool:
    """Whether `quantile` and `tails` know the distribution and, of a mixture, every component."""
    if isinstance(prior, dist.ExpandedDistribution):
        return not prior.event_shape and is_known(prior.base_dist)
    if isinstance(prior, dist.MixtureSameFamily):
        return is_known(prior.component_distribution)
    if isinstance(prior, dist.MixtureGeneral):
        return all(is_known(part) for part in prior.component_distributions)
    default = quantile.dispatch(object)
    return quantile.dispatch(type(prior)) is not default


def to_normal(p: Array, q: Array) -> Array:
    """The standard-normal coordinate with probability p below and q above it, at most 8 long."""
    below = p < q
    # The floor is far outside any posterior, and keeps derivatives finite.
    tail = jnp.maximum(jnp.where(below, p, q), jnp.finfo(jnp.result_type(p, q)).tiny)
    z = jnp.maximum(ndtri(tail), -U_MAX)
    return jnp.where(below, z, -z)


U_MAX = 8.0
"""Longest standard-normal coordinate that values are carried to."""


def bounds(support: Any) -> tuple[Any, Any]:
    """Lower and upper bound of a support, infinite where it has none."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return getattr(support, "lower_bound", -jnp.inf), getattr(support, "upper_bound", jnp.inf)
