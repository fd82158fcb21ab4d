"""Samplers that a user would pick otherwise: zeus, emcee, dynesty, nautilus."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsed import infer
from jaxsed.cli import cores
from jaxsed.problem import Problem

PEERS = ("zeus", "emcee", "dynesty", "nautilus")
WALKERS = {"zeus": 30, "emcee": 64}


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
    """Whether chains [chain, draw, dimension] converged, R-hat and the smallest ESS."""
    rhat, bulk, tail = (a[0] for a in infer.convergence(chains[None]))
    ess = float(min(bulk.min(), tail.min()))
    return bool(rhat.max() < infer.RHAT_MAX and ess >= infer.ESS_MIN), float(rhat.max()), ess


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
    return ess >= infer.ESS_MIN, np.nan, ess


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
        "slot_efficiency": 1.0,
        "evaluations": float(np.mean(calls)),
        "rhat_max_worst": float(np.max([r[1] for r in results])),
        "ess_min_median": float(np.median(ess)),
        "limit_seconds": limit,
    }
