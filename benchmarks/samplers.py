"""Seconds to a converged posterior: every sampler here, and the peers a user would pick.

    python benchmarks/samplers.py --targets provabgs5 goodss17 --galaxies 256 --json OUT.json
    python benchmarks/samplers.py --targets goodss17 --ablation --galaxies 64 --json OUT.json

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
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from flax import struct
from rich.console import Console
from rich.table import Table

from jaxsed import infer
from jaxsed.catalog.mocks import mock_galaxies
from jaxsed.catalog.run import COMPILING
from jaxsed.catalog.validate import Request, physics_of
from jaxsed.cli import prepare_process
from jaxsed.emulators import load_emulator
from jaxsed.infer.lanes import take
from jaxsed.likelihood import MAG_TO_RELATIVE, photometry
from jaxsed.problem import Problem

SETS = {
    "provabgs5": ("provabgs_sdss", None, (0.02, 0.3), 24.0),
    "goodss17": ("provabgs_goodss", None, (0.5, 2.0), 28.0),
    "prospector20": (
        "prospector_mathews137",
        ("galex_FUV", "galex_NUV", "sdss_u0", "sdss_g0", "sdss_r0", "sdss_i0", "sdss_z0",
         "twomass_J", "twomass_H", "twomass_Ks", "wise_w1", "wise_w2", "spitzer_irac_ch3",
         "spitzer_irac_ch4",
         "spitzer_mips_24", "herschel_pacs_70", "herschel_pacs_100", "herschel_pacs_160",
         "herschel_spire_250", "herschel_spire_350"),
        (0.05, 0.3), 24.0,
    ),
}  # fmt: skip
"""Emulator, bands, redshifts, and depth in AB magnitudes."""

NOISE = 0.05

SAMPLERS = ("hmc", "nuts", "mclmc", "chees", "ensemble_slice", "aies", "nested")
PEERS = ("zeus", "emcee", "dynesty", "nautilus")
WALKERS = {"zeus": 30, "emcee": 64}


class Toy(NamedTuple):
    """Parameters of the targets with known moments."""

    a: Any
    log_mass_formed: Any


@struct.dataclass
class Linear:
    """Fluxes linear in the parameters: a Gaussian posterior with a condition number of 1e4."""

    matrix: Any

    def __call__(self, theta: Toy) -> Any:
        return self.matrix @ theta.a


@struct.dataclass
class Bent:
    """Fluxes (a1, a2 + a1^2): a banana."""

    def __call__(self, theta: Toy) -> Any:
        return jnp.stack([theta.a[0], theta.a[1] + theta.a[0] ** 2])


def toy(name: str, n: int) -> Problem:
    """A batch of one of the targets with known moments."""
    generator = np.random.default_rng(5)
    if name == "gaussian":
        turn = np.linalg.qr(generator.normal(size=(10, 10)))[0]
        forward: Any = Linear(jnp.asarray(turn * np.logspace(0, 2, 10)[:, None], dtype=float))
        flux = generator.normal(size=(n, 10))
        error, size = np.ones_like(flux), 10
    else:
        forward, size = Bent(), 2
        flux, error = np.tile([0.0, 1.0], (n, 1)), np.tile([2.0, 0.1], (n, 1))
    prior = Toy(dist.Normal(jnp.zeros((n, size)), jnp.ones((n, size))).to_event(1), jnp.zeros(n))
    return Problem(prior, forward, photometry(flux, error, error_floor=0.0), shear=False)


def target(name: str, n: int, seed: int) -> Problem:
    """A batch of galaxies of a target."""
    if name not in SETS:
        return toy(name, n)
    source, bands, (low, high), depth = SETS[name]
    emulator = load_emulator(source)
    if bands is not None:
        emulator = emulator.select(bands)
    galaxies, physics, _ = physics_of(emulator, Request())
    z = np.random.default_rng(seed).uniform(low, high, n)
    mocks = mock_galaxies(jax.random.key(seed), galaxies, physics, z, noise=NOISE, depth=depth)
    sigma = np.nan_to_num(np.asarray(emulator.error_ab.sigma, float))
    error = np.hypot(mocks.noise, MAG_TO_RELATIVE * sigma * mocks.flux)
    data = photometry(mocks.observed, error, error_floor=0.0)
    return Problem(mocks.prior, emulator, data)


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


def cores() -> int:
    """Those this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def flops(forward: Any) -> float:
    """Of the matrix products of one call of an emulator."""
    return 2.0 * sum(a.size for a in jax.tree.leaves(forward) if jnp.ndim(a) == 2)


