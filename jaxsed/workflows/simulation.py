"""Simulated galaxies in blocks, for training and judging emulators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax import Array

from jaxsed.core.types import Key, Model, PyTree
from jaxsed.emulators.training.pairs import Simulate

BLOCK = 256
"""Galaxies simulated together: their spectra then stay in the processor's caches."""


def in_blocks(one: Callable[[Array, Any], Any]) -> Callable[[Array, Any], Any]:
    """``run(keys, model)``: ``one(key, model)`` of every key, a block at a time, compiled.

    Results have a leading axis [key].
    """

    @jax.jit
    def run(keys: Key, model: Model) -> PyTree:
        return jax.lax.map(lambda key: one(key, model), keys, batch_size=BLOCK)

    return run


def simulator(one: Callable[[Array, Any], tuple[Array, ...]], model: Model) -> Simulate:
    """``simulate(key, n)``: n results of ``one(key, model)``, for the training of an emulator."""
    run = in_blocks(one)
    return lambda key, n: run(jax.random.split(key, n), model)
