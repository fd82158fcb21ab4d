"""Where to start: the best fit by Gauss-Newton steps, and the Gaussian around it.

In normal coordinates the posterior is a least-squares problem: the residuals are the coordinates
themselves (the prior) and the scaled misfits of the data.  Its Gauss-Newton Hessian
``I + J^T J`` is positive definite everywhere, so the Gaussian around the best fit always exists.
It is a start and a scale for samplers, never a posterior.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxsed.core import linear_algebra
from jaxsed.core.compiled import compiled
from jaxsed.core.keys import typed_key
from jaxsed.core.types import Key
from jaxsed.problem import Problem, batch_of_one

MAX_STEPS = 40
FIRST_DAMPING = 1.0
FAR_BELOW = 12.0
"""Descents that end lower than the best by more than this in log density are not kept."""


class Laplace(NamedTuple):
    """A Gaussian in the coordinates of a problem."""

    mean: Array
    """[dimension] the best fit."""
    scale: Array
    """[dimension, dimension] lower-triangular factor of the covariance."""
    logdensity: Array
    """Log posterior density at the best fit."""
    ends: Array
    """[start, dimension] where the descents ended; the best fit in place of far worse ones."""

    def place(self, q: Array) -> Array:
        """Coordinates of the problem at whitened ones q [..., dimension]."""
        return self.mean + q @ self.scale.T


class _Step(NamedTuple):
    x: Array
    value: Array
    damping: Array


def laplace(key: Key, problem: Problem, *, starts: int = 8, spread: float = 1.0) -> Laplace:
    """Best of several Levenberg-Marquardt descents for one galaxy, with its covariance.

    Args:
        key: for the starting points, drawn from the prior shrunk by `spread`.
        problem: one galaxy.
        starts: number of descents.
        spread: standard deviation of the starting points in normal coordinates.
    """
    keys = typed_key(key)[None]
    return jax.tree.map(
        lambda a: a[0], laplace_batch(keys, batch_of_one(problem), spread, starts=starts)
    )


@partial(compiled, static_argnames="starts")
def laplace_batch(keys: Key, problem: Problem, spread: float = 1.0, *, starts: int = 8) -> Laplace:
    """`laplace` of a batch of galaxies; `keys` [galaxy].

    The loop over steps is outside of the maps over galaxies and starts: JAX traces the body of a
    loop that is mapped several times.
    """

    def first(key: Key, problem: Problem) -> Array:
        return spread * jax.random.normal(key, (starts, problem.dimension))

    points = jax.vmap(first, in_axes=(0, problem.axes))(keys, problem)
    ends, values = _descend(problem, points)
    return jax.vmap(_best_of, in_axes=(problem.axes, 0, 0))(problem, ends, values)


def _best_of(problem: Problem, ends: Array, values: Array) -> Laplace:
    best = jnp.argmax(values)
    mean = ends[best]
    _, hessian = _gauss_newton(problem, mean)
    close = values > values[best] - FAR_BELOW
    ends = jnp.where(close[:, None], ends, mean)
    return Laplace(mean, linear_algebra.factor_of_inverse(hessian), values[best], ends)


def _residuals(problem: Problem, x: Array) -> Array:
    at = problem.evaluate(x)
    return jnp.concatenate([at.u, problem.residuals(at.prediction)])


def _gauss_newton(problem: Problem, x: Array) -> tuple[Array, Array]:
    """Gradient of minus the log density, and the Gauss-Newton Hessian."""
    jacobian = jax.jacfwd(lambda y: _residuals(problem, y))(x)
    jacobian = jnp.nan_to_num(jacobian, posinf=0.0, neginf=0.0)
    return -jnp.nan_to_num(jax.grad(problem.logdensity)(x)), jacobian.T @ jacobian


def _descend(problem: Problem, start: Array) -> tuple[Array, Array]:
    """Ends [galaxy, start, dimension] of descents from `start`, and their log densities."""

    def each(function: Callable[..., Any]) -> Callable[..., Any]:
        of_starts = jax.vmap(function, in_axes=(None, 0))
        return partial(jax.vmap(of_starts, in_axes=(problem.axes, 0)), problem)

    step = each(_step)
    value = each(lambda problem, x: problem.guarded_logdensity(x))(start)
    first = _Step(start, value, jnp.full_like(value, FIRST_DAMPING))
    last = jax.lax.fori_loop(0, MAX_STEPS, lambda _, at: step(at), first)
    return last.x, last.value


def _step(problem: Problem, at: _Step) -> _Step:
    """One Levenberg-Marquardt step of one descent."""
    gradient, hessian = _gauss_newton(problem, at.x)
    damped = hessian + at.damping * (jnp.eye(at.x.size) + jnp.diag(jnp.diag(hessian)))
    move = linear_algebra.solve_positive(damped, gradient)
    # Beyond six normal coordinates nothing is plausible; long steps go there in float32.
    length = jnp.linalg.norm(move)
    trial = at.x - jnp.nan_to_num(move) * jnp.minimum(1.0, 3.0 / (length + 1e-6))
    value = problem.logdensity(trial)
    better = value > at.value
    return _Step(
        jnp.where(better, trial, at.x),
        jnp.where(better, value, at.value),
        jnp.clip(at.damping * jnp.where(better, 0.2, 5.0), 1e-6, 1e6),
    )
