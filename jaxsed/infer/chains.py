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
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxsed.infer import kernels
from jaxsed.infer.kernels import Kernel
from jaxsed.infer.laplace import laplace
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


class Segment(NamedTuple):
    """What a segment produced, for one galaxy."""

    x: Array
    """[chain, draw, dimension]."""
    log_density: Array
    """[chain, draw]."""
    divergences: Array
    """Number of divergent transitions."""
    gradients: Array
    """Number of gradients of all chains."""
    acceptance: Array
    """Mean acceptance probability."""


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


def begin(key: Array, problem: Problem, *, chains: int, starts: int) -> Chains:
    """Chains of one galaxy spread around its best fit by the Gaussian approximation."""
    key_fit, key_spread = jax.random.split(key)
    fit = laplace(key_fit, problem, starts=starts)
    dimension = problem.dimension
    noise = jax.random.normal(key_spread, (chains, dimension))
    step = jnp.log(1.0 / dimension**0.25)
    return Chains(fit.mean + noise @ fit.scale.T, fit.mean, fit.scale, step.astype(noise.dtype))


def advance(
    key: Array, problem: Problem, chains: Chains, lengths: Array, kernel: Kernel, adapt: bool
) -> tuple[Chains, Segment]:
    """One segment of one galaxy: as many transitions as `lengths` has entries."""
    n_chains, dimension = chains.x.shape

    def logdensity(q: Array) -> Array:
        value = problem.logdensity(chains.centre + chains.scale @ q)
        # A not-a-number would stop the chain for good; an impossible point is just rejected.
        return jnp.where(jnp.isnan(value), -jnp.inf, value)

    solve = partial(jax.scipy.linalg.solve_triangular, chains.scale, lower=True)
    q = jax.vmap(lambda x: solve(x - chains.centre))(chains.x)
    states = jax.vmap(lambda y: kernels.start(y, logdensity))(q)
    zero = jnp.zeros_like(chains.log_step)
    averaging = _Averaging(chains.log_step + jnp.log(2.0), zero, chains.log_step, chains.log_step)

    def transition(carry, inputs):
        states, averaging = carry
        key, length, count = inputs
        log_step = averaging.log_step if adapt else chains.log_step
        keys = jax.random.split(key, n_chains)
        new, move = jax.vmap(
            lambda k, s: kernel.step(k, s, logdensity, jnp.exp(log_step), length)
        )(keys, states)
        acceptance = jnp.nan_to_num(jnp.mean(move.acceptance))
        if adapt:
            averaging = averaging.update(count, kernel.target_acceptance - acceptance)
        out = (new.position, new.logdensity, move.divergent, move.gradients, acceptance)
        return (new, averaging), out

    n = lengths.shape[0]
    inputs = (jax.random.split(key, n), lengths, jnp.arange(1.0, n + 1.0))
    (states, averaging), out = jax.lax.scan(transition, (states, averaging), inputs)
    position, log_density, divergent, gradients, acceptance = out
    x = chains.centre + position @ chains.scale.T
    segment = Segment(
        x=jnp.swapaxes(x, 0, 1),
        log_density=log_density.T,
        divergences=jnp.sum(divergent),
        gradients=jnp.sum(gradients) * (n_chains if gradients.ndim == 1 else 1),
        acceptance=jnp.mean(acceptance),
    )
    if not adapt:
        return chains._replace(x=x[-1]), segment
    centre, scale = _whiten(position[n // 2 :].reshape(-1, dimension), chains)
    return Chains(x[-1], centre, scale, averaging.average), segment


def _whiten(q: Array, chains: Chains) -> tuple[Array, Array]:
    """New centre and scale from whitened draws [draw, dimension] of all chains."""
    n = q.shape[0]
    mean = jnp.mean(q, axis=0)
    gap = q - mean
    covariance = gap.T @ gap
    blend = (covariance + PRIOR_DRAWS * jnp.eye(q.shape[1])) / (n + PRIOR_DRAWS)
    factor = jnp.linalg.cholesky(blend)
    good = jnp.all(jnp.isfinite(factor))
    centre = jnp.where(good, chains.centre + chains.scale @ mean, chains.centre)
    return centre, jnp.where(good, chains.scale @ factor, chains.scale)


def _mesh() -> Mesh:
    return Mesh(np.array(jax.devices()), ("galaxy",))


def _over_galaxies(function, problem: Problem, n_batched: int, n_shared: int):
    """Map a one-galaxy function over a batch, split over all devices.

    The function takes `n_batched` arguments with a galaxy axis, the problem, and `n_shared`
    arguments without one.  Devices do not wait for each other inside a segment.
    """
    split, whole = PartitionSpec("galaxy"), PartitionSpec()
    mapped = jax.vmap(
        function, in_axes=(*(0,) * n_batched, problem.axes, *(None,) * n_shared)
    )
    spec = Problem(prior=split, forward=whole, data=split, shear=problem.shear)
    return jax.shard_map(
        mapped,
        mesh=_mesh(),
        in_specs=(*(split,) * n_batched, spec, *(whole,) * n_shared),
        out_specs=split,
        check_vma=False,
    )


@partial(jax.jit, static_argnames=("chains", "starts"))
def begin_batch(keys: Array, problem: Problem, *, chains: int, starts: int) -> Chains:
    """`begin` for a batch of galaxies; `keys` [galaxy]."""
    return _over_galaxies(partial(begin, chains=chains, starts=starts), problem, 1, 0)(
        keys, problem
    )


@partial(jax.jit, static_argnames=("kernel", "adapt"), donate_argnames=("chains",))
def advance_batch(
    keys: Array, chains: Chains, problem: Problem, lengths: Array, *, kernel: Kernel, adapt: bool
) -> tuple[Chains, Segment]:
    """`advance` for a batch of galaxies; `lengths` [draw] is shared by all."""

    def one(key: Array, chains: Chains, problem: Problem, lengths: Array):
        return advance(key, problem, chains, lengths, kernel, adapt)

    return _over_galaxies(one, problem, 2, 1)(keys, chains, problem, lengths)


@jax.jit
def describe_batch(x: Array, problem: Problem):
    """Theta, normal coordinates and fluxes of draws [galaxy, chain, draw, dimension]."""

    def one(x: Array, problem: Problem):
        def point(x: Array):
            theta, u, _, flux = problem.evaluate(x)
            sampled = {
                name: value
                for name, value, leaf in zip(theta._fields, theta, problem.prior, strict=True)
            }
            return sampled, u, flux

        # Draws one after another in blocks: their spectra would not fit in the caches together.
        flat = x.reshape(-1, x.shape[-1])
        out = jax.lax.map(point, flat, batch_size=64)
        return jax.tree.map(lambda y: y.reshape(*x.shape[:2], *y.shape[1:]), out)

    return _over_galaxies(one, problem, 1, 0)(x, problem)


def place(tree, problem: Problem):
    """Arrays with a galaxy axis, and a problem, laid out over the devices as the batch
    functions leave them, so that every call finds the layout that is compiled."""
    split, whole = (NamedSharding(_mesh(), PartitionSpec(*axis)) for axis in (("galaxy",), ()))
    layout = problem.replace(
        prior=jax.tree.map(lambda _: split, problem.prior),
        forward=jax.tree.map(lambda _: whole, problem.forward),
        data=jax.tree.map(lambda _: split, problem.data),
    )
    return jax.device_put(tree, split), jax.device_put(problem, layout)


def device_count() -> int:
    """Number of devices that galaxies are split over."""
    return len(jax.devices())
