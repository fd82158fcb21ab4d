"""Real SDSS galaxies by a flow made exact: time, who is accepted, agreement with NUTS, photo-z.

    python -m benchmarks.posteriors.sdss CATALOG.dat --galaxies 5000 --agreement 30 \\
        --output FOLDER --json OUT
    python -m benchmarks.posteriors.sdss CATALOG.dat --galaxies 1000 --photoz \\
        --output FOLDER --json OUT

The catalogue is a text table of ugriz magnitudes, their errors, and the spectroscopic redshift, as
that of CosmoPhotoz (Elliott et al. 2015).  All galaxies are fitted by `jaxsed fit` with method
"auto"; the first of them also by long NUTS runs of NumPyro, as in `agreement.py`.  With `--photoz`
the redshift is free and compared with the spectroscopic one.  Runs in the folder are kept.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table as Printed

from benchmarks.posteriors.agreement import REFERENCE, compare, passing
from benchmarks.posteriors.exact import measure
from benchmarks.timing import compiling
from jaxsed.catalog import flows
from jaxsed.catalog.config import Config, parse_config
from jaxsed.catalog.plan import resolve
from jaxsed.catalog.results import Results
from jaxsed.catalog.run import fit_catalog
from jaxsed.cli import cores, prepare_process
from jaxsed.infer.amortised.method import DRAWS, DRAWS_PER_CALL

BANDS = "ugriz"
PRIOR = (0.002, 0.5)
"""Of a free redshift."""

OUTLIER = 0.05
"""|dz| / (1 + z), as is usual at these low redshifts."""


def config(flow: str, sampler: str, *, photoz: bool) -> Config:
    """The configuration of a run."""
    redshift = f'"free"\nredshift_prior = {list(PRIOR)}' if photoz else '"redshift"'
    text = f'[catalog]\nid = "id"\nredshift = {redshift}\nflux_unit = "ABmag"\n'
    # What SDSS writes where it has no magnitude, or no error of one.
    text += "missing_flux_above = 25.0\nmissing_error_below = 0.0\n"
    text += "".join(
        f'[[band]]\nflux = "{b}"\nerror = "{b}_error"\nfilter = "sdss_{b}0"\n' for b in BANDS
    )
    text += '[model]\nphysics = "provabgs"\npredictor = "emulator"\n'
    text += f"[likelihood]\nerror_floor = 0.05\n[sampler]\n{sampler}"
    return parse_config(text + (f'flow = "{flow}"\n' if "auto" in sampler else ""))


def catalog(path: Path, n: int, output: Path) -> Table:
    """The first galaxies, as an ECSV table in the folder."""
    columns = np.loadtxt(path)[:n].T
    table = Table({"id": np.arange(columns.shape[1]), "redshift": columns[10]})
    for k, band in enumerate(BANDS):
        table[band], table[f"{band}_error"] = columns[k], columns[5 + k]
    table.write(output, overwrite=True)
    return table


def summary(results: Results) -> dict[str, Any]:
    """Who was accepted, by what, and why not."""
    table = results.table
    n = len(table)
    out: dict[str, Any] = {"galaxies": n, "passing": float(passing(results).mean())}
    out["method"] = {k: v / n for k, v in Counter(table["method"]).most_common()}
    out["support"] = {k: v / n for k, v in Counter(table["support"]).most_common()}
    for name in ("khat", "importance_ess"):
        found = np.nan_to_num(np.asarray(table[name], float), posinf=99.0)
        out[name] = dict(
            zip(("p5", "p50", "p95"), np.quantile(found, (0.05, 0.5, 0.95)).tolist(), strict=True)
        )
    return out


def draw_masses(results: Results) -> Figure:
    """Stellar mass against redshift."""
    table = results.table
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for method in sorted(set(table["method"])):
        rows = table["method"] == method
        axes.plot(
            table["redshift"][rows], np.asarray(table["log_mass_surviving_p50"][rows]), ".", ms=3,
            alpha=0.6, label=f"{method} ({rows.sum()})",
        )  # fmt: skip
    wide = table["log_mass_surviving_p84"] - table["log_mass_surviving_p16"]
    axes.errorbar(
        [0.02], [12.3], yerr=[0.5 * np.median(np.asarray(wide))], fmt="k.", capsize=2,
    )  # fmt: skip
    axes.text(0.03, 12.3, "median 68 % interval", va="center", fontsize=8)
    axes.set_xlabel("spectroscopic redshift")
    axes.set_ylabel(r"$\log_{10} M_\star / M_\odot$ (surviving)")
    axes.legend(fontsize=8, loc="lower right")
    return figure


def photometric(results: Results, true: np.ndarray) -> tuple[dict[str, Any], Figure]:
    """Redshifts against the spectroscopic ones."""
    draws = np.stack([results.draws(row=r)["redshift"].ravel() for r in range(len(results))])
    middle = np.median(draws, axis=1)
    off = (middle - true) / (1 + true)
    pit = (draws < true[:, None]).mean(axis=1)
    good = passing(results) & (true > PRIOR[0]) & (true < PRIOR[1])
    out: dict[str, Any] = {}
    for name, rows in (("all", good), ("inside", good & (results.table["support"] == "inside"))):
        out[name] = {
            "galaxies": int(rows.sum()),
            "bias": float(np.median(off[rows])),
            "sigma_nmad": float(1.4826 * np.median(np.abs(off[rows] - np.median(off[rows])))),
            "outliers": float((np.abs(off[rows]) > OUTLIER).mean()),
            "within_68": float(np.mean(np.abs(pit[rows] - 0.5) < 0.34)),
            "within_95": float(np.mean(np.abs(pit[rows] - 0.5) < 0.475)),
        }
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(true[good], middle[good], ".", ms=3, alpha=0.5)
    left.plot(PRIOR, PRIOR, "k-", lw=0.8)
    left.set_xlabel("spectroscopic redshift")
    left.set_ylabel("median photometric redshift")
    right.hist(pit[good], 20, range=(0, 1), histtype="step")
    right.axhline(good.sum() / 20, color="k", lw=0.8)
    right.set_xlabel("posterior below the spectroscopic redshift")
    right.set_ylabel("galaxies")
    return out, figure


def main() -> None:
    """Fit, compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("catalog", type=Path)
    parser.add_argument("--galaxies", type=int, default=5000)
    parser.add_argument("--agreement", type=int, default=0, help="galaxies to fit by NUTS as well")
    parser.add_argument("--photoz", action="store_true")
    parser.add_argument("--flow", default="shipped")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--json", default=None)
    options = parser.parse_args()
    prepare_process()
    options.output.mkdir(parents=True, exist_ok=True)
    kind = "photoz" if options.photoz else "redshift"
    path = options.output / "catalog.ecsv"
    table = catalog(options.catalog, options.galaxies, path)
    given = config(options.flow, 'method = "auto"\n', photoz=options.photoz)
    plan = resolve(given)
    names = [curve.name for curve in plan.filters]
    flow = flows.find_flow(
        plan.sampling.flow, plan.model.galaxies.name, names, free_redshift=options.photoz
    )
    out: dict[str, Any] = {
        "cores": cores(),
        "flow": flow.record.text,
        "weights": measure(flow, 512, DRAWS[0], DRAWS_PER_CALL // DRAWS[0], 0),
    }
    file = options.output / f"{kind}.h5"
    known = file.exists()
    start, begun = time.perf_counter(), time.process_time()
    with compiling() as compiled:
        results = fit_catalog(given, path, file, seed=options.seed, resume=True)
    if not known:
        out["seconds"] = time.perf_counter() - start
        out["compile_seconds"] = sum(compiled)
        out["core_seconds_per_galaxy"] = out["seconds"] * cores() / len(results)
        # Beside other work this is what it takes; compilation is in it.
        out["processor_seconds_per_galaxy"] = (time.process_time() - begun) / len(results)
    out |= summary(results)
    if options.photoz:
        out["photometric"], figure = photometric(results, np.asarray(table["redshift"]))
    else:
        figure = draw_masses(results)
    figure.savefig(options.output / f"{kind}.png", dpi=150)
    if options.agreement:
        n = options.agreement
        few = options.output / "few.ecsv"
        table[:n].write(few, overwrite=True)
        sampler = "".join(
            f"{k} = {json.dumps(list(v) if isinstance(v, tuple) else v)}\n"
            for k, v in REFERENCE.items()
        )
        nuts = fit_catalog(
            config(options.flow, sampler, photoz=options.photoz), few,
            options.output / f"{kind}_nuts.h5", seed=options.seed + 1, resume=True,
        )  # fmt: skip
        same = fit_catalog(
            given, few, options.output / f"{kind}_few.h5", seed=options.seed, resume=True
        )
        out["agreement"] = compare(nuts, same) | {"reference_passing": float(passing(nuts).mean())}
    printed = Printed("figure", "value")
    for name, value in out.items():
        printed.add_row(
            name, json.dumps(value, indent=1) if isinstance(value, dict) else str(value)
        )
    Console().print(printed)
    if options.json:
        Path(options.json).write_text(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
