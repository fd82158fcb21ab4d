"""Quantiles of univariate distributions, and the probabilities that they invert.

Both tails are carried: ``p`` is the probability below a value and ``q`` that above it, each with
its own relative precision.  In 32-bit, ``1 - p`` alone would lose all beyond five standard
deviations.  Distributions without a quantile function in closed form are inverted by Newton's
method between bounds, and differentiated by the implicit function theorem.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, singledispatch
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.custom_derivatives import SymbolicZero
from jax.scipy.special import (
    betainc,
    betaln,
    erf,
    erfinv,
    gammainc,
    gammaincc,
    gammaln,
    ndtr,
    ndtri,
)  # fmt: skip


class StudentT2(dist.StudentT):
    """Student's t of two degrees of freedom, whose quantiles have a closed form."""

    def __init__(self, loc: Any = 0.0, scale: Any = 1.0, *, validate_args: Any = None) -> None:
        super().__init__(2.0, loc, scale, validate_args=validate_args)


@singledispatch
def quantile(prior: Any, p: Array, q: Array) -> Array:
    """The value below which a draw lies with probability p, and above which with q = 1 - p.

    Elementwise where `prior` has a batch shape.

    Raises ValueError for a distribution that is not in `tails`, which is its inverse.
    """
    raise ValueError(f"the quantiles of {type(prior).__name__} are not known")


@singledispatch
def tails(prior: Any, value: Array) -> tuple[Array, Array]:
    """Probabilities below and above a value inside the support; the inverse of `quantile`."""
    raise ValueError(f"the distribution function of {type(prior).__name__} is not known")


def is_known(prior: Any) -> bool:
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


# Inversion of a distribution function without a closed form


class _Family(NamedTuple):
    """A distribution function of y, where y is a coordinate in which Newton's method goes well."""

    log_tail: Callable[..., Array]
    """``(parameters, y, lower)``: ln of the probability below y where `lower`, above it elsewhere;
    precise where that is the smaller of the two."""
    log_density: Callable[[Any, Array], Array]
    """``(parameters, y)``: ln of the density of y."""
    bounds: Callable[[Any, Array, Array], tuple[Array, Array]]
    """``(parameters, p, q)``: a y below the quantile and one above it."""


MAX_ITERATIONS = 200
"""Of the inversion; about eight are usual, and each also halves the bracket where Newton fails."""


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _invert(family: _Family, p: Array, q: Array, parameters: Any) -> Array:
    """The y with probability p below and q above it."""
    lower = p < q
    target = jnp.log(jnp.where(lower, p, q))
    low, high = family.bounds(parameters, p, q)
    eps = jnp.finfo(target.dtype).eps

    def unfinished(state: Any) -> Array:
        return (state[0] < MAX_ITERATIONS) & jnp.any(state[-1])

    def again(state: Any) -> Any:
        count, low, high, y, active = state
        log_tail = family.log_tail(parameters, y, lower)
        gap = jnp.where(lower, log_tail - target, target - log_tail)
        low, high = jnp.where(gap < 0, y, low), jnp.where(gap < 0, high, y)
        step = gap * jnp.exp(log_tail - family.log_density(parameters, y))
        inside = (y - step >= low) & (y - step <= high)
        new = jnp.where(inside, y - step, 0.5 * (low + high))
        new = jnp.where(active, new, y)
        # What is left after a step of Newton's is the square of the step, after others the step.
        enough = jnp.where(inside, 0.1 * jnp.sqrt(eps), eps) * (1 + jnp.abs(y))
        return count + 1, low, high, new, jnp.abs(new - y) > enough

    # In these coordinates the log of a tail is concave: from outside, Newton never overshoots.
    start = jnp.where(lower, low, high)
    state = (jnp.zeros((), int), low, high, start, jnp.ones(start.shape, bool))
    return jax.lax.while_loop(unfinished, again, state)[3]


@partial(_invert.defjvp, symbolic_zeros=True)
def _(family: _Family, primals: Any, tangents: Any) -> tuple[Array, Array]:
    p, q, parameters = primals
    dp, dq, dparameters = tangents
    y = _invert(family, p, q, parameters)
    lower = p < q
    dp, dq = (jnp.zeros_like(p) if isinstance(t, SymbolicZero) else t for t in (dp, dq))
    change = jnp.where(lower, dp, -dq)
    is_zero = [isinstance(t, SymbolicZero) for t in jax.tree.leaves(dparameters)]
    if not all(is_zero):
        leaves, tree = jax.tree.flatten(parameters)
        moving = [i for i, still in enumerate(is_zero) if not still]

        def tail(*values: Array) -> Array:
            new = list(leaves)
            for i, value in zip(moving, values, strict=True):
                new[i] = value
            return jnp.exp(family.log_tail(jax.tree.unflatten(tree, new), y, lower))

        own = jax.tree.leaves(dparameters)
        slope = jax.jvp(tail, [leaves[i] for i in moving], [own[i] for i in moving])[1]
        change = change - jnp.where(lower, slope, -slope)
    return y, change * jnp.exp(-family.log_density(parameters, y))


