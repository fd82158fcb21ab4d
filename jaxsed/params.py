"""Theta, its prior and its coordinates.

A *theta* is one NamedTuple of named physical parameters.  The prior is the same NamedTuple with
a `numpyro.distributions` object in each field, or a number where the parameter is known.  Every
prior is carried to **standard-normal coordinates** ``u``: a parameter is the quantile of its prior
at ``Phi(u)``, so that the prior density of ``u`` is N(0, I) whatever the prior was.  Parameters
the data say nothing about are then exactly unit normals, which is the easiest thing a Hamiltonian
sampler can meet, and no draw can leave the prior's support.
"""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Callable, Sequence
from functools import cache, singledispatch
from typing import Any, NamedTuple, TypeVar

import jax.numpy as jnp
import numpyro.distributions as dist
from flax import struct
from jax import Array
from jax.scipy.special import log_ndtr, ndtr, ndtri
from numpyro.distributions import biject_to
from numpyro.distributions.distribution import Independent

Theta = TypeVar("Theta", bound=NamedTuple)

LN10 = math.log(10.0)
_U_MAX = 8.0


@struct.dataclass
class Recoordinated:
    """A prior that is sampled in other coordinates than its own quantiles.

    The posterior does not change; how easily it is sampled does.

    Attributes:
        prior: the distribution of the parameter, or a function of the full theta that gives it
            (a metallicity prior that follows the mass, say).
        base: an unconditional distribution with the same support whose quantiles are the
            coordinates.
        shift: a function of the theta, this field excepted, that is added to the coordinate: a
            shear along a known degeneracy, with unit Jacobian.
    """

    base: dist.Distribution
    prior: dist.Distribution | None = None
    given: Callable[[Any], dist.Distribution] | None = struct.field(pytree_node=False, default=None)
    shift: Callable[[Any], Array] | None = struct.field(pytree_node=False, default=None)

    def log_ratio(self, theta: Any, value: Array) -> Array:
        """Log density of the prior over that of the base."""
        prior = self.prior if self.given is None else self.given(theta)
        if prior is None:
            return jnp.zeros(())
        return jnp.sum(prior.log_prob(value) - self.base.log_prob(value))


@singledispatch
def from_normal(prior: Any, u: Array) -> tuple[Array, Array]:
    """Map standard-normal coordinates to a value of `prior`.

    Returns ``(value, excess)``, where ``excess`` is the log density of ``u`` beyond N(0, I): zero
    wherever the quantile function is known, which is every prior this package uses.

    Raises TypeError for an object that is not a continuous distribution.
    """
    if not isinstance(prior, dist.Distribution) or prior.is_discrete:
        raise TypeError(f"expected a continuous numpyro distribution, got {type(prior).__name__}")
    return _through_support(prior, u)


def _through_support(prior: dist.Distribution, u: Array) -> tuple[Array, Array]:
    """Fallback by the support's bijection, for priors without a quantile function."""
    transform = biject_to(prior.support)
    value = transform(u)
    log_density = jnp.sum(prior.log_prob(value)) + jnp.sum(transform.log_abs_det_jacobian(u, value))
    return value, log_density + 0.5 * jnp.sum(u**2) + 0.5 * u.size * math.log(2 * math.pi)


@from_normal.register
def _(prior: Independent, u: Array) -> tuple[Array, Array]:
    return from_normal(prior.base_dist, u)


@from_normal.register
def _(prior: dist.Normal, u: Array) -> tuple[Array, Array]:
    return prior.loc + prior.scale * u, jnp.zeros_like(u).sum()


@from_normal.register
def _(prior: dist.Uniform, u: Array) -> tuple[Array, Array]:
    value = prior.low + (prior.high - prior.low) * ndtr(u)
    return _inside(prior, value), jnp.zeros_like(u).sum()


@from_normal.register
def _(prior: dist.LogUniform, u: Array) -> tuple[Array, Array]:
    ln_low, ln_high = jnp.log(prior.low), jnp.log(prior.high)
    value = jnp.exp(ln_low + (ln_high - ln_low) * ndtr(u))
    return _inside(prior, value), jnp.zeros_like(u).sum()


