"""Galaxies sampled by a kernel, in slots: warm-up, runs of growing length, and what is learned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsed.infer.methods import kernel
from jaxsed.infer.samplers.result import SamplerRun
from jaxsed.infer.schedule import chains as mc
from jaxsed.infer.schedule.galaxies import GalaxyStates
from jaxsed.infer.schedule.slots import BatchSlots, padded
from jaxsed.infer.settings import SEGMENT

HMC_STEPS = (5, 24)
"""Range of the shared number of leapfrog steps, one after another through a segment."""

STEP_FACTORS = ((1.0, 0.75), (0.4, 0.15), (0.15, 0.1))
"""Factors of the step size and how often each is used."""

WARMUP_MEMORY = 3
"""Warm-up segments whose draws the global moves are fitted to before there are others."""

Report = Callable[[str, int, int], Any]


class KernelRun:
    """One transition kernel, applied to all galaxies that wait."""

    def __init__(
        self, states: GalaxyStates, method: str, lengths: Sequence[int], report: Report
    ) -> None:
        self.states, self.method, self.lengths, self.report = states, method, lengths, report

    def __call__(self, waiting: Sequence[int]) -> list[int]:
        """Sample galaxies; returns those that do not converge after the last run."""
        method, settings = self.method, self.states.settings
        waiting, missed = list(waiting), []
        # The warm-up runs several chains for every one that is kept.
        share = max(settings.warmup_chains // settings.chains, 1)
        size = padded(min(len(waiting), settings.slots))
        block = padded(max(min(len(waiting), settings.slots // share), 1))
        pool = BatchSlots(self.states.keys, self.states.problem, np.array(waiting[:1]), size)
        pool.galaxies = np.zeros(0, int)
        fresh = self.states[waiting[0]].end is None
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
                    self.states[g].left_to_adapt = int(not fresh or method != "hmc")
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

    def _warm_up(self, galaxies: np.ndarray, size: int) -> tuple[BatchSlots, np.ndarray]:
        """BatchSlots of adapted chains, and which of the chains go on.

        It moves by HMC for every method: the scale, the step size and the global moves that it
        learns serve them all, and no slot waits for the deepest tree of the others.
        """
        settings = self.states.settings
        slots = BatchSlots(self.states.keys, self.states.problem, galaxies, size)
        slots.begin(chains=settings.warmup_chains, starts=settings.starts, dense=settings.dense)
        moves = self._moves("hmc")._replace(proposals=settings.warmup_proposals)
        every, adapt = np.arange(galaxies.size), np.ones(galaxies.size, bool)
        recent: list[Any] = []
        segments = -(-settings.warmup // SEGMENT)
        for step in range(segments):
            segment = self._segment(slots, moves, adapt)
            self.report(f"warm-up, {(step + 1) * SEGMENT} transitions", 0, galaxies.size)
            recent = [*recent, segment.x][-WARMUP_MEMORY:]
            if step > 0 or segments == 1:
                for row, g in enumerate(galaxies):
                    self.states[g].history = None
                    self.states[g].remember(np.concatenate([_pooled(x[row]) for x in recent]))
                self._learn(slots, every)
        kept = np.linspace(0, settings.warmup_chains - 1, settings.chains).round().astype(int)
        return slots, kept

    def _again(self, galaxies: np.ndarray, size: int) -> tuple[BatchSlots, np.ndarray]:
        """BatchSlots of chains that were left by another method, which learn from its last run."""
        slots = BatchSlots(self.states.keys, self.states.problem, galaxies, size)
        rows = [self.states[g].end for g in galaxies[np.arange(size) % galaxies.size]]
        slots.chains = mc.place(jax.tree.map(lambda *a: jnp.stack(a), *rows))
        self._learn(slots, np.arange(galaxies.size))
        return slots, np.arange(self.states.settings.chains)

    def _moves(self, method: str) -> mc.Moves:
        settings = self.states.settings
        return mc.Moves(kernel(method, settings), settings.proposals, settings.dense)

    def _segment(self, slots: BatchSlots, moves: mc.Moves, adapt: np.ndarray) -> mc.Segment:
        steps = np.array([self.states[g].segments for g in slots.galaxies])
        segment = slots.advance(steps, adapt, _schedule(), moves)
        chains, n = segment.gradients.shape[1:]
        slowest = float(segment.gradients.max(axis=(0, 1)).sum())
        self.states.computed += slots.size * chains * slowest
        for row, g in enumerate(slots.galaxies):
            galaxy = self.states[g]
            galaxy.segments += 1
            galaxy.gradients += int(segment.gradients[row].sum())
            galaxy.evaluations += chains * n * moves.proposals
        return segment

    def _advance(self, pool: BatchSlots) -> None:
        adapt = np.array([self.states[g].left_to_adapt > 0 for g in pool.galaxies])
        segment = self._segment(pool, self._moves(self.method), adapt)
        for row, g in enumerate(pool.galaxies):
            galaxy = self.states[g]
            if adapt[row]:
                galaxy.left_to_adapt -= 1
            else:
                galaxy.parts.append(jax.tree.map(lambda a, r=row: a[r].copy(), segment))

    def _check(self, pool: BatchSlots) -> tuple[np.ndarray, list[int]]:
        """Look at the runs that are complete.

        Returns which slots are free now, and the galaxies among them that did not converge.
        """
        gone = np.zeros(pool.galaxies.size, bool)
        missed: list[int] = []
        states = [self.states[g] for g in pool.galaxies]
        for number, length in enumerate(self.lengths):
            due = [
                slot for slot, g in enumerate(states)
                if g.attempt == number and len(g.parts) * SEGMENT >= length
            ]  # fmt: skip
            if not due:
                continue
            runs = [_joined(states[slot].parts) for slot in due]
            passed = self.states.diagnose(pool.galaxies[due], runs, self.method)
            again = []
            for slot, run, good in zip(due, runs, passed, strict=True):
                galaxy = states[slot]
                galaxy.parts = []
                gone[slot] = good or number + 1 == len(self.lengths)
                if good:
                    continue
                galaxy.remember(_pooled(run.x))
                galaxy.attempt = 0 if gone[slot] else galaxy.attempt + 1
                if gone[slot]:
                    galaxy.end = jax.tree.map(lambda a, i=slot: a[i], pool.chains)
                    missed.append(int(pool.galaxies[slot]))
                else:
                    galaxy.left_to_adapt = 1
                    again.append(slot)
            if again:
                self._learn(pool, np.array(again))
        return gone, missed

    def _learn(self, slots: BatchSlots, rows: np.ndarray) -> None:
        chosen = [self.states[g] for g in slots.galaxies[rows]]
        steps = np.array([g.segments for g in chosen])
        slots.learn(rows, steps, [g.history for g in chosen], dense=self.states.settings.dense)


def _joined(parts: list[mc.Segment]) -> SamplerRun:
    """A run of one galaxy from its segments."""
    return SamplerRun(
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
