"""Galaxies sampled by a kernel, in lanes: warm-up, runs of growing length, and what is learned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsed.infer.methods import kernel
from jaxsed.infer.samplers.result import Whole
from jaxsed.infer.schedule import chains as mc
from jaxsed.infer.schedule.galaxies import Book
from jaxsed.infer.schedule.slots import Lanes, padded
from jaxsed.infer.settings import SEGMENT

HMC_STEPS = (5, 24)
"""Range of the shared number of leapfrog steps, one after another through a segment."""

STEP_FACTORS = ((1.0, 0.75), (0.4, 0.15), (0.15, 0.1))
"""Factors of the step size and how often each is used."""

WARMUP_MEMORY = 3
"""Warm-up segments whose draws the global moves are fitted to before there are others."""

Report = Callable[[str, int, int], Any]


class LaneRun:
    """One method at work on the galaxies of a book."""

    def __init__(self, book: Book, method: str, lengths: Sequence[int], report: Report) -> None:
        self.book, self.method, self.lengths, self.report = book, method, lengths, report

    def __call__(self, waiting: Sequence[int]) -> list[int]:
        """Sample galaxies; returns those that miss the bar after the last run."""
        method, settings = self.method, self.book.settings
        waiting, missed = list(waiting), []
        # The warm-up runs several chains for every one that is kept.
        share = max(settings.warmup_chains // settings.chains, 1)
        size = padded(min(len(waiting), settings.lanes))
        block = padded(max(min(len(waiting), settings.lanes // share), 1))
        pool = Lanes(self.book.keys, self.book.problem, np.array(waiting[:1]), size)
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
            self._advance(pool)
            segments += 1
            gone, late = self._check(pool)
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
        settings = self.book.settings
        lanes = Lanes(self.book.keys, self.book.problem, galaxies, size)
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
        """Lanes of chains that were left by another method, which learn from its last run."""
        lanes = Lanes(self.book.keys, self.book.problem, galaxies, size)
        rows = [self.book[g].end for g in galaxies[np.arange(size) % galaxies.size]]
        lanes.chains = mc.place(jax.tree.map(lambda *a: jnp.stack(a), *rows))
        self._learn(lanes, np.arange(galaxies.size))
        return lanes, np.arange(self.book.settings.chains)

    def _moves(self, method: str) -> mc.Moves:
        settings = self.book.settings
        return mc.Moves(kernel(method, settings), settings.proposals, settings.dense)

    def _segment(self, lanes: Lanes, moves: mc.Moves, adapt: np.ndarray) -> mc.Segment:
        steps = np.array([self.book[g].segments for g in lanes.galaxies])
        segment = lanes.advance(steps, adapt, _schedule(), moves)
        chains, n = segment.gradients.shape[1:]
        self.book.computed += lanes.size * chains * float(segment.gradients.max(axis=(0, 1)).sum())
        for row, g in enumerate(lanes.galaxies):
            galaxy = self.book[g]
            galaxy.segments += 1
            galaxy.gradients += int(segment.gradients[row].sum())
            galaxy.evaluations += chains * n * moves.proposals
        return segment

    def _advance(self, pool: Lanes) -> None:
        adapt = np.array([self.book[g].left_to_adapt > 0 for g in pool.galaxies])
        segment = self._segment(pool, self._moves(self.method), adapt)
        for row, g in enumerate(pool.galaxies):
            galaxy = self.book[g]
            if adapt[row]:
                galaxy.left_to_adapt -= 1
            else:
                galaxy.parts.append(jax.tree.map(lambda a, r=row: a[r].copy(), segment))

    def _check(self, pool: Lanes) -> tuple[np.ndarray, list[int]]:
        """Look at the runs that are complete.

        Returns which lanes are free now, and the galaxies among them that missed the bar.
        """
        gone = np.zeros(pool.galaxies.size, bool)
        missed: list[int] = []
        book = [self.book[g] for g in pool.galaxies]
        for number, length in enumerate(self.lengths):
            due = [
                lane for lane, g in enumerate(book)
                if g.attempt == number and len(g.parts) * SEGMENT >= length
            ]  # fmt: skip
            if not due:
                continue
            runs = [_joined(book[lane].parts) for lane in due]
            passed = self.book.diagnose(pool.galaxies[due], runs, self.method)
            again = []
            for lane, run, good in zip(due, runs, passed, strict=True):
                galaxy = book[lane]
                galaxy.parts = []
                gone[lane] = good or number + 1 == len(self.lengths)
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
        steps = np.array([g.segments for g in chosen])
        lanes.learn(rows, steps, [g.history for g in chosen], dense=self.book.settings.dense)


def _joined(parts: list[mc.Segment]) -> Whole:
    """A run of one galaxy from its segments."""
    return Whole(
        x=np.concatenate([p.x for p in parts], axis=1),
        log_density=np.concatenate([p.log_density for p in parts], axis=1),
        divergences=sum(p.divergences for p in parts),
        gradients=sum(p.gradients.sum() for p in parts),
    )


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
