"""What a machine can do, and how much of a time was compiling."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp

from jaxsed.catalog.run import COMPILING


@contextmanager
def compiling() -> Iterator[list[float]]:
    """Collects the seconds of every compilation while it is open."""
    seconds: list[float] = []

    def listen(event: str, duration: float, **_: Any) -> None:
        if event in COMPILING:
            seconds.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seconds
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def flops(forward: Any) -> float:
    """Of the matrix products of one call of an emulator."""
    return 2.0 * sum(a.size for a in jax.tree.leaves(forward) if jnp.ndim(a) == 2)


def matrix_rate() -> float:
    """Best measured rate of float32 matrix products, in FLOP/s."""
    product = jax.jit(jnp.matmul)
    rates = []
    for size in (512, 1024, 2048, 4096):
        a = jnp.ones((size, size))
        jax.block_until_ready(product(a, a))
        for _ in range(5):
            start = time.perf_counter()
            jax.block_until_ready(product(a, a))
            rates.append(2.0 * size**3 / (time.perf_counter() - start))
    return max(rates)
