"""Galaxies whose posterior is a flow's, by importance weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsed.infer.amortised import Amortised
from jaxsed.infer.amortised.importance import KHAT_BAR
from jaxsed.infer.samplers import mixture
from jaxsed.infer.samplers.result import SamplerRun
from jaxsed.infer.samples import ESS_BAR
from jaxsed.infer.schedule import chains as mc
from jaxsed.infer.schedule.galaxies import GalaxyStates
from jaxsed.infer.schedule.run import Report
from jaxsed.infer.schedule.slots import padded, take

DRAWS = (2048, 16384)
"""Draws of the flow: first, and for galaxies of which too few count."""

DRAWS_PER_CALL = 262_144
"""Of the first draws, as many galaxies as their diagnostics take without padding."""

WORTH_MORE = 0.6
"""More draws are tried where they would bring the effective number this close to the criterion."""

METHOD = "flow+is"


def by_flow(
    states: GalaxyStates, amortised: Amortised, waiting: Sequence[int], report: Report
) -> list[int]:
    """Weigh the flow's draws; returns galaxies that do not converge, ready for other methods."""
    settings = states.settings
    amortised = amortised.suited(states.problem)
    keep = settings.chains * settings.draws
    waiting, missed, done = list(waiting), [], 0
    for number, n in enumerate(DRAWS):
        size = padded(min(max(DRAWS_PER_CALL // n, 1), len(waiting)))
        again: list[int] = []
        for start in range(0, len(waiting), size):
            chosen = np.array(waiting[start : start + size])
            rows = chosen[np.arange(size) % chosen.size]
            keys = jax.vmap(lambda k, i=number: mc.numbered(k, mc.FLOW, i))(states.keys[rows])
            found = jax.tree.map(
                lambda a, m=chosen.size: np.asarray(a)[:m],
                mc.weighted_batch(
                    mc.place(keys), mc.place_problem(take(states.problem, rows)), amortised,
                    n=n, keep=keep,
                ),
            )  # fmt: skip
            shape = (chosen.size, settings.chains, settings.draws)
            runs = [
                SamplerRun(
                    x=found.x[i].reshape(*shape[1:], -1),
                    log_density=found.log_density[i].reshape(shape[1:]),
                    evaluations=n,
                    effective=found.effective[i] if _trusted(found, i) else 0.0,
                    log_evidence=found.log_evidence[i],
                    log_evidence_error=found.log_evidence_error[i],
                    khat=found.khat[i],
                    importance_ess=found.effective[i],
                    outside=found.outside[i],
                )
                for i in range(chosen.size)
            ]
            for g in chosen:
                states[g].evaluations += n
            passed = states.diagnose(chosen, runs, METHOD)
            for i, (g, good) in enumerate(zip(chosen, passed, strict=True)):
                if good:
                    continue
                last = number + 1 == len(DRAWS)
                reach = found.effective[i] * DRAWS[-1] / n
                promising = found.outside[i] == 0 and reach >= WORTH_MORE * ESS_BAR
                if promising and not last:
                    again.append(int(g))
                    continue
                _hand_over(states, int(g), found.rough[i])
                missed.append(int(g))
            done += int(passed.sum())
            left = len(waiting) - start - chosen.size + len(again)
            report(f"{METHOD}, {n} draws", done, left)
        waiting = again
        if not waiting:
            break
    return missed


def _trusted(found: Any, i: int) -> bool:
    """Weights tell nothing of a mode that the flow does not know, so it must know such galaxies."""
    return bool(found.outside[i] == 0 and found.khat[i] < KHAT_BAR)


def _hand_over(states: GalaxyStates, g: int, draws: np.ndarray) -> None:
    """Chains among the flow's draws, which samplers go on with."""
    n, dimension = draws.shape
    galaxy = states[g]
    galaxy.history = None
    galaxy.remember(draws)
    identity = jnp.eye(dimension)
    rows = np.linspace(0, n - 1, states.settings.chains).round().astype(int)
    galaxy.end = mc.Chains(
        x=jnp.asarray(draws[rows]),
        centre=jnp.zeros(dimension),
        scale=identity,
        log_step=jnp.log(1.0 / dimension**0.25) * jnp.ones(()),
        proposal=mixture.broad(jnp.zeros(dimension), identity),
    )