@from_normal.register
def _(prior: dist.TwoSidedTruncatedDistribution, u: Array) -> tuple[Array, Array]:
    base = prior.base_dist
    low, high = _cdf(base, prior.low), _cdf(base, prior.high)
    p = low + (high - low) * ndtr(u)
    # Student's t with two degrees of freedom has a closed-form quantile (and numpyro has none).
    if isinstance(base, dist.StudentT):
        value = base.loc + base.scale * (2 * p - 1) / jnp.sqrt(2 * p * (1 - p))
    else:
        value = base.icdf(p)
    return _inside(prior, value), jnp.zeros_like(u).sum()


def distribution(name: str, *args: Any) -> dist.Distribution:
    """A prior by name: uniform, log_uniform, normal, truncated_normal or student_t.

    Raises ValueError for another name.
    """
    known: dict[str, Callable[..., dist.Distribution]] = {
        "uniform": dist.Uniform,
        "log_uniform": dist.LogUniform,
        "normal": dist.Normal,
        "truncated_normal": lambda mean, sigma, low, high: dist.TruncatedNormal(
            mean, sigma, low=low, high=high
        ),
        "student_t": dist.StudentT,
    }
    if name not in known:
        raise ValueError(f"unknown distribution {name!r}: expected one of {', '.join(known)}")
    return known[name](*args)


def _inside(prior: Any, value: Array) -> Array:
    # Rounding can carry a value past the end of the prior, where a density would be zero.
    return jnp.clip(value, prior.low, prior.high)


def student_t2(scale: float, limit: float, size: int) -> dist.Distribution:
    """`size` independent Student-t(2) priors of this scale, truncated to +-limit."""
    base = dist.StudentT(2.0, jnp.zeros(size), scale)
    return dist.TruncatedDistribution(base, -limit, limit).to_event(1)


@from_normal.register
def _(prior: dist.Dirichlet, u: Array) -> tuple[Array, Array]:
    """Stick-breaking of a flat Dirichlet: stick k of K is 1 - U^(1/(K-k)) (Betancourt 2012)."""
    n = prior.concentration.shape[-1]
    remaining = jnp.arange(n - 1, 0, -1)
    # log_ndtr keeps small remainders exact where 1 - stick would round to zero.
    log_keep = log_ndtr(u) / remaining
    left = jnp.concatenate([jnp.zeros(1, u.dtype), jnp.cumsum(log_keep)])
    stick = jnp.concatenate([-jnp.expm1(log_keep), jnp.ones(1, u.dtype)])
    return jnp.exp(left) * stick, jnp.zeros_like(u).sum()


@singledispatch
def to_normal(prior: Any, value: Array) -> Array:
    """Inverse of `from_normal`: the standard-normal coordinates of a value inside the support."""
    return biject_to(prior.support).inv(value)


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


@to_normal.register
def _(prior: dist.TwoSidedTruncatedDistribution, value: Array) -> Array:
    base = prior.base_dist
    low, high = _cdf(base, prior.low), _cdf(base, prior.high)
    return _probit((_cdf(base, value) - low) / (high - low))


def _cdf(base: dist.Distribution, value: Array) -> Array:
    if isinstance(base, dist.StudentT):
        x = (value - base.loc) / base.scale
        return 0.5 + 0.5 * x / jnp.sqrt(2 + x**2)
    return base.cdf(value)


@to_normal.register
def _(prior: dist.Dirichlet, value: Array) -> Array:
    n = value.shape[-1]
    return _probit((1 - sticks(value)) ** jnp.arange(n - 1, 0, -1))


def _probit(p: Array) -> Array:
    # Near 0 and 1 float32 would give infinities; the clip is far outside any posterior.
    eps = jnp.finfo(jnp.result_type(p, float)).eps
    return jnp.clip(ndtri(jnp.clip(p, eps, 1 - eps)), -_U_MAX, _U_MAX)


