"""The no-U-turn sampler (Hoffman & Gelman 2014), by BlackJAX."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import blackjax
import jax.numpy as jnp
from jax import Array

from jaxsed.core.types import Key, PyTree
from jaxsed.infer.samplers.base import Kernel, KernelMethod, LogDensity, Move


@cache
def _step_of(max_tree_depth: int) -> Any:
    transition = blackjax.nuts.build_kernel()

    def step(
        key: Key, state: PyTree, logdensity: LogDensity, step_size: Array, length: Array
    ) -> tuple[Any, Move]:
        del length
        metric = jnp.ones_like(state.position)
        new, info = transition(key, state, logdensity, step_size, metric, max_tree_depth)
        return new, Move(info.acceptance_rate, info.is_divergent, info.num_integration_steps)

    return step


@dataclass(frozen=True, kw_only=True)
class NUTS(KernelMethod):
    """No-U-turn sampling with global moves.

    Each chain chooses the length of its trajectories, so in a batch all wait for the longest.
    """

    name: ClassVar[str] = "nuts"

    max_tree_depth: int = 6
    """A trajectory has at most 2**max_tree_depth - 1 leapfrog steps."""

    @property
    def kernel(self) -> Kernel:
        """A trajectory that stops before it turns back."""
        return Kernel(_step_of(self.max_tree_depth), self.target_acceptance)
