"""Theta, its prior and its coordinates.

A *theta* is one NamedTuple of named physical parameters.  The prior is the same NamedTuple with
a `numpyro.distributions` object in each field, or a number where the parameter is known.  Every
prior is carried to **standard-normal coordinates** ``u``: a parameter is the quantile of its prior
at ``Phi(u)``, so that the prior density of ``u`` is N(0, I) whatever the prior was.  Parameters
the data say nothing about are then exactly unit normals, which is the easiest thing a Hamiltonian
sampler can meet, and no draw can leave the prior's support.

Carried exactly are the univariate distributions of `jaxsed.quantiles` (with their truncations and
mixtures), vectors of them (``to_event(1)``), bijections of what is carried, multivariate normal
and Student-t distributions, Dirichlet distributions by the beta distributions of their
stick-breaking fractions, Gaussian copulas and random walks.  All others are refused.  A type of
your own is registered with `from_normal`, `to_normal` and `coordinates`.
"""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Callable, Sequence
from functools import cache, singledispatch
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from flax import struct
from jax import Array
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import log_ndtr, ndtr, ndtri
from numpyro.distributions import constraints
from numpyro.distributions.distribution import Independent
from numpyro.distributions.transforms import AbsTransform

from jaxsed import quantiles

Theta = TypeVar("Theta", bound=NamedTuple)

LN10 = math.log(10.0)


@struct.dataclass
class Recoordinated:
    """A prior that is sampled in other coordinates than its own quantiles.

    The posterior does not change; how easily it is sampled does.

    Attributes:
        prior: the distribution of the parameter, or a function of the full theta that gives it
            (a metallicity prior that follows the mass, say).
        base: an unconditional distribution whose quantiles are the coordinates.  Its support
            must be that of the prior: `check` refuses another.
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
    for every distribution that this package carries.

    Raises TypeError for an object that is not a continuous distribution, and ValueError for a
    distribution that cannot be carried exactly.
    """
    coordinates(prior)
    return quantiles.quantile(prior, ndtr(u), ndtr(-u)), jnp.zeros_like(u).sum()


@singledispatch
def coordinates(prior: Any) -> int:
    """Number of standard-normal coordinates of a distribution: of one value, if it has a batch.

    Raises as `from_normal` does.
    """
    if not isinstance(prior, dist.Distribution) or prior.is_discrete:
        raise TypeError(f"expected a continuous numpyro distribution, got {type(prior).__name__}")
    if prior.event_shape or not quantiles.is_known(prior):
        raise _refusal(prior, REASONS.get(type(prior).__name__, "its quantiles are not known"))
    return 1


_MATRIX = "its values are matrices: only numbers and vectors are carried"
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


def _refusal(prior: Any, reason: str) -> ValueError:
    return ValueError(
        f"{type(prior).__name__} cannot be carried to standard-normal coordinates: {reason}"
    )


@coordinates.register
def _(prior: Independent) -> int:
    coordinates(prior.base_dist)
    if prior.base_dist.event_shape:
        raise _refusal(prior, _MATRIX)
    return math.prod(prior.event_shape)


@from_normal.register
def _(prior: Independent, u: Array) -> tuple[Array, Array]:
    return from_normal(prior.base_dist, u)


@from_normal.register
def _(prior: dist.Normal, u: Array) -> tuple[Array, Array]:
    return prior.loc + prior.scale * u, jnp.zeros_like(u).sum()


@from_normal.register(dist.InverseGamma)
@from_normal.register(dist.Pareto)
def _(prior: Any, u: Array) -> tuple[Array, Array]:
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
        raise _refusal(prior, "without its density nothing normalises it")
    return coordinates(prior.base_dist)


@from_normal.register
def _(prior: dist.MaskedDistribution, u: Array) -> tuple[Array, Array]:
    coordinates(prior)
    return from_normal(prior.base_dist, u)


@coordinates.register
def _(prior: dist.TransformedDistribution) -> int:
    if any(isinstance(step, AbsTransform) for step in _steps(prior.transforms)):
        raise _refusal(prior, REASONS["FoldedDistribution"])
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