def measure(problem: Problem, method: str, settings: infer.Settings, seed: int) -> dict[str, Any]:
    """One sampler on a batch: time without compilation, work, and how many passed."""
    n = jax.tree.leaves(problem.data)[0].shape[0]
    keys = jax.random.split(jax.random.key(seed), n)
    start = time.perf_counter()
    with compiling() as compiled:
        samples = infer.sample(keys, problem, method=method, settings=settings)
    seconds = time.perf_counter() - start - sum(compiled)
    found = samples.diagnostics
    ess = np.minimum(found.ess_bulk.min(axis=1), found.ess_tail.min(axis=1))
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
        "lane_efficiency": samples.lane_efficiency,
        "gradients": float(found.gradients.mean()),
        "evaluations": float(found.evaluations.mean()),
        "passing_after_run": [
            float((passed & (samples.run <= r)).mean()) for r in range(samples.run.max() + 1)
        ],
        "rhat_max_worst": float(found.rhat.max()),
        "ess_min_median": float(np.median(ess)),
        "divergences": float(found.divergences.mean()),
    }


def ablations(problem: Problem, settings: infer.Settings) -> dict[str, tuple[Problem, str, Any]]:
    """The default sampler with one thing taken away at a time."""
    change = dataclasses.replace
    n = jax.tree.leaves(problem.data)[0].shape[0]
    return {
        "hmc, all of it": (problem, "hmc", settings),
        "mass not relative to its best fit": (problem.replace(shear=False), "hmc", settings),
        "diagonal metric": (problem, "hmc", change(settings, dense=False)),
        "no global moves": (
            problem, "hmc", change(settings, proposals=0, warmup_proposals=0, draws=1000),
        ),
        "own lengths (NUTS)": (problem, "nuts", settings),
        "own lengths (NUTS), no global moves": (
            problem, "nuts", change(settings, proposals=0, warmup_proposals=0, draws=1000),
        ),
        "lanes not refilled": (problem, "hmc", change(settings, lanes=max(n, 4))),
    }  # fmt: skip


# ------------------------------------------------------------------ peers


class Peer:
    """The log density of one galaxy as a peer wants it, and what it has cost."""

    def __init__(self, problem: Problem, row: int) -> None:
        one = lambda a: a[row]  # noqa: E731
        self.problem = problem.replace(
            prior=jax.tree.map(one, problem.prior), data=jax.tree.map(one, problem.data)
        )
        self.dimension = self.problem.dimension
        self.calls = 0
        self._many = jax.jit(jax.vmap(self.problem.logdensity))
        fit = jax.jit(lambda k, p: infer.laplace(k, p, starts=16))(
            jax.random.key(row), self.problem
        )
        self.mean, self.scale = np.asarray(fit.mean), np.asarray(fit.scale)

    def many(self, x: np.ndarray) -> np.ndarray:
        """Log densities of points [point, dimension], in batches of a few compiled sizes."""
        x = np.atleast_2d(x)
        size = 1 << (len(x) - 1).bit_length()
        self.calls += len(x)
        out = self._many(jnp.asarray(x[np.arange(size) % len(x)], dtype=float))
        return np.nan_to_num(np.asarray(out, float)[: len(x)], nan=-1e30, neginf=-1e30)

    def likelihood(self, x: np.ndarray) -> np.ndarray:
        """Log likelihoods [point] under a standard normal prior."""
        return self.many(x) + 0.5 * np.sum(np.atleast_2d(x) ** 2, axis=1)

    def start(self, walkers: int, seed: int) -> np.ndarray:
        """Walkers around the best fit."""
        noise = np.random.default_rng(seed).normal(size=(walkers, self.dimension))
        return self.mean + 0.5 * noise @ self.scale.T


