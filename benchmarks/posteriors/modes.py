"""Evidence against analytic values, and galaxies with two redshifts: are both found, and weighed?

    python -m benchmarks.posteriors.modes --json OUT.json --figure MODES.png

The first table: linear models with Gaussian priors and noise, whose evidence is known.  The
second: mock galaxies in four optical bands with 10 % noise and a free redshift, those among
`--mocks` to which a first nested sampling gives two modes of at least 10 % each; the share of the
upper mode by every sampler, beside that of nested sampling with many more live points.
"""

from __future__ import annotations

import argparse
import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from flax import struct
from rich.console import Console
from rich.table import Table

from jaxsed import infer
from jaxsed.cli import prepare_process
from jaxsed.emulators import load_emulator
from jaxsed.likelihood import photometry
from jaxsed.problem import Problem, take
from jaxsed.workflows.mocks import mock_galaxies
from jaxsed.workflows.validate import Request, physics_of

BANDS = ("goodss_acs_f435w", "goodss_acs_f606w", "goodss_acs_f775w", "goodss_acs_f850lp")
REDSHIFT = (0.05, 3.8)
NOISE, DEPTH = 0.1, 27.5
REFERENCE_LIVE_POINTS = 600
SMALLEST_SHARE = 0.1
"""Of the lesser of two modes."""


class Line(NamedTuple):
    """Parameters of a linear model."""

    a: Any
    log_mass_formed: Any


@struct.dataclass
class Linear:
    """Fluxes linear in the parameters."""

    matrix: Any

    def __call__(self, theta: Line) -> Any:
        return self.matrix @ theta.a


def evidences(live_points: int, repeats: int = 8) -> list[dict[str, float]]:
    """Nested sampling of linear models against the evidence by linear algebra."""
    rows = []
    generator = np.random.default_rng(3)
    for dimension in (2, 5, 10):
        bands = dimension + 3
        matrix = 3.0 * generator.normal(size=(bands, dimension))
        flux = matrix @ generator.normal(size=dimension) + generator.normal(size=bands)
        total = np.eye(bands) + matrix @ matrix.T
        truth = -0.5 * flux @ np.linalg.solve(total, flux) - 0.5 * np.linalg.slogdet(total)[1]
        normal = dist.Normal(jnp.zeros(dimension), jnp.ones(dimension)).to_event(1)
        prior = jax.tree.map(
            lambda a: jnp.broadcast_to(a, (repeats, *a.shape)), Line(normal, jnp.zeros(()))
        )
        data = photometry(np.tile(flux, (repeats, 1)), np.ones((repeats, bands)), error_floor=0.0)
        problem = Problem(prior, Linear(jnp.asarray(matrix, dtype=float)), data)
        samples = infer.sample(
            jax.random.split(jax.random.key(dimension), repeats), problem,
            infer.NestedSlice(live_points=live_points, retries=0),
        )  # fmt: skip
        found = samples.diagnostics
        gap = found.log_evidence - truth
        rows.append(
            {
                "dimension": dimension, "truth": float(truth), "mean_gap": float(gap.mean()),
                "scatter": float(gap.std(ddof=1)),
                "stated_error": float(np.sqrt(np.mean(found.log_evidence_error**2))),
                "passing": float(found.passes().mean()),
            }
        )  # fmt: skip
    return rows


def photometric_redshifts(n: int, seed: int) -> Problem:
    """Mocks in four optical bands with a free redshift."""
    emulator = load_emulator("provabgs_goodss").select(BANDS)
    family, physics, _ = physics_of(emulator, Request())
    z = np.random.default_rng(seed).uniform(*REDSHIFT, n)
    mocks = mock_galaxies(jax.random.key(seed), family, physics, z, noise=NOISE, depth=DEPTH)
    free = jax.vmap(lambda low, high: family.prior(dist.Uniform(low, high)))(
        *(jnp.full(n, end) for end in REDSHIFT)
    )
    data = photometry(mocks.observed, mocks.noise, error_floor=0.0)
    return Problem(free, emulator, data)


