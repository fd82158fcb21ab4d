"""Hamiltonian Monte Carlo (Duane+ 1987; Neal 2011), the default method, by BlackJAX."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import blackjax
import jax.numpy as jnp
from jax import Array

from jaxsed.core.types import Key, PyTree
from jaxsed.infer.samplers.base import Kernel, KernelMethod, LogDensity, Move


def step(
    key: Key, state: PyTree, logdensity: LogDensity, step_size: Array, length: Array
) -> tuple[Any, Move]:
    """A trajectory of `length` leapfrog steps with a Metropolis test at its end."""
    metric = jnp.ones_like(state.position)
    transition = blackjax.hmc.build_kernel()
    new, info = transition(key, state, logdensity, step_size, metric, length)
    return new, Move(info.acceptance_rate, info.is_divergent, length)


@dataclass(frozen=True, kw_only=True)
class HMC(KernelMethod):
    """Hamiltonian Monte Carlo with global moves.

    All galaxies take the same number of leapfrog steps, drawn anew for every transition.
    """

    name: ClassVar[str] = "hmc"

    @property
    def kernel(self) -> Kernel:
        """A trajectory whose number of steps is given from outside."""
        return Kernel(step, self.target_acceptance)
