"""What is known of every galaxy of a call of `sample`, and whether its draws have converged."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsed.core.diagnostics import Diagnostics, stacked
from jaxsed.core.types import Key, PyTree
from jaxsed.infer.amortised.support import reasons
from jaxsed.infer.chain_diagnostics import Convergence, convergence
from jaxsed.infer.samplers.base import SEGMENT, SamplerRun
from jaxsed.infer.samples import Samples
from jaxsed.infer.schedule.devices import over_galaxies, place, place_problem
from jaxsed.infer.schedule.slots import few_sizes
from jaxsed.problem import Problem, take

LEARN_FROM = 3200
"""Draws that the global moves are fitted to."""

DRAWS_AT_ONCE = 64
"""Draws whose predictions are computed together: the spectra of more would not fit in caches."""

Report = Callable[[str, int, int], Any]
"""``report(phase, galaxies done, galaxies left)``."""


@dataclass(frozen=True)
class GalaxyState:
    """What is known of one galaxy while it is sampled."""

    segments: int = 0
    """Segments of its life so far; with its key they make its random numbers."""
    runs: int = 0
    """Runs that were checked, of all methods together."""
    attempt: int = 0
    """Runs of the present method before the present one."""
    parts: tuple[Any, ...] = ()
    """Segments of the present run."""
    left_to_adapt: int = 0
    """Segments."""
    history: np.ndarray | None = None
    """[draw, dimension] what its global moves are fitted to."""
    gradients: int = 0
    evaluations: int = 0
    kept: SamplerRun | None = None
    """The last run that was checked."""
    convergence: Convergence | None = None
    """Of this run [1, quantity]."""
    diagnostics: Diagnostics | None = None
    """Of this run."""
    end: PyTree = None
    """Its `Chains` when it left its slot without having converged."""

    @property
    def passed(self) -> bool:
        """Whether its last run converged: it is sampled no more."""
        return self.diagnostics is not None and bool(self.diagnostics.passes())

    def replace(self, **changes: Any) -> GalaxyState:
        """With other values of some fields."""
        return dataclasses.replace(self, **changes)

    def remember(self, draws: np.ndarray) -> GalaxyState:
        """With draws [draw, dimension] added to the history, thinned to a fixed number."""
        every = draws if self.history is None else np.concatenate([self.history, draws])
        rows = np.linspace(0, len(every) - 1, LEARN_FROM).round().astype(int)
        return self.replace(history=every[rows])


class Galaxies:
    """The galaxies of a call: what they are, which does not change, and where each stands.

    Attributes:
        keys: [galaxy] random keys.
        problem: a batch.
        derive: a model with ``derived(theta)``, or None.
        shape: chains and draws of every galaxy's result.
        slots: galaxies that are advanced together.
        states: [galaxy] replaced as the galaxies are sampled.
        computed: gradients so far, those of empty and waiting slots included.
    """

    def __init__(
        self, keys: Key, problem: Problem, *, derive: PyTree, shape: tuple[int, int], slots: int
    ) -> None:
        self.keys, self.problem, self.derive = keys, problem, derive
        self.shape, self.slots = shape, slots
        self.states = [GalaxyState() for _ in range(keys.shape[0])]
        self.computed = 0.0

    def change(self, galaxy: int, **changes: Any) -> None:
        """Other values of some fields of a galaxy's state."""
        self.states[galaxy] = self.states[galaxy].replace(**changes)

    def diagnose(
        self, galaxies: np.ndarray, runs: Sequence[SamplerRun], method: str
    ) -> np.ndarray:
        """[galaxy] whether runs of equal length have converged; they are kept either way."""
        x = np.stack([run.x for run in runs])
        _, u, _, derived = self._describe(galaxies, x)
        found = _convergence(u, _scalars(derived))
        moved = np.any(np.diff(x, axis=2) != 0, axis=-1).mean(axis=(1, 2))
        for i, (galaxy, run) in enumerate(zip(galaxies, runs, strict=True)):
            state = self.states[galaxy]
            cap = float(run.effective)
            own = Convergence(
                found.rhat[i],
                np.minimum(found.ess_bulk[i], cap),
                np.minimum(found.ess_tail[i], cap),
            )
            self.change(
                galaxy,
                kept=_thinned(run, self.shape),
                convergence=own,
                diagnostics=_diagnostics(state, run, own, method, float(moved[i])),
                runs=state.runs + 1,
            )
        return np.array([self.states[galaxy].passed for galaxy in galaxies], bool)

    def finished(self) -> np.ndarray:
        """Positions of the galaxies that are sampled no more, whatever the others still need."""
        return np.flatnonzero([state.passed for state in self.states])

    def samples(self, galaxies: np.ndarray | None = None) -> Samples:
        """The draws of all galaxies, or of those at some positions."""
        chosen = np.arange(len(self.states)) if galaxies is None else np.asarray(galaxies)
        states: Any = [self.states[galaxy] for galaxy in chosen]
        x = np.stack([state.kept.x for state in states])
        blocks = [
            slice(start, min(start + self.slots, len(chosen)))
            for start in range(0, len(chosen), self.slots)
        ]
        parts = [self._describe(chosen[rows], x[rows]) for rows in blocks]
        theta, _, flux, derived = jax.tree.map(lambda *a: np.concatenate(a), *parts)
        used = sum(state.gradients for state in self.states)
        return Samples(
            theta=type(self.problem.prior)(**theta),
            x=x,
            log_density=np.stack([state.kept.log_density for state in states]),
            flux=flux,
            derived=derived,
            convergence=jax.tree.map(lambda *a: np.stack(a), *[s.convergence for s in states]),
            diagnostics=stacked([state.diagnostics for state in states]),
            slot_efficiency=used / self.computed if self.computed else float("nan"),
        )

    def _describe(self, galaxies: np.ndarray, x: np.ndarray) -> tuple[Any, ...]:
        """Theta, coordinates u, kept predictions and derived quantities of draws, in blocks of
        shapes that are compiled."""
        n, length = x.shape[0], x.shape[2]
        rows = np.arange(few_sizes(n)) % n
        problem = place_problem(take(self.problem, galaxies[rows]))
        padded_x = place(jnp.asarray(x[rows]))
        blocks = []
        for start in range(0, length, SEGMENT):
            # The last block may overlap the one before: its shape stays the same.
            begin = max(min(start, length - SEGMENT), 0)
            out = describe_batch(padded_x[:, :, begin : begin + SEGMENT], problem, self.derive)
            blocks.append(jax.tree.map(lambda a, s=start - begin: np.asarray(a)[:n, :, s:], out))
        return jax.tree.map(lambda *a: np.concatenate(a, axis=2), *blocks)


