"""Are the posteriors right? Ranks of true parameters in mock posteriors, and emulator against
physics.

    python benchmarks/posteriors.py --mocks 200 --pairs 20 --json OUT.json

Mocks are drawn from the prior at redshift 1 with the direct physics, in the GOODS-S bands with 5 %
noise and a sky of 28 mag, and fitted with the shipped emulator.  Ranks of the truth must be
uniform (Talts+ 2018): the table has a chi-square p-value per parameter, over all mocks and over
those that pass the bar (which may be a biased choice).  For the pairs the same galaxy is also
fitted with the direct physics: shift of medians in posterior widths, ratio of widths, and Q, the
difference of medians over the root of the summed variances (Mathews+ 2023, eq. 10).
"""

from __future__ import annotations

import argparse
import json
import time

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from jaxsed import infer, params
from jaxsed.checks import rank_pvalue, rank_statistics
from jaxsed.cli import prepare_process
from jaxsed.emulators import load_emulator
from jaxsed.problem import MAG_TO_RELATIVE, Problem, photometry
from jaxsed.sps import provabgs
from jaxsed.sps.photometry import make_filter
from jaxsed.sps.sed import galaxy_model
from jaxsed.sps.ssp import load_ssp

REDSHIFT = 1.0
NOISE = 0.05
DEPTH = 10.0 ** (-0.4 * 28.0)
"""Noise of the sky in maggies, 1 sigma: without it bands that dust puts out would be measured to
5 % as well."""


def main() -> None:
    """Run and print both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mocks", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--retries", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", default=None)
    options = parser.parse_args()
    prepare_process()

    emulator = load_emulator("provabgs_goodss")
    bands = [
        make_filter(name, curve.wave, curve.transmission)
        for name, curve in zip(emulator.band_names, emulator.record.curves, strict=True)
    ]
    physics = galaxy_model(
        provabgs.provabgs, "provabgs", load_ssp(), bands, redshift_range=(0.5, 1.5)
    )
    n = options.mocks
    key_truth, key_noise, key_fit = jax.random.split(jax.random.key(options.seed), 3)
    prior = jax.vmap(provabgs.prior)(jnp.full(n, REDSHIFT))
    own = provabgs.prior(REDSHIFT)
    truth_u = np.array(jax.random.normal(key_truth, (n, params.dimension(own))))
    truth = jax.jit(jax.vmap(lambda u: _theta_of_normals(own, u)))(jnp.asarray(truth_u))
    flux = np.asarray(jax.jit(lambda m, t: jax.lax.map(m, t, batch_size=64))(physics, truth), float)
    noise = np.hypot(NOISE * flux, DEPTH)
    noisy = flux + noise * np.asarray(jax.random.normal(key_noise, flux.shape), float)
    keys = jax.random.split(key_fit, n)
    settings = infer.Settings(retries=options.retries)

    def fit(forward, sigma, rows):
        # Errors are those of the noise-free flux, so that noise and likelihood agree exactly.
        error = np.hypot(noise[rows], MAG_TO_RELATIVE * sigma * flux[rows])
        data = photometry(noisy[rows], error, error_floor=0.0)
        part = jax.tree.map(lambda a: a[rows], prior)
        began = time.perf_counter()
        samples = infer.sample(
            keys[rows], Problem(part, forward, data), method="hmc", settings=settings
        )
        return samples, time.perf_counter() - began

    found, seconds = fit(emulator, np.asarray(emulator.error_ab.sigma), np.arange(n))
    ok = found.diagnostics.passes()
    out = {"mocks": n, "passing": float(ok.mean()), "seconds": seconds, "ranks": {}}
    table = Table(
        "parameter", "p-value of ranks, all", "those that pass", "mean rank", "rms about 1/2",
        title=f"{n} mocks, {ok.mean():.1%} pass the bar; uniform: mean 0.5, rms 0.289",
    )  # fmt: skip
    for name, values, draws in _scalars(truth, found.theta):
        flat = draws.reshape(n, -1)
        figures = {}
        for words, chosen in (("all", np.ones(n, bool)), ("passing", ok)):
            ranks = rank_statistics(values[chosen], flat[chosen], keep=99)
            bins = int(np.clip(chosen.sum() // 10, 2, 10))
            figures[words] = float(rank_pvalue(ranks, 99, bins=bins))
        share = rank_statistics(values, flat, keep=99) / 99
        figures |= {"mean": float(share.mean()), "rms": float(np.sqrt(np.mean((share - 0.5) ** 2)))}
        out["ranks"][name] = figures
        table.add_row(name, *(f"{v:.3f}" for v in figures.values()))
    Console().print(table)

    rows = np.arange(min(options.pairs, n))
    if rows.size:
        direct, seconds = fit(physics, np.zeros(len(bands)), rows)
        both = ok[rows] & direct.diagnostics.passes()
        out |= {"pairs": int(both.sum()), "pair_seconds": seconds, "agreement": {}}
        table = Table("parameter", "median |shift|/σ", "median width ratio", "max |Q|")
        mine = {name: draws for name, _, draws in _scalars(truth, found.theta)}
        for name, _, draws in _scalars(truth, direct.theta):
            a = mine[name][rows][both].reshape(both.sum(), -1)
            b = draws[both].reshape(both.sum(), -1)
            width_a, width_b = a.std(1), b.std(1)
            gap = np.median(a, 1) - np.median(b, 1)
            figures = {
                "shift": float(np.median(np.abs(gap) / width_b)),
                "width_ratio": float(np.median(width_a / width_b)),
                "q_max": float(np.max(np.abs(gap) / np.hypot(width_a, width_b))),
            }
            out["agreement"][name] = figures
            table.add_row(name, *(f"{v:.3f}" for v in figures.values()))
        Console().print(table)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(out, file, indent=1)


def _theta_of_normals(prior, u):
    """A draw from the prior: its own quantiles at Phi(u), whatever coordinates sampling uses."""
    plain = prior._replace(
        **{
            name: leaf.prior if leaf.prior is not None else leaf.base
            for name, leaf in prior._asdict().items()
            if isinstance(leaf, params.Recoordinated)
        }
    )
    return params.constrain(plain, u)[0]


def _scalars(truth, theta):
    """(name, truth [galaxy], draws [galaxy, chain, draw]) of every scalar parameter."""
    for name, value in truth._asdict().items():
        value, draws = np.asarray(value), np.asarray(getattr(theta, name))
        if name == "redshift":
            continue
        if value.ndim == 1:
            yield name, value, draws
        else:
            for k in range(value.shape[1]):
                yield f"{name}_{k + 1}", value[:, k], draws[..., k]


if __name__ == "__main__":
    main()
