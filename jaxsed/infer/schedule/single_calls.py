"""Galaxies sampled by a method that takes each of them from its start to its end in one call."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsed.core.types import Key, PyTree
from jaxsed.infer.samplers.base import SingleCallMethod
from jaxsed.infer.schedule import uses
from jaxsed.infer.schedule.devices import over_galaxies, place, place_problem
from jaxsed.infer.schedule.galaxies import Galaxies, Report
from jaxsed.infer.schedule.slots import padded
from jaxsed.problem import Problem, take

BLOCK = 32
"""Galaxies in a compiled call."""


def by_single_calls(
    galaxies: Galaxies,
    method: SingleCallMethod,
    lengths: Sequence[int],
    report: Report,
    waiting: Sequence[int],
) -> list[int]:
    """Sample galaxies by such a method; returns those that do not converge."""
    waiting = list(waiting)
    for length in lengths:
        late: list[int] = []
        size = padded(min(len(waiting), BLOCK)) if waiting else 0
        for start in range(0, len(waiting), BLOCK):
            chosen = np.array(waiting[start : start + BLOCK])
            rows = chosen[np.arange(size) % chosen.size]
            # Methods one after another must not share their numbers either.
            runs_before = np.array([galaxies.states[row].runs for row in rows])
            keys = _keys(galaxies.keys[rows], jnp.asarray(runs_before))
            found = single_call_batch(
                place(keys), place_problem(take(galaxies.problem, rows)), method=method,
                length=length,
            )  # fmt: skip
            found = jax.tree.map(np.asarray, found)
            galaxies.computed += size * float(found.gradients.max())
            runs = [jax.tree.map(lambda a, r=row: a[r], found) for row in range(chosen.size)]
            for galaxy, run in zip(chosen, runs, strict=True):
                state = galaxies.states[galaxy]
                galaxies.change(
                    galaxy,
                    gradients=state.gradients + int(run.gradients),
                    evaluations=state.evaluations + int(run.evaluations),
                )
            passed = galaxies.diagnose(chosen, runs, method.name)
            late += [int(galaxy) for galaxy, good in zip(chosen, passed, strict=True) if not good]
            report(method.name, start + chosen.size - len(late), len(waiting))
        waiting = late
        if not waiting:
            break
    return waiting


def _keys(keys: Key, runs_before: Array) -> Array:
    """[galaxy] keys of a run, by the number of runs that each galaxy had before."""
    return jax.vmap(lambda key, n: uses.numbered(key, uses.SINGLE_CALL, n))(keys, runs_before)


@partial(jax.jit, static_argnames=("method", "length"))
def single_call_batch(
    keys: Key, problem: Problem, *, method: SingleCallMethod, length: int
) -> Any:
    """``method.run(key, problem, length)`` of every galaxy of a batch."""

    def one(key: Key, problem: Problem) -> PyTree:
        return jax.tree.map(jnp.asarray, method.run(key, problem, length))

    return over_galaxies(one, problem)(keys, problem)
