"""Chains of a batch of galaxies, advanced segment by segment.

A segment is a fixed number of transitions of all chains of all galaxies in one compiled call.
Warm-up segments adapt the step size of every galaxy, and after each the chains of a galaxy
together give the covariance that whitens the next; sampling segments change nothing.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from blackjax.mcmc import hmc
from jax import Array

from jaxsed.core import linear_algebra
from jaxsed.core.types import Key
from jaxsed.infer.laplace import Laplace, laplace_batch
from jaxsed.infer.samplers import mixture
from jaxsed.infer.samplers.base import Kernel, Move
from jaxsed.infer.samplers.mixture import Mixture
from jaxsed.infer.schedule import uses
from jaxsed.infer.schedule.devices import over_devices, split_over_devices
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


def begin(keys: Key, problem: Problem, *, chains: int, starts: int, dense: bool) -> Chains:
    """Chains of a batch of galaxies spread around the best fits by the Gaussian approximation."""
    of_uses = jax.vmap(jax.random.split)(keys)
    fits = laplace_batch(of_uses[:, 0], problem, starts=starts)

    def spread(key: Key, fit: Laplace) -> Chains:
        dimension = fit.mean.size
        noise = jax.random.normal(key, (chains, dimension))
        step = jnp.log(1.0 / dimension**0.25)
        x = fit.ends[jnp.arange(chains) % starts] + noise @ fit.scale.T
        proposal = mixture.broad(fit.mean, fit.scale)
        scale = fit.scale if dense else jnp.diag(jnp.linalg.norm(fit.scale, axis=1))
        return Chains(x, fit.mean, scale, step.astype(noise.dtype), proposal)

    return jax.vmap(spread)(of_uses[:, 1], fits)


def advance(
    keys: Key, problem: Problem, chains: Chains, adapt: Array, schedule: Schedule, moves: Moves
) -> tuple[Chains, Segment]:
    """One segment of a batch of galaxies: as many transitions as the schedule has.

    A transition is a trajectory of the kernel followed by independent proposals from the mixture,
    each with its own Metropolis-Hastings test.  Where `adapt` is true the segment also finds the
    step size and, from its second half, the whitening; its draws are then no sample.

    The loop over transitions is outside of the map over galaxies: JAX traces the body of a loop
    that is mapped several times.
    """
    inverse = jax.vmap(linear_algebra.inverse_lower)(chains.scale)
    axes = (0, problem.axes, 0, 0, 0, 0, None)
    move_all = jax.vmap(partial(_transition, moves=moves), in_axes=axes)

    def transition(carry, inputs):
        q, averaging = carry
        keys, length, factor, count = inputs
        step_size = jnp.exp(jnp.where(adapt, averaging.log_step, chains.log_step)) * factor
        q, value, move, accepted = move_all(keys, problem, chains, inverse, step_size, q, length)
        acceptance = jnp.nan_to_num(jnp.mean(move.acceptance, axis=1))
        updated = averaging.update(count, moves.kernel.target_acceptance - acceptance)
        # Only transitions at the full step size tell about it.
        averaging = jax.tree.map(
            lambda new, old: jnp.where(factor == 1.0, new, old), updated, averaging
        )
        return (q, averaging), (q, value, move.divergent, move.gradients + 1, acceptance, accepted)

    n = schedule.length.shape[0]
    zero = jnp.zeros_like(chains.log_step)
    averaging = _Averaging(chains.log_step + jnp.log(2.0), zero, chains.log_step, chains.log_step)
    of_transitions = jax.vmap(partial(jax.random.split, num=n), out_axes=1)(keys)
    inputs = (of_transitions, *schedule, jnp.arange(1.0, n + 1.0))
    q = jax.vmap(lambda x, c, inverse: (x - c.centre) @ inverse.T)(chains.x, chains, inverse)
    (_, averaging), out = jax.lax.scan(transition, (q, averaging), inputs)

    def finish(chains: Chains, adapt: Array, log_step: Array, out: Any) -> tuple[Chains, Segment]:
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
        draws = position[n // 2 :].reshape(-1, position.shape[-1])
        centre, scale = _whiten(draws, chains, moves.dense)
        adapted = Chains(x[-1], centre, scale, log_step, chains.proposal)
        same = chains._replace(x=x[-1])
        return jax.tree.map(lambda new, old: jnp.where(adapt, new, old), adapted, same), segment

    return jax.vmap(finish, in_axes=(0, 0, 0, 1))(chains, adapt, averaging.average, out)


def _transition(
    key: Key,
    problem: Problem,
    chains: Chains,
    inverse: Array,
    step_size: Array,
    q: Array,
    length: Array,
    *,
    moves: Moves,
) -> tuple[Array, Array, Move, Array]:
    """One transition of all chains of one galaxy, from whitened positions q [chain, dimension].

    Args:
        key: of the transition.
        problem: the galaxy.
        chains: their whitening and global moves.
        inverse: [dimension, dimension] of the whitening's scale.
        step_size: of the trajectories.
        q: where the chains are.
        length: leapfrog steps.
        moves: what the transition is made of.

    Returns:
        Positions, log densities and moves, and the shares of global proposals that were accepted.
    """

    def unwhitened(q: Array) -> Array:
        return chains.centre + chains.scale @ q

    def logdensity(q: Array) -> Array:
        return problem.guarded_logdensity(unwhitened(q))

    def whiten(gap: Array) -> Array:
        return inverse @ gap

    def one(key: Key, q: Array) -> tuple[Array, Array, Move, Array]:
        key_move, key_global = jax.random.split(key)
        state = hmc.init(q, logdensity)
        state, move = moves.kernel.step(key_move, state, logdensity, step_size, length)
        q, value, accepted = state.position, state.logdensity, jnp.zeros(())
        if moves.proposals:
            q, value, accepted = _global_moves(
                key_global, q, value, logdensity, unwhitened, whiten, chains, moves.proposals
            )
        return q, value, move, accepted

    return jax.vmap(one)(jax.random.split(key, q.shape[0]), q)


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
    """`begin`, on every device its own galaxies; `keys` [galaxy]."""

    def block(keys: Key, problem: Problem) -> Chains:
        own = jax.vmap(lambda key: uses.numbered(key, uses.BEGIN, 0))(keys)
        return begin(own, problem, chains=chains, starts=starts, dense=dense)

    return over_devices(block, problem)(keys, problem)


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
    """`advance`, on every device its own galaxies.

    Args:
        keys: [galaxy] of each galaxy, the same for all its segments.
        steps: [galaxy] number of the segment in the galaxy's own life.
        adapt: [galaxy] whether it adapts.
        chains: of each; given back advanced.
        problem: the galaxies.
        schedule: of the segment.
        moves: what a transition is made of.
    """

    def block(keys, steps, adapt, chains, problem, schedule):
        own = jax.vmap(lambda key, step: uses.numbered(key, uses.SEGMENT, step))(keys, steps)
        return advance(own, problem, chains, adapt, schedule, moves)

    batched = (keys, steps, adapt, chains)
    mapped = over_devices(block, problem, n_batched=4, n_shared=1)
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
