"""NumPyro's NUTS with its own warm-up, as a reference that shares nothing with our kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.infer.hmc import hmc

from jaxsed.core.types import Key, PyTree
from jaxsed.infer.laplace import laplace
from jaxsed.infer.samplers.base import SamplerRun, SingleCallMethod
from jaxsed.problem import Problem


@dataclass(frozen=True, kw_only=True)
class NumpyroNUTS(SingleCallMethod):
    """NumPyro's no-U-turn sampler with its own warm-up, without global moves.

    Kept for comparison: its trajectories are long where posteriors are thin.
    """

    name: ClassVar[str] = "numpyro"

    warmup: int = 200
    """Transitions that adapt."""
    starts: int = 16
    """Descents towards best fits, where the chains begin."""
    max_tree_depth: int = 6
    target_acceptance: float = 0.8

    def run(self, key: Key, problem: Problem, length: int) -> SamplerRun:
        """`chains` chains of one galaxy: `warmup` transitions that adapt, then `length` draws.

        They start spread around the best fit, in coordinates whitened by the curvature there.
        """
        key_fit, key_spread, key_draw = jax.random.split(key, 3)
        fit = laplace(key_fit, problem, starts=self.starts)
        noise = jax.random.normal(key_spread, (self.chains, problem.dimension))

        def potential(q: Array) -> Array:
            return -problem.guarded_logdensity(fit.place(q))

        def chain(key: Key, q: Array) -> tuple[Array, ...]:
            begin, move = hmc(potential, algo="NUTS")
            state = begin(
                q, self.warmup, target_accept_prob=self.target_acceptance,
                max_tree_depth=self.max_tree_depth, rng_key=key,
            )  # fmt: skip

            def step(state: PyTree, _: None) -> tuple[Any, tuple[Array, ...]]:
                state = move(state)
                return state, (state.z, -state.potential_energy, state.diverging, state.num_steps)

            state, (_, _, _, before) = jax.lax.scan(step, state, None, self.warmup)
            _, (z, value, diverging, steps) = jax.lax.scan(step, state, None, length)
            return z, value, jnp.sum(diverging), jnp.sum(before) + jnp.sum(steps)

        keys = jax.random.split(key_draw, self.chains)
        q, log_density, divergences, gradients = jax.vmap(chain)(keys, noise)
        return SamplerRun(
            x=fit.place(q),
            log_density=log_density,
            divergences=jnp.sum(divergences),
            gradients=jnp.sum(gradients),
        )
