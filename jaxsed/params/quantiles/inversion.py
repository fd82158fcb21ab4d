"""Inversion of distribution functions without a closed form."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import SymbolicZero

from jaxsed.core.types import PyTree


class Family(NamedTuple):
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
def invert(family: Family, p: Array, q: Array, parameters: Any) -> Array:
    """The y with probability p below and q above it."""
    lower = p < q
    target = jnp.log(jnp.where(lower, p, q))
    low, high = family.bounds(parameters, p, q)
    eps = jnp.finfo(target.dtype).eps

    def unfinished(state: PyTree) -> Array:
        return (state[0] < MAX_ITERATIONS) & jnp.any(state[-1])

    def again(state: PyTree) -> PyTree:
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


@partial(invert.defjvp, symbolic_zeros=True)
def _(family: Family, primals: Any, tangents: Any) -> tuple[Array, Array]:
    p, q, parameters = primals
    dp, dq, dparameters = tangents
    y = invert(family, p, q, parameters)
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


def broadcast(p: Array, q: Array, *shape: Any) -> tuple[Array, ...]:
    kind = jnp.result_type(p, q, float)
    return tuple(jnp.asarray(a, kind) for a in jnp.broadcast_arrays(p, q, *shape))


def exp_finite(y: Array) -> Array:
    """exp(y), but never quite zero or infinite, where a density might be."""
    limits = jnp.finfo(y.dtype)
    return jnp.exp(jnp.clip(y, jnp.log(limits.tiny) + 0.1, jnp.log(limits.max) - 0.1))
