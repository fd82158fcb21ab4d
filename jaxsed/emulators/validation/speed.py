"""How long an emulator takes for one SED: value, and value with gradient, alone and in a batch."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsed.core.types import Model

BATCH = 4096
"""Galaxies in the batch that is timed."""

_REPEATS_SINGLE, _REPEATS_BATCH = 300, 15


class Timing(NamedTuple):
    """Medians in microseconds per SED of compiled code on this machine, compilation apart.

    A single call includes what it takes to start compiled code and to wait for its result.
    """

    value: float
    gradient: float
    """Value and gradient, with respect to the features, of a sum of squared magnitudes."""
    value_batch: float
    gradient_batch: float
    compile_seconds: float
    """Of the four together."""


def time_emulator(emulator: Model, features: np.ndarray) -> Timing:
    """Time `emulator.from_features` on features [pair, feature], of which a batch is made."""
    rows = np.resize(np.arange(len(features)), BATCH)
    batch = jnp.asarray(np.asarray(features)[rows], float)
    one = batch[0]

    def value(emulator, x):
        return emulator.from_features(x)

    def gradient(emulator, x):
        return jax.value_and_grad(lambda x: jnp.sum(emulator.from_features(x) ** 2))(x)

    began = time.perf_counter()
    runs: list[tuple[Callable, Any, int]] = []
    for function in (value, gradient):
        mapped = jax.vmap(function, in_axes=(None, 0))
        for call, x, repeats in ((function, one, _REPEATS_SINGLE), (mapped, batch, _REPEATS_BATCH)):
            compiled = jax.jit(call).lower(emulator, x).compile()
            runs.append((compiled, x, repeats))
    compiling = time.perf_counter() - began
    single, batched, single_gradient, batched_gradient = (
        median_seconds(partial(run, emulator, x), repeats) for run, x, repeats in runs
    )
    return Timing(
        1e6 * single, 1e6 * single_gradient, 1e6 * batched / BATCH, 1e6 * batched_gradient / BATCH,
        compiling,
    )  # fmt: skip


def median_seconds(call: Callable[[], Any], repeats: int, *, warm: bool = True) -> float:
    """Median seconds of a call; a first one, which may compile, is not among them."""
    if warm:
        jax.block_until_ready(call())
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - began)
    return float(np.median(times))