def sticks(simplex: Array) -> Array:
    """Stick-breaking fractions of a simplex: ``v_k = x_k / (1 - sum_{j<k} x_j)``, shape [K-1]."""
    tail = jnp.cumsum(simplex[::-1])[::-1]
    # The floor's square is still a number in 32-bit: derivatives divide by it.
    return simplex[:-1] / jnp.maximum(tail[:-1], 1e-15)


def extended(prior: Any, **parameters: Any) -> Any:
    """A prior (or theta) with further named fields after its own.

    The same fields give the same type every time, so nothing compiles twice.

    Raises ValueError for a field that it has already.
    """
    twice = set(prior._fields) & set(parameters)
    if twice:
        raise ValueError(f"{type(prior).__name__} already has {', '.join(sorted(twice))}")
    own = type(prior)
    return theta_type(own.__name__, (*own._fields, *parameters))(*prior, *parameters.values())


@cache
def theta_type(name: str, fields: tuple[str, ...]) -> Any:
    return namedtuple(name, fields)  # noqa: PYI024


def is_fixed(leaf: Any) -> bool:
    """Whether a prior leaf is a plain number: a parameter that is known, not sampled."""
    return not isinstance(leaf, (dist.Distribution, Recoordinated))


def _base(leaf: Any) -> dist.Distribution:
    return leaf.base if isinstance(leaf, Recoordinated) else leaf


def _width(leaf: Any) -> int:
    """Number of u coordinates of one prior leaf."""
    if is_fixed(leaf):
        return 0
    leaf = _base(leaf)
    shape = leaf.event_shape
    if not shape:
        return 1
    return shape[0] - 1 if isinstance(leaf, dist.Dirichlet) else math.prod(shape)


def widths(prior: Theta) -> tuple[int, ...]:
    """Number of u coordinates of every field of a prior, in order."""
    return tuple(_width(leaf) for leaf in prior)


def dimension(prior: Theta) -> int:
    """Number of standard-normal coordinates of a prior."""
    return sum(widths(prior))


def coordinate_names(prior: Theta) -> tuple[str, ...]:
    """Name of every u coordinate: the field, with u1, u2, … where it has several."""
    names: list[str] = []
    for field, width in zip(prior._fields, widths(prior), strict=True):
        names += [field] if width == 1 else [f"{field}_u{k + 1}" for k in range(width)]
    return tuple(names)


def flat_names(theta: Theta) -> tuple[str, ...]:
    """Name of every scalar of a theta: the field, with a 1-based suffix for vectors."""
    names: list[str] = []
    for field, value in zip(theta._fields, theta, strict=True):
        size = jnp.size(value)
        names += [field] if jnp.ndim(value) == 0 else [f"{field}_{k + 1}" for k in range(size)]
    return tuple(names)


def constrain(prior: Theta, x: Array) -> tuple[Theta, Array, Array]:
    """Theta at coordinates ``x`` [dimension].

    Returns ``(theta, u, excess)``: the standard-normal coordinates ``u`` of the parameters, which
    are ``x`` but for shifts, and the excess log density; the log prior density of ``x`` is
    ``-u.u/2 + excess`` up to a constant.  ``excess`` is zero for every prior with a known quantile
    function that is sampled in its own quantiles.
    """
    theta, excess, starts, start = prior, jnp.zeros((), x.dtype), {}, 0
    for field, width in zip(prior._fields, widths(prior), strict=True):
        starts[field] = slice(start, start + width)
        start += width
    u = x
    shifts = {f: shift for f in prior._fields if (shift := _shift(getattr(prior, f))) is not None}
    for field in [f for f in prior._fields if f not in shifts] + list(shifts):
        leaf = getattr(prior, field)
        if is_fixed(leaf):
            continue
        if field in shifts:
            u = u.at[starts[field]].add(shifts[field](theta))
        part, base = u[starts[field]], _base(leaf)
        value, extra = from_normal(base, part if base.event_shape else part[0])
        theta = theta._replace(**{field: value})
        excess = excess + extra
    for leaf, value in zip(prior, theta, strict=True):
        if isinstance(leaf, Recoordinated):
            excess = excess + leaf.log_ratio(theta, value)
    return theta, u, excess


