"""Distributions whose quantiles have a closed form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.scipy.special import erf, erfinv, ndtr, ndtri

from jaxsed.params.quantiles.base import quantile, tails
from jaxsed.params.quantiles.inversion import exp_finite

# A branch that is not taken is given one half: its derivative must be finite.


def _by_half(
    p: Array, q: Array, lower: Callable[[Array], Array], upper: Callable[[Array], Array]
) -> Array:
    """lower(p) below the median, upper(q) above it."""
    below = p < q
    half = jnp.full_like(p, 0.5)
    return jnp.where(below, lower(jnp.where(below, p, half)), upper(jnp.where(below, half, q)))


def _log(p: Array, q: Array) -> Array:
    """ln p, to its own relative precision where p is nearly one."""
    return _by_half(p, q, jnp.log, lambda q: jnp.log1p(-q))


def _pair(p: Array) -> tuple[Array, Array]:
    return p, 1 - p


def _from_log_above(log_q: Array) -> tuple[Array, Array]:
    return -jnp.expm1(log_q), jnp.exp(log_q)


def _from_log_below(log_p: Array) -> tuple[Array, Array]:
    return jnp.exp(log_p), -jnp.expm1(log_p)


@quantile.register
def _(prior: dist.Uniform, p: Array, q: Array) -> Array:
    return jnp.clip(prior.low + (prior.high - prior.low) * p, prior.low, prior.high)


@tails.register
def _(prior: dist.Uniform, value: Array) -> tuple[Array, Array]:
    width = prior.high - prior.low
    return (
        jnp.clip((value - prior.low) / width, 0.0, 1.0),
        jnp.clip((prior.high - value) / width, 0.0, 1.0),
    )


@quantile.register
def _(prior: dist.LogUniform, p: Array, q: Array) -> Array:
    ln_low, ln_high = jnp.log(prior.low), jnp.log(prior.high)
    return jnp.clip(jnp.exp(ln_low + (ln_high - ln_low) * p), prior.low, prior.high)


@tails.register
def _(prior: dist.LogUniform, value: Array) -> tuple[Array, Array]:
    width = jnp.log(prior.high / prior.low)
    return (
        jnp.clip(jnp.log(value / prior.low) / width, 0.0, 1.0),
        jnp.clip(jnp.log(prior.high / value) / width, 0.0, 1.0),
    )


@quantile.register
def _(prior: dist.LogNormal, p: Array, q: Array) -> Array:
    return exp_finite(quantile(prior.base_dist, p, q))


@tails.register
def _(prior: dist.LogNormal, value: Array) -> tuple[Array, Array]:
    return tails(prior.base_dist, jnp.log(value))


@quantile.register
def _(prior: dist.Exponential, p: Array, q: Array) -> Array:
    return -_log(q, p) / prior.rate


@tails.register
def _(prior: dist.Exponential, value: Array) -> tuple[Array, Array]:
    return _from_log_above(-prior.rate * value)


@quantile.register
def _(prior: dist.Weibull, p: Array, q: Array) -> Array:
    return prior.scale * exp_finite(jnp.log(-_log(q, p)) / prior.concentration)


@tails.register
def _(prior: dist.Weibull, value: Array) -> tuple[Array, Array]:
    return _from_log_above(-((value / prior.scale) ** prior.concentration))


@quantile.register
def _(prior: dist.Pareto, p: Array, q: Array) -> Array:
    return prior.scale * exp_finite(-_log(q, p) / prior.alpha)


@tails.register
def _(prior: dist.Pareto, value: Array) -> tuple[Array, Array]:
    return _from_log_above(-prior.alpha * jnp.log(value / prior.scale))


@quantile.register
def _(prior: dist.Gumbel, p: Array, q: Array) -> Array:
    return prior.loc - prior.scale * jnp.log(-_log(p, q))


@tails.register
def _(prior: dist.Gumbel, value: Array) -> tuple[Array, Array]:
    return _from_log_below(-jnp.exp(-(value - prior.loc) / prior.scale))


@quantile.register
def _(prior: dist.Gompertz, p: Array, q: Array) -> Array:
    return jnp.log1p(-_log(q, p) / prior.concentration) / prior.rate


@tails.register
def _(prior: dist.Gompertz, value: Array) -> tuple[Array, Array]:
    return _from_log_above(-prior.concentration * jnp.expm1(prior.rate * value))


@quantile.register
def _(prior: dist.Kumaraswamy, p: Array, q: Array) -> Array:
    below = -jnp.expm1(_log(q, p) / prior.concentration0)
    return exp_finite(jnp.log(below) / prior.concentration1)


@tails.register
def _(prior: dist.Kumaraswamy, value: Array) -> tuple[Array, Array]:
    limit = 1 - jnp.finfo(jnp.result_type(value, float)).epsneg
    log_value = jnp.log(jnp.minimum(value, limit))
    above = jnp.log(-jnp.expm1(prior.concentration1 * log_value))
    return _from_log_above(prior.concentration0 * above)


@quantile.register
def _(prior: dist.HalfNormal, p: Array, q: Array) -> Array:
    root = jnp.sqrt(2.0)
    return prior.scale * _by_half(p, q, lambda p: root * erfinv(p), lambda q: -ndtri(q / 2))


@tails.register
def _(prior: dist.HalfNormal, value: Array) -> tuple[Array, Array]:
    z = value / prior.scale
    return erf(z / jnp.sqrt(2.0)), 2 * ndtr(-z)


@quantile.register
def _(prior: dist.HalfCauchy, p: Array, q: Array) -> Array:
    half = jnp.pi / 2
    value = _by_half(p, q, lambda p: jnp.tan(half * p), lambda q: 1 / jnp.tan(half * q))
    return prior.scale * value


@tails.register
def _(prior: dist.HalfCauchy, value: Array) -> tuple[Array, Array]:
    z = value / prior.scale
    return jnp.arctan2(z, 1.0) * 2 / jnp.pi, jnp.arctan2(1.0, z) * 2 / jnp.pi


@quantile.register
def _(prior: dist.Levy, p: Array, q: Array) -> Array:
    # x = c / z^2 with z half-normal
    z = _by_half(p, q, lambda p: -ndtri(p / 2), lambda q: jnp.sqrt(2.0) * erfinv(q))
    # Smaller z, beyond seven standard deviations in 32-bit, would have an infinite derivative.
    z = jnp.maximum(z, 10 * jnp.finfo(z.dtype).tiny ** (1 / 3))
    return prior.loc + prior.scale * (1 / z) ** 2


@tails.register
def _(prior: dist.Levy, value: Array) -> tuple[Array, Array]:
    z = jnp.sqrt(prior.scale / (value - prior.loc))
    return 2 * ndtr(-z), erf(z / jnp.sqrt(2.0))


@quantile.register
def _(prior: dist.AsymmetricLaplace, p: Array, q: Array) -> Array:
    left, right = prior.left_scale, prior.right_scale
    below = p * (left + right) < left
    tail = jnp.where(below, p / left, q / right) * (left + right)
    return prior.loc + jnp.where(below, left, -right) * jnp.log(tail)


@tails.register
def _(prior: dist.AsymmetricLaplace, value: Array) -> tuple[Array, Array]:
    left, right = prior.left_scale, prior.right_scale
    z = value - prior.loc
    below = z < 0
    width = jnp.where(below, left, right)
    tail = width / (left + right) * jnp.exp(-jnp.where(below, -z, z) / width)
    return jnp.where(below, tail, 1 - tail), jnp.where(below, 1 - tail, tail)


@quantile.register
def _(prior: dist.AsymmetricLaplaceQuantile, p: Array, q: Array) -> Array:
    return quantile(_asymmetric(prior), p, q)


@tails.register
def _(prior: dist.AsymmetricLaplaceQuantile, value: Array) -> tuple[Array, Array]:
    return tails(_asymmetric(prior), value)


def _asymmetric(prior: dist.AsymmetricLaplaceQuantile) -> dist.AsymmetricLaplace:
    asymmetry = jnp.sqrt(prior.quantile / (1 - prior.quantile))
    scale = prior.scale * asymmetry / prior.quantile
    return dist.AsymmetricLaplace(prior.loc, scale, asymmetry)


@quantile.register
def _(prior: dist.DoublyTruncatedPowerLaw, p: Array, q: Array) -> Array:
    ratio = jnp.log(prior.high / prior.low)
    power = _power(prior.alpha)
    # From the end where the density is larger, so that nothing cancels.
    up = jnp.log1p(p * jnp.expm1(jnp.minimum(power * ratio, 0.0))) / power
    down = ratio + jnp.log1p(q * jnp.expm1(-jnp.maximum(power * ratio, 0.0))) / power
    return jnp.clip(prior.low * jnp.exp(jnp.where(power < 0, up, down)), prior.low, prior.high)


@tails.register
def _(prior: dist.DoublyTruncatedPowerLaw, value: Array) -> tuple[Array, Array]:
    power = _power(prior.alpha)
    whole = jnp.expm1(-jnp.abs(power) * jnp.log(prior.high / prior.low))
    from_low = jnp.expm1(-jnp.abs(power) * jnp.log(value / prior.low)) / whole
    from_high = jnp.expm1(-jnp.abs(power) * jnp.log(prior.high / value)) / whole
    falling = power < 0
    return (
        jnp.where(falling, from_low, 1 - from_high),
        jnp.where(falling, 1 - from_low, from_high),
    )


def _power(alpha: Any) -> Array:
    # The limit at -1 is a log-uniform distribution, which this is to rounding.
    power = jnp.asarray(alpha, float) + 1
    least = 1e-3 * jnp.sqrt(jnp.finfo(power.dtype).eps)
    return jnp.where(jnp.abs(power) < least, least, power)


if hasattr(dist, "LowerTruncatedPowerLaw"):

    @quantile.register
    def _(prior: dist.LowerTruncatedPowerLaw, p: Array, q: Array) -> Array:
        return prior.low * exp_finite(_log(q, p) / (1 + prior.alpha))

    @tails.register
    def _(prior: dist.LowerTruncatedPowerLaw, value: Array) -> tuple[Array, Array]:
        return _from_log_above((1 + prior.alpha) * jnp.log(value / prior.low))


if hasattr(dist, "Dagum"):

    @quantile.register
    def _(prior: dist.Dagum, p: Array, q: Array) -> Array:
        odds = jnp.log(jnp.expm1(-_log(p, q) / prior.concentration))
        return prior.scale * exp_finite(-odds / prior.sharpness)

    @tails.register
    def _(prior: dist.Dagum, value: Array) -> tuple[Array, Array]:
        odds = prior.sharpness * jnp.log(prior.scale / value)
        return _from_log_below(-prior.concentration * jax.nn.softplus(odds))
