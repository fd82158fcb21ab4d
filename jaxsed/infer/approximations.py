"""Quick looks at a posterior: fast, approximate, and never to be called a posterior."""

from __future__ import annotations

import blackjax
import jax
import jax.numpy as jnp
from jax import Array

from jaxsed.core.keys import typed_key
from jaxsed.core.types import Key
from jaxsed.infer.laplace import laplace
from jaxsed.problem import Problem


def pathfinder(
    key: Key, problem: Problem, *, draws: int = 1000, starts: int = 8
) -> tuple[Array, Array]:
    """Draws from the best Gaussian along an optimisation path (Zhang+ 2022), with log weights.

    For one galaxy.  The path begins one Laplace width away from the best fit.  The Gaussian is
    usually too narrow: weights that differ much say so.

    Args:
        key: random key.
        problem: one galaxy.
        draws: their number.
        starts: descents that find the best fit.

    Returns:
        x [draw, dimension] and the log of posterior over Gaussian density [draw].
    """
    key_fit, key_start, key_path, key_draw = jax.random.split(typed_key(key), 4)
    fit = laplace(key_fit, problem, starts=starts)

    def logdensity(q: Array) -> Array:
        return problem.guarded_logdensity(fit.place(q))

    start = jax.random.normal(key_start, (problem.dimension,))
    state, _ = blackjax.vi.pathfinder.approximate(key_path, logdensity, start)
    q, log_q = blackjax.vi.pathfinder.sample(key_draw, state, draws)
    return fit.place(q), jax.vmap(logdensity)(q) - jnp.asarray(log_q)
