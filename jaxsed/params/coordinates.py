"""Distributions and standard-normal coordinates: `from_normal`, `to_normal` and `coordinates`.

A type of your own is registered with these three.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import singledispatch
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import log_ndtr, ndtr, ndtri
from numpyro.distributions.distribution import Independent
from numpyro.distributions.transforms import AbsTransform

from jaxsed.core.types import Prior
from jaxsed.params import quantiles
from jaxsed.params.distributions import FlatDirichlet


@singledispatch
def from_normal(prior: Prior, u: Array) -> tuple[Array, Array]:
    """Map standard-normal coordinates to a value of `prior`.

    Returns ``(value, excess)``, where ``excess`` is the log density of ``u`` beyond N(0, I): zero
    for every distribution that this package carries.

    Raises TypeError for an object that is not a continuous distribution, and ValueError for a
    distribution that cannot be carried exactly.
    """
    coordinates(prior)
    return quantiles.quantile(prior, ndtr(u), ndtr(-u)), jnp.zeros_like(u).sum()


@singledispatch
def coordinates(prior: Prior) -> int:
    """Number of standard-normal coordinates of a distribution: of one value, if it has a batch.

    Raises as `from_normal` does.
    """
    if not isinstance(prior, dist.Distribution) or prior.is_discrete:
        raise TypeError(f"expected a continuous numpyro distribution, got {type(prior).__name__}")
    if prior.event_shape or not quantiles.is_known(prior):
        raise refusal(prior, REASONS.get(type(prior).__name__, "its quantiles are not known"))
    return 1


MATRIX = "its values are matrices: only numbers and vectors are carried"
_CIRCLE = "a circle has no ends that quantiles could start from: give a Uniform or a Normal"
REASONS = {
    "Delta": "it is one known value: give the number itself",
    "FoldedDistribution": "folding is not one to one: give HalfNormal, HalfCauchy or a truncation",
    "ImproperUniform": "it cannot be normalised: give a Uniform with bounds",
    "LeftCensoredDistribution": "censoring belongs to data, not to a prior",
    "RightCensoredDistribution": "censoring belongs to data, not to a prior",
    "IntervalCensoredDistribution": "censoring belongs to data, not to a prior",
    "VonMises": _CIRCLE,
    "SineSkewed": _CIRCLE,
    "SineBivariateVonMises": _CIRCLE,
    "ProjectedNormal": "a sphere has no ends that quantiles could start from",
    "CAR": "give its covariance to a MultivariateNormal",
    "HurdleGamma": "a single value of it has a probability of its own",
    "HurdleLogNormal": "a single value of it has a probability of its own",
    "Unit": "it has no value",
}
"""Why some distributions are refused."""


def refusal(prior: Prior, reason: str) -> ValueError:
    return ValueError(
        f"{type(prior).__name__} cannot be carried to standard-normal coordinates: {reason}"
    )


@coordinates.register
def _(prior: Independent) -> int:
    coordinates(prior.base_dist)
    if prior.base_dist.event_shape:
        raise refusal(prior, MATRIX)
    return math.prod(prior.event_shape)


@from_normal.register
def _(prior: Independent, u: Array) -> tuple[Array, Array]:
    return from_normal(prior.base_dist, u)


@from_normal.register
def _(prior: dist.Normal, u: Array) -> tuple[Array, Array]:
    return prior.loc + prior.scale * u, jnp.zeros_like(u).sum()


@from_normal.register(dist.InverseGamma)
@from_normal.register(dist.Pareto)
def _(prior: Prior, u: Array) -> tuple[Array, Array]:
    # Transformations of others to numpyro, whose quantiles are known by themselves.
    return quantiles.quantile(prior, ndtr(u), ndtr(-u)), jnp.zeros_like(u).sum()


@from_normal.register
def _(prior: dist.Uniform, u: Array) -> tuple[Array, Array]:
    value = prior.low + (prior.high - prior.low) * ndtr(u)
    return _inside(prior, value), jnp.zeros_like(u).sum()


@from_normal.register
def _(prior: dist.LogUniform, u: Array) -> tuple[Array, Array]:
    ln_low, ln_high = jnp.log(prior.low), jnp.log(prior.high)
    value = jnp.exp(ln_low + (ln_high - ln_low) * ndtr(u))
    return _inside(prior, value), jnp.zeros_like(u).sum()


@coordinates.register
def _(prior: dist.ExpandedDistribution) -> int:
    return coordinates(prior.base_dist)


@from_normal.register
def _(prior: dist.ExpandedDistribution, u: Array) -> tuple[Array, Array]:
    return from_normal(prior.base_dist, u)


@coordinates.register
def _(prior: dist.MaskedDistribution) -> int:
    if prior._mask is not True:
        raise refusal(prior, "without its density nothing normalises it")
    return coordinates(prior.base_dist)


@from_normal.register
def _(prior: dist.MaskedDistribution, u: Array) -> tuple[Array, Array]:
    coordinates(prior)
    return from_normal(prior.base_dist, u)


@coordinates.register
def _(prior: dist.TransformedDistribution) -> int:
    if any(isinstance(step, AbsTransform) for step in _steps(prior.transforms)):
        raise refusal(prior, REASONS["FoldedDistribution"])
    return coordinates(prior.base_dist)


def _steps(transforms: Sequence[Any]) -> list[Any]:
    """Transforms, those inside of composed ones included."""
    found = []
    for transform in transforms:
        inner = [
            part
            for name in ("parts", "transforms", "base_transform", "_inv")
            if (part := getattr(transform, name, None)) is not None
        ]
        found.append(transform)
        for part in inner:
            found += _steps(part if isinstance(part, list | tuple) else [part])
    return found


@from_normal.register
def _(prior: dist.TransformedDistribution, u: Array) -> tuple[Array, Array]:
    coordinates(prior)
    value, excess = from_normal(prior.base_dist, u)
    for transform in prior.transforms:
        value = transform(value)
    return value, excess


def _inside(prior: Prior, value: Array) -> Array:
    # Rounding can carry a value past the end of the prior, where a density would be zero.
    return jnp.clip(value, prior.low, prior.high)


@coordinates.register
def _(prior: dist.Dirichlet) -> int:
    return prior.event_shape[-1] - 1


@from_normal.register
def _(prior: FlatDirichlet, u: Array) -> tuple[Array, Array]:
    """Stick-breaking of a flat Dirichlet: stick k of K is 1 - U^(1/(K-k)) (Betancourt 2012)."""
    n = prior.event_shape[-1]
    remaining = jnp.arange(n - 1, 0, -1)
    # log_ndtr keeps small remainders exact where 1 - stick would round to zero.
    log_keep = log_ndtr(u) / remaining
    left = jnp.concatenate([jnp.zeros(1, u.dtype), jnp.cumsum(log_keep)])
    stick = jnp.concatenate([-jnp.expm1(log_keep), jnp.ones(1, u.dtype)])
    return jnp.exp(left) * stick, jnp.zeros_like(u).sum()


@from_normal.register
def _(prior: dist.Dirichlet, u: Array) -> tuple[Array, Array]:
    """Stick k is Beta(a_k, sum of a_j over j > k), by its log odds (Betancourt 2012)."""
    odds = quantiles.log_odds(*_stick_shapes(prior), ndtr(u), ndtr(-u))
    left = jnp.cumsum(jax.nn.log_sigmoid(-odds))
    log_share = jnp.concatenate(
        [jax.nn.log_sigmoid(odds) + jnp.concatenate([jnp.zeros(1, u.dtype), left[:-1]]), left[-1:]]
    )
    # A density with a concentration below one is infinite at zero, which rounding must not reach.
    least = jnp.log(jnp.finfo(u.dtype).tiny) + 0.1
    return jnp.exp(jnp.maximum(log_share, least)), jnp.zeros_like(u).sum()


def _stick_shapes(prior: dist.Dirichlet) -> tuple[Array, Array]:
    """[K - 1] shapes a and b of the beta distributions of the sticks."""
    tail = jnp.cumsum(prior.concentration[::-1])[::-1]
    return prior.concentration[:-1], tail[1:]


@coordinates.register(dist.MultivariateNormal)
@coordinates.register(dist.LowRankMultivariateNormal)
@coordinates.register(dist.MultivariateStudentT)
@coordinates.register(dist.GaussianRandomWalk)
def _(prior: Prior) -> int:
    return prior.event_shape[-1]


@from_normal.register(dist.MultivariateNormal)
@from_normal.register(dist.LowRankMultivariateNormal)
def _(prior: Prior, u: Array) -> tuple[Array, Array]:
    return prior.loc + _scale_tril(prior) @ u, jnp.zeros_like(u).sum()


def _scale_tril(prior: Prior) -> Array:
    if isinstance(prior, dist.LowRankMultivariateNormal):
        return jnp.linalg.cholesky(prior.covariance_matrix)
    return prior.scale_tril


@from_normal.register
def _(prior: dist.MultivariateStudentT, u: Array) -> tuple[Array, Array]:
    """Coordinate k given those before is a Student-t of df + k degrees of freedom, whose scale
    grows with their length (Ding 2016, eq. 1)."""
    df = prior.df + jnp.arange(u.size)
    t = quantiles.quantile(dist.StudentT(df), ndtr(u), ndtr(-u))
    growth = jnp.cumprod(1 + t**2 / df)
    before = jnp.concatenate([jnp.ones(1, u.dtype), growth[:-1]])
    z = t * jnp.sqrt(prior.df / df * before)
    return prior.loc + prior.scale_tril @ z, jnp.zeros_like(u).sum()


@from_normal.register
def _(prior: dist.GaussianRandomWalk, u: Array) -> tuple[Array, Array]:
    return prior.scale * jnp.cumsum(u), jnp.zeros_like(u).sum()


@coordinates.register
def _(prior: dist.GaussianCopula) -> int:
    coordinates(prior.marginal_dist)
    return prior.event_shape[-1]


@from_normal.register
def _(prior: dist.GaussianCopula, u: Array) -> tuple[Array, Array]:
    return from_normal(prior.marginal_dist, prior.base_dist.scale_tril @ u)


@singledispatch
def to_normal(prior: Prior, value: Array) -> Array:
    """Inverse of `from_normal`: the standard-normal coordinates of a value inside the support.

    At most 8 long: in 32-bit no value of a bounded prior is further out.
    """
    coordinates(prior)
    return quantiles.to_normal(*quantiles.tails(prior, value))


@to_normal.register
def _(prior: Independent, value: Array) -> Array:
    return to_normal(prior.base_dist, value)


@to_normal.register
def _(prior: dist.Normal, value: Array) -> Array:
    return (value - prior.loc) / prior.scale


@to_normal.register
def _(prior: dist.Uniform, value: Array) -> Array:
    return _probit((value - prior.low) / (prior.high - prior.low))


@to_normal.register
def _(prior: dist.LogUniform, value: Array) -> Array:
    return _probit(jnp.log(value / prior.low) / jnp.log(prior.high / prior.low))


@to_normal.register(dist.InverseGamma)
@to_normal.register(dist.Pareto)
def _(prior: Prior, value: Array) -> Array:
    return quantiles.to_normal(*quantiles.tails(prior, value))


@to_normal.register(dist.ExpandedDistribution)
@to_normal.register(dist.MaskedDistribution)
def _(prior: Prior, value: Array) -> Array:
    coordinates(prior)
    return to_normal(prior.base_dist, value)


@to_normal.register
def _(prior: dist.TransformedDistribution, value: Array) -> Array:
    coordinates(prior)
    for transform in reversed(prior.transforms):
        value = transform.inv(value)
    return to_normal(prior.base_dist, value)


@to_normal.register(dist.MultivariateNormal)
@to_normal.register(dist.LowRankMultivariateNormal)
def _(prior: Prior, value: Array) -> Array:
    return solve_triangular(_scale_tril(prior), value - prior.loc, lower=True)


@to_normal.register
def _(prior: dist.MultivariateStudentT, value: Array) -> Array:
    z = solve_triangular(prior.scale_tril, value - prior.loc, lower=True)
    df = prior.df + jnp.arange(z.size)
    before = jnp.concatenate([jnp.zeros(1, z.dtype), jnp.cumsum(z**2)[:-1]])
    t = z * jnp.sqrt(df / (prior.df + before))
    return quantiles.to_normal(*quantiles.tails(dist.StudentT(df), t))


@to_normal.register
def _(prior: dist.GaussianRandomWalk, value: Array) -> Array:
    return jnp.diff(value, prepend=0.0) / prior.scale


@to_normal.register
def _(prior: dist.GaussianCopula, value: Array) -> Array:
    z = to_normal(prior.marginal_dist, value)
    return solve_triangular(prior.base_dist.scale_tril, z, lower=True)


@to_normal.register
def _(prior: FlatDirichlet, value: Array) -> Array:
    n = value.shape[-1]
    return _probit((1 - sticks(value)) ** jnp.arange(n - 1, 0, -1))


@to_normal.register
def _(prior: dist.Dirichlet, value: Array) -> Array:
    tail = jnp.cumsum(value[::-1])[::-1]
    log_share, log_left = jnp.log(
        jnp.maximum(jnp.stack([value[:-1], tail[1:]]), jnp.finfo(value.dtype).tiny)
    )
    odds = log_share - log_left
    return quantiles.to_normal(*quantiles.log_odds_tails(*_stick_shapes(prior), odds))


def _probit(p: Array) -> Array:
    # Near 0 and 1 float32 would give infinities; the clip is far outside any posterior.
    limits = jnp.finfo(jnp.result_type(p, float))
    p = jnp.clip(p, limits.tiny, 1 - limits.epsneg)
    return jnp.clip(ndtri(p), -quantiles.U_MAX, quantiles.U_MAX)


def sticks(simplex: Array) -> Array:
    """Stick-breaking fractions of a simplex: ``v_k = x_k / (1 - sum_{j<k} x_j)``, shape [K-1]."""
    tail = jnp.cumsum(simplex[::-1])[::-1]
    # The floor's square is still a number in 32-bit: derivatives divide by it.
    return simplex[:-1] / jnp.maximum(tail[:-1], 1e-15)
