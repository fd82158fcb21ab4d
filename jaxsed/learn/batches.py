"""Compiled predictions of any number of rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def in_batches(
    run: Callable[[np.ndarray], Any],
    n: int,
    size: int,
    progress: Callable[[int, int], None] | None = None,
) -> Any:
    """What ``run(rows)`` gives for rows 0 to n - 1, all together: a pytree of arrays [row, ..].

    Args:
        run: takes the numbers of `size` rows, so that it is compiled once; the last call has the
            last row several times.
        n: rows, one or more.
        size: rows of a call.
        progress: called with (rows done, rows in all).
    """
    parts = []
    for start in range(0, n, size):
        found = run(np.minimum(np.arange(start, start + size), n - 1))
        kept = min(size, n - start)
        parts.append(jax.tree.map(lambda a, kept=kept: np.asarray(a)[:kept], found))
        if progress:
            progress(start + kept, n)
    return jax.tree.map(lambda *a: np.concatenate(a), *parts)
