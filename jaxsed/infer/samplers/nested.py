"""Nested sampling (Skilling 2006) with slice moves (Yallup+ 2026), by BlackJAX: draws and evidence.

It needs no start and finds modes by itself, so it is also the last resort for posteriors that
chains do not mix in.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from blackjax.ns import nss
from blackjax.ns.base import init_state_strategy
from jax import Array

from jaxsed import params
from jaxsed.core import linear_algebra
from jaxsed.core.types import Key, PyTree
from jaxsed.infer.samplers.base import SamplerRun, SingleCallMethod
from jaxsed.problem import PriorCoordinates, Problem

DELETED = 0.1
"""Share of the live points that is replaced at a time."""

SLICES_PER_DIMENSION = 2
"""Moves between a live point and its replacement."""

ENOUGH = -4.0
"""It ends when the live points hold less than the exp of this of the evidence."""

MOST_FOLD = 4
"""Longer runs have more live points, up to this many times the first."""

MOST_INFORMATION = 60.0
"""It ends at the latest when the prior has shrunk by the exp of this."""


@dataclass(frozen=True, kw_only=True)
class NestedSlice(SingleCallMethod):
    """Nested sampling with slice moves: `chains` independent runs, each with its evidence."""

    name: ClassVar[str] = "nested"

    live_points: int = 200
    """Of each run; more with every retry."""

    def run(self, key: Key, problem: Problem, length: int) -> SamplerRun:
        """One galaxy, with `length` draws by weight from each run."""
        flat = _in_prior_coordinates(problem)
        live = self.live_points * min(max(length // self.draws, 1), MOST_FOLD)
        one = jax.vmap(lambda key: _one(key, flat, live, length))
        u, log_z, kish, slices, finished = one(jax.random.split(key, self.chains))

        def sampled(u: Array) -> tuple[Array, Array]:
            x = problem.unconstrain(flat.constrain(u))
            return x, problem.logdensity(x)

        x, log_density = jax.vmap(lambda row: jax.lax.map(sampled, row))(u)
        mean = jax.nn.logsumexp(log_z) - math.log(self.chains)
        # Of the mean: the runs' scatter over the root of their number.
        error = jnp.std(log_z, ddof=1) / math.sqrt(self.chains)
        return SamplerRun(
            x=x,
            log_density=log_density,
            evaluations=jnp.sum(slices),
            # Where the evidence was not yet found, the weights say nothing.
            effective=jnp.where(jnp.all(finished), jnp.sum(kish), 0.0),
            log_evidence=mean,
            log_evidence_error=error,
        )


def _in_prior_coordinates(problem: Problem) -> Problem:
    """The same problem in coordinates in which draws from the prior are standard normal."""
    prior = problem.prior._replace(
        **{
            name: dataclasses.replace(leaf, shift=None)
            for name, leaf in problem.prior._asdict().items()
            if isinstance(leaf, params.Recoordinated)
        }
    )
    return dataclasses.replace(problem, prior=prior, transform=PriorCoordinates())


def _one(key: Key, problem: Problem, live: int, length: int) -> tuple[Array, ...]:
    """Draws [draw, dimension], ln evidence, effective number of the weights, evaluations, and
    whether the live points hold little enough of the evidence."""
    dimension = problem.dimension
    key_live, key_run, key_draw = jax.random.split(key, 3)

    def log_likelihood(u: Array) -> Array:
        return problem.guarded_logdensity(u) + 0.5 * jnp.sum(u**2)

    def log_prior(u: Array) -> Array:
        return -0.5 * jnp.sum(u**2) - 0.5 * dimension * math.log(2 * math.pi)

    def point(u: Array, loglikelihood_birth: Any = jnp.nan) -> Any:
        return init_state_strategy(u, log_prior, log_likelihood, loglikelihood_birth)

    def factor(key: Any, state: PyTree, info: Any, parameters: Any = None) -> dict[str, Array]:
        del key, info, parameters
        gap = state.particles.position - jnp.mean(state.particles.position, axis=0)
        covariance = gap.T @ gap / (live - 1) + 1e-8 * jnp.eye(dimension)
        return {"covariance_factor": linear_algebra.cholesky(covariance)}

    deleted = max(int(DELETED * live), 1)
    # Deleting k of n at a time shrinks the prior by about k / n in ln X.
    most = int(MOST_INFORMATION * live / deleted)
    step = nss.build_kernel(
        point, SLICES_PER_DIMENSION * dimension, deleted, inner_kernel_params=factor
    )
    start = nss.init(
        jax.random.normal(key_live, (live, dimension)), jax.vmap(point),
        update_inner_kernel_params_fn=factor,
    )  # fmt: skip
    dead = (jnp.zeros((most, deleted, dimension)), jnp.full((most, deleted), -jnp.inf))

    def enough(state: PyTree) -> Array:
        return state.integrator.logZ_live - state.integrator.logZ < ENOUGH

    def unfinished(carry: PyTree) -> Array:
        _, state, _, count, _ = carry
        return (count < most) & ~enough(state)

    def again(carry: PyTree) -> PyTree:
        key, state, (u, value), count, used = carry
        key, key_step = jax.random.split(key)
        state, info = step(key_step, state)
        gone = info.particles
        u, value = u.at[count].set(gone.position), value.at[count].set(gone.loglikelihood)
        return key, state, (u, value), count + 1, used + _evaluations(info)

    zero = jnp.zeros(())
    _, state, (u, value), count, used = jax.lax.while_loop(
        unfinished, again, (key_run, start, dead, jnp.zeros((), int), zero)
    )
    # Deaths in order: n live points before the first of a block, one less after each.
    number = (live - jnp.arange(deleted)).astype(value.dtype)
    shrink = jnp.where(jnp.arange(most)[:, None] < count, -1.0 / number, 0.0).reshape(-1)
    order = jnp.argsort(value, axis=1)
    u = jnp.take_along_axis(u, order[..., None], axis=1).reshape(-1, dimension)
    value = jnp.take_along_axis(value, order, axis=1).reshape(-1)
    after = jnp.cumsum(shrink)
    width = after - shrink + jnp.log(-jnp.expm1(jnp.minimum(shrink, -1e-30)))
    last = state.particles
    log_weight = jnp.concatenate(
        [
            jnp.where(shrink < 0, value + width, -jnp.inf),
            last.loglikelihood + after[-1] - math.log(live),
        ]
    )
    log_z = jax.nn.logsumexp(log_weight)
    weight = jnp.exp(log_weight - log_z)
    points = jnp.concatenate([u, last.position])
    rows = jax.random.choice(key_draw, points.shape[0], (length,), p=weight)
    return points[rows], log_z, 1.0 / jnp.sum(weight**2), used + live, enough(state)


def _evaluations(info: Any) -> Array:
    """Likelihoods that a step took."""
    counts = [
        jnp.sum(leaf)
        for name, leaf in info.update_info._asdict().items()
        if name in ("num_expansions", "num_shrink", "num_steps")
    ]
    return sum(counts, jnp.zeros(()))
