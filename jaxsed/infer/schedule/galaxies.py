"""What is known of every galaxy of a call of `sample`, and whether its draws have converged."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsed.infer.amortised.support import reasons
from jaxsed.infer.samplers.result import SamplerRun
from jaxsed.infer.samples import Diagnostics, Samples, convergence
from jaxsed.infer.schedule import chains as mc
from jaxsed.infer.schedule.slots import few_sizes, take
from jaxsed.infer.settings import SEGMENT, Settings
from jaxsed.problem import Problem

LEARN_FROM = 3200
"""Draws that the global moves are fitted to."""


@dataclass
class Galaxy:
    """What is known of one galaxy while it is sampled."""

    segments: int = 0
    """Segments of its life so far; with its key they make its random numbers."""
    run: int = 0
    """Runs that were checked, of all methods together."""
    attempt: int = 0
    """Runs of the present method before the present one."""
    parts: list[mc.Segment] = field(default_factory=list)
    """Segments of the present run."""
    left_to_adapt: int = 0
    history: Any = None
    """[draw, dimension] what its global moves are fitted to."""
    gradients: int = 0
    evaluations: int = 0
    method: str = ""
    kept: SamplerRun | None = None
    """The last run that was checked."""
    diagnostics: Diagnostics | None = None
    khat: float = math.nan
    importance_ess: float = math.nan
    support: str = ""
    passed: bool = False
    """Whether its last run converged: it is sampled no more."""
    end: Any = None
    """Its `Chains` when it left its slot without having converged."""

    def remember(self, draws: np.ndarray) -> None:
        """Add draws [draw, dimension] to the history, thinned to a fixed number."""
        every = draws if self.history is None else np.concatenate([self.history, draws])
        rows = np.linspace(0, len(every) - 1, LEARN_FROM).round().astype(int)
        self.history = every[rows]


class GalaxyStates:
    """The galaxies of a call and where each stands."""

    def __init__(self, keys: Array, problem: Problem, settings: Settings, derive: Any) -> None:
        self.keys, self.problem, self.settings, self.derive = keys, problem, settings, derive
        self.galaxies = [Galaxy() for _ in range(keys.shape[0])]
        self.computed = 0.0
        """Gradients computed, those of empty and waiting slots included."""

    def __getitem__(self, galaxy: int) -> Galaxy:
        return self.galaxies[galaxy]

    def diagnose(self, galaxies: np.ndarray, runs: list[SamplerRun], method: str) -> np.ndarray:
        """[galaxy] whether runs of equal length have converged; they are kept either way."""
        x = np.stack([run.x for run in runs])
        _, u, _, derived = self._describe(galaxies, x)
        numbers = _scalars(derived)
        rhat, bulk, tail = _on_few_sizes(
            np.concatenate([u, *(values[..., None] for values in numbers)], axis=-1)
        )
        # What all draws agree on exactly needs no mixing, for a derived quantity.
        flat = np.zeros(rhat.shape, bool)
        for k, values in enumerate(numbers):
            flat[:, u.shape[-1] + k] = np.ptp(values, axis=(1, 2)) == 0
        rhat, bulk, tail = (
            np.where(flat, easy, a)
            for easy, a in ((1.0, rhat), (x.shape[1] * x.shape[2], bulk), (np.inf, tail))
        )
        moved = np.any(np.diff(x, axis=2) != 0, axis=-1).mean(axis=(1, 2))
        passed = np.zeros(len(runs), bool)
        for i, (g, run) in enumerate(zip(galaxies, runs, strict=True)):
            galaxy = self.galaxies[g]
            cap = float(run.effective)
            row = [np.minimum(bulk[i], cap), np.minimum(tail[i], cap)]
            figures = (rhat[i], *row, run.divergences, moved[i])
            work = (galaxy.gradients, galaxy.evaluations)
            galaxy.diagnostics = Diagnostics(*(np.asarray(a)[None] for a in (*figures, *work)))
            galaxy.kept, galaxy.method = _thinned(run, self.settings.draws), method
            galaxy.run += 1
            if run.outside >= 0:
                galaxy.khat, galaxy.importance_ess = float(run.khat), float(run.importance_ess)
                galaxy.support = reasons(int(run.outside))
            passed[i] = galaxy.passed = bool(galaxy.diagnostics.passes()[0])
        return passed

    def finished(self) -> np.ndarray:
        """Positions of the galaxies that are sampled no more, whatever the others still need."""
        return np.flatnonzero([galaxy.passed for galaxy in self.galaxies])

    def _describe(self, galaxies: np.ndarray, x: np.ndarray) -> tuple[Any, ...]:
        """Theta, coordinates u, kept predictions and derived quantities of draws, in blocks of
        shapes that are compiled."""
        n, length = x.shape[0], x.shape[2]
        rows = np.arange(few_sizes(n)) % n
        problem = mc.place_problem(take(self.problem, galaxies[rows]))
        padded_x = mc.place(jnp.asarray(x[rows]))
        blocks = []
        for start in range(0, length, SEGMENT):
            # The last block may overlap the one before: its shape stays the same.
            begin = max(min(start, length - SEGMENT), 0)
            out = mc.describe_batch(padded_x[:, :, begin : begin + SEGMENT], problem, self.derive)
            blocks.append(jax.tree.map(lambda a, s=start - begin: np.asarray(a)[:n, :, s:], out))
        return jax.tree.map(lambda *a: np.concatenate(a, axis=2), *blocks)

    def samples(self, galaxies: np.ndarray | None = None) -> Samples:
        """The draws of all galaxies, or of those at some positions."""
        everyone = np.arange(len(self.galaxies)) if galaxies is None else np.asarray(galaxies)
        chosen = [self.galaxies[g] for g in everyone]
        kept: Any = [g.kept for g in chosen]
        x = np.stack([run.x for run in kept])
        parts = []
        for start in range(0, len(kept), self.settings.slots):
            rows = np.arange(start, min(start + self.settings.slots, len(kept)))
            parts.append(self._describe(everyone[rows], x[rows]))
        theta, _, flux, derived = jax.tree.map(lambda *a: np.concatenate(a), *parts)
        used = sum(g.gradients for g in self.galaxies)
        return Samples(
            theta=type(self.problem.prior)(**theta),
            x=x,
            log_density=np.stack([run.log_density for run in kept]),
            flux=flux,
            derived=derived,
            diagnostics=jax.tree.map(
                lambda *v: np.concatenate(v), *[g.diagnostics for g in chosen]
            ),
            method=tuple(g.method for g in chosen),
            run=np.array([g.run - 1 for g in chosen]),
            log_evidence=np.array([run.log_evidence for run in kept], float),
            log_evidence_error=np.array([run.log_evidence_error for run in kept], float),
            khat=np.array([g.khat for g in chosen]),
            importance_ess=np.array([g.importance_ess for g in chosen]),
            support=tuple(g.support for g in chosen),
            slot_efficiency=used / self.computed if self.computed else float("nan"),
        )


def _scalars(derived: dict[str, np.ndarray]) -> list[np.ndarray]:
    """[galaxy, chain, draw] of what is one number per draw."""
    return [values for values in derived.values() if values.ndim == 3]


def _on_few_sizes(values: np.ndarray) -> tuple[np.ndarray, ...]:
    n = values.shape[0]
    found = convergence(values[np.arange(few_sizes(n)) % n])
    return tuple(a[:n] for a in found)


def _thinned(run: SamplerRun, draws: int) -> SamplerRun:
    rows = np.linspace(0, run.x.shape[1] - 1, draws).round().astype(int)
    return run._replace(x=run.x[:, rows], log_density=run.log_density[:, rows])