def unconstrain(prior: Theta, theta: Theta) -> Array:
    """Coordinates ``x`` of a theta inside the prior's support, shape [dimension]."""
    parts = []
    for leaf, value in zip(prior, theta, strict=True):
        if is_fixed(leaf):
            continue
        part = jnp.atleast_1d(to_normal(_base(leaf), jnp.asarray(value, dtype=float)))
        shift = _shift(leaf)
        parts.append(part - shift(theta) if shift else part)
    return jnp.concatenate(parts)


def log_slope(prior: Theta, theta: Theta, u: Array) -> Array:
    """ln |d theta / du| of `constrain`, for the theta at standard-normal coordinates u [dimension].

    Priors that lay the same parameters out in other coordinates differ in it.
    """
    total, start = -0.5 * (jnp.sum(u**2) + u.size * math.log(2 * math.pi)), 0
    for leaf, value, width in zip(prior, theta, widths(prior), strict=True):
        if is_fixed(leaf):
            continue
        base, part = _base(leaf), u[start : start + width]
        start += width
        excess = from_normal(base, part if base.event_shape else part[0])[1]
        total = total + excess - jnp.sum(base.log_prob(value))
    return total


def within(prior: Theta, theta: Theta) -> Array:
    """Whether every parameter is in the support of its prior."""
    inside = [
        jnp.all(_base(leaf).support(value))
        for leaf, value in zip(prior, theta, strict=True)
        if not is_fixed(leaf)
    ]
    return jnp.all(jnp.stack(inside))


def draw(prior: Theta, u: Array) -> Theta:
    """A draw from a prior: each parameter's own quantiles at Phi(u), for normals u [dimension].

    What coordinates sampling uses does not matter.  Priors that depend on other parameters come
    after all that do not, in the order of the fields.
    """
    plain, later = {}, {}
    for name, leaf in prior._asdict().items():
        if isinstance(leaf, Recoordinated):
            plain[name] = leaf.prior if leaf.prior is not None else leaf.base
            if leaf.given is not None:
                later[name] = leaf.given
    theta = constrain(prior._replace(**plain), u)[0]
    for name, given in later.items():
        index = prior._fields.index(name)
        start, width = sum(widths(prior)[:index]), widths(prior)[index]
        part, leaf = u[start : start + width], given(theta)
        value = from_normal(leaf, part if leaf.event_shape else part[0])[0]
        theta = theta._replace(**{name: value})
    return theta


def _shift(leaf: Any) -> Callable[[Any], Array] | None:
    return leaf.shift if isinstance(leaf, Recoordinated) else None


def features(theta: Theta, names: Sequence[str]) -> Array:
    """Emulator inputs from a theta, shape [len(names)].

    A name is a field (``dust1``), ``log10_<field>``, ``<field>_<k>`` for component k (from 1) of
    a vector, or ``<field>_stick_<k>`` for the k-th stick-breaking fraction of a simplex.

    Raises ValueError for a name the theta does not have.
    """
    return jnp.stack([_feature(theta, name) for name in names])


def _feature(theta: Theta, name: str) -> Array:
    fields = theta._asdict()
    if name in fields:
        return jnp.asarray(fields[name], dtype=float)
    if name.startswith("log10_") and name[6:] in fields:
        return jnp.log(fields[name[6:]]) / LN10
    stem, _, index = name.rpartition("_")
    if index.isdigit():
        if stem.endswith("_stick") and stem[:-6] in fields:
            return sticks(jnp.asarray(fields[stem[:-6]], dtype=float))[int(index) - 1]
        if stem in fields:
            return jnp.asarray(fields[stem], dtype=float)[int(index) - 1]
    raise ValueError(
        f"unknown feature {name!r}: expected a field of {type(theta).__name__} "
        f"({', '.join(fields)}), log10_<field>, <field>_<k> or <field>_stick_<k>"
    )
