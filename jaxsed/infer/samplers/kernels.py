"""Transition kernels with one shape: ``step(key, state, logdensity, step_size, length)``.

All come from BlackJAX and move in whitened coordinates, so their mass matrix is the identity.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import blackjax
import jax.numpy as jnp
from jax import Array

LogDensity = Callable[[Array], Array]


class Move(NamedTuple):
    """What one transition reports."""

    acceptance: Array
    """Mean acceptance probability along the trajectory."""
    divergent: Array
    """Whether the energy error exceeded the threshold."""
    gradients: Array
    """Number of gradients used."""


class Kernel(NamedTuple):
    """A transition kernel and what it aims at."""

    step: Callable[..., tuple[blackjax.mcmc.hmc.HMCState, Move]]
    """``step(key, state, logdensity, step_size, length) -> (state, Move)``."""
    target_acceptance: float
    name: str


def start(position: Array, logdensity: LogDensity) -> blackjax.mcmc.hmc.HMCState:
    """State of a chain at `position`."""
    return blackjax.mcmc.hmc.init(position, logdensity)


def nuts(*, max_tree_depth: int = 8, target_acceptance: float = 0.8) -> Kernel:
    """No-U-turn sampling (Hoffman & Gelman 2014) with at most 2**max_tree_depth - 1 steps."""
    transition = blackjax.nuts.build_kernel()

    def step(key, state, logdensity, step_size, length):
        del length
        metric = jnp.ones_like(state.position)
        new, info = transition(key, state, logdensity, step_size, metric, max_tree_depth)
        move = Move(info.acceptance_rate, info.is_divergent, info.num_integration_steps)
        return new, move

    return Kernel(step, target_acceptance, "nuts")


def hmc(*, target_acceptance: float = 0.8) -> Kernel:
    """Hamiltonian Monte Carlo whose number of steps is given from outside.

    The same number serves every slot of a batch, so no slot waits for another.
    """
    transition = blackjax.hmc.build_kernel()

    def step(key, state, logdensity, step_size, length):
        metric = jnp.ones_like(state.position)
        new, info = transition(key, state, logdensity, step_size, metric, length)
        return new, Move(info.acceptance_rate, info.is_divergent, length)

    return Kernel(step, target_acceptance, "hmc")


def mclmc(*, target_acceptance: float = 0.9) -> Kernel:
    """Microcanonical trajectories with a Metropolis test (Robnik+ 2023), lengths as for `hmc`."""
    transition = blackjax.mcmc.adjusted_mclmc.build_kernel()

    def step(key, state, logdensity, step_size, length):
        # Its velocities have norm one, those of HMC about the root of the dimension.
        size = step_size * jnp.sqrt(float(state.position.size))
        new, info = transition(key, state, logdensity, size, (length,))
        # The default integrator takes two gradients a step.
        return new, Move(info.acceptance_rate, info.is_divergent, 2 * length)

    return Kernel(step, target_acceptance, "mclmc")
