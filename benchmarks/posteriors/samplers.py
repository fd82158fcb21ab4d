"""Seconds to a converged posterior: every sampler here, and the peers a user would pick.

    python -m benchmarks.posteriors.samplers --targets provabgs5 goodss17 \\
        --galaxies 256 --json OUT.json
    python -m benchmarks.posteriors.samplers --targets goodss17 --ablation \\
        --galaxies 64 --json OUT.json

Targets are mock galaxies of shipped emulators (`provabgs5`: 5 SDSS bands; `goodss17`: 17 GOODS-S
bands; `prospector20`: 20 bands, 17 free parameters) and two with known moments (`gaussian`,
`banana`).  All samplers see the same galaxies in one run.  Compilation is timed apart.  A galaxy
counts as converged only if rank-normalised split R-hat < 1.01 and bulk and tail ESS >= 400 for
every coordinate; peers run until they meet that bar or `--peer-seconds` are over, on `--peers`
galaxies, with the same log density compiled by JAX and called in batches where they can.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.posteriors.peers import PEERS, measure_peer
from benchmarks.posteriors.targets import target
from benchmarks.timing import compiling, flops, matrix_rate
from jaxsed import infer
from jaxsed.cli import cores, prepare_process
from jaxsed.problem import PriorCoordinates, Problem, take

SAMPLERS = ("hmc", "nuts", "mclmc", "chees", "ensemble_slice", "aies", "nested")


def measure(problem: Problem, method: infer.Method, slots: int, seed: int) -> dict[str, Any]:
    """One sampler on a batch: time without compilation, work, and how many passed."""
    n = jax.tree.leaves(problem.data)[0].shape[0]
    keys = jax.random.split(jax.random.key(seed), n)
    start = time.perf_counter()
    with compiling() as compiled:
        samples = infer.sample(keys, problem, method, slots=slots)
    seconds = time.perf_counter() - start - sum(compiled)
    found = samples.diagnostics
    ess = np.minimum(found.ess_bulk_min, found.ess_tail_min)
    passed = found.passes()
    core = seconds * cores()
    # A gradient takes the forward pass, the way back through it, and no gradient of the weights.
    passes = 2 * found.gradients.sum() + found.evaluations.sum()
    return {
        "galaxies": n,
        "matrix_product_flops": float(passes * flops(problem.forward) / seconds),
        "seconds_per_galaxy": seconds / n,
        "core_seconds_per_galaxy": core / n,
        "converged_per_core_hour": float(3600 * passed.sum() / core),
        "compile_seconds": sum(compiled),
        "share_passing": float(passed.mean()),
        "gradients_per_ess": float(np.median(found.gradients / np.maximum(ess, 1))),
        "evaluations_per_ess": float(np.median(found.evaluations / np.maximum(ess, 1))),
        "slot_efficiency": samples.slot_efficiency,
        "gradients": float(found.gradients.mean()),
        "evaluations": float(found.evaluations.mean()),
        "passing_after_run": [
            float((passed & (found.run <= r)).mean()) for r in range(found.run.max() + 1)
        ],
        "rhat_max_worst": float(found.rhat_max.max()),
        "ess_min_median": float(np.median(ess)),
        "divergences": float(found.divergences.mean()),
        "options": dataclasses.asdict(method) | {"slots": slots},
    }


def ablations(
    problem: Problem, slots: int, options: dict[str, Any]
) -> dict[str, tuple[Problem, infer.Method, int]]:
    """The default sampler with one thing taken away at a time: problem, method and slots."""
    hmc, nuts = infer.HMC(**options), infer.NUTS(**options)
    alone: dict[str, Any] = {"proposals": 0, "warmup_proposals": 0, "draws": 1000}
    unsheared = problem.replace(transform=PriorCoordinates())
    n = jax.tree.leaves(problem.data)[0].shape[0]
    return {
        "hmc, all of it": (problem, hmc, slots),
        "mass not relative to its best fit": (unsheared, hmc, slots),
        "diagonal metric": (problem, dataclasses.replace(hmc, dense=False), slots),
        "no global moves": (problem, dataclasses.replace(hmc, **alone), slots),
        "own lengths (NUTS)": (problem, nuts, slots),
        "own lengths (NUTS), no global moves": (
            problem, dataclasses.replace(nuts, **alone), slots,
        ),
        "slots not refilled": (problem, hmc, max(n, 4)),
    }  # fmt: skip


def show(title: str, rows: dict[str, dict[str, Any]]) -> None:
    """A table of one target."""
    table = Table(
        "sampler", "s / galaxy", "pass", "converged / core-hour", "gradients / ESS", "values / ESS",
        "slots", "compile s", title=title,
    )  # fmt: skip
    for name, r in rows.items():
        table.add_row(
            name, f"{r['seconds_per_galaxy']:.3g}", f"{r['share_passing']:.1%}",
            f"{r.get('converged_per_core_hour', np.nan):.0f}", f"{r['gradients_per_ess']:.0f}",
            f"{r['evaluations_per_ess']:.0f}", f"{r['slot_efficiency']:.2f}",
            f"{r.get('compile_seconds', np.nan):.0f}",
        )  # fmt: skip
    Console().print(table)


def main() -> None:
    """Run, print, and write JSON after every row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--targets", nargs="+", default=["provabgs5", "goodss17"])
    parser.add_argument("--galaxies", type=int, default=64)
    parser.add_argument("--slot-galaxies", type=int, default=64, help="at most, for nuts and mclmc")
    parser.add_argument("--slow-galaxies", type=int, default=8, help="for samplers without slots")
    parser.add_argument("--samplers", nargs="*", default=list(SAMPLERS), choices=infer.METHODS)
    parser.add_argument("--peer", nargs="*", default=list(PEERS), choices=PEERS)
    parser.add_argument("--peers", type=int, default=1, help="galaxies for the peers")
    parser.add_argument("--peer-seconds", type=float, default=120.0)
    parser.add_argument("--slots", type=int, default=256)
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--retries", type=int, default=4)
    parser.add_argument("--ablation", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", default=None)
    options = parser.parse_args()
    prepare_process()

    chosen_options = {"draws": options.draws, "retries": options.retries}
    out: dict[str, Any] = {
        "device": str(jax.devices()[0]), "cores": cores(), "jax": jax.__version__,
        "matrix_product_flops": matrix_rate(), "targets": {},
    }  # fmt: skip
    for name in options.targets:
        rows: dict[str, Any] = {}
        out["targets"][name] = rows

        def keep(row: str, figures: dict[str, Any], rows: dict[str, Any] = rows) -> None:
            rows[row] = figures
            hidden = ("passing_after_run", "options")
            print(row, {k: v for k, v in figures.items() if k not in hidden}, flush=True)
            if options.json:
                with open(options.json, "w") as file:
                    json.dump(out, file, indent=1)

        problem = target(name, options.galaxies, options.seed)
        if options.ablation:
            rows_of = ablations(problem, options.slots, chosen_options)
            for row, (changed, method, slots) in rows_of.items():
                keep(row, measure(changed, method, slots, options.seed))
        else:
            for sampler in options.samplers:
                most = {
                    "hmc": options.galaxies,
                    **dict.fromkeys(("nuts", "mclmc"), options.slot_galaxies),
                }
                chosen = take(
                    problem,
                    np.arange(min(options.galaxies, most.get(sampler, options.slow_galaxies))),
                )
                method = infer.method_of(sampler, **chosen_options)
                keep(sampler, measure(chosen, method, options.slots, options.seed))
            for name_of in options.peer:
                figures = measure_peer(problem, name_of, options.peers, options.peer_seconds)
                keep(name_of, figures)
        show(f"{name}, {options.galaxies} galaxies", rows)


if __name__ == "__main__":
    main()