def _broadcast(p: Array, q: Array, *shape: Any) -> tuple[Array, ...]:
    kind = jnp.result_type(p, q, float)
    return tuple(jnp.asarray(a, kind) for a in jnp.broadcast_arrays(p, q, *shape))


def _exp(y: Array) -> Array:
    """exp(y), but never quite zero or infinite, where a density might be."""
    limits = jnp.finfo(y.dtype)
    return jnp.exp(jnp.clip(y, jnp.log(limits.tiny) + 0.1, jnp.log(limits.max) - 0.1))


# Beta, in the log odds y of the value.

_SMALL = 1e-6


def _log_beta_below(a: Array, b: Array, y: Array) -> Array:
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
    return _log_beta_below(a, b, jnp.where(lower, y, -y))


def _beta_bounds(shape: Any, p: Array, q: Array) -> tuple[Array, Array]:
    # The density of y is below exp(a y) / B and exp(-b y) / B.
    a, b = shape
    ends = (jnp.log(p * a) + betaln(a, b)) / a, -(jnp.log(q * b) + betaln(a, b)) / b
    return ends[0] - 1e-3, ends[1] + 1e-3


_BETA = _Family(
    _log_beta_tail,
    lambda shape, y: (
        shape[0] * jax.nn.log_sigmoid(y) + shape[1] * jax.nn.log_sigmoid(-y) - betaln(*shape)
    ),
    _beta_bounds,
)


def log_odds(a: Array, b: Array, p: Array, q: Array) -> Array:
    """Log odds of the quantile of Beta(a, b): precise where the quantile itself rounds to 0 or 1.

    The derivative in a and b is not available (JAX has none of the incomplete beta function).
    """
    p, q, a, b = _broadcast(p, q, a, b)
    return _invert(_BETA, p, q, (a, b))


def log_odds_tails(a: Array, b: Array, y: Array) -> tuple[Array, Array]:
    """Probabilities of Beta(a, b) below and above the value whose log odds are y."""
    return jnp.exp(_log_beta_below(a, b, y)), jnp.exp(_log_beta_below(b, a, -y))


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


_GAMMA = _Family(_log_gamma_tail, lambda a, y: a * y - jnp.exp(y) - gammaln(a), _gamma_bounds)


def _log_gamma(a: Any, p: Array, q: Array) -> Array:
    p, q, a = _broadcast(p, q, a)
    return _invert(_GAMMA, p, q, a)


@quantile.register
def _(prior: dist.Gamma, p: Array, q: Array) -> Array:
    return _exp(_log_gamma(prior.concentration, p, q) - jnp.log(prior.rate))


@tails.register
def _(prior: dist.Gamma, value: Array) -> tuple[Array, Array]:
    y = jnp.log(prior.rate * jnp.maximum(value, jnp.finfo(jnp.result_type(value, float)).tiny))
    a = jnp.asarray(prior.concentration, float)
    low = jnp.ones(y.shape, bool)
    return jnp.exp(_log_gamma_tail(a, y, low)), jnp.exp(_log_gamma_tail(a, y, ~low))


@quantile.register
def _(prior: dist.InverseGamma, p: Array, q: Array) -> Array:
    return _exp(jnp.log(prior.rate) - _log_gamma(prior.concentration, q, p))


@tails.register
def _(prior: dist.InverseGamma, value: Array) -> tuple[Array, Array]:
    return tails(prior.base_dist, 1 / value)[::-1]


# Distributions that are symmetric about `loc`, by their lower half.


@singledispatch
def _lower_quantile(prior: Any, p: Array) -> Array:
    """Standardised quantile, for p up to one half."""
    raise NotImplementedError


@singledispatch
def _lower_tail(prior: Any, z: Array) -> Array:
    """Probability below a standardised value z <= 0."""
    raise NotImplementedError


def _symmetric_quantile(prior: Any, p: Array, q: Array) -> Array:
    below = p < q
    z = _lower_quantile(prior, jnp.where(below, p, q))
    return prior.loc + prior.scale * jnp.where(below, z, -z)


def _symmetric_tails(prior: Any, value: Array) -> tuple[Array, Array]:
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
    below = _log_beta_below(df / 2, jnp.full_like(df, 0.5), jnp.where(far, y, 0.0))
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
    low = _beta_bounds((df / 2, jnp.full_like(df, 0.5)), 2 * p, jnp.ones_like(p))[0]
    # asinh(z) >= -ln(2 |z| + 1).  Products of z and its derivatives must be numbers: in 32-bit a t
    # of half a degree of freedom ends at 1e21, with 1e-11 beyond.
    reach = 0.5 * (jnp.log(df) - low) + jnp.log(2.0)
    limit = 0.55 * jnp.log(jnp.finfo(p.dtype).max)
    return -jnp.minimum(jax.nn.softplus(reach), limit), jnp.zeros_like(p)


