"""Are the posteriors right? Ranks of true parameters in mock posteriors, and emulator against
physics.

    python -m benchmarks.posteriors.mocks --mocks 500 --pairs 20 --json OUT.json --figure RANKS.png

Mocks are drawn from the prior at one redshift with the direct physics, in the bands of a shipped
emulator with 5 % noise and a sky of 28 mag, and fitted with that emulator.  Ranks of the truth
must be uniform (Talts+ 2018): the table has a chi-square p-value per parameter, over all mocks and
over those that converge (which may be a biased choice).  For the pairs the same galaxy is also
fitted with the direct physics: shift of medians in posterior widths, ratio of widths, and Q, the
difference of medians over the root of the summed variances (Mathews+ 2023, eq. 10).  `jaxsed
validate --posteriors N` does the latter at all redshifts, with repeated runs beside it.
"""

from __future__ import annotations

import argparse
import json
import time

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from jaxsed import infer
from jaxsed.cli import prepare_process
from jaxsed.emulators import load_emulator, measured_sigma
from jaxsed.plots import rank_histograms
from jaxsed.workflows.checks import rank_pvalue, rank_statistics
from jaxsed.workflows.mocks import agreement, fit_mocks, mock_galaxies, scalars
from jaxsed.workflows.validate import Request, physics_of


def main() -> None:
    """Run and print both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--emulator", default="provabgs_goodss", help="a shipped one, or a file")
    parser.add_argument("--redshift", type=float, default=1.0)
    parser.add_argument("--mocks", type=int, default=500)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--retries", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--method", default="hmc", choices=infer.METHODS)
    parser.add_argument("--json", default=None)
    parser.add_argument("--figure", default=None, help="histograms of the ranks")
    options = parser.parse_args()
    prepare_process()

    emulator = load_emulator(options.emulator)
    galaxies, physics, (low, high) = physics_of(emulator, Request())
    if not low <= options.redshift <= high:
        parser.error(f"the emulator is for redshifts {low:g} to {high:g}")
    n = options.mocks
    key_mocks, key_fit = jax.random.split(jax.random.key(options.seed))
    mocks = mock_galaxies(key_mocks, galaxies, physics, np.full(n, options.redshift))
    keys = jax.random.split(key_fit, n)
    method = infer.method_of(options.method, retries=options.retries)

    def fit(forward, sigma, rows):
        began = time.perf_counter()
        samples = fit_mocks(keys[rows], mocks.take(rows), forward, sigma, method)
        return samples, time.perf_counter() - began

    sigma = measured_sigma(emulator)
    found, seconds = fit(emulator, sigma, np.arange(n))
    ok = found.diagnostics.passes()
    every: dict[str, np.ndarray] = {}
    out = {
        "method": options.method,
        "mocks": n,
        "passing": float(ok.mean()),
        "seconds": seconds,
        "ranks": {},
    }
    table = Table(
        "parameter", "p-value of ranks, all", "those that pass", "mean rank", "rms about 1/2",
        title=f"{n} mocks, {ok.mean():.1%} converge; uniform: mean 0.5, rms 0.289",
    )  # fmt: skip
    # draws of a single chain of a single draw, so that truths come in the same order
    truths = dict(scalars(jax.tree.map(lambda a: np.asarray(a)[:, None, None], mocks.truth)))
    for name, draws in scalars(found.theta):
        flat, values = draws.reshape(n, -1), truths[name].reshape(n)
        figures = {}
        for words, chosen in (("all", np.ones(n, bool)), ("passing", ok)):
            ranks = rank_statistics(values[chosen], flat[chosen], keep=99)
            bins = int(np.clip(chosen.sum() // 10, 2, 10))
            figures[words] = float(rank_pvalue(ranks, 99, bins=bins))
        every[name] = rank_statistics(values, flat, keep=99)
        share = every[name] / 99
        figures |= {"mean": float(share.mean()), "rms": float(np.sqrt(np.mean((share - 0.5) ** 2)))}
        out["ranks"][name] = figures
        table.add_row(name, *(f"{v:.3f}" for v in figures.values()))
    Console().print(table)
    if options.figure:
        p_values = {name: figures["all"] for name, figures in out["ranks"].items()}
        rank_histograms(every, 99, p_values=p_values).savefig(options.figure)

    rows = np.arange(min(options.pairs, n))
    if rows.size:
        direct, seconds = fit(physics, np.zeros(len(sigma)), rows)
        both = ok[rows] & direct.diagnostics.passes()
        mine, theirs = (
            jax.tree.map(lambda a: np.asarray(a)[rows][both], theta)
            for theta in (found.theta, direct.theta)
        )
        out |= {"pairs": int(both.sum()), "pair_seconds": seconds}
        out["agreement"] = agreement(mine, theirs).figures()
        table = Table("parameter", "median |shift|/σ", "median width ratio", "max |Q|", "|Q| >= 3")
        for name, figures in out["agreement"].items():
            table.add_row(name, *(f"{v:.3f}" for v in figures.values()))
        Console().print(table)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(out, file, indent=1)


if __name__ == "__main__":
    main()
