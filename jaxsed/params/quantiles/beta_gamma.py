"""Beta, gamma and inverse gamma distributions, by inversion."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.scipy.special import betainc, betaln, gammainc, gammaincc, gammaln

from jaxsed.params.quantiles.base import quantile, tails
from jaxsed.params.quantiles.inversion import Family, broadcast, exp_finite, invert

# Beta, in the log odds y of the value.

_SMALL = 1e-6


def log_beta_below(a: Array, b: Array, y: Array) -> Array:
    """ln of the probability below a value whose log odds are y."""
    x = jax.nn.sigmoid(y)
    small = x * jnp.maximum(b, 1.0) < _SMALL
    # The integral of t^(a-1) (1 - (b-1) t): where x itself would be zero in 32-bit, too.
    correction = jnp.log1p((1 - b) * a / (a + 1) * jnp.where(small, x, 0.0))
    series = a * jax.nn.log_sigmoid(y) - jnp.log(a) - betaln(a, b) + correction
    return jnp.where(small, series, jnp.log(betainc(a, b, jnp.where(small, 0.5, x))))


def _log_beta_tail(shape: Any, y: Array, lower: Array) -> Array:
    a, b = shape
    a, b = jnp.where(lower, a, b), jnp.where(lower, b, a)
    return log_beta_below(a, b, jnp.where(lower, y, -y))


def beta_bounds(shape: Any, p: Array, q: Array) -> tuple[Array, Array]:
    # The density of y is below exp(a y) / B and exp(-b y) / B.
    a, b = shape
    ends = (jnp.log(p * a) + betaln(a, b)) / a, -(jnp.log(q * b) + betaln(a, b)) / b
    return ends[0] - 1e-3, ends[1] + 1e-3


_BETA = Family(
    _log_beta_tail,
    lambda shape, y: (
        shape[0] * jax.nn.log_sigmoid(y) + shape[1] * jax.nn.log_sigmoid(-y) - betaln(*shape)
    ),
    beta_bounds,
)


def log_odds(a: Array, b: Array, p: Array, q: Array) -> Array:
    """Log odds of the quantile of Beta(a, b): precise where the quantile itself rounds to 0 or 1.

    The derivative in a and b is not available (JAX has none of the incomplete beta function).
    """
    p, q, a, b = broadcast(p, q, a, b)
    return invert(_BETA, p, q, (a, b))


def log_odds_tails(a: Array, b: Array, y: Array) -> tuple[Array, Array]:
    """Probabilities of Beta(a, b) below and above the value whose log odds are y."""
    return jnp.exp(log_beta_below(a, b, y)), jnp.exp(log_beta_below(b, a, -y))


@quantile.register
def _(prior: dist.Beta, p: Array, q: Array) -> Array:
    y = log_odds(prior.concentration1, prior.concentration0, p, q)
    return jnp.exp(jnp.maximum(jax.nn.log_sigmoid(y), jnp.log(jnp.finfo(y.dtype).tiny) + 0.1))


@tails.register
def _(prior: dist.Beta, value: Array) -> tuple[Array, Array]:
    limits = jnp.finfo(jnp.result_type(value, float))
    value = jnp.clip(value, limits.tiny, 1 - limits.epsneg)
    y = jnp.log(value) - jnp.log1p(-value)
    return log_odds_tails(prior.concentration1, prior.concentration0, y)


# Gamma, in y = ln(rate x).


def _log_gamma_tail(a: Array, y: Array, lower: Array) -> Array:
    x = jnp.exp(y)
    small = x < _SMALL
    series = a * y - gammaln(a + 1) + jnp.log1p(-a / (a + 1) * jnp.where(small, x, 0.0))
    x = jnp.where(small, 1.0, x)
    below = jnp.where(small, series, jnp.log(gammainc(a, x)))
    above = jnp.where(small, jnp.log(-jnp.expm1(series)), jnp.log(gammaincc(a, x)))
    return jnp.where(lower, below, above)


def _gamma_bounds(a: Array, p: Array, q: Array) -> tuple[Array, Array]:
    # Below: the density is less than that of x^(a-1). Above: Boucheron+ 2013, section 2.4.
    t = -jnp.log(q)
    return (jnp.log(p) + gammaln(a + 1)) / a - 1e-3, jnp.log(a + jnp.sqrt(2 * a * t) + t) + 1e-3


_GAMMA = Family(_log_gamma_tail, lambda a, y: a * y - jnp.exp(y) - gammaln(a), _gamma_bounds)


def _log_gamma(a: Any, p: Array, q: Array) -> Array:
    p, q, a = broadcast(p, q, a)
    return invert(_GAMMA, p, q, a)


@quantile.register
def _(prior: dist.Gamma, p: Array, q: Array) -> Array:
    return exp_finite(_log_gamma(prior.concentration, p, q) - jnp.log(prior.rate))


@tails.register
def _(prior: dist.Gamma, value: Array) -> tuple[Array, Array]:
    y = jnp.log(prior.rate * jnp.maximum(value, jnp.finfo(jnp.result_type(value, float)).tiny))
    a = jnp.asarray(prior.concentration, float)
    low = jnp.ones(y.shape, bool)
    return jnp.exp(_log_gamma_tail(a, y, low)), jnp.exp(_log_gamma_tail(a, y, ~low))


@quantile.register
def _(prior: dist.InverseGamma, p: Array, q: Array) -> Array:
    return exp_finite(jnp.log(prior.rate) - _log_gamma(prior.concentration, q, p))


@tails.register
def _(prior: dist.InverseGamma, value: Array) -> tuple[Array, Array]:
    return tails(prior.base_dist, 1 / value)[::-1]