def distribution(name: str, *args: Any) -> dist.Distribution:
    """A prior by name: uniform, log_uniform, normal, truncated_normal or student_t.

    Raises ValueError for another name, for a wrong number of arguments and for arguments that
    the distribution does not have (see `check_parameters`).
    """
    known: dict[str, tuple[int, Callable[..., dist.Distribution]]] = {
        "uniform": (2, dist.Uniform),
        "log_uniform": (2, dist.LogUniform),
        "normal": (2, dist.Normal),
        "truncated_normal": (
            4,
            lambda mean, sigma, low, high: dist.TruncatedNormal(mean, sigma, low=low, high=high),
        ),
        "student_t": (3, dist.StudentT),
    }
    if name not in known:
        raise ValueError(f"unknown distribution {name!r}: expected one of {', '.join(known)}")
    count, make = known[name]
    if len(args) != count:
        raise ValueError(f"{name} takes {count} numbers, got {len(args)}")
    made = make(*args)
    check_parameters(made)
    return made


def check_parameters(prior: dist.Distribution) -> None:
    """Look at the parameters of a distribution, and of those that it is made of.

    Traced parameters are passed over: check before tracing.

    Raises ValueError for a parameter outside of its range or not a number, and for bounds that are
    not below each other.
    """
    name = type(prior).__name__
    for key, constraint in prior.arg_constraints.items():
        value = prior.__dict__.get(key)
        if value is None or not _is_concrete(value) or isinstance(value, dist.Distribution):
            continue
        values = np.asarray(value)
        inside = np.isfinite(values)
        if not constraints.is_dependent(constraint):
            inside = np.all(inside) & np.asarray(constraint(jnp.asarray(value)))
        if not np.all(inside):
            raise ValueError(f"{name}: {key} = {value} is out of its range")
    low, high = (prior.__dict__.get(key) for key in ("low", "high"))
    if low is not None and high is not None and _is_concrete(low) and _is_concrete(high):
        low, high = np.asarray(low), np.asarray(high)
        if not np.all(low < high):
            raise ValueError(f"{name}: expected low < high, got low = {low}, high = {high}")
    for part in prior.__dict__.values():
        for inner in part if isinstance(part, list | tuple) else (part,):
            if isinstance(inner, dist.Distribution):
                check_parameters(inner)


def _is_concrete(tree: Any) -> bool:
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def _inside(prior: Any, value: Array) -> Array:
    # Rounding can carry a value past the end of the prior, where a density would be zero.
    return jnp.clip(value, prior.low, prior.high)


def student_t2(scale: float, limit: float, size: int) -> dist.Distribution:
    """`size` independent Student-t(2) priors of this scale, truncated to +-limit."""
    base = quantiles.StudentT2(jnp.zeros(size), scale)
    return dist.TruncatedDistribution(base, -limit, limit).to_event(1)


class FlatDirichlet(dist.Dirichlet):
    """The Dirichlet distribution of `size` shares that is uniform on the simplex.

    Its stick-breaking fractions have quantiles in closed form, which are faster than those of a
    general `Dirichlet`.
    """

    def __init__(self, size: int, *, validate_args: Any = None) -> None:
        super().__init__(jnp.ones(size), validate_args=validate_args)


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
def _(prior: Any) -> int:
    return prior.event_shape[-1]


@from_normal.register(dist.MultivariateNormal)
@from_normal.register(dist.LowRankMultivariateNormal)
def _(prior: Any, u: Array) -> tuple[Array, Array]:
    return prior.loc + _scale_tril(prior) @ u, jnp.zeros_like(u).sum()


def _scale_tril(prior: Any) -> Array:
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
def to_normal(prior: Any, value: Array) -> Array:
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
def _(prior: Any, value: Array) -> Array:
    return quantiles.to_normal(*quantiles.tails(prior, value))


@to_normal.register(dist.ExpandedDistribution)
@to_normal.register(dist.MaskedDistribution)
def _(prior: Any, value: Array) -> Array:
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
def _(prior: Any, value: Array) -> Array:
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
    # One galaxy of a batch still claims the batch's shape: its leaves tell.
    dimensions = max((jnp.ndim(part) for part in jax.tree.leaves(leaf)), default=0)
    if leaf.batch_shape and dimensions > len(leaf.event_shape):
        raise _refusal(
            leaf, f"it is a batch of shape {leaf.batch_shape}: one vector is made by to_event(1)"
        )
    if len(leaf.event_shape) > 1:
        raise _refusal(leaf, _MATRIX)
    return coordinates(leaf)


