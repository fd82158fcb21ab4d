"""Batch slots: a fixed number of places for galaxies that are advanced together.

Compiled code wants fixed shapes and full batches, and galaxies take different times.  So a galaxy
leaves its slot as soon as it converges and another takes its place; slots that stay empty
repeat a galaxy, and only when no galaxy waits any more does the number of slots shrink.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsed.core.types import Key, PyTree
from jaxsed.infer.schedule import chains as mc
from jaxsed.infer.schedule.devices import device_count, place, place_problem
from jaxsed.problem import Problem, rows_of, take

SHRINK = 4
"""Slots become fewer by this factor at a time: every size is compiled anew."""


SMALL = (1, 4, 12, 24)
"""Sizes of small batches, for which compiling costs more than slots that idle."""


def padded(n: int) -> int:
    """The next power of two, or three quarters of one, on every device; one of few small ones."""
    devices = device_count()
    per_device = -(-n // devices)
    if per_device <= SMALL[-1]:
        return devices * next(size for size in SMALL if size >= per_device)
    power = 1 << (per_device - 1).bit_length()
    size = power * 3 // 4 if per_device <= power * 3 // 4 else power
    return size * devices


def few_sizes(n: int) -> int:
    """A size of at least `n` out of few, for what is compiled for every size."""
    size = 2
    while size < n:
        size *= 4
    return padded(size)


@dataclass(frozen=True)
class BatchSlots:
    """Chains of galaxies of a batch, advanced together; made by `slots_for`."""

    everyone: tuple[Array, Problem]
    """Keys [galaxy] and problem of the batch."""
    galaxies: np.ndarray
    """[galaxy] positions in the batch of those who have a slot, in the order of the slots."""
    size: int
    keys: Key
    """[slot] those of `everyone`; slots that are empty repeat the others."""
    problem: Problem
    """Of the slots, likewise."""
    chains: PyTree = None
    """`Chains` of the slots."""

    def begin(self, *, chains: int, starts: int, dense: bool) -> BatchSlots:
        """With chains around the best fits."""
        begun = mc.begin_batch(self.keys, self.problem, chains=chains, starts=starts, dense=dense)
        return dataclasses.replace(self, chains=begun)

    def advance(
        self, steps: np.ndarray, adapt: np.ndarray, schedule: mc.Schedule, moves: mc.Moves
    ) -> tuple[BatchSlots, mc.Segment]:
        """One segment later; `steps` and `adapt` [galaxy] as in `chains.advance_batch`."""
        chains, segment = mc.advance_batch(
            self.keys, self._fill(steps), self._fill(adapt), self.chains, self.problem, schedule,
            moves=moves,
        )  # fmt: skip
        real = jax.tree.map(lambda a: np.asarray(a)[: self.galaxies.size], segment)
        return dataclasses.replace(self, chains=chains), real

    def learn(
        self, slots: np.ndarray, steps: np.ndarray, draws: Sequence[np.ndarray], *, dense: bool
    ) -> BatchSlots:
        """With a whitening and global moves fitted to draws [draw, dimension] of some slots.

        `steps` [galaxy of those slots] makes the random numbers of the fit."""
        rows = np.arange(few_sizes(slots.size)) % slots.size
        keys, chains = rows_of((self.keys, self.chains), slots[rows])
        placed = place((keys, jnp.asarray(steps[rows]), chains, np.stack(draws)[rows]))
        found = mc.learn_batch(*placed, dense=dense)
        index = np.arange(self.size)
        index[slots] = self.size + np.arange(slots.size)
        return dataclasses.replace(self, chains=place(_merged(self.chains, found, index)))

    def keep(self, slots: np.ndarray, *, shrink: bool) -> BatchSlots:
        """Only these slots keep their galaxies; if few are left and `shrink`, the others go."""
        galaxies = self.galaxies[slots]
        if not slots.size:
            return dataclasses.replace(self, galaxies=galaxies)
        size = self.size
        while shrink and size > SHRINK and padded(slots.size) <= size // SHRINK:
            size = padded(size // SHRINK)
        rows = slots[np.arange(size) % slots.size]
        chains = place(rows_of(self.chains, rows))
        return slots_for(self.everyone, galaxies, size, chains)

    def join(self, others: BatchSlots, slots: np.ndarray, chains: np.ndarray) -> BatchSlots:
        """Galaxies of other slots, with some of their chains, take the empty slots."""
        own, new = self.galaxies.size, slots.size
        padding = np.arange(others.size) % new
        arrived = rows_of(others.chains, slots[padding])
        arrived = arrived._replace(x=_kept_chains(arrived.x, chains))
        galaxies = np.concatenate([self.galaxies, others.galaxies[slots]])
        if self.chains is None:
            rows = np.arange(self.size) % new
            merged = rows_of(arrived, rows)
        else:
            index = np.arange(self.size)
            index[own : own + new] = self.size + np.arange(new)
            merged = _merged(self.chains, arrived, index)
        return slots_for(self.everyone, galaxies, self.size, place(merged))

    def _fill(self, values: np.ndarray) -> Array:
        return place(jnp.asarray(values[np.arange(self.size) % values.size]))


def slots_for(
    everyone: tuple[Array, Problem], galaxies: np.ndarray, size: int, chains: PyTree = None
) -> BatchSlots:
    """Slots in which some galaxies of a batch are seated, as many as `size`."""
    keys, problem = everyone
    rows = galaxies[np.arange(size) % galaxies.size]
    placed = place(rows_of(keys, rows)), place_problem(take(problem, rows))
    return BatchSlots(everyone, np.asarray(galaxies), size, *placed, chains)


def empty_slots(everyone: tuple[Array, Problem], size: int) -> BatchSlots:
    """Slots that no galaxy has yet."""
    seated = slots_for(everyone, np.zeros(1, int), size)
    return dataclasses.replace(seated, galaxies=np.zeros(0, int))


@jax.jit
def _kept_chains(x: Array, chains: np.ndarray) -> Array:
    return x[:, chains]


@jax.jit
def _merged(old: Any, new: Any, index: np.ndarray) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b])[index], old, new)
