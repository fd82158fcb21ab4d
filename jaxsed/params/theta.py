"""A theta of distributions: its coordinates, its draws, and what an emulator takes from it."""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from flax import struct
from jax import Array

from jaxsed.core.types import Prior, PyTree
from jaxsed.params import quantiles
from jaxsed.params.coordinates import MATRIX, coordinates, from_normal, refusal, sticks, to_normal
from jaxsed.params.distributions import check_parameters, is_concrete

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


def extended(prior: Prior, **parameters: Any) -> Any:
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


def is_fixed(leaf: PyTree) -> bool:
    """Whether a prior leaf is a plain number: a parameter that is known, not sampled."""
    return not isinstance(leaf, (dist.Distribution, Recoordinated))


def _base(leaf: PyTree) -> dist.Distribution:
    return leaf.base if isinstance(leaf, Recoordinated) else leaf


def _width(leaf: PyTree) -> int:
    """Number of u coordinates of one prior leaf."""
    if is_fixed(leaf):
        return 0
    leaf = _base(leaf)
    # One galaxy of a batch still claims the batch's shape: its leaves tell.
    dimensions = max((jnp.ndim(part) for part in jax.tree.leaves(leaf)), default=0)
    if leaf.batch_shape and dimensions > len(leaf.event_shape):
        raise refusal(
            leaf, f"it is a batch of shape {leaf.batch_shape}: one vector is made by to_event(1)"
        )
    if len(leaf.event_shape) > 1:
        raise refusal(leaf, MATRIX)
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
    if conditional and is_concrete(prior):
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
    if not is_concrete((ends, wanted)):
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


class Constrained(NamedTuple):
    """A theta and its log prior density, ``-u.u / 2 + excess`` up to a constant."""

    theta: Any
    u: Array
    """[dimension] standard-normal coordinates of the parameters: those that were given, but for
    shifts."""
    excess: Array
    """Excess log density.  Zero for every prior with a known quantile function that is sampled in
    its own quantiles."""


def constrain(prior: Prior, x: Array) -> Constrained:
    """Theta at coordinates ``x`` [dimension], with its standard-normal coordinates."""
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
    return Constrained(theta, u, excess)


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


def _shift(leaf: PyTree) -> Callable[[Any], Array] | None:
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
