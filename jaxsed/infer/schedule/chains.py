"""Chains of a batch of galaxies, advanced segment by segment.

A segment is a fixed number of transitions of all chains of all galaxies in one compiled call.
Warm-up segments adapt the step size of every galaxy, and after each the chains of a galaxy
together give the covariance that whitens the next; sampling segments change nothing.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from blackjax.mcmc import hmc
from jax import Array

from jaxsed.core import linear_algebra
from jaxsed.core.types import Key
from jaxsed.infer.laplace import laplace
from jaxsed.infer.samplers import mixture
from jaxsed.infer.samplers.base import Kernel
from jaxsed.infer.samplers.mixture import Mixture
from jaxsed.infer.schedule import uses
from jaxsed.infer.schedule.devices import over_galaxies, split_over_devices
from jaxsed.problem import Problem

PRIOR_DRAWS = 20.0
"""Weight, in draws, of the previous whitening when a new one is estimated."""


class Chains(NamedTuple):
    """Where the chains of one galaxy (or, with a leading axis, of a batch) stand."""

    x: Array
    """[chain, dimension] positions."""
    centre: Array
    """[dimension] origin of the whitened coordinates."""
    scale: Array
    """[dimension, dimension] lower-triangular; x = centre + scale @ q."""
    log_step: Array
    """ln of the step size."""
    proposal: Mixture
    """Where global moves come from."""


class Moves(NamedTuple):
    """What a transition is made of: static, so each choice compiles once."""

    kernel: Kernel
    proposals: int
    """Proposals from the mixture after every trajectory; each costs one likelihood, no
    gradient."""
    dense: bool
    """Whether the whitening has all covariances, or variances only."""


class Schedule(NamedTuple):
    """How the transitions of a segment go: the same for all galaxies, so that none waits."""

    length: Array
    """[draw] leapfrog steps."""
    factor: Array
    """[draw] factors of the step size; small ones help chains out of regions of high curvature."""


class Segment(NamedTuple):
    """What a segment produced, for one galaxy."""

    x: Array
    """[chain, draw, dimension]."""
    log_density: Array
    """[chain, draw]."""
    divergences: Array
    """Number of divergent transitions."""
    gradients: Array
    """[chain, draw] number of gradients."""
    acceptance: Array
    """Mean acceptance probability of the trajectories."""
    global_acceptance: Array
    """Share of global proposals that were accepted."""


class _Averaging(NamedTuple):
    """Dual averaging of the log step size (Hoffman & Gelman 2014, section 3.2)."""

    centre: Array
    error: Array
    log_step: Array
    average: Array

    def update(self, count: Array, shortfall: Array) -> _Averaging:
        weight = 1.0 / (count + 10.0)
        error = (1 - weight) * self.error + weight * shortfall
        log_step = self.centre - jnp.sqrt(count) / 0.05 * error
        decay = count**-0.75
        average = decay * log_step + (1 - decay) * self.average
        return _Averaging(self.centre, error, log_step, average)


def begin(key: Key, problem: Problem, *, chains: int, starts: int, dense: bool) -> Chains:
    """Chains of one galaxy spread around its best fits by the Gaussian approximation."""
    key_fit, key_spread = jax.random.split(key)
    fit = laplace(key_fit, problem, starts=starts)
    dimension = problem.dimension
    noise = jax.random.normal(key_spread, (chains, dimension))
    step = jnp.log(1.0 / dimension**0.25)
    x = fit.ends[jnp.arange(chains) % starts] + noise @ fit.scale.T
    proposal = mixture.broad(fit.mean, fit.scale)
    scale = fit.scale if dense else jnp.diag(jnp.linalg.norm(fit.scale, axis=1))
    return Chains(x, fit.mean, scale, step.astype(noise.dtype), proposal)


def advance(
    key: Key, problem: Problem, chains: Chains, adapt: Array, schedule: Schedule, moves: Moves
) -> tuple[Chains, Segment]:
    """One segment of one galaxy: as many transitions as the schedule has.

    A transition is a trajectory of the kernel followed by independent proposals from the mixture,
    each with its own Metropolis-Hastings test.  Where `adapt` is true the segment also finds the
    step size and, from its second half, the whitening; its draws are then no sample.
    """
    kernel = moves.kernel
    n_chains, dimension = chains.x.shape

    def unwhitened(q: Array) -> Array:
        return chains.centre + chains.scale @ q

    def logdensity(q: Array) -> Array:
        return problem.guarded_logdensity(unwhitened(q))

    inverse = linear_algebra.inverse_lower(chains.scale)

    def whiten(gap: Array) -> Array:
        return inverse @ gap

    def transition(carry, inputs):
        q, averaging = carry
        key, length, factor, count = inputs
        log_step = jnp.where(adapt, averaging.log_step, chains.log_step)
        step_size = jnp.exp(log_step) * factor

        def one(key: Key, q: Array):
            key_move, key_global = jax.random.split(key)
            state = hmc.init(q, logdensity)
            state, move = kernel.step(key_move, state, logdensity, step_size, length)
            q, value, accepted = state.position, state.logdensity, jnp.zeros(())
            if moves.proposals:
                q, value, accepted = _global_moves(
                    key_global, q, value, logdensity, unwhitened, whiten, chains, moves.proposals
                )
            return q, value, move, accepted

        q, value, move, accepted = jax.vmap(one)(jax.random.split(key, n_chains), q)
        acceptance = jnp.nan_to_num(jnp.mean(move.acceptance))
        updated = averaging.update(count, kernel.target_acceptance - acceptance)
        # Only transitions at the full step size tell about it.
        averaging = jax.tree.map(
            lambda new, old: jnp.where(factor == 1.0, new, old), updated, averaging
        )
        gradients = jnp.broadcast_to(move.gradients, (n_chains,)) + 1
        out = (q, value, move.divergent, gradients, acceptance, accepted)
        return (q, averaging), out

    n = schedule.length.shape[0]
    zero = jnp.zeros_like(chains.log_step)
    averaging = _Averaging(chains.log_step + jnp.log(2.0), zero, chains.log_step, chains.log_step)
    inputs = (jax.random.split(key, n), *schedule, jnp.arange(1.0, n + 1.0))
    q = jax.vmap(lambda x: whiten(x - chains.centre))(chains.x)
    (_, averaging), out = jax.lax.scan(transition, (q, averaging), inputs)
    position, log_density, divergent, gradients, acceptance, accepted = out
    x = chains.centre + position @ chains.scale.T
    segment = Segment(
        x=jnp.swapaxes(x, 0, 1),
        log_density=log_density.T,
        divergences=jnp.sum(divergent),
        gradients=gradients.T,
        acceptance=jnp.mean(acceptance),
        global_acceptance=jnp.mean(accepted),
    )
    centre, scale = _whiten(position[n // 2 :].reshape(-1, dimension), chains, moves.dense)
    adapted = Chains(x[-1], centre, scale, averaging.average, chains.proposal)
    same = chains._replace(x=x[-1])
    return jax.tree.map(lambda new, old: jnp.where(adapt, new, old), adapted, same), segment


def _global_moves(key, q, value, logdensity, unwhitened, whiten, chains, n):
    """Independence Metropolis-Hastings from the mixture.

    The candidates do not depend on where the chain is, so their densities are found in one batch
    and only the tests are one after another.
    """
    key_candidates, key_tests = jax.random.split(key)
    x = chains.proposal.sample(key_candidates, n)
    candidates = jax.vmap(lambda y: whiten(y - chains.centre))(x)
    values = jax.vmap(logdensity)(candidates)
    weights = values - jax.vmap(chains.proposal.log_density)(x)
    log_u = jnp.log(jax.random.uniform(key_tests, (n,)))

    def test(carry, inputs):
        best, weight, moved = carry
        index, candidate, log_u = inputs
        accept = log_u < candidate - weight
        best = jnp.where(accept, index, best)
        return (best, jnp.where(accept, candidate, weight), moved + accept), None

    here = value - chains.proposal.log_density(unwhitened(q))
    start = (jnp.asarray(-1), here, jnp.zeros((), here.dtype))
    inputs = (jnp.arange(n), weights, log_u)
    (best, _, moved), _ = jax.lax.scan(test, start, inputs)
    stay = best < 0
    return (
        jnp.where(stay, q, candidates[best]),
        jnp.where(stay, value, values[best]),
        moved / n,
    )


def _whiten(q: Array, chains: Chains, dense: bool) -> tuple[Array, Array]:
    """New centre and scale from whitened draws [draw, dimension] of all chains."""
    n = q.shape[0]
    mean = jnp.mean(q, axis=0)
    gap = q - mean
    covariance = gap.T @ gap
    blend = (covariance + PRIOR_DRAWS * jnp.eye(q.shape[1])) / (n + PRIOR_DRAWS)
    # A scale that starts diagonal stays so.
    factor = linear_algebra.cholesky(blend) if dense else jnp.diag(jnp.sqrt(jnp.diag(blend)))
    good = jnp.all(jnp.isfinite(factor))
    centre = jnp.where(good, chains.centre + chains.scale @ mean, chains.centre)
    return centre, jnp.where(good, chains.scale @ factor, chains.scale)


@partial(jax.jit, static_argnames=("chains", "starts", "dense"))
def begin_batch(keys: Key, problem: Problem, *, chains: int, starts: int, dense: bool) -> Chains:
    """`begin` for a batch of galaxies; `keys` [galaxy]."""

    def one(key: Key, problem: Problem) -> Chains:
        own = uses.numbered(key, uses.BEGIN, 0)
        return begin(own, problem, chains=chains, starts=starts, dense=dense)

    return over_galaxies(one, problem)(keys, problem)


@partial(jax.jit, static_argnames=("moves",), donate_argnames=("chains",))
def advance_batch(
    keys: Key,
    steps: Array,
    adapt: Array,
    chains: Chains,
    problem: Problem,
    schedule: Schedule,
    *,
    moves: Moves,
) -> tuple[Chains, Segment]:
    """`advance` for a batch of galaxies; the schedule is shared by all.

    Args:
        keys: [galaxy] of each galaxy, the same for all its segments.
        steps: [galaxy] number of the segment in the galaxy's own life.
        adapt: [galaxy] whether it adapts.
        chains: of each; given back advanced.
        problem: the galaxies.
        schedule: of the segment.
        moves: what a transition is made of.
    """

    def one(key, step, adapt, chains, problem, schedule):
        own = uses.numbered(key, uses.SEGMENT, step)
        return advance(own, problem, chains, adapt, schedule, moves)

    batched = (keys, steps, adapt, chains)
    mapped = over_galaxies(one, problem, n_batched=4, n_shared=1)
    return mapped(*batched, problem, schedule)


@partial(jax.jit, static_argnames=("dense",))
def learn_batch(keys: Key, steps: Array, chains: Chains, draws: Array, *, dense: bool) -> Chains:
    """Chains whose whitening and global moves are fitted to draws [galaxy, draw, dimension]."""

    def one(key: Key, step: Array, chains: Chains, draws: Array) -> Chains:
        centre, scale = mixture.spread(draws)
        if not dense:
            scale = jnp.diag(jnp.linalg.norm(scale, axis=1))
        proposal = mixture.fit(uses.numbered(key, uses.LEARNING, step), draws)
        learned = chains._replace(centre=centre, scale=scale, proposal=proposal)
        good = jnp.all(jnp.isfinite(scale)) & jnp.all(jnp.isfinite(proposal.scale))
        return jax.tree.map(lambda new, old: jnp.where(good, new, old), learned, chains)

    return split_over_devices(jax.vmap(one))(keys, steps, chains, draws)
