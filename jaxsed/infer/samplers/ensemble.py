"""Ensembles of walkers that need no gradient: slice sampling (zeus) and stretch moves (emcee).

Kwon+ (2022) sample PROVABGS by ensemble slice sampling (Karamanis & Beutler 2021).  Both methods
are NumPyro's; every galaxy has `chains` ensembles that know nothing of each other.  A run counts
as converged only if it is also 50 times longer than the autocorrelation time, their rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.infer import AIES, ESS

from jaxsed.core.types import Key, PyTree
from jaxsed.infer.laplace import laplace
from jaxsed.infer.samplers.base import SamplerRun, SingleCallMethod
from jaxsed.problem import Problem

AUTOCORRELATION_TIMES = 50
"""A run must be this many autocorrelation times long (Kwon+ 2022, section 4)."""

EXPANSIONS, CONTRACTIONS = 100, 100
"""Largest numbers of steps by which a slice grows and shrinks."""


@dataclass(frozen=True, kw_only=True)
class _Ensemble(SingleCallMethod):
    """`chains` ensembles of walkers."""

    evaluations: ClassVar[int]
    """Of the log density, for one move of one walker."""

    walkers: int = 32
    """Of each ensemble; at least twice the dimension."""
    starts: int = 16
    """Descents towards best fits, where the walkers begin."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.walkers % 2:
            raise ValueError(f"expected an even number of walkers, got {self.walkers}")

    def returned_chains(self, dimension: int) -> int:
        """Walkers of all ensembles."""
        return self.chains * 2 * max(self.walkers // 2, dimension)

    def _kernel(self, potential: Any) -> Any:
        """The kernel of NumPyro."""
        raise NotImplementedError

    def run(self, key: Key, problem: Problem, length: int) -> SamplerRun:
        """One galaxy: `length` draws of each walker after half as many."""
        key_fit, key_spread, key_walk = jax.random.split(key, 3)
        fit = laplace(key_fit, problem, starts=self.starts)
        dimension = problem.dimension
        walkers = self.returned_chains(dimension) // self.chains
        noise = jax.random.normal(key_spread, (self.chains, walkers, dimension))
        # Near the best fits: walkers that begin far out in a flat tail never come back.
        x = fit.ends[jnp.arange(walkers) % self.starts] + 0.5 * noise @ fit.scale.T

        def potential(x: Array) -> Array:
            return -problem.guarded_logdensity(x)

        def ensemble(key: Key, x: Array) -> tuple[Array, Array]:
            kernel = self._kernel(potential)
            state = kernel.init(jax.random.split(key, walkers), 0, init_params=x)

            def step(state: PyTree, _: None) -> tuple[Any, Array]:
                state = kernel.sample(state, (), {})
                return state, state.z

            state, _ = jax.lax.scan(step, state, None, length // 2)
            _, z = jax.lax.scan(step, state, None, length)
            return jnp.swapaxes(z, 0, 1), _autocorrelation_time(z)

        draws, times = jax.vmap(ensemble)(jax.random.split(key_walk, self.chains), x)
        log_density = -jax.lax.map(jax.vmap(potential), draws.reshape(-1, length, dimension))
        steps = self.chains * walkers * (length + length // 2)
        return SamplerRun(
            x=draws.reshape(-1, length, dimension),
            log_density=log_density,
            evaluations=float(steps * self.evaluations),
            effective=jnp.where(_long_enough(times, length), jnp.inf, 0.0),
        )


@dataclass(frozen=True, kw_only=True)
class EnsembleSlice(_Ensemble):
    """Ensemble slice sampling (Karamanis & Beutler 2021), as Kwon+ (2022) use it."""

    name: ClassVar[str] = "ensemble_slice"
    evaluations: ClassVar[int] = 5  # an estimate: NumPyro does not count them

    def _kernel(self, potential: Any) -> Any:
        # With randomize_split the walkers would be shuffled, and no diagnostic means anything.
        return ESS(
            potential_fn=potential, randomize_split=False, max_steps=EXPANSIONS,
            max_iter=CONTRACTIONS,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class AffineInvariant(_Ensemble):
    """Affine-invariant ensembles (Goodman & Weare 2010), moves as in emcee.

    Kept for comparison: it needs many times the evaluations of `EnsembleSlice`, and is of no use
    as a fallback.
    """

    name: ClassVar[str] = "aies"
    evaluations: ClassVar[int] = 1

    def _kernel(self, potential: Any) -> Any:
        with jax.ensure_compile_time_eval():  # it makes arrays of its weights
            return AIES(potential_fn=potential, moves={AIES.StretchMove(): 1.0})


def _long_enough(times: Array, length: int) -> Array:
    """Whether ensembles with these autocorrelation times [ensemble] ran for long enough; a time
    that is not a number, as of walkers that never moved, is never so."""
    return jnp.max(times) * AUTOCORRELATION_TIMES <= length


def _autocorrelation_time(z: Array) -> Array:
    """Largest integrated autocorrelation time of walkers [draw, walker, dimension], as in emcee:
    the walkers' mean autocorrelation, summed up to a lag of five times itself (Sokal 1996), or over
    all lags where none is that long.  Not-a-number where a coordinate has one value throughout."""
    n = z.shape[0]
    gap = z - jnp.mean(z, axis=(0, 1))
    power = jnp.abs(jnp.fft.rfft(gap, 2 * n, axis=0)) ** 2
    correlation = jnp.mean(jnp.fft.irfft(power, axis=0)[:n], axis=1)
    correlation = correlation / correlation[0]
    time = 2.0 * jnp.cumsum(correlation, axis=0) - 1.0
    far = jnp.arange(n)[:, None] >= 5.0 * time
    window = jnp.where(jnp.any(far, axis=0), jnp.argmax(far, axis=0), n - 1)
    return jnp.max(jnp.take_along_axis(time, window[None], axis=0))
