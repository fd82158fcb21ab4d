"""Galaxies sampled by a kernel, in slots: warm-up, runs of growing length, and what is learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsed.core.types import Numbers
from jaxsed.infer.samplers import hmc
from jaxsed.infer.samplers.base import SEGMENT, Kernel, KernelMethod, SamplerRun
from jaxsed.infer.samplers.hmc import HMC
from jaxsed.infer.schedule import chains as mc
from jaxsed.infer.schedule.devices import place
from jaxsed.infer.schedule.galaxies import Galaxies, Report
from jaxsed.infer.schedule.slots import BatchSlots, empty_slots, padded, slots_for

HMC_STEPS = (5, 24)
"""Range of the shared number of leapfrog steps, one after another through a segment."""

STEP_FACTORS = ((1.0, 0.75), (0.4, 0.15), (0.15, 0.1))
"""Factors of the step size and how often each is used."""

WARMUP_MEMORY = 3
"""Warm-up segments whose draws the global moves are fitted to before there are others."""


def by_kernel(
    galaxies: Galaxies,
    method: KernelMethod,
    lengths: Sequence[int],
    report: Report,
    waiting: Sequence[int],
) -> list[int]:
    """Sample galaxies by a transition kernel; returns those that do not converge.

    They begin around their best fits, or, if the first of them has chains that another method
    left, all with such chains.
    """
    waiting, missed = list(waiting), []
    # The warm-up runs several chains for every one that is kept.
    share = max(method.warmup_chains // method.chains, 1)
    size = padded(min(len(waiting), galaxies.slots))
    block = padded(max(min(len(waiting), galaxies.slots // share), 1))
    slots = empty_slots((galaxies.keys, galaxies.problem), size)
    moves = mc.Moves(method.kernel, method.proposals, method.dense)
    fresh = galaxies.states[waiting[0]].end is None
    done, segments = 0, 0
    while waiting or slots.galaxies.size:
        free = slots.size - slots.galaxies.size
        if waiting and (free >= min(block, len(waiting)) or not slots.galaxies.size):
            new, waiting = np.array(waiting[:block]), waiting[block:]
            if fresh:
                others, kept = _warm_up(galaxies, method, new, block, report)
            else:
                others, kept = _resume(galaxies, method, new, block)
            for galaxy in new:
                adapts = not fresh or not isinstance(method, HMC)
                galaxies.change(galaxy, left_to_adapt=int(adapts))
            slots = slots.join(others, np.arange(new.size), kept)
            continue
        slots = _advance(galaxies, slots, moves)
        segments += 1
        slots, gone, late = _check(galaxies, method, slots, lengths)
        missed += late
        if gone.any():
            slots = slots.keep(np.flatnonzero(~gone), shrink=not waiting)
            done += int(gone.sum()) - len(late)
        left = len(waiting) + slots.galaxies.size
        report(f"{method.name}, {segments * SEGMENT} transitions", done, left)
    return missed


def _warm_up(
    galaxies: Galaxies, method: KernelMethod, new: np.ndarray, size: int, report: Report
) -> tuple[BatchSlots, np.ndarray]:
    """Slots of adapted chains, and which of the chains go on.

    It moves by HMC for every method: the scale, the step size and the global moves that it
    learns serve them all, and no slot waits for the deepest tree of the others.
    """
    slots = slots_for((galaxies.keys, galaxies.problem), new, size)
    slots = slots.begin(chains=method.warmup_chains, starts=method.starts, dense=method.dense)
    kernel = Kernel(hmc.step, method.warmup_acceptance)
    moves = mc.Moves(kernel, method.warmup_proposals, method.dense)
    every, adapt = np.arange(new.size), np.ones(new.size, bool)
    recent: list[Any] = []
    segments = -(-method.warmup // SEGMENT)
    for step in range(segments):
        slots, segment = _segment(galaxies, slots, moves, adapt)
        report(f"warm-up, {(step + 1) * SEGMENT} transitions", 0, new.size)
        recent = [*recent, segment.x][-WARMUP_MEMORY:]
        if step > 0 or segments == 1:
            for row, galaxy in enumerate(new):
                draws = np.concatenate([_pooled(x[row]) for x in recent])
                forgotten = galaxies.states[galaxy].replace(history=None)
                galaxies.states[galaxy] = forgotten.remember(draws)
            slots = _learn(galaxies, method, slots, every)
    kept = np.linspace(0, method.warmup_chains - 1, method.chains).round().astype(int)
    return slots, kept


def _resume(
    galaxies: Galaxies, method: KernelMethod, new: np.ndarray, size: int
) -> tuple[BatchSlots, np.ndarray]:
    """Slots of chains that were left by another method, which learn from its last run."""
    rows = [galaxies.states[galaxy].end for galaxy in new[np.arange(size) % new.size]]
    chains = place(jax.tree.map(lambda *a: jnp.stack(a), *rows))
    slots = slots_for((galaxies.keys, galaxies.problem), new, size, chains)
    slots = _learn(galaxies, method, slots, np.arange(new.size))
    return slots, np.arange(method.chains)


def _segment(
    galaxies: Galaxies, slots: BatchSlots, moves: mc.Moves, adapt: np.ndarray
) -> tuple[BatchSlots, mc.Segment]:
    """One segment of all slots, and its cost counted."""
    steps = np.array([galaxies.states[galaxy].segments for galaxy in slots.galaxies])
    slots, segment = slots.advance(steps, adapt, _schedule(), moves)
    chains, n = segment.gradients.shape[1:]
    slowest = float(segment.gradients.max(axis=(0, 1)).sum())
    galaxies.computed += slots.size * chains * slowest
    for row, galaxy in enumerate(slots.galaxies):
        state = galaxies.states[galaxy]
        galaxies.change(
            galaxy,
            segments=state.segments + 1,
            gradients=state.gradients + int(segment.gradients[row].sum()),
            evaluations=state.evaluations + chains * n * moves.proposals,
        )
    return slots, segment


def _advance(galaxies: Galaxies, slots: BatchSlots, moves: mc.Moves) -> BatchSlots:
    """One segment later; it adapts where that is left to do, and is kept elsewhere."""
    adapt = np.array([galaxies.states[galaxy].left_to_adapt > 0 for galaxy in slots.galaxies])
    slots, segment = _segment(galaxies, slots, moves, adapt)
    for row, galaxy in enumerate(slots.galaxies):
        state = galaxies.states[galaxy]
        if adapt[row]:
            galaxies.change(galaxy, left_to_adapt=state.left_to_adapt - 1)
        else:
            part = jax.tree.map(lambda a, r=row: a[r].copy(), segment)
            galaxies.change(galaxy, parts=(*state.parts, part))
    return slots


def _check(
    galaxies: Galaxies, method: KernelMethod, slots: BatchSlots, lengths: Sequence[int]
) -> tuple[BatchSlots, np.ndarray, list[int]]:
    """Look at the runs that are complete.

    Returns the slots, of which those that run again have learned, which of them are free now, and
    the galaxies among these that did not converge.
    """
    gone = np.zeros(slots.galaxies.size, bool)
    missed: list[int] = []
    for number, length in enumerate(lengths):
        states = [galaxies.states[galaxy] for galaxy in slots.galaxies]
        due = [
            slot for slot, state in enumerate(states)
            if state.attempt == number and len(state.parts) * SEGMENT >= length
        ]  # fmt: skip
        if not due:
            continue
        runs = [_joined(states[slot].parts) for slot in due]
        passed = galaxies.diagnose(slots.galaxies[due], runs, method.name)
        last = number + 1 == len(lengths)
        again = []
        for slot, run, good in zip(due, runs, passed, strict=True):
            galaxy = int(slots.galaxies[slot])
            galaxies.change(galaxy, parts=())
            gone[slot] = good or last
            if good:
                continue
            state = galaxies.states[galaxy].remember(_pooled(run.x))
            if last:
                end = jax.tree.map(lambda a, i=slot: a[i], slots.chains)
                galaxies.states[galaxy] = state.replace(attempt=0, end=end)
                missed.append(galaxy)
            else:
                galaxies.states[galaxy] = state.replace(attempt=number + 1, left_to_adapt=1)
                again.append(slot)
        if again:
            slots = _learn(galaxies, method, slots, np.array(again))
    return slots, gone, missed


def _learn(
    galaxies: Galaxies, method: KernelMethod, slots: BatchSlots, rows: np.ndarray
) -> BatchSlots:
    """Some slots with a whitening and global moves fitted to the history of their galaxies."""
    states: Any = [galaxies.states[galaxy] for galaxy in slots.galaxies[rows]]
    steps = np.array([state.segments for state in states])
    return slots.learn(rows, steps, [state.history for state in states], dense=method.dense)


def _joined(parts: Sequence[mc.Segment]) -> SamplerRun:
    """A run of one galaxy from its segments."""
    return SamplerRun(
        x=np.concatenate([p.x for p in parts], axis=1),
        log_density=np.concatenate([p.log_density for p in parts], axis=1),
        divergences=sum(p.divergences for p in parts),
        gradients=sum(p.gradients.sum() for p in parts),
    )


def _pooled(x: Numbers) -> np.ndarray:
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
