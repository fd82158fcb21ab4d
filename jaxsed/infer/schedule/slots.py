"""Batch slots: a fixed number of places for galaxies that are advanced together.

Compiled code wants fixed shapes and full batches, and galaxies take different times.  So a galaxy
leaves its slot as soon as it converges and another takes its place; slots that stay empty
repeat a galaxy, and only when no galaxy waits any more does the number of slots shrink.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsed.infer.schedule import chains as mc
from jaxsed.problem import Problem

SHRINK = 4
"""Slots become fewer by this factor at a time: every size is compiled anew."""


SMALL = (1, 4, 12, 24)
"""Sizes of small batches, for which compiling costs more than slots that idle."""


def padded(n: int) -> int:
    """The next power of two, or three quarters of one, on every device; one of few small ones."""
    devices = mc.device_count()
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


def take(problem: Problem, rows: np.ndarray) -> Problem:
    """The problem of some galaxies of a batch."""
    prior, data = jax.tree.map(lambda a: a[rows], (problem.prior, problem.data))
    return dataclasses.replace(problem, prior=prior, data=data)


class BatchSlots:
    """Chains of galaxies of a batch, advanced together."""

    def __init__(self, keys: Array, problem: Problem, galaxies: np.ndarray, size: int) -> None:
        self.everyone = keys, problem
        self.galaxies = np.asarray(galaxies)
        """[galaxy] positions in the batch of those who have a slot, in the order of the slots."""
        self.size = size
        self.chains: Any = None
        self._seat()

    def _seat(self) -> None:
        """Keys and problem of the slots; those that are empty repeat the others."""
        keys, problem = self.everyone
        rows = self.galaxies[np.arange(self.size) % self.galaxies.size]
        self.keys, self.problem = mc.place(keys[rows]), mc.place_problem(take(problem, rows))

    def begin(self, *, chains: int, starts: int, dense: bool) -> None:
        """Chains around the best fits."""
        self.chains = mc.begin_batch(
            self.keys, self.problem, chains=chains, starts=starts, dense=dense
        )

    def advance(
        self, steps: np.ndarray, adapt: np.ndarray, schedule: mc.Schedule, moves: mc.Moves
    ) -> mc.Segment:
        """One segment; `steps` and `adapt` [galaxy] as in `chains.advance_batch`."""
        self.chains, segment = mc.advance_batch(
            self.keys, self._fill(steps), self._fill(adapt), self.chains, self.problem, schedule,
            moves=moves,
        )  # fmt: skip
        return self.real(segment)

    def learn(
        self, slots: np.ndarray, steps: np.ndarray, draws: list[np.ndarray], *, dense: bool
    ) -> None:
        """Give some slots a whitening and global moves fitted to draws [draw, dimension] of each.

        `steps` [galaxy of those slots] makes the random numbers of the fit."""
        rows = np.arange(few_sizes(slots.size)) % slots.size
        chains = jax.tree.map(lambda a: a[slots[rows]], self.chains)
        placed = mc.place(
            (self.keys[slots[rows]], jnp.asarray(steps[rows]), chains, np.stack(draws)[rows])
        )
        found = mc.learn_batch(*placed, dense=dense)
        index = np.arange(self.size)
        index[slots] = self.size + np.arange(slots.size)
        self.chains = mc.place(_merged(self.chains, found, index))

    def keep(self, slots: np.ndarray, *, shrink: bool) -> None:
        """Only these slots keep their galaxies; if few are left and `shrink`, the others go."""
        self.galaxies = self.galaxies[slots]
        if not slots.size:
            return
        size = self.size
        while shrink and size > SHRINK and padded(slots.size) <= size // SHRINK:
            size = padded(size // SHRINK)
        self.size = size
        rows = slots[np.arange(size) % slots.size]
        self.chains = mc.place(jax.tree.map(lambda a: a[rows], self.chains))
        self._seat()

    def join(self, others: BatchSlots, slots: np.ndarray, chains: np.ndarray) -> None:
        """Galaxies of other slots, with some of their chains, take the empty slots."""
        own, new = self.galaxies.size, slots.size
        padding = np.arange(others.size) % new
        arrived = jax.tree.map(lambda a: a[slots[padding]], others.chains)
        arrived = arrived._replace(x=arrived.x[:, chains])
        self.galaxies = np.concatenate([self.galaxies, others.galaxies[slots]])
        if self.chains is None:
            rows = np.arange(self.size) % new
            self.chains = jax.tree.map(lambda a: a[rows], arrived)
        else:
            index = np.arange(self.size)
            index[own : own + new] = self.size + np.arange(new)
            self.chains = _merged(self.chains, arrived, index)
        self.chains = mc.place(self.chains)
        self._seat()

    def real(self, values: Any) -> Any:
        """Values of the slots that have a galaxy, as numpy."""
        return jax.tree.map(lambda a: np.asarray(a)[: self.galaxies.size], values)

    def _fill(self, values: np.ndarray) -> Array:
        return mc.place(jnp.asarray(values[np.arange(self.size) % values.size]))


def _merged(old: Any, new: Any, index: np.ndarray) -> Any:
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b])[index], old, new)