def valley(z: np.ndarray) -> tuple[float, float]:
    """Where redshifts [draw] have their deepest gap, and the share of the draws above it; a share
    of zero if there is none."""
    count, edges = np.histogram(z, 30, range=REDSHIFT)
    best = (0.0, 0.0)
    for k in range(2, 28):
        left, right = count[:k].max(), count[k + 1 :].max()
        share = float((z > edges[k + 1]).mean())
        if count[k] < 0.1 * min(left, right) and min(share, 1 - share) > min(best[1], 1 - best[1]):
            best = (float(0.5 * (edges[k] + edges[k + 1])), share)
    return best


def main() -> None:
    """Run, print both tables, draw the redshifts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mocks", type=int, default=24)
    parser.add_argument("--shown", type=int, default=4)
    parser.add_argument("--live-points", type=int, default=200)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--json", default=None)
    parser.add_argument("--figure", default=None)
    options = parser.parse_args()
    prepare_process()

    out: dict[str, Any] = {"evidence": evidences(options.live_points), "redshift": []}
    table = Table("dimension", "true ln Z", "mean gap", "scatter of runs", "stated error")
    for row in out["evidence"]:
        table.add_row(
            str(row["dimension"]),
            *(f"{row[k]:.3f}" for k in ("truth", "mean_gap", "scatter", "stated_error")),
        )
    Console().print(table)

    problem = photometric_redshifts(options.mocks, options.seed)
    keys = jax.random.split(jax.random.key(options.seed), options.mocks)
    few = infer.NestedSlice(live_points=options.live_points, retries=0)
    many = infer.NestedSlice(live_points=REFERENCE_LIVE_POINTS, retries=0)
    first = infer.sample(keys, problem, few)
    gaps = [valley(row) for row in np.asarray(first.theta.redshift).reshape(options.mocks, -1)]
    two = [g for g, (_, share) in enumerate(gaps) if min(share, 1 - share) >= SMALLEST_SHARE]
    rows = np.array(two[: options.shown])
    print(f"{len(two)} of {options.mocks} mocks have two modes of at least {SMALLEST_SHARE:.0%}")
    if not rows.size:
        return
    found, passed, chosen = {}, {}, take(problem, rows)
    methods = {"reference": many, "hmc": infer.HMC(), "nuts": infer.NUTS(), "nested": few}
    for number, (name, method) in enumerate(methods.items()):
        own = jax.vmap(lambda k, n=number: jax.random.fold_in(k, n))(keys[rows])
        samples = infer.sample(own, chosen, method)
        found[name] = np.asarray(samples.theta.redshift).reshape(rows.size, -1)
        passed[name] = samples.diagnostics.passes()
    table = Table("mock", "valley", *found, title="share of the draws above the valley")
    for k, g in enumerate(rows):
        shares = {name: float((draws[k] > gaps[g][0]).mean()) for name, draws in found.items()}
        marks = {name: "" if passed[name][k] else " (not converged)" for name in found}
        out["redshift"].append({"mock": int(g), "valley": gaps[g][0], "share": shares})
        table.add_row(
            str(g), f"{gaps[g][0]:.2f}", *(f"{shares[name]:.3f}{marks[name]}" for name in found)
        )
    Console().print(table)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(out, file, indent=1)
    if options.figure:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(3 * rows.size, 2.6), layout="constrained")
        for k, g in enumerate(rows):
            axes = figure.add_subplot(1, rows.size, k + 1)
            for name, draws in found.items():
                axes.hist(draws[k], 60, range=REDSHIFT, density=True, histtype="step", label=name)
            axes.set_title(f"mock {g}", fontsize=9)
            axes.set_xlabel("redshift")
            axes.set_yticks([])
        figure.axes[0].legend(fontsize=8)
        figure.savefig(options.figure, dpi=150)


if __name__ == "__main__":
    main()
