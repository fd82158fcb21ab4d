"""Microcanonical Langevin Monte Carlo with a Metropolis test (Robnik+ 2023), by BlackJAX."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import blackjax
import jax.numpy as jnp
from jax import Array

from jaxsed.core.types import Key, PyTree
from jaxsed.infer.samplers.base import Kernel, KernelMethod, LogDensity, Move
from jaxsed.infer.samplers.hmc import HMC


def step(
    key: Key, state: PyTree, logdensity: LogDensity, step_size: Array, length: Array
) -> tuple[Any, Move]:
    """A microcanonical trajectory of `length` steps with a Metropolis test at its end."""
    # Its velocities have norm one, those of HMC about the root of the dimension.
    size = step_size * jnp.sqrt(float(state.position.size))
    transition = blackjax.mcmc.adjusted_mclmc.build_kernel()
    new, info = transition(key, state, logdensity, size, (length,))
    # The default integrator takes two gradients a step.
    return new, Move(info.acceptance_rate, info.is_divergent, 2 * length)


@dataclass(frozen=True, kw_only=True)
class MCLMC(KernelMethod):
    """Metropolis-adjusted microcanonical trajectories with global moves, lengths as for `HMC`."""

    name: ClassVar[str] = "mclmc"

    target_acceptance: float = 0.9

    @property
    def kernel(self) -> Kernel:
        """A trajectory whose number of steps is given from outside."""
        return Kernel(step, self.target_acceptance)

    @property
    def warmup_acceptance(self) -> float:
        """That of `HMC`: what suits microcanonical trajectories makes its steps too short."""
        return HMC.target_acceptance
