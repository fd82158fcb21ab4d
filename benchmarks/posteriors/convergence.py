"""R-hat and effective numbers of draws: ours in NumPy beside blackjax's, compiled.

    python -m benchmarks.posteriors.convergence --json OUT.json

Chains of known autocorrelation, of as many galaxies and quantities as a batch has.  The two are
timed one after the other, the compilation of blackjax's apart, which comes for every new number
of draws; the table has medians of five and the largest relative difference.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from blackjax import diagnostics
from rich.console import Console
from rich.table import Table

from benchmarks.timing import compiling
from jaxsed.cli import cores, prepare_process
from jaxsed.infer import convergence

SIZES = ((1, 22, 1000), (12, 22, 1000), (12, 22, 4000))
"""Galaxies, quantities and draws of each of four chains."""


@jax.jit
def theirs(draws: jax.Array) -> tuple[jax.Array, ...]:
    """blackjax's, [galaxy, quantity] each, of draws [galaxy, chain, draw, quantity]."""

    def one(x: jax.Array) -> tuple[jax.Array, ...]:
        return diagnostics.rhat(x), diagnostics.ess_bulk(x), diagnostics.ess_tail(x)

    return jax.lax.map(jax.vmap(one, in_axes=-1), draws, batch_size=8)


def chains(galaxies: int, quantities: int, draws: int) -> np.ndarray:
    """First-order autoregressive chains with a correlation of one half."""
    x = np.random.default_rng(0).normal(size=(galaxies, 4, draws, quantities))
    for t in range(1, draws):
        x[:, :, t] += 0.5 * x[:, :, t - 1]
    return x.astype(np.float32)


def median_seconds(run: Callable[[], Any]) -> float:
    """Of five runs."""
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - begun)
    return float(np.median(times))


def measure(galaxies: int, quantities: int, draws: int) -> dict[str, Any]:
    """Times of both, and how far apart they are."""
    x = chains(galaxies, quantities, draws)
    on_device = jnp.asarray(x)
    with compiling() as seconds:
        expected = jax.block_until_ready(theirs(on_device))
    found = convergence(x)
    ours, other = median_seconds(lambda: convergence(x)), median_seconds(lambda: theirs(on_device))
    gaps = [np.max(np.abs(np.asarray(b) / a - 1)) for a, b in zip(found, expected, strict=True)]
    return {
        "galaxies": galaxies, "quantities": quantities, "draws": draws, "cores": cores(),
        "seconds": ours, "blackjax_seconds": other, "blackjax_compilation": sum(seconds),
        "ratio": other / ours, "largest_difference": float(np.max(gaps)),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    prepare_process()
    rows = [measure(*size) for size in SIZES]
    table = Table(title="four chains each; seconds, medians of five")
    for name in (
        "galaxies", "quantities", "draws", "ours", "blackjax", "its compilation", "ratio",
        "difference",
    ):  # fmt: skip
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            *(str(row[name]) for name in ("galaxies", "quantities", "draws")),
            *(f"{row[k]:.3f}" for k in ("seconds", "blackjax_seconds", "blackjax_compilation")),
            f"{row['ratio']:.1f}", f"{row['largest_difference']:.0e}",
        )  # fmt: skip
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
