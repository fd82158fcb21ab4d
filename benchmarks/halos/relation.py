"""The stellar-to-halo mass relation from an observed mass function, beside the UniverseMachine's.

    python -m benchmarks.halos.relation moustakas_z0.01_z0.20.smf --output OUT

The file is one of the observations that come with the UniverseMachine (Behroozi et al. 2019); its
median relation at z = 0.1, with scatter and satellites at the centres of our prior, is what the
posterior is compared with.  Differences are in posterior standard deviations.  Compile time is what
JAX reports of tracing, lowering and compiling, with no compilation cache.

Then mocks are drawn from the UniverseMachine's parameters with the uncertainties of the observed
mass function, the model's own floor among them, and sampled as one batch: truths should lie within
one and two posterior standard deviations in 68 and 95 % of cases.  The scatter and the satellites
of a mock are drawn from their priors, which say more about them than the data.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

import jaxsed
from jaxsed import halos as ha
from jaxsed import infer, params, plots
from jaxsed.cli import prepare_process
from jaxsed.halos import connection
from jaxsed.problem import Problem, stack

REDSHIFT = 0.1
OPTIONS = {"target_acceptance": 0.95, "max_tree_depth": 8}
"""Small steps: with those of the default a few trajectories diverge."""
DRAWS = 1000
"""Of every chain, for the observed mass function."""
COMPILING = ("jaxpr_trace_duration", "jaxpr_to_mlir_module_duration", "backend_compile_duration")
spent = {"compile": 0.0}


def listen(event: str, seconds: float, **_: Any) -> None:
    """Add up what JAX says that compiling took."""
    if event.endswith(COMPILING):
        spent["compile"] += seconds


@contextmanager
def timed(into: dict[str, Any]) -> Iterator[None]:
    """Write the seconds inside, and how many of them went into compiling."""
    spent["compile"], begun = 0.0, time.perf_counter()
    yield
    into["seconds"] = time.perf_counter() - begun
    into["compile_seconds"] = spent["compile"]


def quality(samples: infer.Samples) -> dict[str, Any]:
    """Convergence and cost, the worst over quantities and galaxies."""
    found = samples.diagnostics
    return {
        "method": [str(name) for name in np.atleast_1d(found.method)],
        "passes": int(found.passes().sum()),
        "rhat": float(found.rhat_max.max()),
        "ess_bulk": float(found.ess_bulk_min.min()),
        "ess_tail": float(found.ess_tail_min.min()),
        "divergences": [int(n) for n in np.atleast_1d(found.divergences)],
        "gradients": int(found.gradients.sum()),
        "values": int(found.evaluations.sum()),
        "runs": [int(n) + 1 for n in np.atleast_1d(found.run)],
        "draws": int(np.prod(samples.log_density.shape[-2:])),
    }


def quantities(samples: infer.Samples) -> dict[str, np.ndarray]:
    """[galaxy, draw] parameters and stellar masses by name; [draw] of one galaxy."""
    every = {**samples.theta._asdict(), **samples.derived}
    shape = (*samples.log_density.shape[:-2], -1)
    return {name: np.asarray(a, float).reshape(shape) for name, a in every.items()}


def truths(problem: Problem, theta: connection.Relation) -> dict[str, np.ndarray]:
    """[galaxy] the same of single thetas, or of one."""
    theta = jax.tree.map(jnp.atleast_1d, theta)
    derived = jax.vmap(problem.forward.derived)(theta)
    return {name: np.asarray(a) for name, a in {**theta._asdict(), **derived._asdict()}.items()}


def observed(problem: Problem, other: connection.Relation, seed: int, method: str) -> Any:
    """The posterior, and what there is to say about it."""
    figures: dict[str, Any] = {}
    with timed(figures):
        chosen = infer.method_of(method, **OPTIONS, draws=DRAWS)
        samples = jaxsed.sample(jax.random.key(seed), problem, chosen)
    figures |= quality(samples)
    chi2 = jax.vmap(problem.chi2)(jnp.asarray(samples.flux.reshape(-1, samples.flux.shape[-1])))
    figures["chi2"] = float(chi2.min())
    figures["chi2_universemachine"] = float(problem.chi2(problem.forward(other)))
    expected = truths(problem, other)
    figures["quantities"] = {
        name: {
            "mean": draws.mean(), "sd": draws.std(ddof=1),
            "universemachine": float(expected[name][0]),
            "difference_in_sd": (draws.mean() - float(expected[name][0])) / draws.std(ddof=1),
        }
        for name, draws in quantities(samples).items()
    }  # fmt: skip
    return samples, figures


def recovered(problems: Problem, truth: connection.Relation, seed: int, method: str) -> Any:
    """How many truths of mocks lie within one and two standard deviations, and the mean pull."""
    figures: dict[str, Any] = {}
    keys = jax.random.split(jax.random.key(seed), len(problems.data.scaled))
    with timed(figures):
        samples = jaxsed.sample(keys, problems, infer.method_of(method, **OPTIONS))
    figures |= quality(samples)
    expected = truths(problems, truth)
    figures["quantities"] = {}
    for name, draws in quantities(samples).items():
        pull = (draws.mean(axis=1) - expected[name]) / draws.std(axis=1, ddof=1)
        figures["quantities"][name] = {
            "within_1": int(np.sum(np.abs(pull) < 1)), "within_2": int(np.sum(np.abs(pull) < 2)),
            "pull": float(pull.mean()),
        }  # fmt: skip
    return figures


def mocks(
    problem: Problem, other: connection.Relation, error: np.ndarray, n: int, seed: int
) -> tuple[Problem, connection.Relation]:
    """A batch of posteriors of mass functions, and the truths [mock] that these were drawn from."""
    generator = np.random.default_rng(seed)
    u = jnp.asarray(generator.normal(size=(n, problem.dimension)))
    drawn = jax.vmap(lambda u: params.draw(problem.prior, u))(u)
    truth = jax.tree.map(lambda value: jnp.full(n, value), other)
    truth = truth._replace(scatter=drawn.scatter, ln_satellites=drawn.ln_satellites)
    phi = np.asarray(jax.vmap(problem.forward)(truth), float)
    phi += np.hypot(error, connection.FLOOR * phi) * generator.normal(size=phi.shape)
    edges = np.asarray(problem.forward.edges)
    return stack(
        [ha.connection_problem(edges, row, error, redshift=REDSHIFT) for row in phi]
    ), truth


def show(console: Console, figures: dict[str, Any], title: str) -> None:
    """One table and one line."""
    first = next(iter(figures["quantities"].values()))
    table = Table("quantity", *(name.replace("_", " ") for name in first), title=title)
    for name, row in figures["quantities"].items():
        table.add_row(
            name, *(str(v) if isinstance(v, int) else f"{v:.3f}" for v in row.values())
        )  # fmt: skip
    console.print(table)
    console.print(
        f"R-hat {figures['rhat']:.4f}, ESS {figures['ess_bulk']:.0f} bulk, "
        f"{figures['ess_tail']:.0f} tail, {sum(figures['divergences'])} divergences, "
        f"{figures['gradients']:,} gradients, {figures['values']:,} values, "
        f"{figures['seconds']:.0f} s of which {figures['compile_seconds']:.0f} s compile"
    )


def main() -> None:
    """Sample, print, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("smf", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", default=["nuts"], choices=infer.METHODS)
    parser.add_argument("--mocks", type=int, default=12, help="0: none")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    prepare_process()
    jax.monitoring.register_event_duration_secs_listener(listen)
    options.output.mkdir(parents=True, exist_ok=True)
    console = Console()
    edges, phi, error = ha.read_smf(options.smf)
    problem = ha.connection_problem(edges, phi, error, redshift=REDSHIFT)
    other = jax.tree.map(jnp.asarray, ha.universemachine(REDSHIFT))
    out: dict[str, Any] = {"device": str(jax.devices()[0])}
    for method in options.methods:
        samples, figures = observed(problem, other, options.seed, method)
        out[method] = {"observed": figures}
        show(console, figures, f"{options.smf.name}, {method}, {figures['draws']} draws")
        console.print(
            f"chi-square of {phi.size} bins: {figures['chi2']:.1f} of the best draw, "
            f"{figures['chi2_universemachine']:.1f} of the UniverseMachine"
        )
        plots.stellar_halo_relation(
            problem.forward, samples.theta, phi, error, others={"UniverseMachine": other}
        ).savefig(options.output / f"relation_{method}.png")
        if options.mocks:
            batch, truth = mocks(problem, other, error, options.mocks, options.seed)
            figures = recovered(batch, truth, options.seed + 1, method)
            out[method]["mocks"] = figures
            show(console, figures, f"{options.mocks} mocks, {figures['passes']} converge")
        (options.output / "halo_relation.json").write_text(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
