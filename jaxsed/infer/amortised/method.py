"""Galaxies whose posterior is a flow's, by importance weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxsed import params
from jaxsed.core.diagnostics import ESS_MIN
from jaxsed.core.types import Key
from jaxsed.infer.amortised.importance import KHAT_MAX, Weighted, weighted
from jaxsed.infer.amortised.posterior import Amortised
from jaxsed.infer.samplers import mixture
from jaxsed.infer.samplers.base import KernelMethod, SamplerRun
from jaxsed.infer.samplers.hmc import HMC
from jaxsed.infer.schedule import uses
from jaxsed.infer.schedule.chains import Chains
from jaxsed.infer.schedule.devices import over_galaxies, place, place_problem
from jaxsed.infer.schedule.galaxies import Galaxies, Report
from jaxsed.infer.schedule.slots import padded
from jaxsed.problem import Problem, take

DRAWS = (2048, 16384)
"""Draws of the flow: first, and for galaxies of which too few count."""

DRAWS_PER_CALL = 262_144
"""Of the first draws, as many galaxies as their diagnostics take without padding."""

CACHED_DRAWS = 4096
"""Draws of a flow whose hidden units stay in a processor's cache: more together take twice as long
each."""

WORTH_MORE = 0.6
"""More draws are tried where they would bring the effective number this close to the criterion."""


@dataclass(frozen=True, kw_only=True)
class FlowImportance:
    """Draws of an amortised posterior made exact by importance weights (Vehtari+ 2024).

    Galaxies whose weights are too uneven go to `sampler`, which starts from the flow's draws with
    at most `retries` longer runs; those that fail there start from their own best fits.
    """

    name: ClassVar[str] = "flow+is"

    flow: Amortised
    sampler: KernelMethod = field(default_factory=HMC)
    retries: int = 2
    """Longer runs from the flow's draws."""

    @property
    def draws(self) -> int:
        """Of every chain that are returned: as many as of the sampler."""
        return self.sampler.draws

    @property
    def chains(self) -> int:
        """The draws are split among as many chains as the sampler has."""
        return self.sampler.chains

    def check(self, problem: Problem) -> None:
        """ValueError where a batch of problems has another dimension than the flow."""
        dimension = params.dimension(jax.tree.map(lambda a: a[0], problem.prior))
        if self.flow.flow.dimension != dimension:
            raise ValueError(
                f"the flow has {self.flow.flow.dimension} parameters, the problem {dimension}"
            )


def by_flow(
    galaxies: Galaxies, method: FlowImportance, report: Report, waiting: Sequence[int]
) -> list[int]:
    """Weigh the flow's draws; returns galaxies that do not converge, ready for other methods."""
    flow = method.flow.suited(galaxies.problem)
    chains, draws = galaxies.shape
    waiting, missed, done = list(waiting), [], 0
    for number, n in enumerate(DRAWS):
        size = padded(min(max(DRAWS_PER_CALL // n, 1), len(waiting)))
        again: list[int] = []
        for start in range(0, len(waiting), size):
            chosen = np.array(waiting[start : start + size])
            rows = chosen[np.arange(size) % chosen.size]
            keys = jax.vmap(lambda k, i=number: uses.numbered(k, uses.FLOW, i))(galaxies.keys[rows])
            found = jax.tree.map(
                lambda a, m=chosen.size: np.asarray(a)[:m],
                weighted_batch(
                    place(keys), place_problem(take(galaxies.problem, rows)), flow,
                    n=n, keep=chains * draws,
                ),
            )  # fmt: skip
            one = [jax.tree.map(lambda a, i=i: a[i], found) for i in range(chosen.size)]
            for galaxy in chosen:
                state = galaxies.states[galaxy]
                galaxies.change(galaxy, evaluations=state.evaluations + n)
            runs = [_run(weights, galaxies.shape, n) for weights in one]
            passed = galaxies.diagnose(chosen, runs, method.name)
            for galaxy, weights, good in zip(chosen, one, passed, strict=True):
                if good:
                    continue
                last = number + 1 == len(DRAWS)
                reach = weights.effective * DRAWS[-1] / n
                promising = weights.outside == 0 and reach >= WORTH_MORE * ESS_MIN
                if promising and not last:
                    again.append(int(galaxy))
                    continue
                _hand_over(galaxies, int(galaxy), weights.rough)
                missed.append(int(galaxy))
            done += int(passed.sum())
            left = len(waiting) - start - chosen.size + len(again)
            report(f"{method.name}, {n} draws", done, left)
        waiting = again
        if not waiting:
            break
    return missed


@partial(jax.jit, static_argnames=("n", "keep"))
def weighted_batch(
    keys: Key, problem: Problem, amortised: Amortised, *, n: int, keep: int
) -> Weighted:
    """`importance.weighted` of every galaxy of a batch."""

    def one(key: Key, problem: Problem, amortised: Amortised) -> Weighted:
        return weighted(key, problem, amortised, n, keep)

    at_once = max(CACHED_DRAWS // n, 1) if jax.default_backend() == "cpu" else None
    mapped = over_galaxies(one, problem, n_shared=1, at_once=at_once)
    return mapped(keys, problem, amortised)


def _run(weights: Weighted, shape: tuple[int, int], n: int) -> SamplerRun:
    """The draws of one galaxy as a run, whose effective number is zero where the weights cannot be
    trusted: they tell nothing of a mode that the flow does not know."""
    trusted = weights.outside == 0 and weights.khat < KHAT_MAX
    return SamplerRun(
        x=weights.x.reshape(*shape, -1),
        log_density=weights.log_density.reshape(shape),
        evaluations=n,
        effective=weights.effective if trusted else 0.0,
        log_evidence=weights.log_evidence,
        log_evidence_error=weights.log_evidence_error,
        khat=weights.khat,
        importance_ess=weights.effective,
        outside=weights.outside,
    )


def _hand_over(galaxies: Galaxies, galaxy: int, draws: np.ndarray) -> None:
    """Chains among the flow's draws, which samplers go on with."""
    n, dimension = draws.shape
    identity = jnp.eye(dimension)
    rows = np.linspace(0, n - 1, galaxies.shape[0]).round().astype(int)
    chains = Chains(
        x=jnp.asarray(draws[rows]),
        centre=jnp.zeros(dimension),
        scale=identity,
        log_step=jnp.log(1.0 / dimension**0.25) * jnp.ones(()),
        proposal=mixture.broad(jnp.zeros(dimension), identity),
    )
    state = galaxies.states[galaxy].replace(history=None, end=chains)
    galaxies.states[galaxy] = state.remember(draws)
