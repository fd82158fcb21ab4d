"""Distributions that are symmetric about `loc`, by their lower half; Student's t by inversion."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.scipy.special import betainc, betaln, ndtr, ndtri

from jaxsed.core.types import Prior
from jaxsed.params.quantiles.base import quantile, tails
from jaxsed.params.quantiles.beta_gamma import beta_bounds, log_beta_below
from jaxsed.params.quantiles.inversion import Family, broadcast, invert


class StudentT2(dist.StudentT):
    """Student's t of two degrees of freedom, whose quantiles have a closed form."""

    def __init__(self, loc: Any = 0.0, scale: Any = 1.0, *, validate_args: Any = None) -> None:
        super().__init__(2.0, loc, scale, validate_args=validate_args)


@singledispatch
def _lower_quantile(prior: Prior, p: Array) -> Array:
    """Standardised quantile, for p up to one half."""
    raise NotImplementedError


@singledispatch
def _lower_tail(prior: Prior, z: Array) -> Array:
    """Probability below a standardised value z <= 0."""
    raise NotImplementedError


def _symmetric_quantile(prior: Prior, p: Array, q: Array) -> Array:
    below = p < q
    z = _lower_quantile(prior, jnp.where(below, p, q))
    return prior.loc + prior.scale * jnp.where(below, z, -z)


def _symmetric_tails(prior: Prior, value: Array) -> tuple[Array, Array]:
    z = (value - prior.loc) / prior.scale
    below = z < 0
    tail = _lower_tail(prior, jnp.where(below, z, -z))
    return jnp.where(below, tail, 1 - tail), jnp.where(below, 1 - tail, tail)


_lower_quantile.register(dist.Normal, lambda prior, p: ndtri(p))
_lower_tail.register(dist.Normal, lambda prior, z: ndtr(z))
_lower_quantile.register(dist.Cauchy, lambda prior, p: -1 / jnp.tan(jnp.pi * p))
_lower_tail.register(dist.Cauchy, lambda prior, z: jnp.arctan2(1.0, -z) / jnp.pi)
_lower_quantile.register(dist.Laplace, lambda prior, p: jnp.log(2 * p))
_lower_tail.register(dist.Laplace, lambda prior, z: 0.5 * jnp.exp(z))
_lower_quantile.register(dist.Logistic, lambda prior, p: jnp.log(p) - jnp.log1p(-p))
_lower_tail.register(dist.Logistic, lambda prior, z: jax.nn.sigmoid(z))
_lower_quantile.register(dist.SoftLaplace, lambda prior, p: jnp.log(jnp.tan(jnp.pi / 2 * p)))
_lower_tail.register(dist.SoftLaplace, lambda prior, z: jnp.arctan(jnp.exp(z)) * 2 / jnp.pi)
for _type in (dist.Normal, dist.Cauchy, dist.Laplace, dist.Logistic, dist.SoftLaplace):
    quantile.register(_type, _symmetric_quantile)
    tails.register(_type, _symmetric_tails)
quantile.register(dist.StudentT, _symmetric_quantile)
tails.register(dist.StudentT, _symmetric_tails)


@_lower_quantile.register
def _(prior: StudentT2, p: Array) -> Array:
    return -(1 - 2 * p) / jnp.sqrt(2 * p * (1 - p))


@_lower_tail.register
def _(prior: StudentT2, z: Array) -> Array:
    root = jnp.sqrt(2 + z**2)
    return 1 / (root * (root - z))


def _log_student_tail(df: Array, t: Array, lower: Array) -> Array:
    """ln of the probability below z = sinh(t) <= 0, by the beta distribution of df / (df + z^2)."""
    # Far out z^2 overflows in 32-bit: there the log odds of that ratio are ln df - 2 ln |z|.
    y = jnp.log(df) - 2 * _log_sinh(-t)
    far = y < 0
    below = log_beta_below(df / 2, jnp.full_like(df, 0.5), jnp.where(far, y, 0.0))
    share = jax.nn.sigmoid(-jnp.where(far, 0.0, y))
    middle = jnp.log1p(-betainc(jnp.full_like(df, 0.5), df / 2, share))
    return jnp.where(far, below, middle) - jnp.log(2.0)


def _log_sinh(t: Array) -> Array:
    t = jnp.maximum(t, jnp.finfo(t.dtype).tiny)
    return t + jnp.log(-jnp.expm1(-2 * t)) - jnp.log(2.0)


def _log_student_density(df: Array, t: Array) -> Array:
    log_cosh = jnp.abs(t) + jnp.log1p(jnp.exp(-2 * jnp.abs(t))) - jnp.log(2.0)
    y = 2 * _log_sinh(jnp.abs(t)) - jnp.log(df)
    norm = betaln(df / 2, jnp.full_like(df, 0.5)) + 0.5 * jnp.log(df)
    return log_cosh - 0.5 * (df + 1) * jax.nn.softplus(y) - norm


def _student_bounds(df: Array, p: Array, q: Array) -> tuple[Array, Array]:
    low = beta_bounds((df / 2, jnp.full_like(df, 0.5)), 2 * p, jnp.ones_like(p))[0]
    # asinh(z) >= -ln(2 |z| + 1).  Products of z and its derivatives must be numbers: in 32-bit a t
    # of half a degree of freedom ends at 1e21, with 1e-11 beyond.
    reach = 0.5 * (jnp.log(df) - low) + jnp.log(2.0)
    limit = 0.55 * jnp.log(jnp.finfo(p.dtype).max)
    return -jnp.minimum(jax.nn.softplus(reach), limit), jnp.zeros_like(p)


_STUDENT = Family(_log_student_tail, _log_student_density, _student_bounds)


@_lower_quantile.register
def _(prior: dist.StudentT, p: Array) -> Array:
    p, df = broadcast(p, p, prior.df)[1:]
    # The upper tail is the larger one, which the inversion does not look at.
    return jnp.sinh(invert(_STUDENT, p, jnp.ones_like(p), df))


@_lower_tail.register
def _(prior: dist.StudentT, z: Array) -> Array:
    z, df = broadcast(z, z, prior.df)[1:]
    return jnp.exp(_log_student_tail(df, jnp.arcsinh(z), jnp.ones(z.shape, bool)))
