"""HMC whose trajectories maximise the change of squared distance (Hoffman+ 2021), by BlackJAX.

Each galaxy has its own length, so under `vmap` all wait for the longest: for comparison.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import blackjax
import jax
import jax.numpy as jnp
from jax import Array

from jaxsed.core.types import Key
from jaxsed.infer.laplace import laplace
from jaxsed.infer.samplers.base import SamplerRun, SingleCallMethod
from jaxsed.learn import constant_adam
from jaxsed.problem import Problem

LEARNING_RATE = 0.025
"""Of the trajectory length, as published."""


@dataclass(frozen=True, kw_only=True)
class ChEES(SingleCallMethod):
    """HMC with trajectory lengths by the ChEES criterion (Hoffman+ 2021), without global moves.

    Kept for comparison: on posteriors of galaxies it converges for fewer of them than `HMC`, and is
    of no use as a fallback.
    """

    name: ClassVar[str] = "chees"

    warmup: int = 200
    """Transitions."""
    warmup_chains: int = 16
    starts: int = 16
    """Descents towards best fits, where the chains begin."""

    def run(self, key: Key, problem: Problem, length: int) -> SamplerRun:
        """One galaxy: `warmup` transitions of all chains, then `length` of those kept."""
        key_fit, key_spread, key_adapt, key_draw = jax.random.split(key, 4)
        fit = laplace(key_fit, problem, starts=self.starts)
        chains, dimension = self.warmup_chains, problem.dimension
        noise = jax.random.normal(key_spread, (chains, dimension))

        def logdensity(q: Array) -> Array:
            return problem.guarded_logdensity(fit.place(q))

        adaptation = blackjax.chees_adaptation(logdensity, chains)
        (states, found), info = adaptation.run(
            key_adapt, noise, 0.5, constant_adam(LEARNING_RATE), self.warmup
        )
        transition = blackjax.dynamic_hmc.build_kernel(
            next_random_arg_fn=found["next_random_arg_fn"],
            integration_steps_fn=found["integration_steps_fn"],
        )
        kept = jnp.linspace(0, chains - 1, self.chains).round().astype(int)

        def step(state, key):
            keys = jax.random.split(key, self.chains)
            state, info = jax.vmap(
                lambda k, s: transition(
                    k,
                    s,
                    logdensity,
                    found["step_size"],
                    found["inverse_mass_matrix"],
                    found["integration_steps_params"],
                )
            )(keys, state)
            out = (state.position, state.logdensity, info.is_divergent, info.num_integration_steps)
            return state, out

        first = jax.tree.map(lambda a: a[kept], states)
        _, out = jax.lax.scan(step, first, jax.random.split(key_draw, length))
        q, log_density, divergent, steps = out
        return SamplerRun(
            x=jnp.swapaxes(fit.place(q), 0, 1),
            log_density=log_density.T,
            divergences=jnp.sum(divergent),
            gradients=jnp.sum(steps) + jnp.sum(info.info.num_integration_steps),
        )