def bar(chains: np.ndarray) -> tuple[bool, float, float]:
    """Whether draws [chain, draw, dimension] meet the bar, R-hat and the smallest ESS."""
    rhat, bulk, tail = (a[0] for a in infer.convergence(chains[None]))
    ess = float(min(bulk.min(), tail.min()))
    return bool(rhat.max() < infer.RHAT_BAR and ess >= infer.ESS_BAR), float(rhat.max()), ess


def ensemble_peer(name: str, peer: Peer, limit: float) -> tuple[bool, float, float]:
    """zeus or emcee in blocks of 500 iterations, the first half thrown away at every look."""
    walkers = max(WALKERS[name], 2 * peer.dimension + 2)
    if name == "zeus":
        import zeus

        sampler = zeus.EnsembleSampler(
            walkers, peer.dimension, peer.many, vectorize=True, verbose=False
        )
    else:
        import emcee

        sampler = emcee.EnsembleSampler(walkers, peer.dimension, peer.many, vectorize=True)
    state: Any = peer.start(walkers, 0)
    found, begun = (False, np.inf, 0.0), time.perf_counter()
    while not found[0] and time.perf_counter() - begun < limit:
        if name == "zeus":
            sampler.run_mcmc(state, 500, progress=False)
            state = None
        else:
            state = sampler.run_mcmc(state, 500, progress=False)
        every = np.swapaxes(sampler.get_chain(), 0, 1)
        half = every[:, every.shape[1] // 2 :]
        found = bar(half[:, :: max(half.shape[1] // 2000, 1)])
    return found


def nested_peer(name: str, peer: Peer, limit: float) -> tuple[bool, float, float]:
    """dynesty or nautilus with their defaults; R-hat has no meaning for weighted draws."""
    from scipy.special import ndtri

    begun = time.perf_counter()
    if name == "dynesty":
        import dynesty

        sampler = dynesty.NestedSampler(
            lambda x: float(peer.likelihood(x)[0]), ndtri, peer.dimension, nlive=400
        )
        for _ in sampler.sample(dlogz=0.05):
            if time.perf_counter() - begun > limit:
                return False, np.nan, 0.0
        for _ in sampler.add_live_points():
            pass
        weight = np.exp(sampler.results.logwt - sampler.results.logz[-1])
    else:
        from nautilus import Sampler

        sampler = Sampler(
            ndtri, peer.likelihood, peer.dimension, n_live=1000, vectorized=True,
            pass_dict=False, seed=0,
        )  # fmt: skip
        if not sampler.run(n_eff=1000, timeout=limit):
            return False, np.nan, 0.0
        weight = np.exp(sampler.posterior()[1])
    ess = float(weight.sum() ** 2 / (weight**2).sum())
    return ess >= infer.ESS_BAR, np.nan, ess


def measure_peer(problem: Problem, name: str, n: int, limit: float) -> dict[str, Any]:
    """A peer on the first galaxies."""
    run: Callable[..., Any] = ensemble_peer if name in WALKERS else nested_peer
    seconds, calls, results = [], [], []
    for row in range(n):
        peer = Peer(problem, row)
        for size in range(11):  # compiled before the clock starts
            peer.many(np.zeros((2**size, peer.dimension)))
        peer.calls, begun = 0, time.perf_counter()
        results.append(run(name, peer, limit))
        seconds.append(time.perf_counter() - begun)
        calls.append(peer.calls)
    ess = [max(r[2], 1.0) for r in results]
    passing = float(np.mean([r[0] for r in results]))
    core = float(np.mean(seconds)) * cores()
    return {
        "galaxies": n,
        "seconds_per_galaxy": float(np.mean(seconds)),
        "core_seconds_per_galaxy": core,
        "converged_per_core_hour": 3600 * passing / core,
        "share_passing": passing,
        "gradients_per_ess": 0.0,
        "evaluations_per_ess": float(np.median(np.array(calls) / ess)),
        "lane_efficiency": 1.0,
        "evaluations": float(np.mean(calls)),
        "rhat_max_worst": float(np.max([r[1] for r in results])),
        "ess_min_median": float(np.median(ess)),
        "limit_seconds": limit,
    }


# ------------------------------------------------------------------ the table


def matrix_rate(size: int = 4096) -> float:
    """Best measured rate of float32 matrix products, in FLOP/s."""
    a = jnp.ones((size, size))
    product = jax.jit(lambda a: a @ a)
    jax.block_until_ready(product(a))
    times = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(product(a))
        times.append(time.perf_counter() - start)
    return 2.0 * size**3 / min(times)


def show(title: str, rows: dict[str, dict[str, Any]]) -> None:
    """A table of one target."""
    table = Table(
        "sampler", "s / galaxy", "pass", "converged / core-hour", "gradients / ESS", "values / ESS",
        "lanes", "compile s", title=title,
    )  # fmt: skip
    for name, r in rows.items():
        table.add_row(
            name, f"{r['seconds_per_galaxy']:.3g}", f"{r['share_passing']:.1%}",
            f"{r.get('converged_per_core_hour', np.nan):.0f}", f"{r['gradients_per_ess']:.0f}",
            f"{r['evaluations_per_ess']:.0f}", f"{r['lane_efficiency']:.2f}",
            f"{r.get('compile_seconds', np.nan):.0f}",
        )  # fmt: skip
    Console().print(table)


def main() -> None:
    """Run, print, and write JSON after every row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--targets", nargs="+", default=["provabgs5", "goodss17"])
    parser.add_argument("--galaxies", type=int, default=64)
    parser.add_argument("--lane-galaxies", type=int, default=64, help="at most, for nuts and mclmc")
    parser.add_argument("--slow-galaxies", type=int, default=8, help="for samplers without lanes")
    parser.add_argument("--samplers", nargs="*", default=list(SAMPLERS), choices=infer.METHODS)
    parser.add_argument("--peer", nargs="*", default=list(PEERS), choices=PEERS)
    parser.add_argument("--peers", type=int, default=1, help="galaxies for the peers")
    parser.add_argument("--peer-seconds", type=float, default=120.0)
    parser.add_argument("--lanes", type=int, default=256)
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--retries", type=int, default=4)
    parser.add_argument("--ablation", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", default=None)
    options = parser.parse_args()
    prepare_process()

    settings = infer.Settings(lanes=options.lanes, draws=options.draws, retries=options.retries)
    out: dict[str, Any] = {
        "device": str(jax.devices()[0]), "cores": cores(), "jax": jax.__version__,
        "matrix_product_flops": matrix_rate(), "settings": dataclasses.asdict(settings),
        "targets": {},
    }  # fmt: skip
    for name in options.targets:
        rows: dict[str, Any] = {}
        out["targets"][name] = rows

        def keep(row: str, figures: dict[str, Any], rows: dict[str, Any] = rows) -> None:
            rows[row] = figures
            print(row, {k: v for k, v in figures.items() if k != "passing_after_run"}, flush=True)
            if options.json:
                with open(options.json, "w") as file:
                    json.dump(out, file, indent=1)

        problem = target(name, options.galaxies, options.seed)
        if options.ablation:
            for row, (changed, method, set_) in ablations(problem, settings).items():
                keep(row, measure(changed, method, set_, options.seed))
        else:
            for method in options.samplers:
                most = {
                    "hmc": options.galaxies,
                    **dict.fromkeys(("nuts", "mclmc"), options.lane_galaxies),
                }
                chosen = take(
                    problem,
                    np.arange(min(options.galaxies, most.get(method, options.slow_galaxies))),
                )
                keep(method, measure(chosen, method, settings, options.seed))
            for name_of in options.peer:
                figures = measure_peer(problem, name_of, options.peers, options.peer_seconds)
                keep(name_of, figures)
        show(f"{name}, {options.galaxies} galaxies", rows)


if __name__ == "__main__":
    main()