@jax.jit
def describe_batch(x: Array, problem: Problem, derive: PyTree) -> tuple[Any, ...]:
    """Theta, normal coordinates, kept predictions and derived quantities of draws
    [galaxy, chain, draw, dimension]; `derive` is a model with ``derived(theta)``, or None."""

    def one(x: Array, problem: Problem, derive: PyTree) -> tuple[Any, ...]:
        def point(x: Array) -> tuple[Any, ...]:
            at = problem.evaluate(x)
            derived = {} if derive is None else derive.derived(at.theta)._asdict()
            return at.theta._asdict(), at.u, problem.data.kept(at.prediction), derived

        flat = x.reshape(-1, x.shape[-1])
        out = jax.lax.map(point, flat, batch_size=DRAWS_AT_ONCE)
        return jax.tree.map(lambda y: y.reshape(*x.shape[:2], *y.shape[1:]), out)

    return over_galaxies(one, problem, n_shared=1)(x, problem, derive)


def _scalars(derived: dict[str, np.ndarray]) -> list[np.ndarray]:
    """[galaxy, chain, draw] of what is one number per draw."""
    return [values for values in derived.values() if values.ndim == 3]


def _convergence(u: np.ndarray, numbers: list[np.ndarray]) -> Convergence:
    """Of coordinates [galaxy, chain, draw, dimension] and of numbers [galaxy, chain, draw]."""
    values = np.concatenate([u, *(number[..., None] for number in numbers)], axis=-1)
    n = len(u)
    found = convergence(values)
    # What all draws agree on exactly needs no mixing, for a derived quantity.
    flat = np.zeros((n, values.shape[-1]), bool)
    flat[:, u.shape[-1] :] = np.ptp(values[..., u.shape[-1] :], axis=(1, 2)) == 0
    easy = (1.0, u.shape[1] * u.shape[2], np.inf)
    return Convergence(*(np.where(flat, e, a) for e, a in zip(easy, found, strict=True)))


def _diagnostics(
    state: GalaxyState, run: SamplerRun, found: Convergence, method: str, moved: float
) -> Diagnostics:
    """The record of a run; what a flow said of the galaxy stays."""
    before = state.diagnostics
    if run.outside >= 0:
        weights = (float(run.khat), float(run.importance_ess), reasons(int(run.outside)))
    elif before is not None:
        weights = (before.khat, before.importance_ess, before.support)
    else:
        weights = (math.nan, math.nan, "")
    return Diagnostics(
        rhat_max=float(np.max(found.rhat)),
        ess_bulk_min=float(np.min(found.ess_bulk)),
        ess_tail_min=float(np.min(found.ess_tail)),
        divergences=int(run.divergences),
        log_evidence=float(run.log_evidence),
        log_evidence_error=float(run.log_evidence_error),
        khat=weights[0],
        importance_ess=weights[1],
        method=method,
        support=weights[2],
        unique_fraction=moved,
        run=state.runs,
        gradients=state.gradients,
        evaluations=state.evaluations,
    )


def _thinned(run: SamplerRun, shape: tuple[int, int]) -> SamplerRun:
    """A run with so many chains and draws, evenly out of those it has."""
    x, log_density = np.asarray(run.x), np.asarray(run.log_density)
    if x.shape[0] != shape[0]:  # of a method with other chains: its draws in turn
        flat = np.arange(x.shape[0] * x.shape[1])
        rows = flat[np.linspace(0, flat.size - 1, shape[0] * shape[1]).round().astype(int)]
        x = x.reshape(flat.size, -1)[rows].reshape(*shape, -1)
        return run._replace(x=x, log_density=log_density.ravel()[rows].reshape(shape))
    rows = np.linspace(0, x.shape[1] - 1, shape[1]).round().astype(int)
    return run._replace(x=x[:, rows], log_density=log_density[:, rows])
