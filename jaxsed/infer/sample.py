"""The one way to a posterior: ``sample(keys, problem, method=...)``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsed.infer import chains as mc
from jaxsed.infer import chees, ensemble, kernels, nested, numpyro_nuts
from jaxsed.infer.lanes import Lanes, few_sizes, padded, take
from jaxsed.infer.samples import Diagnostics, Samples, convergence
from jaxsed.infer.settings import SEGMENT, Settings
from jaxsed.infer.whole import Whole
from jaxsed.problem import Problem

HMC_STEPS = (5, 24)
"""Range of the shared number of leapfrog steps, one after another through a segment."""

STEP_FACTORS = ((1.0, 0.75), (0.4, 0.15), (0.15, 0.1))
"""Factors of the step size and how often each is used."""

LEARN_FROM = 3200
"""Draws that the global moves are fitted to."""

WARMUP_MEMORY = 3
"""Warm-up segments whose draws they are fitted to before there are others."""

WHOLE_BLOCK = 32
"""Galaxies in a compiled call of methods that have no lanes."""

Report = Callable[[str, int, int], Any]

KERNELS: dict[str, Callable[[Settings], kernels.Kernel]] = {
    "hmc": lambda s: kernels.hmc(target_acceptance=s.target_acceptance),
    "nuts": lambda s: kernels.nuts(
        max_tree_depth=s.max_tree_depth, target_acceptance=s.target_acceptance
    ),
    "mclmc": lambda s: kernels.mclmc(),
}
"""Methods that move all galaxies transition by transition, in lanes."""

WHOLE: dict[str, Callable[[Array, Problem, Settings, int], Whole]] = {
    "chees": chees.run,
    "numpyro": numpyro_nuts.run,
    "ensemble_slice": ensemble.slice_run,
    "aies": ensemble.stretch_run,
    "nested": nested.run,
}
"""Methods that take each galaxy from its start to its end in one compiled call."""

METHODS = (*KERNELS, *WHOLE)

_KERNELS: dict[tuple[str, Settings], kernels.Kernel] = {}


def _kernel(method: str, settings: Settings) -> kernels.Kernel:
    """The same kernel object for the same settings, so that nothing compiles twice."""
    key = (method, settings)
    if key not in _KERNELS:
        _KERNELS[key] = KERNELS[method](settings)
    return _KERNELS[key]


@dataclass
class _Galaxy:
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
    history: np.ndarray | None = None
    """[draw, dimension] what its global moves are fitted to."""
    gradients: int = 0
    evaluations: int = 0
    method: str = ""
    kept: Whole | None = None
    """The last run that was checked."""
    diagnostics: Diagnostics | None = None
    end: Any = None
    """Its `Chains` when it left its lane without meeting the bar."""

    def remember(self, draws: np.ndarray) -> None:
        """Add draws [draw, dimension] to the history, thinned to a fixed number."""
        every = draws if self.history is None else np.concatenate([self.history, draws])
        rows = np.linspace(0, len(every) - 1, LEARN_FROM).round().astype(int)
        self.history = every[rows]


def sample(
    keys: Array,
    problem: Problem,
    *,
    method: str = "hmc",
    settings: Settings | None = None,
    derive: Any = None,
    report: Report | None = None,
) -> Samples:
    """Draw from the posterior of one galaxy or of a batch.

    Args:
        keys: one key, or one per galaxy [galaxy]; a galaxy's draws depend on its key alone, not
            on its neighbours.
        problem: one galaxy, or a batch (see `Problem`) with as many galaxies as keys.
        method: one of `METHODS`.
        settings: how long, how many chains, what to do with galaxies that miss the bar.
        derive: a model with ``derived(theta)``, a NamedTuple of scalars: they come back as
            ``Samples.derived`` and must meet the bar as well.
        report: called with (phase, galaxies done, galaxies left) after every segment.

    Raises ValueError for an unknown method or a batch that does not fit the keys.
    """
    settings = settings or Settings()
    for name in (method, *settings.fallback):
        if name not in METHODS:
            raise ValueError(f"unknown method {name!r}: expected one of {', '.join(METHODS)}")
    if keys.ndim == 0:
        problem = dataclasses.replace(
            problem,
            prior=jax.tree.map(lambda a: jnp.asarray(a)[None], problem.prior),
            data=jax.tree.map(lambda a: a[None], problem.data),
        )
        keys = keys[None]
    n = keys.shape[0]
    galaxies = jax.tree.leaves(problem.data)[0].shape[0]
    if galaxies != n:
        raise ValueError(f"{n} keys for {galaxies} galaxies")
    run = _Run(keys, problem, settings, derive, report or (lambda phase, done, galaxies: None))
    waiting = list(np.argsort(-_expected_cost(problem), kind="stable"))
    for name in dict.fromkeys((method, *settings.fallback)):
        lengths = [settings.draws * 2**i for i in range(settings.retries + 1)]
        if name != method:
            lengths = lengths[-1:]
        step = run.in_lanes if name in KERNELS else run.as_a_whole
        waiting = step(name, waiting, lengths)
        if not waiting:
            break
    return run.samples()


def _expected_cost(problem: Problem) -> np.ndarray:
    """[galaxy] the squared signal over noise: the more the data know, the thinner the posterior.

    Every kind of data begins with its values over their uncertainties.
    """
    scaled = np.asarray(jax.tree.leaves(problem.data)[0], float)
    return np.nan_to_num(scaled.reshape(len(scaled), -1) ** 2).sum(axis=1)


class _Run:
    """One call of `sample`: the galaxies and where each stands."""

    def __init__(self, keys, problem, settings, derive, report) -> None:
        self.keys, self.problem, self.settings = keys, problem, settings
        self.derive, self.report = derive, report
        self.book = [_Galaxy() for _ in range(keys.shape[0])]
        self.computed = 0.0
        """Gradients computed, those of empty and waiting lanes included."""

    # -------------------------------------------------------------- methods with lanes

    def in_lanes(self, method: str, waiting: Sequence[int], lengths: Sequence[int]) -> list[int]:
        """Sample galaxies by a kernel; returns those that miss the bar after the last run."""
        settings, waiting, missed = self.settings, list(waiting), []
        # The warm-up runs several chains for every one that is kept.
        share = max(settings.warmup_chains // settings.chains, 1)
        size = padded(min(len(waiting), settings.lanes))
        block = padded(max(min(len(waiting), settings.lanes // share), 1))
        pool = Lanes(self.keys, self.problem, np.array(waiting[:1]), size)
        pool.galaxies = np.zeros(0, int)
        fresh = self.book[waiting[0]].end is None
        done, segments = 0, 0
        while waiting or pool.galaxies.size:
            free = pool.size - pool.galaxies.size
            if waiting and (free >= min(block, len(waiting)) or not pool.galaxies.size):
                new, waiting = np.array(waiting[:block]), waiting[block:]
                if fresh:
                    others, kept = self._warm_up(new, block)
                else:
                    others, kept = self._again(new, block)
                for g in new:
                    self.book[g].left_to_adapt = int(not fresh or method != "hmc")
                pool.join(others, np.arange(new.size), kept)
                continue
            self._advance(pool, method)
            segments += 1
            gone, late = self._check(pool, method, lengths)
            missed += late
            if gone.any():
                pool.keep(np.flatnonzero(~gone), shrink=not waiting)
                done += int(gone.sum()) - len(late)
            left = len(waiting) + pool.galaxies.size
            self.report(f"{method}, {segments * SEGMENT} transitions", done, left)
        return missed

    def _warm_up(self, galaxies: np.ndarray, size: int) -> tuple[Lanes, np.ndarray]:
        """Lanes of adapted chains, and which of the chains go on.

        It moves by HMC for every method: the scale, the step size and the global moves that it
        learns serve them all, and no lane waits for the deepest tree of the others.
        """
        settings = self.settings
        lanes = Lanes(self.keys, self.problem, galaxies, size)
        lanes.begin(chains=settings.warmup_chains, starts=settings.starts, dense=settings.dense)
        moves = self._moves("hmc")._replace(proposals=settings.warmup_proposals)
        every, adapt = np.arange(galaxies.size), np.ones(galaxies.size, bool)
        recent: list[Any] = []
        segments = -(-settings.warmup // SEGMENT)
        for step in range(segments):
            segment = self._segment(lanes, moves, adapt)
            self.report(f"warm-up, {(step + 1) * SEGMENT} transitions", 0, galaxies.size)
            recent = [*recent, segment.x][-WARMUP_MEMORY:]
            if step > 0 or segments == 1:
                for row, g in enumerate(galaxies):
                    self.book[g].history = None
                    self.book[g].remember(np.concatenate([_pooled(x[row]) for x in recent]))
                self._learn(lanes, every)
        kept = np.linspace(0, settings.warmup_chains - 1, settings.chains).round().astype(int)
        return lanes, kept

    def _again(self, galaxies: np.ndarray, size: int) -> tuple[Lanes, np.ndarray]:
        """Lanes of chains that were left by another method."""
        lanes = Lanes(self.keys, self.problem, galaxies, size)
        rows = [self.book[g].end for g in galaxies[np.arange(size) % galaxies.size]]
        lanes.chains = mc.place(jax.tree.map(lambda *a: jnp.stack(a), *rows))
        return lanes, np.arange(self.settings.chains)

    def _moves(self, method: str) -> mc.Moves:
        settings = self.settings
        return mc.Moves(_kernel(method, settings), settings.proposals, settings.dense)

    def _segment(self, lanes: Lanes, moves: mc.Moves, adapt: np.ndarray) -> mc.Segment:
        steps = np.array([self.book[g].segments for g in lanes.galaxies])
        segment = lanes.advance(steps, adapt, _schedule(), moves)
        chains, n = segment.gradients.shape[1:]
        self.computed += lanes.size * chains * float(segment.gradients.max(axis=(0, 1)).sum())
        for row, g in enumerate(lanes.galaxies):
            galaxy = self.book[g]
            galaxy.segments += 1
            galaxy.gradients += int(segment.gradients[row].sum())
            galaxy.evaluations += chains * n * moves.proposals
        return segment

    def _advance(self, pool: Lanes, method: str) -> None:
        adapt = np.array([self.book[g].left_to_adapt > 0 for g in pool.galaxies])
        segment = self._segment(pool, self._moves(method), adapt)
        for row, g in enumerate(pool.galaxies):
            galaxy = self.book[g]
            if adapt[row]:
                galaxy.left_to_adapt -= 1
            else:
                galaxy.parts.append(jax.tree.map(lambda a, r=row: a[r].copy(), segment))

    def _check(
        self, pool: Lanes, method: str, lengths: Sequence[int]
    ) -> tuple[np.ndarray, list[int]]:
        """Look at the runs that are complete.

        Returns which lanes are free now, and the galaxies among them that missed the bar.
        """
        gone = np.zeros(pool.galaxies.size, bool)
        missed: list[int] = []
        book = [self.book[g] for g in pool.galaxies]
        for number, length in enumerate(lengths):
            due = [
                lane for lane, g in enumerate(book)
                if g.attempt == number and len(g.parts) * SEGMENT >= length
            ]  # fmt: skip
            if not due:
                continue
            runs = [_joined(book[lane].parts) for lane in due]
            passed = self._diagnose(pool.galaxies[due], runs, method)
            again = []
            for lane, run, good in zip(due, runs, passed, strict=True):
                galaxy = book[lane]
                galaxy.parts = []
                gone[lane] = good or number + 1 == len(lengths)
                if good:
                    continue
                galaxy.remember(_pooled(run.x))
                galaxy.attempt = 0 if gone[lane] else galaxy.attempt + 1
                if gone[lane]:
                    galaxy.end = jax.tree.map(lambda a, i=lane: a[i], pool.chains)
                    missed.append(int(pool.galaxies[lane]))
                else:
                    galaxy.left_to_adapt = 1
                    again.append(lane)
            if again:
                self._learn(pool, np.array(again))
        return gone, missed

    def _learn(self, lanes: Lanes, rows: np.ndarray) -> None:
        chosen = [self.book[g] for g in lanes.galaxies[rows]]
        steps = np.array([1_000_000 + g.segments for g in chosen])
        lanes.learn(rows, steps, [g.history for g in chosen], dense=self.settings.dense)

    # -------------------------------------------------------------- methods without

    def as_a_whole(self, method: str, waiting: Sequence[int], lengths: Sequence[int]) -> list[int]:
        """Sample galaxies by a method that runs in one call; returns those that miss the bar."""
        waiting = list(waiting)
        for number, length in enumerate(lengths):
            late: list[int] = []
            size = padded(min(len(waiting), WHOLE_BLOCK)) if waiting else 0
            for start in range(0, len(waiting), WHOLE_BLOCK):
                chosen = np.array(waiting[start : start + WHOLE_BLOCK])
                rows = chosen[np.arange(size) % chosen.size]
                keys = jax.vmap(lambda k, n=number: jax.random.fold_in(k, 2_000_000 + n))(
                    self.keys[rows]
                )
                found = mc.whole_batch(
                    mc.place(keys), mc.place_problem(take(self.problem, rows)),
                    run=WHOLE[method], settings=self.settings, length=length,
                )  # fmt: skip
                found = jax.tree.map(np.asarray, found)
                self.computed += size * float(found.gradients.max())
                runs = [jax.tree.map(lambda a, r=r: a[r], found) for r in range(chosen.size)]
                for g, run in zip(chosen, runs, strict=True):
                    self.book[g].gradients += int(run.gradients)
                    self.book[g].evaluations += int(run.evaluations)
                passed = self._diagnose(chosen, runs, method)
                late += [int(g) for g, good in zip(chosen, passed, strict=True) if not good]
                self.report(method, start + chosen.size - len(late), len(waiting))
            waiting = late
            if not waiting:
                break
        return waiting

    # -------------------------------------------------------------- what comes of it

    def _diagnose(self, galaxies: np.ndarray, runs: list[Whole], method: str) -> np.ndarray:
        """[galaxy] whether runs of equal length meet the bar; they are kept either way."""
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
            galaxy = self.book[g]
            cap = float(run.effective)
            row = [np.minimum(bulk[i], cap), np.minimum(tail[i], cap)]
            figures = (rhat[i], *row, run.divergences, moved[i])
            work = (galaxy.gradients, galaxy.evaluations)
            galaxy.diagnostics = Diagnostics(*(np.asarray(a)[None] for a in (*figures, *work)))
            galaxy.kept, galaxy.method = _thinned(run, self.settings.draws), method
            galaxy.run += 1
            passed[i] = galaxy.diagnostics.passes()[0]
        return passed

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

    def samples(self) -> Samples:
        """The draws of all galaxies."""
        kept: Any = [g.kept for g in self.book]
        x = np.stack([run.x for run in kept])
        parts = []
        for start in range(0, len(kept), self.settings.lanes):
            rows = np.arange(start, min(start + self.settings.lanes, len(kept)))
            parts.append(self._describe(rows, x[rows]))
        theta, _, flux, derived = jax.tree.map(lambda *a: np.concatenate(a), *parts)
        used = sum(g.gradients for g in self.book)
        return Samples(
            theta=type(self.problem.prior)(**theta),
            x=x,
            log_density=np.stack([run.log_density for run in kept]),
            flux=flux,
            derived=derived,
            diagnostics=jax.tree.map(
                lambda *v: np.concatenate(v), *[g.diagnostics for g in self.book]
            ),
            method=tuple(g.method for g in self.book),
            run=np.array([g.run - 1 for g in self.book]),
            log_evidence=np.array([run.log_evidence for run in kept], float),
            log_evidence_error=np.array([run.log_evidence_error for run in kept], float),
            lane_efficiency=used / self.computed if self.computed else float("nan"),
        )


def _scalars(derived: dict[str, np.ndarray]) -> list[np.ndarray]:
    """[galaxy, chain, draw] of what is one number per draw."""
    return [values for values in derived.values() if values.ndim == 3]


def _on_few_sizes(values: np.ndarray) -> tuple[np.ndarray, ...]:
    n = values.shape[0]
    found = convergence(values[np.arange(few_sizes(n)) % n])
    return tuple(a[:n] for a in found)


def _joined(parts: list[mc.Segment]) -> Whole:
    """A run of one galaxy from its segments."""
    return Whole(
        x=np.concatenate([p.x for p in parts], axis=1),
        log_density=np.concatenate([p.log_density for p in parts], axis=1),
        divergences=sum(p.divergences for p in parts),
        gradients=sum(p.gradients.sum() for p in parts),
    )


def _thinned(run: Whole, draws: int) -> Whole:
    rows = np.linspace(0, run.x.shape[1] - 1, draws).round().astype(int)
    return run._replace(x=run.x[:, rows], log_density=run.log_density[:, rows])


def _pooled(x: Any) -> np.ndarray:
    """Draws [chain, draw, dimension] of all chains in the order they were made."""
    return np.swapaxes(np.asarray(x), 0, 1).reshape(-1, x.shape[-1])


def _schedule() -> mc.Schedule:
    """Lengths and step factors of a segment: the same for every galaxy and segment, so that a
    galaxy's draws do not depend on when its turn comes."""
    generator = np.random.default_rng(0)
    low, high = HMC_STEPS
    factors, shares = zip(*STEP_FACTORS, strict=True)
    return mc.Schedule(
        jnp.asarray(generator.integers(low, high + 1, SEGMENT)),
        jnp.asarray(generator.choice(factors, SEGMENT, p=shares), dtype=float),
    )
