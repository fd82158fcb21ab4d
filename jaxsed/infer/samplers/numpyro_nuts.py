"""NumPyro's NUTS with its own warm-up, as a reference that shares nothing with our kernels."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.infer.hmc import hmc

from jaxsed.infer.laplace import laplace
from jaxsed.infer.samplers.result import SamplerRun
from jaxsed.infer.settings import Settings
from jaxsed.problem import Problem


def run(key: Array, problem: Problem, settings: Settings, length: int) -> SamplerRun:
    """`chains` chains of one galaxy: `warmup` transitions that adapt, then `length` draws.

    They start spread around the best fit, in coordinates whitened by the curvature there.
    """
    key_fit, key_spread, key_draw = jax.random.split(key, 3)
    fit = laplace(key_fit, problem, starts=settings.starts)
    noise = jax.random.normal(key_spread, (settings.chains, problem.dimension))

    def potential(q: Array) -> Array:
        return -problem.guarded_logdensity(fit.place(q))

    def chain(key: Array, q: Array) -> tuple[Array, ...]:
        begin, move = hmc(potential, algo="NUTS")
        state = begin(
            q, settings.warmup, target_accept_prob=settings.target_acceptance,
            max_tree_depth=settings.max_tree_depth, rng_key=key,
        )  # fmt: skip

        def step(state: Any, _: None) -> tuple[Any, tuple[Array, ...]]:
            state = move(state)
            return state, (state.z, -state.potential_energy, state.diverging, state.num_steps)

        state, (_, _, _, before) = jax.lax.scan(step, state, None, settings.warmup)
        _, (z, value, diverging, steps) = jax.lax.scan(step, state, None, length)
        return z, value, jnp.sum(diverging), jnp.sum(before) + jnp.sum(steps)

    keys = jax.random.split(key_draw, settings.chains)
    q, log_density, divergences, gradients = jax.vmap(chain)(keys, noise)
    return SamplerRun(
        x=fit.place(q),
        log_density=log_density,
        divergences=jnp.sum(divergences),
        gradients=jnp.sum(gradients),
    )