def widths(prior: Theta) -> tuple[int, ...]:
    """Number of u coordinates of every field of a prior, in order.

    Raises as `from_normal` does, with the name of the field.
    """
    found = []
    for name, leaf in zip(prior._fields, prior, strict=True):
        try:
            found.append(_width(leaf))
        except (TypeError, ValueError) as error:
            raise type(error)(f"prior of {name}: {error}") from None
    return tuple(found)


def check(prior: Theta, *, batch: bool = False) -> None:
    """Look at a prior before anything is traced.

    Args:
        prior: theta of distributions.
        batch: whether every array of it has a leading axis of galaxies.

    Raises TypeError for a field that is no continuous distribution, and ValueError for a
    distribution that cannot be carried to normal coordinates, for bad parameters (see
    `check_parameters`), and for a `Recoordinated` whose base has another support than its prior.
    """
    widths(prior)
    conditional = {}
    for name, leaf in prior._asdict().items():
        if is_fixed(leaf):
            continue
        given = leaf if isinstance(leaf, Recoordinated) else Recoordinated(base=leaf)
        try:
            check_parameters(given.base)
            if given.prior is not None:
                _width(given.prior)
                check_parameters(given.prior)
                _same_support(given.base, given.prior, given.prior.support)
        except (TypeError, ValueError) as error:
            raise type(error)(f"prior of {name}: {error}") from None
        if given.given is not None:
            conditional[name] = leaf
    if conditional and _is_concrete(prior):
        one = jax.tree.map(lambda a: jnp.asarray(a)[0], prior) if batch else prior
        middle = _conditional(one)
        for name in conditional:
            try:
                _width(middle[name])
                _same_support(getattr(one, name).base, middle[name], middle[name].support)
            except (TypeError, ValueError) as error:
                raise type(error)(f"prior of {name}: {error}") from None


@jax.jit
def _conditional(prior: Theta) -> dict[str, dist.Distribution]:
    """Priors that depend on other parameters, where these have the medians of their bases."""
    theta = constrain(prior, jnp.zeros(dimension(prior)))[0]
    return {
        name: leaf.given(theta)
        for name, leaf in prior._asdict().items()
        if isinstance(leaf, Recoordinated) and leaf.given is not None
    }


def _same_support(base: dist.Distribution, prior: dist.Distribution, support: Any) -> None:
    if base.event_shape != prior.event_shape or _width(base) != _width(prior):
        raise ValueError(f"its base is a {type(base).__name__} of another dimension")
    ends, wanted = quantiles.bounds(base.support), quantiles.bounds(support)
    if not _is_concrete((ends, wanted)):
        return
    low, high = (np.asarray(a, float) for a in wanted)
    with np.errstate(invalid="ignore"):
        scale = np.where(np.isfinite(high - low), high - low, 1.0)
        for own, other in zip(ends, (low, high), strict=True):
            own = np.asarray(own, float)
            if not np.all((own == other) | (np.abs(own - other) <= 1e-5 * scale)):
                raise ValueError(
                    f"the supports of its prior, {low} to {high}, and of its base, "
                    f"{ends[0]} to {ends[1]}, differ"
                )


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
    """Whether every parameter is in the support of its prior, its ends included."""
    inside = [
        _in_support(_base(leaf), value)
        for leaf, value in zip(prior, theta, strict=True)
        if not is_fixed(leaf)
    ]
    return jnp.all(jnp.stack(inside))


def _in_support(prior: dist.Distribution, value: Array) -> Array:
    if isinstance(prior, dist.Dirichlet):
        # Shares add up to one within the rounding of their sum, which grows with their number.
        slack = 4 * value.size * jnp.finfo(value.dtype).eps
        return jnp.all(value >= 0) & (jnp.abs(jnp.sum(value) - 1) <= slack)
    low, high = quantiles.bounds(prior.support)
    if low is -jnp.inf and high is jnp.inf:
        return jnp.all(prior.support(value))
    return jnp.all((value >= low) & (value <= high))


def draw(prior: Theta, u: Array) -> Theta:
    """The draw from a prior that normal deviates u [dimension] make: each parameter's own
    quantiles at Phi(u).

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
