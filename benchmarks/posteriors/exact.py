"""Exact posteriors per second: draws of a flow, weighed by the exact likelihood and prior.

    python -m benchmarks.posteriors.exact --galaxies 4096 --json OUT.json

Mock galaxies of the flow's own simulator, each with `--draws` draws of the flow and a call of the
emulator for each; a galaxy counts as accepted if it is inside the flow's support, the Pareto shape
of its weights is below 0.7 and their effective number at least 400.  The rate of floating-point
operations counts matrix products alone and is compared with the best measured one.  The same
command is for CPU and GPU; there is no other fallback in it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.timing import flops, matrix_rate
from jaxsed.catalog import flows
from jaxsed.cli import cores, prepare_process
from jaxsed.infer import ESS_MIN, amortised
from jaxsed.infer.amortised import Amortised
from jaxsed.infer.amortised.flow import Flow
from jaxsed.infer.amortised.importance import KHAT_MAX
from jaxsed.infer.amortised.method import weighted_batch
from jaxsed.infer.schedule.devices import place, place_problem
from jaxsed.nets import made
from jaxsed.problem import take
from jaxsed.workflows import calibrate

KEPT = 1200
"""Draws that each posterior keeps."""


def active(net: Flow) -> int:
    """Weights of a flow, less those that its masks leave out."""
    ones = jax.tree.map(lambda a: jnp.ones_like(a[0]), net.blocks)
    kept = sum(float(leaf.sum()) for leaf in jax.tree.leaves(made.masked(ones)))
    return net.blocks.bias.shape[0] * int(kept)


def measure(flow: Amortised, galaxies: int, draws: int, batch: int, seed: int) -> dict[str, Any]:
    """Time and share accepted of batches of mocks."""
    batch = min(batch, galaxies)
    _, problem = calibrate.mocks_of(jax.random.key(seed), calibrate.simulator_of(flow), galaxies)
    starts = range(0, galaxies - batch + 1, batch)
    blocks = [place_problem(take(problem, np.arange(s, s + batch))) for s in starts]
    keys = place(jax.random.split(jax.random.key(seed + 1), batch))
    begun = time.perf_counter()
    jax.block_until_ready(weighted_batch(keys, blocks[0], flow, n=draws, keep=KEPT))
    compiled = time.perf_counter() - begun
    times, accepted = [], []
    for block in blocks:
        begun = time.perf_counter()
        found = weighted_batch(keys, block, flow, n=draws, keep=KEPT)
        jax.block_until_ready(found)
        times.append(time.perf_counter() - begun)
        good = (found.outside == 0) & (found.khat < KHAT_MAX) & (found.effective >= ESS_MIN)
        accepted.append(np.asarray(good).mean())
    seconds = float(np.median(times)) / batch
    # The features of a galaxy enter once for all of its draws.
    net = flow.flow.blocks
    per_draw = 2 * (active(flow.flow) - net.context.size) + flops(problem.forward)
    return {
        "device": str(jax.devices()[0]), "cores": cores(), "draws": draws, "batch": batch,
        "galaxies": len(blocks) * batch, "compile_seconds": compiled,
        "seconds_per_galaxy": seconds, "core_seconds_per_galaxy": seconds * cores(),
        "accepted": float(np.mean(accepted)),
        "accepted_per_second": float(np.mean(accepted)) / seconds,
        "flops_per_draw": per_draw, "flops": per_draw * draws / seconds,
    }  # fmt: skip


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flow", type=Path, default=None, help="SDSS with redshifts if not given")
    parser.add_argument("--galaxies", type=int, default=1024)
    parser.add_argument("--draws", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", default=None)
    options = parser.parse_args()
    prepare_process()
    flow = amortised.load(options.flow or flows.shipped_flow("provabgs_sdss"))
    out = measure(flow, options.galaxies, options.draws, options.batch, options.seed)
    out["share_of_matrix_rate"] = out["flops"] / matrix_rate()
    table = Table("figure", "value")
    for name, value in out.items():
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    Console().print(table)
    if options.json:
        Path(options.json).write_text(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