_STUDENT = _Family(_log_student_tail, _log_student_density, _student_bounds)


@_lower_quantile.register
def _(prior: dist.StudentT, p: Array) -> Array:
    p, df = _broadcast(p, p, prior.df)[1:]
    # The upper tail is the larger one, which the inversion does not look at.
    return jnp.sinh(_invert(_STUDENT, p, jnp.ones_like(p), df))


@_lower_tail.register
def _(prior: dist.StudentT, z: Array) -> Array:
    z, df = _broadcast(z, z, prior.df)[1:]
    return jnp.exp(_log_student_tail(df, jnp.arcsinh(z), jnp.ones(z.shape, bool)))


# Closed forms. A branch that is not taken is given one half: its derivative must be finite.


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
    return _exp(quantile(prior.base_dist, p, q))


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
    return prior.scale * _exp(jnp.log(-_log(q, p)) / prior.concentration)


@tails.register
def _(prior: dist.Weibull, value: Array) -> tuple[Array, Array]:
    return _from_log_above(-((value / prior.scale) ** prior.concentration))


@quantile.register
def _(prior: dist.Pareto, p: Array, q: Array) -> Array:
    return prior.scale * _exp(-_log(q, p) / prior.alpha)


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
    return _exp(jnp.log(below) / prior.concentration1)


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
        return prior.low * _exp(_log(q, p) / (1 + prior.alpha))

    @tails.register
    def _(prior: dist.LowerTruncatedPowerLaw, value: Array) -> tuple[Array, Array]:
        return _from_log_above((1 + prior.alpha) * jnp.log(value / prior.low))


if hasattr(dist, "Dagum"):

    @quantile.register
    def _(prior: dist.Dagum, p: Array, q: Array) -> Array:
        odds = jnp.log(jnp.expm1(-_log(p, q) / prior.concentration))
        return prior.scale * _exp(-odds / prior.sharpness)

    @tails.register
    def _(prior: dist.Dagum, value: Array) -> tuple[Array, Array]:
        odds = prior.sharpness * jnp.log(prior.scale / value)
        return _from_log_below(-prior.concentration * jax.nn.softplus(odds))


# Truncation


def _ends(prior: Any) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Tails of the base distribution at both ends of a truncated one."""
    zero, one = jnp.zeros(()), jnp.ones(())
    low = tails(prior.base_dist, prior.low) if hasattr(prior, "low") else (zero, one)
    high = tails(prior.base_dist, prior.high) if hasattr(prior, "high") else (one, zero)
    return low, high


def _between(low: tuple[Array, Array], high: tuple[Array, Array]) -> Array:
    """Probability between two values, by the tail in which less cancels."""
    return jnp.where(low[1] < high[0], low[1] - high[1], high[0] - low[0])


def _truncated_quantile(prior: Any, p: Array, q: Array) -> Array:
    low, high = _ends(prior)
    width = _between(low, high)
    value = quantile(prior.base_dist, low[0] + width * p, high[1] + width * q)
    # Rounding can carry a value past the end, where a density would be zero.
    value = jnp.maximum(value, prior.low) if hasattr(prior, "low") else value
    return jnp.minimum(value, prior.high) if hasattr(prior, "high") else value


def _truncated_tails(prior: Any, value: Array) -> tuple[Array, Array]:
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


def _limited_tails(prior: Any, value: Array) -> tuple[Array, Array]:
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


_MIXTURE = _Family(_log_mixture_tail, lambda mixture, x: mixture.log_prob(x), _mixture_bounds)


def _mixture_quantile(prior: Any, p: Array, q: Array) -> Array:
    p, q = _broadcast(p, q)
    return _invert(_MIXTURE, p, q, prior)


def _mixture_tails(prior: Any, value: Array) -> tuple[Array, Array]:
    value = jnp.asarray(value, float)
    low = jnp.ones(value.shape, bool)
    below, above = _log_mixture_tail(prior, value, low), _log_mixture_tail(prior, value, ~low)
    return jnp.exp(below), jnp.exp(above)


for _type in (dist.MixtureSameFamily, dist.MixtureGeneral):
    quantile.register(_type, _mixture_quantile)
    tails.register(_type, _mixture_tails)


def bounds(support: Any) -> tuple[Any, Any]:
    """Lower and upper bound of a support, infinite where it has none."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return getattr(support, "lower_bound", -jnp.inf), getattr(support, "upper_bound", jnp.inf)
